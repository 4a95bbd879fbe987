"""Is a child hung? Look before you kill.

A child's driver ticks a counter after draining its core, and only while the core's deadline is not overdue.
The supervisor looks at the counters a few times in each hang limit. Where a counter stands still, it looks
at what the kernel says of the process:

* traced, or in uninterruptible sleep: somebody or something else holds it. Log only.
* runnable, but not run (starved, throttled): it may be well. Log, and wait up to five times the limit.
* stopped: SIGABRT would not reach it. SIGKILL.
* sleeping, as it has announced, and not longer: it has nothing to do.
* sleeping or running: it does not come back to its loop. SIGABRT, then SIGKILL.

Time is only held against a child in slices as long as a look: when the supervisor itself overslept, the whole
machine stood still and that is nobody's hang.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

from msgspec import Struct

from kad.runtime.heartbeat import Phase

LOOKS_PER_LIMIT = 5
STARVED_FACTOR = 5
PHASE_FACTOR = {Phase.STARTING: 10, Phase.PREPARING: 5, Phase.READY: 1}
"""How many limits a child may take in each phase. STOPPING has a limit of its own (child_wait)."""
STARVED_PART = 5
"""Runnable, and used less than the limit's so-manieth part of a processor since it ticked: starved."""
LONGEST_SLEEP_US = 10_000_000
"""Nobody is believed to be asleep for longer."""
DOUBLINGS = 4
MEMORY_US = 300_000_000
_NANOSECONDS_PER_US = 1_000


class Condition(Enum):
    """What holds a process, going by the kernel."""

    TRACED = auto()
    UNINTERRUPTIBLE = auto()
    STARVED = auto()
    STOPPED = auto()
    RUNNING = auto()
    SLEEPING = auto()
    GONE = auto()


class Observation(Struct, frozen=True):
    """One reading of /proc/PID. ``run_ns``: processor time so far, all threads of the main one."""

    state: str
    tracer_pid: int
    run_ns: int


class Verdict(Enum):
    FINE = auto()
    LOG = auto()
    ABORT = auto()
    KILL = auto()


EXCUSED = frozenset({Condition.TRACED, Condition.UNINTERRUPTIBLE, Condition.GONE})


def classify(observation: Observation, used_us: int, limit_us: int) -> Condition:
    """What ``observation`` means for a process that used so much of a processor since it stands still."""
    if observation.tracer_pid or observation.state == "t":
        return Condition.TRACED
    match observation.state:
        case "D":
            return Condition.UNINTERRUPTIBLE
        case "T":
            return Condition.STOPPED
        case "Z" | "X":
            return Condition.GONE
        case "R":
            return Condition.STARVED if used_us * STARVED_PART < limit_us else Condition.RUNNING
        case _:
            return Condition.SLEEPING


def parse_observation(stat: str, status: str, schedstat: str) -> Observation:
    """From the texts of /proc/PID/{stat,status,schedstat}. What is missing reads as asleep."""
    # The command's name may hold spaces and parentheses; the state follows the last one.
    _, found, rest = stat.rpartition(")")
    state = rest.split()[:1] if found else []
    tracer = status.partition("TracerPid:")[2].split()[:1]
    run_ns = schedstat.split()[:1]
    return Observation(
        state=state[0] if state else "S",
        tracer_pid=int(tracer[0]) if tracer and tracer[0].isdigit() else 0,
        run_ns=int(run_ns[0]) if run_ns and run_ns[0].isdigit() else 0,
    )


class Patience:
    """How long a role's lives may stand still: longer where they are killed for it again and again.

    A machine may be so slow, or a configuration so large, that a child does not get round in a limit. It
    would never come up; so from the second one killed within :data:`MEMORY_US` on, each has twice as long.
    """

    def __init__(self) -> None:
        self._killed_at_us: deque[int] = deque(maxlen=DOUBLINGS + 1)

    def watch(self, limit_us: int) -> HangWatch:
        """For a life that begins. ``limit_us``: the usual."""
        return HangWatch(limit_us, self)

    def killed(self, now_us: int) -> None:
        """One of its lives stood still too long."""
        self._killed_at_us.append(now_us)

    def factor(self, now_us: int) -> int:
        """By which the limit of a life is longer whose first look is now."""
        recent = sum(now_us - at_us < MEMORY_US for at_us in self._killed_at_us)
        return 1 << max(0, recent - 1)


