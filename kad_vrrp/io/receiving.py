"""Adverts as they come out of the raw sockets: many at a time, each with when and how it arrived."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from functools import lru_cache

from kad.kernel.datagrams import BATCH, BatchReader
from kad.runtime.clock import monotonic_us, realtime_us
from kad_vrrp.core.events import AdvertDelayed, AdvertReceived, AdvertsReceived

_DATA_SIZE = 8192
"""More than the longest advertisement (255 IPv6 addresses and a trailer); what is longer is cut, and bad."""
WAKING_LIMIT_US = 20_000
"""What arrived longer ago, and lay longer than it was meant to, lay there because we stood still (or a clock
was set)."""
_WAYS_LIMIT = 1024
"""Ways packets came that are kept in words; forged sources may not fill the memory."""

SO_TIMESTAMPNS = 35
_STAMP = struct.Struct("=QiiQQ")
_NAME6_SIZE = 28
_CONTROL_SIZES = {
    socket.AF_INET: _STAMP.size,
    socket.AF_INET6: _STAMP.size + socket.CMSG_SPACE(20) + socket.CMSG_SPACE(4),
}
_HEADER = struct.Struct("=Qii")
_INT = struct.Struct("=i")

Deliver = Callable[[AdvertsReceived | AdvertDelayed, int], None]
"""The event, and when the first of them arrived (CLOCK_MONOTONIC; 0: just now, or as the event says)."""

Way = tuple[str, int, str]
"""Source, hop limit and destination of an IPv6 packet."""


def stamp_packets(made: socket.socket) -> None:
    """Have the kernel say when each packet arrived: a tenth of a millisecond or more before we woke up."""
    made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


class Receiver:
    """Reads the sockets of one family, one after the other, into the same buffers.

    ``patience_us``: how long packets lie there on purpose at present.
    """

    def __init__(
        self, family: socket.AddressFamily, deliver: Deliver, patience_us: Callable[[], int]
    ) -> None:
        name_size = _NAME6_SIZE if family == socket.AF_INET6 else 0
        self._buffers = BatchReader(_DATA_SIZE, name_size=name_size, control_size=_CONTROL_SIZES[family])
        # Of each way only the kind, seconds and nanoseconds.
        rest_size = self._buffers.way_size - name_size - _STAMP.size
        self._stamps = struct.Struct(f"={name_size}x12xiQQ{rest_size}x")
        self._deliver = deliver
        self._patience_us = patience_us
        self._sources: dict[bytes, str] = {}
        self._ways: dict[bytes, Way] = {}
        self._events = self._events6 if family == socket.AF_INET6 else self._events4

    def drain(self, descriptor: int, number: int) -> bool:
        """Read what has arrived for a transport. True when more may be waiting. Raises OSError."""
        try:
            lengths = self._buffers.read(descriptor)
        except BlockingIOError:
            return False
        packets = self._events(number, lengths)
        arrived_us = self._arrivals(len(lengths))
        if min(arrived_us) >= 0:
            self._deliver(AdvertsReceived(number, packets, arrived_us), arrived_us[0])
        else:
            self._deliver_late(packets, arrived_us)
        return len(lengths) == BATCH

    def _deliver_late(self, packets: list[AdvertReceived], arrived_us: list[int]) -> None:
        for packet, at_us in zip(packets, arrived_us, strict=True):
            if at_us < 0:
                self._deliver(AdvertDelayed(packet, -at_us), 0)
            else:
                self._deliver(AdvertsReceived(packet.transport, [packet], [at_us]), at_us)

    def _arrivals(self, count: int) -> list[int]:
        """When each arrived; 0 where nobody knows; its age, negative, where we stood still."""
        now_us = monotonic_us()
        # The kernel's stamp is CLOCK_REALTIME.
        offset_us = now_us - realtime_us()
        earliest_us = now_us - WAKING_LIMIT_US - self._patience_us()
        ways, arrived = self._buffers.ways[: count * self._buffers.way_size], []
        for kind, seconds, nanoseconds in self._stamps.iter_unpack(ways):
            if kind != SO_TIMESTAMPNS:
                arrived.append(0)
                continue
            at_us = seconds * 1_000_000 + nanoseconds // 1000 + offset_us
            arrived.append(at_us if earliest_us < at_us <= now_us else min(0, at_us - now_us))
        return arrived

    def _events4(self, number: int, lengths: list[int]) -> list[AdvertReceived]:
        known, write = self._sources.get, self._text4
        return [
            AdvertReceived(number, packet, known(packet[12:16]) or write(packet[12:16]))
            for packet in self._contents(lengths)
        ]

    def _contents(self, lengths: list[int]) -> list[bytes]:
        data, length = self._buffers.data, lengths[0]
        if lengths.count(length) == len(lengths):
            # As nearly always, and for half of what the other way costs.
            return [packet for (packet,) in _rows(length).iter_unpack(data[: len(lengths) * _DATA_SIZE])]
        starts = range(0, len(lengths) * _DATA_SIZE, _DATA_SIZE)
        return [bytes(data[at : at + length]) for at, length in zip(starts, lengths, strict=True)]

    def _text4(self, packed: bytes) -> str:
        """The few neighbours' addresses are written once."""
        if len(self._sources) > _WAYS_LIMIT:
            self._sources.clear()
        text = self._sources[packed] = socket.inet_ntoa(packed.ljust(4, b"\0"))
        return text

    def _events6(self, number: int, lengths: list[int]) -> list[AdvertReceived]:
        buffers, ways = self._buffers, self._ways
        packets = []
        for at, length in enumerate(lengths):
            packet = bytes(buffers.data[at * _DATA_SIZE : at * _DATA_SIZE + length])
            way = bytes(buffers.ways[at * buffers.way_size : (at + 1) * buffers.way_size])
            # All but when.
            key = way[:_NAME6_SIZE] + way[_NAME6_SIZE + _STAMP.size :]
            source, hop_limit, destination = ways.get(key) or self._way6(key)
            packets.append(AdvertReceived(number, packet, source, hop_limit, destination))
        return packets

    def _way6(self, key: bytes) -> Way:
        if len(self._ways) > _WAYS_LIMIT:
            self._ways.clear()
        # The scope of a link-local address is the interface's, and known.
        source = socket.inet_ntop(socket.AF_INET6, key[8:24])
        way = self._ways[key] = (source, *_read_control(key[_NAME6_SIZE:]))
        return way


@lru_cache(maxsize=32)
def _rows(length: int) -> struct.Struct:
    """Packets of one length, each at the start of its part of the buffer."""
    return struct.Struct(f"{length}s{_DATA_SIZE - length}x")


def _read_control(control: bytes) -> tuple[int, str]:
    """(hop limit, destination); -1 and "" where the kernel did not say."""
    hop_limit, destination, at = -1, "", 0
    while at + _HEADER.size <= len(control):
        length, level, kind = _HEADER.unpack_from(control, at)
        if length < _HEADER.size:
            break
        content = control[at + _HEADER.size : at + length]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_HOPLIMIT:
            hop_limit = _INT.unpack(content[:4])[0]
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            destination = socket.inet_ntop(socket.AF_INET6, content[:16])
        at += -(-length // 8) * 8
    return hop_limit, destination
