"""Diagnostics: collecting them within bounds, putting them in order, and showing them to a person."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache

from kad.errors import Diagnostic, ExitStatus, Severity, Span

MAX_DIAGNOSTICS = 2_000
"""Findings kept of one reading; a file that is something else altogether gives one a line."""
MAX_SHOWN_COLUMNS = 160
"""A source line is shown up to this width; a longer one is cut around the place."""

_WORD = r"""(?:"[^"]*"?|'[^']*'?|\S+)"""
_SECRETS = tuple(
    re.compile(rf"(?<!\S){keyword}\s+({_WORD}(?:\s+(?!\}})\S+)*)")
    for keyword in (r"auth_pa\w*", r"passw\w*", r"key\s+\d+(?!\s+file:)")
)
"""Before what nobody is to see: auth_pass, password and the number of a key of auth_hmac; misspelt too.

The words after it may be more of it, up to a brace.
"""

_RANK = {Severity.FATAL: 0, Severity.ERROR: 1, Severity.WARNING: 2, Severity.NOTE: 3}


class Findings:
    """The diagnostics of one reading: each told once, and no more than ``MAX_DIAGNOSTICS``."""

    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self._seen: set[tuple[str, str, Span | None]] = set()
        self._dropped = 0

    def add(
        self,
        severity: Severity,
        code: str,
        message: str,
        span: Span | None = None,
        *,
        source_line: str = "",
        remedy: str = "",
        identity: str = "",
        exit_status: int | None = None,
    ) -> None:
        """Keep a finding. Errors give exit status CONFIG_ERRORS unless another is named, the rest OK."""
        key = (code, message, span)
        if key in self._seen:
            return  # one line of a loop says it once
        if len(self.diagnostics) >= MAX_DIAGNOSTICS and severity is not Severity.FATAL:
            self._dropped += 1
            return
        self._seen.add(key)
        if exit_status is None:
            exit_status = _usual_exit_status(severity)
        self.diagnostics.append(
            Diagnostic(
                severity=severity,
                code=code,
                message=message,
                span=span,
                remedy=remedy,
                identity=f"{code}:{identity or message}",
                exit_status=exit_status,
                source_line=source_line,
            )
        )

    def result(self) -> list[Diagnostic]:
        """All findings by place, and how many were dropped."""
        kept = sorted(self.diagnostics, key=place_order)
        if self._dropped:
            text = f"{self._dropped} more findings are not shown"
            kept.append(Diagnostic(severity=Severity.NOTE, code="findings-dropped", message=text))
        return kept


def _usual_exit_status(severity: Severity) -> int:
    if severity is Severity.FATAL:
        return ExitStatus.CANNOT_RUN
    return ExitStatus.CONFIG_ERRORS if severity is Severity.ERROR else ExitStatus.OK


def place_order(diagnostic: Diagnostic) -> tuple[bool, str, int, int, int]:
    """Sort key: by file, line and column, the worst first; findings without a place come last."""
    span = diagnostic.span
    rank = _RANK[diagnostic.severity]
    if span is None:
        return (True, "", 0, 0, rank)
    return (False, span.file, span.line, span.column, rank)


def by_place(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """In the order of the text. Files are in the alphabetical order of their names."""
    return sorted(diagnostics, key=place_order)


def render(diagnostic: Diagnostic) -> str:
    """A finding as text: ``FILE:LINE:COL: severity: what``, the line with a caret, what to write instead.

    Control characters of the file are shown as ``?``, so that a configuration cannot steer the terminal.
    """
    lines = [f"{_place(diagnostic.span)}{diagnostic.severity}: {printable(diagnostic.message)}"]
    if diagnostic.span is not None and diagnostic.source_line.strip():
        lines += _excerpt(diagnostic.source_line, diagnostic.span)
    if diagnostic.remedy:
        lines.append(f"    = {printable(diagnostic.remedy)}")
    return "\n".join(lines)


def _place(span: Span | None) -> str:
    if span is None:
        return ""
    column = f":{span.column}" if span.column else ""
    line = f":{span.line}" if span.line else ""
    return f"{printable(span.file)}{line}{column if line else ''}: "


def _excerpt(source_line: str, span: Span) -> list[str]:
    shown = printable(_without_secrets(source_line.replace("\t", " ").rstrip()))
    start = 0
    if len(shown) > MAX_SHOWN_COLUMNS:
        start = max(0, span.column - 1 - MAX_SHOWN_COLUMNS // 2)
        shown = shown[start : start + MAX_SHOWN_COLUMNS]
    prefix = f"{span.line:>5} | "
    result = [f"{prefix}{shown}".rstrip()]
    position = span.column - 1 - start
    if span.column and position <= len(shown):
        carets = "^" * max(1, min(span.length, len(shown) - position))
        result.append(" " * (len(prefix) - 2) + "| " + " " * position + carets)
    return result


def _without_secrets(line: str) -> str:
    """Findings end up in tickets and logs. As many asterisks as characters: the caret stays right."""
    for secret in _SECRETS:
        line = secret.sub(lambda found: found[0][: -len(found[1])] + "*" * len(found[1]), line)
    return line


def printable(text: str) -> str:
    """Text that cannot move the cursor or fail to encode: control and undecodable characters become ``?``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() and not "\ud800" <= c <= "\udfff" else "?" for c in text)


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The known keyword that looks most like ``word``, or None when nothing is near."""
    if len(word) > 64:
        return None
    found = get_close_matches(word, sorted(candidates), n=1, cutoff=0.72)
    return found[0] if found else None


@lru_cache(maxsize=1024)
def nearest_known(word: str, candidates: tuple[str, ...] | frozenset[str]) -> str | None:
    """The same of the grammar's own words, remembered: a mistake may stand in thousands of places."""
    return nearest(word, candidates)
