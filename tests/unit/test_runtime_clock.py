import time

from kad.runtime import clock


def test_monotonic_is_the_kernels_clock_in_microseconds() -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    now = clock.monotonic_us()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert before <= now <= after


def test_boottime_is_the_kernels_clock_in_microseconds() -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    now = clock.boottime_us()
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    assert before <= now <= after
    assert now >= clock.monotonic_us() - (after - before) - 1_000_000


def test_realtime_counts_from_the_epoch() -> None:
    assert abs(clock.realtime_us() - time.time() * 1e6) < 60e6
