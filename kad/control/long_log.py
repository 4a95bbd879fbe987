"""Long texts in the log, findings and dumps: no faster than the log takes them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

from kad.config.diagnostics import render
from kad.errors import Diagnostic, Severity
from kad.runtime import logs

Line = tuple[Severity, str]

LINES_AT_ONCE = 400
"""A fifth of what the log's queue holds."""
PAUSE_S = 0.1
WAITING_LIMIT = 100_000
"""Lines waiting; a dump of 10,000 real servers is about as long."""


class GentleLog:
    """Writes many lines a few at a time, so that the log's bounded queue keeps up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Line] = deque(maxlen=WAITING_LIMIT)
        self._scheduled = False

    def write(self, lines: Iterable[Line]) -> None:
        self._waiting.extend(lines)
        if not self._scheduled:
            self._write_some()

    def flush(self) -> None:
        """Everything now, because the process leaves."""
        while self._waiting:
            _write(*self._waiting.popleft())

    def _write_some(self) -> None:
        for _ in range(min(LINES_AT_ONCE, len(self._waiting))):
            _write(*self._waiting.popleft())
        self._scheduled = bool(self._waiting)
        if self._scheduled:
            self._loop.call_later(PAUSE_S, self._write_some)


class DiagnosticsLog:
    """Remembers which findings it has told: a reload tells what is news."""

    def __init__(self) -> None:
        self._told: frozenset[str] = frozenset()

    def news(self, diagnostics: Sequence[Diagnostic]) -> list[Line]:
        """Lines for the findings that the reading before did not have."""
        news = [_line(finding) for finding in diagnostics if _key(finding) not in self._told]
        self._told = frozenset(map(_key, diagnostics))
        return news


def _key(finding: Diagnostic) -> str:
    return finding.identity or finding.message


def _line(finding: Diagnostic) -> Line:
    # One line: the excerpt with its caret is for a terminal.
    text = render(finding).partition("\n")[0]
    return finding.severity, f"{text} ({finding.remedy})" if finding.remedy else text


def _write(severity: Severity, text: str) -> None:
    match severity:
        case Severity.FATAL | Severity.ERROR:
            logs.error(text)
        case Severity.WARNING:
            logs.warning(text)
        case _:
            logs.info(text)
