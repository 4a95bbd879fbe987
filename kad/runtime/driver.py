"""Runs a pure core on an event loop: readable | deadline | message → core → shells.

One turn, in this order: every readable descriptor is drained; then, with the sockets empty, the clock is
believed and the core gets its TimeReached if its deadline is due; then the heartbeat ticks and the selector
is armed once for the core's next deadline. A process that was stopped for a while therefore reads what
arrived meanwhile before it judges anybody dead.

An exception anywhere in a callback ends the process (:meth:`Driver.run`): a mute master that looks alive
would be the worst case, and the supervisor has a successor running within milliseconds.
"""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from kad.runtime import process
from kad.runtime.clock import monotonic_us
from kad.runtime.core import Core, NoCore
from kad.runtime.processors import Moment
from kad.runtime.selector import Events, TimerSelector
from kad.units import NEVER

E = TypeVar("E")
A = TypeVar("A")

EVE_US = 2_000
"""How long before a rare deadline the code that it will run is run for nobody."""
LAST_CALL_US = 700
"""How long before it that is done once more: what was warm a millisecond ago has cooled down by half."""
LEAST_EVE_US = 300
"""With less time left, warming up would be in the way."""
IDLE_WAKE_US = 200_000
"""The longest sleep of a process whose ticks others count as signs of life."""
LONG_SLEEP_US = 2_000_000
"""The longest of all: a wake-up that the kernel has lost is made up for."""

LATE_WAKE_US = 10_000
"""Waking up so much later than planned is told even where nothing was due by then."""

BATCH = 64
"""Packets or messages read from one descriptor before the next one has its turn."""

ROUNDS = 16
"""Batches from one descriptor in one turn, at most: a flood may not keep the timers waiting."""

FLOOD = 8
"""Batches from one descriptor in one turn that nobody sends who has a right to speak there."""
FLOOD_MEMORY_US = 1_000_000

Drain = Callable[[], bool]
"""Reads at most :data:`BATCH` items; True when more may be waiting."""


class Ticker(Protocol):
    """The part of :class:`kad.runtime.heartbeat.Heartbeat` the driver uses."""

    def tick(self, now_us: int = 0) -> None: ...

    def sleep(self, until_us: int) -> None: ...


class Lateness:
    """How late the loop came to the core's deadlines, and to wake-ups it had planned."""

    LIMITS_US = (500, 1_000, 10_000, 100_000)

    __slots__ = ("deadlines", "over", "worst_us")

    def __init__(self) -> None:
        self.deadlines = 0
        self.worst_us = 0
        self.over = [0] * len(self.LIMITS_US)
        """How many deadlines were met later than each of :attr:`LIMITS_US`."""

    def count(self, late_us: int) -> None:
        self.deadlines += 1
        self.worst_us = max(self.worst_us, late_us)
        for index, limit in enumerate(self.LIMITS_US):
            if late_us <= limit:
                break
            self.over[index] += 1


