"""nftables_ipvs: groups are marked by nf_tables, from the start of the daemon to its end."""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import Any

import pytest

from kad.config.model.check import Protocol
from kad.kernel.nft_socket import commit
from kad_check.core.actions import MarkedRange, MarkTraffic
from kad_check.io.marking import commands
from tests.support.daemon import Kad
from tests.support.namespaces import Network, Node, poll, remains

pytestmark = pytest.mark.root

FIRST = "192.0.2.1-3 80\n192.0.2.16/30 81\n2001:db8::10-1f 80"
SECOND = "192.0.2.40 443"


def configuration(*groups: str, settings: str = "") -> str:
    """One virtual server for each group, named G1 and so on by the text's place; an empty one is left out."""
    parts = [f"global_defs {{\nnftables_ipvs marks\n{settings}\n}}"]
    for number, text in enumerate(groups, 1):
        if text:
            parts.append(
                f"virtual_server_group G{number} {{\n{text}\n}}\n"
                f"virtual_server group G{number} {{\nlvs_sched rr\nlvs_method TUN\nprotocol TCP\n"
                f"real_server 198.51.100.{number} 80 {{\n}}\n}}"
            )
    return "\n".join(parts) + "\n"


def ruleset(node: Node) -> list[dict[str, Any]]:
    """What nft shows, without its header."""
    found: list[dict[str, Any]] = json.loads(node.run(["nft", "-j", "list", "ruleset"]).stdout)["nftables"]
    return found[1:]


def marks(node: Node) -> dict[str, int]:
    """Address and port, or ranges of them -> mark, as nft shows the maps."""
    found: dict[str, int] = {}
    for entry in ruleset(node):
        for element in entry.get("map", {}).get("elem", ()):
            address, port = element[0]["concat"]
            found[f"{_text(address)} {_text(port)}"] = element[1]
    return found


def _text(value: Any) -> str:
    if isinstance(value, dict) and "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    return "-".join(map(str, value["range"])) if isinstance(value, dict) else str(value)


def marked(node: Node, mark: int) -> int:
    """Packets with that mark that came past the rules."""
    for entry in ruleset(node):
        for part in entry.get("rule", {}).get("expr", ()):
            if "counter" in part and entry["rule"].get("comment") == f"mark {mark}":
                return int(part["counter"]["packets"])
    raise AssertionError(f"no counter of mark {mark}")


@pytest.fixture
def node(network: Network) -> Node:
    return network.node("lb")


def test_packets_to_ranges_get_the_mark(node: Node) -> None:
    addresses = ("192.0.2.5", "192.0.2.9", "192.0.2.10", "192.0.2.30")
    for address in addresses:
        node.ip("addr", "add", f"{address}/32", "dev", "lo")
    node.ip("addr", "add", "2001:db8::15/128", "dev", "lo", "nodad")
    for family in ("ip", "ip6"):
        node.run(["nft", f"add table {family} seen"])
        node.run(["nft", f"add chain {family} seen c {{ type filter hook input priority 0; }}"])
    for family, mark in (("ip", 7), ("ip", 8), ("ip6", 9)):
        rule = f'add rule {family} seen c meta mark {mark} counter comment "mark {mark}"'
        node.run(["nft", rule])
    udp = Protocol.UDP
    ranges = (
        MarkedRange("192.0.2.5", "192.0.2.9", 53, udp, 7),
        MarkedRange("192.0.2.30", "192.0.2.30", 0, udp, 8),
        MarkedRange("192.0.2.5", "192.0.2.9", 53, Protocol.TCP, 8),
        MarkedRange("2001:db8::10", "2001:db8::1f", 53, udp, 9),
    )
    with node.entered():
        assert commit(commands(MarkTraffic(1, "marks", -1, ranges))) == ""
    sent = [(address, port) for address in (*addresses, "2001:db8::15") for port in (53, 54)]
    for address, port in sent:
        with node.entered():
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        with made:
            made.sendto(b"?", (address, port))
    assert [marked(node, mark) for mark in (7, 8, 9)] == [2, 2, 1]
    with node.entered():
        assert commit(commands(MarkTraffic(2, "marks", -1, ranges[3:]))) == ""
    tables = [(e["table"]["family"], e["table"]["name"]) for e in ruleset(node) if "table" in e]
    assert ("ip6", "marks") in tables and ("ip", "marks") not in tables
    with node.entered():
        assert commit(commands(MarkTraffic(4, "marks", -9, ranges[3:]))) == ""
    assert [e["chain"]["prio"] for e in ruleset(node) if "chain" in e and e["chain"]["table"] == "marks"] == [
        -9
    ]
    overlapping = (ranges[0], MarkedRange("192.0.2.1", "192.0.2.7", 53, udp, 1))
    with node.entered():
        assert commit(commands(MarkTraffic(3, "marks", -1, overlapping))).startswith("nf_tables: ")


def test_ten_thousand_ranges_are_one_transaction(node: Node) -> None:
    ranges = tuple(
        MarkedRange(f"10.{n // 250}.{n % 250}.1", f"10.{n // 250}.{n % 250}.9", 80, Protocol.TCP, n + 1)
        for n in range(10_000)
    )
    with node.entered():
        assert commit(commands(MarkTraffic(1, "marks", -1, ranges))) == ""
    assert len(marks(node)) == 10_000


def test_a_group_keeps_its_mark(node: Node) -> None:
    """Over a reload that puts a group before it, a killed checker, and one that takes a group away."""
    with Kad(node, configuration("", SECOND)) as daemon:
        poll(lambda: marks(node) == {"192.0.2.40 443": 1000}, "a mark", seconds=10)
        daemon.configure(configuration(FIRST, SECOND))
        daemon.reload()
        both = {
            "192.0.2.40 443": 1000,
            "192.0.2.1-192.0.2.3 80": 1001,
            "192.0.2.16/30 81": 1001,
            "2001:db8::10/124 80": 1001,
        }
        poll(lambda: marks(node) == both, lambda: f"both groups: {marks(node)}", seconds=10)
        before = ruleset(node)
        daemon.reload()
        old = daemon._pid_of("checkers")
        os.kill(old, signal.SIGKILL)
        poll(lambda: daemon._pid_of("checkers") != old, "another checker", seconds=10)
        remains(lambda: marks(node) == both, "the marks", seconds=1, every=0.1)
        assert [entry.keys() for entry in ruleset(node)] == [entry.keys() for entry in before]
        daemon.configure(configuration(FIRST))
        daemon.reload()
        both.pop("192.0.2.40 443")
        poll(lambda: marks(node) == both, "one group to go", seconds=10)
        daemon.configure(configuration(FIRST, SECOND))
        daemon.reload()
        poll(lambda: marks(node).get("192.0.2.40 443") == 1002, "a mark that nobody had", seconds=10)
        assert daemon.stop() == 0
        assert ruleset(node) == [], "nothing is left"
