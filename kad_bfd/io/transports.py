"""UDP as BFD wants it sent: one socket a session.

It is bound to a source port from 49152 up and connected to the neighbour: its port is the session's mark (RFC
5881 §4).

Errors of sending are counted. After those that no later packet could do without the engine is to open a new
socket in a while; of others it is told when they begin and when they end.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import Counter
from collections.abc import Callable, Iterator

from kad.addresses import is_link_local
from kad_bfd.core.actions import SendPacket, Transport
from kad_bfd.io.sockets import bind_to_device, error_name, loss_of_interface

FIRST_PORT, PORTS = 49152, 16384
"""RFC 5881 §4: the source port is in the range 49152 to 65535."""
PORT_ATTEMPTS = 64

_PRIORITY_CONTROL = 7
_INTERNET_CONTROL = 0xC0

LASTING = frozenset(
    {errno.ENODEV, errno.ENXIO, errno.EINVAL, errno.EADDRNOTAVAIL, errno.EBADF, errno.EDESTADDRREQ}
)
"""The interface or our address is gone: this socket will not send again."""


PASSING = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ECONNREFUSED})
"""Of one packet's moment, or of the peer's: the next may leave."""


class Transports:
    """All sending sockets, by the engine's numbers. ``failed``: a socket will not send any more, and why.

    ``sending``: why what it was given last was not sent; "": it was, after some that were not.
    """

    def __init__(
        self, failed: Callable[[int, str], None], sending: Callable[[int, str], None] = lambda *_: None
    ) -> None:
        self._failed = failed
        self._sending = sending
        self._failing: set[int] = set()
        self._open: dict[int, socket.socket] = {}
        self._asked: dict[int, Transport] = {}
        self.send_errors: Counter[str] = Counter()

    def open(self, number: int, transport: Transport, port: int) -> tuple[int, str]:
        """(source port, "") or (0, why not). A number in use is opened anew."""
        self.close(number)
        made = None
        try:
            made = _new_socket(transport)
            bound = _bind_and_connect(made, transport, port)
        except OSError as error:
            if made is not None:
                made.close()
            return 0, error.strerror or str(error)
        self._open[number], self._asked[number] = made, transport
        return bound, ""

    def close(self, number: int) -> None:
        found = self._open.pop(number, None)
        if found is not None:
            del self._asked[number]
            self._failing.discard(number)
            found.close()

    def loss(self, number: int) -> str:
        """Why what is open reaches the neighbour no more, or not in the neighbour's eyes; "": it may."""
        found = self._open.get(number)
        if found is None:
            return ""
        transport = self._asked[number]
        return loss_of_interface(found, transport.interface) or _loss_of_source(found, transport)

    def close_all(self) -> None:
        for number in list(self._open):
            self.close(number)

    def send(self, action: SendPacket) -> None:
        try:
            self._open[action.transport].send(action.data)
        except KeyError:
            self.send_errors["closed"] += 1
        except ConnectionRefusedError:
            # The peer's answer to an earlier packet (nobody listens there): this one has not been sent.
            self._send_again(self._open[action.transport], action)
        except OSError as error:
            self._count(error, action.transport)
        else:
            if self._failing:
                self._note_success(action.transport)

    def _send_again(self, found: socket.socket, action: SendPacket) -> None:
        self.send_errors["ECONNREFUSED"] += 1
        try:
            found.send(action.data)
        except OSError as error:
            self._count(error, action.transport)
        else:
            self._note_success(action.transport)

    def _note_success(self, number: int) -> None:
        if number in self._failing:
            self._failing.discard(number)
            self._sending(number, "")

    def _count(self, error: OSError, number: int) -> None:
        self.send_errors[error_name(error)] += 1
        if error.errno in LASTING:
            self.close(number)
            self._failed(number, error.strerror or str(error))
        elif number not in self._failing and error.errno not in PASSING:
            self._failing.add(number)
            self._sending(number, error.strerror or str(error))


def _new_socket(transport: Transport) -> socket.socket:
    """Not bound yet. Raises OSError."""
    family = socket.AF_INET6 if transport.family == 6 else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        _prepare(made, transport)
    except OSError:
        made.close()
        raise
    return made


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
    scope = _scope(transport)
    source = transport.source or _any_source(transport)
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


def _any_source(transport: Transport) -> str:
    return "::" if transport.family == 6 else "0.0.0.0"


def _scope(transport: Transport) -> tuple[int, ...]:
    """What follows address and port: flow and scope with IPv6. Raises OSError."""
    if transport.family == 4:
        return ()
    is_local = transport.interface and is_link_local(transport.neighbor)
    return 0, socket.if_nametoindex(transport.interface) if is_local else 0


def _loss_of_source(made: socket.socket, transport: Transport) -> str:
    """Why the address chosen when ``made`` was opened is wrong now; "": it is not, or nobody can say.

    The kernel chooses once, as the socket is connected: an address that comes later is not taken by itself,
    and one that went away is kept.
    """
    if transport.source:
        return ""
    address, port = made.getsockname()[:2]
    try:
        chosen = _choice_of_source(made, transport, port)
    except OSError:
        return ""
    return "" if chosen == address else f"its source address would be {chosen} now"


def _choice_of_source(made: socket.socket, transport: Transport, port: int) -> str:
    """What ``made`` would get if it were opened now. Raises OSError.

    Asked from the same port where that can be done: of several ways across routers it may be the port that
    decides which is taken, and with it the address.
    """
    scope = _scope(transport)
    with _new_socket(transport) as probe:
        with contextlib.suppress(OSError), _sharing(made, probe):
            probe.bind((_any_source(transport), port, *scope))
        probe.connect((transport.neighbor, transport.port, *scope))
        return str(probe.getsockname()[0])


@contextlib.contextmanager
def _sharing(made: socket.socket, probe: socket.socket) -> Iterator[None]:
    """The kernel lets ``probe`` have the port of ``made``. Neither is ever read."""
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        yield
    finally:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
