"""The line to control: one channel a life, and what waits for a control that listens.

A control that has hung up, or talked nonsense, may live on for a moment: it is deaf, and what comes then
(a reload, a dump) is for the next one.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable

from kad.ipc.messages import (
    ControlToSupervisor,
    ReloadRequested,
    SupervisorToControl,
)
from kad.runtime import logs
from kad.runtime.clock import monotonic_us
from kad.runtime.systemd import ServiceManager
from kad.supervisor.channel import Channel
from kad.supervisor.dump_signals import DumpSignals
from kad.supervisor.reload import ReloadRequests

Obey = Callable[[ControlToSupervisor, int], None]
"""What to do about a message and the descriptor that came with it (-1: none). May raise ChannelError."""


class ControlLine:
    """Nothing here waits; everything may be called whether there is a control or not."""

    def __init__(self, poll: select.poll, manager: ServiceManager) -> None:
        self._poll = poll
        self._manager = manager
        self._channel: Channel | None = None
        self._requests = ReloadRequests()
        self._dump_signals = DumpSignals()
        self._deaf_since_us = 0

    @property
    def is_open(self) -> bool:
        return self._channel is not None

    @property
    def reloading(self) -> bool:
        """A load or reload is in progress."""
        return self._requests.in_progress

    def deaf_us(self, now_us: int) -> int:
        """For how long there has been nobody to talk to."""
        return 0 if self._channel is not None else now_us - self._deaf_since_us

    # A control's life ------------------------------------------------------------------------------------

    def open(self) -> int:
        """Before control is forked: its end, which it inherits. Raises OSError."""
        self._channel = Channel()
        return self._channel.theirs.fileno()

    def control_started(self, *, loading: bool) -> None:
        """It was forked. ``loading``: it begins with a load of its own, because nothing was committed yet."""
        assert self._channel is not None
        self._channel.theirs.close()
        self._poll.register(self._channel.fileno(), select.POLLIN)
        self._dump_signals.control_started(self._channel)
        self._pass(self._requests.control_started(loading=loading))

    def control_died(self) -> None:
        self._requests.control_died()
        self._dump_signals.control_died()
        self.close()

    def close(self) -> None:
        """It hung up, died, or was never born."""
        if self._channel is None:
            return
        with contextlib.suppress(KeyError):
            self._poll.unregister(self._channel.fileno())
        self._channel.close()
        self._channel = None
        self._deaf_since_us = monotonic_us()
        self._requests.control_deaf()

    # Messages --------------------------------------------------------------------------------------------

    def wait(self, timeout_ms: int) -> None:
        """Until something has come from anybody, sending what waits to be sent."""
        channel = self._channel
        if channel is not None:
            writing = select.POLLOUT if channel.wants_write else 0
            self._poll.modify(channel.fileno(), select.POLLIN | writing)
        for descriptor, _ in self._poll.poll(timeout_ms):
            if channel is not None and descriptor == channel.fileno():
                channel.flush()

    def receive(self, obey: Obey) -> None:
        """Obey everything control has said so far. Raises ChannelError."""
        channel = self._channel
        if channel is None:
            return
        for message, descriptor in channel.receive():
            try:
                obey(message, descriptor)
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
        if channel.ended:
            # It is dying, or it is of no use any more; which of the two, is seen in a moment.
            self.close()

    def send(self, message: SupervisorToControl) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def pass_signal(self, number: int) -> None:
        """One that asks for a dump or for statistics."""
        self._dump_signals.pass_on(number, self._channel)

    # Reloads ---------------------------------------------------------------------------------------------

    def request_reload(self) -> None:
        if not self._pass(self._requests.request()):
            logs.info("reload: asked for while one is in progress; it follows")

    def reload_begun(self) -> None:
        """Control has read that it is to reload."""
        self._requests.begun()

    def load_finished(self) -> None:
        """The load or reload ended, well or not: the one that is owed may begin."""
        self._pass(self._requests.finished())

    def _pass(self, now: bool) -> bool:
        if now:
            assert self._channel is not None
            self._manager.reloading(monotonic_us())
            self._channel.send(ReloadRequested())
        return now
