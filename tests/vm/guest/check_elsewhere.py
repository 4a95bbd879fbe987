"""IPVS in another network namespace than the checks (net_namespace_ipvs), and lvs_flush."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration
from tests.support.lvs import Farm, ipvsadm, table
from tests.support.namespaces import Network, Node, poll

FOREIGN = ["-A -t 203.0.113.9:9 -s lc", "-a -t 203.0.113.9:9 -r 198.51.100.1:80 -m -w 3"]
ALIVE, DEAD = ("127.0.0.11", 8080), ("127.0.0.12", 8080)
CHECK = "TCP_CHECK {\nconnect_timeout 3\nretry 0\ndelay_before_retry 1\nwarmup 0\n}"
OURS = ["-A -t 192.0.2.100:80 -s rr", "-a -t 192.0.2.100:80 -r 127.0.0.11:8080 -m -w 1"]


def text(namespace: str, *settings: str) -> str:
    servers = "".join(f"real_server {address} {port} {{\n{CHECK}\n}}\n" for address, port in (ALIVE, DEAD))
    service = "virtual_server 192.0.2.100 80 {\ndelay_loop 1\nlvs_sched rr\nlvs_method NAT\n"
    service += f"protocol TCP\n{servers}}}\n"
    return f"net_namespace_ipvs {namespace}\n" + configuration(service, settings=settings)


def add_foreign(node: Node) -> None:
    ipvsadm(node, *["-A", "-t", "203.0.113.9:9", "-s", "lc"])
    ipvsadm(node, *["-a", "-t", "203.0.113.9:9", "-r", "198.51.100.1:80", "-m", "-w", "3"])


@pytest.mark.parametrize("program", [Keepalived, Kad], ids=["keepalived", "kad"])
def test_services_are_there_and_checks_are_here(network: Network, program: type[Daemon]) -> None:
    here, there = network.node("here"), network.node("there")
    with contextlib.closing(Farm()) as farm:
        farm.serve(here, *ALIVE, "alive")
        for node in (here, there):
            add_foreign(node)
        with program(here, text(there.name)) as daemon:
            poll(lambda: table(there) == sorted([*OURS, *FOREIGN]), lambda: f"{table(there)}", seconds=60)
            before = daemon._pid_of("checkers")
            os.kill(before, signal.SIGKILL)
            poll(lambda: daemon._pid_of("checkers") != before, "another checker", seconds=60)
            poll(lambda: table(there) == sorted([*OURS, *FOREIGN]), lambda: f"{table(there)}", seconds=60)
            assert table(here) == FOREIGN
            daemon.stop(60)
            assert table(there) == table(here) == FOREIGN
        with program(here, text(there.name, "lvs_flush", "lvs_flush_on_stop")) as daemon:
            poll(lambda: table(there) == OURS, lambda: f"{table(there)}", seconds=60)
            add_foreign(there)
            daemon.stop(60)
        assert (table(there), table(here)) == ([], FOREIGN)
