"""One vrrp_script: when it runs, how long it may take, and what its results add up to. Pure.

A run that is still going when the next is due is not joined by another one. A run that takes too long has
failed at that moment (keepalived waits for its end, and takes the status of one that exits by itself after
SIGTERM); its process group gets SIGTERM, then SIGKILL for as long as it lives.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import assert_never

from msgspec import Struct

from kad.config.model.script import ScriptCommand
from kad.config.model.track import TrackScript
from kad.units import NEVER

TERMINATE_US = 2_000_000
"""From SIGTERM to SIGKILL, and from there to the next one."""
KILL_AGAIN_US = 10_000_000
"""Between further ones."""


class ScriptEnded(Struct, frozen=True):
    """A run is over.

    ``status``: exit status, negative the signal that killed it; None: it was not run, which says nothing
    about what it would have found. Then ``why`` is for people, and ``refused`` tells a script that cannot be
    executed from want of room to run any.
    """

    script: str
    serial: int
    status: int | None
    why: str = ""
    refused: bool = False


class ScriptDue(Struct, frozen=True):
    """The deadline has come."""


class RunScript(Struct, frozen=True):
    """Start a run; answered by ScriptEnded with the same serial, always."""

    script: str
    serial: int
    command: ScriptCommand


class Ending(Enum):
    """How a run is made to end."""

    TERMINATE = auto()
    """SIGTERM to its process group, and SIGKILL to what is left of the group when the script has ended."""
    KILL = auto()
    """SIGKILL to its process group."""


class EndScript(Struct, frozen=True):
    script: str
    serial: int
    how: Ending


class ScriptSays(Struct, frozen=True):
    """A line for the log."""

    text: str
    warns: bool = False


class ScriptTurned(Struct, frozen=True):
    """It is good, or bad, from now on. The first result tells too."""

    up: bool


ScriptAction = RunScript | EndScript | ScriptSays | ScriptTurned


class ScriptMemory(Struct, frozen=True, array_like=True):
    """What a later life needs to know."""

    result: int
    answered: bool
    status: int


class _Phase(Enum):
    IDLE = "idle"
    RUNNING = "running"
    TERMINATING = "requested termination"
    KILLING = "forcing termination"


class ScriptTracker:
    """See the module. Begins with a run at once.

    ``next_serial`` numbers runs, unlike any run before. ``awaited``: those who follow it unweighted wait for
    its first result (at the daemon's start; not when a reload brings it in).
    """

    def __init__(
        self, config: TrackScript, next_serial: Callable[[], int], now_us: int, *, awaited: bool = True
    ) -> None:
        self.config = config
        self._next_serial = next_serial
        self._phase = _Phase.IDLE
        self._serial = 0
        self._due_us = now_us
        self._limit_us = NEVER
        self._said_busy = False
        self._not_run = ""
        """Why the last run was none, which is said once in a row."""
        self.awaited = awaited and not config.init_fail
        self.answered = config.init_fail
        """Whether there is a result, or one was assumed."""
        self.result = 0 if config.init_fail else config.rise - 1
        """0 to rise + fall - 1; good from rise up. One success, or one failure, is enough at first."""
        self._status = 0

    @property
    def up(self) -> bool:
        return self.result >= self.config.rise

    @property
    def running(self) -> bool:
        return self._phase is not _Phase.IDLE

    @property
    def status(self) -> int:
        """What the last run that ended by itself ended with."""
        return self._status

    @property
    def phase(self) -> str:
        """What it is at, in keepalived's words."""
        return self._phase.value

    @property
    def deadline_us(self) -> int:
        return min(self._due_us, self._limit_us)

    def memory(self) -> ScriptMemory:
        return ScriptMemory(self.result, self.answered, self._status)

    def restore(self, memory: ScriptMemory) -> None:
        """A former life's result counts until there is a new one."""
        if memory.answered:
            self.answered = True
            self.awaited = False
            self._status = memory.status
            self.result = max(0, min(memory.result, self.config.rise + self.config.fall - 1))

    def configure(self, config: TrackScript) -> None:
        """A reload changed something other than what is run; the result stays as good or bad as it was."""
        up, old = self.up, self.config
        self.config = config
        if not self.answered:
            self.result = config.rise - 1
        elif (config.rise, config.fall) != (old.rise, old.fall):
            self.result = config.rise + config.fall - 1 if up else 0
        if self._serial:
            self._due_us += config.interval_us - old.interval_us

    def stop(self, now_us: int) -> list[ScriptAction]:
        """Never run again; a run that is going is made to end, which :attr:`running` tells."""
        self._due_us = NEVER
        if self._phase is not _Phase.RUNNING:
            return []
        self._phase = _Phase.TERMINATING
        self._limit_us = now_us + TERMINATE_US
        return [EndScript(self.config.name, self._serial, Ending.TERMINATE)]

    def handle(self, event: ScriptEnded | ScriptDue, now_us: int) -> list[ScriptAction]:
        match event:
            case ScriptEnded():
                return self._on_end(event, now_us)
            case ScriptDue():
                return self._on_time(now_us)
            case _:
                assert_never(event)

    def _on_time(self, now_us: int) -> list[ScriptAction]:
        actions: list[ScriptAction] = []
        if self._limit_us <= now_us:
            actions += self._press(now_us)
        if self._due_us <= now_us:
            actions += self._run(now_us)
        return actions

    # Running -------------------------------------------------------------------------------------------

    def _run(self, now_us: int) -> list[ScriptAction]:
        interval_us = self.config.interval_us
        self._due_us += interval_us * ((now_us - self._due_us) // interval_us + 1)
        if self._phase is not _Phase.IDLE:
            return self._skip()
        self._phase = _Phase.RUNNING
        self._serial = self._next_serial()
        self._said_busy = False
        self._limit_us = now_us + (self.config.timeout_us or interval_us)
        return [RunScript(self.config.name, self._serial, self.config.command)]

    def _skip(self) -> list[ScriptAction]:
        if self._said_busy:
            return []
        self._said_busy = True
        doing = "already running" if self._phase is _Phase.RUNNING else "being timed out"
        return [ScriptSays(f"Track script {self.config.name} is {doing}, expect idle - skipping run")]

    def _press(self, now_us: int) -> list[ScriptAction]:
        """It takes too long."""
        name = self.config.name
        match self._phase:
            case _Phase.RUNNING:
                self._phase = _Phase.TERMINATING
                self._limit_us = now_us + TERMINATE_US
                ending = EndScript(name, self._serial, Ending.TERMINATE)
                return [ending, *self._count(False, "timed_out")]
            case _Phase.TERMINATING:
                self._phase = _Phase.KILLING
                self._limit_us = now_us + TERMINATE_US
                return [EndScript(name, self._serial, Ending.KILL)]
            case _Phase.KILLING:
                self._limit_us = now_us + KILL_AGAIN_US
                says = ScriptSays(f"Script {name} failed to terminate after kill")
                return [says, EndScript(name, self._serial, Ending.KILL)]
            case _Phase.IDLE:
                raise AssertionError("nothing runs")
        assert_never(self._phase)

    # Results -------------------------------------------------------------------------------------------

    def _on_end(self, event: ScriptEnded, now_us: int) -> list[ScriptAction]:
        if event.serial != self._serial or self._phase is _Phase.IDLE:
            return []
        counted = self._phase is not _Phase.RUNNING
        self._phase = _Phase.IDLE
        self._limit_us = NEVER
        status = event.status
        if status is None:
            return [] if counted else self._on_refusal(event)
        self._not_run = ""
        if counted:
            return []
        actions: list[ScriptAction] = []
        if status >= 0 and status != self._status:
            self._status = status
            actions.append(ScriptSays(f"Script `{self.config.name}` now returning {status}"))
        why = "succeeded"
        if status:
            cause = f"exited with status {status}" if status > 0 else f"due to signal {-status}"
            why = f"failed ({cause})"
        return actions + self._count(status == 0, why)

    def _on_refusal(self, event: ScriptEnded) -> list[ScriptAction]:
        """Nothing was learnt. keepalived takes a script that cannot be executed for a success at any time;
        here it counts for one only where there is no result yet, so that nobody waits for it."""
        actions: list[ScriptAction] = []
        if event.why != self._not_run:
            self._not_run = event.why
            actions.append(
                ScriptSays(f"Script `{self.config.name}` could not be run: {event.why}", warns=True)
            )
        if event.refused and not self.answered:
            actions += self._count(True, "counts as a success until it can be run")
        return actions

    def _count(self, success: bool, why: str) -> list[ScriptAction]:
        """One result more. Says whether that turns it, and so does the first result."""
        rise, top = self.config.rise, self.config.rise + self.config.fall - 1
        was_up, was_answered = self.up, self.answered
        if success:
            self.result = self.result + 1 if self.result < rise - 1 else top
        else:
            self.result = self.result - 1 if self.result > rise else 0
        self.answered = True
        self.awaited = False
        if was_answered and self.up is was_up:
            return []
        return [ScriptSays(f"VRRP_Script({self.config.name}) {why}"), ScriptTurned(self.up)]
