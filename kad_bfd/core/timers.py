"""Intervals of RFC 5880 §6.8, in integer microseconds, and the session's own source of variety. Pure."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b, shake_128
from itertools import cycle
from struct import Struct as Layout

SLOW_TX_US = 1_000_000
"""RFC 5880 §6.8.3: while a session is not Up, no less may be advertised as Desired Min TX Interval."""

LEAST_STALL_US = 2_000
"""A process that comes this late to a deadline did not run."""

LONGEST_EARLY_US = 8_000
"""No packet leaves earlier than this before its time."""

DRAWS = 1021
"""Random numbers that all sessions take turns with: a prime, so that no number of sessions fits into it."""


def transmit_interval_us(min_tx_us: int, remote_min_rx_us: int) -> int:
    """RFC 5880 §6.8.7: the greater of what we wish and what the peer can take."""
    return max(min_tx_us, remote_min_rx_us)


def detection_time_us(remote_detect_mult: int, min_rx_us: int, remote_desired_min_tx_us: int) -> int:
    """RFC 5880 §6.8.4, asynchronous mode: the peer's multiplier times the interval it sends at."""
    return remote_detect_mult * max(min_rx_us, remote_desired_min_tx_us)


def early_window_us(interval_us: int, detect_mult: int) -> int:
    """How long before its time a packet may leave when the process is awake anyway.

    A wake-up costs more than a packet: with a hundred sessions at 10 ms one wake-up serves fifteen of them.
    Two thirds of the room there is for jitter, at most.
    """
    return min(LONGEST_EARLY_US, interval_us // (6 if detect_mult > 1 else 10))


def jitter_range_us(interval_us: int, detect_mult: int) -> tuple[int, int]:
    """The least gap between two packets, and what chance may add to it.

    RFC 5880 §6.8.7: 75 to 100 % of the interval, at most 90 % with a multiplier of 1. The early window is
    added to the lower end here, so that a packet which uses it does not come too soon either.
    """
    low_us = interval_us * 3 // 4 + early_window_us(interval_us, detect_mult)
    high_us = interval_us if detect_mult > 1 else interval_us * 9 // 10
    return low_us, high_us - low_us


class Variety:
    """Numbers that look random and follow from ``seed``: jitter, discriminators, ports.

    The shell hands in real entropy; a simulation hands in its own seed and can be repeated bit for bit.
    """

    __slots__ = ("_secret", "_serial", "draw")

    def __init__(self, seed: int) -> None:
        self._secret = seed.to_bytes(32, "big", signed=False)
        self._serial = 0
        drawn = shake_128(self._secret).digest(2 * DRAWS)
        self.draw: Callable[[], int] = cycle(Layout(f"{DRAWS}H").unpack(drawn)).__next__
        """0-65535, in no time. For jitter: whoever watches the packets learns nothing worth hiding."""

    def number(self, bits: int = 32) -> int:
        """One that cannot be told from those before it (RFC 5880 §6.8.1 and §9: discriminators)."""
        self._serial += 1
        digest = blake2b(self._serial.to_bytes(8, "big"), key=self._secret, digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 64 - bits
