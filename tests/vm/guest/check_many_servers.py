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
from tests.support.namespaces import Network, Node, poll, wait_until

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


def counted(daemon: Kad) -> tuple[int, int]:
    """The checker's process id, and what it has sent to IPVS so far to change something; -1 while it has not
    said."""
    pid = daemon._pid_of("checkers")
    with contextlib.suppress(NoDaemon, NoAnswer):
        report = status_of(daemon).reports.get("check")
        if report and report["process"].get("counters"):
            return pid, int(report["process"]["counters"]["ipvs_commands"])
    return pid, -1


def sent(daemon: Kad, life: int, wanted: int) -> bool:
    """Whether ``wanted`` commands were sent by this life of the checker, and no more; False when it has been
    replaced, just now or so that what was counted before is not its own."""
    # A report is what was last said; one may be late, or of the life before. Each costs the checker time.
    seen = (life, -1)

    def enough() -> bool:
        nonlocal seen
        seen = counted(daemon)
        return seen[0] != life or seen[1] >= wanted

    wait_until(enough, PATIENCE_S / 3, every=0.5)
    if seen[0] == life == daemon._pid_of("checkers") and seen[1] >= wanted:
        assert seen[1] == wanted
        return True
    return False


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


def one_change_is_one_command(node: Node, daemon: Kad, number: int) -> bool:
    """A reload with the weight of one more server; False when the checker was replaced meanwhile."""
    life, before = poll(
        lambda: (now := counted(daemon)) and now[1] >= 0 and now, "a count", seconds=PATIENCE_S, every=0.5
    )
    daemon.configure(configuration(changed=number + 1))
    daemon.reload_surely(PATIENCE_S)
    line = f"-a -t 10.1.0.0:80 -r 10.2.0.0:{8000 + number} -m -w 2"
    poll(lambda: line in ipvsadm(node, "-Sn"), line, seconds=PATIENCE_S, every=0.2)
    return sent(daemon, life, before + 1)


def test_only_what_differs_is_sent(node: Node) -> None:
    begun = time.monotonic()
    with Kad(node, configuration()) as daemon:
        life = daemon._pid_of("checkers")
        poll(lambda: is_applied(daemon), lambda: daemon.said()[-5000:], seconds=PATIENCE_S, every=0.5)
        print(f"{SERVERS} servers: start {time.monotonic() - begun:.1f} s")
        assert entries(ipvsadm(node, "-Sn")) == SERVERS
        started = sent(daemon, life, SERVERS + SERVERS // EACH)
        assert started or daemon._pid_of("checkers") != life, counted(daemon)
        # Where even a second is too short for a checker, it is replaced as one that hangs, and counts anew.
        reloads = (one_change_is_one_command(node, daemon, number) for number in range(5))
        assert any(reloads), daemon.said()[-5000:]
        # Where everything is slow, a process may answer too late.
        shown = poll(lambda: daemon.kadctl("status", "--json").stdout, "a status", seconds=PATIENCE_S)
        assert len(json.loads(shown)["virtual_servers"]) == SERVERS // EACH
        begun = time.monotonic()
        assert daemon.stop(PATIENCE_S) == 0
        print(f"stop {time.monotonic() - begun:.1f} s")
        assert entries(ipvsadm(node, "-Sn")) == 0
