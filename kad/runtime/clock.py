"""The clocks. The only module that imports ``time``: nothing else can come to depend on the wall clock.

Protocol timers run on CLOCK_MONOTONIC; ages that must survive a process are CLOCK_BOOTTIME, which also counts
the time a machine was suspended. All are integer microseconds.
"""

import time

_monotonic_ns = time.monotonic_ns
_clock_gettime_ns = time.clock_gettime_ns
_BOOTTIME = time.CLOCK_BOOTTIME


def monotonic_us() -> int:
    """CLOCK_MONOTONIC."""
    return _monotonic_ns() // 1000


def boottime_us() -> int:
    """CLOCK_BOOTTIME: never behind CLOCK_MONOTONIC, ahead of it by the time spent suspended."""
    return _clock_gettime_ns(_BOOTTIME) // 1000


def realtime_us() -> int:
    """CLOCK_REALTIME: for people (log lines, reports), and for what is counted in it elsewhere: the kernel's
    stamps on packets, sequence numbers of signed adverts, ``reload_time_file``.
    """
    return time.time_ns() // 1000
