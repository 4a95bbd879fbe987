"""UDP as BFD wants it: one receiving socket a port, family and interface; one sending socket a session.

Receiving sockets tell TTL and destination of every packet. A sending socket is bound to a source port from
49152 up and connected to the neighbour: its port is the session's mark (RFC 5881 §4).

Errors of sending are counted. Only those that no later packet could do without are told to the engine, which
opens a new socket after a while.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter
from collections.abc import Callable

from kad.kernel.batch import force_receive_buffer
from kad_bfd.core.actions import Listener, SendPacket, Transport
from kad_bfd.core.events import Origin, PacketReceived

READ_LIMIT = 512
"""Packets read from one socket before the next has its turn. With the driver's rounds it is more than the
receive buffer holds: nothing that waits is left unread when timers are judged."""

FIRST_PORT, PORTS = 49152, 16384
"""RFC 5881 §4: the source port is in the range 49152 to 65535."""
PORT_ATTEMPTS = 64

_IP_PKTINFO = 8
_IP_RECVTTL = 12
_RECEIVE_BUFFER = 4 << 20
"""50 ms of a flood of 100,000 packets a second, or of 500 neighbours at 10 ms for a second."""
_READ_SIZE = 512
"""A packet has at most 255 bytes; what follows its own length does not count."""
_ANCILLARY_SIZE = socket.CMSG_SPACE(4) + socket.CMSG_SPACE(20)
_ORIGIN_LIMIT = 4096
"""Origins kept: forged sources may not fill the memory."""
_PRIORITY_CONTROL = 7
_INTERNET_CONTROL = 0xC0
_INT = struct.Struct("=i")

LASTING = frozenset(
    {errno.ENODEV, errno.ENXIO, errno.EINVAL, errno.EADDRNOTAVAIL, errno.EBADF, errno.EDESTADDRREQ}
)
"""The interface or our address is gone: this socket will not send again."""

Deliver = Callable[[PacketReceived], None]


class ListeningSocket:
    """One :class:`Listener`, open."""

    def __init__(self, listener: Listener, deliver: Deliver) -> None:
        self.listener = listener
        self.receive_errors: Counter[str] = Counter()
        self._deliver = deliver
        self._buffer = bytearray(_READ_SIZE)
        self._origins: dict[tuple[object, ...], Origin] = {}
        family = socket.AF_INET6 if listener.family == 6 else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def prepare(self) -> None:
        """Everything up to the port. Raises OSError."""
        made = self.socket
        force_receive_buffer(made, _RECEIVE_BUFFER)
        if self.listener.interface:
            bind_to_device(made, self.listener.interface)
        if self.listener.family == 6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
            made.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    def bind(self) -> None:
        """Raises OSError."""
        self.socket.bind(("::" if self.listener.family == 6 else "0.0.0.0", self.listener.port))

    def share(self, shared: bool) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(shared))

    def drain(self) -> bool:
        """Hand on what has arrived; True when more may be waiting."""
        receive, buffers, deliver = self.socket.recvmsg_into, [self._buffer], self._deliver
        origins, buffer = self._origins, self._buffer
        for _ in range(READ_LIMIT):
            try:
                length, ancillary, _flags, sender = receive(buffers, _ANCILLARY_SIZE)
            except BlockingIOError:
                return False
            except OSError as error:
                self.receive_errors[_name(error)] += 1
                continue
            key = (sender[0], *ancillary)
            origin = origins.get(key)
            if origin is None:
                origin = self._new_origin(key, sender[0], ancillary)
            deliver(PacketReceived(bytes(buffer[:length]), origin))
        return True

    def _new_origin(
        self, key: tuple[object, ...], sender: str, ancillary: list[tuple[int, int, bytes]]
    ) -> Origin:
        """The few neighbours' are made once: equal ones are one object."""
        if len(self._origins) >= _ORIGIN_LIMIT:
            self._origins.clear()
        hop_limit, destination = read_ancillary(ancillary)
        # The scope of a link-local address is the interface's, and known.
        origin = Origin(sender.partition("%")[0], destination, hop_limit, self.listener)
        self._origins[key] = origin
        return origin


