"""What is measured. Each function takes the daemon to be measured and returns values by name."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.bench.stage import (
    CABLES,
    HOGS,
    NotMeasuredError,
    Program,
    Watch,
    burning,
    cables,
    largest_gap,
    many,
    median,
    now_us,
    processor_per_minute,
)
from tests.support.address_news import AddressNews
from tests.support.adverts import Sender, advert
from tests.support.capture import Advert
from tests.support.daemon import Daemon, Keepalived, descendants, proportional_memory
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Node, stand_still, wait_until

LOOK_SECONDS = 20.0
"""How long processor time is looked at."""
PARSE_LIMIT_SECONDS = 150.0
STARTS = 5
MANY = """
$ROUTER= \\
    track_file value-${BOND}-${VLAN}-${ID} { \\
        file "${_PWD}/values/${BOND}.${VLAN}.${ID}" \\
        weight -100 \\
    } \\
    vrrp_instance router-${BOND}-${VLAN}-${ID} { \\
        interface bond${BOND}.${VLAN} \\
        virtual_router_id ${ID} \\
        use_vmac vmac${BOND}.${VLAN}.${ID} \\
        virtual_ipaddress { \\
            10.${BOND}.${VLAN}.${ID}/24 \\
        } \\
        track_file { \\
            value-${BOND}-${VLAN}-${ID} \\
        } \\
    }
