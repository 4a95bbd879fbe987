"""Every instance of the VRRP child behind one ``handle`` and one deadline. Pure.

The driver hands in each event with the time, carries out the actions in order, and sends TimeReached once
:attr:`Engine.deadline_us` has come and the sockets are drained. Construct, tell every link, then the
configuration: start, reload and restart after a crash are one path.
"""

from collections.abc import Mapping
from itertools import repeat
from typing import assert_never

from kad.ipc.reports import VrrpReport
from kad.track.process import ProcessesCounted
from kad.track.script import ScriptEnded
from kad.units import NEVER
from kad_vrrp.core import deletions
from kad_vrrp.core.actions import Action, AddressEntry, Entry, LogLevel, State
from kad_vrrp.core.context import Context, EngineSettings
from kad_vrrp.core.deadlines import Deadlines
from kad_vrrp.core.events import (
    AddressDeleted,
    AdvertDelayed,
    AdvertReceived,
    AdvertsReceived,
    BfdChanged,
    ClockSet,
    ConfigurationChanged,
    Event,
    FileRead,
    LinkChanged,
    LinkRemoved,
    NotifyDone,
    PlanDone,
    RouteDeleted,
    RouteReplaced,
    RoutesDoubted,
    StopRequested,
    TimeReached,
    TransportFailed,
    TransportOpened,
)
from kad_vrrp.core.garp import Pacer
from kad_vrrp.core.hearing import hear, hear_again
from kad_vrrp.core.instance import Instance
from kad_vrrp.core.lifecycle import Lifecycle
from kad_vrrp.core.packet import DropReason, PacketError
from kad_vrrp.core.record import Remembered
from kad_vrrp.core.registry import Registry
from kad_vrrp.core.report import group_report, report_of
from kad_vrrp.core.stall import heard_at
from kad_vrrp.core.statics import STATICS, Statics
from kad_vrrp.core.timers import LONGEST_EARLY_US, LONGEST_PATIENCE_US, reading_patience_us
from kad_vrrp.core.trackers import Followed
from kad_vrrp.core.transports import Slot, Transports

__all__ = ["Engine", "EngineSettings", "Remembered"]


