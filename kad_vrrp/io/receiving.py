"""Adverts as they come out of the raw sockets: many at a time, each with when and how it arrived."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from functools import lru_cache

from kad.kernel.datagrams import BATCH, BatchReader
from kad.runtime.clock import monotonic_us, realtime_us
from kad_vrrp.core.events import AdvertDelayed, AdvertsReceived, Way

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
        self._ways: dict[bytes, Way] = {}

    def drain(self, descriptor: int, number: int) -> bool:
        """Read what has arrived for a transport. True when more may be waiting. Raises OSError."""
        try:
            lengths = self._buffers.read(descriptor)
        except BlockingIOError:
            return False
        arrived_us = self._arrivals(len(lengths))
        event = AdvertsReceived(number, self._contents(lengths), arrived_us, self._read_ways(len(lengths)))
        if min(arrived_us) >= 0:
            self._deliver(event, arrived_us[0])
        else:
            self._deliver_late(event)
        return len(lengths) == BATCH

    def _deliver_late(self, event: AdvertsReceived) -> None:
        for index, at_us in enumerate(event.arrived_us):
            if at_us < 0:
                self._deliver(AdvertDelayed(event.packet(index), -at_us), 0)
            else:
                ways = None if event.ways is None else [event.ways[index]]
                self._deliver(AdvertsReceived(event.transport, [event.data[index]], [at_us], ways), at_us)

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

    def _contents(self, lengths: list[int]) -> list[bytes]:
        data, length = self._buffers.data, lengths[0]
        if lengths.count(length) == len(lengths):
            # As nearly always, and for half of what the other way costs.
            return [packet for (packet,) in _rows(length).iter_unpack(data[: len(lengths) * _DATA_SIZE])]
        starts = range(0, len(lengths) * _DATA_SIZE, _DATA_SIZE)
        return [bytes(data[at : at + length]) for at, length in zip(starts, lengths, strict=True)]

    def _read_ways(self, count: int) -> list[Way] | None:
        buffers, found = self._buffers, list[Way]()
        if not buffers.name_size:
            return None
        for at in range(0, count * buffers.way_size, buffers.way_size):
            way = bytes(buffers.ways[at : at + buffers.way_size])
            # All but when.
            key = way[:_NAME6_SIZE] + way[_NAME6_SIZE + _STAMP.size :]
            found.append(self._ways.get(key) or self._way6(key))
        return found

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