def read_ancillary(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, str]:
    """(TTL or hop limit, destination); -1 and "" where the kernel did not say."""
    hop_limit, destination = -1, ""
    for level, kind, data in ancillary:
        match level, kind:
            case (socket.IPPROTO_IP, socket.IP_TTL) | (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT):
                hop_limit = _INT.unpack(data)[0]
            case (socket.IPPROTO_IP, 8):  # IP_PKTINFO: index, our address for the sender, destination
                destination = socket.inet_ntop(socket.AF_INET, data[8:12])
            case (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                destination = socket.inet_ntop(socket.AF_INET6, data[:16])
            case _:
                pass
    return hop_limit, destination


class Listeners:
    """All receiving sockets, by what they listen to."""

    def __init__(
        self,
        deliver: Deliver,
        add_reader: Callable[[int, Callable[[], bool]], None],
        remove_reader: Callable[[int], None],
    ) -> None:
        self._deliver = deliver
        self._add_reader = add_reader
        self._remove_reader = remove_reader
        self.open_sockets: dict[Listener, ListeningSocket] = {}
        self.packets = 0
        """Received through all of them, believed or not."""

    def open(self, listener: Listener) -> str:
        """ "" or why it could not be opened."""
        self.close(listener)
        made = ListeningSocket(listener, self._take)
        try:
            made.prepare()
            self._bind(made)
        except OSError as error:
            made.socket.close()
            return error.strerror or str(error)
        self.open_sockets[listener] = made
        self._add_reader(made.socket.fileno(), made.drain)
        return ""

    def close(self, listener: Listener) -> None:
        found = self.open_sockets.pop(listener, None)
        if found is not None:
            self._remove_reader(found.socket.fileno())
            found.socket.close()

    def close_all(self) -> None:
        for listener in list(self.open_sockets):
            self.close(listener)

    def _take(self, event: PacketReceived) -> None:
        self.packets += 1
        self._deliver(event)

    def _bind(self, made: ListeningSocket) -> None:
        """A port is shared by our own sockets for different interfaces, and with nobody else: another BFD
        daemon on it would silently take the packets."""
        port, family = made.listener.port, made.listener.family
        beside = [
            other
            for other in self.open_sockets.values()
            if (other.listener.port, other.listener.family) == (port, family)
        ]
        for each in (*beside, made) if beside else ():
            each.share(True)
        try:
            made.bind()
        finally:
            for each in (*beside, made) if beside else ():
                each.share(False)


class Transports:
    """All sending sockets, by the engine's numbers. ``failed``: a socket will not send any more, and why."""

    def __init__(self, failed: Callable[[int, str], None]) -> None:
        self._failed = failed
        self._open: dict[int, socket.socket] = {}
        self.send_errors: Counter[str] = Counter()

    def open(self, number: int, transport: Transport, port: int) -> tuple[int, str]:
        """(source port, "") or (0, why not). A number in use is opened anew."""
        self.close(number)
        family = socket.AF_INET6 if transport.family == 6 else socket.AF_INET
        made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            _prepare(made, transport)
            bound = _bind_and_connect(made, transport, port)
        except OSError as error:
            made.close()
            return 0, error.strerror or str(error)
        self._open[number] = made
        return bound, ""

    def close(self, number: int) -> None:
        found = self._open.pop(number, None)
        if found is not None:
            found.close()

    def close_all(self) -> None:
        for number in list(self._open):
            self.close(number)

    def send(self, action: SendPacket) -> None:
        found = self._open.get(action.transport)
        if found is None:
            self.send_errors["closed"] += 1
            return
        try:
            found.send(action.data)
        except ConnectionRefusedError:
            # The peer's answer to an earlier packet (nobody listens there): this one has not been sent.
            self._send_again(found, action)
        except OSError as error:
            self._count(error, action.transport)

    def _send_again(self, found: socket.socket, action: SendPacket) -> None:
        self.send_errors["ECONNREFUSED"] += 1
        try:
            found.send(action.data)
        except OSError as error:
            self._count(error, action.transport)

    def _count(self, error: OSError, number: int) -> None:
        self.send_errors[_name(error)] += 1
        if error.errno in LASTING:
            self.close(number)
            self._failed(number, error.strerror or str(error))


def _prepare(made: socket.socket, transport: Transport) -> None:
    # Nothing is read from it: what others send there may not fill the memory.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, _PRIORITY_CONTROL)
    if transport.interface:
        bind_to_device(made, transport.interface)
    if transport.family == 6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, transport.ttl)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _INTERNET_CONTROL)
    else:
        made.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, transport.ttl)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _INTERNET_CONTROL)


def _bind_and_connect(made: socket.socket, transport: Transport, port: int) -> int:
    """The source port that was free, the wanted one first."""
    index = socket.if_nametoindex(transport.interface) if transport.interface else 0
    scope = (0, index if transport.neighbor.startswith("fe80:") else 0) if transport.family == 6 else ()
    source = transport.source or ("::" if transport.family == 6 else "0.0.0.0")
    for attempt in range(PORT_ATTEMPTS):
        tried = FIRST_PORT + (port - FIRST_PORT + attempt * 257) % PORTS
        try:
            made.bind((source, tried, *scope))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        made.connect((transport.neighbor, transport.port, *scope))
        return tried
    raise OSError(errno.EADDRINUSE, "no source port is free")


def bind_to_device(made: socket.socket, interface: str) -> None:
    """An interface, or a VRF. Raises OSError."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error))
