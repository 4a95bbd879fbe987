"""The reload transaction, step by step: what it says to whom, and what it does when somebody dies."""

from __future__ import annotations

import pytest

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
    ProcessesChanged,
    ReloadAsked,
    SupervisorCommitted,
    TimeReached,
)
from kad.control.reload import (
    APPLY_LIMIT_US,
    ASKERS_LIMIT,
    COMMIT_LIMIT_US,
    LOAD_LIMIT_US,
    PREPARE_LIMIT_US,
    REPEAT_US,
    ReloadCore,
    State,
)
from kad.ipc.codec import DropReason
from kad.ipc.messages import ProcessInfo, Role

VRRP, CHECK, BFD = Role.VRRP, Role.CHECK, Role.BFD
BOTH = (CHECK, VRRP)


class Clocked:
    """A core with a clock beside it."""

    def __init__(self, incarnation: int = 1) -> None:
        self.core = ReloadCore(incarnation)
        self.now_us = 1_000_000

    def tell(self, *told: Event) -> list[Action]:
        return [action for event in told for action in self.core.handle(event, self.now_us)]

    def wait(self, for_us: int) -> list[Action]:
        self.now_us += for_us
        return self.tell(TimeReached())

    def transaction(self, *, asker: str = HANGUP) -> int:
        (action,) = self.tell(ReloadAsked(asker))
        assert isinstance(action, StartLoading)
        return action.transaction

    def preparing(self) -> int:
        transaction = self.transaction()
        actions = self.tell(Loaded(transaction, BOTH))
        assert {type(action) for action in actions} == {SendPrepare}
        return transaction

    def committing(self) -> int:
        transaction = self.preparing()
        actions = self.tell(ChildPrepared(VRRP, 1, transaction), ChildPrepared(CHECK, 1, transaction))
        assert actions == [SendCommit(transaction, self.core.generation + 1)]
        return transaction


def process(role: Role, incarnation: int = 1, state: str = "RUNNING", last_exit: str = "") -> ProcessInfo:
    return ProcessInfo(role, 100 * incarnation, incarnation, state, incarnation - 1, 0, last_exit)


@pytest.fixture
def running() -> Clocked:
    """Generation 3 runs in vrrp and check, and both have said so."""
    clocked = Clocked()
    clocked.tell(
        Born(3, BOTH),
        ProcessesChanged((process(VRRP), process(CHECK))),
        ChildGreeted(VRRP, 1, 3),
    )
    assert clocked.tell(ChildGreeted(CHECK, 1, 3)) == [TellAllApplied(3)]
    return clocked


# The first load --------------------------------------------------------------------------------------------


def test_first_load_is_committed_without_asking_anybody() -> None:
    clocked = Clocked()
    (loading,) = clocked.tell(Born(0, ()))
    assert loading == StartLoading(loading.transaction, force=False, first=True)
    actions = clocked.tell(Loaded(loading.transaction, BOTH))
    assert actions == [SendCommit(loading.transaction, 1)]
    assert clocked.tell(SupervisorCommitted(1)) == []
    clocked.tell(ProcessesChanged((process(VRRP, state="STARTING"), process(CHECK, state="STARTING"))))
    assert clocked.tell(ChildGreeted(VRRP, 1, 1)) == []
    told, finished = clocked.tell(ChildGreeted(CHECK, 1, 1))
    assert told == TellAllApplied(1)
    assert isinstance(finished, Finished)
    assert (finished.accepted, finished.first, finished.generation) == (True, True, 1)


def test_first_load_that_cannot_run_ends_the_daemon() -> None:
    clocked = Clocked()
    (loading,) = clocked.tell(Born(0, ()))
    actions = clocked.tell(Loaded(loading.transaction, refusal="no file", exit_status=6))
    assert actions == [FirstLoadFailed(6, "no file")]
    assert clocked.core.deadline_us is None


def test_first_load_that_takes_for_ever_ends_the_daemon() -> None:
    clocked = Clocked()
    clocked.tell(Born(0, ()))
    (action,) = clocked.wait(LOAD_LIMIT_US)
    assert isinstance(action, FirstLoadFailed)


def test_hangup_during_the_first_load_is_carried_out_after_it() -> None:
    clocked = Clocked()
    (loading,) = clocked.tell(Born(0, ()))
    assert clocked.tell(ReloadAsked(), ReloadAsked()) == []
    clocked.tell(Loaded(loading.transaction, ()))
    told, finished, again = clocked.tell(SupervisorCommitted(1))
    assert (told, type(finished), type(again)) == (TellAllApplied(1), Finished, StartLoading)
    assert not again.first


