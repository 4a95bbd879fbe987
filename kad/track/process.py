"""One vrrp_track_process: which processes count, and whether enough and not too many of them run. Pure."""

from enum import Enum, auto
from typing import assert_never

from msgspec import Struct

from kad.config.model.track import TrackProcess
from kad.units import NEVER


class Pattern(Struct, frozen=True):
    """Which processes are meant. ``match``: "" (parameters do not matter), exact, partial or initial."""

    process: bytes
    full_command: bool = False
    match: str = ""
    parameters: bytes = b""
    """Each followed by a zero byte, as in /proc/PID/cmdline."""


def pattern_of(config: TrackProcess) -> Pattern:
    parameters = b"".join(word.encode(errors="surrogateescape") + b"\0" for word in config.parameters)
    process = config.process.encode(errors="surrogateescape")
    if config.full_command:
        return Pattern(process, True, config.param_match, parameters)
    return Pattern(process)


def matches(pattern: Pattern, comm: bytes, command_line: bytes) -> bool:
    """``comm``: the kernel's name. ``command_line``: as in /proc/PID/cmdline, words ended by zero bytes."""
    if not pattern.full_command:
        return comm == pattern.process
    program, _, parameters = command_line.partition(b"\0")
    if program != pattern.process:
        return False
    match pattern.match:
        case "exact":
            return parameters == pattern.parameters
        case "partial":
            return parameters.startswith(pattern.parameters)
        case "initial":
            # The last one given may be longer in the process: the zero byte that ends it does not count.
            return parameters.startswith(pattern.parameters[:-1])
    return True


class Cause(Enum):
    """Why a count has changed."""

    FORKED = auto()
    TERMINATED = auto()
    RENAMED = auto()
    """A process executed another program or changed its name; or everything was counted anew."""


class ProcessesCounted(Struct, frozen=True):
    """So many processes of this pattern run now."""

    pattern: Pattern
    count: int
    cause: Cause = Cause.RENAMED


class ProcessDue(Struct, frozen=True):
    """The deadline has come."""


class QuorumTurned(Struct, frozen=True):
    """Gained or lost from now on."""

    up: bool


class ProcessTracker:
    """Quorum with debouncing: gained by forks it must last fork_delay, lost by exits terminate_delay."""

    def __init__(self, config: TrackProcess) -> None:
        self.config = config
        self.pattern = pattern_of(config)
        self.count: int | None = None
        """None before the first count."""
        self.up = False
        self.known = False
        """Whether :attr:`up` is more than a guess."""
        self.deadline_us = NEVER

    def restore(self, up: bool) -> None:
        """A former life's finding counts until the first count."""
        self.up = up
        self.known = True

    def configure(self, config: TrackProcess) -> list[QuorumTurned]:
        """A reload changed quorum, delays or weight; what is counted is the same."""
        assert pattern_of(config) == self.pattern
        self.config = config
        self.deadline_us = NEVER
        return self._settle() if self.count is not None else []

    def handle(self, event: ProcessesCounted | ProcessDue, now_us: int) -> list[QuorumTurned]:
        match event:
            case ProcessesCounted():
                return self._on_count(event, now_us)
            case ProcessDue():
                return self._settle() if self.deadline_us <= now_us else []
            case _:
                assert_never(event)

    def _on_count(self, event: ProcessesCounted, now_us: int) -> list[QuorumTurned]:
        first = self.count is None
        self.count = event.count
        if self._is_met() == self.up and self.known:
            self.deadline_us = NEVER
            return []
        delay_us = 0 if first else self._delay_us(event.cause)
        if not delay_us:
            return self._settle()
        self.deadline_us = min(self.deadline_us, now_us + delay_us)
        return []

    def _delay_us(self, cause: Cause) -> int:
        match cause:
            case Cause.FORKED:
                return self.config.fork_delay_us
            case Cause.TERMINATED:
                return self.config.terminate_delay_us
            case Cause.RENAMED:
                return 0
        assert_never(cause)

    def _is_met(self) -> bool:
        assert self.count is not None
        most = self.config.quorum_max
        return self.count >= self.config.quorum and (most is None or self.count <= most)

    def _settle(self) -> list[QuorumTurned]:
        """Believe the present count."""
        self.deadline_us = NEVER
        met = self._is_met()
        if met == self.up and self.known:
            return []
        self.up = met
        self.known = True
        return [QuorumTurned(met)]
