"""Slices and processors of real threads, as the kernel has them."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kad.runtime.processors import SHORT_SLICE_US, Moment, kept_away, restore_slice
from tests.support.slices import needs_slices, slice_us

SHORTENED = """
import os, sys
from kad.runtime.processors import shorten_slice
if len(sys.argv) > 1:
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
print(shorten_slice(), os.sched_getscheduler(0) == os.SCHED_RR, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def sleeper() -> Iterator[int]:
    process = subprocess.Popen(["sleep", "1000"])
    yield process.pid
    process.kill()
    process.wait()


def test_a_slice_is_shortened_and_what_is_started_gets_the_usual_one_back(sleeper: int) -> None:
    needs_slices()
    usual_us = slice_us(sleeper)
    os.setpriority(os.PRIO_PROCESS, sleeper, 3)
    argv = [sys.executable, "-c", SHORTENED]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True False\n"
        assert slice_us(process.pid) == SHORT_SLICE_US < usual_us
        assert restore_slice(process.pid)
        assert slice_us(process.pid) == usual_us
        process.communicate("")
    assert restore_slice(sleeper)
    assert os.getpriority(os.PRIO_PROCESS, sleeper) == 3, "as nice as before"


@pytest.mark.root
def test_real_time_priority_is_left_alone() -> None:
    argv = [sys.executable, "-c", SHORTENED, "realtime"]
    said = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    assert said == "False True\n"


def test_who_is_gone_has_no_slice_and_no_processor() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert not restore_slice(process.pid)
    with kept_away(process.pid):
        pass


@pytest.fixture
def ours() -> Iterator[int]:
    """This thread runs on one processor, and on no other."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("there is one processor only")
    os.sched_setaffinity(0, {min(allowed)})
    yield min(allowed)
    os.sched_setaffinity(0, allowed)


def test_who_is_kept_away_may_run_everywhere_else_meanwhile(sleeper: int, ours: int) -> None:
    allowed = os.sched_getaffinity(sleeper)
    with kept_away(sleeper):
        assert os.sched_getaffinity(sleeper) == allowed - {ours}
    assert os.sched_getaffinity(sleeper) == allowed
    with pytest.raises(ZeroDivisionError), kept_away(sleeper):
        raise ZeroDivisionError
    assert os.sched_getaffinity(sleeper) == allowed


def test_who_has_no_other_processor_stays(sleeper: int, ours: int) -> None:
    os.sched_setaffinity(sleeper, {ours})
    with kept_away(sleeper):
        assert os.sched_getaffinity(sleeper) == {ours}
    assert os.sched_getaffinity(sleeper) == {ours}


MOMENT = """
import os, sys
from kad.runtime.processors import Moment, shorten_slice
shorten_slice()
os.nice(4)
if len(sys.argv) > 1:
    os.setuid(65534)
moment = Moment()
for _ in range(2):
    print(moment.begin(), os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK)
    if not os.fork():
        print(os.sched_getscheduler(0), flush=True)
        os._exit(0)
    os.wait()
    moment.end()
    print(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, flush=True)
sys.stdin.read()
"""


@pytest.mark.root
def test_a_moment_is_real_time_and_nothing_of_it_stays_or_is_inherited() -> None:
    needs_slices()
    nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 4)
    argv = [sys.executable, "-uc", MOMENT]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(6)]
        assert lines == 2 * [f"True {os.SCHED_FIFO}", str(os.SCHED_OTHER), str(os.SCHED_OTHER)]
        assert slice_us(process.pid) == SHORT_SLICE_US
        assert os.sched_getscheduler(process.pid) == os.SCHED_OTHER
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == nice
        process.communicate("")


@pytest.mark.root
def test_who_may_not_be_real_time_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    if resource.getrlimit(resource.RLIMIT_RTPRIO)[1] != 0:
        pytest.skip("whoever runs here may be real time")
    argv = [sys.executable, "-uc", MOMENT, "as nobody"]
    said = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    assert said.split("\n")[:2] == [f"False {os.SCHED_OTHER}", str(os.SCHED_OTHER)]
    assert "True" not in said
    asked: list[int] = []
    moment = Moment()

    def refuse(pid: int, _policy: int, _parameters: os.sched_param) -> None:
        asked.append(pid)
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert not moment.begin() and not moment.begin()
    assert asked == [0], "asked once for all"


NICER = """
import os
from kad.runtime.processors import Moment
moment = Moment()
print(moment.begin())
os.setpriority(os.PRIO_PROCESS, 0, 7)
moment.end()
print(os.sched_getscheduler(0) == os.SCHED_OTHER, os.getpriority(os.PRIO_PROCESS, 0))
"""


@pytest.mark.root
def test_a_moment_leaves_the_niceness_that_was_configured_in_it() -> None:
    said = subprocess.run([sys.executable, "-c", NICER], capture_output=True, text=True, check=True).stdout
    assert said.split("\n")[:2] == ["True", "True 7"]


@pytest.mark.root
def test_a_moment_leaves_the_priority_that_was_configured() -> None:
    before = os.sched_getscheduler(0)
    moment = Moment()
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(3))
    try:
        assert not moment.begin()
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        assert moment.begin()
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(3))
        moment.end()
        assert os.sched_getscheduler(0) == os.SCHED_RR
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))
