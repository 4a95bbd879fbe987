"""UDP as BFD wants it received: two sockets a port, family and interface.

They tell TTL and destination of every packet. Those that send are in ``transports.py``.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections import Counter
from collections.abc import Callable, Mapping

from kad.kernel.batch import force_receive_buffer
from kad.kernel.datagrams import BATCH
from kad.runtime.clock import monotonic_us, realtime_us
from kad_bfd.core.actions import Listener
from kad_bfd.core.context import TAG_BITS
from kad_bfd.core.events import Origin
from kad_bfd.core.packet import LENGTH
from kad_bfd.io.pace import Pace
from kad_bfd.io.reading import BatchReader, Packet

READ_LIMIT = 512
"""Packets read from a neighbours' socket before the next has its turn. With the driver's rounds it is more
than the receive buffer holds: nothing that waits is left unread when timers are judged."""
STRANGERS_READ_LIMIT = 32
"""And from a strangers' socket in one turn: some ten thousand a second are looked at and counted by reason,
whatever the flood. The kernel counts the rest."""

_IP_PKTINFO = 8
_IP_RECVTTL = 12
_RECEIVE_BUFFER = 4 << 20
"""500 neighbours at 10 ms, for a tenth of a second that this process does not run."""
_STRANGERS_BUFFER = 128 << 10
"""What lies longer than a few milliseconds is sent again anyway."""
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")
_MEMINFO_DROPS = 8

_SO_ATTACH_REUSEPORT_CBPF = 51
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD_LENGTH, _LOAD_HALF, _AND, _RETURN = 0x80, 0x28, 0x54, 0x06
_JUMP_IF_AT_LEAST, _JUMP_IF_EQUAL = 0x35, 0x15
_YOUR_DISCRIMINATOR_AT = 8

ORIGIN_LIMIT = 1 << 15
"""Origins kept of a neighbours' socket: twice as many as there can be sessions. Making them anew for every
packet would cost more than everything else."""
STRANGERS_ORIGIN_LIMIT = 1 << 10
"""And of a strangers' socket: forged sources may not fill the memory."""
_INT = struct.Struct("=i")
_NAME_SIZE = 16
"""IFNAMSIZ"""
_CONTROL_HEADER = struct.Struct("=Qii")
"""struct cmsghdr"""

Arrived = list[tuple[bytes, Origin, int]]
"""With the time: CLOCK_MONOTONIC microseconds."""
Deliver = Callable[[Arrived], None]


class ListeningSocket:
    """One of the two sockets of a :class:`Listener`: the neighbours' or the strangers'.

    Both are bound to the same port; the kernel gives the first what reflects a discriminator of ours
    (``steering_program``), and the second everything else: first packets of a neighbour, and floods.
    """

    def __init__(
        self, listener: Listener, limit: int, deliver: Deliver, beside: Mapping[int, Listener]
    ) -> None:
        """``beside``: see :func:`origin_of`."""
        self.listener = listener
        self._beside = beside
        self.receive_errors: Counter[str] = Counter()
        self._limit = limit
        self._deliver = deliver
        self._origins: dict[bytes, Origin] = {}
        self._earliest_us = 0
        """What is read next came no earlier: there was nothing in it then, or the one before had come."""
        family = socket.AF_INET6 if listener.family == 6 else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._reader = BatchReader(self.socket)

    def open(self, buffer_size: int) -> None:
        """Raises OSError."""
        made = self.socket
        force_receive_buffer(made, buffer_size)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if self.listener.interface:
            bind_to_device(made, self.listener.interface)
        if self.listener.family == 6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
            made.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        made.bind(_any_address(self.listener))

    def drain(self) -> bool:
        """Hand on what has arrived. True when more of a neighbours' socket may be waiting; strangers wait."""
        left = self._limit
        while left > 0:
            now_us = monotonic_us()
            try:
                packets = self._reader.read(left)
            except BlockingIOError:
                self._earliest_us = now_us
                return False
            except OSError as error:
                self.receive_errors[error_name(error)] += 1
                return False
            self._hand_on(packets)
            if len(packets) < min(left, BATCH):
                self._earliest_us = max(self._earliest_us, now_us)
                return False
            left -= len(packets)
        return self._limit == READ_LIMIT

    def _hand_on(self, packets: list[Packet]) -> None:
        """A clock that was set just now may not matter: the times are kept within what is certain.

        They never go back either: of two packets in one socket, the second came later.
        """
        origins, now_us, earliest_us = self._origins, monotonic_us(), self._earliest_us
        ahead_us = realtime_us() - now_us
        arrived = []
        for data, way, stamp_us in packets:
            at_us = stamp_us - ahead_us
            if not earliest_us <= at_us <= now_us:
                at_us = earliest_us if at_us < earliest_us else now_us
            earliest_us = at_us
            arrived.append((data, origins.get(way) or self._new_origin(way), at_us))
        self._earliest_us = earliest_us
        self._deliver(arrived)

    def overflows(self) -> int:
        """Packets the kernel had no room for."""
        information = self.socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        return int(_MEMINFO.unpack(information)[_MEMINFO_DROPS])

    def _new_origin(self, way: bytes) -> Origin:
        """The few neighbours' are made once: equal ones are one object."""
        if len(self._origins) >= (ORIGIN_LIMIT if self._limit == READ_LIMIT else STRANGERS_ORIGIN_LIMIT):
            self._origins.clear()
        origin = origin_of(way, self.listener, self._beside)
        self._origins[way] = origin
        return origin

    def forget_origins(self) -> None:
        """What is beside this socket has changed."""
        self._origins.clear()


