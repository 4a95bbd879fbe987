"""Every check over a socket: one state machine on one epoll set, which the event loop sees as one descriptor.

Each socket is told of once for both directions and by edges: it is read and written until it would block.

asyncio's own transports would cost four times as much a check. A check has the time limit once for its
connection, once for the TLS handshake and once for the whole conversation: a server that sends a byte now
and then does not get it anew with each (keepalived waits for ever on such a one).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
import ssl
from collections.abc import Callable

from kad.ipc.link import Reactor
from kad_check.core.dialogues.dialogue import Dialogue
from kad_check.core.events import Verdict
from kad_check.io.expiry import Expiry
from kad_check.io.patterns import SHARE_US, BoundedSearch
from kad_check.io.target import NotRunError, Target, is_our_fault
from kad_check.io.tls import READ_SIZE, TlsStream

READS_AT_ONCE = 8
"""Reads from one server before the others have their turn."""
BATCH = 64
GRACE_US = 100_000
"""For one whose time is over while what it said has not been looked at yet."""

_CONNECTING, _SHAKING_HANDS, _TALKING = range(3)
_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET
# Bound here: looked up in their modules they would cost a share of every check.
_READABLE, _IN_ERROR = select.EPOLLIN, select.EPOLLERR
_GOOD, _BAD = Verdict.SUCCESS, Verdict.FAILURE

Done = Callable[[int, Verdict, str], None]
"""The checker's number, the verdict, and a phrase for people."""


class Attempt:
    """One check under way."""

    dialogue: Dialogue | None = None
    phase = _CONNECTING
    unsent = b""
    deadline_us = 0

    def __init__(self, number: int, step: int, target: Target, opened: socket.SocketType) -> None:
        self.number = number
        self.step = step
        self.target = target
        self.socket = opened
        self.stream: socket.SocketType | TlsStream = opened
        """What is said goes through this."""
        self.descriptor = opened.fileno()


