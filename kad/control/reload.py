"""The reload transaction, pure.

    IDLE → LOADING → PREPARING → COMMITTING → APPLYING → IDLE

Until the supervisor acknowledges the commit, anything that fails (a refusal, a time limit, the death of a
child) leaves everything as it was. From there it only rolls forward, and by level, not by edge: whoever is
not known to run the committed generation is told it, again and again. So it does not matter who died when:
a reborn child says where it is, and a reborn control starts from the supervisor's generation and asks.

Instants are CLOCK_MONOTONIC microseconds.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum, auto
from typing import assert_never

from kad.control.actions import (
    Action,
    AskWho,
    Finished,
    FirstLoadFailed,
    SendAbandon,
    SendApply,
    SendCommit,
    SendPrepare,
    StartLoading,
    StartOver,
    TellAllApplied,
)
from kad.control.events import (
    HANGUP,
    Born,
    ChildApplied,
    ChildGreeted,
    ChildPrepared,
    Event,
    Loaded,
    LoadingTakesLonger,
    ProcessesChanged,
    ReloadAsked,
    SupervisorCommitted,
    TimeReached,
)
from kad.ipc.codec import DropReason, Drops
from kad.ipc.messages import Role
from kad.units import US_PER_SECOND

LOAD_LIMIT_US = 30 * US_PER_SECOND
PREPARE_LIMIT_US = 2 * US_PER_SECOND
COMMIT_LIMIT_US = 5 * US_PER_SECOND
APPLY_LIMIT_US = 5 * US_PER_SECOND
"""How long whoever asked for a reload waits for the children after the commit."""
REPEAT_US = 1 * US_PER_SECOND
"""A child that owes an answer is asked again where it is."""
ASKERS_LIMIT = 64
"""Requests waiting for one reload; they are all answered by it."""
_TRANSACTIONS_A_LIFE = 1 << 32


class State(Enum):
    IDLE = auto()
    LOADING = auto()
    PREPARING = auto()
    COMMITTING = auto()
    APPLYING = auto()


class _Child:
    """What is known of one role's present life."""

    __slots__ = ("alive", "asked_at_us", "fate", "generation", "heard", "incarnation", "pid", "told")

    def __init__(self) -> None:
        self.incarnation = 0
        self.pid = 0
        self.alive = False
        """A process runs, or greeted us before the supervisor told."""
        self.fate = ""
        """How the last life ended."""
        self.begin(0)

    def begin(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.heard = False
        self.generation = 0
        """What it said it has applied."""
        self.told = 0
        """The generation it was last told to apply."""
        self.asked_at_us = 0
        """When it was last told or asked something that it has not answered."""


class ReloadCore:
    """Control's state: ``incarnation`` is control's own (transactions of different lives differ)."""

    def __init__(self, incarnation: int) -> None:
        self.state = State.IDLE
        self.generation = 0
        """What the supervisor has committed."""
        self.drops: Drops = Counter()
        self._next_transaction = incarnation * _TRANSACTIONS_A_LIFE
        self._roles: tuple[Role, ...] = ()
        self._children: dict[Role, _Child] = {role: _Child() for role in Role if role != Role.CONTROL}
        self._all_applied = 0
        self._asked: dict[str, bool] = {}
        """Who waits for the next reload, and whether by force."""
        self._limit_us: int | None = None
        # Of the transaction at hand:
        self._transaction = 0
        self._askers: tuple[str, ...] = ()
        self._first = False
        self._candidate_roles: tuple[Role, ...] = ()
        self._participants: dict[Role, int] = {}
        self._prepare_sent: set[Role] = set()
        self._unprepared: set[Role] = set()
        self._complaints: list[str] = []

    @property
    def all_applied(self) -> bool:
        """Every child that is to run has applied the committed generation."""
        return self._all_applied == self.generation

    @property
    def deadline_us(self) -> int | None:
        """When :class:`TimeReached` is due."""
        repeats = [c.asked_at_us + REPEAT_US for r, c in self._children.items() if self._owes_answer(r)]
        return min([*repeats, *([self._limit_us] if self._limit_us is not None else [])], default=None)

    def applied_by(self, role: Role) -> int | None:
        """The generation a child has said it runs; None: not heard in its present life."""
        child = self._children[role]
        return child.generation if child.heard and child.alive else None

    def handle(self, event: Event, now_us: int) -> list[Action]:
        """Take one event. What follows from the state, whatever changed it, is added by :meth:`_roll`."""
        match event:
            case Born():
                actions = self._born(event, now_us)
            case ReloadAsked():
                actions = self._reload_asked(event, now_us)
            case Loaded():
                actions = self._loaded(event, now_us)
            case LoadingTakesLonger():
                actions = []
                if self.state is State.LOADING and event.transaction == self._transaction:
                    self._limit_us = now_us + event.by_us
            case ProcessesChanged():
                actions = self._processes_changed(event, now_us)
            case ChildGreeted():
                actions = self._greeted(event, now_us)
            case ChildPrepared():
                actions = self._prepared(event, now_us)
            case ChildApplied():
                actions = self._applied(event)
            case SupervisorCommitted():
                actions = self._committed(event, now_us)
            case TimeReached():
                actions = self._time_reached(now_us)
            case _:
                assert_never(event)
        return actions + self._roll(now_us) + self._begin_next(now_us)

    # Events ----------------------------------------------------------------------------------------------

    def _born(self, event: Born, now_us: int) -> list[Action]:
        self.generation, self._roles = event.generation, event.roles
        return [] if event.generation else self._load({HANGUP: False}, now_us, first=True)

    def _reload_asked(self, event: ReloadAsked, now_us: int) -> list[Action]:
        if event.asker != HANGUP and event.asker in self._askers:
            return []
        if event.asker not in self._asked and len(self._asked) >= ASKERS_LIMIT:
            return [Finished(0, (event.asker,), False, self.generation, "too many reloads are waiting")]
        self._asked[event.asker] = self._asked.get(event.asker, False) or event.force
        return []

    def _loaded(self, event: Loaded, now_us: int) -> list[Action]:
        if self.state is not State.LOADING or event.transaction != self._transaction:
            self.drops[DropReason.STALE_TRANSACTION] += 1
            return []
        if event.refusal and self._first:
            return self._give_up(event.exit_status, event.refusal)
        if event.refusal:
            return self._finish(False, event.refusal)
        self._candidate_roles = event.roles
        return self._enter_preparing(now_us)

    def _processes_changed(self, event: ProcessesChanged, now_us: int) -> list[Action]:
        actions: list[Action] = []
        for info in event.processes:
            child = self._children.get(info.role)
            if child is None or info.incarnation < child.incarnation:
                # A child may greet before the supervisor's word of its birth arrives.
                continue
            if info.incarnation > child.incarnation:
                child.begin(info.incarnation)
                child.asked_at_us = now_us
            child.pid = info.pid
            child.alive = info.state in ("STARTING", "RUNNING")
            child.fate = info.last_exit
            actions += self._check_participant(info.role)
        return actions

    def _greeted(self, event: ChildGreeted, now_us: int) -> list[Action]:
        if not self._heard(event.role, event.incarnation):
            return []
        child = self._children[event.role]
        child.generation = max(child.generation, event.generation)
        # It says so by itself: whatever it was told may have been lost with a connection.
        child.told = 0
        return self._check_participant(event.role) + self._prepare(event.role, now_us)

    def _prepared(self, event: ChildPrepared, now_us: int) -> list[Action]:
        if not self._heard(event.role, event.incarnation):
            return []
        if self.state is not State.PREPARING or event.transaction != self._transaction:
            self.drops[DropReason.STALE_TRANSACTION] += 1
            return []
        if event.refusal:
            return self._abandon(f"{event.role} refuses: {event.refusal}")
        self._unprepared.discard(event.role)
        return [] if self._unprepared else self._enter_committing(now_us)

    def _applied(self, event: ChildApplied) -> list[Action]:
        if not self._heard(event.role, event.incarnation):
            return []
        child = self._children[event.role]
        if not child.generation < event.generation <= self.generation:
            # Told twice; or (never) told by nobody.
            self.drops[DropReason.STALE_GENERATION] += event.generation != child.generation
            return []
        child.generation = event.generation
        if event.generation == self.generation:
            self._complaints += [f"{event.role}: {text}" for text in event.complaints]
        return []

    def _committed(self, event: SupervisorCommitted, now_us: int) -> list[Action]:
        committing = self.state is State.COMMITTING
        if committing and event.number == self.generation + 1:
            self.generation, self._roles = event.number, self._candidate_roles
            return self._enter_applying(now_us)
        if event.number > self.generation:
            return [StartOver(f"the supervisor committed generation {event.number}, which nobody asked for")]
        if committing and event.number == self.generation:
            return self._abandon("the supervisor did not take it; its log says why")
        self.drops[DropReason.STALE_GENERATION] += 1
        return []

    def _time_reached(self, now_us: int) -> list[Action]:
        if self._limit_us is None or now_us < self._limit_us:
            return []
        match self.state:
            case State.LOADING if self._first:
                return self._give_up(1, "reading the configuration takes too long")
            case State.LOADING:
                # The reader cannot be stopped; this process can.
                text = "reading the configuration takes too long"
                return [*self._finish(False, text), StartOver(text)]
            case State.PREPARING:
                missing = ", ".join(sorted(self._unprepared))
                return self._abandon(f"no answer from {missing} within {PREPARE_LIMIT_US // 1000} ms")
            case State.COMMITTING:
                return [StartOver("the supervisor does not answer a commit")]
            case State.APPLYING:
                missing = ", ".join(role for role in self._roles if not self._runs_present(role))
                return self._finish(True, f"generation {self.generation} committed; not yet there: {missing}")
            case State.IDLE:
                return []
            case _:
                assert_never(self.state)

    # Steps of the transaction ----------------------------------------------------------------------------

    def _begin_next(self, now_us: int) -> list[Action]:
        """The reload that was asked for meanwhile: one, however often."""
        if self.state is not State.IDLE or not self._asked:
            return []
        asked, self._asked = self._asked, {}
        return self._load(asked, now_us, first=False)

    def _load(self, asked: dict[str, bool], now_us: int, *, first: bool) -> list[Action]:
        self._next_transaction += 1
        self._transaction = self._next_transaction
        self._askers, self._first = tuple(asked), first
        self._complaints = []
        self.state, self._limit_us = State.LOADING, now_us + LOAD_LIMIT_US
        return [StartLoading(self._transaction, any(asked.values()), first)]

    def _enter_preparing(self, now_us: int) -> list[Action]:
        self.state, self._limit_us = State.PREPARING, now_us + PREPARE_LIMIT_US
        # A child in back-off is not asked: it will be born with whatever is committed by then.
        self._participants = {
            role: child.incarnation
            for role, child in self._children.items()
            if child.alive and role in self._roles and role in self._candidate_roles
        }
        self._unprepared = set(self._participants)
        self._prepare_sent = set()
        if not self._unprepared:
            return self._enter_committing(now_us)
        return [action for role in self._participants for action in self._prepare(role, now_us)]

    def _prepare(self, role: Role, now_us: int) -> list[Action]:
        """Ask one participant, once it has been heard."""
        if self.state is not State.PREPARING or role not in self._unprepared or role in self._prepare_sent:
            return []
        child = self._children[role]
        if not child.heard:
            return []
        self._prepare_sent.add(role)
        return [SendPrepare(role, child.incarnation, self._transaction, self.generation + 1)]

    def _check_participant(self, role: Role) -> list[Action]:
        """A participant that is not what it was when the question was asked: nobody said yes for it."""
        if self.state is not State.PREPARING or role not in self._participants:
            return []
        child = self._children[role]
        if child.alive and child.incarnation == self._participants[role]:
            return []
        reason = f" ({child.fate})" if child.fate else ""
        return self._abandon(f"{role} died before it had answered{reason}")

    def _abandon(self, text: str) -> list[Action]:
        abandons: list[Action] = [
            SendAbandon(role, self._participants[role], self._transaction) for role in self._prepare_sent
        ]
        return abandons + self._finish(False, text)

    def _enter_committing(self, now_us: int) -> list[Action]:
        # At the start the supervisor is still importing: a new control could only wait as well.
        self.state, self._limit_us = State.COMMITTING, None if self._first else now_us + COMMIT_LIMIT_US
        return [SendCommit(self._transaction, self.generation + 1)]

    def _enter_applying(self, now_us: int) -> list[Action]:
        self.state, self._limit_us = State.APPLYING, now_us + APPLY_LIMIT_US
        return []

    def _finish(self, accepted: bool, text: str) -> list[Action]:
        self.state, self._limit_us = State.IDLE, None
        askers, self._askers = self._askers, ()
        self._participants, self._prepare_sent, self._unprepared = {}, set(), set()
        complaints = tuple(self._complaints)
        transaction, first = self._transaction, self._first
        return [Finished(transaction, askers, accepted, self.generation, text, complaints, first)]

    def _give_up(self, exit_status: int, text: str) -> list[Action]:
        # No way leads on from here but the end of the daemon: stay, and say nothing more.
        self._limit_us = None
        return [FirstLoadFailed(exit_status, text)]

    # What always holds -----------------------------------------------------------------------------------

    def _roll(self, now_us: int) -> list[Action]:
        """Bring everybody to the committed generation, and know who is there."""
        actions: list[Action] = []
        for role, child in self._children.items():
            if not child.alive:
                continue
            if child.heard and self._is_behind(role) and child.told != self.generation:
                child.told, child.asked_at_us = self.generation, now_us
                actions.append(SendApply(role, child.incarnation, self.generation))
            elif self._owes_answer(role) and now_us >= child.asked_at_us + REPEAT_US:
                # A question, not the configuration again: it may be long, and the child only slow.
                child.asked_at_us = now_us
                actions.append(AskWho(role, child.incarnation, child.pid))
        return actions + self._settle()

    def _settle(self) -> list[Action]:
        """Has the committed generation arrived everywhere?"""
        actions: list[Action] = []
        if not self.all_applied and all(self._runs_present(role) for role in self._roles):
            self._all_applied = self.generation
            actions.append(TellAllApplied(self.generation))
        if self.state is State.APPLYING and self.all_applied:
            actions += self._finish(True, f"generation {self.generation} runs")
        return actions

    def _runs_present(self, role: Role) -> bool:
        # One that died after it had applied it is born with it.
        return self._children[role].generation == self.generation

    def _owes_answer(self, role: Role) -> bool:
        child = self._children[role]
        return child.alive and (not child.heard or self._is_behind(role))

    def _is_behind(self, role: Role) -> bool:
        return role in self._roles and self._children[role].generation < self.generation

    def _heard(self, role: Role, incarnation: int) -> bool:
        """Take a message's sender for known. False (counted): it is from a life that has ended."""
        child = self._children.get(role)
        if child is None or incarnation < child.incarnation:
            self.drops[DropReason.STALE_INCARNATION] += 1
            return False
        if incarnation > child.incarnation:
            child.begin(incarnation)
            child.alive = True
        child.heard = True
        return True
