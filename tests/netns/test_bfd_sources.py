"""Sessions without a source_ip: the kernel chooses, and may choose better later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.bfd_node import BfdNode, session
from tests.support.namespaces import Network, Node, poll, remains

pytestmark = [pytest.mark.root, pytest.mark.pairs]


@dataclass
class Addresses:
    ours: str
    theirs: str
    width: int
    another: str
    elsewhere: tuple[str, str]

    def give(self, node: Node, address: str, device: str = "eth0", change: str = "add") -> None:
        family, extra = (("-6",), ("nodad",)) if ":" in address else ((), ())
        node.ip(*family, "addr", change, f"{address}/{self.width}", "dev", device, *extra)


FOUR = Addresses("192.0.2.1", "192.0.2.2", 24, "192.0.2.7", ("198.51.100.1", "198.51.100.2"))
SIX = Addresses("2001:db8::1", "2001:db8::2", 64, "2001:db8::7", ("2001:db8:1::1", "2001:db8:1::2"))
WAYS: dict[str, tuple[Addresses, dict[str, Any]]] = {
    "IPv4": (FOUR, {}),
    "IPv6": (SIX, {}),
    "multihop": (FOUR, {"multihop": True}),
    "bound": (FOUR, {"interface": "eth0"}),
}


@pytest.fixture
def make_nodes(network: Network) -> Callable[[Addresses], tuple[Node, Node]]:
    """Two cables. Ours has an address on the second, with a default route, and none on the first yet."""

    def make(addresses: Addresses) -> tuple[Node, Node]:
        ours, theirs = network.node("ours"), network.node("theirs")
        for device in ("eth0", "eth1"):
            network.pair(ours, theirs, device)
        addresses.give(theirs, addresses.theirs)
        for node, address in zip((ours, theirs), addresses.elsewhere, strict=True):
            addresses.give(node, address, "eth1")
        family = ("-6",) if ":" in addresses.ours else ()
        ours.ip(*family, "route", "add", "default", "via", addresses.elsewhere[1])
        return ours, theirs

    return make


Make = Callable[[Addresses], tuple[Node, Node]]


@pytest.mark.parametrize("way", WAYS)
def test_an_address_that_comes_after_the_start_is_taken(make_nodes: Make, way: str) -> None:
    """Until then the packets went out with another one, which is no neighbour of anybody."""
    addresses, fields = WAYS[way]
    ours, theirs = make_nodes(addresses)
    patient = {"multiplier": 10}
    theirs_way = {name: value for name, value in fields.items() if name != "interface"}
    one = BfdNode(ours, session("peer", addresses.theirs, **fields, **patient))
    two = BfdNode(theirs, session("peer", addresses.ours, **theirs_way, **patient))
    with one, two:
        two.start()
        one.start()
        remains(lambda: one.state("peer") == "", "never Up", seconds=1.2)
        addresses.give(ours, addresses.ours)
        one.becomes("Up", "peer")
        two.becomes("Up", "peer")


@pytest.mark.parametrize("way", WAYS)
def test_an_address_is_changed_for_another(make_nodes: Make, way: str) -> None:
    addresses, fields = WAYS[way]
    ours, theirs = make_nodes(addresses)
    addresses.give(ours, addresses.ours)
    patient = {"multiplier": 10}
    theirs_way = {name: value for name, value in fields.items() if name != "interface"}
    one = BfdNode(ours, session("peer", addresses.theirs, **fields, **patient))
    two = BfdNode(
        theirs,
        session("before", addresses.ours, **theirs_way, **patient),
        session("after", addresses.another, **theirs_way, **patient),
    )
    with one, two:
        two.start()
        one.start()
        two.becomes("Up", "before")
        addresses.give(ours, addresses.ours, change="del")
        addresses.give(ours, addresses.another)
        two.becomes("Up", "after")
        one.becomes("Up", "peer")
        assert one.session("peer").failure == ""


def test_an_address_for_one_of_two_sessions_over_an_interface(make_nodes: Make) -> None:
    """That the other one is Up says nothing of it."""
    ours, theirs = make_nodes(FOUR)
    FOUR.give(ours, FOUR.ours)
    FOUR.give(theirs, "203.0.113.2")
    patient = {"multiplier": 10}
    one = BfdNode(
        ours,
        session("here", FOUR.theirs, interface="eth0", **patient),
        session("there", "203.0.113.2", interface="eth0", **patient),
    )
    two = BfdNode(
        theirs,
        session("here", FOUR.ours, source_address=FOUR.theirs, **patient),
        session("there", "203.0.113.1", source_address="203.0.113.2", **patient),
    )
    with one, two:
        two.start()
        one.start()
        one.becomes("Up", "here")
        FOUR.give(ours, "203.0.113.1")
        one.becomes("Up", "there")
        assert one.states("here").count("Up") == 1, one.log()


@pytest.mark.parametrize("kind", ["unreachable", "prohibit"])
def test_packets_that_do_not_leave_are_told(make_nodes: Make, kind: str) -> None:
    """The socket is a good one, and stays."""
    ours, theirs = make_nodes(FOUR)
    FOUR.give(ours, FOUR.ours)
    one = BfdNode(ours, session("peer", FOUR.theirs, multiplier=10))
    two = BfdNode(theirs, session("peer", FOUR.ours, multiplier=10))
    with one, two:
        one.start()
        two.start()
        one.becomes("Up", "peer")
        assert one.session("peer").failure == ""
        ours.ip("route", "add", kind, f"{FOUR.theirs}/32")
        poll(lambda: one.session("peer").failure.startswith("cannot send: "), "why")
        one.becomes("Down", "peer")
        assert one.log().count(f"(peer) {one.session('peer').failure}\n") == 1
        ours.ip("route", "del", kind, f"{FOUR.theirs}/32")
        one.becomes("Up", "peer")
        assert one.session("peer").failure == ""
        assert "has no socket" not in one.log()


def test_several_ways_to_a_neighbour_are_no_reason_for_another_socket(make_nodes: Make) -> None:
    """The kernel goes by the port too here: asked from another, it would choose another way now and then."""
    ours, _ = make_nodes(FOUR)
    FOUR.give(ours, FOUR.ours)
    ours.sysctl("net.ipv4.fib_multipath_hash_policy", "1")
    far = [f"10.9.9.{last}" for last in range(1, 9)]
    hops = ("nexthop", "via", FOUR.theirs, "dev", "eth0", "nexthop", "via", FOUR.elsewhere[1], "dev", "eth1")
    ours.ip("route", "add", "10.9.9.0/24", *hops)
    with BfdNode(ours, *(session(name, name, multihop=True) for name in far)) as one:
        one.start()
        remains(lambda: "has no socket" not in one.log(), lambda: one.log(), seconds=4)
        sources = {source for source, _ in opened(ours)}
        assert sources == {FOUR.ours, FOUR.elsewhere[0]}, "both ways are taken"


def opened(node: Node) -> list[tuple[str, str]]:
    """Address and port of the sockets that send."""
    listed = node.run(["ss", "-Hun"]).stdout.splitlines()
    local = [line.split()[-2] for line in listed if ":4784" in line]
    return [(address.rpartition(":")[0], address.rpartition(":")[2]) for address in local]
