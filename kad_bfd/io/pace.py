"""How eagerly to read: at once while packets are few, now and then while they are many. Pure.

A wake-up costs many times what reading a packet does, and what only refreshes a detection time may lie: the
time counts from its arrival, and the sockets are emptied before anybody is found lost.
"""

from __future__ import annotations

MANY = 2
"""Packets in one patience from which on it pays."""
WINDOW_US = 100_000


class Pace:
    """Looks at the rate a few times a second."""

    def __init__(self) -> None:
        self._since_us = 0
        self._packets = 0
        self._patience_us = 0

    def patience_us(self, packets: int, longest_us: int, now_us: int) -> int:
        """``packets``: how many there have been so far. ``longest_us``: how long one may lie."""
        elapsed_us = now_us - self._since_us
        if elapsed_us < WINDOW_US:
            return self._patience_us
        enough = MANY // 2 if self._patience_us else MANY
        if (packets - self._packets) * longest_us >= enough * elapsed_us:
            self._patience_us = longest_us
        else:
            self._patience_us = 0
        self._since_us, self._packets = now_us, packets
        return self._patience_us
