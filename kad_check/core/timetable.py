"""When which checker is next. Pure.

Starts come in small groups: a wake-up also starts what is due within some milliseconds, and never more than
a group at once, so that thousands of servers never make a burst whatever their configuration says.
"""

from __future__ import annotations

from heapq import heappop, heappush

from kad.units import NEVER
from kad_check.core.checker import CheckerState

EARLY_US = 20_000
"""Checks due this soon start now: waking up costs more than most checks."""
GROUP_LIMIT = 64
"""Checks started at once."""
GROUP_GAP_US = 5_000
"""Between two groups when more is due than a group may have."""


class Timetable:
    """A checker is in it as long as its ``due_us`` is not NEVER; an entry that differs from that is stale."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, CheckerState]] = []
        self._not_before_us = 0
        self.late_us = 0
        """How long the first of the last group had been due."""

    def put(self, checker: CheckerState) -> None:
        """The checker's ``due_us`` was set."""
        heappush(self._heap, (checker.due_us, checker.number, checker))

    @property
    def deadline_us(self) -> int:
        heap = self._heap
        while heap and heap[0][2].due_us != heap[0][0]:
            heappop(heap)
        return max(heap[0][0], self._not_before_us) if heap else NEVER

    def take(self, now_us: int) -> list[CheckerState]:
        """The next group, if its time has come. Their ``due_us`` is NEVER from now on."""
        taken: list[CheckerState] = []
        if now_us < self._not_before_us:
            return taken
        heap, until_us = self._heap, now_us + EARLY_US
        while heap and heap[0][0] <= until_us:
            if len(taken) == GROUP_LIMIT:
                self._not_before_us = now_us + GROUP_GAP_US
                break
            due_us, _, checker = heappop(heap)
            if checker.due_us == due_us:
                if not taken:
                    self.late_us = max(0, now_us - due_us)
                checker.due_us = NEVER
                taken.append(checker)
        return taken
