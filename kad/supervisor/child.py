"""The life of one child process, as a machine without effects.

    STOPPED → STARTING → RUNNING → (death) BACKOFF → STARTING …
    any → STOPPING → STOPPED

A child that dies is restarted at once three times within 60 s, then after 1, 2, 4 … 60 s; a life of 60 s
forgives everything before it. Only before the role's first READY may an exit with a configuration error end
the daemon: after that every exit is a crash and is survived.

A role that withdraws (VRRP) gets a one-shot child in withdraw mode before the next one, when its addresses
would otherwise stay although nobody speaks for them: the restart is later than the least master-down
interval, or the node has crashed for the third time within 60 s, or the child that was told to stop did not
leave in order. One that cleans up (the checker, of its virtual servers) gets that only for the last of these:
while it is to come back, what it left goes on serving.
"""

from __future__ import annotations

import signal
from enum import StrEnum
from typing import assert_never

from msgspec import Struct

from kad.errors import ExitStatus
from kad.ipc.messages import ProcessInfo, Role
from kad.units import US_PER_MS, US_PER_SECOND

FORGIVEN_AFTER_US = 60 * US_PER_SECOND
"""A life this long wipes the slate; also the window in which crashes are counted."""
IMMEDIATE_RESTARTS = 3
LONGEST_DELAY_US = 60 * US_PER_SECOND
ABORT_GRACE_US = 100 * US_PER_MS
"""From SIGABRT (faulthandler writes where it stood) to SIGKILL."""
WITHDRAW_LIMIT_US = 2 * US_PER_SECOND
STARVED_FACTOR = 5
"""How often one that is leaving is given its time when it was not let run: what it holds goes with it."""
CONFIGURATION_EXITS = frozenset({int(ExitStatus.MISSING_ARGUMENT), int(ExitStatus.CANNOT_RUN)})

WITH_LAST_WORDS = frozenset(
    {ExitStatus.SOFTWARE, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL}
)
"""Ends that leave something in the crash file: an uncaught exception, what faulthandler sees."""


class State(StrEnum):
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    BACKOFF = "BACKOFF"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"


# What happens to a child ---------------------------------------------------------------------------------


class Start(Struct, frozen=True):
    """The role is wanted."""


class Stop(Struct, frozen=True):
    """The role is not wanted any more. SIGKILL follows when it has not left within ``wait_us``."""

    wait_us: int


class Forked(Struct, frozen=True):
    pid: int


class ForkFailed(Struct, frozen=True):
    """The system had no process for us. ``withdraw``: it was the withdrawing child's fork."""

    reason: str
    withdraw: bool


class Ready(Struct, frozen=True):
    """Its heartbeat page says READY."""


class Exited(Struct, frozen=True):
    """``code``: the exit status, or the negative number of the signal it died of."""

    code: int


class WithdrawForked(Struct, frozen=True):
    pid: int


class WithdrawExited(Struct, frozen=True):
    code: int


class Hung(Struct, frozen=True):
    """The hang verdict: ask for its stack first (SIGABRT), or kill at once."""

    abort: bool
    text: str


class TimePassed(Struct, frozen=True):
    """The deadline may have come. ``starved``: it was to be killed, but has hardly been let run."""

    starved: bool = False


Event = (
    Start | Stop | Forked | ForkFailed | Ready | Exited | WithdrawForked | WithdrawExited | Hung | TimePassed
)


# What is to be done --------------------------------------------------------------------------------------


class Fork(Struct, frozen=True):
    incarnation: int
    hold_preemption: bool


class ForkWithdraw(Struct, frozen=True):
    incarnation: int


class Kill(Struct, frozen=True):
    pid: int
    signum: int


class EndDaemon(Struct, frozen=True):
    status: int
    text: str


class StateChanged(Struct, frozen=True):
    old: State
    new: State
    reason: str


Action = Fork | ForkWithdraw | Kill | EndDaemon | StateChanged


