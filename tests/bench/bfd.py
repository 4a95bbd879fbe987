"""BFD measured: processor time beside keepalived, how soon a loss is acted on, lateness, capacity.

``python -m tests.bench bfd-cpu-100x10 …``; the parts that keepalived has no counterpart for show kad alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kad.config.model.bfd import BfdInstance
from kad.runtime.driver import Lateness
from tests.bench.stage import HOGS, NotMeasuredError, Program, burning, median, processor_per_minute
from tests.support.bfd_node import BfdNode
from tests.support.bfd_subscriber import Subscriber
from tests.support.capture import Capture, Frame
from tests.support.control import status_of
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Network, Node, stand_still, wait_until

Values = dict[str, float]

LOOK_SECONDS = 10.0
LOSSES = 10
REALTIME = ("chrt", "-f", "10")
"""Both are measured so: a daemon that has to wait for the processor, on a machine with other work, finds more
to do at once and uses less of it."""
ORDINARY = ("chrt", "-o", "0")
"""Whatever the bench itself runs at."""


def our_address(index: int) -> str:
    return f"10.{index // 250}.{index % 250}.1"


def their_address(index: int) -> str:
    return f"10.{index // 250}.{index % 250}.2"


@contextlib.contextmanager
def field(count: int) -> Iterator[tuple[Node, Node]]:
    """Two nodes on one cable, with an address for each session."""
    with Network("bfd") as network:
        ours, theirs = network.node("ours"), network.node("theirs")
        network.pair(ours, theirs)
        ends = ((ours, our_address), (theirs, their_address))
        for (node, address), (other, neighbor) in zip(ends, reversed(ends), strict=True):
            # The kernel keeps a thousand neighbours of all namespaces together, unless they are permanent.
            mac = other.mac("eth0")
            batch = "".join(
                f"addr add {address(index)}/24 dev eth0\n"
                f"neigh add {neighbor(index)} lladdr {mac} nud permanent dev eth0\n"
                for index in range(count)
            )
            with node.entered():
                subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
        yield ours, theirs


def text(count: int, interval_ms: int, *, ours: bool) -> str:
    here, there = (our_address, their_address) if ours else (their_address, our_address)
    return "".join(
        f"bfd_instance s{index} {{\nneighbor_ip {there(index)}\nsource_ip {here(index)}\n"
        f"min_rx {interval_ms}\nmin_tx {interval_ms}\nmultiplier 3\n}}\n"
        for index in range(count)
    )


def await_up(daemon: Daemon, count: int, seconds: float = 30) -> None:
    """All sessions have been up at some time."""

    def up() -> bool:
        return sum(") Entering Up state" in line for line in daemon.said().splitlines()) >= count

    if wait_until(up, seconds, every=0.1) is None:
        raise NotMeasuredError(f"not all {count} sessions came up: {daemon.said()[-500:]}")


def cpu(program: Program, count: int, interval_ms: int) -> Values:
    """Processor seconds a minute of the BFD process, and how often a session was lost meanwhile."""
    with (
        field(count) as (ours, theirs),
        Keepalived(theirs, text(count, interval_ms, ours=False), wrapper=REALTIME) as peer,
        program(ours, text(count, interval_ms, ours=True), wrapper=REALTIME) as daemon,
    ):
        await_up(daemon, count)
        await_up(peer, count)
        stand_still(2)
        losses = daemon.count(") Entering Down state")
        used = processor_per_minute(daemon._pid_of("bfd"), LOOK_SECONDS)
        return {"cpu": used, "lost": daemon.count(") Entering Down state") - losses}


def capacity(program: Program, counts: dict[Program, int], interval_ms: int) -> Values:
    """How many neighbours at this interval half a core carries, going by about as many (``counts``).

    The neighbour is kad: keepalived could not be it.
    """
    count = counts[program]
    with (
        field(count) as (ours, theirs),
        Kad(theirs, text(count, interval_ms, ours=False), wrapper=REALTIME) as peer,
        program(ours, text(count, interval_ms, ours=True), wrapper=REALTIME) as daemon,
    ):
        peer.wait_for("bfd: STARTING → RUNNING")
        wait_until(lambda: sessions_up(peer) == count, 60, every=0.5)
        # Past the poll sequences and what else follows the start.
        stand_still(3)
        losses = times_down(peer)
        used = processor_per_minute(daemon._pid_of("bfd"), LOOK_SECONDS)
        if sessions_up(peer) < count:
            raise NotMeasuredError(f"{count - sessions_up(peer)} of {count} sessions are not up")
        return {"carried": count * 30 / used, "cpu": used, "lost": times_down(peer) - losses}


def sessions_of(kad: Kad) -> list[dict[str, Any]]:
    """Of so many the log does not tell everything."""
    report = status_of(kad).reports.get("bfd")
    return list(report["sessions"]) if report else []


def sessions_up(kad: Kad) -> int:
    return sum(session["state"] == "UP" for session in sessions_of(kad))


def times_down(kad: Kad) -> int:
    return sum(session["counters"]["times_down"] for session in sessions_of(kad))


# A loss, acted on ---------------------------------------------------------------------------------------


def act(program: Program, interval_ms: int, *, realtime: bool = True) -> Values:
    """From the neighbour's last packet until the VRRP process says priority 0, less detection time; ms.

    ``realtime``: of the measured daemon. The neighbour is real time always.
    """
    late = []
    wrapper = REALTIME if realtime else ORDINARY
    with Network("bfd") as network:
        ours, theirs = network.node("ours"), network.node("theirs")
        network.pair(ours, theirs)
        network.pair(ours, theirs, "eth1")
        for node, host in ((ours, 1), (theirs, 2)):
            node.ip("addr", "add", f"10.0.0.{host}/24", "dev", "eth0")
            node.ip("addr", "add", f"192.0.2.{host}/24", "dev", "eth1")
        tracking = vrrp_instance(
            interface="eth1", version=3, priority=200, advert_int=0.1, extra=("track_bfd {", "s0", "}")
        )
        mine = configuration(text(1, interval_ms, ours=True), tracking)
        with Capture(ours, "eth0") as bfd, Capture(theirs, "eth1") as vrrp:
            for _ in range(LOSSES):
                with (
                    Keepalived(theirs, text(1, interval_ms, ours=False), wrapper=REALTIME),
                    program(ours, mine, wrapper=wrapper) as daemon,
                ):
                    daemon.wait_for("(VI_1) Entering MASTER STATE", seconds=15)
                    stand_still(1.5)
                    late.append(lose(theirs, bfd, vrrp) - 3 * interval_ms)
                theirs.set_link("eth0", "up")
    return {"late": median(late), "worst": max(late)}


def lose(theirs: Node, bfd: Capture, vrrp: Capture) -> float:
    """Silence the neighbour; ms from its last packet to the first advertisement with priority 0."""
    bfd.clear()
    vrrp.clear()
    stand_still(0.2)
    # Its packets stop, and nothing else is told of it: no carrier goes down on our side.
    theirs.run(
        [
            "nft",
            "add table inet bench; add chain inet bench out { type filter hook output priority 0; };"
            " add chain inet bench in { type filter hook input priority 0; };"
            " add rule inet bench out udp dport 3784 drop; add rule inet bench in udp dport 3784 drop",
        ]
    )
    try:
        if wait_until(lambda: any(a.priority == 0 for a in vrrp.adverts()), 3) is None:
            raise NotMeasuredError("the VRRP process did not act")
        spoke_us = next(a.time_us for a in vrrp.adverts() if a.priority == 0)
        last_us = max(f.time_us for f in bfd.drain() if is_udp(f) and not f.outgoing)
        return (spoke_us - last_us) / 1000
    finally:
        theirs.run(["nft", "delete table inet bench"])


def is_udp(frame: Frame) -> bool:
    return frame.ethertype == 0x0800 and frame.data[23] == 17


# kad alone ----------------------------------------------------------------------------------------------


def sessions(count: int, interval_ms: int, *, ours: bool) -> tuple[BfdInstance, ...]:
    here, there = (our_address, their_address) if ours else (their_address, our_address)
    return tuple(
        BfdInstance(
            f"s{index}",
            there(index),
            source_address=here(index),
            min_rx_us=interval_ms * 1000,
            min_tx_us=interval_ms * 1000,
            multiplier=3,
        )
        for index in range(count)
    )


def only_kad(program: Program) -> None:
    if program is not Kad:
        raise NotMeasuredError("kad's own link; see bfd-act for both")


def told(program: Program, interval_ms: int, *, realtime: bool = True) -> Values:
    """From the neighbour's last packet until a subscriber process is told, beyond the detection time; ms."""
    only_kad(program)
    late = []
    with field(1) as (ours, theirs), Capture(ours, "eth0") as wire:
        mine = BfdNode(ours, *sessions(1, interval_ms, ours=True))
        peer = BfdNode(theirs, *sessions(1, interval_ms, ours=False))
        with mine, peer, Subscriber(mine, "s0") as subscriber:
            mine.start()
            for _ in range(LOSSES * 2):
                peer.start()
                make_realtime(peer.pid, *((mine.pid, subscriber.pid) if realtime else ()))
                if not realtime:
                    make_ordinary(mine.pid, subscriber.pid)
                subscriber.knows("s0", True)
                stand_still(0.3)
                wire.clear()
                stand_still(0.1)
                peer.kill()
                told_us = subscriber.knows("s0", False)
                heard = [f.time_us for f in wire.drain() if is_udp(f) and not f.outgoing]
                offset_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000
                if heard:
                    late.append((told_us + offset_us - heard[-1]) / 1000 - 3 * interval_ms)
                peer.journal.records(next(iter(peer.journal._areas))).clear()
    return {"late": median(late), "worst": max(late)}


