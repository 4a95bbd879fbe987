"""BFD packets, read many at a time, each with the way it came and the time it did."""

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
_SO_TIMESTAMPNS = 35
_TIME_SIZE = socket.CMSG_SPACE(16)
"""The kernel's stamp: the first of the ancillary data."""
_USUAL = Layout(f"{LENGTH}s{_DATA_SIZE - LENGTH}x")
"""A packet without an Authentication section, in its place in the buffer."""

Packet = tuple[bytes, bytes, int]
"""The payload; the way it came: what the kernel wrote as the sender's address and as ancillary data; when it
came, CLOCK_REALTIME microseconds."""


def have_packets_stamped() -> socket.socket:
    """To be kept open for the life of the process, from before its first other socket.

    The kernel stamps packets only where a socket wants it, and begins a while after the first one does (in a
    work queue: milliseconds, more on a busy machine). What came before then is stamped as it is read, and the
    order of what lies in two sockets is lost.
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    return made


class BatchReader:
    """Reads one datagram socket that does not block."""

    def __init__(self, made: socket.socket) -> None:
        made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._descriptor = made.fileno()
        family = socket.AddressFamily(made.family)
        self.name_size = _NAME_SIZES[family]
        rest_size = _CONTROL_SIZES[family]
        self._buffers = Buffers(_DATA_SIZE, name_size=self.name_size, control_size=_TIME_SIZE + rest_size)
        self._way = Layout(f"={self.name_size}s{_TIME_SIZE - 16}xqq{rest_size}s")

    def read(self, limit: int = BATCH) -> list[Packet]:
        """What has arrived, at most ``limit`` packets. Raises OSError; BlockingIOError: there is nothing."""
        buffers = self._buffers
        lengths = buffers.read(self._descriptor, limit)
        count = len(lengths)
        usual = _USUAL.iter_unpack(buffers.data[: count * _DATA_SIZE])
        ways = self._way.iter_unpack(buffers.ways[: count * buffers.way_size])
        packets = [
            (data, name + rest, seconds * 1_000_000 + nanoseconds // 1000)
            for (data,), (name, seconds, nanoseconds, rest) in zip(usual, ways, strict=True)
        ]
        if lengths.count(LENGTH) != count:
            for at, length in enumerate(lengths):
                data = bytes(buffers.data[at * _DATA_SIZE : at * _DATA_SIZE + length])
                packets[at] = (data, *packets[at][1:])
        return packets
