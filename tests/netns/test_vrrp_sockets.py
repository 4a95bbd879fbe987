"""Raw sockets and announcements: what is heard, what is not, and errors that are only counted."""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from kad.config.model.vrrp import UnicastPeer
from kad.runtime.clock import monotonic_us
from kad_vrrp.core.actions import SendAdvert, Transport
from kad_vrrp.core.advertiser import Adverts
from kad_vrrp.core.events import AdvertReceived, AdvertsReceived
from kad_vrrp.io.garp import FRAMES_A_TURN, QUEUE_LIMIT, Announcer
from kad_vrrp.io.sockets import Transports
from tests.support.capture import Capture
from tests.support.namespaces import Network, Node, poll
from tests.support.vrrp_node import instance

pytestmark = pytest.mark.root

MULTICAST = Transport(4, 112, "eth0", group="224.0.0.18")
MULTICAST6 = Transport(6, 112, "eth0", group="ff02::12")


@dataclass
class Ears:
    """The transports of one node, and all they heard."""

    node: Node
    heard: list[AdvertReceived] = field(default_factory=list)
    arrivals: list[int] = field(default_factory=list)
    drains: dict[int, Callable[[], bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.transports = Transports(self._hear, self.drains.__setitem__, self.drains.pop)

    def _hear(self, event: AdvertsReceived, arrived_us: int) -> None:
        assert arrived_us == event.arrived_us[0]
        self.heard += map(event.packet, range(len(event.data)))
        self.arrivals += event.arrived_us

    def open(self, number: int, transport: Transport) -> str:
        with self.node.entered():
            return self.transports.open(number, transport)

    def listen(self) -> list[AdvertReceived]:
        for drain in self.drains.values():
            while drain():
                pass
        return self.heard


@pytest.fixture
def pair(network: Network) -> Iterator[tuple[Ears, Ears]]:
    lan = network.bridge()
    one, two = network.node("one"), network.node("two")
    one.attach(lan, "192.0.2.1/24", "2001:db8::1/64", "fe80::1/64")
    two.attach(lan, "192.0.2.2/24", "2001:db8::2/64", "fe80::2/64")
    ears = Ears(one), Ears(two)
    yield ears
    for each in ears:
        each.transports.close_all()


def advert(transport: int, source: str, **fields: Any) -> SendAdvert:
    six = ":" in source
    made = instance(
        "VI_1", 51, "2001:db8::9/64" if six else "192.0.2.9/24", version=3, family=6 if six else 4, **fields
    )
    return Adverts(made, source, transport, old_checksum=False).of(100)[0]


def test_multicast_is_heard_by_the_other_and_not_by_the_sender(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    assert one.open(1, MULTICAST) == two.open(7, MULTICAST) == ""
    sent = advert(1, "192.0.2.1")
    for _ in range(100):
        assert one.transports.send(sent)
    poll(lambda: len(two.listen()) == 100, "every advert")
    event = two.heard[0]
    assert (event.transport, event.source) == (7, "192.0.2.1")
    assert event.data[20:] == sent.data[20:]
    assert event.data[8] == 255
    assert one.listen() == []
    assert one.transports.send_errors == {}


def test_ipv6_tells_hop_limit_and_destination(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    assert one.open(1, MULTICAST6) == two.open(1, MULTICAST6) == ""
    # Two sources through one socket.
    for source in ("fe80::1", "2001:db8::1"):
        assert one.transports.send(advert(1, source))
    poll(lambda: len(two.listen()) == 2, "both adverts")
    assert [(e.source, e.hop_limit, e.destination) for e in two.heard] == [
        ("fe80::1", 255, "ff02::12"),
        ("2001:db8::1", 255, "ff02::12"),
    ]
    assert two.heard[0].data[6:8] != b"\0\0", "the kernel fills the checksum in"
    assert one.listen() == []


def test_a_wrong_ipv6_checksum_does_not_reach_us(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    two.open(1, MULTICAST6)
    with one.node.entered():
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 112)
        index = socket.if_nametoindex("eth0")
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    bad = bytearray(advert(1, "fe80::1").data)
    bad[6:8] = b"\xde\xad"
    raw.sendto(bytes(bad), ("ff02::12", 0, 0, index))
    assert one.open(1, MULTICAST6) == ""
    one.transports.send(advert(1, "fe80::1"))
    poll(lambda: two.listen(), "the good one")
    assert len(two.heard) == 1
    raw.close()


@pytest.mark.parametrize("family", [4, 6])
def test_unicast_hears_what_is_for_its_address_only(pair: tuple[Ears, Ears], family: int) -> None:
    one, two = pair
    ours, theirs = ("192.0.2.1", "192.0.2.2") if family == 4 else ("2001:db8::1", "2001:db8::2")
    second = "192.0.2.22" if family == 4 else "2001:db8::22"
    two.node.ip("addr", "add", f"{second}/{24 if family == 4 else 64}", "dev", "eth0")
    sender = Transport(family, 112, "eth0", source=ours, unicast_ttl=77)
    assert one.open(1, sender) == ""
    assert two.open(1, Transport(family, 112, "eth0", source=theirs)) == ""
    assert two.open(2, Transport(family, 112, "", source=second)) == ""
    assert two.open(3, MULTICAST if family == 4 else MULTICAST6) == ""
    for peer in (theirs, second):
        sent = advert(1, ours, unicast=True, unicast_peers=(UnicastPeer(peer),), unicast_ttl=77)
        assert one.transports.send(sent)
    poll(lambda: len(two.listen()) == 2, "both adverts")
    assert sorted(event.transport for event in two.heard) == [1, 2]
    if family == 6:
        assert {event.hop_limit for event in two.heard} == {77}
    else:
        assert {event.data[8] for event in two.heard} == {77}


def test_another_group_does_not_wake_us(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    other = Transport(4, 112, "eth0", group="224.0.0.55")
    assert one.open(1, other) == one.open(2, MULTICAST) == ""
    assert two.open(1, MULTICAST) == two.open(2, other) == ""
    assert one.transports.send(advert(1, "192.0.2.1", multicast_group="224.0.0.55"))
    assert one.transports.send(advert(2, "192.0.2.1"))
    poll(lambda: len(two.listen()) == 2, "both")
    assert sorted((e.transport, e.data[16:20]) for e in two.heard) == [
        (1, bytes((224, 0, 0, 18))),
        (2, bytes((224, 0, 0, 55))),
    ]


def test_arrival_times_are_at_most_a_little_ago(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    one.open(1, MULTICAST)
    two.open(1, MULTICAST)
    before = monotonic_us()
    for count in range(1, 21):
        one.transports.send(advert(1, "192.0.2.1"))
        poll(lambda count=count: len(two.listen()) == count, "the advert")
    told = [at for at in two.arrivals if at]
    assert told, "the kernel's stamps are used"
    # The stamp is CLOCK_REALTIME: allow for its being slewed.
    assert all(before - 1000 <= at <= monotonic_us() for at in told)


def test_a_long_packet_is_cut_and_does_no_harm(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    two.open(1, MULTICAST)
    with one.node.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
    raw.sendto(bytes(20_000), ("224.0.0.18", 0))
    raw.sendto(b"", ("224.0.0.18", 0))
    poll(lambda: len(two.listen()) == 2, "both")
    assert len(two.heard[0].data) == 8192
    assert len(two.heard[1].data) == 20
    raw.close()


def test_receive_buffers_are_as_large_as_asked(pair: tuple[Ears, Ears]) -> None:
    one, _ = pair
    one.node.ip("link", "set", "eth0", "mtu", "1400")

    def size(**fields: int) -> int:
        assert one.open(1, Transport(4, 112, "eth0", group="224.0.0.18", **fields)) == ""
        with socket.socket(fileno=os.dup(next(iter(one.drains)))) as made:
            return made.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # the kernel doubles it

    assert size(receive_buffer=300_000) == 300_000
    assert size(receive_buffer=1000, receive_buffer_mtus=100) == 1000 + 100 * 1400
    assert size() == 1 << 20


def test_what_cannot_be_opened_says_why(pair: tuple[Ears, Ears]) -> None:
    one, _ = pair
    assert "nowhere0" in one.open(1, Transport(4, 112, "nowhere0", group="224.0.0.18"))
    # A source that is not here yet is no reason: the address may come later.
    assert one.open(2, Transport(4, 112, "eth0", source="192.0.2.77")) == ""
    assert one.open(3, Transport(6, 112, "eth0", source="2001:db8::77")) == ""
    assert not one.transports.send(advert(1, "192.0.2.1"))
    assert one.transports.send_errors == {"closed": 1}


def test_errors_of_sending_are_counted(pair: tuple[Ears, Ears]) -> None:
    one, _ = pair
    one.open(1, MULTICAST)
    one.node.set_link("eth0", "down")
    assert not one.transports.send(advert(1, "192.0.2.1"))
    assert sum(one.transports.send_errors.values()) == 1
    one.node.set_link("eth0", "up")
    poll(lambda: one.transports.send(advert(1, "192.0.2.1")), "sending again")


def test_opening_again_closes_the_old(pair: tuple[Ears, Ears]) -> None:
    one, _ = pair
    one.open(1, MULTICAST)
    (before,) = one.drains
    one.open(1, MULTICAST)
    assert len(one.drains) == 1
    one.transports.close(1)
    one.transports.close(1)
    assert one.drains == {}
    with pytest.raises(OSError):
        socket.socket(fileno=before)


def frame(number: int) -> bytes:
    return b"\xff" * 6 + b"\2\0\0\0\0\1" + b"\x08\x06" + number.to_bytes(4, "big") + bytes(24)


def test_announcements_go_out_in_order_a_share_a_turn(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    with one.node.entered():
        announcer = Announcer()
        count = 3 * FRAMES_A_TURN + 5
        with Capture(two.node, "eth0") as wire:
            for number in range(count):
                announcer.announce([("eth0", frame(number))])
            assert announcer.sent == FRAMES_A_TURN
            turns = 0
            while announcer.next_turn():
                turns += 1
            assert (turns, announcer.sent) == (2, count)
            seen = wire.wait_for(
                lambda: (
                    found if len(found := [f for f in wire.drain() if f.ethertype == 0x0806]) == count else []
                ),
                "every frame",
            )
            assert [int.from_bytes(f.data[14:18], "big") for f in seen] == list(range(count))
    announcer.close()


def test_frames_nobody_takes_are_counted(pair: tuple[Ears, Ears]) -> None:
    one, _ = pair
    with one.node.entered():
        announcer = Announcer()
        announcer.announce([("nowhere0", frame(1)), ("eth0", frame(2))])
        assert announcer.sent == 1
        assert sum(announcer.errors.values()) == 1
        announcer.announce(("eth0", frame(3)) for _ in range(QUEUE_LIMIT + 2 * FRAMES_A_TURN))
    assert announcer.errors["queue full"] > 0
    assert announcer.waiting <= QUEUE_LIMIT
    announcer.close()