def steering_program(tag: int) -> list[tuple[int, int, int, int]]:
    """Classic BPF over the UDP payload: 0 (the first socket of the group) or 1.

    First are packets long enough whose Your Discriminator begins with our tag.
    """
    return [
        (_LOAD_LENGTH, 0, 0, 0),
        (_JUMP_IF_AT_LEAST, 0, 4, LENGTH),
        (_LOAD_HALF, 0, 0, _YOUR_DISCRIMINATOR_AT),
        (_AND, 0, 0, 0xFFFF << 16 - TAG_BITS & 0xFFFF),
        (_JUMP_IF_EQUAL, 0, 1, tag << 16 - TAG_BITS),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, 1),
    ]


def attach_steering(made: socket.socket, tag: int) -> None:
    """For the whole group that ``made`` belongs to. Raises OSError."""
    program = steering_program(tag)
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*line) for line in program))
    # struct sock_fprog: the count, padding, a pointer.
    reference = struct.pack("@HP", len(program), ctypes.addressof(code))
    made.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, reference)


def _any_address(listener: Listener) -> tuple[str, int]:
    return "::" if listener.family == 6 else "0.0.0.0", listener.port


def origin_of(way: bytes, listener: Listener, beside: Mapping[int, Listener]) -> Origin:
    """What the kernel tells about the way a packet came: sockaddr, then the ancillary data asked for.

    Where it did not say, the TTL is -1 and the destination empty. ``beside``: listeners on the same port that
    are bound to an interface, by its index. Of two groups of sockets with SO_REUSEPORT the kernel takes the
    first that matches, and not the one that matches best: what came through their interface is theirs,
    whichever socket it was put into.
    """
    six = listener.family == 6
    family, name_size, address_at = (socket.AF_INET6, 28, 8) if six else (socket.AF_INET, 16, 4)
    source = socket.inet_ntop(family, way[address_at : address_at + (16 if six else 4)])
    hop_limit, destination, index = -1, "", 0
    at = name_size
    while at + _CONTROL_HEADER.size <= len(way):
        length, level, kind = _CONTROL_HEADER.unpack_from(way, at)
        if length < _CONTROL_HEADER.size:
            break
        value = way[at + _CONTROL_HEADER.size : at + length]
        match level, kind:
            case (socket.IPPROTO_IP, socket.IP_TTL) | (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT):
                hop_limit = _INT.unpack(value)[0]
            case (socket.IPPROTO_IP, 8):  # IP_PKTINFO: index, our address for the sender, destination
                destination = socket.inet_ntop(socket.AF_INET, value[8:12])
                index = _INT.unpack_from(value)[0]
            case (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                destination = socket.inet_ntop(socket.AF_INET6, value[:16])
                index = _INT.unpack_from(value, 16)[0]
            case _:
                pass
        at += socket.CMSG_SPACE(length - _CONTROL_HEADER.size)
    return Origin(source, destination, hop_limit, beside.get(index, listener))


class Listeners:
    """All receiving sockets, by what they listen to.

    ``longest_patience_us``: how long a packet may lie now; ``set_patience``: how long they shall.
    """

    def __init__(
        self,
        deliver: Deliver,
        add_reader: Callable[[int, Callable[[], bool]], None],
        remove_reader: Callable[[int], None],
        longest_patience_us: Callable[[], int],
        set_patience: Callable[[int], None],
    ) -> None:
        self._deliver = deliver
        self._add_reader = add_reader
        self._remove_reader = remove_reader
        self._longest_patience_us = longest_patience_us
        self._set_patience = set_patience
        self._open: dict[Listener, tuple[ListeningSocket, ListeningSocket]] = {}
        self._bound: dict[tuple[int, int], dict[int, Listener]] = {}
        """Those with an interface: port and family, then the interface's index."""
        self._pace = Pace()
        self.packets = 0
        """Received through all of them, believed or not."""

    def open(self, listener: Listener, tag: int) -> str:
        """ "" or why it could not be opened."""
        self.close(listener)
        beside = {} if listener.interface else self._bound_beside(listener)
        pair: list[ListeningSocket] = []
        try:
            self._assert_free(listener)
            # The order is that of the steering program's answers.
            for limit, size in (READ_LIMIT, _RECEIVE_BUFFER), (STRANGERS_READ_LIMIT, _STRANGERS_BUFFER):
                pair.append(ListeningSocket(listener, limit, self._take, beside))
                pair[-1].open(size)
            attach_steering(pair[0].socket, tag)
            self._note_interface(listener)
        except OSError as error:
            for made in pair:
                made.socket.close()
            return error.strerror or str(error)
        neighbours, strangers = pair
        self._open[listener] = neighbours, strangers
        for made in (neighbours, strangers):
            self._add_reader(made.socket.fileno(), lambda made=made: self._drain(made))  # type: ignore[misc]
        return ""

    def close(self, listener: Listener) -> None:
        for made in self._open.pop(listener, ()):
            self._remove_reader(made.socket.fileno())
            made.socket.close()
        beside = self._bound_beside(listener)
        for index in [index for index, bound in beside.items() if bound == listener]:
            del beside[index]
            self._tell_unbound(listener)

    def _bound_beside(self, listener: Listener) -> dict[int, Listener]:
        return self._bound.setdefault((listener.port, listener.family), {})

    def _note_interface(self, listener: Listener) -> None:
        """Raises OSError."""
        if listener.interface:
            self._bound_beside(listener)[socket.if_nametoindex(listener.interface)] = listener
            self._tell_unbound(listener)

    def _tell_unbound(self, listener: Listener) -> None:
        for made in self._open.get(Listener(listener.family, listener.multihop), ()):
            made.forget_origins()

    def loss(self, listener: Listener) -> str:
        """Why what is open receives nothing any more; "": it may."""
        pair = self._open.get(listener)
        # Both were bound in one go; reopening is for both as well.
        return loss_of_interface(pair[0].socket, listener.interface) if pair else ""

    def close_all(self) -> None:
        for listener in list(self._open):
            self.close(listener)

    def counters(self) -> Counter[str]:
        """Errors, and what the kernel had no room for."""
        counted: Counter[str] = Counter()
        for pair in self._open.values():
            for made, whose in zip(pair, ("neighbours", "strangers"), strict=True):
                counted.update({f"receive {name}": n for name, n in made.receive_errors.items()})
                counted[f"overflow {whose}"] += made.overflows()
        return counted

    def _drain(self, made: ListeningSocket) -> bool:
        more = made.drain()
        longest_us = self._longest_patience_us()
        self._set_patience(self._pace.patience_us(self.packets, longest_us, monotonic_us()))
        return more

    def _take(self, packets: Arrived) -> None:
        self.packets += len(packets)
        self._deliver(packets)

    def _assert_free(self, listener: Listener) -> None:
        """Another BFD daemon on the port would share the packets without a word. Raises OSError."""
        if any((o.port, o.family) == (listener.port, listener.family) for o in self._open):
            return  # ourselves, for another interface
        with socket.socket(
            socket.AF_INET6 if listener.family == 6 else socket.AF_INET, socket.SOCK_DGRAM
        ) as probe:
            if listener.family == 6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(_any_address(listener))


def bind_to_device(made: socket.socket, interface: str) -> None:
    """An interface, or a VRF. Raises OSError."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")


def loss_of_interface(made: socket.socket, interface: str) -> str:
    """Why a bound socket is not bound to what has this name now; "": it is.

    The kernel binds to the index of the moment: an interface made anew has another.
    """
    try:
        bound = made.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _NAME_SIZE)
        name = bound.rstrip(b"\0").decode()
        # Several names may be one interface's.
        if name == interface or socket.if_nametoindex(name) == socket.if_nametoindex(interface):
            return ""
    except OSError as error:
        return error.strerror or str(error)
    return f"the interface is called {name} now"


def error_name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error))
