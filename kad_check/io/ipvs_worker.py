"""Works off the differences between the desired table and the kernel's: one batch, or one chore, at a time.

The order is: chores (reading the table), urgent changes, ordinary ones, the sweep; a sweep lets changes go
before each of its requests. The actual table takes a command as carried out when it is sent, so that the
next one is decided from what will be; a refusal puts it right again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from kad.kernel.batch import NO_VERDICT, Outcome, Request, RequestQueue
from kad.kernel.encoder import UNPACKABLE, Unpackable
from kad.kernel.ipvs import ServiceKey
from kad_check.core.ipvs_plan import (
    Actual,
    ActualService,
    Change,
    Desired,
    PutService,
    Step,
    apply,
    plan_service,
    step,
)
from kad_check.io.ipvs_chores import Chore, guarded, read_services
from kad_check.io.ipvs_repair import Repair, repair, request_of, unknown_service

BATCH = 128
"""Commands on their way at once: what the change of one server may have to wait for."""
TRIES = 4
"""Commands for one change, at most: each refusal may teach us better, but not for ever."""
FAILURES_LIMIT = 100
"""Refusals told of one task."""


class Task:
    """Something the engine asked for. ``done`` is called once, when the last of its changes is answered.

    ``on_refused``: told of each change the kernel refused, with its reason.
    """

    __slots__ = ("_done", "_on_refused", "complete", "failures", "waiting")

    def __init__(
        self,
        done: Callable[[Task], None],
        on_refused: Callable[[Change, str], None] | None = None,
    ) -> None:
        self._done = done
        self._on_refused = on_refused
        self.complete = False
        """All its changes have been queued."""
        self.waiting = 0
        self.failures: list[str] = []

    def fail(self, reason: str) -> None:
        if len(self.failures) < FAILURES_LIMIT:
            self.failures.append(reason)

    def refuse(self, change: Change, reason: str) -> None:
        self.fail(f"{change}: {reason}")
        if self._on_refused is not None:
            self._on_refused(change, reason)

    def finish_if_idle(self) -> None:
        if self.complete and self.waiting == 0:
            self.complete = False
            self._done(self)


class _Item:
    """One change and whose it is."""

    __slots__ = ("change", "task", "tries")

    def __init__(self, task: Task, change: Change) -> None:
        self.task = task
        self.change = change
        self.tries = 0
        task.waiting += 1


class Worker:
    """``log``: lines for people. ``on_lost``: nobody knows what was done, the table must be read again."""

    def __init__(
        self,
        requests: RequestQueue,
        loop: asyncio.AbstractEventLoop,
        log: Callable[[str], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._requests = requests
        self._loop = loop
        self._log = log
        self._on_lost = on_lost
        self.family = 0
        """IPVS's number; 0: there is none, and nothing is sent."""
        self.desired = Desired()
        self.actual: Actual = {}
        self._urgent: deque[_Item] = deque()
        self._ordinary: deque[_Item] = deque()
        self._adopting: list[_Item] = []
        """Services that were there before us, being read."""
        self._chores: deque[Chore] = deque()
        self._sweep: Chore | None = None
        self._paused: tuple[Chore, list[Request]] | None = None
        """The sweep, and what it is to ask next."""
        self._current: Chore | None = None
        self._busy = False
        self._pumping = False
        self._epoch = 0
        """Counts the times IPVS went away: answers from before do not count."""
        self.commands = 0
        """That change the table, sent since the start."""

    @property
    def sweeping(self) -> bool:
        return self._sweep is not None

    # What is to be done ----------------------------------------------------------------------------------

    def add(self, task: Task, changes: Iterable[Change], *, urgent: bool = False) -> None:
        """Queue the changes of ``task``, all of them."""
        queue = self._urgent if urgent else self._ordinary
        queue.extend(_Item(task, change) for change in changes)
        task.complete = True
        self._pump()
        task.finish_if_idle()

    def run(self, chore: Chore, failed: Callable[[str], None]) -> None:
        """Before every change that is waiting."""
        self._chores.append(guarded(chore, failed))
        self._pump()

    def sweep(self, chore: Chore) -> None:
        """When there is nothing else to do; one at a time."""
        assert self._sweep is None, "one sweep at a time"
        self._sweep = guarded(chore, self._log)
        self._paused = (self._sweep, [])
        self._pump()

    def appear(self, family: int) -> None:
        """IPVS is there: with an empty table as far as we know."""
        self.disappear("IPVS went away and came back")
        self.family = family

    def disappear(self, reason: str) -> None:
        """Everything that waits has failed."""
        self.family = 0
        self._epoch += 1
        self._busy = False
        self._current = None
        self._sweep = self._paused = None
        self._chores.clear()
        self.actual = {}
        items = [*self._adopting, *self._urgent, *self._ordinary]
        self._adopting.clear()
        self._urgent.clear()
        self._ordinary.clear()
        for item in items:
            item.task.fail(reason)
            self._settle(item)

    # Working it off --------------------------------------------------------------------------------------

    def _pump(self) -> None:
        if self._pumping:
            return
        self._pumping = True
        while not self._busy and self.family:
            if self._chores:
                self._advance(self._chores.popleft(), None)
            elif self._urgent or self._ordinary:
                self._send()
            elif self._paused is not None:
                (chore, wanted), self._paused = self._paused, None
                self._current, self._busy = chore, True
                if wanted:
                    self._ask(chore, wanted)
                else:
                    self._advance(chore, None)
            else:
                break
        self._pumping = False

    def _advance(self, chore: Chore, outcomes: list[Outcome] | None) -> None:
        self._current, self._busy = chore, True
        try:
            wanted = next(chore) if outcomes is None else chore.send(outcomes)
        except StopIteration:
            self._current, self._busy = None, False
            if chore is self._sweep:
                self._sweep = None
            self._pump()
            return
        if wanted is None:
            epoch = self._epoch
            self._loop.call_soon(self._resume, epoch, chore, [])
        elif chore is self._sweep:
            self._current, self._busy = None, False
            self._paused = (chore, wanted)
            self._pump()
        else:
            self._ask(chore, wanted)

    def _ask(self, chore: Chore, wanted: list[Request]) -> None:
        epoch = self._epoch
        self._requests.submit(wanted, lambda outcomes: self._resume(epoch, chore, outcomes))

    def _resume(self, epoch: int, chore: Chore, outcomes: list[Outcome]) -> None:
        if epoch == self._epoch and chore is self._current:
            self._advance(chore, outcomes)

    def _send(self) -> None:
        sent: list[tuple[_Item, Step]] = []
        settled: list[_Item] = []
        requests: list[Request] = []
        while len(requests) < BATCH and (self._urgent or self._ordinary):
            item = (self._urgent or self._ordinary).popleft()
            wanted = step(self.desired, self.actual, item.change)
            if wanted is None:
                settled.append(item)
                continue
            try:
                requests.append(request_of(self.family, wanted))
            except UNPACKABLE as error:
                item.task.refuse(item.change, str(Unpackable(error)))
                settled.append(item)
                continue
            apply(self.actual, wanted)
            sent.append((item, wanted))
        if requests:
            self._busy = True
            self.commands += len(requests)
            epoch = self._epoch
            self._requests.submit(requests, lambda outcomes: self._answered(epoch, sent, outcomes))
        for item in settled:
            self._settle(item)

    def _answered(self, epoch: int, sent: list[tuple[_Item, Step]], outcomes: list[Outcome]) -> None:
        if epoch != self._epoch:
            # IPVS went away meanwhile.
            for item, _ in sent:
                item.task.fail("IPVS went away")
                self._settle(item)
            return
        self._busy = False
        lost = False
        for (item, wanted), outcome in zip(sent, outcomes, strict=True):
            if outcome.error in NO_VERDICT:
                lost = True
            elif outcome.error:
                self._mend(item, wanted, outcome)
                continue
            self._settle(item)
        if lost:
            self._on_lost()
        self._pump()

    def _settle(self, item: _Item) -> None:
        item.task.waiting -= 1
        item.task.finish_if_idle()

    # Refusals --------------------------------------------------------------------------------------------

    def _mend(self, item: _Item, wanted: Step, outcome: Outcome) -> None:
        verdict = repair(self.actual, wanted, outcome.error)
        item.tries += 1
        if verdict is Repair.REFUSED or (item.tries >= TRIES and verdict is not Repair.FINE):
            item.task.refuse(item.change, outcome.reason)
        elif verdict is Repair.AGAIN:
            self._urgent.appendleft(item)
            return
        elif verdict is Repair.SERVICE_GONE:
            self._restore(item)
        elif verdict is Repair.READ_SERVICE:
            assert isinstance(wanted, PutService)
            self._adopt(item, wanted.entry.key)
            return
        self._settle(item)

    def _restore(self, item: _Item) -> None:
        """A server of a service that somebody removed has changed: the service comes back whole."""
        key = item.change.service
        if key in self.desired.services:
            self._log(f"IPVS: service {key} was removed by somebody else: put back")
            self._queue_service(item, key)

    def _adopt(self, item: _Item, key: ServiceKey) -> None:
        """Somebody made this service before it came into our file: it is ours now, and what it holds
        counts."""
        self._log(f"IPVS: service {key} was there already: taken over")
        self.actual.pop(key, None)
        self._adopting.append(item)
        self._chores.append(self._read_and_queue(item, key))

    def _read_and_queue(self, item: _Item, key: ServiceKey) -> Chore:
        read: Actual = {key: ActualService(unknown_service(key))}
        yield from guarded(read_services(self.family, [key], read, self._log), self._log)
        self.actual[key] = read[key]
        self._queue_service(item, key)
        self._adopting.remove(item)
        self._settle(item)

    def _queue_service(self, item: _Item, key: ServiceKey) -> None:
        if key not in self.desired.services:
            return
        for change in reversed(list(plan_service(self.desired, self.actual, key))):
            again = _Item(item.task, change)
            again.tries = item.tries
            self._urgent.appendleft(again)
