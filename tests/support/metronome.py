"""Whether the machine itself stood still: a thread that should run every few milliseconds, its longest pause.

A shared machine stalls for tens of milliseconds now and then. What is lost in such a pause says nothing about
the daemon; a test that counts losses leaves those rounds out, and says how many.
"""

from __future__ import annotations

import threading
import time

PERIOD_S = 0.002


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
