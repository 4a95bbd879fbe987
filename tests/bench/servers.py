"""How quickly a dead server leaves; very many servers: their start, memory, what a reload of them sends,
and what it does to the adverts beside it."""

from __future__ import annotations

import time

from tests.bench.checks import PORT, Values, checker, connections, many_server
from tests.bench.stage import NotMeasuredError, Program, Watch, largest_gap, median, now_us
from tests.support.daemon import Kad, proportional_memory
from tests.support.ipvs_double import IpvsDouble, KadWithIpvs, KeepalivedWithIpvs, redirection
from tests.support.keepalived import vrrp_instance
from tests.support.lvs import Farm
from tests.support.namespaces import Network, stand_still, wait_until

TCP = "TCP_CHECK {{\nconnect_timeout 3\nwarmup {warmup}\ndelay_before_retry 1\nretry {retry}\n}}"


def services(count: int, *, delay_loop: int, retry: int = 1, changed: int = 0, warmup: int = 1) -> str:
    """``count`` real servers, ten in each virtual one; the weight of ``changed`` of them is another."""
    parts = []
    for first in range(0, count, 10):
        high, low = divmod(first // 10, 250)
        settings = f"delay_loop {delay_loop}\nlvs_sched rr\nlvs_method NAT\nprotocol TCP"
        parts.append(f"virtual_server 10.{high}.{low}.1 80 {{\n{settings}")
        for n in range(first, min(first + 10, count)):
            address = f"127.{1 + n // 62500}.{n // 250 % 250}.{n % 250 + 1}"
            weight = "weight 2\n" if n < changed else ""
            parts.append(
                f"real_server {address} {PORT} {{\n{weight}{TCP.format(retry=retry, warmup=warmup)}\n}}"
            )
        parts.append("}")
    return "\n".join(parts) + "\n"


def death_to_removal(program: Program, tries: int) -> Values:
    """A server that refuses from one moment on, at as many phases of its schedule: ms until it is removed."""
    took = []
    with Network("removal") as network:
        node = network.node("lb")
        farm = Farm()
        try:
            farm.serve(node, "127.1.0.1", PORT, "one")
            with checker(program, node, services(1, delay_loop=1)) as daemon:
                if wait_until(lambda: farm.asked["one"] > 2, 20, every=0.01) is None:
                    raise NotMeasuredError("no checks are seen")
                for number in range(tries):
                    stand_still(number / tries)
                    farm.stop(node, "127.1.0.1", PORT)
                    start = time.monotonic()
                    told = number + 1
                    if wait_until(lambda told=told: daemon.count("Removing service") >= told, 10) is None:  # type: ignore[misc]
                        raise NotMeasuredError("the server was not removed")
                    took.append((time.monotonic() - start) * 1000)
                    farm.serve(node, "127.1.0.1", PORT, "one")
                    if wait_until(lambda told=told: daemon.count("Adding service") >= told, 10) is None:  # type: ignore[misc]
                        raise NotMeasuredError("the server did not come back")
        finally:
            farm.close()
    return {"least": min(took), "median": median(took), "worst": max(took)}


def reload_beside_adverts(program: Program, count: int) -> Values:
    """One weight of ``count`` changed by a reload, beside an instance that advertises every second.

    ms until it is everywhere, the commands that IPVS was sent for it (a table that answers as IPVS does), and
    the longest silence meanwhile.
    """
    kind = KadWithIpvs if program is Kad else KeepalivedWithIpvs
    if program is not Kad and not redirection():
        raise NotMeasuredError("no compiler for what has keepalived ask the table")
    instance = vrrp_instance(state="MASTER", priority=255, version=3, addresses=("10.0.0.100/32",))
    with Network("reload") as network, IpvsDouble() as ipvs:
        one, two = network.node("one"), network.node("two")
        network.pair(one, two, "eth0")
        one.ip("addr", "add", "10.0.0.1/16", "dev", "eth0")
        two.ip("addr", "add", "10.0.0.2/16", "dev", "eth0")
        text = instance + services(count, delay_loop=60)
        with many_server(one, "tcp"), Watch(two, 1) as watch, kind(ipvs, one, text) as daemon:
            if wait_until(lambda: ipvs.size == count, 120, every=0.1) is None:
                raise NotMeasuredError(f"{ipvs.size} of {count} are in")
            if wait_until(lambda: connections(one) > count // 20, 120, every=0.1) is None:
                raise NotMeasuredError("no checks are seen")
            watch.wait_for_all(1, 20)
            stand_still(5)
            watch.clear()
            began_us, sent = now_us(), ipvs.changes
            daemon.configure(instance + services(count, delay_loop=60, changed=1))
            start = time.monotonic()
            values: Values = {}
            if isinstance(daemon, Kad):
                done = daemon.kadctl("reload")
                if done.returncode:
                    raise NotMeasuredError(done.stderr)
                values["reload"] = (time.monotonic() - start) * 1000
            else:
                daemon.reload()
                if wait_until(lambda: ipvs.changes > sent, 60, every=0.01) is not None:
                    values["reload"] = (time.monotonic() - start) * 1000
            stand_still(3)
            values["changed"] = ipvs.changes - sent
            values["gap"] = largest_gap(watch.adverts(began_us))
            return values


def many_servers(program: Program, count: int) -> Values:
    """Ten in each virtual server; hardly any is checked yet.

    kad is beside a table that answers as IPVS does: ms from its start until all of them are in, the commands
    that took, and those of a reload with one changed. Bytes of the checker's memory for each server.
    """
    with Network("many") as network, IpvsDouble() as ipvs:
        node = network.node("lb")
        text = services(count, delay_loop=3600, warmup=3600)
        if program is not Kad:
            with checker(program, node, text) as daemon:
                if wait_until(lambda: daemon.count("Activating healthchecker") >= count, 120) is None:
                    raise NotMeasuredError("not all servers are there")
                return {"memory": proportional_memory([daemon._pid_of("checkers")]) / count}
        begun = time.monotonic()
        with many_server(node, "tcp"), KadWithIpvs(ipvs, node, text) as kad:
            if wait_until(lambda: ipvs.size == count, 120) is None:
                raise NotMeasuredError(f"{ipvs.size} of {count} are in")
            values: Values = {"start": (time.monotonic() - begun) * 1000, "commands": ipvs.changes}
            stand_still(3)
            values["memory"] = proportional_memory([kad._pid_of("checkers")]) / count
            kad.configure(services(count, delay_loop=3600, warmup=3600, changed=1))
            begun, sent = time.monotonic(), ipvs.changes
            done = kad.kadctl("reload")
            if done.returncode:
                raise NotMeasuredError(done.stderr)
            values["reload"] = (time.monotonic() - begun) * 1000
            values["changed"] = ipvs.changes - sent
            return values
