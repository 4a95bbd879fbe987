"""One virtual router: its state machine (RFC 9568 §6.4, with keepalived's FAULT). Pure.

State moves only in the ``enter_*`` methods. Each move is carried out in one order: the journal record of the
new intention, the news of the change, the adverts, the addresses; and once the kernel has answered, the
announcements and the notifications. Whatever is killed in between, the record says what is still to be done.
"""

from __future__ import annotations

from kad.config.model.vrrp import OWNER, Tracking, VrrpInstance, WantedState
from kad.notify.policy import NotifyState
from kad.units import NEVER, in_seconds
from kad_vrrp.core import deletions, participation
from kad_vrrp.core import record as records
from kad_vrrp.core.actions import (
    AddressEntry,
    ChangeAddresses,
    Entry,
    LogLevel,
    PriorityChanged,
    Remember,
    SendAdvert,
    State,
    StateChanged,
)
from kad_vrrp.core.advertiser import Transmitter, advertised_addresses, receive_rules
from kad_vrrp.core.announcer import Announcer
from kad_vrrp.core.authentication import authenticator_for
from kad_vrrp.core.conditions import Conditions, interfaces_of, is_up
from kad_vrrp.core.context import Context, Ending
from kad_vrrp.core.descriptions import describe
from kad_vrrp.core.election import OwnerConflict
from kad_vrrp.core.events import PlanDone
from kad_vrrp.core.familiar import Familiar
from kad_vrrp.core.holdings import DeletionGuard, Holdings
from kad_vrrp.core.memory import record_of
from kad_vrrp.core.notices import Notices, notify_state
from kad_vrrp.core.priority import effective_priority
from kad_vrrp.core.resources import entries_of, entry_of
from kad_vrrp.core.stall import gives_up_mastery, listens_again, promised
from kad_vrrp.core.stats import Statistics
from kad_vrrp.core.sync_group import SyncGroup
from kad_vrrp.core.timers import early_window_us, intervals
from kad_vrrp.core.transports import Slot


