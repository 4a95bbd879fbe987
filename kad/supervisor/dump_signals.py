"""Signals for dumps on their way to control, which may be dead at the moment, or dying."""

from __future__ import annotations

from kad.ipc.messages import SignalReceived
from kad.runtime.clock import monotonic_us
from kad.supervisor.channel import Channel

MEMORY_US = 1_000_000
"""One that was passed to a control which died sooner than that goes to the next one too."""


class DumpSignals:
    """``channel`` is the present control's; None: there is none."""

    def __init__(self) -> None:
        self._passed: dict[int, int] = {}
        """When each was last passed on."""
        self._unheard: set[int] = set()

    def pass_on(self, number: int, channel: Channel | None) -> None:
        if channel is None:
            self._unheard.add(number)
        else:
            channel.send(SignalReceived(number))
            self._passed[number] = monotonic_us()

    def control_died(self) -> None:
        """What it was told last it may not have read."""
        since_us = monotonic_us() - MEMORY_US
        self._unheard.update(number for number, at_us in self._passed.items() if at_us > since_us)
        self._passed.clear()

    def control_started(self, channel: Channel) -> None:
        unheard, self._unheard = self._unheard, set()
        for number in sorted(unheard):
            self.pass_on(number, channel)
