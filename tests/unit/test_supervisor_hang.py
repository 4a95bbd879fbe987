"""Verdicts about children that do not tick."""

from __future__ import annotations

import os

import pytest

from kad.runtime.heartbeat import Phase
from kad.supervisor.hang import (
    MEMORY_US,
    Condition,
    HangWatch,
    Observation,
    Patience,
    Verdict,
    classify,
    parse_observation,
)
from kad.supervisor.observe import observe

LIMIT = 1_000_000
PERIOD = LIMIT // 5


def seen(state: str = "S", *, tracer: int = 0, run_ms: int = 0) -> Observation:
    return Observation(state, tracer, run_ms * 1_000_000)


class Watcher:
    """Looks once a period and tells when the first verdict other than FINE came."""

    def __init__(self, phase: Phase = Phase.READY) -> None:
        self.watch = HangWatch(LIMIT)
        self.phase = phase
        self.ticks = 1
        self.now_us = 5_000_000
        self.verdicts: list[tuple[int, Verdict]] = []
        assert not self.watch.is_still(self.ticks, phase, self.now_us)
        self.still_since_us = self.now_us

    def look(self, observation: Observation, after_us: int = PERIOD) -> Verdict:
        self.now_us += after_us
        if not self.watch.is_still(self.ticks, self.phase, self.now_us):
            self.still_since_us = self.now_us
            return Verdict.FINE
        verdict = self.watch.judge(observation, self.now_us)
        if verdict != Verdict.FINE:
            self.verdicts.append((self.now_us - self.still_since_us, verdict))
        return verdict

    def look_often(self, observation: Observation, count: int) -> list[tuple[int, Verdict]]:
        for _ in range(count):
            self.look(observation)
            if self.verdicts and self.verdicts[-1][1] in (Verdict.ABORT, Verdict.KILL):
                break
        return self.verdicts


def test_sleeping_process_is_aborted_at_the_limit() -> None:
    assert Watcher().look_often(seen("S"), 20) == [(LIMIT, Verdict.ABORT)]


def test_endless_loop_is_aborted_at_the_limit() -> None:
    watcher = Watcher()
    for turn in range(1, 6):
        watcher.look(seen("R", run_ms=200 * turn))
    assert watcher.verdicts == [(LIMIT, Verdict.ABORT)]


def test_endless_loop_that_shares_its_processor_is_aborted_at_the_limit() -> None:
    watcher = Watcher()
    for turn in range(1, 6):
        watcher.look(seen("R", run_ms=50 * turn))
    assert watcher.verdicts == [(LIMIT, Verdict.ABORT)]


def test_stopped_process_is_killed_at_once_at_the_limit() -> None:
    assert Watcher().look_often(seen("T"), 20) == [(LIMIT, Verdict.KILL)]


def test_traced_process_is_logged_once_and_never_killed() -> None:
    assert Watcher().look_often(seen("t", tracer=7), 500) == [(LIMIT, Verdict.LOG)]
    assert Watcher().look_often(seen("S", tracer=7), 500) == [(LIMIT, Verdict.LOG)]


def test_uninterruptible_process_is_logged_once_and_never_killed() -> None:
    assert Watcher().look_often(seen("D"), 500) == [(LIMIT, Verdict.LOG)]


def test_starved_process_gets_five_times_the_limit() -> None:
    watcher = Watcher()
    found = watcher.look_often(seen("R"), 100)
    assert [verdict for _, verdict in found] == [Verdict.LOG, Verdict.ABORT]
    assert found[0][0] == LIMIT
    assert found[1][0] == 5 * LIMIT


def test_a_tick_forgives_everything() -> None:
    watcher = Watcher()
    for _ in range(200):
        for _ in range(4):
            assert watcher.look(seen("S")) == Verdict.FINE
        watcher.ticks += 1
        assert watcher.look(seen("S")) == Verdict.FINE
    assert watcher.verdicts == []


def test_released_by_the_debugger_it_is_not_killed_for_the_time_before() -> None:
    watcher = Watcher()
    watcher.look_often(seen("t", tracer=7), 100)
    assert watcher.look(seen("S")) == Verdict.FINE
    watcher.ticks += 1
    assert watcher.look(seen("S")) == Verdict.FINE


def test_stall_of_the_machine_is_not_a_hang() -> None:
    watcher = Watcher()
    assert watcher.look(seen("S"), after_us=60 * LIMIT) == Verdict.FINE
    assert watcher.look(seen("S")) == Verdict.FINE
    # But it does not excuse for ever.
    assert [verdict for _, verdict in watcher.look_often(seen("S"), 10)] == [Verdict.ABORT]


def test_long_work_at_the_start_and_in_preparing_has_more_time() -> None:
    assert Watcher(Phase.STARTING).look_often(seen("S"), 100) == [(10 * LIMIT, Verdict.ABORT)]
    assert Watcher(Phase.PREPARING).look_often(seen("S"), 100) == [(5 * LIMIT, Verdict.ABORT)]


