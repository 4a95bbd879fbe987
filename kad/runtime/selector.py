"""A selector for asyncio that waits to the microsecond.

asyncio's own selector rounds waits up to whole milliseconds (a 10 ms timer is 1.1 ms late). This one waits on
a timerfd that sits in the same epoll set, armed at an absolute CLOCK_MONOTONIC time.

The timer's own reader (``loop.add_reader(selector.timer_fd, …)``) is called last after *every* wake-up,
whatever woke it: who drains sockets in the other readers can act on timers there, with no further turn
of the loop.
"""

from __future__ import annotations

import ctypes
import os
import select
import selectors
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from kad.runtime.clock import monotonic_us
from kad.units import NEVER

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_TFD_NONBLOCK_CLOEXEC = 0o4000 | 0o2000000

LOOKS = 16
"""In a row, by who does not sleep. After them the driver has a turn: what is looked out for needs one, and
finds it as warm as if it ran all the time."""

_EVENTS = 64
"""Ready descriptors taken at a time; the others stay ready."""

_COARSE_US = 10_000
"""From here on a rest may be a part of a millisecond shorter."""
_FAR_US = 1_000_000
"""To a deadline as far as that who lets packets gather sleeps by the kernel's coarse time."""
_END_PART = 64
_STALE_PART = 3
"""A timer is set anew for a time that is later by this part of the sleep it was set for."""

Events = list[tuple[int, int]]
Ready = list[tuple[selectors.SelectorKey, int]]


class _Timespec(ctypes.Structure):
    _fields_ = [
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    ]