class HangWatch:
    """Watches one life of one child. ``limit_us``: how long its counter may stand still."""

    def __init__(self, limit_us: int, patience: Patience | None = None) -> None:
        self._usual_us = self._limit_us = limit_us
        self._patience = patience
        self._guilty = False
        self._ticks: int | None = None
        self._phase = Phase.STARTING
        self.condition = Condition.SLEEPING
        """The last look's, for the log."""
        self._looked_at_us = 0
        self._run_before_ns: int | None = None
        self._held_us = self._runnable_us = self._excused_us = 0
        self._logged = False

    @property
    def period_us(self) -> int:
        """How often to look."""
        return self._usual_us // LOOKS_PER_LIMIT

    def is_still(self, ticks: int, phase: Phase, now_us: int) -> bool:
        """Whether the counter stood still since the last look: then observe the process, :meth:`judge`."""
        if ticks == self._ticks and phase == self._phase:
            return phase < Phase.STOPPING
        if self._ticks is None and self._patience is not None:
            self._limit_us = self._usual_us * self._patience.factor(now_us)
        self._ticks, self._phase = ticks, phase
        self._moved(now_us)
        return False

    def is_asleep(self, until_us: int, state: str, now_us: int) -> bool:
        """Whether it sleeps until then, as it has announced: the time since the last look is not its fault.

        ``state``: the kernel's word, at this moment. One that is stopped does not sleep, nor one that was
        woken and does not come back: it announces that it is awake first of all.
        """
        if state != "S" or not now_us < until_us <= now_us + LONGEST_SLEEP_US:
            return False
        self._looked_at_us = now_us
        return True

    def judge(self, observation: Observation, now_us: int) -> Verdict:
        """Hold the time since the last look against the child, or against what holds it."""
        # The machine stood still for the rest.
        elapsed_us = min(now_us - self._looked_at_us, 2 * self.period_us)
        self._looked_at_us = now_us
        if self._run_before_ns is None:
            self._run_before_ns = observation.run_ns
        used_us = (observation.run_ns - self._run_before_ns) // _NANOSECONDS_PER_US
        limit_us = self._limit_us * PHASE_FACTOR.get(self._phase, 1)
        self.condition = classify(observation, used_us, limit_us)
        if self.condition in EXCUSED:
            self._excused_us += elapsed_us
        elif observation.state == "R":
            self._runnable_us += elapsed_us
        else:
            self._held_us += elapsed_us
        verdict = self._verdict(used_us, limit_us)
        if verdict in (Verdict.ABORT, Verdict.KILL) and not self._guilty:
            self._guilty = True
            if self._patience is not None:
                self._patience.killed(now_us)
        return verdict

    def _moved(self, now_us: int) -> None:
        """It ticked: nothing is held against it."""
        self._looked_at_us = now_us
        self._run_before_ns = None
        self._held_us = self._runnable_us = self._excused_us = 0
        self._logged = False

    def _verdict(self, used_us: int, limit_us: int) -> Verdict:
        waited_us = self._held_us + self._runnable_us
        # Runnable time is the child's own fault once it is plain that it did run.
        blamed_us = waited_us if used_us * STARVED_PART >= limit_us else self._held_us
        guilty = blamed_us >= limit_us or waited_us >= STARVED_FACTOR * limit_us
        if guilty and self.condition not in EXCUSED:
            return Verdict.KILL if self.condition == Condition.STOPPED else Verdict.ABORT
        if waited_us + self._excused_us >= limit_us and not self._logged:
            self._logged = True
            return Verdict.LOG
        return Verdict.FINE
