"""A core with nothing to do: for a process that only obeys, reports and ticks."""

from __future__ import annotations

from typing import Generic, TypeVar

E = TypeVar("E")
A = TypeVar("A")


class WaitingCore(Generic[E, A]):
    """Takes everything, wants nothing, is never due."""

    @property
    def deadline_us(self) -> int | None:
        return None

    def handle(self, event: E, now_us: int) -> list[A]:
        return []
