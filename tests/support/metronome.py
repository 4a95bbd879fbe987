"""Whether the machine itself stood still: a thread that should run every few milliseconds, its longest pause.

A shared machine stalls for tens of milliseconds now and then. What is lost in such a pause says nothing about
the daemon; a test that counts losses leaves those rounds out, and says how many.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

PERIOD_S = 0.002
ATTEMPTS = 4
"""What the machine's own pauses spoil is done again, so often at most."""


class Metronome:
    def __init__(self) -> None:
        self._stop = threading.Event()
        self._worst = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Metronome:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def take_worst_ms(self) -> float:
        """The longest pause since the last call, beyond its period."""
        worst, self._worst = self._worst, 0.0
        return worst * 1000

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(PERIOD_S):
            now = time.monotonic()
            self._worst = max(self._worst, now - last - PERIOD_S)
            last = now


def interpreter_start_us() -> int:
    """What a bare Python that can do nothing yet costs here and now: how fast the machine is."""
    begin_us = time.monotonic_ns() // 1000
    subprocess.run([sys.executable, "-I", "-c", "pass"], check=True)
    return time.monotonic_ns() // 1000 - begin_us


def undisturbed(attempt: Callable[[], None], pause_ms: float) -> None:
    """Have it succeed; a failure while the machine stood still for so long does not count."""
    with Metronome() as machine:
        for left in reversed(range(ATTEMPTS)):
            machine.take_worst_ms()
            try:
                attempt()
                return
            except (AssertionError, pytest.fail.Exception):
                if not left or machine.take_worst_ms() < pause_ms:
                    raise
