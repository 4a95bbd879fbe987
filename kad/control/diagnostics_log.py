"""Findings about a configuration, in the log: each once, until it has gone and come again."""

from __future__ import annotations

from collections.abc import Sequence

from kad.config.diagnostics import render
from kad.errors import Diagnostic, Severity
from kad.runtime import logs


class DiagnosticsLog:
    """Remembers what it has said: a reload logs what is news."""

    def __init__(self) -> None:
        self._said: frozenset[str] = frozenset()

    def write(self, diagnostics: Sequence[Diagnostic]) -> None:
        for finding in diagnostics:
            if _key(finding) not in self._said:
                _write(finding)
        self._said = frozenset(map(_key, diagnostics))


def _key(finding: Diagnostic) -> str:
    return finding.identity or finding.message


def _write(finding: Diagnostic) -> None:
    # One line: the excerpt with its caret is for a terminal.
    text = render(finding).partition("\n")[0]
    if finding.remedy:
        text = f"{text} ({finding.remedy})"
    match finding.severity:
        case Severity.FATAL | Severity.ERROR:
            logs.error(text)
        case Severity.WARNING:
            logs.warning(text)
        case _:
            logs.info(text)
