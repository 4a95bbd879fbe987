"""The reload transaction among dying processes, over links that lose, double and reorder what they carry.

A model of the whole daemon: a supervisor that commits, children that are born with its generation, a control
that is killed and reborn. Whatever happens, a child only ever runs what was committed; and when it is calm,
everybody runs the same, the last.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kad.control import actions as act
from kad.control import events as ev
from kad.control.reload import ReloadCore, State
from kad.ipc.messages import ProcessInfo, Role

ROLES = (Role.VRRP, Role.CHECK)
Content = tuple[int, int]
"""What a generation holds: by which control, in which transaction it was read."""


class ModelChild:
    def __init__(self, incarnation: int, generation: int, content: Content | None) -> None:
        self.incarnation = incarnation
        self.generation = generation
        self.content = content
        self.alive = True
        self.prepared: set[int] = set()
        """Transactions it has said yes to."""


class Daemon(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_us = 0
        self.committed: dict[int, Content] = {}
        self.number = 0
        self.all_applied = 0
        self.children: dict[Role, ModelChild] = {}
        self.to_children: list[tuple[Role, int, Any]] = []
        self.to_control: list[ev.Event] = []
        self.to_supervisor: list[Any] = []
        self.from_supervisor: list[ev.Event] = []
        self.loading: list[act.StartLoading] = []
        self.questions: list[tuple[int, Role, int]] = []
        self.finished: list[act.Finished] = []
        self.asked = 0
        self.control_incarnation = 0

    # Control -------------------------------------------------------------------------------------------

    @initialize()
    def first_control(self) -> None:
        self.bear_control()
        self.settle()
        assert self.number == 1

    def bear_control(self) -> None:
        self.control_incarnation += 1
        self.core = ReloadCore(self.control_incarnation)
        self.candidate: Content | None = None
        self.from_supervisor.clear()
        self.loading.clear()
        self.running_content = self.committed.get(self.number)
        self.tell(ev.Born(self.number, ROLES if self.number else ()))
        self.from_supervisor.append(self.table())

    def tell(self, event: ev.Event) -> None:
        if isinstance(event, ev.SupervisorCommitted) and event.number == self.core.generation + 1:
            self.running_content = self.candidate
        for action in self.core.handle(event, self.now_us):
            self.perform(action)

    def perform(self, action: act.Action) -> None:
        match action:
            case act.StartLoading():
                self.loading = [action]
            case act.SendCommit():
                self.check_consent(action.transaction)
                self.to_supervisor.append(("commit", action.number, self.candidate))
            case act.TellAllApplied():
                self.to_supervisor.append(("all applied", action.number, None))
            case act.SendPrepare() | act.SendAbandon() | act.AskWho():
                if isinstance(action, act.SendPrepare):
                    self.questions.append((action.transaction, action.role, action.incarnation))
                self.to_children.append((action.role, action.incarnation, action))
            case act.SendApply():
                told = (action, self.running_content)
                self.to_children.append((action.role, action.incarnation, told))
            case act.Finished():
                if not action.accepted:
                    assert action.generation == self.number, "refused, yet something was committed"
                self.finished.append(action)
            case act.StartOver():
                raise AssertionError(action.text)

    def check_consent(self, transaction: int) -> None:
        """Whoever was asked about this very reading has said yes to it."""
        for asked, role, incarnation in self.questions:
            child = self.children[role]
            if asked == transaction:
                assert child.incarnation == incarnation or not child.alive or self.from_supervisor
                assert child.incarnation != incarnation or transaction in child.prepared

    # The supervisor ------------------------------------------------------------------------------------

    def table(self) -> ev.ProcessesChanged:
        return ev.ProcessesChanged(
            tuple(
                ProcessInfo(role, 1, child.incarnation, "RUNNING" if child.alive else "BACKOFF", 0, 0)
                for role, child in self.children.items()
            )
        )

    def supervise(self) -> None:
        """What control sent is taken in order, as the socket pair keeps it."""
        while self.to_supervisor:
            what, number, content = self.to_supervisor.pop(0)
            if what == "commit":
                assert number == self.number + 1
                self.number = number
                self.committed[number] = content
                self.from_supervisor.append(ev.SupervisorCommitted(number))
                for role in ROLES:
                    if role not in self.children:
                        self.bear(role)
            elif number == self.number:
                for child in self.children.values():
                    assert not child.alive or child.generation == number
                self.all_applied = number

    def bear(self, role: Role) -> None:
        incarnation = self.children[role].incarnation + 1 if role in self.children else 1
        self.children[role] = ModelChild(incarnation, self.number, self.committed[self.number])
        self.from_supervisor.append(self.table())
        self.to_control.append(ev.ChildGreeted(role, incarnation, self.number))

    # The children --------------------------------------------------------------------------------------

    def deliver_to_child(self, role: Role, incarnation: int, told: Any) -> None:
        child = self.children[role]
        if not child.alive or child.incarnation != incarnation:
            return
        match told:
            case act.SendPrepare():
                if told.generation > child.generation:
                    child.prepared.add(told.transaction)
                    answer = ev.ChildPrepared(role, incarnation, told.transaction)
                    self.to_control.append(answer)
            case act.AskWho():
                self.to_control.append(ev.ChildGreeted(role, incarnation, child.generation))
            case (act.SendApply() as apply, content):
                if apply.generation > child.generation:
                    child.generation, child.content = apply.generation, content
                if apply.generation == child.generation:
                    self.to_control.append(ev.ChildApplied(role, incarnation, apply.generation))

    # What happens --------------------------------------------------------------------------------------

    @rule()
    def ask(self) -> None:
        self.asked += 1
        self.tell(ev.ReloadAsked(f"{self.asked}"))

    @precondition(lambda self: self.loading)
    @rule(good=st.booleans())
    def load(self, good: bool) -> None:
        loading = self.loading.pop()
        self.candidate = (self.control_incarnation, loading.transaction)
        refusal = "" if good or loading.first else "line 3"
        self.tell(ev.Loaded(loading.transaction, ROLES, refusal))

    @precondition(lambda self: self.to_supervisor)
    @rule()
    def supervisor_runs(self) -> None:
        self.supervise()

    @precondition(lambda self: self.from_supervisor)
    @rule()
    def hear_supervisor(self) -> None:
        self.tell(self.from_supervisor.pop(0))

    @precondition(lambda self: self.to_children)
    @rule(data=st.data(), twice=st.booleans())
    def hear_child_end(self, data: st.DataObject, twice: bool) -> None:
        index = data.draw(st.integers(0, len(self.to_children) - 1))
        told = self.to_children[index] if twice else self.to_children.pop(index)
        self.deliver_to_child(*told)

    @precondition(lambda self: self.to_control)
    @rule(data=st.data(), twice=st.booleans())
    def hear_control_end(self, data: st.DataObject, twice: bool) -> None:
        index = data.draw(st.integers(0, len(self.to_control) - 1))
        self.tell(self.to_control[index] if twice else self.to_control.pop(index))

    @precondition(lambda self: self.to_children or self.to_control)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.to_children) + len(self.to_control) - 1))
        if index < len(self.to_children):
            del self.to_children[index]
        else:
            del self.to_control[index - len(self.to_children)]

    @precondition(lambda self: self.children)
    @rule(role=st.sampled_from(ROLES))
    def kill_child(self, role: Role) -> None:
        self.children[role].alive = False
        self.from_supervisor.append(self.table())

    @precondition(lambda self: any(not child.alive for child in self.children.values()))
    @rule()
    def bear_children(self) -> None:
        for role, child in self.children.items():
            if not child.alive:
                self.bear(role)

    @rule()
    def kill_control(self) -> None:
        # What it had sent still counts; who asked it will ask the next one.
        self.supervise()
        self.bear_control()

    @precondition(lambda self: self.core.deadline_us is not None)
    @rule()
    def time_passes(self) -> None:
        waits_for_supervisor = self.core.state in (State.COMMITTING, State.LOADING)
        if not waits_for_supervisor and self.core.deadline_us is not None:
            self.now_us = max(self.now_us, self.core.deadline_us)
            self.tell(ev.TimeReached())

    # What must hold ------------------------------------------------------------------------------------

    @invariant()
    def children_run_what_was_committed(self) -> None:
        for child in self.children.values():
            assert child.generation <= self.number
            assert child.content == self.committed[child.generation]

    @invariant()
    def control_never_runs_ahead(self) -> None:
        assert self.core.generation <= self.number

    def settle(self) -> None:
        """Calm: nothing is lost any more, nobody dies, time passes."""
        for _ in range(200):
            self.supervise()
            if self.loading:
                self.load(True)
            elif self.from_supervisor:
                self.hear_supervisor()
            elif self.to_children:
                self.deliver_to_child(*self.to_children.pop(0))
            elif self.to_control:
                self.tell(self.to_control.pop(0))
            elif any(not child.alive for child in self.children.values()):
                self.bear_children()
            elif self.core.deadline_us is not None:
                self.now_us = max(self.now_us, self.core.deadline_us)
                self.tell(ev.TimeReached())
            else:
                return
        raise AssertionError("no rest after 200 steps")

    def teardown(self) -> None:
        self.settle()
        assert self.core.state is State.IDLE
        assert self.core.generation == self.number == self.all_applied
        assert {child.generation for child in self.children.values()} <= {self.number}
        answered = [asker for finished in self.finished for asker in finished.askers]
        assert len(answered) == len(set(answered)) + answered.count(ev.HANGUP) - (ev.HANGUP in answered)


Daemon.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestDaemon = Daemon.TestCase
