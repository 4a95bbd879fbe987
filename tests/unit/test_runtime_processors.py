"""Slices and processors of real threads, as the kernel has them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kad.runtime.processors import SHORT_SLICE_US, kept_away, restore_slice
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