class RestartPolicy:
    """When the next life begins. Times are CLOCK_MONOTONIC microseconds."""

    def __init__(self) -> None:
        self._crashes_us: list[int] = []
        self._level = 0

    def died(self, now_us: int, lived_us: int) -> int:
        """Count a death; the delay until the restart."""
        if lived_us >= FORGIVEN_AFTER_US:
            self._crashes_us.clear()
            self._level = 0
        self._crashes_us = [at for at in self._crashes_us if at > now_us - FORGIVEN_AFTER_US]
        self._crashes_us = [*self._crashes_us[-IMMEDIATE_RESTARTS:], now_us]
        # Once in back-off only a long life leads out: its own delays would empty the window.
        if self._level == 0 and len(self._crashes_us) <= IMMEDIATE_RESTARTS:
            return 0
        self._level += 1
        return min(US_PER_SECOND << min(self._level - 1, 16), LONGEST_DELAY_US)

    @property
    def crashing(self) -> bool:
        """The third crash within 60 s, or already in back-off."""
        return self._level > 0 or len(self._crashes_us) >= IMMEDIATE_RESTARTS


def describe_exit(code: int) -> str:
    """The end of a process in words."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


class Child:
    """One role's process through all its lives."""

    def __init__(self, role: Role, *, withdraws: bool, cleans_up: bool = False, respawn: bool = True) -> None:
        self.role = role
        self.state = State.STOPPED
        self.pid = 0
        self.withdraw_pid = 0
        self.incarnation = 0
        self.restarts = 0
        self.since_us = 0
        self.last_exit = ""
        self.least_master_down_us = 3 * US_PER_SECOND
        self._withdraws = withdraws
        self._cleans_up = withdraws or cleans_up
        self._respawn = respawn
        self._policy = RestartPolicy()
        self._wanted = False
        self._been_ready = False
        self._withdrawn = True
        self._forked_at_us = 0
        self._restart_at_us: int | None = None
        self._kill_at_us: int | None = None
        self.patience_us = 0
        """How long it was given for what it is to be killed after."""
        self._chances = 0
        self._sentence = ""

    @property
    def deadline_us(self) -> int | None:
        """When :class:`TimePassed` is due."""
        if self._kill_at_us is not None:
            return self._kill_at_us
        return self._restart_at_us if not self.withdraw_pid else None

    @property
    def alive(self) -> bool:
        """It runs and is expected to tick."""
        return self.state in (State.STARTING, State.RUNNING) and self.pid != 0

    @property
    def wanted(self) -> bool:
        """It is to run, though it may be leaving before that."""
        return self._wanted

    @property
    def been_ready(self) -> bool:
        """Some life of this role has been READY."""
        return self._been_ready

    def info(self) -> ProcessInfo:
        return ProcessInfo(
            role=self.role,
            pid=self.pid,
            incarnation=self.incarnation,
            state=self.state.value,
            restarts=self.restarts,
            since_us=self.since_us,
            last_exit=self.last_exit,
        )

    def handle(self, event: Event, now_us: int) -> list[Action]:
        """What to do about ``event``. Effects are reported back as events, in the order they happen."""
        match event:
            case Start():
                return self._start(now_us)
            case Stop():
                return self._stop(event.wait_us, now_us)
            case Forked():
                self.pid, self._forked_at_us, self._withdrawn = event.pid, now_us, False
                return self._enter(State.STARTING, now_us, f"process {event.pid}")
            case ForkFailed():
                return self._fork_failed(event, now_us)
            case Ready():
                return self._ready(now_us)
            case Exited():
                return self._exited(event.code, now_us)
            case WithdrawForked():
                self.withdraw_pid = event.pid
                self._limit(WITHDRAW_LIMIT_US, now_us)
                return []
            case WithdrawExited():
                return self._withdraw_exited(now_us)
            case Hung():
                return self._hung(event, now_us)
            case TimePassed():
                return self._time_passed(now_us, starved=event.starved)
            case _:
                assert_never(event)

    # One function an event -------------------------------------------------------------------------------

    def _start(self, now_us: int) -> list[Action]:
        self._wanted = True
        # While it is stopping, the wish is carried out when it has left.
        return self._fork() if self.state == State.STOPPED else []

    def _stop(self, wait_us: int, now_us: int) -> list[Action]:
        self._wanted = False
        if self.state in (State.STOPPED, State.STOPPING):
            return []
        actions = self._enter(State.STOPPING, now_us, "told to stop")
        self._restart_at_us = None
        if self.pid:
            self._limit(wait_us, now_us)
            # One that somebody stopped is to leave in order too.
            return [*actions, Kill(self.pid, signal.SIGTERM), Kill(self.pid, signal.SIGCONT)]
        if self.withdraw_pid:
            return actions
        return actions + self._leave(now_us)

    def _ready(self, now_us: int) -> list[Action]:
        if self.state != State.STARTING:
            return []
        self._been_ready = True
        return self._enter(State.RUNNING, now_us, "ready")

    def _exited(self, code: int, now_us: int) -> list[Action]:
        self.last_exit = describe_exit(code) + (f" ({self._sentence})" if self._sentence else "")
        self._kill_at_us, self._sentence = None, ""
        self.pid = 0
        if self.state == State.STOPPING:
            self._withdrawn = code == 0
            return self._leave(now_us)
        if code in CONFIGURATION_EXITS and not self._been_ready:
            self._wanted = False
            text = f"{self.role} cannot run this configuration ({describe_exit(code)})"
            return [*self._enter(State.STOPPED, now_us, self.last_exit), EndDaemon(code, text)]
        if not self._respawn:
            self._wanted = False
            actions = self._enter(State.STOPPING, now_us, self.last_exit)
            end = EndDaemon(ExitStatus.OK, f"{self.role} died ({self.last_exit}) and is not to be restarted")
            return [*actions, *self._leave(now_us), end]
        return self._crashed(now_us)

    def _crashed(self, now_us: int) -> list[Action]:
        delay_us = self._policy.died(now_us, now_us - self._forked_at_us)
        self._restart_at_us = now_us + delay_us
        late = delay_us > self.least_master_down_us
        actions = self._enter(State.BACKOFF, now_us, self.last_exit)
        if self._withdraws and (late or self._policy.crashing):
            return [*actions, ForkWithdraw(self.incarnation)]
        return actions + self._time_passed(now_us)

    def _fork_failed(self, event: ForkFailed, now_us: int) -> list[Action]:
        if event.withdraw:
            return self._withdraw_exited(now_us)
        self.last_exit = f"no process: {event.reason}"
        # Not the child's fault, and at once would fail again.
        self._restart_at_us = now_us + US_PER_SECOND
        return self._enter(State.BACKOFF, now_us, self.last_exit)

    def _withdraw_exited(self, now_us: int) -> list[Action]:
        self.withdraw_pid, self._kill_at_us = 0, None
        # Whatever it could not do, a second one could not do either.
        self._withdrawn = True
        if self.state == State.STOPPING:
            return self._leave(now_us)
        return self._time_passed(now_us)

    def _hung(self, event: Hung, now_us: int) -> list[Action]:
        if not self.alive or self._kill_at_us is not None:
            return []
        self._sentence = event.text
        if event.abort:
            self._limit(ABORT_GRACE_US, now_us, chances=0)
            return [Kill(self.pid, signal.SIGABRT)]
        return [Kill(self.pid, signal.SIGKILL)]

    def _time_passed(self, now_us: int, *, starved: bool = False) -> list[Action]:
        deadline_us = self.deadline_us
        if deadline_us is None or now_us < deadline_us:
            return []
        if starved and self._chances and self._kill_at_us is not None:
            self._chances -= 1
            self._kill_at_us = now_us + self.patience_us
            return []
        if self._kill_at_us is not None:
            self._kill_at_us = None
            self._sentence = self._sentence or "did not stop in time"
            return [Kill(self.pid or self.withdraw_pid, signal.SIGKILL)]
        self._restart_at_us = None
        return self._fork()

    def _limit(self, patience_us: int, now_us: int, chances: int = STARVED_FACTOR - 1) -> None:
        """Kill it then; ``chances``: how often it gets the same time again where it is starved."""
        self._kill_at_us = now_us + patience_us
        self.patience_us, self._chances = patience_us, chances

    # Steps -----------------------------------------------------------------------------------------------

    def _fork(self) -> list[Action]:
        if self.incarnation:
            self.restarts += 1
        self.incarnation += 1
        return [Fork(self.incarnation, hold_preemption=self._withdraws and self._policy.crashing)]

    def _leave(self, now_us: int) -> list[Action]:
        """STOPPING and without a process: withdraw what it left behind, then be STOPPED, or start again."""
        if self._cleans_up and not self._withdrawn:
            return [ForkWithdraw(self.incarnation)]
        actions = self._enter(State.STOPPED, now_us, self.last_exit or "stopped")
        return actions + (self._fork() if self._wanted else [])

    def _enter(self, state: State, now_us: int, reason: str) -> list[Action]:
        old, self.state, self.since_us = self.state, state, now_us
        return [StateChanged(old, state, reason)]
