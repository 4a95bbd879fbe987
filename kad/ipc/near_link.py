"""A link for news that cannot wait: one system call from process to process, on SOCK_SEQPACKET.

ZeroMQ hands every message to a thread of its own on either side. On a busy machine these four changes of
thread are half a millisecond, as much as everything else a lost BFD session sets going. The ends are used as
those of ``link.py``; a queue is bounded by the socket's buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from msgspec import Struct

from kad.ipc.codec import Decoder, DropReason, Drops, encode
from kad.ipc.link import LinkError, Reactor, check_path

T = TypeVar("T")

PEERS_LIMIT = 16
"""Connections at a time; another one takes the place of the oldest."""
MESSAGE_LIMIT = 1 << 20
"""Bytes of one message: the state of ten thousand BFD sessions."""
BATCH = 64
"""Messages read before the loop's other readers have their turn."""
SHORTEST_RETRY_US = 2_000
LONGEST_RETRY_US = 16_000
"""Between two attempts to connect, doubled from the one to the other."""

_buffer = bytearray(MESSAGE_LIMIT)
"""Everybody's: one message at a time is read, and copied out."""
_SO_SNDBUFFORCE = 32
_KIND = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK


class _Connection:
    """A connected socket on an event loop, whichever end made it."""

    def __init__(
        self,
        reactor: Reactor,
        made: socket.socket,
        drops: Drops,
        on_data: Callable[[bytes], None],
        on_end: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self.socket = made
        self._drops = drops
        self._on_data = on_data
        self._on_end = on_end
        self.closed = False
        allow_long_messages(made)
        self.watch()

    def watch(self) -> None:
        self._reactor.add_reader(self.socket.fileno(), self.drain, direct=True)

    def send(self, data: bytes) -> bool:
        """False (and counted) when the other end is gone or does not read."""
        if self.closed:
            return False
        try:
            self.socket.send(data, socket.MSG_NOSIGNAL)
        except OSError:
            self._drops[DropReason.UNSENT] += 1
            return False
        return True

    def drain(self) -> bool:
        for _ in range(BATCH):
            if self.closed:
                return False
            try:
                size, _, flags, _ = self.socket.recvmsg_into([_buffer])
            except BlockingIOError:
                return False
            except OSError:
                size, flags = 0, 0
            if not size:
                self._on_end()
                return False
            if flags & socket.MSG_TRUNC:
                self._drops[DropReason.TOO_LONG] += 1
            else:
                self._on_data(bytes(memoryview(_buffer)[:size]))
        return True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._reactor.remove_reader(self.socket.fileno())
            self.socket.close()


class AcceptingEnd(Generic[T]):
    """The end that is bound. Peers are known by the identity they gave themselves.

    ``on_peer`` is called for each new connection, ``on_message`` for each message that decodes.
    """

    def __init__(
        self,
        reactor: Reactor,
        path: str,
        kind: Any,
        *,
        on_peer: Callable[[bytes], None],
        on_message: Callable[[bytes, T], None],
    ) -> None:
        check_path(path)
        self._reactor = reactor
        self._on_peer = on_peer
        self._on_message = on_message
        self._decoder: Decoder[T] = Decoder(kind)
        self._connections: dict[_Connection, bytes] = {}
        """With the identity; empty: it has not said it."""
        self._socket = socket.socket(socket.AF_UNIX, _KIND)
        # A predecessor that was killed has left its socket file; run directories have one owner.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        try:
            self._socket.bind(path)
            os.chmod(path, 0o600)
            self._socket.listen(PEERS_LIMIT)
        except OSError as error:
            self._socket.close()
            raise LinkError(f"cannot listen on {path}: {error}") from error
        reactor.add_reader(self._socket.fileno(), self._accept)

    @property
    def drops(self) -> Drops:
        return self._decoder.drops

    def is_connected(self, peer: bytes) -> bool:
        return peer in self._connections.values()

    def send(self, peer: bytes, message: Struct) -> bool:
        """False (and counted) when the peer is gone or does not read."""
        for connection, identity in self._connections.items():
            if identity == peer:
                return connection.send(encode(message))
        self.drops[DropReason.UNSENT] += 1
        return False

    def close(self) -> None:
        if self._socket.fileno() < 0:
            return
        self._reactor.remove_reader(self._socket.fileno())
        self._socket.close()
        for connection in list(self._connections):
            self._drop(connection)

    def _accept(self) -> bool:
        for _ in range(PEERS_LIMIT):
            try:
                made, _ = self._socket.accept()
            except OSError:
                return False
            made.setblocking(False)
            if len(self._connections) >= PEERS_LIMIT:
                self._drop(next(iter(self._connections)))
            self._take(made)
        return False

    def _take(self, made: socket.socket) -> None:
        connection: _Connection = _Connection(
            self._reactor,
            made,
            self.drops,
            lambda data: self._receive(connection, data),
            lambda: self._drop(connection),
        )
        self._connections[connection] = b""
        # What it says first is there already, most often.
        connection.drain()

    def _receive(self, connection: _Connection, data: bytes) -> None:
        identity = self._connections.get(connection)
        if identity is None:
            return
        if not identity:
            for other in [c for c, name in self._connections.items() if name == data]:
                self._drop(other)
            self._connections[connection] = data
            self._on_peer(data)
            return
        message = self._decoder.decode(data)
        if message is not None:
            self._on_message(identity, message)

    def _drop(self, connection: _Connection) -> None:
        self._connections.pop(connection, None)
        connection.close()


class ConnectingEnd(Generic[T]):
    """The end that connects, and connects again. ``identity`` must be its own (role and incarnation).

    ``on_lost`` is called when a connection ends that was not closed here.
    """

    def __init__(
        self,
        reactor: Reactor,
        path: str,
        kind: Any,
        *,
        identity: bytes,
        on_message: Callable[[T], None],
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        check_path(path)
        self._reactor = reactor
        self._path = path
        self._identity = identity
        self._on_message = on_message
        self._on_lost = on_lost
        self._decoder: Decoder[T] = Decoder(kind)
        self._connection: _Connection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._retry_us = SHORTEST_RETRY_US
        self._connect()

    @property
    def drops(self) -> Drops:
        return self._decoder.drops

    def send(self, message: Struct) -> bool:
        """False (and counted) when nobody is connected or the queue is full."""
        if self._connection is not None:
            return self._connection.send(encode(message))
        self.drops[DropReason.UNSENT] += 1
        return False

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> None:
        self._timer = None
        made = socket.socket(socket.AF_UNIX, _KIND)
        try:
            made.connect(self._path)
            made.send(self._identity, socket.MSG_NOSIGNAL)
        except OSError:
            # Nobody is there, or too many are.
            made.close()
            self._try_later()
            return
        self._retry_us = SHORTEST_RETRY_US
        self._connection = _Connection(self._reactor, made, self.drops, self._receive, self._lost)

    def _try_later(self) -> None:
        self._timer = self._reactor.loop.call_later(self._retry_us / 1e6, self._connect)
        self._retry_us = min(2 * self._retry_us, LONGEST_RETRY_US)

    def _lost(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._try_later()
            self._on_lost()

    def _receive(self, data: bytes) -> None:
        message = self._decoder.decode(data)
        if message is not None:
            self._on_message(message)


def allow_long_messages(made: socket.socket) -> None:
    """A message is sent whole, so the buffer must hold the longest."""
    try:
        made.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * MESSAGE_LIMIT)
    except OSError:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MESSAGE_LIMIT)
