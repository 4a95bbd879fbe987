"""What can happen to the reload transaction; ``actions.py`` is the counterpart."""

from __future__ import annotations

from msgspec import Struct

from kad.ipc.messages import ProcessInfo, Role

HANGUP = ""
"""The asker of a reload that came by SIGHUP."""


class Born(Struct, frozen=True):
    """Control begins. ``generation`` 0: nothing was ever committed, load the first."""

    generation: int
    roles: tuple[Role, ...]


class ReloadAsked(Struct, frozen=True):
    asker: str = HANGUP
    force: bool = False


class Loaded(Struct, frozen=True):
    """The files have been read and judged.

    ``refusal`` "": it may run. ``exit_status`` is the daemon's when it was the first load.
    """

    transaction: int
    roles: tuple[Role, ...] = ()
    refusal: str = ""
    exit_status: int = 0


class LoadingTakesLonger(Struct, frozen=True):
    """The startup script runs before what was read may be: it has a time limit of its own."""

    transaction: int
    by_us: int


class ProcessesChanged(Struct, frozen=True):
    processes: tuple[ProcessInfo, ...]


class ChildGreeted(Struct, frozen=True):
    role: Role
    incarnation: int
    generation: int


class ChildPrepared(Struct, frozen=True):
    role: Role
    incarnation: int
    transaction: int
    refusal: str = ""


class ChildApplied(Struct, frozen=True):
    role: Role
    incarnation: int
    generation: int
    complaints: tuple[str, ...] = ()


class SupervisorCommitted(Struct, frozen=True):
    number: int


class TimeReached(Struct, frozen=True):
    """The deadline may have come."""


Event = (
    Born
    | ReloadAsked
    | Loaded
    | LoadingTakesLonger
    | ProcessesChanged
    | ChildGreeted
    | ChildPrepared
    | ChildApplied
    | SupervisorCommitted
    | TimeReached
)