class Connections:
    """See the module. ``done`` is told of every check that was started, once, unless it was broken off.

    ``search``: what their patterns are to be searched with.
    """

    def __init__(self, reactor: Reactor, done: Done) -> None:
        self._done = done
        self._reactor = reactor
        self._epoll = select.epoll()
        self._attempts: dict[int, Attempt] = {}
        """By descriptor."""
        self._running: dict[int, Attempt] = {}
        """By the checker's number."""
        self._fresh = False
        """Something was started since the last look."""
        self._unread: list[Attempt] = []
        """Conversations that were left with more to read, for the others' sake."""
        self.search = BoundedSearch()
        self._postponed: dict[int, int] = {}
        """Descriptors and events put off to the loop's next turn, because patterns took their time."""
        self._continuation: asyncio.Handle | None = None
        """Of what is put off."""
        self._expiry: Expiry[Attempt] = Expiry(reactor.loop, self._on_expiry)
        reactor.add_reader(self._epoll.fileno(), self._drain)

    @property
    def running(self) -> int:
        return len(self._running)

    def start(self, number: int, step: int, target: Target) -> None:
        """Begin a check; ``done`` may be called from within."""
        try:
            opened = target.open()
        except NotRunError as error:
            self._done(number, Verdict.NOT_RUN, str(error))
            return
        attempt = Attempt(number, step, target, opened)
        failed = opened.connect_ex(target.address)
        if failed and failed != errno.EINPROGRESS:
            opened.close()
            self._done(number, Verdict.NOT_RUN if is_our_fault(failed) else Verdict.FAILURE, _said(failed))
            return
        self._running[number] = self._attempts[attempt.descriptor] = attempt
        self._fresh = True
        self._expiry.limit(attempt, target.timeout_us)
        self._epoll.register(attempt.descriptor, _EVENTS)
        if not target.is_stream:
            self._converse(attempt)

    def stop(self, number: int) -> None:
        """Break a check off without a word."""
        attempt = self._running.get(number)
        if attempt is not None:
            self._drop(attempt)

    def close(self) -> None:
        for attempt in list(self._running.values()):
            self._drop(attempt)
        self._expiry.close()
        if self._continuation is not None:
            self._continuation.cancel()
        self._reactor.remove_reader(self._epoll.fileno())
        self._epoll.close()

    # Events ----------------------------------------------------------------------------------------------

    def look(self) -> bool:
        """At the end of a turn: servers nearby have answered already, and a turn costs more than a look."""
        if not self._fresh and not self._unread:
            return False
        self._fresh = False
        return self._drain()

    def _drain(self) -> bool:
        if self._continuation is not None:
            return False
        ready = list(self._postponed.items()) or self._epoll.poll(0, BATCH)
        self._postponed = {}
        attempts, search = self._attempts, self.search
        unread, self._unread = self._unread, []
        for place, attempt in enumerate(unread):
            if search.spent_us >= SHARE_US:
                self._unread += unread[place:]
                return self._put_off(ready)
            if self._running.get(attempt.number) is attempt:
                self._talk(attempt)
        for place, (descriptor, events) in enumerate(ready):
            if search.spent_us >= SHARE_US:
                return self._put_off(ready[place:])
            found = attempts.get(descriptor)
            if found is None:
                continue  # ended by the one before it
            if found.phase == _TALKING:
                self._talk(found)
            elif found.phase == _CONNECTING:
                self._connected(found, events)
            else:
                self._shake_hands(found)
        return len(ready) == BATCH or bool(self._unread)

    def _put_off(self, ready: list[tuple[int, int]]) -> bool:
        """These have their turn when the loop has come round, and nobody before them."""
        # Of those that have ended since, another check may get the descriptor.
        self._postponed = {descriptor: events for descriptor, events in ready if descriptor in self._attempts}
        self._continuation = self._reactor.loop.call_soon(self._go_on)
        return False

    def _go_on(self) -> None:
        self._continuation = None
        self.search.spent_us = 0
        if self._drain():
            self._continuation = self._reactor.loop.call_soon(self._go_on)

    def _is_unheard(self, attempt: Attempt) -> bool:
        """It was not silent, but has not been listened to."""
        if self._continuation is None:
            return False
        for descriptor, events in self._epoll.poll(0):
            self._postponed[descriptor] = self._postponed.get(descriptor, 0) | events
        return attempt.descriptor in self._postponed or attempt in self._unread

    def _connected(self, attempt: Attempt, events: int) -> None:
        # Asked only where there is one to tell: it would be a seventh of all system calls of a check.
        failed = attempt.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if events & _IN_ERROR else 0
        target = attempt.target
        if failed:
            self._finish(attempt, _BAD, _said(failed))
        elif target.make_dialogue is None:
            self._finish(attempt, _GOOD, "")
        elif target.context is not None:
            self._begin_tls(attempt, target.context)
        else:
            self._expiry.limit(attempt, target.timeout_us)
            if self._converse(attempt) and events & _READABLE:
                # It has spoken already.
                self._talk(attempt)

    def _begin_tls(self, attempt: Attempt, context: ssl.SSLContext) -> None:
        names = attempt.target.server_names
        try:
            attempt.stream = TlsStream(context, attempt.socket, names[attempt.step] if names else "")
        except (OSError, ValueError) as error:
            self._finish(attempt, _BAD, f"TLS: {_tls_said(error)}")
            return
        attempt.phase = _SHAKING_HANDS
        self._expiry.limit(attempt, attempt.target.timeout_us)
        self._shake_hands(attempt)

    def _shake_hands(self, attempt: Attempt) -> None:
        assert isinstance(attempt.stream, TlsStream)
        try:
            complete = attempt.stream.shake_hands()
        except (OSError, ValueError) as error:
            self._finish(attempt, _BAD, f"TLS handshake: {_tls_said(error)}")
            return
        if complete:
            self._expiry.limit(attempt, attempt.target.timeout_us)
            if self._converse(attempt):
                self._talk(attempt)

    def _converse(self, attempt: Attempt) -> bool:
        """The way is open: begin the conversation. False: that ended it."""
        assert attempt.target.make_dialogue is not None
        attempt.phase = _TALKING
        attempt.dialogue = attempt.target.make_dialogue(attempt.step)
        attempt.unsent = attempt.dialogue.opening
        return self._send(attempt)

    # Conversation ----------------------------------------------------------------------------------------

    def _talk(self, attempt: Attempt) -> None:
        dialogue = attempt.dialogue
        assert dialogue is not None
        if attempt.unsent and not self._send(attempt):
            return
        for _ in range(READS_AT_ONCE):
            try:
                data = attempt.stream.recv(READ_SIZE)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except OSError as error:
                self._finish(attempt, _BAD, f"read: {_tls_said(error)}")
                return
            outcome = dialogue.receive(data) if data or not attempt.target.is_stream else dialogue.end()
            if outcome is not None:
                self._finish(attempt, _GOOD if outcome.success else _BAD, outcome.detail)
                return
            if dialogue.to_send:
                attempt.unsent += dialogue.to_send
                dialogue.to_send = b""
                if not self._send(attempt):
                    return
        else:
            # There may be more, and the epoll set would not tell of it again.
            self._unread.append(attempt)

    def _send(self, attempt: Attempt) -> bool:
        """Send what is to be sent as far as it goes; False: that ended the check."""
        unsent = attempt.unsent
        while unsent:
            try:
                sent = attempt.stream.send(unsent)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except OSError as error:
                if error.errno in (errno.EPIPE, errno.ECONNRESET) and attempt.target.is_stream:
                    # It may have said something before it closed.
                    unsent = b""
                    break
                self._finish(attempt, _BAD, f"write: {_tls_said(error)}")
                return False
            unsent = unsent[sent:]
        attempt.unsent = unsent
        return True

    # The end ---------------------------------------------------------------------------------------------

    def _on_expiry(self, attempt: Attempt) -> None:
        if self._is_unheard(attempt):
            self._expiry.limit(attempt, GRACE_US)
        elif attempt.phase == _TALKING:
            assert attempt.dialogue is not None
            outcome = attempt.dialogue.silence()
            self._finish(attempt, _GOOD if outcome.success else _BAD, outcome.detail)
        elif attempt.phase == _CONNECTING:
            self._finish(attempt, _BAD, "connection timeout")
        else:
            self._finish(attempt, _BAD, "TLS handshake timeout")

    def _finish(self, attempt: Attempt, verdict: Verdict, detail: str) -> None:
        self._drop(attempt)
        self._done(attempt.number, verdict, detail)

    def _drop(self, attempt: Attempt) -> None:
        attempt.deadline_us = 0
        del self._running[attempt.number]
        del self._attempts[attempt.descriptor]
        if self._postponed:
            self._postponed.pop(attempt.descriptor, None)
        polite = attempt.target.closes_politely
        if polite and polite[attempt.step] and attempt.phase == _TALKING:
            assert isinstance(attempt.stream, TlsStream)
            with contextlib.suppress(OSError, ValueError):
                attempt.stream.unwrap()
        # Not left to the closing: a script being forked may hold the descriptor a moment longer.
        self._epoll.unregister(attempt.descriptor)
        attempt.socket.close()


def _said(number: int) -> str:
    return os.strerror(number).lower()


def _tls_said(error: Exception) -> str:
    """OpenSSL's reason without its file names, or the system's."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "closed").lower().replace("_", " ")
    if isinstance(error, OSError) and error.errno:
        return _said(error.errno)
    return str(error)
