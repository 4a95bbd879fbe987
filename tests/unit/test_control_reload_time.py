"""When a reload_time_file says to reload."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kad.control.reload_time import ReloadTime, parse

NOW = datetime(2026, 3, 5, 12, 0, 0).timestamp()
NOW_UTC = datetime(2026, 3, 5, 12, 0, 0, tzinfo=UTC).timestamp()


def at(*words: int) -> float:
    return datetime(*words).timestamp()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "due", "has_date"),
    [
        ("12:00:01", at(2026, 3, 5, 12, 0, 1), False),
        ("11:59:59", at(2026, 3, 6, 11, 59, 59), False),
        ("12:00:00", at(2026, 3, 6, 12, 0, 0), False),
        ("26-03-05 13:00:00", at(2026, 3, 5, 13, 0, 0), True),
        ("2027-01-01 00:00:00", at(2027, 1, 1, 0, 0, 0), True),
    ],
)
def test_moments(text: str, due: float, has_date: bool) -> None:
    assert parse(text, NOW) == ReloadTime(due, has_date)


def test_moments_in_utc() -> None:
    due = datetime(2026, 3, 5, 12, 30, 0, tzinfo=UTC).timestamp()
    assert parse("12:30:00Z", NOW_UTC) == ReloadTime(due, False)
    assert parse("2026-03-05 12:30:00Z", NOW_UTC) == ReloadTime(due, True)


@pytest.mark.parametrize(
    "text",
    ["", "noon", "25:00:00", "12:00", "2026-02-30 12:00:00", "26-03-05 11:00:00", "12:00:01 ", "1:00:00"],
)
def test_what_is_no_moment_says_why(text: str) -> None:
    assert isinstance(parse(text, NOW), str)
