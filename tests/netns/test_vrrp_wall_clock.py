"""The clock of the day is set, to what it shows already: the kernel says so, and the engine is told."""

import select
import time

import pytest

from kad_vrrp.core.events import ClockSet
from kad_vrrp.io.wall_clock import WallClock
from tests.support.namespaces import poll

pytestmark = pytest.mark.root


def test_a_set_clock_is_noticed_each_time() -> None:
    told: list[ClockSet] = []
    clock = WallClock(told.append)
    try:
        clock.tell()
        ahead_us = (time.time_ns() - time.monotonic_ns()) // 1000
        assert abs(told[-1].realtime_ahead_us - ahead_us) < 1_000_000
        assert select.select([clock], [], [], 0)[0] == [], "nothing has happened"
        assert clock.drain() is False and len(told) == 1
        for number in (2, 3):
            try:
                time.clock_settime_ns(time.CLOCK_REALTIME, time.time_ns())
            except PermissionError:
                pytest.skip("may not set the clock")
            poll(lambda: select.select([clock], [], [], 0)[0], "the kernel's word")
            clock.drain()
            assert len(told) == number
    finally:
        clock.close()