# The whole way ---------------------------------------------------------------------------------------------


def test_reload_goes_prepare_commit_apply(running: Clocked) -> None:
    transaction = running.transaction(asker="me")
    assert running.tell(Loaded(transaction, BOTH)) == [
        SendPrepare(VRRP, 1, transaction, 4),
        SendPrepare(CHECK, 1, transaction, 4),
    ]
    assert running.tell(ChildPrepared(VRRP, 1, transaction)) == []
    assert running.tell(ChildPrepared(CHECK, 1, transaction)) == [SendCommit(transaction, 4)]
    assert running.core.generation == 3
    assert running.tell(SupervisorCommitted(4)) == [SendApply(VRRP, 1, 4), SendApply(CHECK, 1, 4)]
    assert running.tell(ChildApplied(VRRP, 1, 4, ("no such device",))) == []
    told, finished = running.tell(ChildApplied(CHECK, 1, 4))
    assert told == TellAllApplied(4)
    assert finished == Finished(transaction, ("me",), True, 4, "generation 4 runs", ("vrrp: no such device",))
    assert running.core.state is State.IDLE
    assert running.core.deadline_us is None


def test_refusal_by_the_text_asks_nobody(running: Clocked) -> None:
    transaction = running.transaction()
    (finished,) = running.tell(Loaded(transaction, refusal="line 3"))
    assert finished == Finished(transaction, (HANGUP,), False, 3, "line 3")


def test_refusal_by_a_child_abandons_the_others(running: Clocked) -> None:
    transaction = running.preparing()
    *abandons, finished = running.tell(ChildPrepared(CHECK, 1, transaction, "too much"))
    assert set(abandons) == {SendAbandon(VRRP, 1, transaction), SendAbandon(CHECK, 1, transaction)}
    assert isinstance(finished, Finished)
    assert (finished.accepted, finished.generation, finished.text) == (
        False,
        3,
        "check refuses: too much",
    )
    assert running.tell(ChildPrepared(VRRP, 1, transaction)) == []
    assert running.core.drops[DropReason.STALE_TRANSACTION] == 1


def test_silence_of_a_child_abandons(running: Clocked) -> None:
    transaction = running.preparing()
    running.tell(ChildPrepared(VRRP, 1, transaction))
    assert running.wait(PREPARE_LIMIT_US - 1) == []
    assert running.core.deadline_us == running.now_us + 1
    *_, finished = running.wait(1)
    assert isinstance(finished, Finished)
    assert not finished.accepted
    assert "check" in finished.text and "vrrp" not in finished.text


@pytest.mark.parametrize("by_table", [True, False], ids=["told by the supervisor", "its successor greets"])
@pytest.mark.parametrize("after_answer", [True, False])
def test_death_of_a_child_before_the_commit_abandons(
    running: Clocked, by_table: bool, after_answer: bool
) -> None:
    transaction = running.preparing()
    if after_answer:
        running.tell(ChildPrepared(CHECK, 1, transaction))
    died: Event = ChildGreeted(CHECK, 2, 3)
    if by_table:
        died = ProcessesChanged((process(VRRP), process(CHECK, 1, "BACKOFF", "signal SIGKILL")))
    finished = [action for action in running.tell(died) if isinstance(action, Finished)]
    assert [each.accepted for each in finished] == [False]
    assert not by_table or "SIGKILL" in finished[0].text
    assert running.tell(ChildPrepared(VRRP, 1, transaction)) == []
    assert running.core.state is State.IDLE


def test_child_in_back_off_is_not_waited_for_before_the_commit(running: Clocked) -> None:
    running.tell(ProcessesChanged((process(CHECK, 1, "BACKOFF"),)))
    transaction = running.transaction()
    assert running.tell(Loaded(transaction, BOTH)) == [SendPrepare(VRRP, 1, transaction, 4)]
    assert running.tell(ChildPrepared(VRRP, 1, transaction)) == [SendCommit(transaction, 4)]
    assert running.tell(SupervisorCommitted(4)) == [SendApply(VRRP, 1, 4)]
    assert running.tell(ChildApplied(VRRP, 1, 4)) == []
    (finished,) = running.wait(APPLY_LIMIT_US)
    assert isinstance(finished, Finished)
    assert finished.accepted
    assert finished.text.endswith("check")
    # The memory of the generation before is kept until even that one is there.
    running.tell(ProcessesChanged((process(CHECK, 2, "STARTING"),)))
    assert running.tell(ChildGreeted(CHECK, 2, 4)) == [TellAllApplied(4)]


