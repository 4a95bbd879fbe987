"""static_ipaddress, static_routes, static_rules: there while the daemon runs, put back if others delete them.

keepalived puts them back at once and every time. Against a writer that keeps fighting that is an endless
loop of two programs: here the time between two attempts for one of them doubles as long as it goes on. Pure.
"""

from __future__ import annotations

from msgspec import Struct

from kad.ipc.reports import ObjectReport
from kad.units import NEVER
from kad_vrrp.core.actions import AddressEntry, ChangeAddresses, Entry, LogLevel
from kad_vrrp.core.context import Context
from kad_vrrp.core.descriptions import describe
from kad_vrrp.core.events import AddressDeleted, LinkChanged, PlanDone, RouteDeleted, RouteReplaced
from kad_vrrp.core.holdings import Holdings, is_tracked

STATICS = ""
"""Stands where plans of instances have a name."""
KEY = "statics"
"""Of their record in the journal."""
RECORD_VERSION = 1
RECORD_LIMIT = 1200
"""Bytes of bits. What does not fit is said in fewer: everything is ours."""

RETRY_US = 10_000_000
"""How long after a refusal the kernel is asked again."""
FIRST_GAP_US = 1_000_000
LONGEST_GAP_US = 30_000_000
CALM_US = 60_000_000
"""After so long without a deletion the next one is put back at once again."""


class StaticsRecord(Struct, frozen=True, array_like=True):
    """``ours`` None: all of them."""

    version: int
    entries_digest: bytes
    ours: bytes | None
    foreign: bytes


class Fight(Struct, frozen=True):
    """When one of them was last deleted, and how long its restoration then waited."""

    last_us: int
    gap_us: int