class Engine:
    """See the module.

    ``remembered``: the journal's records by instance name, read at birth; ``objects``: those of
    RememberObject by key.
    """

    def __init__(
        self,
        settings: EngineSettings,
        remembered: Mapping[str, Remembered],
        objects: Mapping[str, bytes] | None = None,
    ) -> None:
        self._context = Context(settings, Pacer(), objects or {})
        self._transports = Transports(self._context)
        self._registry = Registry(self._context, self._transports)
        self._deadlines = Deadlines()
        self._statics = Statics(self._context)
        self._lifecycle = Lifecycle(self._context, self._registry, self._deadlines, self._statics, remembered)
        self._drops: dict[DropReason, int] = {}
        self._named: set[str] = set()
        """Unknown VRIDs that were logged."""

    def handle(self, event: Event, now_us: int) -> list[Action]:
        """Take one event and say what is to be done, in order."""
        if type(event) is AdvertsReceived:
            self._receive_all(event, now_us)
        elif type(event) is TimeReached:
            self._on_time(now_us)
        else:
            self._dispatch(event, now_us)
        if self._context.moved:
            moved, self._context.moved = self._context.moved, []
            for instance in moved:
                self._deadlines.push(instance)
        actions = self._context.actions
        if not actions:
            return []
        self._context.actions = []
        return actions

    @property
    def deadline_us(self) -> int | None:
        """When to be woken if nothing happens before: CLOCK_MONOTONIC microseconds, or None."""
        first_us = min(
            self._deadlines.first_us,
            self._transports.deadline_us,
            self._context.pacer.deadline_us,
            self._lifecycle.deadline_us,
            self._context.trackers.deadline_us,
            self._statics.deadline_us,
        )
        return first_us if first_us < NEVER else None

    @property
    def take_over_us(self) -> int:
        """When a backup gives up on its master, if that is what is due next; else NEVER."""
        first = self._deadlines.first
        if first is not None and first.state is State.BACKUP and first.timer_us == first.deadline_us:
            return first.timer_us
        return NEVER

    @property
    def settled(self) -> bool:
        """Whether the kernel has answered everything: the generation counts as applied."""
        registry = self._registry
        if registry.leaving or registry.dissolved or self._statics.in_flight:
            return False
        return not any(i.holdings.in_flight for i in registry.instances)

    @property
    def patience_us(self) -> int:
        """How long a packet may lie unread, if its time of arrival is told, and nobody be worse off for it.

        0 while any instance is MASTER: a better router must not wait for it to give way. And where there
        is a single one: nothing else is to be read with its packets.
        """
        instances = self._registry.instances
        patience_us = LONGEST_PATIENCE_US if len(instances) > 1 else 0
        for instance in instances:
            if instance.state is State.MASTER:
                return 0
            interval_us = min(instance.config.advert_int_us, instance.master_adver_us)
            patience_us = min(patience_us, reading_patience_us(interval_us, instance.intervals.skew_us))
        return patience_us

    def is_master(self, name: str) -> bool:
        """Whether the instance of that name is; False too when there is none."""
        return any(i.state is State.MASTER for i in self._registry.instances if i.config.name == name)

    @property
    def roster(self) -> list[Instance]:
        """The instances, for reports in pieces; another list once they are others."""
        return self._registry.instances

    def report(self, *, instances: bool = True) -> VrrpReport:
        """The whole present state, for status. Without ``instances``: all but them."""
        trackers = self._context.trackers
        return VrrpReport(
            generation=self._context.generation,
            statics=self._statics.report(),
            instances=tuple(map(report_of, self._registry.instances)) if instances else (),
            drops={reason.value: count for reason, count in self._drops.items()},
            groups=tuple(map(group_report, self._registry.groups.values())),
            scripts=trackers.script_reports(),
            files=trackers.file_reports(),
            processes=trackers.process_reports(),
            bfds=trackers.bfd_reports(),
        )

    def _dispatch(self, event: Event, now_us: int) -> None:
        match event:
            case AdvertsReceived():
                self._receive_all(event, now_us)
            case AdvertReceived():
                self._receive(event, now_us)
            case AdvertDelayed():
                self._receive_delayed(event, now_us)
            case TimeReached():
                self._on_time(now_us)
            case BfdChanged() | ScriptEnded() | FileRead() | ProcessesCounted():
                self._on_turned(self._context.trackers.handle(event, now_us), now_us)
            case LinkChanged():
                former = self._context.links.get(event.name)
                self._context.links[event.name] = event
                self._lifecycle.on_link(event.name, now_us)
                self._statics.on_link(former, event)
                if _may_drop_routes(former, event):
                    self._doubt_routes(now_us, heard=True)
            case LinkRemoved():
                self._context.links.pop(event.name, None)
                self._lifecycle.on_link(event.name, now_us)
            case AddressDeleted():
                self._on_address_deleted(event, now_us)
            case RouteDeleted():
                self._on_route_deleted(event, now_us)
            case RouteReplaced():
                self._on_route_replaced(event, now_us)
            case RoutesDoubted():
                self._doubt_routes(now_us, heard=True)
            case TransportOpened():
                self._on_transport(self._transports.opened(event.transport), now_us)
            case TransportFailed():
                slot = self._transports.failed(event.transport, event.reason, now_us)
                self._on_transport(slot, now_us)
            case PlanDone():
                self._on_plan_done(event, now_us)
            case NotifyDone():
                self._on_notify_done(event, now_us)
            case ClockSet():
                self._context.realtime_ahead_us = event.realtime_ahead_us
            case ConfigurationChanged():
                self._lifecycle.configure(event, now_us)
            case StopRequested():
                self._lifecycle.stop(now_us)
            case _:
                assert_never(event)

    # Packets and time ----------------------------------------------------------------------------------

    def _receive_all(self, event: AdvertsReceived, now_us: int) -> None:
        """Nearly all are what their master said last, word for word: then only time has passed."""
        vrid_at, sole = self._registry.sole_candidates(event.transport)
        ways = event.ways or repeat(None, len(event.data))
        for index, (data, way, arrived_us) in enumerate(zip(event.data, ways, event.arrived_us, strict=True)):
            at_us = arrived_us if arrived_us > now_us else now_us
            instance = sole.get(data[vrid_at]) if len(data) > vrid_at else None
            if instance is None or not hear_again(instance, data, way, at_us):
                self._receive(event.packet(index), at_us)

    def _receive(self, event: AdvertReceived, now_us: int) -> None:
        """The one place where a packet's faults end: counted, said once, and without effect."""
        instance = None
        try:
            instance = self._registry.addressee(event)
            if hear(instance, event, now_us):
                self._deadlines.push(instance)
        except PacketError as error:
            self._count_drop(instance, error, event.source)

    def _receive_delayed(self, event: AdvertDelayed, now_us: int) -> None:
        advert = event.advert
        instance = None
        try:
            instance = self._registry.addressee(advert)
            heard_us = heard_at(instance, event.age_us, now_us)
        except PacketError as error:
            self._count_drop(instance, error, advert.source)
        else:
            self._receive(advert, heard_us)

    def _count_drop(self, instance: Instance | None, error: PacketError, source: str) -> None:
        if instance is not None:
            instance.stats.count_drop(error.reason)
            if error.reason is not DropReason.NOT_LISTENING:
                instance.complain(error.reason.value, f"dropped packet from {source}: {error.detail}")
            return
        self._drops[error.reason] = self._drops.get(error.reason, 0) + 1
        if error.reason is DropReason.UNKNOWN_VRID and self._context.names_unknown_vrids:
            self._name_unknown(error.detail, source)

    def _name_unknown(self, vrid: str, source: str) -> None:
        """Each once, of the 256 there can be: keepalived logs every packet."""
        if vrid not in self._named:
            self._named.add(vrid)
            self._context.log(LogLevel.INFO, f"unknown {vrid} received from {source}")

    def _on_time(self, now_us: int) -> None:
        due = self._deadlines.take(now_us + LONGEST_EARLY_US)
        for instance in due:
            instance.on_time(now_us)
        for instance in due:
            self._deadlines.push(instance)
        self._transports.retry(now_us)
        if self._context.pacer.deadline_us <= now_us:
            self._context.send_paced(now_us)
        self._on_turned(self._context.trackers.on_time(now_us), now_us)
        self._statics.on_time(now_us)
        self._lifecycle.on_time(now_us)

    # News and answers ----------------------------------------------------------------------------------

    def _on_turned(self, turned: list[Followed], now_us: int) -> None:
        for what in turned:
            for instance in self._registry.following(what):
                self._lifecycle.touch(instance, now_us)

    def _on_transport(self, slot: Slot | None, now_us: int) -> None:
        if slot is None:
            return
        for instance in self._registry.on_slot(slot):
            self._lifecycle.touch(instance, now_us)
        self._lifecycle.withdraw_when_ready(now_us)

    def _on_address_deleted(self, event: AddressDeleted, now_us: int) -> None:
        self._statics.on_address_deleted(event, now_us)
        for instance in self._registry.with_address(event.address):
            deletions.on_address_deleted(instance, event, now_us)
            self._deadlines.push(instance)

    def _on_route_deleted(self, event: RouteDeleted, now_us: int) -> None:
        self._statics.on_route_deleted(event, now_us)
        for instance in self._registry.with_routes:
            deletions.on_route_deleted(instance, event, now_us)
            self._deadlines.push(instance)

    def _on_route_replaced(self, event: RouteReplaced, now_us: int) -> None:
        self._statics.on_route_replaced(event, now_us)
        for instance in self._registry.with_routes:
            deletions.on_route_replaced(instance, event, now_us)
            self._deadlines.push(instance)

    def _doubt_routes(self, now_us: int, *, heard: bool) -> None:
        self._statics.doubt_routes(now_us, heard=heard)
        for instance in self._registry.with_routes:
            deletions.doubt_routes(instance, now_us, heard=heard)
            self._deadlines.push(instance)

    def _on_plan_done(self, event: PlanDone, now_us: int) -> None:
        instance = self._registry.awaiting_plan(event.instance, event.serial)
        if instance is not None:
            removed = instance.on_plan_done(event, now_us)
            self._deadlines.push(instance)
            if removed:
                self._put_back_shared(instance, removed, now_us)
                self._doubt_routes(now_us, heard=False)
        elif event.instance == STATICS and self._statics.on_plan_done(event, now_us):
            self._doubt_routes(now_us, heard=False)
        self._lifecycle.finish_endings(now_us)

    def _put_back_shared(self, former: Instance, removed: tuple[Entry, ...], now_us: int) -> None:
        """What one took away may be another's, by a reload, or of both: a master has its addresses.

        keepalived leaves a master without them.
        """
        addresses = {entry.address for entry in removed if isinstance(entry, AddressEntry)}
        for address in sorted(addresses):
            for instance in self._registry.with_address(address):
                if instance.state is State.MASTER and instance is not former:
                    instance.holdings.doubt()
                    instance.reconcile(now_us)
                    self._deadlines.push(instance)

    def _on_notify_done(self, event: NotifyDone, now_us: int) -> None:
        instance = self._registry.owing(event.instance, event.serial)
        if instance is not None:
            instance.on_notify_done(event.serial)
        self._registry.on_group_notified(event.instance, event.serial)
        self._lifecycle.finish_endings(now_us)


def _may_drop_routes(former: LinkChanged | None, link: LinkChanged) -> bool:
    """The kernel drops routes of a link that goes down or loses an address, and says nothing of IPv4 ones."""
    if not link.up:
        return False
    return former is None or not former.up or not set(former.addresses) <= set(link.addresses)