def make_realtime(*pids: int) -> None:
    for pid in pids:
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(10))


def make_ordinary(*pids: int) -> None:
    for pid in pids:
        os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


def hung(program: Program, interval_ms: int) -> Values:
    """From SIGSTOP of the BFD process until a subscriber process is told; ms."""
    only_kad(program)
    took = []
    with field(1) as (ours, theirs):
        mine = BfdNode(ours, *sessions(1, interval_ms, ours=True))
        peer = BfdNode(theirs, *sessions(1, interval_ms, ours=False))
        with mine, peer, Subscriber(mine, "s0") as subscriber:
            mine.start()
            peer.start()
            make_realtime(mine.pid, peer.pid, subscriber.pid)
            for _ in range(LOSSES):
                subscriber.knows("s0", True)
                stand_still(0.2)
                stopped_us = time.monotonic_ns() // 1000
                mine.signal(signal.SIGSTOP)
                took.append((subscriber.knows("s0", False) - stopped_us) / 1000)
                mine.signal(signal.SIGCONT)
    return {"took": median(took), "worst": max(took)}


def lateness(program: Program, *, hogs: bool, realtime: bool) -> Values:
    """How late the loop came to its deadlines with 10 neighbours at 10 ms; microseconds."""
    only_kad(program)
    with field(10) as (ours, theirs), Keepalived(theirs, text(10, 10, ours=False)):
        mine = BfdNode(ours, *sessions(10, 10, ours=True))
        kept = Path(mine.directory, "lateness")
        with keeping(kept), mine, burning(HOGS if hogs else 0):
            mine.start()
            mine.becomes("Up", "s0", seconds=15)
            if realtime:
                make_realtime(mine.pid)
            stand_still(8)
            mine.stop()
            found = sorted(map(int, kept.read_text().split()))
    return {"p50": found[len(found) // 2], "p99": found[len(found) * 99 // 100], "worst": found[-1]}


@contextlib.contextmanager
def keeping(path: Path) -> Iterator[None]:
    """Children forked meanwhile write every lateness of theirs to a file."""
    original = Lateness.count

    def count(self: Lateness, late_us: int) -> None:
        original(self, late_us)
        with path.open("a") as file:
            file.write(f"{late_us}\n")

    Lateness.count = count  # type: ignore[method-assign]
    try:
        yield
    finally:
        Lateness.count = original  # type: ignore[method-assign]
