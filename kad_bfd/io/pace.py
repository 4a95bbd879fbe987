"""How eagerly to read: at once while packets are few, every 1.25 ms while they are many. Pure.

A wake-up costs many times what reading a packet does. What only refreshes a detection time may lie so
long; detection itself is never late for it, since the sockets are emptied before timers are judged.
"""

from __future__ import annotations

PATIENCE_US = 1_250
MANY_PER_SECOND = 2_000
"""Packets from which on it pays."""
FEW_PER_SECOND = 1_000
WINDOW_US = 100_000


class Pace:
    """Looks at the rate a few times a second."""

    def __init__(self) -> None:
        self._since_us = 0
        self._packets = 0
        self._patience_us = 0

    def patience_us(self, packets: int, now_us: int) -> int:
        """``packets``: how many there have been so far."""
        elapsed_us = now_us - self._since_us
        if elapsed_us < WINDOW_US:
            return self._patience_us
        rate = (packets - self._packets) * 1_000_000 // elapsed_us
        if rate >= MANY_PER_SECOND:
            self._patience_us = PATIENCE_US
        elif rate < FEW_PER_SECOND:
            self._patience_us = 0
        self._since_us, self._packets = now_us, packets
        return self._patience_us
