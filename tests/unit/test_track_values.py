"""Numbers in files, counted processes, and what either means for a priority."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kad.config.model.track import TrackProcess
from kad.track.contribution import FAULT, NONE, Contribution, of_state, of_value
from kad.track.file import HIGHEST, LOWEST, OutOfRange, parse_value
from kad.track.process import (
    Cause,
    Pattern,
    ProcessDue,
    ProcessesCounted,
    ProcessTracker,
    matches,
    pattern_of,
)
from kad.units import NEVER

S = 1_000_000

# Contributions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("up", "weight", "reverse", "expected"),
    [
        (True, 0, False, NONE),
        (False, 0, False, FAULT),
        (True, 0, True, FAULT),
        (False, 0, True, NONE),
        (True, 20, False, Contribution(weight=20)),
        (False, 20, False, NONE),
        (True, -20, False, NONE),
        (False, -20, False, Contribution(weight=-20)),
        (True, 20, True, Contribution(weight=-20)),
        (False, 20, True, NONE),
        (True, -20, True, NONE),
        (False, -20, True, Contribution(weight=20)),
    ],
)
def test_of_state(up: bool, weight: int, reverse: bool, expected: Contribution) -> None:
    assert of_state(up, weight, reverse) == expected


@pytest.mark.parametrize(
    ("value", "weight", "reverse", "expected"),
    [
        (0, 0, False, NONE),
        (1, 0, False, FAULT),
        (-1, 0, False, FAULT),
        (0, 0, True, FAULT),
        (1, 0, True, NONE),
        (5, 1, False, Contribution(weight=5)),
        (5, -10, False, Contribution(weight=-50)),
        (5, 10, True, Contribution(weight=-50)),
        (300, 1, False, Contribution(weight=253)),
        (-253, 1, False, Contribution(weight=-253)),
        (-254, 1, False, FAULT),
        (127, -2, False, FAULT),
        (1 << 31, 254, False, Contribution(weight=253)),
        (0, 5, True, NONE),
    ],
)
def test_of_value(value: int, weight: int, reverse: bool, expected: Contribution) -> None:
    assert of_value(value, weight, reverse) == expected


# Files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", 0),
        (b"\n", 0),
        (b"12\n", 12),
        (b"  \t-7 and more", -7),
        (b"+3", 3),
        (b"0x1F", 31),
        (b"-0x10", -16),
        (b"0x", 0),
        (b"017", 15),
        (b"08", 0),
        (b"12abc", 12),
        (b"abc", 0),
        (b"- 5", 0),
        (b"5\x009", 5),
        (b" " * 126 + b"12", 1),
        (b" " * 127 + b"1", 0),
        (b"2147483648", HIGHEST),
        (b"-2147483648", LOWEST),
    ],
)
def test_parse_value(data: bytes, value: int) -> None:
    assert parse_value(data) == value


@pytest.mark.parametrize("data", [b"2147483649", b"-2147483649", b"0xffffffffff", b"9" * 120])
def test_out_of_range(data: bytes) -> None:
    with pytest.raises(OutOfRange):
        parse_value(data)


@given(st.one_of(st.binary(max_size=140), st.from_regex(rb"[ \t]*[+-]?(0[xX]?)?[0-9a-fA-F]{0,9}.?")))
def test_parse_value_is_strtol(data: bytes) -> None:
    libc = ctypes.CDLL(None)
    libc.strtol.restype = ctypes.c_long
    text = data[:127].partition(b"\0")[0]
    expected = libc.strtol(ctypes.c_char_p(text), None, 0)
    try:
        assert parse_value(data) == expected
    except OutOfRange:
        assert not LOWEST <= expected <= HIGHEST


# Processes -------------------------------------------------------------------------------------------------


def track(**fields: object) -> TrackProcess:
    return TrackProcess("t", fields.pop("process", "haproxy"), **fields)  # type: ignore[arg-type]


def test_by_the_kernels_name() -> None:
    pattern = pattern_of(track())
    assert matches(pattern, b"haproxy", b"")
    assert not matches(pattern, b"haproxy2", b"haproxy\0")


@pytest.mark.parametrize(
    ("match", "parameters", "line", "expected"),
    [
        ("", (), b"/bin/x\0-a\0", True),
        ("", (), b"x\0", False),
        ("exact", (), b"/bin/x\0", True),
        ("exact", (), b"/bin/x\0-a\0", False),
        ("exact", ("-a", "b"), b"/bin/x\0-a\0b\0", True),
        ("exact", ("-a", "b"), b"/bin/x\0-a\0bc\0", False),
        ("partial", ("-a",), b"/bin/x\0-a\0b\0", True),
        ("partial", ("-a",), b"/bin/x\0-ab\0", False),
        ("initial", ("-a", "b"), b"/bin/x\0-a\0bc\0", True),
        ("initial", ("-a", "b"), b"/bin/x\0-a\0c\0", False),
        ("initial", (), b"/bin/x\0anything\0", True),
        ("exact", (), b"", False),
    ],
)
def test_by_command_line(match: str, parameters: tuple[str, ...], line: bytes, expected: bool) -> None:
    config = track(process="/bin/x", parameters=parameters, param_match=match, full_command=True)
    assert matches(pattern_of(config), b"x", line) is expected


class Quorum:
    def __init__(self, **fields: object) -> None:
        self.tracker = ProcessTracker(track(**fields))
        self.now_us = 0

    def count(self, number: int, cause: Cause = Cause.RENAMED) -> list[bool]:
        event = ProcessesCounted(self.tracker.pattern, number, cause)
        return [turned.up for turned in self.tracker.handle(event, self.now_us)]

    def wait(self, seconds: float) -> list[bool]:
        self.now_us += round(seconds * S)
        return [turned.up for turned in self.tracker.handle(ProcessDue(), self.now_us)]


def test_quorum_is_gained_and_lost() -> None:
    quorum = Quorum(quorum=2)
    assert quorum.count(1) == [False]  # the first count is always told
    assert quorum.count(2, Cause.FORKED) == [True]
    assert quorum.count(3, Cause.FORKED) == []
    assert quorum.count(1, Cause.TERMINATED) == [False]


def test_too_many_are_as_bad_as_too_few() -> None:
    quorum = Quorum(quorum=1, quorum_max=2)
    assert quorum.count(2) == [True]
    assert quorum.count(3, Cause.FORKED) == [False]
    assert quorum.count(2, Cause.TERMINATED) == [True]
    none = Quorum(quorum=0, quorum_max=0)
    assert none.count(0) == [True]
    assert none.count(1) == [False]


def test_delays_debounce_both_ways() -> None:
    quorum = Quorum(fork_delay_us=2 * S, terminate_delay_us=3 * S)
    assert quorum.count(1) == [True]  # what runs at the start has no delay
    assert quorum.count(0, Cause.TERMINATED) == []
    assert quorum.wait(2.9) == []
    assert quorum.count(1, Cause.FORKED) == []
    assert quorum.tracker.deadline_us == NEVER
    assert quorum.count(0, Cause.TERMINATED) == []
    assert quorum.wait(3) == [False]
    assert quorum.count(1, Cause.FORKED) == []
    assert quorum.wait(1.9) == []
    assert quorum.wait(0.1) == [True]


def test_further_changes_on_the_bad_side_do_not_prolong_a_delay() -> None:
    quorum = Quorum(quorum=3, terminate_delay_us=S)
    quorum.count(3)
    quorum.count(2, Cause.TERMINATED)
    quorum.now_us += S // 2
    quorum.count(1, Cause.TERMINATED)
    assert quorum.wait(0.5) == [False]


def test_a_renamed_process_is_believed_at_once() -> None:
    quorum = Quorum(fork_delay_us=S, terminate_delay_us=S)
    quorum.count(0)
    assert quorum.count(1, Cause.RENAMED) == [True]
    assert quorum.count(0, Cause.RENAMED) == [False]


def test_a_former_finding_counts_until_the_first_count() -> None:
    quorum = Quorum(terminate_delay_us=S)
    quorum.tracker.restore(False)
    assert (quorum.tracker.known, quorum.tracker.up) == (True, False)
    assert quorum.count(0) == []
    other = Quorum(terminate_delay_us=S)
    other.tracker.restore(True)
    assert other.count(0, Cause.TERMINATED) == [False]


def test_a_reload_changes_the_quorum() -> None:
    quorum = Quorum(quorum=1)
    quorum.count(1)
    assert [t.up for t in quorum.tracker.configure(track(quorum=2))] == [False]
    assert [t.up for t in quorum.tracker.configure(track(quorum=1))] == [True]


def test_patterns_tell_what_is_counted_apart_and_nothing_else() -> None:
    assert pattern_of(track(quorum=3)) == pattern_of(track(weight=5)) == Pattern(b"haproxy")
    assert pattern_of(track(full_command=True)) != pattern_of(track())
