"""Neighbour advertisements say whether the node is a router, as its kernel's own do (RFC 4861 §4.4).

A host removes a router from its default routers when the router says that it is none (§7.2.5).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from kad.addresses import packed
from kad.wire import internet_checksum, ipv6_pseudo_header
from tests.support.capture import Capture
from tests.support.daemon import Kad
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Network, Node, poll

pytestmark = [pytest.mark.root, pytest.mark.slow]

VIP = "fe80::51:1"
ROUTER, OVERRIDE = 0x80, 0x20
ICMPV6 = 58
FORMER_MAC = bytes.fromhex("02aabbccddee")
FLAGS_AT = 58
"""In the frame of a neighbour advertisement."""


@pytest.fixture
def pair(network: Network) -> Iterator[tuple[Node, Node]]:
    lan = network.bridge()
    router, host = network.node("router"), network.node("host")
    router.attach(lan, "192.0.2.1/24")
    host.attach(lan, "192.0.2.9/24")
    host.sysctl("net.ipv6.conf.eth0.accept_ra", "2")
    yield router, host


def text(*extra: str) -> str:
    words = ("garp_master_refresh 1", *extra)
    return configuration(vrrp_instance(version=3, advert_int=0.3, addresses=(f"{VIP}/64",), extra=words))


def forward(node: Node, value: str, *interfaces: str) -> None:
    for name in ("all", *interfaces):
        node.sysctl(f"net.ipv6.conf.{name}.forwarding", value)


def router_advertisement() -> bytes:
    """From who had the address before: a default router for half an hour."""
    source, destination = packed(VIP), packed("ff02::1")
    body = bytes((134, 0, 0, 0, 64, 0)) + (1800).to_bytes(2, "big") + bytes(8) + b"\x01\x01" + FORMER_MAC
    checksum = internet_checksum(ipv6_pseudo_header(source, destination, ICMPV6, len(body)) + body)
    body = body[:2] + checksum.to_bytes(2, "big") + body[4:]
    header = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes((ICMPV6, 255))
    return bytes.fromhex("333300000001") + FORMER_MAC + b"\x86\xdd" + header + source + destination + body


def advertise(node: Node) -> None:
    with node.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("eth0", 0))
        sender.send(router_advertisement())


def default_route(host: Node) -> str:
    return host.run(["ip", "-6", "route", "show", "default"]).stdout.strip()


def flags(wire: Capture) -> set[int]:
    return {each.frame.data[FLAGS_AT] for each in wire.announcements(VIP)}


@pytest.mark.parametrize("words", [(), ("use_vmac",)], ids=["interface", "vmac"])
def test_a_take_over_leaves_hosts_their_default_route(pair: tuple[Node, Node], words: tuple[str]) -> None:
    router, host = pair
    forward(router, "1", "eth0")

    def learnt() -> bool:
        advertise(router)
        return VIP in default_route(host)

    poll(learnt, "a default route", every=0.2)
    with Capture(host, "eth0") as wire, Kad(router, text(*words)) as kad:
        kad.wait_for("Entering MASTER STATE")
        poll(lambda: flags(wire), "an announcement")
        assert flags(wire) == {ROUTER | OVERRIDE}
        assert VIP in default_route(host)


def test_a_later_change_is_heard(pair: tuple[Node, Node]) -> None:
    router, host = pair
    forward(router, "0", "eth0")
    with Capture(host, "eth0") as wire, Kad(router, text()) as kad:
        kad.wait_for("Entering MASTER STATE")
        poll(lambda: flags(wire), "an announcement")
        assert flags(wire) == {OVERRIDE}, "a host"
        for value, said in (("1", ROUTER | OVERRIDE), ("0", OVERRIDE)):
            forward(router, value)
            wire.clear()
            poll(lambda said=said: said in flags(wire), f"announcements with {said:#x}")  # type: ignore[misc]
            wire.clear()
            poll(lambda: flags(wire), "one more")
            assert flags(wire) == {said}
