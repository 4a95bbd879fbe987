"""Searching a pattern in what a server sent, for a bounded time.

``re`` has no limit of its own, and some patterns need hours on some pages. It looks for signals now and
then while it searches, so an alarm whose handler raises ends it.
"""

from __future__ import annotations

import re
import signal
from typing import Any

from kad.runtime.clock import monotonic_us
from kad.units import NEVER
from kad_check.core.dialogues.http import PatternTimeoutError

SEARCH_LIMIT_US = 100_000
SHARE_US = 100_000
"""Searched so long, the rest waits until the loop has come round: many slow patterns at once are no hang."""


class BoundedSearch:
    """The one search of its process, made in the main thread. ``spent_us`` is anybody's to set back."""

    def __init__(self) -> None:
        self.spent_us = 0
        self._end_us = NEVER
        signal.signal(signal.SIGALRM, self._ring)

    def __call__(self, pattern: re.Pattern[Any], subject: Any, position: int) -> int | None:
        """Where the first match starts, or None. Raises PatternTimeoutError."""
        begun_us = monotonic_us()
        try:
            self._end_us = begun_us + SEARCH_LIMIT_US
            signal.setitimer(signal.ITIMER_REAL, SEARCH_LIMIT_US / 1e6)
            found = pattern.search(subject, position)
        finally:
            # First of all: an alarm from here on is too late to raise anything.
            self._end_us = NEVER
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.spent_us += monotonic_us() - begun_us
        return found.start() if found else None

    def _ring(self, _number: int, _frame: object) -> None:
        # Anybody may send the signal, at any time.
        if monotonic_us() >= self._end_us:
            raise PatternTimeoutError