def test_starting_child_is_asked_when_it_greets(running: Clocked) -> None:
    running.tell(ProcessesChanged((process(CHECK, 2, "STARTING"),)))
    transaction = running.transaction()
    assert running.tell(Loaded(transaction, BOTH)) == [SendPrepare(VRRP, 1, transaction, 4)]
    assert running.tell(ChildPrepared(VRRP, 1, transaction)) == []
    assert running.tell(ChildGreeted(CHECK, 2, 3)) == [SendPrepare(CHECK, 2, transaction, 4)]
    assert running.tell(ChildPrepared(CHECK, 2, transaction)) == [SendCommit(transaction, 4)]


def test_role_that_is_new_or_goes_is_not_asked(running: Clocked) -> None:
    transaction = running.transaction()
    assert running.tell(Loaded(transaction, (VRRP, BFD))) == [SendPrepare(VRRP, 1, transaction, 4)]
    running.tell(ChildPrepared(VRRP, 1, transaction))
    assert running.tell(SupervisorCommitted(4)) == [SendApply(VRRP, 1, 4)]
    running.tell(
        ProcessesChanged((process(VRRP), process(CHECK, 1, "STOPPING"), process(BFD, 1, "STARTING")))
    )
    assert running.tell(ChildApplied(VRRP, 1, 4)) == []
    assert running.tell(ChildGreeted(BFD, 1, 4))[0] == TellAllApplied(4)


# Around the commit -----------------------------------------------------------------------------------------


def test_death_of_a_child_after_the_commit_only_rolls_forward(running: Clocked) -> None:
    running.committing()
    running.tell(ProcessesChanged((process(VRRP, 1, "BACKOFF"),)))
    assert running.tell(SupervisorCommitted(4)) == [SendApply(CHECK, 1, 4)]
    running.tell(ChildApplied(CHECK, 1, 4))
    # Forked just before the commit, so it was born with the old one.
    running.tell(ProcessesChanged((process(VRRP, 2, "STARTING"),)))
    assert running.tell(ChildGreeted(VRRP, 2, 3)) == [SendApply(VRRP, 2, 4)]
    told, finished = running.tell(ChildApplied(VRRP, 2, 4))
    assert told == TellAllApplied(4)
    assert isinstance(finished, Finished) and finished.accepted


def test_supervisor_that_does_not_take_it_leaves_everything_as_it_was(running: Clocked) -> None:
    running.committing()
    *abandons, finished = running.tell(SupervisorCommitted(3))
    assert {type(action) for action in abandons} == {SendAbandon}
    assert isinstance(finished, Finished)
    assert (finished.accepted, finished.generation) == (False, 3)


def test_supervisor_that_does_not_answer_leaves_it_to_a_new_control(running: Clocked) -> None:
    running.committing()
    (action,) = running.wait(COMMIT_LIMIT_US)
    assert isinstance(action, StartOver)


def test_first_commit_is_waited_for_however_long_the_supervisor_imports() -> None:
    clocked = Clocked()
    (loading,) = clocked.tell(Born(0, ()))
    assert isinstance(loading, StartLoading)
    clocked.tell(Loaded(loading.transaction, BOTH))
    assert clocked.wait(20 * COMMIT_LIMIT_US) == []
    clocked.tell(SupervisorCommitted(1))
    assert clocked.core.generation == 1


def test_commit_nobody_asked_for_leaves_it_to_a_new_control(running: Clocked) -> None:
    (action,) = running.tell(SupervisorCommitted(9))
    assert isinstance(action, StartOver)


# Forward by level ------------------------------------------------------------------------------------------


def test_reborn_control_brings_everybody_to_the_supervisors_generation() -> None:
    clocked = Clocked(incarnation=2)
    assert clocked.tell(Born(4, BOTH)) == []
    assert clocked.tell(ChildGreeted(VRRP, 1, 3)) == [SendApply(VRRP, 1, 4)]
    assert clocked.tell(ProcessesChanged((process(VRRP), process(CHECK)))) == []
    assert clocked.tell(ChildGreeted(CHECK, 1, 4)) == []
    assert clocked.tell(ChildApplied(VRRP, 1, 4)) == [TellAllApplied(4)]