class Statics:
    """See the module. The engine calls, and arms itself from :attr:`deadline_us`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._holdings = Holdings(())
        self._waiting: dict[Entry, int] = {}
        """Deleted by others: when each is put back."""
        self._fights: dict[Entry, Fight] = {}
        self._told: set[tuple[Entry, str]] = set()
        """Refusals that were logged."""
        self._retry_us = NEVER
        self._ending = False
        self.deadline_us = NEVER
        """The earliest of what waits."""

    def _arm(self) -> None:
        self.deadline_us = min(self._retry_us, min(self._waiting.values(), default=NEVER))

    @property
    def in_flight(self) -> bool:
        return self._holdings.in_flight

    def report(self) -> tuple[ObjectReport, ...]:
        present = set(self._holdings.present)
        return tuple(ObjectReport(_text(entry), entry in present) for entry in self._holdings.entries)

    # Configurations ------------------------------------------------------------------------------------

    def start(self, entries: tuple[Entry, ...], former: tuple[Entry, ...]) -> None:
        """The first configuration. ``former``: that of the generation before, if a reload was going on."""
        self._holdings.configure(entries, holding=True)
        record = self._context.records.recall(KEY, StaticsRecord)
        if record is not None and record.version == RECORD_VERSION:
            self._holdings.restore(record.entries_digest, record.ours, record.foreign, former)
        self._reconcile()

    def configure(self, entries: tuple[Entry, ...]) -> None:
        """A reload. What is not configured any more goes now; :meth:`complete` adds what is new."""
        if not self._holdings.configure(entries, holding=True):
            return
        known = set(entries)
        self._waiting = {e: at_us for e, at_us in self._waiting.items() if e in known}
        self._fights = {e: fight for e, fight in self._fights.items() if e in known}
        self._told = {(e, reason) for e, reason in self._told if e in known}
        self._holdings.forgive()
        self._arm()
        self._reconcile(removals_only=True)

    def complete(self) -> None:
        """Every instance has given up what it no longer has."""
        self._reconcile()

    def stop(self) -> None:
        """Take everything away that is ours."""
        self._ending = True
        self._waiting.clear()
        self._retry_us = NEVER
        self._arm()
        self._holdings.forgive()
        self._reconcile()

    # The kernel ----------------------------------------------------------------------------------------

    def _reconcile(self, *, removals_only: bool = False) -> None:
        """Bring the kernel one plan nearer to the configuration."""
        entries = self._holdings.entries
        desired = () if self._ending else tuple(entry for entry in entries if entry not in self._waiting)
        plan = self._holdings.next_plan(desired, removals_only=removals_only)
        if plan is not None:
            change = ChangeAddresses(STATICS, self._context.next_serial(), plan.remove, plan.add)
            self._holdings.begin(change)
            self._remember()
            self._context.emit(change)
        elif not self._holdings.in_flight:
            self._holdings.drop_unconfigured()
            self._remember()

    def _remember(self) -> None:
        if not self._holdings.entries and not self._holdings.held:
            self._context.records.forget(KEY)
            return
        named, ours, foreign = self._holdings.recorded()
        record = StaticsRecord(RECORD_VERSION, named, ours, foreign)
        if len(ours) + len(foreign) > RECORD_LIMIT:
            record = StaticsRecord(RECORD_VERSION, named, None, b"")
        self._context.records.remember(KEY, record)

    def on_plan_done(self, done: PlanDone, now_us: int) -> bool:
        """True: addresses were removed, and routes may have gone with them."""
        outcome = self._holdings.finish(done)
        if outcome is None:
            return False
        refused = [failure for failure in outcome.refused if failure.adding]
        for failure in outcome.refused:
            if failure.adding:
                self._holdings.give_up(failure.entry)
                self._retry_us = now_us + RETRY_US
                self._arm()
            what = (failure.entry, failure.reason)
            if what not in self._told:
                self._told.add(what)
                verb = "add" if failure.adding else "remove"
                text = f"cannot {verb} static {_text(failure.entry)}: {failure.reason}"
                self._context.log(LogLevel.ERROR, text)
        self._told = {(e, reason) for e, reason in self._told if e not in outcome.added}
        if not refused and any(isinstance(entry, AddressEntry) for entry in outcome.added):
            # A route may have been refused for want of it.
            self._holdings.forgive()
        self._reconcile()
        return any(isinstance(entry, AddressEntry) for entry in outcome.removed)

    def on_time(self, now_us: int) -> None:
        """Whatever is due."""
        if self.deadline_us > now_us:
            return
        self._waiting = {e: at_us for e, at_us in self._waiting.items() if at_us > now_us}
        if self._retry_us <= now_us:
            self._retry_us = NEVER
            self._holdings.forgive()
        self._arm()
        self._reconcile()

    # News ----------------------------------------------------------------------------------------------

    def on_link(self, former: LinkChanged | None, link: LinkChanged) -> None:
        """A link that comes (back) may have lost everything; the kernel does not say so of IPv4 routes."""
        if not self._holdings.entries or self._ending or not link.up:
            return
        if former is None or not former.up or former.index != link.index:
            self._holdings.doubt()
            self._holdings.forgive()
            self._reconcile()

    def doubt_routes(self, now_us: int, *, heard: bool) -> None:
        """Routes may have gone without a word: set them once more, when all that came with it is known."""
        if self._holdings.entries and not self._ending:
            self._holdings.doubt_routes(heard=heard)
            self._retry_us = now_us
            self._arm()

    def on_address_deleted(self, event: AddressDeleted, now_us: int) -> None:
        entry = self._holdings.find(event.interface, event.address, event.prefix_length)
        if entry is not None:
            self._holdings.lose(entry)
            # Routes that needed it have gone with it.
            self._holdings.doubt_routes(heard=True)
            if not entry.no_track:
                self._put_back(entry, event.culprit, now_us)

    def on_route_deleted(self, event: RouteDeleted, now_us: int) -> None:
        if event.entry in self._holdings.held:
            self._holdings.lose(event.entry)
            if is_tracked(event.entry):
                self._put_back(event.entry, event.culprit, now_us)

    def on_route_replaced(self, event: RouteReplaced, now_us: int) -> None:
        """Ours may be there still, beside the other: it is set once more."""
        if event.entry in self._holdings.held:
            self._holdings.lose(event.entry)
            self._put_back(event.entry, event.culprit, now_us, "replaced")

    def _put_back(self, entry: Entry, culprit: str, now_us: int, how: str = "deleted") -> None:
        """At once, or later if this goes on. What went with its link comes back with it."""
        if self._ending or any(not self._is_up(name) for name in _interfaces(entry)):
            return
        fight = self._fights.get(entry)
        gap_us = 0
        if fight is not None and now_us - fight.last_us < CALM_US:
            gap_us = min(max(FIRST_GAP_US, 2 * fight.gap_us), LONGEST_GAP_US)
        self._fights[entry] = Fight(now_us, gap_us)
        self._waiting[entry] = now_us + gap_us
        self._arm()
        text = f"static {_text(entry)} was {how} by {culprit or 'another'}"
        if gap_us:
            text = f"{text} again; putting it back in {gap_us // 1_000_000} s"
            self._context.log(LogLevel.WARNING, text)
        else:
            self._context.log(LogLevel.INFO, f"{text}; putting it back")

    def _is_up(self, name: str) -> bool:
        link = self._context.links.get(name)
        return link is not None and link.up


def _interfaces(entry: Entry) -> tuple[str, ...]:
    return (entry.interface,) if isinstance(entry, AddressEntry) else entry.interfaces


def _text(entry: Entry) -> str:
    if isinstance(entry, AddressEntry):
        return f"address {entry.address}/{entry.prefix_length} dev {entry.interface}"
    return describe(entry)
