"""Every numeric keyword at the ends of its range: what is accepted runs, and ends nobody's life."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

import pytest

from kad.config.grammar.bfd import BFD_INSTANCE
from kad.config.grammar.check import REAL_SERVER, VIRTUAL_SERVER
from kad.config.grammar.globals import GLOBAL_DEFS
from kad.config.grammar.vrrp import VRRP_INSTANCE
from kad.config.schema import Block
from tests.support.control import status_of, wait_for_generation
from tests.support.daemon import Kad
from tests.support.extremes import is_accepted, statements_of
from tests.support.ipvs_double import IpvsDouble, KadWithIpvs
from tests.support.namespaces import Network

pytestmark = pytest.mark.root

DEADLY = {f"{role}_rlimit_{name}" for role in ("vrrp", "checker", "bfd") for name in ("rttime", "rtime")}
"""At its least the kernel ends the process, as the file asks."""


def instance(number: int, line: str) -> str:
    return f"""vrrp_instance I{number} {{
        interface eth0
        virtual_router_id {number + 1}
        {line}
        virtual_ipaddress {{
            192.0.2.{number + 1}
        }}
    }}
    """


def virtual_server(number: int, line: str) -> str:
    return service(number, f"{line}\n", "")


def real_server(number: int, line: str) -> str:
    return service(256 + number, "", f"{line}\n")


def checker(number: int, line: str) -> str:
    kind, _, line = line.partition(" ")
    return service(512 + number, "", "", kind, f"{line}\n")


def service(number: int, own: str, servers: str, kind: str = "TCP_CHECK", checkers: str = "") -> str:
    address = ipaddress.ip_address("10.0.0.1") + number
    return f"""virtual_server {address} 80 {{
        lvs_sched rr
        lvs_method NAT
        protocol TCP
        {own}
        real_server 192.0.2.201 80 {{
            {servers}
            {kind} {{
                {checkers}
            }}
        }}
    }}
    """


def session(number: int, line: str) -> str:
    return f"""bfd_instance B{number} {{
        neighbor_ip 192.0.2.{number + 1}
        source_ip 192.0.2.202
        {line}
    }}
    """


def checker_statements() -> Iterator[str]:
    for row in REAL_SERVER.rows:
        if row.kind.block is not None and row.name.endswith(("_CHECK", "_GET")):
            yield from (f"{row.name} {line}" for line in statements_of(row.kind.block))


def blocks(write: Callable[[int, str], str], lines: list[str]) -> list[str]:
    written = (write(number, line) for number, line in enumerate(lines))
    return [text for text in written if is_accepted(text)]


def everything() -> str:
    def of(block: Block) -> list[str]:
        return list(statements_of(block))

    found = [
        *blocks(instance, of(VRRP_INSTANCE)),
        *blocks(virtual_server, of(VIRTUAL_SERVER)),
        *blocks(real_server, of(REAL_SERVER)),
        *blocks(checker, list(checker_statements())),
        *blocks(session, of(BFD_INSTANCE)),
    ]
    assert len(found) > 150, "the ranges are known"
    return "\n".join(found)


def stays(daemon: Kad) -> None:
    """No process ends before it is told to, through two reloads."""

    def lives() -> dict[str, int]:
        return {process.role: process.incarnation for process in status_of(daemon).processes}

    daemon.wait_for("generation 1 is committed")
    wait_for_generation(daemon, 1)
    assert set(lives().values()) == {1}
    assert daemon.kadctl("reload").returncode == 0, daemon.said()
    daemon.configure(daemon.config.read_text() + "\n")
    assert daemon.kadctl("reload", "--force").returncode == 0, daemon.said()
    assert set(lives().values()) == {1}
    assert daemon.stop() == 0
    assert not daemon.count("BACKOFF"), daemon.said()


def test_every_number_at_its_ends_runs(network: Network) -> None:
    node = network.node("one")
    node.attach(network.bridge(), "192.0.2.202/24", name="eth0")
    with IpvsDouble() as ipvs, KadWithIpvs(ipvs, node, everything()) as daemon:
        daemon.wait_for("Entering MASTER STATE", times=25)
        # Bursts, checks and sessions have begun.
        daemon.wait_for("no route to host", times=25)
        stays(daemon)
        assert not daemon.count("no advert left us"), daemon.said()


def global_lines(end: int) -> list[str]:
    """One value of each numeric global keyword: the ``end``-th of those tried."""
    lines: dict[str, list[str]] = {}
    for line in statements_of(GLOBAL_DEFS):
        if is_accepted("", line):
            lines.setdefault(line.split()[0], []).append(line)
    return [found[min(end, len(found) - 1)] for name, found in lines.items() if name not in DEADLY]


@pytest.mark.parametrize("end", range(3))
def test_every_global_number_at_its_ends_runs(network: Network, end: int) -> None:
    node = network.node("one")
    node.attach(network.bridge(), "192.0.2.202/24", name="eth0")
    lines = "\n".join(global_lines(end))
    text = f"global_defs {{\n{lines}\n}}\n{instance(0, '')}{service(0, '', '')}{session(8, '')}"
    with IpvsDouble() as ipvs, KadWithIpvs(ipvs, node, text) as daemon:
        stays(daemon)
