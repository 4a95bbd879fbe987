"""What can happen to the check engine. ``actions.py`` is the counterpart: what the engine wants done.

Events carry facts and no judgement. All times are CLOCK_MONOTONIC microseconds and are handed beside the
event (``Engine.handle(event, now_us)``), never inside it.
"""

from enum import Enum, auto

from msgspec import Struct

from kad.config.model.check import CheckConfiguration


class Verdict(Enum):
    """How one check ended."""

    SUCCESS = auto()
    FAILURE = auto()
    """The server, or the way to it, is at fault."""
    NOT_RUN = auto()
    """Nothing was learnt: this machine is at fault (no local port, no descriptor, a script not found)."""


class CheckDone(Struct, frozen=True, gc=False):
    """The answer to StartCheck. ``detail``: one phrase for people; empty on success."""

    number: int
    verdict: Verdict
    detail: str = ""
    weight: int | None = None
    """Of a MISC_CHECK with misc_dynamic: the weight its status asks for; None: no wish."""


class FileChanged(Struct, frozen=True):
    """The number a followed file holds now; 0 when there is none."""

    name: str
    value: int


class SessionChanged(Struct, frozen=True):
    """A BFD session came up or went down."""

    name: str
    up: bool


class AddressesChanged(Struct, frozen=True):
    """Every address this machine has now, canonical text (for ha_suspend)."""

    addresses: frozenset[str]


class ServicesDone(Struct, frozen=True):
    """The kernel has answered every command of a ReplaceServices or WithdrawServices, always sent.

    ``failures``: for people; also when there is no IPVS in this kernel.
    """

    serial: int
    failures: tuple[str, ...] = ()


class MarkingDone(Struct, frozen=True):
    """The answer to MarkTraffic. ``failure`` is for people; empty: done."""

    serial: int
    failure: str = ""


class DestinationRefused(Struct, frozen=True):
    """The kernel refused a change of one destination. ``reason`` names the error, for people; ``is_told``:
    people have it already.
    """

    pool: str
    address: str
    port: int
    reason: str
    is_told: bool = False


class NotifyDone(Struct, frozen=True):
    """All scripts of the notification with this number have ended (or could not be started)."""

    owner: str
    serial: int


class ConfigurationChanged(Struct, frozen=True):
    """A new generation to run: the whole of it. The first one is the start, or a restart after a crash.

    The shell tells what followed files hold, and for ha_suspend the addresses, before it.
    ``previous``: for a restart in the middle of a reload, the generation before.
    """

    generation: int
    configuration: CheckConfiguration
    previous: CheckConfiguration = CheckConfiguration()


class StopRequested(Struct, frozen=True):
    """Withdraw everything, in order, and say so."""


class TimeReached(Struct, frozen=True):
    """Nothing but time passed and the deadline is due."""


Event = (
    CheckDone
    | FileChanged
    | SessionChanged
    | AddressesChanged
    | ServicesDone
    | MarkingDone
    | DestinationRefused
    | NotifyDone
    | ConfigurationChanged
    | StopRequested
    | TimeReached
)
