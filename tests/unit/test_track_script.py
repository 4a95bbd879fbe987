"""A tracked script: when it runs, what its results add up to, and how a run is made to end."""

from __future__ import annotations

import itertools

import pytest

from kad.config.model.script import ScriptCommand
from kad.config.model.track import TrackScript
from kad.track.script import (
    Ending,
    EndScript,
    RunScript,
    ScriptAction,
    ScriptDue,
    ScriptEnded,
    ScriptMemory,
    ScriptSays,
    ScriptTracker,
    ScriptTurned,
)

S = 1_000_000
COMMAND = ScriptCommand(argv=("/bin/check",))


class Bench:
    """A tracker on a clock of its own, its answers read back in short."""

    def __init__(self, *, awaited: bool = True, **fields: object) -> None:
        self.now_us = 100 * S
        self.serials = itertools.count(1)
        self.config = TrackScript("s", COMMAND, **fields)  # type: ignore[arg-type]
        self.tracker = ScriptTracker(self.config, lambda: next(self.serials), self.now_us, awaited=awaited)

    def at(self, seconds: float) -> list[str]:
        """Time passes until then, waking when asked to."""
        until_us = 100 * S + round(seconds * S)
        told = []
        while self.tracker.deadline_us <= until_us:
            self.now_us = max(self.now_us, self.tracker.deadline_us)
            told += self._tell(self.tracker.handle(ScriptDue(), self.now_us))
        self.now_us = until_us
        return told

    def ends(self, status: int | None, serial: int = 0) -> list[str]:
        return self._tell(self.tracker.handle(self._ended(status, serial), self.now_us))

    def result(self, status: int) -> list[str]:
        """One whole run."""
        self.at((self.tracker.deadline_us - 100 * S) / S)
        assert self.tracker.running
        return [line for line in self.ends(status) if line in ("up", "down")]

    def refused(self, why: str = "no such file", *, refused: bool = True) -> list[str]:
        """It was not run: it cannot be executed, or there was no room to run it."""
        return self._tell(
            self.tracker.handle(ScriptEnded("s", self.tracker._serial, None, why, refused), self.now_us)
        )

    def _ended(self, status: int | None, serial: int) -> ScriptEnded:
        return ScriptEnded("s", serial or self.tracker._serial, status)

    def _tell(self, actions: list[ScriptAction]) -> list[str]:
        words = []
        for action in actions:
            match action:
                case RunScript(serial=serial, command=command):
                    assert command == COMMAND
                    words.append(f"run {serial}")
                case EndScript(serial=serial, how=how):
                    words.append(f"{how.name.lower()} {serial}")
                case ScriptSays(text=text):
                    words.append(text)
                case ScriptTurned(up=up):
                    words.append("up" if up else "down")
        return words


def test_it_runs_at_once_and_then_every_interval() -> None:
    bench = Bench(interval_us=2 * S)
    assert bench.at(0) == ["run 1"]
    assert bench.ends(0) == ["VRRP_Script(s) succeeded", "up"]
    assert bench.at(1.999999) == []
    assert bench.at(2) == ["run 2"]
    assert bench.ends(0) == []
    assert bench.at(4) == ["run 3"]


def test_the_schedule_is_absolute_and_what_was_slept_through_is_left_out() -> None:
    bench = Bench(interval_us=S)
    bench.at(0)
    bench.ends(0)
    bench.now_us += 5 * S + S // 2
    assert bench._tell(bench.tracker.handle(ScriptDue(), bench.now_us)) == ["run 2"]
    assert bench.tracker.deadline_us - 100 * S == 6 * S


def test_a_run_still_going_is_not_joined_and_that_is_said_once_a_run() -> None:
    bench = Bench(interval_us=S, timeout_us=10 * S)
    assert bench.at(0) == ["run 1"]
    assert bench.at(3) == ["Track script s is already running, expect idle - skipping run"]
    bench.ends(0)
    assert bench.at(4) == ["run 2"]
    assert bench.at(5) == ["Track script s is already running, expect idle - skipping run"]


@pytest.mark.parametrize(
    ("rise", "fall", "results", "turns"),
    [
        (1, 1, [0, 1, 0], ["up", "down", "up"]),
        (1, 1, [1, 1, 0], ["down", "", "up"]),
        # one result is enough at first, whatever rise and fall say
        (3, 2, [0], ["up"]),
        (3, 2, [1], ["down"]),
        (2, 3, [0, 1, 1, 0, 1, 1, 1], ["up", "", "", "", "", "", "down"]),
        (3, 1, [1, 0, 0, 1, 0, 0, 0], ["down", "", "", "", "", "", "up"]),
        (2, 2, [0, 1, 1, 0, 0], ["up", "", "down", "", "up"]),
    ],
)
def test_rise_and_fall(rise: int, fall: int, results: list[int], turns: list[str]) -> None:
    bench = Bench(rise=rise, fall=fall)
    assert ["".join(bench.result(status)) for status in results] == turns


def test_init_fail_is_bad_until_rise_successes() -> None:
    bench = Bench(rise=2, init_fail=True)
    assert (bench.tracker.answered, bench.tracker.awaited, bench.tracker.up) == (True, False, False)
    assert bench.result(0) == []
    assert bench.result(0) == ["up"]


def test_who_awaits_it_waits_for_the_first_result() -> None:
    bench = Bench()
    assert bench.tracker.awaited
    bench.result(1)
    assert not bench.tracker.awaited
    assert not Bench(awaited=False).tracker.awaited


