"""Every virtual server of the check child behind one ``handle`` and one deadline. Pure.

The driver hands in each event with the time, carries out the actions in order, and sends TimeReached once
:attr:`Engine.deadline_us` has come. Start, reload and restart after a crash are one path: construct it with
what the journal holds, then hand in the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import assert_never

from kad.config.model.check import BfdCheck, Checker, FileCheck, HttpGet
from kad.ipc.reports import CheckReport
from kad.units import NEVER
from kad_check.core.actions import Action, LogLevel, StartCheck
from kad_check.core.checker import CheckerState, Told
from kad_check.core.context import Context, EngineSettings
from kad_check.core.events import (
    AddressesChanged,
    CheckDone,
    ConfigurationChanged,
    DestinationRefused,
    Event,
    FileChanged,
    MarkingDone,
    NotifyDone,
    ServicesDone,
    SessionChanged,
    StopRequested,
    TimeReached,
    Verdict,
)
from kad_check.core.lifecycle import Lifecycle
from kad_check.core.registry import Registry
from kad_check.core.report import report_of
from kad_check.core.stats import Stats
from kad_check.core.texts import attempt_line, url_line

__all__ = ["Engine", "EngineSettings"]

ADDRESSES_PAUSE_US = 50_000
"""Until a check that may be suspended is thought of again, while nobody has said which addresses are here."""
REFUSED_PAUSE_US = 10_000_000
"""Until the kernel is asked again for what it has refused."""
LATE_US = 1_000_000
"""Checks that start so much too late are worth a word."""


class Engine:
    """See the module. ``remembered``: the journal's records by key, read at birth."""

    def __init__(self, settings: EngineSettings, remembered: Mapping[str, bytes]) -> None:
        self._context = Context(settings)
        self._registry = Registry(self._context)
        self._lifecycle = Lifecycle(self._registry, remembered)
        self._told_us = 0
        self._ask_again_us = NEVER
        """For what the kernel has refused."""
        self._is_late = False
        self.stats = Stats()

    def handle(self, event: Event, now_us: int) -> list[Action]:
        """Take one event and say what is to be done, in order."""
        self._told_us = now_us
        if type(event) is CheckDone:
            self._check_done(event, now_us)
        elif type(event) is TimeReached:
            self._on_time(now_us)
        else:
            self._dispatch(event, now_us)
        actions = self._context.actions
        if actions:
            self._context.actions = []
        return actions

    @property
    def deadline_us(self) -> int | None:
        """When to be woken if nothing happens before: CLOCK_MONOTONIC microseconds, or None."""
        lifecycle = self._lifecycle
        if lifecycle.stopping:
            first_us = lifecycle.deadline_us
        else:
            first_us = min(self._registry.timetable.deadline_us, self._ask_again_us)
        if first_us >= NEVER:
            return None
        # With more checks than a processor carries some are overdue for good. That is not standing still, for
        # which a core is taken whose deadline has passed already: every TimeReached starts some of them.
        return max(first_us, self._told_us + 1)

    @property
    def settled(self) -> bool:
        """Whether the kernel has answered everything: the generation counts as applied."""
        return self._lifecycle.settled

    @property
    def pool_names(self) -> tuple[str, ...]:
        """The engine's own names of its virtual servers, in the order of :meth:`report`."""
        return tuple(self._registry.pools)

    def report(self) -> CheckReport:
        """The whole present state, for status."""
        return CheckReport(
            generation=self._context.generation,
            virtual_servers=tuple(map(report_of, self._registry.pools.values())),
            counters=self.stats.as_dict(),
        )

    def _dispatch(self, event: Event, now_us: int) -> None:
        match event:
            case CheckDone():
                self._check_done(event, now_us)
            case TimeReached():
                self._on_time(now_us)
            case FileChanged():
                self._context.files[event.name] = event.value
                self._on_news(FileCheck, event.name, now_us)
            case SessionChanged():
                self._context.sessions[event.name] = event.up
                self._on_news(BfdCheck, event.name, now_us)
            case AddressesChanged():
                self._on_addresses(event)
            case ServicesDone():
                self._on_services(event)
            case MarkingDone():
                self._lifecycle.marking_done(event)
            case DestinationRefused():
                self._on_refused(event, now_us)
            case NotifyDone():
                self._on_notify_done(event)
            case ConfigurationChanged():
                if not self._lifecycle.stopping:
                    self._lifecycle.configure(event, now_us)
            case StopRequested():
                self._lifecycle.stop(now_us)
            case _:
                assert_never(event)

    # Checks ----------------------------------------------------------------------------------------------

    def _on_time(self, now_us: int) -> None:
        if self._lifecycle.stopping:
            self._lifecycle.on_time(now_us)
            return
        if self._ask_again_us <= now_us:
            self._ask_again_us = NEVER
            for pool in self._registry.pools.values():
                pool.ask_again()
        timetable = self._registry.timetable
        taken = timetable.take(now_us)
        assert taken or timetable.deadline_us > now_us, "what is due is taken"
        self._judge_lateness(timetable.late_us)
        for checker in taken:
            pool = checker.server.pool
            if pool.suspended or pool.awaits_addresses:
                checker.postpone(now_us, ADDRESSES_PAUSE_US if pool.awaits_addresses else None)
                timetable.put(checker)
            else:
                checker.started_us = now_us
                self.stats.started += 1
                self._context.emit(StartCheck(checker.number, checker.step))

    def _judge_lateness(self, late_us: int) -> None:
        """Say once that there is more to do than can be done."""
        if late_us < LATE_US // 2:
            self._is_late = False
        elif late_us >= LATE_US and not self._is_late:
            self._is_late = True
            self._context.log(
                f"checks start {late_us / 1e6:.1f} s late: there are more than a processor carries, or this"
                " machine stood still",
                LogLevel.WARNING,
            )

    def _check_done(self, event: CheckDone, now_us: int) -> None:
        checker = self._registry.checkers.get(event.number)
        if checker is None or checker.due_us != NEVER or self._lifecycle.stopping:
            return  # it was removed meanwhile
        if event.verdict is Verdict.SUCCESS:
            self._succeeded(checker, event, now_us)
        elif event.verdict is Verdict.FAILURE:
            self._failed(checker, event, now_us)
        else:
            self._not_run(checker, event, now_us)
        self._registry.timetable.put(checker)

    def _succeeded(self, checker: CheckerState, event: CheckDone, now_us: int) -> None:
        self.stats.successes += 1
        server = checker.server
        tried = checker.retries
        if isinstance(checker.config, HttpGet) and not checker.is_up:
            self._context.log(url_line(checker.config.urls[checker.step], server.name))
        told = checker.succeed(now_us)
        if event.weight != checker.wish:
            # With misc_dynamic a status of 0 is the configured weight.
            checker.wish = event.weight
            server.pool.weigh(server, now_us)
        if told is not Told.NOTHING:
            self._tell(checker, told, now_us)
        elif tried != checker.retries:
            server.remember()
        if server.refused:
            server.pool.place((server,))

    def _failed(self, checker: CheckerState, event: CheckDone, now_us: int) -> None:
        self.stats.failures += 1
        server = checker.server
        tried = checker.retries
        told = checker.fail(now_us, event.detail)
        schedule = checker.schedule
        if told is not Told.NOTHING:
            self._tell(checker, told, now_us, tried)
            server.weigh()  # taken out with the weight it had
            return
        if server.refused:
            server.pool.place((server,))
        if tried != checker.retries:
            server.remember()
        if checker.is_up and schedule is not None and schedule.log_all_failures:
            self._log_attempt(checker, event.detail)

    def _log_attempt(self, checker: CheckerState, detail: str) -> None:
        server = checker.server
        names = checker.config, checker.kind, server.name, server.pool.title
        self._context.log(attempt_line(*names, detail=detail, failures=checker.retries))

    def _not_run(self, checker: CheckerState, event: CheckDone, now_us: int) -> None:
        """As keepalived: rescheduled, and the server stays what it is."""
        self.stats.not_run += 1
        if checker.detail != event.detail:
            checker.detail = event.detail
            name = checker.server.name
            self._context.log(f"{checker.kind} of {name} could not be run: {event.detail}", LogLevel.WARNING)
        checker.postpone(now_us)

    def _tell(self, checker: CheckerState, told: Told, now_us: int, tried: int = 0) -> None:
        pool = checker.server.pool
        was_alive = checker.server.alive
        pool.tell(checker, told, now_us, tried)
        if checker.server.alive != was_alive:
            self.stats.transitions += 1

    # News ------------------------------------------------------------------------------------------------

    def _on_news(self, kind: type[Checker], name: str, now_us: int) -> None:
        for checker in list(self._registry.following(kind, name)):
            up = self._registry.news_of(checker)
            weigh = partial(checker.server.pool.weigh, checker.server, now_us)
            # What is forbidden is taken out with the weight it had.
            if up is not False:
                weigh()
            if up is not None:
                checker.runs += 1
                checker.failures += not up
                self._tell(checker, Told.UP if up else Told.DOWN, now_us)
            if up is False:
                weigh()

    def _on_addresses(self, event: AddressesChanged) -> None:
        self._context.addresses = event.addresses
        for pool in self._registry.pools.values():
            was_suspended = pool.suspended
            pool.look_at_addresses()
            if pool.suspended != was_suspended:
                what = "Suspending" if pool.suspended else "Activating"
                self._context.log(f"{what} healthcheckers for VS {pool.title}")

    def _on_services(self, event: ServicesDone) -> None:
        self._lifecycle.services_done(event)

    def _on_refused(self, event: DestinationRefused, now_us: int) -> None:
        self.stats.refused += 1
        pool = self._registry.pools.get(event.pool)
        if pool is not None:
            pool.refused((event.address, event.port), event.reason, is_told=event.is_told)
            self._ask_again_us = min(self._ask_again_us, now_us + REFUSED_PAUSE_US)

    def _on_notify_done(self, event: NotifyDone) -> None:
        server = self._registry.owner_of(event.owner)
        if server is not None and server.notices.done(event.serial):
            server.remember()
