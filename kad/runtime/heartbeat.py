"""The signs of life of a child, in memory that all processes share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import IntEnum


class Phase(IntEnum):
    """Where a child is in its life, in its own words."""

    STARTING = 0
    PREPARING = 1
    READY = 2
    STOPPING = 3
    WITHDRAWN = 4
    """What it held is given back; only its own end is left."""


class Heartbeat:
    """One role's page. The child of that role writes; the supervisor and any other process may read.

    Every field is one aligned 64-bit word, so that a reader sees the old value or the new one.
    """

    _TICKS, _TICKED_AT, _PHASE, _INCARNATION, _GENERATION, _PID, _ASLEEP_UNTIL, _DISMISSED = range(8)

    def __init__(self, page: memoryview) -> None:
        self._words = page.cast("Q")

    def begin(self, incarnation: int) -> None:
        """A new life: called by the supervisor before the fork."""
        words = self._words
        words[self._PHASE] = Phase.STARTING
        words[self._GENERATION] = 0
        words[self._PID] = 0
        words[self._ASLEEP_UNTIL] = words[self._DISMISSED] = 0
        words[self._INCARNATION] = incarnation

    def tick(self, now_us: int = 0) -> None:
        """The driver is alive and not behind. ``now_us`` is CLOCK_MONOTONIC."""
        words = self._words
        words[self._TICKED_AT] = now_us
        words[self._TICKS] = (words[self._TICKS] + 1) & 0xFFFF_FFFF_FFFF_FFFF

    def sleep(self, until_us: int) -> None:
        """There is nothing to do before that time (CLOCK_MONOTONIC) unless it is woken; 0: it is awake."""
        self._words[self._ASLEEP_UNTIL] = until_us

    def dismiss(self) -> None:
        """Nothing is configured for this role any more: called by the supervisor, before it stops it."""
        self._words[self._DISMISSED] = 1

    @property
    def is_dismissed(self) -> bool:
        """What was stopped is not wanted any more; else it ends with the daemon, or is replaced."""
        return bool(self._words[self._DISMISSED])

    @property
    def asleep_until_us(self) -> int:
        return self._words[self._ASLEEP_UNTIL]

    @property
    def ticks(self) -> int:
        return self._words[self._TICKS]

    @property
    def ticked_at_us(self) -> int:
        """When the last tick was, CLOCK_MONOTONIC; 0 when the driver did not say."""
        return self._words[self._TICKED_AT]

    @property
    def phase(self) -> Phase:
        value = self._words[self._PHASE]
        return Phase(value) if value <= Phase.WITHDRAWN else Phase.STARTING

    @phase.setter
    def phase(self, value: Phase) -> None:
        self._words[self._PHASE] = value

    @contextlib.contextmanager
    def at_length(self) -> Iterator[None]:
        """For work whose size is the configuration's: meanwhile it is hung only after several limits."""
        before = self.phase
        if before is Phase.READY:
            self.phase = Phase.PREPARING
        yield
        if before is Phase.READY:
            self.phase = before

    @property
    def incarnation(self) -> int:
        return self._words[self._INCARNATION]

    @property
    def generation(self) -> int:
        """The last generation this life of the child has applied; 0: none yet."""
        return self._words[self._GENERATION]

    @generation.setter
    def generation(self, value: int) -> None:
        self._words[self._GENERATION] = value

    @property
    def pid(self) -> int:
        return self._words[self._PID]

    @pid.setter
    def pid(self, value: int) -> None:
        self._words[self._PID] = value
