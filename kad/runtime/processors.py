"""Who runs where, and for how long at a stretch: for processes that do one thing together at once."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SHORT_SLICE_US = 100
"""The least that the kernel takes."""
_USUAL = 0

_SYSTEM_CALLS = {
    "x86_64": 314,
    "aarch64": 274,
    "riscv64": 274,
    "loongarch64": 274,
    "ppc64le": 355,
    "s390x": 345,
}
"""sched_setattr's number, which the C library has no name for before glibc 2.41."""


class _Attributes(ctypes.Structure):
    """struct sched_attr, as first published."""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    ]


_libc = ctypes.CDLL(None, use_errno=True)
_here: Callable[[], int] = _libc.sched_getcpu
_set_attributes = _libc.syscall
_number = _SYSTEM_CALLS.get(platform.machine())


def shorten_slice() -> bool:
    """From now on this thread, and what it starts, runs for a short while at a stretch if others wait.

    It gets no more of a processor than with the usual slices, but gets it sooner when it wakes up. Linux 6.12
    and newer; an older kernel takes no notice. False: refused, or the thread has real-time priority.
    """
    return _set_slice(0, SHORT_SLICE_US)


def restore_slice(pid: int) -> bool:
    """What was started here runs as long at a stretch as everything else does. False: refused, or gone."""
    return _set_slice(pid, _USUAL)


def _set_slice(pid: int, slice_us: int) -> bool:
    if _number is None:
        return False
    try:
        if os.sched_getscheduler(pid) != os.SCHED_OTHER:
            return False
        nice = os.getpriority(os.PRIO_PROCESS, pid)
    except OSError:
        return False
    attributes = _Attributes(
        size=ctypes.sizeof(_Attributes), policy=os.SCHED_OTHER, nice=nice, runtime=slice_us * 1000
    )
    return bool(_set_attributes(_number, pid, ctypes.byref(attributes), 0) == 0)


@contextmanager
def kept_away(pid: int) -> Iterator[None]:
    """Meanwhile that thread may run where it may, but not on our processor: to be woken, in one system call.

    The kernel likes to wake a thread where its waker runs, who will not sleep just then. A thread that may
    run nowhere else, is gone, or is not ours to move is left alone.
    """
    allowed: set[int] = set()
    with suppress(OSError):
        found = os.sched_getaffinity(pid)
        others = found - {_here()}
        if others and others != found:
            os.sched_setaffinity(pid, others)
            allowed = found
    try:
        yield
    finally:
        with suppress(OSError):
            if allowed:
                os.sched_setaffinity(pid, allowed)
