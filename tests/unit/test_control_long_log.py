"""Findings are told once, and long texts no faster than the log takes them."""

from __future__ import annotations

import asyncio

import pytest

from kad.control import long_log
from kad.control.long_log import LINES_AT_ONCE, DiagnosticsLog, GentleLog
from kad.errors import Diagnostic, Severity, Span


def finding(number: int, severity: Severity = Severity.ERROR, line: int = 1) -> Diagnostic:
    span = Span("a.conf", line, 1)
    return Diagnostic(severity, "code", f"text {number}", span, remedy="do so", identity=f"{number}")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for name in ("error", "warning", "info"):
        monkeypatch.setattr(long_log.logs, name, lambda text, name=name: lines.append((name, text)))
    return lines


def test_a_finding_is_one_line_with_its_remedy() -> None:
    (line,) = DiagnosticsLog().news([finding(1, line=3)])
    assert line == (Severity.ERROR, "a.conf:3:1: error: text 1 (do so)")


def test_news_are_told_and_old_findings_are_not() -> None:
    log = DiagnosticsLog()
    assert len(log.news([finding(1), finding(2)])) == 2
    # Another line, the same finding.
    assert [text for _, text in log.news([finding(1, line=9), finding(3)])] == [
        "a.conf:1:1: error: text 3 (do so)"
    ]
    # It had gone: its coming back is news.
    assert len(log.news([finding(2)])) == 1


def test_severities_keep_their_weight(written: list[tuple[str, str]]) -> None:
    loop = asyncio.new_event_loop()
    GentleLog(loop).write((severity, severity.value) for severity in Severity)
    loop.close()
    assert written == [
        ("error", "fatal"),
        ("error", "error"),
        ("warning", "warning"),
        ("info", "note"),
    ]


def test_many_lines_are_written_in_order_a_few_at_a_time(
    written: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_log, "PAUSE_S", 0.001)
    loop = asyncio.new_event_loop()
    log = GentleLog(loop)
    count = 2 * LINES_AT_ONCE + 3
    log.write((Severity.NOTE, f"{number}") for number in range(count))
    log.write([(Severity.NOTE, "last")])
    assert len(written) == LINES_AT_ONCE
    for _ in range(1000):
        if len(written) > count:
            break
        loop.run_until_complete(asyncio.sleep(0.001))
    loop.close()
    assert [text for _, text in written] == [*map(str, range(count)), "last"]


def test_what_waits_is_written_when_the_process_leaves(written: list[tuple[str, str]]) -> None:
    loop = asyncio.new_event_loop()
    log = GentleLog(loop)
    log.write((Severity.NOTE, f"{number}") for number in range(1000))
    log.flush()
    loop.close()
    assert len(written) == 1000