def _bound_timerfd() -> tuple[Callable[[], int], Callable[[int, int], None]]:
    """(create, arm at an absolute time in µs), bound at import: nothing is looked up while running."""
    if sys.version_info >= (3, 13):

        def create() -> int:
            return os.timerfd_create(_CLOCK_MONOTONIC, flags=_TFD_NONBLOCK_CLOEXEC)

        def arm(descriptor: int, at_us: int) -> None:
            os.timerfd_settime_ns(descriptor, flags=_TFD_TIMER_ABSTIME, initial=at_us * 1000)

        return create, arm

    libc = ctypes.CDLL(None, use_errno=True)
    settime, timespec = libc.timerfd_settime, _Timespec()
    settime.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.POINTER(_Timespec), ctypes.c_void_p]
    reference = ctypes.pointer(timespec)

    def create_by_libc() -> int:
        descriptor: int = libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        return descriptor

    def arm_by_libc(descriptor: int, at_us: int) -> None:
        timespec.seconds, rest = divmod(at_us, 1_000_000)
        timespec.nanoseconds = rest * 1000
        if settime(descriptor, _TFD_TIMER_ABSTIME, reference, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    return create_by_libc, arm_by_libc


_create, _arm = _bound_timerfd()


def _mask(events: int) -> int:
    """The kernel's word for the module's."""
    read = select.EPOLLIN if events & selectors.EVENT_READ else 0
    return read | (select.EPOLLOUT if events & selectors.EVENT_WRITE else 0)


class TimerSelector(selectors.EpollSelector):
    """An EpollSelector whose timeouts, and :attr:`deadline_us`, are exact."""

    def __init__(self) -> None:
        super().__init__()
        self.timer_fd = _create()
        self.deadline_us: int | None = None
        """Wake at this CLOCK_MONOTONIC time at the latest; None: no own deadline."""
        self.is_due = False
        """Do not wait at all for once: there is news since the deadline was set."""
        self.rest_until_us = 0
        """Do not wake up before then for what is ``patient``, once: what arrives meanwhile is found all
        together. Everything else is waited for as ever."""
        self.gather_us = 0
        """Where nothing but what is ``patient`` ends a sleep, sleep on for so long: with one, others speak
        too."""
        self.is_urgent = False
        """Do not sleep until the deadline but look for a while, once: waking up takes its time."""
        self.look_out_until_us = 0
        """Do not sleep before that time, whatever comes meanwhile, while :attr:`is_worth_it`."""
        self.is_worth_it: Callable[[], bool] = lambda: True
        self.served: set[int] = {self.timer_fd}
        self.serve: Callable[[Events], bool] | None = None
        """Called instead of the event loop when nothing but ``served`` descriptors are ready; True: go on
        waiting. asyncio's own turn costs as much as everything a packet needs."""
        self.on_sleep: Callable[[int], None] = lambda until_us: None
        """Called with the time of the timer before a sleep, and with 0 after it."""
        self._epoll = select.epoll.fromfd(os.dup(self.fileno()))
        self.patient: set[int] = set()
        """What a rest does not wait for."""
        self._epoll_impatient = select.epoll()
        self._armed_us = self._stale_us = NEVER
        """When the timer goes off, 0: it has; and from where on a later time is worth setting it anew."""
        self._room = _EVENTS
        """For everything that may be ready at once."""
        # The pair is what asyncio keeps with a key: no reader and no writer yet.
        self.register(self.timer_fd, selectors.EVENT_READ, (None, None))

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> selectors.SelectorKey:
        """What is patient is in ``patient`` before."""
        key = super().register(fileobj, events, data)
        self._room = max(_EVENTS, len(self.get_map()))
        if key.fd not in self.patient:
            self._epoll_impatient.register(key.fd, _mask(events))
        return key

    def modify(self, fileobj: FileDescriptorLike, events: int, data: object = None) -> selectors.SelectorKey:
        key = super().modify(fileobj, events, data)
        if key.fd not in self.patient:
            self._epoll_impatient.modify(key.fd, _mask(events))
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        key = super().unregister(fileobj)
        # Not there: it is patient, or closed.
        with suppress(OSError):
            self._epoll_impatient.unregister(key.fd)
        return key

    def select(self, timeout: float | None = None) -> Ready:
        if timeout is not None and timeout <= 0:
            return self._timer_last(super().select(0))
        until_us = NEVER
        if timeout is not None:
            # One microsecond more, never less: asyncio would find nothing due and turn once in vain.
            until_us = monotonic_us() + int(timeout * 1_000_000) + 1
        while True:
            events = self._wait(until_us)
            ready = dict(events).keys()
            if not self.serve or not ready <= self.served:
                return self._timer_last(super().select(0))
            if self.timer_fd in ready:
                self._armed_us = self._stale_us = 0
            if not self.serve(events) or (until_us != NEVER and until_us <= monotonic_us()):
                return []

    def close(self) -> None:
        super().close()
        self._epoll.close()
        self._epoll_impatient.close()
        os.close(self.timer_fd)

    def _wait(self, until_us: int) -> Events:
        if self.deadline_us is not None and self.deadline_us < until_us:
            until_us = self.deadline_us
        if self.is_due:
            self.is_due, until_us = False, 0
        rest_until_us, self.rest_until_us = self.rest_until_us, 0
        if self.is_urgent:
            self.is_urgent = False
            return self._look(until_us)
        if self.look_out_until_us:
            if monotonic_us() < self.look_out_until_us and self.is_worth_it():
                return self._look(min(until_us, self.look_out_until_us))
            self.look_out_until_us = 0
        if self.gather_us and not rest_until_us and _FAR_US <= until_us - monotonic_us() < NEVER // 2:
            return self._sleep_untimed(until_us)
        self._arm_for(until_us)
        self.on_sleep(self._armed_us)
        if rest_until_us:
            events = self._rest(rest_until_us - monotonic_us())
        else:
            events = self._epoll.poll(-1, _EVENTS)
            if self.gather_us:
                # If it was other news, that is no rest.
                events = self._rest(self.gather_us)
        self.on_sleep(0)
        return events

    def _sleep_untimed(self, until_us: int) -> Events:
        """Where packets that come before it move the deadline each time, the timer would be set each time.

        The kernel's coarse time may be late by a part of the wait (half a per cent, nice(1) given): the end,
        and what would reach into it, is left to the timer.
        """
        self._arm_for(NEVER)
        self.on_sleep(until_us)
        wait_us = until_us - monotonic_us()
        self._epoll.poll((wait_us - wait_us // _END_PART) // 1000 / 1000, _EVENTS)
        if until_us - monotonic_us() <= self.gather_us + _COARSE_US:
            self._arm_for(until_us)
        events = self._rest(self.gather_us)
        self.on_sleep(0)
        return events

    def _rest(self, rest_us: int) -> Events:
        """Until then, or until there is other news (the timer's, too)."""
        if rest_us >= _COARSE_US:
            # The kernel counts it in milliseconds, and needs half as much time as for setting the timer anew.
            self._epoll_impatient.poll(rest_us // 1000 / 1000, 1)
        elif rest_us > 0:
            # Never for later: a deadline comes first, and a timer that went off meanwhile has to be seen.
            if (at_us := monotonic_us() + rest_us) < self._armed_us:
                self._arm_for(at_us)
            self._epoll_impatient.poll(-1, 1)
        # All of it: what is left for the next turn would lie for as long again.
        return self._epoll.poll(0, self._room)

    def _look(self, until_us: int) -> Events:
        if not self._armed_us:
            # No timer: its interrupt would only come in the way of who is awake.
            self._arm_for(NEVER)
        poll = self._epoll.poll
        for _ in range(LOOKS):
            if (events := poll(0, _EVENTS)) or monotonic_us() >= until_us:
                return events
        return []

    def _arm_for(self, at_us: int) -> None:
        at_us = max(at_us, 1)  # 0 disarms a timerfd
        # Armed for earlier is armed well enough: every packet moves a deadline later, and a system call for
        # each would cost more than one now and then, before the old time comes.
        if at_us < self._armed_us or at_us > self._stale_us:
            _arm(self.timer_fd, at_us if at_us != NEVER else 0)
            self._armed_us = at_us
            self._stale_us = at_us + (at_us - monotonic_us()) // _STALE_PART

    def _timer_last(self, ready: Ready) -> Ready:
        timer = self.get_key(self.timer_fd)
        for index, (key, _) in enumerate(ready):
            if key is timer:
                del ready[index]
                # Setting it anew also takes back the expiry, so the descriptor is never read.
                self._armed_us = self._stale_us = 0
                break
        ready.append((timer, selectors.EVENT_READ))
        return ready
