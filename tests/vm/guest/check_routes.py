"""Routes into VRFs, with MPLS labels and locators, and rules for VRFs, beside keepalived."""

from __future__ import annotations

import subprocess

import pytest

from tests.interop.test_routes_side_by_side import block, has, instance, side_by_side
from tests.support.daemon import Kad
from tests.support.namespaces import Network, Node, poll

ROUTES = (
    "10.1.0.0/24 via 192.0.2.254 dev eth0 table 1234",
    "10.2.0.0/24 via 192.0.3.254 vrf blue",
    "blackhole 10.3.0.0/24 vrf blue metric 9",
    "2001:db8:a1::/48 dev eth1 vrf blue",
    "10.4.0.0/24 encap mpls 100 via 192.0.2.254 dev eth0",
    "10.5.0.0/24 encap mpls 100/200 via 192.0.2.254 dev eth0",
    "10.6.0.0/24 encap mpls 1048575 via 192.0.2.254 dev eth0",
    "2001:db8:a2::/48 encap mpls 17 via 2001:db8::fe dev eth0",
    "2001:db8:a4:0:2000::1/128 encap ila 1:2:3:4 via 2001:db8::fe dev eth0",
    "2001:db8:a3::/48 encap ip6 id 5 dst 2001:db8::99 dev eth0",
)
RULES = (
    "l3mdev preference 900",
    "from 10.1.0.0/24 oif blue table 5 preference 901",
    "iif blue table 5 preference 902",
)


@pytest.fixture
def nodes(network: Network) -> tuple[Node, Node]:
    subprocess.run(["modprobe", "-a", "vrf", "mpls_router", "mpls_iptunnel", "ila"], check=True)
    made = []
    for label in ("keepalived", "kad"):
        node = network.node(label)
        lan = network.bridge()
        node.attach(lan, "192.0.2.1/24", "2001:db8::1/64")
        node.ip("link", "add", "blue", "type", "vrf", "table", "1234")
        node.set_link("blue", "up")
        node.attach(lan, "192.0.3.1/24", "2001:db8:1::1/64")
        node.ip("link", "set", "eth1", "master", "blue")
        made.append(node)
    return made[0], made[1]


def test_routes_that_need_modules(nodes: tuple[Node, Node]) -> None:
    text = instance(block("virtual_routes", ROUTES), block("virtual_rules", RULES), addresses=())
    theirs, ours = side_by_side(
        nodes, text, lambda node, daemon: has(node, "rule", "show", "preference", "902")
    )
    assert len(ours) == 1 + len(ROUTES) + len(RULES)
    assert ours == theirs


def test_a_vrf_may_come_later(nodes: tuple[Node, Node]) -> None:
    _, node = nodes
    node.ip("link", "del", "blue")
    text = block("static_routes", ("blackhole 10.3.0.0/24 vrf blue",))
    with Kad(node, "global_defs {\ndynamic_interfaces\n}\n" + text) as daemon:
        daemon.wait_for("no VRF blue", seconds=60)
        node.ip("link", "add", "blue", "type", "vrf", "table", "1234")
        node.set_link("blue", "up")
        poll(lambda: has(node, "route", "show", "table", "1234", "10.3.0.0/24"), daemon.said, seconds=30)
        daemon.stop(60)
