"""Scheduling, memory and names of one process, as the configuration asks for them, and back again.

All of it concerns the thread that runs the event loop, but for the processors, which are all threads'. What
the system does not allow is said, and otherwise let be.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Callable

from kad.config.model.globals import ProcessSettings
from kad.errors import in_words

REALTIME_LIMIT_FLOOR_US = 1_000_000
"""The kernel kills a process that uses more than its limit at real-time priority without pause. keepalived's
10 ms would kill an interpreter at work, and one that really hangs is noticed anyway."""
NAME_LIMIT = 15
_PR_SET_NAME = 15
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_SET_ON_FORK = os.SCHED_RESET_ON_FORK
"""What it starts runs with ordinary priority."""
_libc = ctypes.CDLL(None, use_errno=True)

inherited_realtime_limit = resource.getrlimit(resource.RLIMIT_RTTIME)
inherited_nice = os.getpriority(os.PRIO_PROCESS, 0)
"""What kad was started with: scripts get it back."""


class Tuner:
    """Brings one process to its settings. ``usual_name`` is what the kernel calls it otherwise,
    ``umask_with`` what comes of the configuration's umask.
    """

    def __init__(
        self, usual_name: str, umask_with: Callable[[int | None], int], report: Callable[[str], None]
    ) -> None:
        self._usual_name = usual_name
        self._umask_with = umask_with
        self._report = report
        self._processors = os.sched_getaffinity(0)
        self._set_to = self._processors
        """What the kernel has made of the configuration's."""
        self._now = ProcessSettings()
        self._raised_to = 0
        """The real-time priority it has given itself; 0: none."""
        self._running_out = False

    @property
    def late_us(self) -> int:
        """How late a timer must be for :meth:`is_late`; 0: it does not matter."""
        return self._now.minimum_automatic_delay_us if self._now.maximum_automatic_priority > 0 else 0

    def apply(self, settings: ProcessSettings) -> None:
        """From now on. What is as before is left alone."""
        before, self._now = self._now, settings
        old, new = before.tuning, settings.tuning
        if new.process_name != old.process_name:
            set_name(new.process_name or self._usual_name)
        os.umask(self._umask_with(settings.umask))
        if new.cpu_affinity != old.cpu_affinity:
            self._try("processors", lambda: self._set_processors(new.cpu_affinity))
        if new.nice != old.nice:
            self._try("priority", lambda: os.setpriority(os.PRIO_PROCESS, 0, new.nice or inherited_nice))
        if new.no_swap != old.no_swap:
            self._try("memory", lambda: _lock_memory(new.no_swap))
        scheduling = (new.realtime_priority, new.realtime_limit_us)
        if scheduling != (old.realtime_priority, old.realtime_limit_us):
            self._raised_to = 0
            self._try("real-time priority", lambda: self._set_realtime(new.realtime_priority))

    def is_late(self) -> None:
        """A timer was late: a step up, as far as the configuration allows."""
        priority = (self._raised_to or self._now.tuning.realtime_priority) + 1
        if priority > self._now.maximum_automatic_priority:
            return
        self._raised_to = priority
        self._try("real-time priority", lambda: self._set_realtime(priority))
        self._report(f"Set realtime priority {priority}")

    def restore_processors(self) -> None:
        """Of the loop's thread: whoever kept it away from one (processors.py) may not have lived to undo it.

        What somebody else has set it to is left alone.
        """
        allowed = os.sched_getaffinity(0)
        if allowed < self._set_to and len(self._set_to - allowed) == 1:
            self._try("processors", lambda: os.sched_setaffinity(0, self._set_to))

    def _try(self, what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            self._report(f"{what} cannot be set: {in_words(error)}")

    def _set_processors(self, wanted: tuple[int, ...]) -> None:
        """Of every thread: those of the log and of the links shall not be elsewhere."""
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), wanted or self._processors)
        self._set_to = os.sched_getaffinity(0)

    def _set_realtime(self, priority: int) -> None:
        if not priority:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            _limit_realtime(resource.RLIM_INFINITY)
            return
        self._watch_limit()
        _limit_realtime(max(self._now.tuning.realtime_limit_us, REALTIME_LIMIT_FLOOR_US))
        os.sched_setscheduler(0, os.SCHED_RR | _SET_ON_FORK, os.sched_param(priority))

    def _watch_limit(self) -> None:
        """Half of the limit is a warning, a SIGXCPU a second: said once."""

        def warn(_number: int, _frame: object) -> None:
            if not self._running_out:
                self._running_out = True
                self._report("half of rlimit_rttime was used without a pause")

        signal.signal(signal.SIGXCPU, warn)


def set_name(name: str) -> None:
    """The kernel's name of this process (comm): what ps -o comm, top and pgrep show."""
    buffer = ctypes.create_string_buffer(name.encode(errors="surrogateescape")[:NAME_LIMIT])
    _libc.prctl(_PR_SET_NAME, buffer, 0, 0, 0)


def _lock_memory(locked: bool) -> None:
    """On fault: pages nobody has touched stay what they are, or every thread's stack would be memory."""
    flags = _MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT
    done = _libc.mlockall(flags) if locked else _libc.munlockall()
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _limit_realtime(limit_us: int) -> None:
    """RLIMIT_RTTIME: half of it warns, the whole kills."""
    soft = limit_us if limit_us == resource.RLIM_INFINITY else limit_us // 2
    try:
        resource.setrlimit(resource.RLIMIT_RTTIME, (soft, limit_us))
    except ValueError:
        # Not everybody may raise it again. It stays, and without real-time priority it means nothing.
        return
