"""The life of a child: restarts, back-off, withdrawing, stopping, configuration errors."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from kad.errors import ExitStatus
from kad.ipc.messages import Role
from kad.supervisor.child import (
    ABORT_GRACE_US,
    STARVED_FACTOR,
    WITHDRAW_LIMIT_US,
    Action,
    Child,
    EndDaemon,
    Event,
    Exited,
    Fork,
    Forked,
    ForkFailed,
    ForkWithdraw,
    Hung,
    Kill,
    Ready,
    RestartPolicy,
    Start,
    State,
    StateChanged,
    Stop,
    TimePassed,
    WithdrawExited,
    WithdrawForked,
    describe_exit,
)

S = 1_000_000
MASTER_DOWN = 3 * S


class Life:
    """A child, its clock, and what it asked for."""

    def __init__(self, role: Role = Role.VRRP, *, withdraws: bool = True, respawn: bool = True) -> None:
        self.child = Child(role, withdraws=withdraws, respawn=respawn)
        self.now_us = 1_000 * S
        self.pid = 100

    def tell(self, event: Event) -> list[Action]:
        """The actions but for state changes."""
        actions = self.child.handle(event, self.now_us)
        return [action for action in actions if not isinstance(action, StateChanged)]

    def run(self) -> None:
        """From Fork to RUNNING."""
        self.pid += 1
        assert self.tell(Forked(self.pid)) == []
        assert self.tell(Ready()) == []
        assert self.child.state == State.RUNNING

    def start(self) -> None:
        assert self.tell(Start()) == [Fork(1, hold_preemption=False)]
        self.run()

    def crash(self, after_us: int = S) -> list[Action]:
        self.now_us += after_us
        return self.tell(Exited(-9))

    def withdraw(self) -> list[Action]:
        assert self.tell(WithdrawForked(9_000)) == []
        return self.tell(WithdrawExited(0))

    def wait(self) -> tuple[int, list[Action]]:
        """Until the deadline: how long, and what then."""
        deadline_us = self.child.deadline_us
        assert deadline_us is not None
        waited_us, self.now_us = max(0, deadline_us - self.now_us), max(self.now_us, deadline_us)
        return waited_us, self.tell(TimePassed())


def delays(lives_us: Sequence[int]) -> list[int]:
    policy, now_us, found = RestartPolicy(), 0, []
    for lived_us in lives_us:
        now_us += lived_us
        found.append(policy.died(now_us, lived_us))
        now_us += found[-1]
    return [delay_us // S for delay_us in found]


def test_three_at_once_then_doubling_to_a_minute() -> None:
    assert delays([S] * 12) == [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_life_of_a_minute_forgives() -> None:
    assert delays([S] * 6 + [60 * S] + [S] * 4) == [0, 0, 0, 1, 2, 4, 0, 0, 0, 1, 2]
    assert delays([S] * 6 + [60 * S - 1] + [S] * 2) == [0, 0, 0, 1, 2, 4, 8, 16, 32]


def test_spaced_deaths_never_back_off() -> None:
    assert delays([21 * S] * 50) == [0] * 50


def test_backoff_does_not_leave_by_its_own_delays() -> None:
    found = delays([S] * 40)
    assert found[10:] == [60] * 30


@given(st.lists(st.integers(0, 120 * S), max_size=60))
def test_no_four_immediate_restarts_in_a_minute(lives_us: list[int]) -> None:
    policy, now_us, at_once = RestartPolicy(), 0, []
    for lived_us in lives_us:
        now_us += lived_us
        delay_us = policy.died(now_us, lived_us)
        assert 0 <= delay_us <= 60 * S
        if delay_us == 0:
            if lived_us >= 60 * S:
                at_once.clear()
            at_once.append(now_us)
            assert len([at for at in at_once if at > now_us - 60 * S]) <= 3
        now_us += delay_us


def test_start_ready_stop() -> None:
    life = Life()
    life.start()
    assert life.tell(Stop(5 * S)) == [Kill(101, signal.SIGTERM), Kill(101, signal.SIGCONT)]
    assert life.child.state == State.STOPPING
    assert life.tell(Exited(0)) == []
    assert (life.child.state, life.child.deadline_us, life.child.pid) == (State.STOPPED, None, 0)


def test_crash_restarts_at_once_and_counts() -> None:
    life = Life()
    life.start()
    assert life.crash() == [Fork(2, hold_preemption=False)]
    life.run()
    info = life.child.info()
    assert (info.incarnation, info.restarts, info.last_exit) == (2, 1, "signal SIGKILL")


def test_third_crash_withdraws_and_the_next_does_not_preempt() -> None:
    life = Life()
    life.start()
    assert life.crash() == [Fork(2, hold_preemption=False)]
    life.run()
    assert life.crash() == [Fork(3, hold_preemption=False)]
    life.run()
    assert life.crash() == [ForkWithdraw(3)]
    assert life.withdraw() == [Fork(4, hold_preemption=True)]
    life.run()
    # And so does every one after it, until one has lived for a minute.
    assert life.crash() == [ForkWithdraw(4)]
    assert life.withdraw() == []
    assert life.wait() == (S, [Fork(5, hold_preemption=True)])
    life.run()
    assert life.crash(60 * S) == [Fork(6, hold_preemption=False)]


def test_third_crash_of_a_role_that_does_not_withdraw() -> None:
    life = Life(Role.CHECK, withdraws=False)
    life.start()
    for number in (2, 3, 4):
        assert life.crash() == [Fork(number, hold_preemption=False)]
        life.run()
    assert life.crash() == []
    assert life.wait() == (S, [Fork(5, hold_preemption=False)])


def test_delay_beyond_master_down_withdraws_even_without_crashes_counted() -> None:
    life = Life()
    life.child.least_master_down_us = 30_000
    life.start()
    for number in (2, 3):
        assert life.crash() == [Fork(number, hold_preemption=False)]
        life.run()
    assert life.crash() == [ForkWithdraw(3)]


def test_next_child_only_after_the_withdrawing_one_is_reaped() -> None:
    life = Life()
    life.start()
    for _ in range(2):
        life.crash()
        life.run()
    assert life.crash() == [ForkWithdraw(3)]
    assert life.tell(WithdrawForked(9_000)) == []
    life.now_us += S
    assert life.tell(TimePassed()) == []
    # A withdrawing child that hangs is killed, and then too the next one waits for the reaping.
    waited_us, actions = life.wait()
    assert (waited_us, actions) == (WITHDRAW_LIMIT_US - S, [Kill(9_000, signal.SIGKILL)])
    assert life.tell(TimePassed()) == []
    assert life.tell(WithdrawExited(-9)) == [Fork(4, hold_preemption=True)]


def test_configuration_error_stops_the_daemon_only_before_the_first_ready() -> None:
    for status in (2, 4):
        life = Life()
        life.tell(Start())
        life.tell(Forked(101))
        [end] = life.tell(Exited(status))
        assert isinstance(end, EndDaemon)
        assert end.status == status
        assert life.child.state == State.STOPPED
    for status in (2, 4):
        life = Life()
        life.start()
        life.now_us += S
        assert life.tell(Exited(status)) == [Fork(2, hold_preemption=False)]
        # Also in a later life that has not been READY itself.
        life.tell(Forked(102))
        life.now_us += S
        assert life.tell(Exited(status)) == [Fork(3, hold_preemption=False)]


def test_other_early_exits_are_crashes() -> None:
    for status in (0, 1, 3, 70, -6, -11):
        life = Life()
        life.tell(Start())
        life.tell(Forked(101))
        assert life.tell(Exited(status)) == [Fork(2, hold_preemption=False)]


def test_no_respawn_ends_the_daemon_after_withdrawing() -> None:
    life = Life(respawn=False)
    life.start()
    withdraw, end = life.crash()
    assert withdraw == ForkWithdraw(1)
    assert isinstance(end, EndDaemon)
    assert end.status == ExitStatus.OK
    assert life.withdraw() == []
    assert life.child.state == State.STOPPED


def test_stop_that_takes_too_long() -> None:
    life = Life()
    life.start()
    assert life.tell(Stop(5 * S)) == [Kill(101, signal.SIGTERM), Kill(101, signal.SIGCONT)]
    assert life.tell(Stop(1 * S)) == [], "told once"
    assert life.wait() == (5 * S, [Kill(101, signal.SIGKILL)])
    # It cannot have withdrawn: somebody must.
    assert life.tell(Exited(-9)) == [ForkWithdraw(1)]
    assert "did not stop in time" in life.child.last_exit
    assert life.withdraw() == []
    assert life.child.state == State.STOPPED


def test_one_that_is_not_let_run_is_given_its_time_to_leave_again_but_not_for_ever() -> None:
    life = Life()
    life.start()
    life.tell(Stop(5 * S))
    for _ in range(STARVED_FACTOR - 1):
        life.now_us += 5 * S
        assert life.tell(TimePassed(starved=True)) == []
        assert life.child.deadline_us == life.now_us + 5 * S
    life.now_us += 5 * S
    assert life.tell(TimePassed(starved=True)) == [Kill(101, signal.SIGKILL)]
    assert life.tell(Exited(-9)) == [ForkWithdraw(1)]
    life.tell(WithdrawForked(9_000))
    life.now_us += WITHDRAW_LIMIT_US
    assert life.tell(TimePassed(starved=True)) == []
    assert life.tell(WithdrawExited(0)) == []
    assert life.child.state == State.STOPPED


def test_a_hung_child_has_the_time_for_its_traceback_once_whatever_was_before() -> None:
    life = Life()
    life.start()
    for _ in range(3):
        actions = life.crash()
    assert actions == [ForkWithdraw(3)]
    assert life.withdraw() == [Fork(4, hold_preemption=True)]
    life.run()
    life.tell(Hung(True, "hung"))
    assert life.child.patience_us == ABORT_GRACE_US
    life.now_us += ABORT_GRACE_US
    assert life.tell(TimePassed(starved=True)) == [Kill(102, signal.SIGKILL)]


def test_stop_during_backoff() -> None:
    life = Life()
    life.start()
    for _ in range(3):
        life.crash()
        life.withdraw() if life.child.state == State.BACKOFF else None
        life.run()
    assert life.crash() == [ForkWithdraw(4)]
    life.tell(WithdrawForked(9_000))
    assert life.tell(Stop(5 * S)) == []
    assert life.child.state == State.STOPPING
    assert life.tell(WithdrawExited(0)) == []
    assert life.child.state == State.STOPPED
    assert life.child.deadline_us is None


def test_start_while_stopping_starts_afterwards() -> None:
    life = Life()
    life.start()
    life.tell(Stop(5 * S))
    assert not life.child.wanted
    assert life.tell(Start()) == []
    assert life.child.wanted, "its pid file stays locked"
    assert life.tell(Exited(0)) == [Fork(2, hold_preemption=False)]


def test_stop_while_starting_again_is_heard() -> None:
    life = Life()
    life.start()
    life.tell(Stop(5 * S))
    life.tell(Start())
    life.tell(Stop(5 * S))
    assert life.tell(Exited(0)) == []
    assert life.child.state == State.STOPPED


def test_hang_asks_for_the_stack_and_then_kills() -> None:
    life = Life()
    life.start()
    assert life.tell(Hung(True, "hung, sleeping")) == [Kill(101, signal.SIGABRT)]
    assert life.tell(Hung(True, "hung, sleeping")) == [], "sentenced once"
    assert life.wait() == (ABORT_GRACE_US, [Kill(101, signal.SIGKILL)])
    assert life.tell(Exited(-9)) == [Fork(2, hold_preemption=False)]
    assert life.child.last_exit == "signal SIGKILL (hung, sleeping)"
    assert life.child.deadline_us is None


def test_hang_of_a_stopped_process_kills_at_once() -> None:
    life = Life()
    life.start()
    assert life.tell(Hung(False, "hung, stopped")) == [Kill(101, signal.SIGKILL)]


def test_no_process_to_be_had() -> None:
    life = Life()
    assert life.tell(Start()) == [Fork(1, hold_preemption=False)]
    assert life.tell(ForkFailed("Resource temporarily unavailable", withdraw=False)) == []
    assert life.wait() == (S, [Fork(2, hold_preemption=False)])
    assert life.tell(ForkFailed("again", withdraw=False)) == []
    life.tell(Stop(5 * S))
    assert life.child.state == State.STOPPED


def test_no_process_for_withdrawing() -> None:
    life = Life()
    life.start()
    for _ in range(2):
        life.crash()
        life.run()
    assert life.crash() == [ForkWithdraw(3)]
    assert life.tell(ForkFailed("none", withdraw=True)) == [Fork(4, hold_preemption=True)]


def test_exits_in_words() -> None:
    assert [describe_exit(code) for code in (0, 70, -9, -64)] == [
        "exit status 0",
        "exit status 70",
        "signal SIGKILL",
        "signal SIGRTMAX",
    ]
    assert describe_exit(-50) == "signal 50"


moves = st.lists(
    st.sampled_from(["stop", "start", "crash", "clean", "ready", "hang", "wait", "fail"]), max_size=40
)


@settings(max_examples=400, deadline=None)
@given(moves, st.booleans())
def test_one_process_at_a_time_whatever_happens(history: list[str], withdraws: bool) -> None:
    """The kernel's side is played truthfully; never are there two processes, and no wish is lost."""
    life = Life(withdraws=withdraws)
    alive: dict[int, bool] = {}
    wanted = True
    failing = False

    def perform(actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Fork | ForkWithdraw):
                assert not alive, "two processes"
                is_withdraw = isinstance(action, ForkWithdraw)
                if failing:
                    perform(life.tell(ForkFailed("none", withdraw=is_withdraw)))
                    continue
                life.pid += 1
                alive[life.pid] = is_withdraw
                perform(life.tell(WithdrawForked(life.pid) if is_withdraw else Forked(life.pid)))
            elif isinstance(action, Kill):
                assert action.pid in alive
                if action.signum == signal.SIGKILL:
                    die(-9)

    def die(code: int) -> None:
        for is_withdraw in list(alive.values()):
            alive.clear()
            perform(life.tell(WithdrawExited(code) if is_withdraw else Exited(code)))

    perform(life.tell(Start()))
    for move in history:
        life.now_us += S // 10
        if move == "stop":
            wanted = False
            perform(life.tell(Stop(5 * S)))
        elif move == "start":
            wanted = True
            perform(life.tell(Start()))
        elif move in ("crash", "clean"):
            die(-9 if move == "crash" else 0)
        elif move == "ready":
            perform(life.tell(Ready()))
        elif move == "hang":
            perform(life.tell(Hung(True, "hung")))
        elif move == "fail":
            failing = not failing
        elif life.child.deadline_us is not None:
            perform(life.wait()[1])
        assert life.child.state != State.STOPPED or not alive
    failing = False
    for _ in range(8):
        if life.child.deadline_us is not None:
            perform(life.wait()[1])
        if not wanted:
            die(0)
    if wanted:
        assert life.child.alive or life.child.state == State.STOPPING
    else:
        assert life.child.state == State.STOPPED


def test_who_cleans_up_does_so_only_when_it_is_not_to_come_back() -> None:
    life = Life(Role.CHECK, withdraws=False)
    life.child = Child(Role.CHECK, withdraws=False, cleans_up=True)
    life.start()
    for number in (2, 3, 4):
        assert life.crash(after_us=0) == [Fork(number, hold_preemption=False)]
        life.run()
    assert life.crash(after_us=0) == []
    assert life.child.state == State.BACKOFF
    assert life.tell(Stop(5 * S)) == [ForkWithdraw(4)]
    life.tell(WithdrawForked(200))
    assert life.tell(WithdrawExited(0)) == []
    assert life.child.state == State.STOPPED


def test_who_left_in_order_has_cleaned_up() -> None:
    life = Life(Role.CHECK, withdraws=False)
    life.child = Child(Role.CHECK, withdraws=False, cleans_up=True)
    life.start()
    life.tell(Stop(5 * S))
    assert life.tell(Exited(0)) == []
    assert life.child.state == State.STOPPED
