"""A sync group: its members change state together, and in what order. Pure.

As in keepalived: what is in the way of one is in the way of all; none becomes MASTER before every one would;
one that leaves MASTER takes the others with it. Beyond keepalived, a member that hears a rightful master
makes the others give way too, so that a group does not stay divided after a reload.

The member that moves first says why; the others follow in the order of the configuration; then the group's
own notification is due, once those of its members have been started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from kad.config.model.vrrp import SyncGroup as GroupConfig
from kad.config.model.vrrp import WantedState
from kad.notify.policy import NotifyState
from kad_vrrp.core.actions import GroupChanged, LogLevel, State
from kad_vrrp.core.deletions import stand_again
from kad_vrrp.core.notices import Notices, notify_state
from kad_vrrp.core.record import OwedNotice

if TYPE_CHECKING:
    from kad_vrrp.core.context import Context
    from kad_vrrp.core.instance import Instance


class GroupRecord(Struct, frozen=True, array_like=True):
    """A group in the journal: written after its members' records, so that one divided between BACKUP and
    MASTER was on its way from ``state`` to the other.
    """

    state: State
    notified: str
    owed: tuple[OwedNotice, ...]


class SyncGroup:
    """See the module. Members call in at every move; the lifecycle says who they are."""

    def __init__(self, config: GroupConfig, context: Context) -> None:
        self.config = config
        self.members: list[Instance] = []
        self.state = State.INIT
        self.notices = Notices()
        self._context = context
        self._records = context.records
        self._faulty: dict[Instance, str] = {}
        self._awaiting: set[Instance] = set()
        self._changed = False
        """What is in some member's way has changed since the others were looked at."""
        self._moves: list[tuple[Instance, State]] = []
        """Moves that the others have not followed, with the state before."""
        self._moving = False
        self._ending = False

    @property
    def key(self) -> str:
        return f"group {self.config.name}"

    @property
    def all_owners(self) -> bool:
        """Every member may claim its addresses at once. keepalived: one that may not holds back all."""
        return all(m.config.is_owner and m.config.wanted_state is WantedState.MASTER for m in self.members)

    # Membership ----------------------------------------------------------------------------------------

    def configure(self, config: GroupConfig, members: list[Instance]) -> None:
        """Who belongs to it from now on."""
        for member in self.members:
            if member.group is self:
                member.group = None
        self.config = config
        self.members = members
        for member in members:
            member.group = self
            # Whoever it recognises without looking may have to be looked at with the group in mind.
            member.familiar = None
        kept = set(members)
        self._faulty = {each: why for each, why in self._faulty.items() if each in kept}
        self._awaiting &= kept
        self._changed = True

    def dissolve(self) -> bool:
        """A reload no longer has it. What it owes is told now, for nobody could say it later: even before
        what its members have to tell. True: scripts have been started, and it is owed until they end.
        """
        self._context.actions.extend(self.notices.start(self.config, self._context.audience))
        self.configure(self.config, [])
        self.state = State.INIT
        if self.notices.owed:
            self._remember()
            return True
        self._records.forget(self.key)
        return False

    def forget(self) -> None:
        """It was dissolved, and owes nothing any more."""
        self._records.forget(self.key)

    def recall(self) -> None:
        """Go on where a former life stopped, its members' records having been restored."""
        record = self._records.recall(self.key, GroupRecord)
        if record is None:
            return
        self.state = record.state
        self.notices.restore(record.owed, record.notified)
        # Numbers go on above those still owed, here as with instances.
        self._context.serial = max([self._context.serial, *(notice.serial for notice in record.owed)])
        divided = any(each.state is State.MASTER for each in self.members)
        if not divided or not all(each.state in (State.MASTER, State.BACKUP) for each in self.members):
            return
        for member in self.members:
            if member.state is State.BACKUP:
                member.ready = record.state is not State.MASTER
            elif record.state is State.MASTER and any(m.state is State.BACKUP for m in self.members):
                member.dethroned = True

    # What is in the way --------------------------------------------------------------------------------

    def report(self, member: Instance) -> None:
        """What is in a member's own way at this moment."""
        was_faulty, was_awaiting = member in self._faulty, member in self._awaiting
        if member.fault:
            self._faulty[member] = member.fault
        else:
            self._faulty.pop(member, None)
        if member.awaiting:
            self._awaiting.add(member)
        else:
            self._awaiting.discard(member)
        self._changed |= was_faulty is not bool(member.fault) or was_awaiting is not member.awaiting

    def fault_beside(self, member: Instance) -> str:
        """Why another member cannot take part; empty: all others can."""
        for other, fault in self._faulty.items():
            if other is not member:
                return f"{other.config.name} in its sync group: {fault}"
        return ""

    @property
    def awaiting(self) -> bool:
        """Some member has not had its first answers."""
        return bool(self._awaiting)

    def look_again(self, now_us: int) -> None:
        """After a member was looked at: the others, if that may have changed something for them."""
        if self._changed:
            self._bring_together(now_us)

    # Moves ---------------------------------------------------------------------------------------------

    def claim(self, member: Instance) -> bool:
        """A member's time to become MASTER has come. False: the others' has not; it waits once more."""
        member.ready = True
        member.familiar = None
        return all(
            other is member or (other.running and (other.ready or other.state is State.MASTER))
            for other in self.members
        )

    def on_move(self, member: Instance, old: State, now_us: int) -> None:
        """A member has moved: the others follow."""
        if member.ending is None and not self._ending:
            self._moves.append((member, old))
            self._bring_together(now_us)

    def stand_again(self, leader: Instance, reason: str, now_us: int) -> None:
        """A master gives way and no other has spoken: as with keepalived all say farewell, and are back after
        their skew times, instead of leaving their networks to wait for their silence.
        """
        self._moving = True
        stand_again(leader, reason, now_us)
        for other in self.members:
            if other.state is State.MASTER:
                stand_again(other, f"{leader.config.name} in its sync group gives way", now_us)
        self._moving = False
        self._bring_together(now_us)

    def heard_master(self, member: Instance, now_us: int) -> None:
        """A member that is not MASTER believes another router to be: the others are not to be either."""
        if not any(each.state is State.MASTER for each in self.members):
            return
        reason = f"{member.config.name} in its sync group {self.config.name} has another master"
        for other in self.members:
            if other.state is State.MASTER:
                other.enter_backup(reason, now_us, other.intervals.master_down_us, farewell=True)

    def _bring_together(self, now_us: int) -> None:
        """Let the members follow each other, and look at each again, until nothing is new."""
        if self._moving:
            return
        self._moving = True
        while self._moves or self._changed:
            if self._moves:
                self._follow(*self._moves.pop(0), now_us)
                continue
            self._changed = False
            for member in self.members:
                member.check(now_us)
        self._moving = False
        self._context.moved.extend(self.members)
        self._settle(now_us)

    def _follow(self, leader: Instance, old: State, now_us: int) -> None:
        new = leader.state
        others = [each for each in self.members if each is not leader and each.state is not new]
        if not others:
            return
        if new is not self.state and old is not State.INIT:
            text = f"VRRP_Group({self.config.name}) Syncing instances to {new.value} state"
            self._context.log(LogLevel.INFO, text)
        reason = f"{leader.config.name} in its sync group {self.config.name} is {new.value}"
        for other in others:
            if new is State.MASTER and other.running:
                other.enter_master(reason, now_us)
            elif new is State.BACKUP and old is State.MASTER and other.state is State.MASTER:
                # keepalived: without a farewell; the router that one yields to takes the others as well.
                other.enter_backup(reason, now_us, other.intervals.master_down_us)
            other.ready &= new is State.MASTER

    def end(self) -> None:
        """The daemon stops; every member has been told."""
        self._ending = True
        self.state = State.INIT
        self._ask(NotifyState.STOP)
        self.start_notices()

    # Its own state -------------------------------------------------------------------------------------

    def _settle(self, now_us: int) -> None:
        """The state all members together make, and news of it."""
        state = self._joint_state()
        if state is State.INIT or state is self.state:
            return
        old, self.state = self.state, state
        self._ask(notify_state(state))
        self._context.emit(GroupChanged(self.config.name, old, state))
        self.start_notices()

    def _joint_state(self) -> State:
        states = {member.state for member in self.members}
        for state in (State.FAULT, State.INIT, State.BACKUP):
            if state in states:
                return state
        return State.MASTER

    def _ask(self, state: NotifyState) -> None:
        given_up = self.notices.ask(
            self.config, state, 0, self._context.next_serial(), self._context.audience
        )
        if given_up is not None:
            text = f"({self.config.name}) notification {given_up.state} given up: too many are unfinished"
            self._context.log(LogLevel.ERROR, text)
        self._remember()

    def start_notices(self) -> None:
        """The group's notifications come after its members'."""
        if self.notices.waiting and not any(member.notices.waiting for member in self.members):
            self._context.actions.extend(self.notices.start(self.config, self._context.audience))
            self._remember()

    def on_notify_done(self, serial: int) -> None:
        if self.notices.done(serial):
            self._remember()

    def _remember(self) -> None:
        record = GroupRecord(self.state, self.notices.notified, tuple(self.notices.owed))
        self._records.remember(self.key, record)
