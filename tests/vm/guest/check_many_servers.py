"""Very many real servers: all of them in the kernel, and a reload that sends what has changed.

How long it takes is printed; under emulation it says little. KAD_SERVERS: how many.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator

import pytest

from kad.ipc.client import NoAnswer, NoDaemon
from tests.support.control import status_of
from tests.support.daemon import Kad
from tests.support.lvs import Farm, ipvsadm
from tests.support.namespaces import Network, Node, poll

SERVERS, EACH = int(os.environ.get("KAD_SERVERS", "200")), 10
PATIENCE_S = 180


def configuration(changed: int = 0) -> str:
    """The weight of the first ``changed`` servers is another. The first checks are spread over an hour."""
    parts = ["global_defs {\nrouter_id test\n}"]
    for number in range(SERVERS // EACH):
        high, low = divmod(number, 250)
        settings = "delay_loop 3600\nlvs_sched rr\nlvs_method NAT\nprotocol TCP"
        parts.append(f"virtual_server 10.1.{high}.{low} 80 {{\n{settings}")
        for n in range(EACH):
            weight = 2 if number * EACH + n < changed else 1
            check = "TCP_CHECK {\nconnect_timeout 30\n}"
            place = f"10.2.{high}.{low} {8000 + n}"
            parts.append(f"real_server {place} {{\nweight {weight}\n{check}\n}}")
        parts.append("}")
    return "\n".join(parts) + "\n"


def commands(daemon: Kad) -> int:
    """Sent to IPVS so far, to change something; -1 while the checker has not said."""
    with contextlib.suppress(NoDaemon, NoAnswer):
        report = status_of(daemon).reports.get("check")
        return int(report["process"]["counters"]["ipvs_commands"]) if report else -1
    return -1


def is_applied(daemon: Kad) -> bool:
    """Every process runs the first generation: IPVS has answered all that came of it."""
    with contextlib.suppress(NoDaemon, NoAnswer):
        status = status_of(daemon)
        return status.generation == 1 and status.applied_everywhere
    return False


def entries(node_text: str) -> int:
    return sum(line.startswith("-a") for line in node_text.splitlines())


@pytest.fixture
def node(network: Network) -> Iterator[Node]:
    """Where every server's address answers."""
    made = network.node("lb")
    made.ip("route", "add", "local", "10.2.0.0/16", "dev", "lo")
    farm = Farm()
    for n in range(EACH):
        farm.serve(made, "0.0.0.0", 8000 + n, "any")
    yield made
    farm.close()


def test_only_what_differs_is_sent(node: Node) -> None:
    begun = time.monotonic()
    with Kad(node, configuration()) as daemon:
        poll(lambda: is_applied(daemon), lambda: daemon.said()[-5000:], seconds=PATIENCE_S, every=0.5)
        started = time.monotonic() - begun
        all_of_it = SERVERS + SERVERS // EACH
        # A report is what was last said; one may be late.
        poll(
            lambda: commands(daemon) == all_of_it,
            lambda: f"{commands(daemon)}\n{daemon.said()[-5000:]}",
            seconds=PATIENCE_S,
            every=0.2,
        )
        assert entries(ipvsadm(node, "-Sn")) == SERVERS
        daemon.configure(configuration(changed=1))
        begun = time.monotonic()
        daemon.reload_surely(PATIENCE_S)
        reloaded = time.monotonic() - begun
        poll(
            lambda: commands(daemon) == all_of_it + 1,
            lambda: f"{commands(daemon)}\n{daemon.said()[-5000:]}",
            seconds=PATIENCE_S,
            every=0.2,
        )
        assert "-a -t 10.1.0.0:80 -r 10.2.0.0:8000 -m -w 2" in ipvsadm(node, "-Sn")
        print(f"{SERVERS} servers: start {started:.1f} s, reload {reloaded:.1f} s")
        shown = daemon.kadctl("status", "--json")
        assert len(json.loads(shown.stdout)["virtual_servers"]) == SERVERS // EACH
        begun = time.monotonic()
        assert daemon.stop(PATIENCE_S) == 0
        print(f"stop {time.monotonic() - begun:.1f} s")
        assert entries(ipvsadm(node, "-Sn")) == 0
