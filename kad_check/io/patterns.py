"""Searching a pattern in what a server sent, for a bounded time.

``re`` has no limit of its own, and some patterns need hours on some pages. It looks for signals now and
then while it searches, so an alarm whose handler raises ends it.
"""

from __future__ import annotations

import re
import signal
from typing import Any, NoReturn

from kad_check.core.dialogues.http import PatternTimeoutError

SEARCH_LIMIT_S = 0.1


def install_alarm() -> None:
    """In the main thread, before the first search."""
    signal.signal(signal.SIGALRM, _ring)


def bounded_search(pattern: re.Pattern[Any], subject: Any, position: int) -> int | None:
    """Where the first match starts, or None. Raises PatternTimeoutError."""
    signal.setitimer(signal.ITIMER_REAL, SEARCH_LIMIT_S)
    try:
        found = pattern.search(subject, position)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return found.start() if found else None


def _ring(_number: int, _frame: object) -> NoReturn:
    raise PatternTimeoutError
