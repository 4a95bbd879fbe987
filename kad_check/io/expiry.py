"""Time limits of many short-lived things for the price of a queue entry each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from kad.runtime.clock import monotonic_us
from kad.units import NEVER


class Expiring(Protocol):
    """``deadline_us``: CLOCK_MONOTONIC; 0: it has no limit any more."""

    deadline_us: int


T = TypeVar("T", bound=Expiring)


class Expiry(Generic[T]):
    """Limits of equal length end in the order they began: one queue for each length, one timer for all."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[T], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._queues: dict[int, deque[tuple[int, T]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due_us = NEVER
        """When the timer rings."""

    def limit(self, item: T, length_us: int) -> None:
        """``item`` has this long from now on; an earlier limit of it is void."""
        deadline_us = item.deadline_us = monotonic_us() + length_us
        queue = self._queues.get(length_us)
        if queue is None:
            queue = self._queues[length_us] = deque()
        queue.append((deadline_us, item))
        # What has ended is let go of: thousands of them would be carried through memory until their time.
        while queue[0][1].deadline_us != queue[0][0]:
            queue.popleft()
        if deadline_us < self._due_us:
            self._arm(deadline_us)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._queues.clear()

    def _arm(self, due_us: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due_us = due_us
        self._timer = self._loop.call_later(max(0, due_us - monotonic_us()) / 1e6, self._look)

    def _look(self) -> None:
        self._timer, self._due_us = None, NEVER
        now_us = monotonic_us()
        over: list[T] = []
        first_us = 0
        for length_us, queue in list(self._queues.items()):
            while queue and (queue[0][0] <= now_us or queue[0][1].deadline_us != queue[0][0]):
                deadline_us, item = queue.popleft()
                if item.deadline_us == deadline_us:
                    item.deadline_us = 0
                    over.append(item)
            if not queue:
                del self._queues[length_us]
            elif not first_us or queue[0][0] < first_us:
                first_us = queue[0][0]
        if first_us:
            self._arm(first_us)
        for item in over:
            self._expired(item)