~SEQ(BOND, 0, 7) ~SEQ(VLAN, 0, 31) ~SEQ(ID, 1, 254) $ROUTER
"""

Values = dict[str, float]


def masters(program: Program, count: int) -> Values:
    """Start, processor time and memory of ``count`` masters (owners) at 1 s.

    Several starts: the first, after a while of something else, may have to read the program from the disk.
    """
    text = many(count, priority=255)
    starts = []
    for _ in range(STARTS - 1):
        with cables() as (one, two), Watch(two) as watch, program(one, text) as daemon:
            starts.append(start_of(watch, count))
            daemon.kill_all()
    with cables() as (one, two), Watch(two) as watch, program(one, text) as daemon:
        starts.append(start_of(watch, count))
        return {"start": median(starts), "worst": max(starts), **running(watch, daemon)}


def start_of(watch: Watch, count: int) -> float:
    """From now until all have advertised; ms."""
    started = now_us()
    watch.wait_for_all(count, 20)
    return (max(series[0].time_us for series in watch.adverts().values()) - started) / 1000


def running(watch: Watch, daemon: Daemon) -> Values:
    """What it costs once it runs, and how long it takes to stop."""
    settle(watch, daemon)
    values = {"cpu": processor_per_minute(daemon.vrrp_pid(), LOOK_SECONDS)}
    family = [daemon.pid, *descendants(daemon.pid)]
    values["memory"] = proportional_memory(family) / 1e6
    started_stop = time.monotonic()
    daemon.stop()
    values["stop"] = (time.monotonic() - started_stop) * 1000
    return values


def settle(watch: Watch, daemon: Daemon) -> None:
    """Past the second burst of announcements, five seconds after becoming master."""
    stand_still(7)
    watch.clear()
    assert daemon.process is not None
    if daemon.process.poll() is not None:
        raise NotMeasuredError(f"it left with {daemon.process.returncode}")


def backups(program: Program, count: int) -> Values:
    """Processor time of ``count`` backups at 1 s, whose masters speak at once, and spread over the second.

    At once: keepalived is all the masters. Spread: each at a time of its own, as masters that began at
    different times do; a wake-up then serves one packet.
    """
    spread = [(f"eth{i % CABLES}", spread_advert(i)) for i in range(count)]
    with cables() as (one, two), Watch(one) as watch:
        with Sender(two, spread, count), program(one, many(count, priority=100)) as daemon:
            values = {"spread": backups_cpu(daemon, watch, count)}
        remove_addresses(one, two)
        with Keepalived(two, many(count, priority=255)), program(one, many(count, priority=100)) as daemon:
            values["together"] = backups_cpu(daemon, watch, count)
    return values


def backups_cpu(daemon: Daemon, watch: Watch, count: int) -> float:
    watch.clear()
    watch.wait_for_all(count, 20)
    settle(watch, daemon)
    value = processor_per_minute(daemon.vrrp_pid(), LOOK_SECONDS)
    if watch.adverts(outgoing=True):
        raise NotMeasuredError("a backup advertised")
    return value


def spread_advert(index: int) -> bytes:
    """The advertisement of the master of the instance with this index (see :func:`many`)."""
    cable, vrid = index % CABLES, index // CABLES + 1
    return advert(
        source=f"10.{cable}.0.2", vip=f"10.{cable}.100.{vrid}", vrid=vrid, priority=200, interval_us=1_000_000
    )


def remove_addresses(*nodes: Node) -> None:
    """What a killed daemon left."""
    for node in nodes:
        for cable in range(CABLES):
            node.ip("addr", "flush", "dev", f"eth{cable}", "to", f"10.{cable}.100.0/24")


def pair_text(priority: int, advert_int: float) -> str:
    return configuration(vrrp_instance(version=3, priority=priority, advert_int=advert_int))


def pair_addresses(one: Node, two: Node) -> None:
    one.ip("addr", "add", "192.0.2.1/24", "dev", "eth0")
    two.ip("addr", "add", "192.0.2.2/24", "dev", "eth0")


def spoken(watch: Watch, since_us: int, *, outgoing: bool) -> list[Advert]:
    return watch.adverts(since_us, outgoing=outgoing).get((0, 51), [])


def first_spoken(watch: Watch, since_us: int, seconds: float, *, outgoing: bool) -> Advert:
    if wait_until(lambda: bool(spoken(watch, since_us, outgoing=outgoing)), seconds) is None:
        raise NotMeasuredError("the peer did not take over" if outgoing else "the master is silent")
    return spoken(watch, since_us, outgoing=outgoing)[0]


def elect(high: Daemon, low: Daemon, watch: Watch, advert_int: float) -> None:
    """Both run, the higher one is master and has said so twice to a backup that listens."""
    high.start()
    high.wait_for("(VI_1) Entering MASTER STATE")
    low.start()
    low.wait_for("(VI_1) Entering BACKUP STATE")
    since = now_us()
    if wait_until(lambda: len(spoken(watch, since, outgoing=False)) > 2, 3 + 5 * advert_int) is None:
        raise NotMeasuredError("the master does not advertise")


def take_over(program: Program, advert_int: float, tries: int) -> Values:
    """After kill -9 of the master's whole daemon: how much later than 3 intervals and the skew, in ms.

    And after an orderly stop: how much later than the skew.
    """
    killed, stopped = [], []
    skew_us = (256 - 100) / 256 * advert_int * 1e6
    with cables(1) as (one, two), Watch(two, 1) as watch:
        pair_addresses(one, two)
        for attempt in range(2 * tries):
            watch.clear()
            high = program(one, pair_text(150, advert_int))
            low = program(two, pair_text(100, advert_int))
            try:
                elect(high, low, watch, advert_int)
                moment = now_us()
                if attempt % 2:
                    high.stop()
                else:
                    high.kill_all()
                first = first_spoken(watch, moment, 5 * advert_int + 1, outgoing=True).time_us
                last = [x for x in spoken(watch, 0, outgoing=False) if x.time_us < first][-1]
                due = skew_us if attempt % 2 else skew_us + 3e6 * advert_int
                (stopped if attempt % 2 else killed).append((first - last.time_us - due) / 1000)
            finally:
                high.close()
                low.close()
                for node in (one, two):
                    node.ip("addr", "flush", "dev", "eth0", "to", "192.0.2.100/32")
    return {"killed": median(killed), "worst": max(killed), "stopped": median(stopped)}


def lost_child(program: Program, tries: int) -> Values:
    """kill -9 of the VRRP process of a master at 0.1 s: ms to its next advert; how often the peer took over,
    and how often the address left.

    A fresh daemon for each try, so that no back-off from the try before applies; the blows are spread evenly
    between two adverts.
    """
    silences, taken, left = [], 0, 0
    with cables(1) as (one, two), Watch(two, 1) as watch:
        pair_addresses(one, two)
        for attempt in range(tries):
            watch.clear()
            high, low = program(one, pair_text(150, 0.1)), program(two, pair_text(100, 0.1))
            try:
                elect(high, low, watch, 0.1)
                stand_still(0.1 * attempt / tries)
                with AddressNews(one) as news:
                    moment = now_us()
                    os.kill(high.vrrp_pid(), signal.SIGKILL)
                    silences.append((first_spoken(watch, moment, 6, outgoing=False).time_us - moment) / 1000)
                    stand_still(0.5)
                    taken += bool(spoken(watch, moment, outgoing=True))
                    left += bool(news.removed())
            finally:
                high.close()
                low.close()
                for node in (one, two):
                    node.ip("addr", "flush", "dev", "eth0", "to", "192.0.2.100/32")
    return {"silence": median(silences), "worst": max(silences), "taken": taken, "left": left}


def reload_one_of_many(program: Program, count: int) -> Values:
    """One address of ``count`` instances changed: ms until it is there, longest silence, masterships lost."""
    with cables() as (one, two), Watch(two) as watch, program(one, many(count, priority=255)) as daemon:
        watch.wait_for_all(count, 20)
        settle(watch, daemon)
        watch.wait_for_all(count, 5)
        last = count - 1
        address = f"10.{last % CABLES}.200.{last // CABLES + 1}"
        daemon.configure(many(count, priority=255, changed=True))
        moment = time.monotonic()
        daemon.reload()
        if wait_until(lambda: one.holds(address), 15, every=0.02) is None:
            raise NotMeasuredError("the address was not changed")
        applied = (time.monotonic() - moment) * 1000
        stand_still(2.5)
        lost = daemon.count("Entering BACKUP STATE") - daemon.count("Entering BACKUP STATE (init)")
        return {"applied": applied, "gap": largest_gap(watch.adverts()), "lost": lost}


def cadence(program: Program, *, hogs: bool) -> Values:
    """A master at 10 ms, its processors its own or not: the times between two of its adverts, in ms."""
    text = configuration(vrrp_instance(version=3, state="MASTER", priority=255, advert_int=0.01))
    with cables(1) as (one, two), Watch(two, 1) as watch:
        pair_addresses(one, two)
        with program(one, text) as daemon, burning(HOGS if hogs else 0):
            watch.wait_for_all(1, 20)
            settle(watch, daemon)
            stand_still(LOOK_SECONDS)
            times = [each.time_us / 1000 for each in spoken(watch, 0, outgoing=False)]
    gaps = sorted(after - before for before, after in itertools.pairwise(times))
    if not gaps:
        raise NotMeasuredError("the master is silent")
    return {"mean": sum(gaps) / len(gaps), "p99": gaps[len(gaps) * 99 // 100], "worst": gaps[-1]}


def reload_adds_vmacs(program: Program, count: int) -> Values:
    """A reload adds so many VMACs beside a master at 10 ms: its longest silence, and how long it takes."""
    first = vrrp_instance(version=3, state="MASTER", priority=255, advert_int=0.01)
    more = [
        vrrp_instance(
            f"VMAC_{vrid}",
            interface="eth1",
            vrid=vrid,
            version=3,
            extra=("use_vmac",),
            addresses=[f"10.1.100.{vrid}/32"],
        )
        for vrid in range(1, count + 1)
    ]
    with cables(2) as (one, two), Watch(two, 1) as watch:
        pair_addresses(one, two)
        with program(one, configuration(first)) as daemon:
            watch.wait_for_all(1, 20)
            settle(watch, daemon)
            daemon.configure(configuration(first, *more))
            moment = time.monotonic()
            daemon.reload()
            if wait_until(lambda: one.ip("link", "show").count("vrrp.") >= count, 60, every=0.05) is None:
                raise NotMeasuredError("the VMACs were not made")
            made = (time.monotonic() - moment) * 1000
            stand_still(3)
            return {"gap": largest_gap(watch.adverts()), "made": made}


def parse_many(program: Program) -> Values:
    """``-t`` of 65,024 instances made by one loop, their interfaces there; s and MB."""
    with cables(1) as (one, _), tempfile.TemporaryDirectory() as directory:
        Path(directory, "values").mkdir()
        file = Path(directory, "many.conf")
        file.write_text(MANY)
        links = [f"link add bond{i}.{n} type veth peer name p{i}.{n}" for i in range(8) for n in range(32)]
        batch = Path(directory, "links")
        batch.write_text("\n".join(links) + "\n")
        one.ip("-batch", str(batch))
        start = time.monotonic()
        process = one.start(
            [program.program, "-t", "-f", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        ended: dict[str, float] = {}

        def has_ended() -> bool:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                ended["memory"] = usage.ru_maxrss / 1000
            return bool(pid)

        took = wait_until(has_ended, PARSE_LIMIT_SECONDS, every=0.01)
        if took is None or process.returncode:
            raise NotMeasuredError(f"-t: status {process.returncode} after {time.monotonic() - start:.0f} s")
        return {"took": took} | ended


def config_test(program: Program, servers: int, tries: int = 5) -> Values:
    """``-t`` of a file with this many real servers, ten a virtual one; ms."""
    with cables(1) as (one, _), tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "servers.conf")
        file.write_text(configuration(*(virtual_server(i) for i in range(servers // 10))))
        took = []
        for _ in range(tries):
            start = time.monotonic()
            done = one.run([program.program, "-t", "-f", str(file)], check=False)
            took.append((time.monotonic() - start) * 1000)
            if done.returncode:
                raise NotMeasuredError(f"-t: status {done.returncode}\n{done.stderr[:300]}")
        return {"took": median(took)}


def virtual_server(index: int) -> str:
    high, low = divmod(index, 250)
    servers = "\n".join(
        f"real_server 10.{high}.{low}.{n} 80 {{\nweight 1\nHTTP_GET {{\n"
        f"url {{\npath /\nstatus_code 200\n}}\nconnect_timeout 3\n}}\n}}"
        for n in range(1, 11)
    )
    head = "delay_loop 6\nlvs_sched rr\nlvs_method NAT\nprotocol TCP"
    return f"virtual_server 192.168.{high}.{low + 1} 80 {{\n{head}\n{servers}\n}}\n"


def version(program: Program) -> str:
    done = subprocess.run([program.program, "-v"], capture_output=True, text=True, check=False)
    return ((done.stderr or done.stdout).splitlines() or ["?"])[0]
