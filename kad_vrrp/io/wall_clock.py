"""Notices when the system's clock is set: a timerfd that the kernel cancels for it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from kad.runtime.clock import monotonic_us, realtime_us
from kad_vrrp.core.events import ClockSet

_CLOCK_REALTIME = 0
_TFD_NONBLOCK_CLOEXEC = 0o4000 | 0o2000000
_TFD_TIMER_ABSTIME, _TFD_TIMER_CANCEL_ON_SET = 1, 2
_FAR_SECONDS = 1 << 40
_EXPIRATIONS = 8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.timerfd_settime.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]


class WallClock:
    """Between two settings CLOCK_REALTIME and CLOCK_MONOTONIC run alike: what they differ by is told once."""

    def __init__(self, feed: Callable[[ClockSet], None]) -> None:
        self._feed = feed
        self._descriptor = _libc.timerfd_create(_CLOCK_REALTIME, _TFD_NONBLOCK_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._arm()

    def fileno(self) -> int:
        return int(self._descriptor)

    def tell(self) -> None:
        """What they differ by now."""
        self._feed(ClockSet(realtime_us() - monotonic_us()))

    def drain(self) -> bool:
        """The descriptor is readable: the read fails with ECANCELED, and the timer has to be armed again."""
        try:
            os.read(self._descriptor, _EXPIRATIONS)
        except BlockingIOError:
            return False
        except OSError:
            self._arm()
        self.tell()
        return False

    def close(self) -> None:
        os.close(self._descriptor)

    def _arm(self) -> None:
        until = (ctypes.c_long * 4)(0, 0, _FAR_SECONDS, 0)
        flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        if _libc.timerfd_settime(self._descriptor, flags, ctypes.byref(until), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
