"""BFD packets, read many at a time, each with the way it came."""

from __future__ import annotations

import socket
from struct import Struct as Layout

from kad.kernel.datagrams import BATCH
from kad.kernel.datagrams import BatchReader as Buffers
from kad_bfd.core.packet import LENGTH

_DATA_SIZE = 256
"""A packet has at most 255 bytes; what follows its own length does not count."""
_NAME_SIZES = {socket.AF_INET: 16, socket.AF_INET6: 28}
_CONTROL_SIZES = {
    socket.AF_INET: socket.CMSG_SPACE(4) + socket.CMSG_SPACE(12),
    socket.AF_INET6: socket.CMSG_SPACE(4) + socket.CMSG_SPACE(20),
}
_USUAL = Layout(f"{LENGTH}s{_DATA_SIZE - LENGTH}x")
"""A packet without an Authentication section, in its place in the buffer."""

Packet = tuple[bytes, bytes]
"""The payload, and the way it came: what the kernel wrote as the sender's address and as ancillary data."""


class BatchReader:
    """Reads one datagram socket that does not block."""

    def __init__(self, made: socket.socket) -> None:
        self._descriptor = made.fileno()
        family = socket.AddressFamily(made.family)
        self.name_size = _NAME_SIZES[family]
        self._buffers = Buffers(_DATA_SIZE, name_size=self.name_size, control_size=_CONTROL_SIZES[family])
        self._way = Layout(f"{self._buffers.way_size}s")

    def read(self, limit: int = BATCH) -> list[Packet]:
        """What has arrived, at most ``limit`` packets. Raises OSError; BlockingIOError: there is nothing."""
        buffers = self._buffers
        lengths = buffers.read(self._descriptor, limit)
        count = len(lengths)
        usual = _USUAL.iter_unpack(buffers.data[: count * _DATA_SIZE])
        ways = self._way.iter_unpack(buffers.ways[: count * buffers.way_size])
        packets = [(data, way) for (data,), (way,) in zip(usual, ways, strict=True)]
        if lengths.count(LENGTH) != count:
            for at, length in enumerate(lengths):
                data = bytes(buffers.data[at * _DATA_SIZE : at * _DATA_SIZE + length])
                packets[at] = (data, packets[at][1])
        return packets