def test_exit_status_is_told_when_it_changes() -> None:
    bench = Bench(fall=3)
    bench.result(0)
    bench.at(1)
    assert bench.ends(2) == ["Script `s` now returning 2"]
    bench.at(2)
    assert bench.ends(2) == []
    bench.at(3)
    assert bench.ends(7) == [
        "Script `s` now returning 7",
        "VRRP_Script(s) failed (exited with status 7)",
        "down",
    ]


def test_a_signal_is_a_failure() -> None:
    bench = Bench()
    bench.at(0)
    assert bench.ends(-11) == ["VRRP_Script(s) failed (due to signal 11)", "down"]


def test_a_timeout_counts_at_once_and_presses_ever_harder() -> None:
    bench = Bench(interval_us=100 * S, timeout_us=3 * S)
    bench.at(0)
    assert bench.at(2.9) == []
    assert bench.at(3) == ["terminate 1", "VRRP_Script(s) timed_out", "down"]
    assert bench.at(4.9) == []
    assert bench.at(5) == ["kill 1"]
    says = "Script s failed to terminate after kill"
    assert bench.at(7) == [says, "kill 1"]
    assert bench.at(16.9) == []
    assert bench.at(17) == [says, "kill 1"]
    # However it ends now, it has been counted.
    assert bench.ends(0) == []
    assert not bench.tracker.up
    assert bench.at(99.9) == []
    assert bench.at(100) == ["run 2"]


def test_the_timeout_is_the_interval_unless_given() -> None:
    bench = Bench(interval_us=4 * S)
    bench.at(0)
    told = bench.at(4)
    # Time's up and the next run is due at the same moment: it is not joined.
    assert told[0] == "terminate 1"
    assert told[-1] == "Track script s is being timed out, expect idle - skipping run"


def test_no_room_to_run_says_nothing_about_the_result() -> None:
    bench = Bench()
    bench.at(0)
    assert bench.ends(None) == []
    assert bench.tracker.awaited
    assert bench.at(1) == ["run 2"]
    bench.ends(0)
    bench.at(2)
    assert bench.ends(None) == []
    assert bench.tracker.up


def test_no_room_is_said_once_in_a_row() -> None:
    bench = Bench()
    bench.at(0)
    assert bench.refused("no memory", refused=False) == ["Script `s` could not be run: no memory"]
    assert not bench.tracker.answered
    bench.at(1)
    assert bench.refused("no memory", refused=False) == []


def test_a_script_that_cannot_be_executed_says_nothing_about_the_result() -> None:
    bench = Bench()
    bench.result(0)
    bench.at(1)
    assert bench.refused() == ["Script `s` could not be run: no such file"]
    for second in (2, 3):
        bench.at(second)
        assert bench.refused() == []
    assert bench.tracker.up and bench.tracker.status == 0
    assert bench.result(1) == ["down"]
    bench.at(5)
    assert bench.refused() == ["Script `s` could not be run: no such file"], "another row of them"
    assert not bench.tracker.up


def test_a_script_that_never_could_be_executed_counts_as_a_success_at_once() -> None:
    bench = Bench(rise=3, fall=2)
    bench.at(0)
    assert bench.refused() == [
        "Script `s` could not be run: no such file",
        "VRRP_Script(s) counts as a success until it can be run",
        "up",
    ]
    assert bench.tracker.answered and not bench.tracker.awaited
    bench.at(1)
    assert bench.refused() == []
    assert [bench.result(1), bench.result(1)] == [[], ["down"]]


def test_init_fail_is_a_result_that_a_script_which_cannot_be_executed_leaves() -> None:
    bench = Bench(init_fail=True)
    bench.at(0)
    assert bench.refused() == ["Script `s` could not be run: no such file"]
    assert not bench.tracker.up


def test_the_end_of_another_run_means_nothing() -> None:
    bench = Bench()
    bench.at(0)
    assert bench.ends(1, serial=99) == []
    assert bench.tracker.running
    bench.ends(0)
    assert bench.ends(1, serial=1) == []
    assert bench.tracker.up


def test_a_former_life_is_remembered() -> None:
    bench = Bench(rise=2, fall=3)
    for status in (0, 1):
        bench.result(status)
    memory = bench.tracker.memory()
    again = Bench(rise=2, fall=3)
    again.tracker.restore(memory)
    assert (again.tracker.up, again.tracker.awaited, again.tracker.answered) == (True, False, True)
    assert [again.result(1), again.result(1)] == [[], ["down"]]


def test_nothing_was_answered_in_the_former_life() -> None:
    bench = Bench()
    bench.tracker.restore(ScriptMemory(0, False, 0))
    assert bench.tracker.awaited and not bench.tracker.answered
    assert bench.result(0) == ["up"]


def test_a_reload_changes_rise_and_fall_but_not_good_or_bad() -> None:
    bench = Bench(rise=1, fall=2)
    bench.result(0)
    bench.tracker.configure(TrackScript("s", COMMAND, rise=4, fall=1, interval_us=5 * S))
    assert bench.tracker.up
    assert bench.tracker.deadline_us - 100 * S == 5 * S
    assert bench.result(1) == ["down"]
    bench.tracker.configure(TrackScript("s", COMMAND, rise=2, fall=1))
    assert not bench.tracker.up
    assert [bench.result(0), bench.result(0)] == [[], ["up"]]


def test_a_stopped_tracker_ends_its_run_and_never_runs_again() -> None:
    bench = Bench()
    bench.at(0)
    assert bench._tell(bench.tracker.stop(bench.now_us)) == ["terminate 1"]
    assert bench.at(2) == ["kill 1"]
    assert bench.ends(-9) == []
    assert not bench.tracker.running
    assert bench.at(100) == []


def test_endings_are_told_apart() -> None:
    assert {Ending.TERMINATE, Ending.KILL} == set(Ending)
