"""How findings are collected, put in order and shown."""

import re

import pytest

from kad.config.diagnostics import MAX_DIAGNOSTICS, Findings, by_place, nearest, printable, render
from kad.errors import Diagnostic, ExitStatus, Severity, Span


def _finding(
    line: int, column: int = 1, severity: Severity = Severity.ERROR, file: str = "/etc/k.conf"
) -> Diagnostic:
    return Diagnostic(severity=severity, code="c", message="m", span=Span(file, line, column))


def test_render_shows_place_line_caret_and_remedy() -> None:
    diagnostic = Diagnostic(
        severity=Severity.ERROR,
        code="range",
        message="300 is above 255",
        span=Span("/etc/keepalived/k.conf", 12, 14, 3),
        remedy="write 1 to 255",
        source_line="\tpriority    300",
    )
    assert render(diagnostic).splitlines() == [
        "/etc/keepalived/k.conf:12:14: error: 300 is above 255",
        "   12 |  priority    300",
        "      |              ^^^",
        "    = write 1 to 255",
    ]
    assert re.findall(r"k\.conf:(\d+)", render(diagnostic)) == ["12"]


def test_render_without_place_column_or_line() -> None:
    assert render(Diagnostic(severity=Severity.NOTE, code="c", message="m")) == "note: m"
    whole_line = Diagnostic(
        severity=Severity.ERROR, code="c", message="m", span=Span("f", 3), source_line="x y"
    )
    assert render(whole_line) == "f:3: error: m\n    3 | x y"
    whole_file = Diagnostic(severity=Severity.FATAL, code="c", message="m", span=Span("f", 0))
    assert render(whole_file) == "f: fatal: m"


def test_a_long_line_is_cut_around_the_place() -> None:
    line = "x" * 500 + "HERE" + "y" * 500
    shown = render(
        Diagnostic(
            severity=Severity.ERROR, code="c", message="m", span=Span("f", 1, 501, 4), source_line=line
        )
    ).splitlines()
    assert "HERE" in shown[1]
    assert len(shown[1]) < 200
    assert shown[1].index("HERE") == shown[2].index("^^^^")


def test_a_file_cannot_steer_the_terminal() -> None:
    diagnostic = Diagnostic(
        severity=Severity.ERROR,
        code="c",
        message="bad '\x1b[2J'",
        span=Span("f\n", 1, 1),
        source_line="\x1b]0;owned\x07 \udcff é",
    )
    text = render(diagnostic)
    assert "\x1b" not in text and "\x07" not in text
    assert text.count("\n") == 2
    assert "é" in text
    text.encode("utf-8")
    assert printable("a\tb\x00") == "a?b?"


def test_places_are_sorted_and_what_has_none_comes_last() -> None:
    nowhere = Diagnostic(severity=Severity.FATAL, code="c", message="m")
    warning = _finding(2, 1, Severity.WARNING)
    ordered = by_place(
        [nowhere, _finding(10), _finding(2, 5), warning, _finding(2), _finding(1, 1, file="/etc/a")]
    )
    assert [(d.span.file, d.span.line, d.span.column) if d.span else None for d in ordered] == [
        ("/etc/a", 1, 1),
        ("/etc/k.conf", 2, 1),
        ("/etc/k.conf", 2, 1),
        ("/etc/k.conf", 2, 5),
        ("/etc/k.conf", 10, 1),
        None,
    ]
    assert ordered[2] is warning


def test_the_same_finding_of_a_loop_is_told_once() -> None:
    findings = Findings()
    for _ in range(3):
        findings.add(Severity.ERROR, "c", "m", Span("f", 1))
    findings.add(Severity.ERROR, "c", "m", Span("f", 2))
    assert [d.span for d in findings.result()] == [Span("f", 1), Span("f", 2)]


def test_findings_are_bounded_but_the_fatal_one_is_kept() -> None:
    findings = Findings()
    for line in range(MAX_DIAGNOSTICS + 5):
        findings.add(Severity.ERROR, "c", "m", Span("f", line + 1))
    findings.add(Severity.FATAL, "end", "too much", Span("f", 0))
    result = findings.result()
    assert len(result) == MAX_DIAGNOSTICS + 2
    assert result[0].code == "end"
    assert result[-1].message.startswith("5 more")


def test_exit_statuses_follow_severity() -> None:
    findings = Findings()
    for severity in Severity:
        findings.add(severity, severity, "m")
    assert {d.severity: d.exit_status for d in findings.result()} == {
        Severity.FATAL: ExitStatus.CANNOT_RUN,
        Severity.ERROR: ExitStatus.CONFIG_ERRORS,
        Severity.WARNING: ExitStatus.OK,
        Severity.NOTE: ExitStatus.OK,
    }


def test_identity_has_no_line() -> None:
    def identity(line: int) -> str:
        findings = Findings()
        findings.add(Severity.ERROR, "c", f"line {line}", Span("f", line), identity="block/word")
        return findings.result()[0].identity

    assert identity(3) == identity(9) == "c:block/word"


def test_nearest_keyword() -> None:
    keywords = ("virtual_router_id", "virtual_ipaddress", "priority", "advert_int")
    assert nearest("vitrual_router_id", keywords) == "virtual_router_id"
    assert nearest("priorty", keywords) == "priority"
    assert nearest("xyz", keywords) is None
    assert nearest("", keywords) is None
    assert nearest("p" * 10_000, keywords) is None


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("auth_pass 1234", "auth_pass ****"),
        (
            '  authentication { auth_type PASS auth_pass "a b" }',
            "authentication { auth_type PASS auth_pass ***** }",
        ),
        ("auth_pas secret", "auth_pas ******"),
        ("auth_pass my own secret", "auth_pass *************"),
        ("auth_pass my own }", "auth_pass ****** }"),
        ("key 3 hex:00ff", "key 3 ********"),
        ("key 3 file:/etc/key", "key 3 file:/etc/key"),
        ("key /etc/ssl/key.pem", "key /etc/ssl/key.pem"),
        ("password 'x y", "password ****"),
        ("track_script { passport 5 }", "track_script { passport 5 }"),
    ],
)
def test_secrets_are_not_shown(line: str, shown: str) -> None:
    """kad -t is pasted into tickets; the caret stays where it was."""
    column = line.index(line.split()[-1]) + 1
    text = render(Diagnostic(Severity.ERROR, "c", "m", Span("f", 1, column, 1), source_line=line))
    _, excerpt, caret = text.splitlines()
    assert excerpt.partition(" | ")[2].strip() == shown
    assert caret.index("^") == excerpt.index(" | ") + 2 + column