def test_a_stopping_child_is_not_watched() -> None:
    watch = HangWatch(LIMIT)
    for turn in range(100):
        assert not watch.is_still(1, Phase.STOPPING, turn * PERIOD)


def test_verdict_comes_within_half_a_second_of_the_limit_wherever_the_hang_begins() -> None:
    for begin_us in range(0, PERIOD, 20_000):
        watcher = Watcher()
        watcher.ticks += 1  # the last tick comes just before this look
        watcher.look(seen("S"), after_us=begin_us + 1)
        [(after_us, verdict)] = watcher.look_often(seen("S"), 20)
        assert verdict == Verdict.ABORT
        assert after_us <= LIMIT + PERIOD


def test_starved_for_long_and_then_asleep_it_is_not_killed_for_the_time_before() -> None:
    watcher = Watcher()
    for _ in range(20):
        watcher.look(seen("R"))
    assert [verdict for _, verdict in watcher.verdicts] == [Verdict.LOG]
    assert watcher.look(seen("S", run_ms=1)) == Verdict.FINE


def test_throttled_process_that_uses_its_share_without_ticking_is_hung_in_the_end() -> None:
    watcher = Watcher()
    for turn in range(1, 30):
        watcher.look(seen("R", run_ms=20 * turn))
    # A fifth of the limit in processor time is enough for any honest turn.
    assert watcher.verdicts[0] == (LIMIT, Verdict.LOG)
    assert watcher.verdicts[1] == (11 * PERIOD, Verdict.ABORT)


def test_classify() -> None:
    assert classify(seen("R"), LIMIT // 5 - 1, LIMIT) == Condition.STARVED
    assert classify(seen("R"), LIMIT // 5, LIMIT) == Condition.RUNNING
    assert classify(seen("Z"), 0, LIMIT) == Condition.GONE
    assert classify(seen("I"), 0, LIMIT) == Condition.SLEEPING


@pytest.mark.parametrize(
    ("stat", "status", "schedstat", "expected"),
    [
        ("12 (kad) S 1 2", "Name:\tkad\nTracerPid:\t0\n", "5 6 7", Observation("S", 0, 5)),
        ("12 (a) R (b)) t 1 2", "TracerPid:\t44\nUid:", "12345 6 7", Observation("t", 44, 12345)),
        ("", "", "", Observation("S", 0, 0)),
        ("12 (x", "TracerPid:", "x", Observation("S", 0, 0)),
    ],
)
def test_parse_observation(stat: str, status: str, schedstat: str, expected: Observation) -> None:
    assert parse_observation(stat, status, schedstat) == expected


def test_observe_a_real_process() -> None:
    mine = observe(os.getpid())
    assert mine is not None
    assert (mine.state, mine.tracer_pid) == ("R", 0)
    assert mine.run_ns > 0
    assert observe(2**22 + 1) is None


def test_patience_grows_where_lives_are_killed_again_and_again() -> None:
    patience = Patience()
    factors = []
    for second in range(0, 70, 10):
        factors.append(patience.factor(second * 1_000_000))
        patience.killed(second * 1_000_000)
    assert factors == [1, 1, 2, 4, 8, 16, 16]
    assert patience.factor(60_000_000 + MEMORY_US) == 1


def test_a_watch_takes_its_patience_and_adds_to_it() -> None:
    patience = Patience()
    for expected in (LIMIT, LIMIT, 2 * LIMIT, 4 * LIMIT):
        watcher = Watcher()
        watcher.watch = patience.watch(LIMIT)
        assert not watcher.watch.is_still(watcher.ticks, watcher.phase, watcher.now_us)
        assert watcher.look_often(seen("S"), 100) == [(expected, Verdict.ABORT)]
        watcher.look(seen("S"))


def test_who_sleeps_as_announced_is_left_alone_and_who_is_stopped_in_its_sleep_is_not() -> None:
    watcher = Watcher()
    until_us = watcher.now_us + 20 * PERIOD

    def is_asleep(state: str) -> bool:
        watcher.now_us += PERIOD
        assert watcher.watch.is_still(watcher.ticks, watcher.phase, watcher.now_us)
        return watcher.watch.is_asleep(until_us, state, watcher.now_us)

    assert all(is_asleep("S") for _ in range(10))
    stopped_at_us = watcher.now_us
    while not watcher.verdicts:
        assert not is_asleep("T")
        watcher.look(seen("T"), after_us=0)
        assert watcher.now_us - stopped_at_us <= LIMIT
    assert watcher.verdicts[0][1] == Verdict.KILL
    assert watcher.now_us - stopped_at_us == LIMIT


@pytest.mark.parametrize("until_us", [0, 1, (1 << 62)])
def test_a_sleep_that_is_over_or_has_no_end_excuses_nobody(until_us: int) -> None:
    watcher = Watcher()
    assert not watcher.watch.is_asleep(until_us, "S", watcher.now_us)
    assert watcher.look_often(seen("S"), 100) == [(LIMIT, Verdict.ABORT)]
