"""Links between processes: a ROUTER end that is bound and DEALER ends that connect to it, on plain ZeroMQ.

The sockets' own descriptor (ZMQ_FD) is watched by the event loop: a third of the cost of ``zmq.asyncio``.
That descriptor tells of changes, not of levels: once read from or sent on, only ZMQ_EVENTS tells whether
more is waiting. So every receive goes on until it is dry, and every send is followed by a look.

A process makes its ZeroMQ context after its fork; none crosses one. A dealer whose router died connects to
the next one on the same path by itself. It then sends an empty message (ZMQ_PROBE_ROUTER; with
ZMQ_IMMEDIATE each connection is a new one, and nothing queued for a dead router reaches the next), by which
the router knows that somebody new is there and asks who.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import zmq
from msgspec import Struct

from kad.errors import KadError
from kad.ipc.codec import MESSAGE_LIMIT, Decoder, DropReason, Drops, encode

T = TypeVar("T")

QUEUE_LIMIT = 128
"""Messages waiting per connection and direction; more are refused to the sender and counted."""

BATCH = 64
"""Messages read before the loop's other readers have their turn."""

PATH_LIMIT = 107
"""sun_path of unix(7), less the closing NUL."""


class LinkError(KadError):
    """A link cannot be set up on this path."""


class Reactor(Protocol):
    """The part of :class:`kad.runtime.driver.Driver` a link needs."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    def add_reader(self, descriptor: int, drain: Callable[[], bool], *, direct: bool = False) -> None: ...

    def remove_reader(self, descriptor: int) -> None: ...

    def watch_lateness(self, limit_us: int, on_late: Callable[[], None]) -> None: ...


_contexts: dict[int, zmq.Context[zmq.Socket[bytes]]] = {}


def process_context() -> zmq.Context[zmq.Socket[bytes]]:
    """This process's one context (its threads start with its first socket). None is taken over a fork."""
    pid = os.getpid()
    if pid not in _contexts:
        _contexts[pid] = zmq.Context()
    return _contexts[pid]


class _Socket:
    """One ZeroMQ socket on an event loop."""

    def __init__(self, kind: int, reactor: Reactor, on_frames: Callable[[list[bytes]], None]) -> None:
        self._reactor = reactor
        self._on_frames = on_frames
        self._again = False
        self.closed = False
        self.socket = process_context().socket(kind)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.SNDHWM, QUEUE_LIMIT),
            (zmq.RCVHWM, QUEUE_LIMIT),
            (zmq.MAXMSGSIZE, MESSAGE_LIMIT),
            (zmq.RECONNECT_IVL, 1),
            # Doubled up to this: dialling every millisecond while control is away costs 3 % of a core.
            (zmq.RECONNECT_IVL_MAX, 64),
        ):
            self.socket.setsockopt(option, value)

    def watch(self) -> None:
        self._descriptor = int(self.socket.getsockopt(zmq.FD))
        self._reactor.add_reader(self._descriptor, self._drain)
        self._look_again()

    def send(self, frames: list[bytes]) -> bool:
        """False when the peer is not there or its queue is full."""
        if self.closed:
            return False
        try:
            self.socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            # EHOSTUNREACH is ZMQ_ROUTER_MANDATORY's word for a peer that is gone.
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            return False
        finally:
            self._look_again()
        return True

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._reactor.remove_reader(self._descriptor)
        self.socket.close(0)

    def _look_again(self) -> None:
        """A send may have eaten the descriptor's news: have the queue looked at in the next turn."""
        if self._again or self.closed or not self._readable():
            return
        self._again = True
        self._reactor.loop.call_soon(self._drain_again)

    def _drain_again(self) -> None:
        self._again = False
        self._drain()

    def _drain(self) -> bool:
        """Never True: what is left is looked at again by :meth:`_look_again`, not by the descriptor."""
        for _ in range(BATCH):
            if self.closed or not self._readable():
                return False
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return False
            self._on_frames(frames)
        self._look_again()
        return False

    def _readable(self) -> bool:
        return bool(int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)


class RouterEnd(Generic[T]):
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
        self._on_peer = on_peer
        self._on_message = on_message
        self._decoder: Decoder[T] = Decoder(kind)
        self._socket = _Socket(zmq.ROUTER, reactor, self._receive)
        self._socket.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        # A peer that lost its connection and is back before we noticed is still the same peer.
        self._socket.socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        # A predecessor that was killed has left its socket file; run directories have one owner.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        try:
            self._socket.socket.bind(f"ipc://{path}")
        except zmq.ZMQError as error:
            raise LinkError(f"cannot listen on {path}: {error}") from error
        os.chmod(path, 0o600)
        self._socket.watch()

    @property
    def drops(self) -> Drops:
        return self._decoder.drops

    def send(self, peer: bytes, message: Struct) -> bool:
        """False (and counted) when the peer is gone or does not read."""
        if self._socket.send([peer, encode(message)]):
            return True
        self.drops[DropReason.UNSENT] += 1
        return False

    def drain(self) -> None:
        """Take what has come, a batch at most; the descriptor tells of the rest."""
        self._socket._drain()

    def close(self) -> None:
        self._socket.close()

    def _receive(self, frames: list[bytes]) -> None:
        if len(frames) != 2:
            self.drops[DropReason.GARBAGE] += 1
            return
        peer, data = frames
        if not data:
            self._on_peer(peer)
            return
        message = self._decoder.decode(data)
        if message is not None:
            self._on_message(peer, message)


class DealerEnd(Generic[T]):
    """The end that connects, and connects again. ``identity`` must be its own (role and incarnation)."""

    def __init__(
        self,
        reactor: Reactor,
        path: str,
        kind: Any,
        *,
        identity: bytes,
        on_message: Callable[[T], None],
    ) -> None:
        check_path(path)
        self._on_message = on_message
        self._decoder: Decoder[T] = Decoder(kind)
        self._socket = _Socket(zmq.DEALER, reactor, self._receive)
        self._socket.socket.setsockopt(zmq.ROUTING_ID, identity)
        self._socket.socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.socket.setsockopt(zmq.PROBE_ROUTER, 1)
        self._socket.socket.connect(f"ipc://{path}")
        self._socket.watch()

    @property
    def drops(self) -> Drops:
        return self._decoder.drops

    def send(self, message: Struct) -> bool:
        """False (and counted) when nobody is connected or the queue is full."""
        if self._socket.send([encode(message)]):
            return True
        self.drops[DropReason.UNSENT] += 1
        return False

    def close(self) -> None:
        self._socket.close()

    def _receive(self, frames: list[bytes]) -> None:
        message = self._decoder.decode(frames[0]) if len(frames) == 1 else None
        if message is not None:
            self._on_message(message)
        elif len(frames) != 1:
            self.drops[DropReason.GARBAGE] += 1


def check_path(path: str) -> None:
    """Raise :class:`LinkError` when the kernel cannot name a socket like this."""
    if len(os.fsencode(path)) > PATH_LIMIT:
        raise LinkError(f"the path of a socket may have {PATH_LIMIT} bytes at most: {path}")


def child_identity(role: str, incarnation: int, pid: int) -> bytes:
    """The name one life of a child has on its link."""
    return f"{role}.{incarnation}.{pid}".encode()


def control_path(run_directory: str) -> str:
    """Where control listens to its children."""
    return os.path.join(run_directory, "control.ipc")


def ctl_path(run_directory: str) -> str:
    """Where control listens to kadctl."""
    return os.path.join(run_directory, "ctl.ipc")