def test_reborn_control_does_not_believe_answers_to_its_predecessor() -> None:
    first, second = Clocked(incarnation=1), Clocked(incarnation=2)
    for clocked in (first, second):
        clocked.tell(Born(3, BOTH), ChildGreeted(VRRP, 1, 3), ChildGreeted(CHECK, 1, 3))
    old = first.preparing()
    new = second.preparing()
    assert old != new
    assert second.tell(ChildPrepared(VRRP, 1, old), ChildPrepared(CHECK, 1, old)) == []
    assert second.core.drops[DropReason.STALE_TRANSACTION] == 2


def test_child_that_is_not_heard_is_asked_again_and_again() -> None:
    clocked = Clocked()
    clocked.tell(Born(3, (VRRP,)), ProcessesChanged((process(VRRP),)))
    for _ in range(3):
        assert clocked.core.deadline_us == clocked.now_us + REPEAT_US
        assert clocked.wait(REPEAT_US) == [AskWho(VRRP, 1, 100)]


def test_child_that_owes_an_answer_is_asked_where_it_is_not_told_again(running: Clocked) -> None:
    running.committing()
    running.tell(SupervisorCommitted(4), ChildApplied(CHECK, 1, 4))
    assert running.wait(REPEAT_US) == [AskWho(VRRP, 1, 100)]
    # Still behind: whatever it was told was lost.
    assert running.tell(ChildGreeted(VRRP, 1, 3)) == [SendApply(VRRP, 1, 4)]


def test_life_that_has_ended_is_not_listened_to(running: Clocked) -> None:
    running.tell(ChildGreeted(VRRP, 2, 3))
    assert running.tell(ChildGreeted(VRRP, 1, 2), ChildApplied(VRRP, 1, 3)) == []
    assert running.core.drops[DropReason.STALE_INCARNATION] == 2
    assert running.core.applied_by(VRRP) == 3


def test_older_word_of_the_same_life_does_not_take_it_back(running: Clocked) -> None:
    assert running.tell(ChildGreeted(VRRP, 1, 2), ChildApplied(VRRP, 1, 2)) == []
    assert running.core.applied_by(VRRP) == 3


def test_what_nobody_committed_is_not_believed_to_run(running: Clocked) -> None:
    assert running.tell(ChildApplied(VRRP, 1, 9)) == []
    assert running.core.applied_by(VRRP) == 3
    assert running.core.drops[DropReason.STALE_GENERATION] == 1


def test_supervisors_late_word_of_a_birth_does_not_undo_the_greeting(running: Clocked) -> None:
    running.tell(ChildGreeted(VRRP, 2, 3))
    running.tell(ProcessesChanged((process(VRRP, 1, "BACKOFF"),)))
    assert running.core.applied_by(VRRP) == 3


# Who asked -------------------------------------------------------------------------------------------------


def test_requests_during_a_reload_make_one_more(running: Clocked) -> None:
    transaction = running.transaction()
    assert running.tell(ReloadAsked(), ReloadAsked("a"), ReloadAsked("a"), ReloadAsked("b")) == []
    finished, again = running.tell(Loaded(transaction, refusal="no"))
    assert isinstance(finished, Finished) and finished.askers == (HANGUP,)
    assert isinstance(again, StartLoading)
    (last,) = running.tell(Loaded(again.transaction, refusal="no"))
    assert isinstance(last, Finished) and last.askers == (HANGUP, "a", "b")


def test_asker_of_the_reload_at_hand_who_asks_again_is_not_queued(running: Clocked) -> None:
    transaction = running.transaction(asker="a")
    running.tell(ReloadAsked("a"))
    actions = running.tell(Loaded(transaction, refusal="no"))
    assert [type(action) for action in actions] == [Finished]


def test_force_of_one_asker_is_kept(running: Clocked) -> None:
    transaction = running.transaction()
    running.tell(ReloadAsked("a"), ReloadAsked("b", force=True), ReloadAsked("c"))
    _, again = running.tell(Loaded(transaction, refusal="no"))
    assert isinstance(again, StartLoading) and again.force


def test_too_many_askers_are_refused_at_once(running: Clocked) -> None:
    running.transaction()
    assert running.tell(*(ReloadAsked(f"{number}") for number in range(ASKERS_LIMIT))) == []
    (finished,) = running.tell(ReloadAsked("one more"))
    assert finished == Finished(0, ("one more",), False, 3, "too many reloads are waiting")


def test_load_that_takes_for_ever_is_refused_and_its_thread_left_behind(running: Clocked) -> None:
    running.transaction()
    finished, over = running.wait(LOAD_LIMIT_US)
    assert isinstance(finished, Finished) and not finished.accepted
    assert isinstance(over, StartOver)
