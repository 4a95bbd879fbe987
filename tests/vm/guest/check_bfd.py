"""BFD in a VRF: the same neighbour's address twice, inside and outside, told apart."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.daemon import Kad
from tests.support.namespaces import Network, Node

OURS, THEIRS = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def nodes(network: Network) -> tuple[Node, Node]:
    """Two cables with the same addresses on both; the second one's ends are in VRFs."""
    subprocess.run(["modprobe", "vrf"], check=True)
    ours, theirs = network.node("ours"), network.node("theirs")
    for name in ("eth0", "eth1"):
        network.pair(ours, theirs, name)
    for node, address in ((ours, OURS), (theirs, THEIRS)):
        make_blue(node)
        for name in ("eth0", "eth1"):
            node.ip("addr", "add", f"{address}/24", "dev", name)
    return ours, theirs


def make_blue(node: Node) -> None:
    """The VRF, with the second cable's end in it.

    What its table has no route for goes by the main table otherwise: with the second cable gone, over the
    first one, where a Down that names no session is the first one's session's.
    """
    node.ip("link", "add", "blue", "type", "vrf", "table", "1234")
    node.ip("route", "replace", "unreachable", "default", "metric", "4278198272", "table", "1234")
    node.set_link("blue", "up")
    node.ip("link", "set", "eth1", "master", "blue")


def sessions(neighbor: str) -> str:
    timers = "min_rx 500\nmin_tx 500\nmultiplier 12\n"
    return "".join(
        f"bfd_instance {name} {{\nneighbor_ip {neighbor}\ninterface {interface}\n{timers}}}\n"
        for name, interface in (("outside", "eth0"), ("inside", "blue"))
    )


def test_a_session_in_a_vrf_and_one_outside(nodes: tuple[Node, Node]) -> None:
    ours, theirs = nodes
    with Kad(ours, sessions(THEIRS)) as one, Kad(theirs, sessions(OURS)) as two:
        for daemon in (one, two):
            for name in ("outside", "inside"):
                daemon.wait_for(f"({name}) Entering Up state", seconds=90)
        theirs.set_link("eth1", "down")
        one.wait_for("(inside) Entering Down state", seconds=60)
        assert one.count("(outside) Entering Down state") == 0, one.said() + two.said()
        two.stop(60)
        one.stop(60)


def index_of(node: Node, name: str) -> int:
    return int(node.ip_json("link", "show", "dev", name)[0]["ifindex"])


def test_a_vrf_made_anew_carries_its_session_again(network: Network, nodes: tuple[Node, Node]) -> None:
    """The VRF is deleted and comes back with another index; then the cable in it is."""
    ours, theirs = nodes
    with Kad(ours, sessions(THEIRS)) as one, Kad(theirs, sessions(OURS)) as two:
        for daemon in (one, two):
            for name in ("outside", "inside"):
                daemon.wait_for(f"({name}) Entering Up state", seconds=90)
        before = index_of(ours, "blue")
        ours.ip("link", "del", "blue")
        one.wait_for("(inside) Entering Down state", seconds=60)
        two.wait_for("(inside) Entering Down state", seconds=60)
        make_blue(ours)
        assert index_of(ours, "blue") != before
        for daemon in (one, two):
            daemon.wait_for("(inside) Entering Up state", times=2, seconds=90)
        ours.ip("link", "del", "eth1")
        one.wait_for("(inside) Entering Down state", times=2, seconds=60)
        network.pair(ours, theirs, "eth1")
        for node, address in ((ours, OURS), (theirs, THEIRS)):
            node.ip("link", "set", "eth1", "master", "blue")
            node.ip("addr", "add", f"{address}/24", "dev", "eth1")
        one.wait_for("(inside) Entering Up state", times=3, seconds=90)
        for daemon in (one, two):
            assert daemon.count("(outside) Entering Down state") == 0, one.said() + two.said()
        two.stop(60)
        one.stop(60)
