"""A child born ahead of time: when the one before it dies, its first steps are behind it already.

A fork, a process of its own, an open log, a decoded configuration and an event loop take most of the time in
which a master that was killed has to speak again. The spare has done all that, and waits for the one order it
ever gets. It knows one generation; for any other it is of no use and goes.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from kad.ipc.messages import Role
from kad.runtime import logs
from kad.runtime.process import ChildContext
from kad.supervisor.spawn import Main, fork_child

SPARED = Role.VRRP
"""The one whose death others notice within milliseconds."""
CALM_US = 200_000
"""How long a child has to have been RUNNING before a spare is made, as a start has more urgent work; and the
least time between two spares.
"""
LONGEST_PAUSE_US = 60_000_000
"""Between two spares where each ended before it was needed: what kept it from standing ready may last."""
_ORDER_BYTES = 64


class Order(Struct, frozen=True):
    """What the spare could not know when it was born."""

    incarnation: int
    hold_preemption: bool


_decode_order = msgspec.msgpack.Decoder(Order).decode


class Spare:
    """At most one process, for one role. It is in nobody's table until it is sent."""

    def __init__(self) -> None:
        self.pid = 0
        self._line = -1
        self._context: ChildContext | None = None
        self._made_at_us = 0
        self._pause_us = CALM_US

    def is_due(self, now_us: int, calm_since_us: int) -> bool:
        waited_us = now_us - self._made_at_us
        return not self.pid and now_us - calm_since_us >= CALM_US and waited_us >= self._pause_us

    def make(self, main: Main, context: ChildContext, kept: Iterable[int], now_us: int) -> None:
        """Fork it. Where the system has no process for us, there is none: one more try follows in a while."""
        assert not self.pid
        self._made_at_us = now_us
        try:
            reader, self._line = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            logs.debug(f"{context.role}: no spare process: {error}")
            return

        def await_turn() -> None:
            data = os.read(reader, _ORDER_BYTES)
            if not data:
                os._exit(0)
            os.close(reader)
            order = _decode_order(data)
            context.incarnation, context.hold_preemption = order.incarnation, order.hold_preemption
            context.await_turn = None
            context.journal.heartbeat(context.role).pid = os.getpid()

        context.await_turn = await_turn
        try:
            self.pid = fork_child(main, context, [*kept, reader])
            self._context = context
        except OSError as error:
            os.close(self._line)
            logs.debug(f"{context.role}: no spare process: {error}")
        finally:
            os.close(reader)
            # It knows the context that knows it, and nobody here looks for such garbage.
            context.await_turn = None

    def fits(self, context: ChildContext) -> bool:
        """Whether it would be the same child as one forked now."""
        mine = self._context
        if mine is None:
            return False
        same = mine.generation is context.generation
        return same and mine.previous_generation is context.previous_generation

    def send(self, context: ChildContext) -> int:
        """Let it begin in the place of a new child; its pid, 0 where there is none that fits."""
        if not self.fits(context):
            self.discard()
            return 0
        order = Order(context.incarnation, context.hold_preemption)
        try:
            os.write(self._line, msgspec.msgpack.encode(order))
            # Should somebody have stopped it while nothing depended on it.
            os.kill(self.pid, signal.SIGCONT)
        except OSError:
            # It died just now, and nobody has seen it yet.
            self.discard()
            return 0
        pid = self.pid
        self._forget()
        self._pause_us = CALM_US
        return pid

    def ended(self, pid: int) -> bool:
        """Whether ``pid`` was the spare; there is none from now on, and for a while."""
        if not self.pid or pid != self.pid:
            return False
        self._forget()
        self._pause_us = min(2 * self._pause_us, LONGEST_PAUSE_US)
        return True

    def _forget(self) -> None:
        os.close(self._line)
        self.pid, self._line, self._context = 0, -1, None

    def discard(self) -> None:
        """It is reaped like everybody."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._forget()
