"""A search has a time limit, and its alarm means nothing to anybody else."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from kad_check.core.dialogues.http import PatternTimeoutError
from kad_check.io.patterns import SEARCH_LIMIT_US, BoundedSearch
from tests.support.namespaces import poll

ENDLESS, PAGE = re.compile(b"(a+)+b"), b"a" * 60


@pytest.fixture
def search() -> Iterator[BoundedSearch]:
    before = signal.getsignal(signal.SIGALRM)
    yield BoundedSearch()
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def stray_alarms() -> Iterator[None]:
    script = "while kill -ALRM $PPID; do sleep 0.01; done"
    with subprocess.Popen(["/bin/sh", "-c", script]) as sender:
        yield
        sender.kill()


def test_a_search_finds_and_does_not_find(search: BoundedSearch) -> None:
    assert search(re.compile(b"a+b"), b"xaab", 0) == 1
    assert search(re.compile(b"a+b"), b"xaac", 0) is None
    assert search(re.compile(b"a"), b"abca", 1) == 3


def test_an_endless_search_ends_and_is_counted(search: BoundedSearch) -> None:
    with pytest.raises(PatternTimeoutError):
        search(ENDLESS, PAGE, 0)
    assert search.spent_us >= SEARCH_LIMIT_US
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_alarm_outside_a_search_is_nothing(search: BoundedSearch) -> None:
    for number in range(2):
        os.kill(os.getpid(), signal.SIGALRM)
        assert search(re.compile(b"a"), b"a", 0) == 0, number


def test_strange_alarms_do_not_end_a_search(search: BoundedSearch, stray_alarms: None) -> None:
    heard = 0
    ring = signal.getsignal(signal.SIGALRM)
    assert callable(ring)

    def count(number: int, frame: object) -> None:
        nonlocal heard
        heard += 1
        ring(number, None)

    signal.signal(signal.SIGALRM, count)
    poll(lambda: heard > 2, "alarms")
    before, begun = heard, time.monotonic()
    with pytest.raises(PatternTimeoutError):
        search(ENDLESS, PAGE, 0)
    assert time.monotonic() - begun >= SEARCH_LIMIT_US / 1e6
    assert heard > before