class Instance:
    """See the module. The engine calls, and arms the timer from :attr:`deadline_us` after each call."""

    def __init__(self, config: VrrpInstance, context: Context, now_us: int) -> None:
        self.config = config
        self.context = context
        self.state = State.INIT
        self.since_us = now_us
        self.priority = effective_priority(config.priority)
        self.stats = Statistics()
        self.ending: Ending | None = None
        self.fault = ""
        """What is in its own way."""
        self.obstacle = ""
        """What is in its way, be it another member of its group."""
        self.running = False
        """Timers count: nothing is in the way and the sockets are open."""
        self.timer_us = NEVER
        """MASTER: the next advert. BACKUP: the master is taken for dead. Absolute."""
        self.side_us = NEVER
        """The earliest of everything else that waits."""
        self.queued_us = NEVER
        """The engine's own: the entry it has in its queue of deadlines."""
        self.second_wait_us = NEVER
        """The timer of a backup that listens once more after a stall."""
        self.expiry_reason = ""
        self.master_address = ""
        self.master_priority = 0
        self.master_adver_us = config.advert_int_us
        self.preempt_at_us = 0
        self.last_reaction_us = -NEVER
        self.last_lower_us = -NEVER
        self.reason = ""
        self.complaints: set[str] = set()
        self.familiar: Familiar | None = None
        """The current master's unchanged packet, by which it is recognised without parsing."""
        self.conflict = OwnerConflict()
        self.announcer = Announcer(config.name, context)
        self.holdings = Holdings(entries_of(config))
        self.holdings.assume_all()
        self.notices = Notices()
        self.tracking = config.tracking
        """What it follows, for its sync group too."""
        self.weight = 0
        """What that adds to the priority."""
        self.awaiting = False
        """Something it follows has not answered yet, and it never took part before."""
        self.group: SyncGroup | None = None
        self.ready = False
        """Its time to be MASTER has come; it waits for the others of its group."""
        self.dethroned = False
        """A former life was on its way from MASTER to BACKUP, with the group."""
        self.transmitter = Transmitter(config, self.stats, now_us)
        self.deaf_until_us = context.deaf_until_us
        self.successor: Instance | None = None
        """On its way out after a reload: the one that has its name, and its journal record, from now on."""
        self.predecessor: Instance | None = None
        """One on its way out whose name this one has: its notifications come first."""
        self.recalled = False
        """A former life's record was taken over."""
        self.took_part = False
        """It has been past INIT, in this life or a former one."""
        self.resuming = False
        self.conditions = Conditions(is_up(config, context.links))
        self._last_record = b""
        self._deferred: ChangeAddresses | None = None
        self.guard = DeletionGuard()
        self.has_news = False
        """A reload changed what its adverts say."""
        self.derive()

    def derive(self) -> None:
        """Everything that follows from the configuration alone."""
        config = self.config
        self.rules = receive_rules(config)
        sender = self.transmitter
        sender.authenticator = authenticator_for(config, sender.authenticator, self.context, self.complain)
        self.own_addresses = frozenset(advertised_addresses(config))
        self.holdings.vital = frozenset(entry_of(each, config.interface) for each in config.virtual_addresses)
        self.follow(self.tracking)
        self.early_us = early_window_us(config.advert_int_us)
        self.derive_intervals()

    def follow(self, tracking: Tracking) -> None:
        """What it follows has changed, by its own configuration or its sync group's."""
        self.tracking = tracking
        self.interfaces = interfaces_of(self.config) | {item.name for item in tracking.interfaces}

    def derive_intervals(self) -> None:
        """The priority, or the master's interval, may have changed."""
        config = self.config
        # keepalived: an owner that stepped down to 254 still waits like an owner.
        priority = OWNER if config.is_owner else self.priority
        self.intervals = intervals(
            config.version, priority, config.advert_int_us, self.master_adver_us, config.down_timer_adverts
        )
        self.familiar = None

    # Deadlines -----------------------------------------------------------------------------------------

    @property
    def deadline_us(self) -> int:
        return self.timer_us if self.timer_us < self.side_us else self.side_us

    def arm(self) -> None:
        """Recompute what waits beside the protocol's own timer. On its way out nothing does."""
        self.side_us = (
            NEVER
            if self.ending is not None
            else min(
                self.announcer.deadline_us,
                self.conditions.deadline_us,
                self.guard.deadline_us,
            )
        )

    def on_time(self, now_us: int) -> None:
        """Carry out everything that is due. An advert may leave a little early, being awake anyway."""
        if self.state is State.MASTER:
            if self.timer_us - self.early_us <= now_us:
                self._advertise(now_us)
        elif self.timer_us <= now_us and not listens_again(self, now_us):
            self.claim(self.expiry_reason, now_us)
        if self.side_us <= now_us:
            self._on_side_timers(now_us)

    def _on_side_timers(self, now_us: int) -> None:
        deletions.on_time(self, now_us)
        self.check(now_us)
        if self.state is State.MASTER:
            self.announcer.on_time(self.config, self.holdings.addresses, now_us)
        self.arm()

    # Conditions ----------------------------------------------------------------------------------------

    def bind(self, slot: Slot | None, source: str) -> None:
        """The engine found other sockets or another source address for it."""
        self.familiar = None
        moved = slot is not self.transmitter.slot
        if moved:
            self.ready &= not self.running
            self.running = False
            self.timer_us = NEVER
            self.resuming = self.state is State.MASTER
        self.transmitter.slot = slot
        self.transmitter.source = source
        if source or moved:
            # Else the adverts of the lost source stay: a master has to say farewell with one.
            self.transmitter.rebuild(self.config)

    def check(self, now_us: int) -> None:
        """Compare the present conditions with the state, and move if they do not fit."""
        participation.check(self, now_us)

    def claim(self, reason: str, now_us: int) -> None:
        """Become MASTER, or wait once more for the others of the group."""
        if self.group is None or self.group.claim(self):
            self.enter_master(reason, now_us)
        else:
            self.wait_for_master(self.intervals.master_down_us, reason, now_us)

    @property
    def wants_mastery(self) -> bool:
        """It may be MASTER without having listened first."""
        wants = self.config.is_owner and self.config.wanted_state is WantedState.MASTER
        return wants and (self.group is None or self.group.all_owners)

    def wait_for_master(self, wait_us: int, reason: str, now_us: int) -> None:
        """BACKUP: when and why this instance takes over if nothing more is heard."""
        self.timer_us = now_us + wait_us
        self.expiry_reason = reason

    # State moves ---------------------------------------------------------------------------------------

    def enter_master(self, reason: str, now_us: int) -> None:
        """RFC 9568 §6.4.1 (100) and §6.4.2 (355)."""
        config = self.config
        if config.is_owner and self.priority != OWNER:
            self.log(LogLevel.INFO, f"restoring our priority to {OWNER}: the other address owner is gone")
            self.priority = OWNER
        self.master_adver_us = config.advert_int_us
        self.derive_intervals()
        self.stats.become_master += 1
        self.timer_us = now_us + config.advert_int_us
        self.announcer.owe(now_us)
        self.holdings.doubt_foreign()
        self._move(State.MASTER, reason, now_us, self.transmitter.send(self.priority, now_us))

    def enter_backup(self, reason: str, now_us: int, wait_us: int, *, farewell: bool = False) -> None:
        """``wait_us``: how long to wait for a master."""
        adverts = self._leave_master(now_us, farewell=farewell)
        self.preempt_at_us = 0
        self.ready = self.dethroned = False
        since_us = max(now_us, self.deaf_until_us)
        self.wait_for_master(wait_us, f"no advertisement for {in_seconds(wait_us)}", since_us)
        self._move(State.BACKUP, reason, now_us, adverts)

    def yield_to_master(self, reason: str, now_us: int) -> None:
        """RFC 9568 §6.4.3 (750): another master takes precedence."""
        self.enter_backup(reason, now_us, self.intervals.master_down_us)
        self.expiry_reason = f"nothing more heard from {self.master_address}"

    def enter_fault(self, reason: str, now_us: int) -> None:
        """It cannot take part."""
        adverts = self._leave_master(now_us, farewell=True)
        self.running = self.ready = False
        self.timer_us = NEVER
        self.master_adver_us = self.config.advert_int_us
        self.derive_intervals()
        self._move(State.FAULT, reason, now_us, adverts)

    def enter_init(self, reason: str, now_us: int) -> None:
        """RFC 9568 §6.4.2 and §6.4.3, Shutdown."""
        adverts = self._leave_master(now_us, farewell=True)
        self.running = False
        self.timer_us = NEVER
        self._move(State.INIT, reason, now_us, adverts)

    def _leave_master(self, now_us: int, *, farewell: bool) -> tuple[SendAdvert, ...]:
        """What has to end when a master stops being one; the adverts of priority 0 to send, if any."""
        if self.state is not State.MASTER:
            return ()
        self.stats.release_master += 1
        self.announcer.cancel()
        self.conflict.forget()
        self.guard.calm()
        if self.context.settings.release_vips:
            self.holdings.disown_none()
        return self.transmitter.farewell(now_us) if farewell else ()

    def _move(self, new: State, reason: str, now_us: int, adverts: tuple[SendAdvert, ...]) -> None:
        old = self.state
        self.state = new
        self.since_us = now_us
        self.reason = reason
        self.resuming = False
        self.complaints.clear()
        self.familiar = None
        self.holdings.forgive()
        self._ask_notice()
        change = self._next_change()
        self.remember(stamp=new is State.MASTER)
        self.context.emit(StateChanged(self.config.name, old, new, reason, self.priority))
        self.context.actions.extend(adverts)
        if self.ending is not None:
            self._deferred = change
        elif change is not None:
            self.context.emit(change)
        elif not self.holdings.in_flight:
            self._settle(now_us)
        self.arm()
        if self.group is not None:
            self.group.on_move(self, old, now_us)

    def _ask_notice(self) -> None:
        state = notify_state(self.state)
        if self.ending is Ending.GONE:
            state = NotifyState.DELETED
        given_up = self.notices.ask(
            self.config, state, self.priority, self.context.next_serial(), self.context.audience
        )
        if given_up is not None:
            self.log(LogLevel.ERROR, f"notification {given_up.state} given up: too many are unfinished")

    def set_priority(self, priority: int, now_us: int) -> None:
        """The effective priority changed; a backup's timer moves by the difference, as keepalived's."""
        if priority == self.priority:
            return
        self.log(LogLevel.INFO, f"Changing effective priority from {self.priority} to {priority}")
        self.priority = priority
        self.tell_priority()
        old_down_us = self.intervals.master_down_us
        self.derive_intervals()
        if self.state is State.BACKUP and self.timer_us != NEVER:
            self.timer_us = max(now_us, self.timer_us + self.intervals.master_down_us - old_down_us)
        self.remember()

    def tell_priority(self) -> None:
        if self.config.notify_priority_changes:
            self.context.emit(PriorityChanged(self.config.name, self.state, self.priority))

    # Adverts -------------------------------------------------------------------------------------------

    def transmit(self, now_us: int) -> None:
        """One advert out of turn; the next one follows a whole interval later."""
        self._send(now_us)
        self.timer_us = now_us + self.config.advert_int_us

    def _send(self, now_us: int) -> None:
        if now_us - self.transmitter.last_sent_us > promised(self).silence_limit_us:
            self._mind_the_gap(now_us)
        self.context.actions.extend(self.transmitter.send(self.priority, now_us))
        if self.priority == OWNER:
            self.conflict.advert_sent(self.config.advert_int_us, now_us)

    def _advertise(self, now_us: int) -> None:
        """The regular advert. The schedule is absolute: a late or early one does not move the next."""
        config = self.config
        if gives_up_mastery(self, now_us):
            return
        self._send(now_us)
        next_us = self.timer_us + config.advert_int_us
        self.timer_us = next_us if next_us > now_us else now_us + config.advert_int_us

    def _mind_the_gap(self, now_us: int) -> None:
        """Another may have been master meanwhile: speak, listen for one interval, then tell every host."""
        gap_us = now_us - self.transmitter.last_sent_us
        self.log(LogLevel.WARNING, f"no advert left us for {gap_us} us; announcing our addresses again")
        self.announcer.owe(now_us + self.config.advert_int_us)
        if not self.holdings.in_flight:
            self.announcer.settle(self.config, self.holdings.addresses, now_us)
        self.arm()

    def resume_master(self, now_us: int) -> None:
        """The sockets are open (again) and we are MASTER: after a crash, or a reload that changed them."""
        silent_us = now_us - self.transmitter.last_sent_us
        if self.dethroned or silent_us >= promised(self).master_down_us:
            reason = f"silent for {silent_us} us, longer than the master-down interval"
            if self.dethroned:
                reason = "its sync group was leaving MASTER when the process ended"
            self.enter_backup(reason, now_us, self.intervals.master_down_us)
            return
        self.resuming = False
        self.announcer.owe(now_us)
        self.holdings.doubt()
        self.transmit(now_us)
        self.reconcile(now_us)
        self.arm()

    # Addresses -----------------------------------------------------------------------------------------

    def _next_change(self, *, removals_only: bool = False) -> ChangeAddresses | None:
        if self.ending is Ending.STOP and self.context.settings.keep_vips_at_stop:
            return None
        desired = self.holdings.entries if self.state is State.MASTER else ()
        plan = self.holdings.next_plan(desired, removals_only=removals_only)
        if plan is None:
            return None
        change = ChangeAddresses(self.config.name, self.context.next_serial(), plan.remove, plan.add)
        self.holdings.begin(change)
        return change

    def reconcile(self, now_us: int, *, removals_only: bool = False) -> None:
        """Bring the kernel one plan nearer to the state."""
        change = self._next_change(removals_only=removals_only)
        if change is not None:
            self.remember()
            self.context.emit(change)
        elif not self.holdings.in_flight and not removals_only:
            self._settle(now_us)

    def launch_deferred(self, now_us: int) -> None:
        """The change of addresses that was held back so that every farewell leaves first."""
        if self._deferred is not None:
            self.context.emit(self._deferred)
            self._deferred = None
        elif not self.holdings.in_flight:
            self._settle(now_us)

    def on_plan_done(self, done: PlanDone, now_us: int) -> tuple[Entry, ...]:
        """What was removed: other routes may have gone with it, and what another has too."""
        outcome = self.holdings.finish(done)
        if outcome is None:
            return ()
        for failure in outcome.refused:
            verb = "add" if failure.adding else "remove"
            self.log(LogLevel.ERROR, f"cannot {verb} {describe(failure.entry)}: {failure.reason}")
        refused = self.holdings.vital.intersection(each.entry for each in outcome.refused if each.adding)
        if refused and self.state is State.MASTER:
            self.conditions.refused(refused, now_us)
            self.check(now_us)
            return outcome.removed
        if self.state is State.MASTER and outcome.added:
            self.conditions.accepted()
            added = tuple(entry for entry in outcome.added if isinstance(entry, AddressEntry))
            if added:
                self.announcer.added(self.config, added, now_us)
        self.reconcile(now_us)
        self.arm()
        return outcome.removed

    def _settle(self, now_us: int) -> None:
        """The kernel is as the state wants it: tell the hosts, then the scripts."""
        if self.state is State.MASTER and self.running:
            self.announcer.settle(self.config, self.holdings.addresses, now_us)
        self.holdings.drop_unconfigured()
        if self.ending is not Ending.WITHDRAW:
            self._start_notices()
        self.remember()
        self.arm()

    def _start_notices(self) -> None:
        """Carry out what is owed: not before one of the same name has had its last word."""
        if self.predecessor is not None and self.predecessor.notices.waiting:
            return
        self.context.actions.extend(self.notices.start(self.config, self.context.audience))
        if self.group is not None:
            self.group.start_notices()
        if self.successor is not None and not self.successor.holdings.in_flight:
            self.successor._start_notices()

    def announce_lower_priority(self, now_us: int) -> None:
        self.announcer.heard_lower_priority(self.config, self.holdings.addresses, now_us)
        self.arm()

    # The journal ---------------------------------------------------------------------------------------

    def remember(self, *, stamp: bool = False) -> None:
        """Write down what is intended and what is owed, if that is news."""
        if self.successor is not None:
            # What is still owed under that name is in its record.
            self.successor.remember()
            return
        data = records.encode(record_of(self))
        if stamp or data != self._last_record:
            self._last_record = data
            self.context.emit(Remember(self.config.name, data, stamp))

    # The end -------------------------------------------------------------------------------------------

    def end(self, ending: Ending, reason: str, now_us: int) -> None:
        """Leave for good: first the farewell; :meth:`launch_deferred` then takes the addresses away."""
        self.ending = ending
        if ending is not Ending.WITHDRAW:
            self.enter_init(reason, now_us)
        elif self.state is State.MASTER:
            # The record says BACKUP afterwards, with the notification owed to the next life.
            fresh = now_us - self.transmitter.last_sent_us < promised(self).master_down_us
            self.enter_backup(reason, now_us, self.intervals.master_down_us, farewell=fresh)
            self.timer_us = NEVER
        else:
            self._deferred = self._next_change()
            self.remember()

    @property
    def finished(self) -> bool:
        """After :meth:`end`: the kernel has answered, and every notification has finished."""
        waiting = self.notices.owed and self.ending is not Ending.WITHDRAW
        return not self.holdings.in_flight and not waiting

    def on_notify_done(self, serial: int) -> None:
        if self.notices.done(serial):
            self.remember()

    def log(self, level: LogLevel, text: str) -> None:
        self.context.log(level, f"({self.config.name}) {text}")

    def complain(self, kind: str, text: str) -> None:
        """Once per kind until the state or the master changes."""
        if kind not in self.complaints:
            self.complaints.add(kind)
            self.log(LogLevel.WARNING, text)