class Driver(Generic[E, A]):
    """The loop of one process, around one core.

    ``perform`` carries out one action; it must not fail for reasons outside, and what comes of the action
    goes back in by :meth:`feed` (right away or later). ``time_reached`` is the core's event of that name.
    ``core``: None where it comes later, by :meth:`take`.
    ``quiet``: the one kind of action whose performance leaves the event loop alone. ``idle_us``: how long it
    may sleep.

    Turns with nothing but packets and time in them, and none but quiet actions, go past asyncio.
    """

    def __init__(
        self,
        core: Core[E, A] | None,
        perform: Callable[[A], None],
        heartbeat: Ticker,
        time_reached: E,
        *,
        quiet: type | None = None,
        idle_us: int = IDLE_WAKE_US,
    ) -> None:
        self._quiet = quiet
        self._idle_us = idle_us
        self._stirred = False
        """Something happened that the event loop, or a chore, may have to see."""
        self._packets: dict[int, Drain] = {}
        self._news: dict[int, Drain] = {}
        """What is read past the event loop, which has its turn afterwards."""
        self._core: Core[E, A] = core if core is not None else NoCore()
        self._perform = perform
        self._heartbeat = heartbeat
        self._time_reached = time_reached
        self._events: deque[E] = deque()
        self._feeding = False
        self._now_us = 0
        self._deadline_us: int | None = None
        self._again = False
        self._told_us = 0
        self._clock_us = 0
        self._count = 0
        """Events the core was given."""
        self.patience_us = 0
        """How long a packet at a patient descriptor may lie, so that others are read with it: waking up costs
        many times what reading one does."""
        self._may_rest = False
        self._last_read_us = 0
        self._flooded_until_us = 0
        """Until then no packet lies: sockets would overflow."""
        self._unfinished: list[Drain] = []
        self._rare: Callable[[], int] = lambda: NEVER
        self._rare_us = NEVER
        self._warm_up: Callable[[], None] = lambda: None
        self._warmed_up_for_us = 0
        self._last_call: Callable[[], None] = lambda: None
        self._called_for_us = 0
        self._moment = Moment()
        self._is_first = self._is_uncollected = False
        self._late_us = NEVER
        self._on_late: Callable[[], None] = lambda: None
        self._chores: list[Callable[[], bool]] = []
        self._selector = TimerSelector()
        self.lateness = Lateness()
        self.loop = asyncio.SelectorEventLoop(self._selector)
        self.loop.set_exception_handler(_die)
        self.loop.add_reader(self._selector.timer_fd, self._end_turn)
        self._selector.serve = self._serve
        self._selector.on_sleep = heartbeat.sleep

    def take(self, core: Core[E, A]) -> None:
        """The core, where it was not there when this was made: before anything is fed."""
        assert isinstance(self._core, NoCore), "there is one"
        self._core = core

    def add_reader(
        self, descriptor: int, drain: Drain, *, patient: bool = False, direct: bool = False
    ) -> None:
        """Have ``drain`` called whenever the descriptor is readable.

        ``patient``: packets come there, which may lie for :attr:`patience_us`. They should be fed with the
        time they came. ``direct``: news that is not to wait for the event loop's turn, which comes after it.
        """
        if patient:
            self._packets[descriptor] = drain
            self._selector.patient.add(descriptor)
        if direct:
            self._news[descriptor] = drain
        if patient or direct:
            self._selector.served.add(descriptor)

        def on_readable() -> None:
            self._may_rest |= patient
            if drain():
                self._unfinished.append(drain)

        self.loop.add_reader(descriptor, on_readable)

    def remove_reader(self, descriptor: int) -> None:
        self._selector.served.discard(descriptor)
        self._selector.patient.discard(descriptor)
        self._packets.pop(descriptor, None)
        self._news.pop(descriptor, None)
        self.loop.remove_reader(descriptor)

    def each_turn(self, chore: Callable[[], bool]) -> None:
        """Have ``chore`` called at the end of every turn in which anything happened; True: again at once.

        For work that comes in heaps and is done a share at a time.
        """
        self._chores.append(chore)

    def feed(self, event: E, happened_us: int = 0) -> None:
        """Hand one event to the core and carry out what it wants.

        From within an action's performance the event waits until the actions at hand are done, so that a core
        never sees an event before the world is as its last answer asked. ``happened_us``: when it happened,
        where that is known better than "now" (a packet lay in its socket while this process woke up).
        """
        events = self._events
        events.append(event)
        if self._feeding:
            return
        self._feeding = True
        handle, perform, quiet = self._core.handle, self._perform, self._quiet
        while events:
            self._count += 1
            if happened_us:
                # Not before what the core has been told to be now.
                now_us = max(happened_us, self._clock_us)
                happened_us = 0
            else:
                self._clock_us = now_us = monotonic_us()
            self._told_us = now_us
            for action in handle(events.popleft(), now_us):
                perform(action)
                if type(action) is not quiet:
                    self._stirred = True
        self._feeding = False
        # A callback of the event loop's own comes after the end of the turn: that is made up for at once.
        self._selector.is_due = True

    def prepare(
        self,
        rare_us: Callable[[], int],
        warm_up: Callable[[], None],
        last_call: Callable[[], None] = lambda: None,
    ) -> None:
        """Have ``warm_up`` called :data:`EVE_US` before the instant that ``rare_us`` names, and ``last_call``
        :data:`LAST_CALL_US` before it, where there was time for the other.

        Code that has not run for seconds runs several times slower; where a deadline is both rare and urgent,
        a rehearsal just before it is worth a wake-up. What is left of the time is not slept through. Other
        deadlines of the core may come before that one, which is one of them. ``rare_us``: :data:`NEVER`
        where there is none.
        """
        self._rare, self._warm_up, self._last_call = rare_us, warm_up, last_call

    def look_out(self, until_us: int, is_worth_it: Callable[[], bool]) -> None:
        """Something urgent may come until then (in :data:`EVE_US` and a little): do not sleep.

        ``is_worth_it``: not any more when it says no, which it is asked many times in a millisecond.
        """
        if until_us < monotonic_us() + 2 * EVE_US:
            self.go_first()
            self._selector.look_out_until_us = until_us
            self._selector.is_worth_it = is_worth_it

    def watch_lateness(self, limit_us: int, on_late: Callable[[], None]) -> None:
        """Have ``on_late`` called whenever the loop comes later than that to a deadline; 0: never."""
        self._late_us = limit_us or NEVER
        self._on_late = on_late

    def run(self) -> None:
        """Until :meth:`stop`. An exception out of any callback or task ends the process: :func:`_die`."""
        asyncio.set_event_loop(self.loop)
        try:
            self._now_us, self._deadline_us = monotonic_us(), self._core.deadline_us
            self._rare_us = self._rare()
            self._arm()
            self.loop.run_forever()
            self.go_as_usual()
        except BaseException as error:  # noqa: BLE001 - nothing may escape: the process ends here
            process.die(error)

    def stop(self) -> None:
        self._stirred = True
        self.loop.stop()

    def close(self) -> None:
        self.loop.close()

    def _serve(self, events: Events) -> bool:
        """A turn of packets and time alone. False: the event loop has something to see."""
        for descriptor, _ in events:
            drain = self._packets.get(descriptor)
            if drain is not None:
                self._may_rest = True
                if drain():
                    self._unfinished.append(drain)
            elif (drain := self._news.get(descriptor)) is not None:
                # It may have called for the event loop.
                self._stirred = True
                if drain():
                    self._unfinished.append(drain)
        self._judge_time()
        stirred = self._stirred or self._again
        if stirred:
            self._do_chores()
        self._stirred = False
        self._arm()
        return not stirred

    def _end_turn(self) -> None:
        """The end of a turn of the event loop: the selector has this called after all other readers."""
        self._judge_time()
        self._do_chores()
        self._stirred = False
        self._arm()

    def _judge_time(self) -> None:
        if self._unfinished:
            self._drain_rest()
        deadline_us = self._core.deadline_us
        now_us = monotonic_us()
        if deadline_us is not None and deadline_us <= now_us:
            self.lateness.count(now_us - deadline_us)
            if now_us - deadline_us > self._late_us:
                self._on_late()
            self.feed(self._time_reached)
            deadline_us = self._core.deadline_us
        elif (planned_us := self._selector.deadline_us) is not None and now_us - planned_us > LATE_WAKE_US:
            # What was due has moved by what was read just now; we stood still all the same.
            self.lateness.count(now_us - planned_us)
        # What is rare is one of the core's deadlines: none comes before the first of all.
        is_far = deadline_us is not None and deadline_us > now_us + self._idle_us + EVE_US
        self._rare_us = rare_us = NEVER if is_far else self._rare()
        if LEAST_EVE_US <= rare_us - now_us <= EVE_US:
            self._keep_eve(rare_us, rare_us - now_us)
            now_us = monotonic_us()
        self._deadline_us = deadline_us
        self._now_us = now_us

    def _keep_eve(self, rare_us: int, left_us: int) -> None:
        if rare_us != self._warmed_up_for_us:
            self._warmed_up_for_us = rare_us
            self.go_first()
            self._warm_up()
            # The event loop is part of it.
            self._stirred = True
        elif left_us <= LAST_CALL_US and rare_us != self._called_for_us:
            self._called_for_us = rare_us
            self._last_call()

    def go_first(self) -> None:
        """Before everything ordinary on this machine, with no search for garbage, until :meth:`run` sleeps
        next."""
        self._is_first |= self._moment.begin()
        self._is_uncollected |= gc.isenabled()
        gc.disable()
        self._selector.on_sleep = self._sleep_as_usual

    def go_as_usual(self) -> None:
        """What was urgent is done."""
        self._selector.on_sleep = self._heartbeat.sleep
        if self._is_first:
            self._is_first = False
            self._moment.end()
        if self._is_uncollected:
            self._is_uncollected = False
            gc.enable()

    def _sleep_as_usual(self, until_us: int) -> None:
        self.go_as_usual()
        self._heartbeat.sleep(until_us)

    def _do_chores(self) -> None:
        before = self._count
        self._again = False
        for chore in self._chores:
            self._again |= chore()
        if self._count > before:
            self._deadline_us = self._core.deadline_us
            self._rare_us = self._rare()

    def _rest(self, now_us: int) -> None:
        """Where packets come all the time, nobody has to be woken by the first one."""
        if now_us - self._last_read_us < self.patience_us * 5 // 4:
            self._selector.rest_until_us = now_us + self.patience_us
        self._last_read_us = now_us

    def _drain_rest(self) -> None:
        """Go round the descriptors that had more than a batch, fairly, and no further than the limit."""
        for number in range(ROUNDS - 1):
            if not self._unfinished:
                return
            if number == FLOOD:
                self._flooded_until_us = monotonic_us() + FLOOD_MEMORY_US
            drains, self._unfinished = self._unfinished, []
            self._unfinished = [drain for drain in drains if drain()]
        # What is left keeps its descriptor readable: the next turn comes at once.
        self._unfinished = []

    def _arm(self) -> None:
        """Say when to wake up, and that all is well."""
        now_us, deadline_us = self._now_us, self._deadline_us
        idle_us = now_us + self._idle_us
        if deadline_us is None or deadline_us > idle_us:
            deadline_us = idle_us
        eve_us = self._rare_us - EVE_US
        if now_us < eve_us < deadline_us:
            deadline_us = eve_us
        if deadline_us > max(now_us, self._told_us):
            # A core still behind what it has just been told (it would turn for ever) is not alive.
            self._heartbeat.tick(now_us)
        patience_us = self.patience_us if now_us >= self._flooded_until_us else 0
        # The eve of a rare deadline is not slept through.
        self._selector.gather_us = 0 if eve_us <= now_us else patience_us
        if self._again:
            deadline_us = now_us
        elif self._may_rest and patience_us:
            self._rest(now_us)
        self._may_rest = False
        self._selector.is_due = False
        self._selector.deadline_us = deadline_us
        self._selector.is_urgent = deadline_us <= self._warmed_up_for_us


def _die(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> NoReturn:
    """asyncio's exception handler."""
    error = context.get("exception")
    if not isinstance(error, BaseException):
        error = RuntimeError(f"event loop: {context.get('message')}")
    process.die(error)
