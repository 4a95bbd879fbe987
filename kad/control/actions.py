"""What the reload transaction wants done.

It knows numbers only; the configurations themselves stay in the shell, by transaction and by generation.
"""

from __future__ import annotations

from msgspec import Struct

from kad.ipc.messages import Role


class StartLoading(Struct, frozen=True):
    transaction: int
    force: bool
    first: bool
    """At start kad tolerates what keepalived tolerates."""


class AskWho(Struct, frozen=True):
    """This life of the child has not been heard."""

    role: Role
    incarnation: int
    pid: int


class SendPrepare(Struct, frozen=True):
    role: Role
    incarnation: int
    transaction: int
    generation: int


class SendAbandon(Struct, frozen=True):
    role: Role
    incarnation: int
    transaction: int


class SendCommit(Struct, frozen=True):
    """The candidate of this transaction becomes this generation, if the supervisor says so."""

    transaction: int
    number: int


class SendApply(Struct, frozen=True):
    role: Role
    incarnation: int
    generation: int


class TellAllApplied(Struct, frozen=True):
    number: int


class Finished(Struct, frozen=True):
    """A reload ended. ``generation`` is what runs now. The transaction's candidate is not needed any more."""

    transaction: int
    askers: tuple[str, ...]
    accepted: bool
    generation: int
    text: str
    complaints: tuple[str, ...] = ()
    first: bool = False
    """It was the first load: nobody but the log is told."""


class FirstLoadFailed(Struct, frozen=True):
    exit_status: int
    text: str


class StartOver(Struct, frozen=True):
    """What runs is uncertain: only a new control, told by the supervisor, can know."""

    text: str


Action = (
    StartLoading
    | AskWho
    | SendPrepare
    | SendAbandon
    | SendCommit
    | SendApply
    | TellAllApplied
    | Finished
    | FirstLoadFailed
    | StartOver
)
