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
_LEAST_PRIORITY = 1

_SYSTEM_CALLS = {
    "x86_64": 314,
    "aarch64": 274,
    "riscv64": 274,
    "loongarch64": 274,
    "ppc64le": 355,
    "s390x": 345,
}
"""sched_setattr's number, which the C library has no name for before glibc 2.41."""
_TO_GET = 1
"""From there to sched_getattr's."""


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
_system_call = _libc.syscall
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
        if _policy(pid) != os.SCHED_OTHER:
            return False
        nice = os.getpriority(os.PRIO_PROCESS, pid)
    except OSError:
        return False
    attributes = _Attributes(
        size=ctypes.sizeof(_Attributes), policy=os.SCHED_OTHER, nice=nice, runtime=slice_us * 1000
    )
    return bool(_system_call(_number, pid, ctypes.byref(attributes), 0) == 0)


def _policy(pid: int) -> int:
    return os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK


class Moment:
    """This thread goes first, in the few milliseconds in which something urgent is likely to come.

    It has the least real-time priority meanwhile: before everything ordinary, behind everything that was made
    real time on purpose. Where it has real-time priority already, or may not have it, nothing happens.
    """

    def __init__(self) -> None:
        self._is_refused = False
        self._before = _Attributes()

    def begin(self) -> bool:
        """False: all stays as it is."""
        if self._is_refused or _number is None or _policy(0) != os.SCHED_OTHER:
            return False
        size = ctypes.sizeof(_Attributes)
        before = ctypes.byref(self._before)
        first = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        try:
            self._is_refused = bool(_system_call(_number + _TO_GET, 0, before, size, 0))
            os.sched_setscheduler(0, first, os.sched_param(_LEAST_PRIORITY))
        except OSError:
            self._is_refused = True
        return not self._is_refused

    def end(self) -> None:
        """As before it. Who was given another priority meanwhile keeps that."""
        if _policy(0) != os.SCHED_FIFO:
            return
        # What was set meanwhile (setpriority) counts when it is over.
        self._before.nice = os.getpriority(os.PRIO_PROCESS, 0)
        # That much is allowed to everybody; the flag goes with the next call, where that is.
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
        _system_call(_number, 0, ctypes.byref(self._before), 0)


@contextmanager
def kept_away(pid: int) -> Iterator[None]:
    """Meanwhile that thread may run where it may, but not on our processor: to be woken, in one system call.

    The kernel likes to wake a thread where its waker runs, who will not sleep just then. A thread that may
    run nowhere else, is gone, or is not ours to move is left alone. If this process is killed meanwhile it
    stays so: whoever may be kept away puts that right when its link to us ends (``tuning.py``).
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
