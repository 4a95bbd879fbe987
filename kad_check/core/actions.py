"""What the check engine wants done, in order. ``events.py`` is the counterpart: what happened.

The shell carries actions out one after the other and never reorders them. It may not fail: what the kernel
or a server refuses comes back as an event.
"""

from enum import StrEnum

from msgspec import Struct

from kad.config.model.check import Checker, Protocol
from kad.config.model.script import ScriptCommand
from kad.notify.policy import Letter
from kad_check.core.ipvs_state import Destination, PoolState


class Health(StrEnum):
    """Of a real server, and (as won and lost quorum) of a virtual server."""

    UP = "UP"
    DOWN = "DOWN"


class AddChecker(Struct, frozen=True, gc=False):
    """A checker exists from now on; make ready what can be made ready. ``number`` names it ever after.

    One that is driven by news (FILE_CHECK, BFD_CHECK) is never added: the engine hears of files and sessions.
    """

    number: int
    checker: Checker


class ChangeChecker(Struct, frozen=True, gc=False):
    """Its checks are of this form from the next one on; one that runs ends, and is answered, as it began."""

    number: int
    checker: Checker


class RemoveChecker(Struct, frozen=True):
    """It is gone; a check of its that runs is broken off and not answered."""

    number: int


class StartCheck(Struct, frozen=True, gc=False):
    """Run the checker once and answer CheckDone. At most one runs at a time for each checker.

    ``step``: for HTTP_GET and SSL_GET which of the checker's URLs; else 0.
    """

    number: int
    step: int = 0


class ReplaceServices(Struct, frozen=True):
    """The whole desired state, at start and after every reload. Answered by ServicesDone.

    Services of kad's own that are in no pool are removed; only what differs is sent. ``first``: the first of
    this process's life (lvs_flush applies only when nothing was recorded, at a daemon's start).
    """

    serial: int
    pools: tuple[PoolState, ...]
    first: bool = False


class ChangeDestinations(Struct, frozen=True):
    """In every service of the pool: add or alter ``put``, then delete ``remove``.

    What is already so is as good as done. Refusals come back as DestinationRefused.
    """

    pool: str
    put: tuple[Destination, ...] = ()
    remove: tuple[Destination, ...] = ()


class WithdrawServices(Struct, frozen=True):
    """The daemon stops: delete every service of ours (or as lvs_flush_on_stop says). Answered by
    ServicesDone."""

    serial: int


class MarkedRange(Struct, frozen=True):
    """Packets to one of these addresses (both ends included) and this port get the mark; port 0: to any."""

    first: str
    last: str
    port: int
    protocol: Protocol
    mark: int


class MarkTraffic(Struct, frozen=True):
    """Have nf_tables mark these, and nothing else in this table; without ranges there is no table. Answered
    by MarkingDone."""

    serial: int
    table: str
    priority: int
    ranges: tuple[MarkedRange, ...] = ()


class Notify(Struct, frozen=True):
    """Run these scripts in order of start; answered by NotifyDone."""

    owner: str
    """The virtual server or real server they are about."""
    serial: int
    commands: tuple[ScriptCommand, ...]


class WriteFifo(Struct, frozen=True):
    """One event for the LVS FIFO and the common one, byte for byte."""

    data: bytes


class SendMail(Struct, frozen=True):
    """An alert; who it goes to and from is the shell's to know."""

    letter: Letter


class ServerChanged(Struct, frozen=True):
    """A real server (``server``) or a virtual server's quorum (``server`` empty) changed; for the log and the
    record of causes. ``reason`` is one sentence for people."""

    pool: str
    server: str
    health: Health
    reason: str


class Remember(Struct, frozen=True, gc=False):
    """Write this record to the journal before carrying out what follows."""

    key: str
    record: bytes


class Forget(Struct, frozen=True, gc=False):
    """Free the record."""

    key: str


class LogLevel(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    DEBUG = "debug"


class Log(Struct, frozen=True):
    level: LogLevel
    text: str


class Stopped(Struct, frozen=True):
    """Everything was withdrawn: the process may leave."""


Action = (
    AddChecker
    | ChangeChecker
    | RemoveChecker
    | StartCheck
    | ReplaceServices
    | ChangeDestinations
    | WithdrawServices
    | MarkTraffic
    | Notify
    | WriteFifo
    | SendMail
    | ServerChanged
    | Remember
    | Forget
    | Log
    | Stopped
)
