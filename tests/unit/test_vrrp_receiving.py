"""Batches of packets become events, each with its own bytes, source and time."""

import socket
from collections.abc import Iterator

import pytest

from kad.runtime.clock import monotonic_us
from kad_vrrp.core.events import AdvertDelayed, AdvertsReceived
from kad_vrrp.io.receiving import Receiver, stamp_packets
from tests.support.adverts import advert

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Datagrams instead of raw packets: the reader only asks for bytes and stamps."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        one.bind(("127.0.0.1", 0))
        stamp_packets(one)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.connect(one.getsockname())
            yield one, other


@pytest.mark.parametrize("cuts", [[0] * 5, [0, 12, 0, 3, 12]], ids=["of one length", "of several"])
def test_each_packet_is_itself(pair: Pair, cuts: list[int]) -> None:
    one, other = pair
    sent = [(f"192.0.2.{60 + n % 2}", n, cut) for n, cut in enumerate(cuts, 1)]
    packets = [advert(source=source, vrid=vrid, cut=cut) for source, vrid, cut in sent]
    heard: list[AdvertsReceived | AdvertDelayed] = []
    receiver = Receiver(socket.AF_INET, lambda event, _: heard.append(event), lambda: 10_000_000)
    for _ in range(2):
        before_us = monotonic_us()
        for packet in packets:
            other.send(packet)
        assert not receiver.drain(one.fileno(), 7)
        event = heard.pop()
        assert isinstance(event, AdvertsReceived)
        assert (event.transport, event.data) == (7, packets)
        found = [event.packet(index) for index in range(len(packets))]
        assert [(each.transport, each.data) for each in found] == [(7, data) for data in packets]
        assert [each.source for each in found] == [source for source, _, _ in sent]
        assert event.arrived_us == sorted(event.arrived_us)
        # The two clocks are read one after the other.
        assert before_us - 1_000 <= event.arrived_us[0] <= event.arrived_us[-1] <= monotonic_us()
