"""How a check leaves: interface, mark, link-local addresses; told by what the network does to it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from kad.config.model.check import PingCheck, TcpCheck, UdpCheck
from kad_check.core.events import CheckDone, Verdict
from tests.support.check_rig import ONCE, CheckRig, connection
from tests.support.namespaces import Network, Node, poll

pytestmark = pytest.mark.root

GOOD, BAD, NOT_RUN = Verdict.SUCCESS, Verdict.FAILURE, Verdict.NOT_RUN
PORT = 8080
SERVER, LINK_LOCAL = "192.0.2.2", "fe80::2"


@pytest.fixture
def pair(network: Network) -> Iterator[tuple[Node, Node]]:
    """Joined by eth0, where the second one listens, and by eth1, where nothing does."""
    one, two = network.node("one"), network.node("two")
    for name in ("eth0", "eth1"):
        network.pair(one, two, name)
    one.ip("addr", "add", "192.0.2.1/24", "dev", "eth0")
    two.ip("addr", "add", f"{SERVER}/24", "dev", "eth0")
    two.ip("addr", "add", f"{LINK_LOCAL}/64", "dev", "eth0", "nodad")
    one.ip("addr", "add", "fe80::1/64", "dev", "eth0", "nodad")
    one.ip("addr", "add", "fe80::1/64", "dev", "eth1", "nodad")
    with two.entered(), socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True):
        yield one, two


def run(node: Node, check: TcpCheck | PingCheck | UdpCheck) -> CheckDone:
    with node.entered(), CheckRig() as rig:
        return rig.run(check)


def tcp(address: str = SERVER, **more: object) -> TcpCheck:
    return TcpCheck(ONCE, connection(PORT, timeout=1, address=address, **more))


def test_bind_if_is_where_the_connection_leaves(pair: tuple[Node, Node]) -> None:
    one, _ = pair
    assert run(one, tcp()).verdict is GOOD
    assert run(one, tcp(bind_interface="eth0")).verdict is GOOD
    assert run(one, tcp(bind_interface="eth1")).verdict is BAD
    answer = run(one, tcp(bind_interface="absent0"))
    assert answer.verdict is NOT_RUN and answer.detail


def test_a_link_local_address_means_the_interface_that_is_named(pair: tuple[Node, Node]) -> None:
    one, _ = pair
    poll(lambda: run(one, tcp(LINK_LOCAL, bind_interface="eth0")).verdict is GOOD, "the link to be up")
    assert run(one, tcp(LINK_LOCAL, bind_interface="eth1")).verdict is BAD
    ping = PingCheck(ONCE, connection(0, timeout=1, address=LINK_LOCAL, bind_interface="eth0"))
    assert run(one, ping).verdict is GOOD


def test_packets_carry_the_mark_of_the_check(pair: tuple[Node, Node]) -> None:
    """What has the mark goes nowhere, by a rule of the kernel's."""
    one, _ = pair
    one.ip("rule", "add", "fwmark", "7", "unreachable")
    assert run(one, tcp()).verdict is GOOD
    assert run(one, tcp(fwmark=8)).verdict is GOOD
    assert run(one, tcp(fwmark=7)).verdict is BAD
    for mark, verdict in ((8, GOOD), (7, BAD)):
        ping = PingCheck(ONCE, connection(0, timeout=1, address=SERVER, fwmark=mark))
        assert run(one, ping).verdict is verdict


@pytest.mark.parametrize("address", ["192.0.2.77", "2001:db8::77"])
def test_udp_to_a_host_that_is_not_there_fails(pair: tuple[Node, Node], address: str) -> None:
    """Who is neighbour to it says so when it has asked for it long enough: three seconds, once a second."""
    one, _ = pair
    one.ip("addr", "add", "2001:db8::1/64", "dev", "eth0", "nodad")
    answer = run(one, UdpCheck(ONCE, connection(PORT, timeout=10, address=address)))
    assert (answer.verdict, answer.detail) == (BAD, "read: no route to host")
