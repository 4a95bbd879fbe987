"""Requests to the kernel, many at a time, each with its own answer, and no waiting in the loop.

The kernel works on a request inside ``send``: a thousand of them in one call would hold the loop for 10 ms.
So at most :data:`WINDOW` go out at once, and the rest when those are answered; adverts go out in between.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct

from kad.kernel.encoder import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLMSG_DONE,
    NLMSG_ERROR,
    Answer,
    MalformedMessage,
    answer,
    message,
    messages,
)

NO_VERDICT = frozenset({errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN})
"""Errors that say nothing about the command: the kernel had no memory, or no room for its answer."""
WINDOW = 64
QUEUE_LIMIT = 200_000
"""Requests waiting, at most: more than every address of every instance, added and removed."""

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_SO_RCVBUFFORCE = 33
_SIZE_LIMIT = (1 << 30) - 1
"""The kernel keeps twice the size of a buffer, in an int."""
_RECEIVE_BUFFER = 1 << 20
LEAST_RECEIVE_BUFFER = 1 << 17
_READ_SIZE = 1 << 16
_READS = 64


class Request(Struct, frozen=True, gc=False):
    """One request, without header. ``flags`` come on top of REQUEST and ACK."""

    kind: int
    flags: int
    body: bytes


class Outcome(Struct, frozen=True, gc=False):
    """A request and its answer; ``replies`` are the bodies that came before the acknowledgement."""

    request: Request
    error: int
    text: str = ""
    replies: tuple[bytes, ...] = ()

    @property
    def reason(self) -> str:
        """For people: the errno's name and what the kernel added."""
        name = errno.errorcode.get(self.error, str(self.error))
        return f"{name}: {self.text}" if self.text else f"{name}: {os.strerror(self.error)}"


class ReceiveBuffer(Struct, frozen=True):
    """What a configuration says about a socket's receive buffer. ``size`` in bytes; 0: nothing."""

    size: int = 0
    force: bool = False
    """Beyond net.core.rmem_max too."""


Done = Callable[[list[Outcome]], None]


class _Batch:
    """Requests submitted together and their answers so far."""

    __slots__ = ("done", "outcomes", "waiting")

    def __init__(self, count: int, done: Done) -> None:
        self.waiting = count
        self.outcomes: list[Outcome | None] = [None] * count
        self.done = done


class _Pending:
    """A request on its way."""

    __slots__ = ("batch", "place", "replies", "request")

    def __init__(self, request: Request, batch: _Batch, place: int) -> None:
        self.request = request
        self.batch = batch
        self.place = place
        self.replies: list[bytes] = []


class RequestQueue:
    """One netlink socket for requests. Readable: :meth:`drain`.

    Batches are worked on in order and their ``done`` called in order, from within :meth:`drain` or
    :meth:`submit`.
    """

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        self._socket.bind((0, 0))
        force_receive_buffer(self._socket, _RECEIVE_BUFFER)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self.port_id: int = self._socket.getsockname()[0]
        self._buffer = memoryview(bytearray(_READ_SIZE))
        self._sequence = 0
        self._queue: deque[_Pending] = deque()
        self._in_flight: dict[int, _Pending] = {}
        self._filling = False
        self._overrun = False
        self.malformed = 0

    def set_receive_buffer(self, wanted: ReceiveBuffer) -> None:
        """At least :data:`LEAST_RECEIVE_BUFFER`: the answers to one window must have room."""
        size = max(wanted.size, LEAST_RECEIVE_BUFFER) if wanted.size else 0
        set_receive_buffer(self._socket, ReceiveBuffer(size, wanted.force), _RECEIVE_BUFFER)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    @property
    def busy(self) -> bool:
        return bool(self._queue or self._in_flight)

    def submit(self, requests: Sequence[Request], done: Done) -> None:
        """Send these in order; ``done`` gets one outcome each, in the same order.

        Refused whole (ENOBUFS) when more than :data:`QUEUE_LIMIT` are waiting. None at all is done at once.
        """
        if not requests or len(self._queue) + len(requests) > QUEUE_LIMIT:
            done([Outcome(request, errno.ENOBUFS) for request in requests])
            return
        batch = _Batch(len(requests), done)
        self._queue.extend(_Pending(request, batch, place) for place, request in enumerate(requests))
        self._fill()

    def drain(self) -> bool:
        """Read answers; True when there may be more."""
        for _ in range(_READS):
            try:
                length, sender = self._socket.recvfrom_into(self._buffer)
            except BlockingIOError:
                if not self._overrun:
                    return False
                # Answers were lost. What is still on its way counts as refused: whoever asked compares and
                # repeats. Not before the queue is empty: until then the kernel drops answers without a word.
                self._overrun = False
                self._give_up(Answer(errno.ENOBUFS))
                self._fill()
                continue
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._overrun = True
                continue
            if sender[0] == 0:
                self._read(bytes(self._buffer[:length]))
        return True

    def _read(self, data: bytes) -> None:
        try:
            for reply in messages(data):
                pending = self._in_flight.get(reply.sequence)
                if pending is None:
                    continue
                if reply.kind in (NLMSG_ERROR, NLMSG_DONE):
                    del self._in_flight[reply.sequence]
                    self._settle(pending, answer(reply))
                else:
                    pending.replies.append(reply.body)
        except MalformedMessage:
            self.malformed += 1
        self._fill()

    def _fill(self) -> None:
        """The next window, once the last one has been answered."""
        if self._filling or self._overrun:
            return
        self._filling = True
        while self._queue and not self._in_flight:
            try:
                self._socket.sendto(self._next_window(), (0, 0))
            except OSError as error:
                self._give_up(Answer(error.errno or errno.EIO))
        self._filling = False

    def _next_window(self) -> bytes:
        parts: list[bytes] = []
        dumping = False
        while self._queue and len(parts) < WINDOW and not dumping:
            # A dump goes alone: the kernel works on one at a time for a socket.
            dumping = self._queue[0].request.flags & NLM_F_DUMP == NLM_F_DUMP
            if dumping and parts:
                break
            pending = self._queue.popleft()
            self._sequence = self._sequence % 0xFFFF_FFFF + 1
            self._in_flight[self._sequence] = pending
            request = pending.request
            parts.append(message(request.kind, request.flags | NLM_F_ACK, self._sequence, request.body))
        return b"".join(parts)

    def _give_up(self, verdict: Answer) -> None:
        lost, self._in_flight = self._in_flight, {}
        for pending in lost.values():
            self._settle(pending, verdict)

    @staticmethod
    def _settle(pending: _Pending, verdict: Answer) -> None:
        batch = pending.batch
        replies = tuple(pending.replies)
        batch.outcomes[pending.place] = Outcome(pending.request, verdict.error, verdict.text, replies)
        batch.waiting -= 1
        if batch.waiting == 0:
            batch.done([outcome for outcome in batch.outcomes if outcome is not None])


def set_receive_buffer(made: socket.socket, wanted: ReceiveBuffer, usual: int) -> None:
    """``usual``: the size where nothing is said, which is forced."""
    if wanted.force or not wanted.size:
        force_receive_buffer(made, wanted.size or usual)
    else:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, min(wanted.size, _SIZE_LIMIT))


def force_receive_buffer(made: socket.socket, size: int) -> None:
    """Beyond net.core.rmem_max where we may (CAP_NET_ADMIN), up to it otherwise."""
    size = min(size, _SIZE_LIMIT)
    try:
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
