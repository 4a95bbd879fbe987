"""Where a check goes, from where, and what is said there: all that can be made ready once a configuration."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from ssl import SSLContext

from kad.config.model.check import Connection
from kad_check.core.dialogues.dialogue import Dialogue

_SO_MARK = 36
_SO_BINDTODEVICE = 25
_IP_BIND_ADDRESS_NO_PORT = 24
_IP_RECVERR = 11
_IPV6_RECVERR = 25
_OURS = frozenset(
    (
        errno.EADDRINUSE,
        errno.EADDRNOTAVAIL,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EAFNOSUPPORT,
        errno.EPROTONOSUPPORT,
    )
)
"""Errors that say nothing about the server."""

Address = tuple[str, int] | tuple[str, int, int, int]


class NotRunError(Exception):
    """The check could not be made because of this machine; the text says why."""


def is_our_fault(number: int) -> bool:
    return number in _OURS


class Target:
    """One checker's. ``make_dialogue(step)``: None when a connection alone is the whole check."""

    __slots__ = (
        "_bind",
        "_device",
        "_hears_of_loss",
        "_mark",
        "_port",
        "_protocol",
        "_speaks_first",
        "_text",
        "address",
        "closes_politely",
        "context",
        "family",
        "is_stream",
        "kind",
        "make_dialogue",
        "plain",
        "server_names",
        "timeout_us",
    )

    def __init__(
        self,
        connection: Connection,
        kind: int,
        make_dialogue: Callable[[int], Dialogue] | None,
        *,
        protocol: int = 0,
        context: SSLContext | None = None,
        server_names: tuple[str, ...] = (),
        closes_politely: tuple[bool, ...] = (),
        speaks_first: bool = False,
    ) -> None:
        self.family = socket.AF_INET6 if connection.family == 6 else socket.AF_INET
        self.kind = kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self.is_stream = kind == socket.SOCK_STREAM
        self._protocol = protocol
        self._speaks_first = speaks_first
        self._hears_of_loss = kind == socket.SOCK_DGRAM and not protocol
        self._text, self._port = connection.address, connection.port
        self._device = connection.bind_interface
        self._mark = struct.pack("=I", connection.fwmark) if connection.fwmark else b""
        self._bind: Address | None = None
        if connection.bind_address:
            self._bind = (connection.bind_address, connection.bind_port)
        self.address: Address = (self._text, self._port)
        self.plain = not (self._device or self._mark or self._bind)
        self.timeout_us = connection.timeout_us
        self.make_dialogue = make_dialogue
        self.context = context
        self.server_names = server_names
        """SNI by step; empty: none."""
        self.closes_politely = closes_politely
        """By step: end TLS with a close_notify."""

    def open(self) -> socket.SocketType:
        """A socket, bound as asked for, not connected. Raises NotRunError."""
        try:
            # The bare type: what the class around it adds costs as much as the system call.
            opened = socket.SocketType(self.family, self.kind, self._protocol)
        except OSError as error:
            raise NotRunError(f"no socket: {error.strerror}") from None
        try:
            if self._speaks_first:
                # What we say carries the handshake's last acknowledgement: a packet less for both ends.
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            if self._hears_of_loss:
                self._listen_for_loss(opened)
            if not self.plain:
                self._dress(opened)
        except OSError as error:
            opened.close()
            raise NotRunError(f"cannot bind: {error.strerror}") from None
        return opened

    def _listen_for_loss(self, opened: socket.SocketType) -> None:
        """A datagram socket hears of refusals only, unless it asks for more: that a host is gone is none.

        Whatever is said of a loss fails the check, a time exceeded too; keepalived's only where the
        destination is unreachable.
        """
        if self.family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        else:
            opened.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)

    def _dress(self, opened: socket.SocketType) -> None:
        if self._mark:
            opened.setsockopt(socket.SOL_SOCKET, _SO_MARK, self._mark)
        if self._device:
            opened.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, os.fsencode(self._device))
            if self.family == socket.AF_INET6:
                # Looked up each time: the interface may have been made anew.
                self.address = (self._text, self._port, 0, socket.if_nametoindex(self._device))
        if self._bind is None:
            return
        address: Address = self._bind
        if address[1]:
            # The last check's connection still lingers on that port.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif self.is_stream:
            opened.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        if self._device and self.family == socket.AF_INET6:
            address = (address[0], address[1], 0, socket.if_nametoindex(self._device))
        opened.bind(address)
