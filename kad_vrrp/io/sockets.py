"""The raw sockets VRRP speaks through: one per transport, both ways.

A multicast socket is bound to its interface and to the group, so the kernel wakes us for nothing else; a
unicast one to its source address. IPv4 packets carry a header of our own (IP_HDRINCL); for IPv6 the kernel
computes and checks the checksum.

Errors of sending are counted and not fatal: the link events tell the engine what it must know.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable

from kad.kernel.batch import force_receive_buffer
from kad_vrrp.core.actions import SendAdvert, Transport
from kad_vrrp.core.packet import INTERNET_CONTROL
from kad_vrrp.io.receiving import Deliver, Receiver, stamp_packets

_IP_FREEBIND = 15
_IP_MULTICAST_ALL = 49
_IPV6_MULTICAST_ALL = 29
_IPV6_CHECKSUM = 7
_IPV6_FREEBIND = 78
_CHECKSUM_AT = 6
_PRIORITY_CONTROL = 7
_HOP_LIMIT_MULTICAST = 255


_RECEIVE_BUFFER = 1 << 20
"""Room for the adverts of 255 virtual routers, all in one moment, several times over. The default (208 KiB)
holds just one such burst."""

_SIOCGIFMTU = 0x8921
_USUAL_MTU = 1500
_INTERFACE_REQUEST = struct.Struct("=16si20x")
_PACKET_INFO = struct.Struct("=16sI")


class OpenSocket:
    """One transport, open."""

    def __init__(self, number: int, transport: Transport, receiver: Receiver) -> None:
        self.number = number
        self.transport = transport
        self.receive_errors: Counter[str] = Counter()
        self._receiver = receiver
        self._packet_info: dict[str, list[tuple[int, int, bytes]]] = {}
        self._index = socket.if_nametoindex(transport.interface) if transport.interface else 0
        family = socket.AF_INET6 if transport.family == 6 else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, transport.protocol)
        self._descriptor = self.socket.fileno()
        try:
            self._prepare()
        except OSError:
            self.socket.close()
            raise

    def close(self) -> None:
        self.socket.close()

    def send(self, action: SendAdvert) -> None:
        """Raises OSError."""
        if self.transport.family == 4:
            self.socket.sendto(action.data, (action.destination, 0))
            return
        # One socket serves instances with different source addresses.
        ancillary = self._packet_info.get(action.source)
        if ancillary is None:
            ancillary = self._remember_source(action.source)
        self.socket.sendmsg((action.data,), ancillary, 0, (action.destination, 0, 0, self._index))

    def _remember_source(self, source: str) -> list[tuple[int, int, bytes]]:
        packed = socket.inet_pton(socket.AF_INET6, source)
        info = _PACKET_INFO.pack(packed, self._index)
        if len(self._packet_info) > 1024:  # source addresses come and go over the months
            self._packet_info.clear()
        self._packet_info[source] = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)]
        return self._packet_info[source]

    # Opening ---------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        made, transport = self.socket, self.transport
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, _PRIORITY_CONTROL)
        stamp_packets(made)
        size = transport.receive_buffer
        if transport.receive_buffer_mtus:
            size += transport.receive_buffer_mtus * _mtu_of(made, transport.interface or transport.vrf)
        force_receive_buffer(made, size or _RECEIVE_BUFFER)
        if device := transport.interface or transport.vrf:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
        if transport.family == 6:
            self._prepare6()
        else:
            self._prepare4()

    def _prepare4(self) -> None:
        made, transport = self.socket, self.transport
        made.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        if transport.source:
            # The address may come later than we do.
            made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            made.bind((transport.source, 0))
            return
        group = socket.inet_aton(transport.group)
        membership = struct.pack("=4s4si", group, bytes(4), self._index)
        made.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, membership)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        made.bind((transport.group, 0))

    def _prepare6(self) -> None:
        made, transport = self.socket, self.transport
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_CHECKSUM, _CHECKSUM_AT)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, INTERNET_CONTROL)
        if transport.source:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, transport.unicast_ttl)
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            made.bind((transport.source, 0, 0, self._index))
            return
        group = socket.inet_pton(socket.AF_INET6, transport.group)
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOP_LIMIT_MULTICAST)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, self._index)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, struct.pack("=16si", group, self._index))
        made.bind((transport.group, 0, 0, self._index))

    # Receiving -------------------------------------------------------------------------------------------

    def drain(self) -> bool:
        """Take a batch of packets; True when more may be waiting."""
        try:
            return self._receiver.drain(self._descriptor, self.number)
        except OSError as error:
            # Reported once: there may be packets behind it.
            self.receive_errors[errno.errorcode.get(error.errno or 0, "?")] += 1
            return True


def _mtu_of(made: socket.socket, interface: str) -> int:
    """Ethernet's where there is no interface."""
    if not interface:
        return _USUAL_MTU
    request = _INTERFACE_REQUEST.pack(interface.encode(), 0)
    return int(_INTERFACE_REQUEST.unpack(fcntl.ioctl(made, _SIOCGIFMTU, request))[1])


class Transports:
    """All transports of the engine, by its numbers."""

    def __init__(
        self,
        deliver: Deliver,
        add_reader: Callable[[int, Callable[[], bool]], object],
        remove_reader: Callable[[int], None],
        patience_us: Callable[[], int] = lambda: 0,
    ) -> None:
        self._deliver = deliver
        self._patience_us = patience_us
        self._receivers: dict[int, Receiver] = {}
        self._add_reader = add_reader
        self._remove_reader = remove_reader
        self._open: dict[int, OpenSocket] = {}
        self.send_errors: Counter[str] = Counter()

    def expect(self, families: Iterable[int]) -> None:
        """Such transports will be opened: have ready what that takes time for."""
        for family in families:
            self._receiver(family)

    def open(self, number: int, transport: Transport) -> str:
        """ "" or why it could not be opened. A number in use is opened anew."""
        self.close(number)
        try:
            made = OpenSocket(number, transport, self._receiver(transport.family))
        except OSError as error:
            return f"{transport.interface or transport.source}: {error.strerror or error}"
        self._open[number] = made
        self._add_reader(made.socket.fileno(), made.drain)
        return ""

    def _receiver(self, family: int) -> Receiver:
        """Made when it is first needed: most hosts speak one family."""
        if family not in self._receivers:
            kind = socket.AF_INET6 if family == 6 else socket.AF_INET
            self._receivers[family] = Receiver(kind, self._deliver, self._patience_us)
        return self._receivers[family]

    def close(self, number: int) -> None:
        found = self._open.pop(number, None)
        if found is not None:
            self._remove_reader(found.socket.fileno())
            found.close()

    def close_all(self) -> None:
        for number in list(self._open):
            self.close(number)

    def send(self, action: SendAdvert) -> bool:
        """False: it did not go out, and the error is counted."""
        found = self._open.get(action.transport)
        if found is None:
            self.send_errors["closed"] += 1
            return False
        try:
            found.send(action)
        except OSError as error:
            self.send_errors[errno.errorcode.get(error.errno or 0, str(error))] += 1
            return False
        return True
