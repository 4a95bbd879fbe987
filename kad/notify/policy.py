"""Which commands, lines and letters a transition asks for, with which arguments, in which order.

Pure. The order is keepalived's: the script of the state first, then ``notify`` with what happened appended.
In a sync group the members' commands come before the group's; that order is the caller's.
"""

from enum import StrEnum
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from kad.config.model.script import ScriptCommand
from kad.config.model.vrrp import NotifyScripts


class NotifyState(StrEnum):
    """What ``notify`` and the FIFO say; the first three are also states of the protocol."""

    MASTER = "MASTER"
    BACKUP = "BACKUP"
    FAULT = "FAULT"
    STOP = "STOP"
    DELETED = "DELETED"


class NotifyEvent(StrEnum):
    """What else instances tell the FIFOs."""

    MASTER_RX_LOWER_PRI = "MASTER_RX_LOWER_PRI"
    MASTER_PRIORITY = "MASTER_PRIORITY"
    BACKUP_PRIORITY = "BACKUP_PRIORITY"


class Letter(Struct, frozen=True):
    """What a mail says; who it goes to and from is not known here."""

    subject: str
    body: str


GROUP_PRIORITY = 0
"""A group has no priority of its own; scripts written for keepalived expect a 0."""


def instance_commands(
    scripts: NotifyScripts, name: str, state: NotifyState, priority: int, *, notify_deleted: bool = False
) -> tuple[ScriptCommand, ...]:
    """Commands for an instance that entered ``state`` with this effective priority (0-255).

    An instance deleted by a reload is told FAULT, as it always was, unless ``notify_deleted`` was configured.
    """
    state = told_state(state, notify_deleted=notify_deleted)
    return _commands(scripts, "INSTANCE", name, state, priority)


def told_state(state: NotifyState, *, notify_deleted: bool) -> NotifyState:
    """As which state a transition of an instance is told."""
    return NotifyState.FAULT if state is NotifyState.DELETED and not notify_deleted else state


def instance_line(name: str, what: NotifyState | NotifyEvent, priority: int) -> bytes:
    """What the FIFOs read of an instance, byte for byte as keepalived writes it."""
    return _line("INSTANCE", name, what, priority)


def group_line(name: str, state: NotifyState) -> bytes:
    """What they read of a sync group."""
    return _line("GROUP", name, state, GROUP_PRIORITY)


def instance_letter(name: str, state: NotifyState) -> Letter:
    """The mail about an instance, in keepalived's words."""
    subject, body = _INSTANCE_LETTERS[state]
    return Letter(f"VRRP Instance {name} - {subject}", f"=> {body} <=")


def group_letter(name: str, state: NotifyState) -> Letter:
    """The mail about a sync group."""
    stopping = state is NotifyState.STOP
    now = "now stopping" if stopping else f"now in {state} state"
    subject = "Stopping" if stopping else f"Entering {state} state"
    return Letter(f"VRRP Group {name} - {subject}", f"=> All VRRP group instances are {now} <=")


_INSTANCE_LETTERS = {
    NotifyState.MASTER: ("Entering MASTER state", "VRRP Instance is now owning VRRP VIPs"),
    NotifyState.BACKUP: ("Entering BACKUP state", "VRRP Instance is no longer owning VRRP VIPs"),
    NotifyState.FAULT: ("Entering FAULT state", "VRRP Instance is no longer owning VRRP VIPs"),
    NotifyState.STOP: ("Stopping", "VRRP Instance stopping"),
    NotifyState.DELETED: ("Deleted", "VRRP Deleted at reload"),
}


def _line(kind: str, name: str, what: str, priority: int) -> bytes:
    return f'{kind} "{name}" {what} {priority}\n'.encode(errors="surrogateescape")


def group_commands(scripts: NotifyScripts, name: str, state: NotifyState) -> tuple[ScriptCommand, ...]:
    """Commands for a sync group that entered ``state``."""
    return _commands(scripts, "GROUP", name, state, GROUP_PRIORITY)


def lower_priority_commands(scripts: NotifyScripts) -> tuple[ScriptCommand, ...]:
    """Commands of a master that heard a lower priority: run as written, nothing appended."""
    return () if scripts.master_rx_lower_pri is None else (scripts.master_rx_lower_pri,)


def _commands(
    scripts: NotifyScripts, kind: str, name: str, state: NotifyState, priority: int
) -> tuple[ScriptCommand, ...]:
    assert 0 <= priority <= 255
    commands = []
    of_state = _script_of_state(scripts, state)
    if of_state is not None:
        commands.append(of_state)
    if scripts.any_state is not None:
        appended = (kind, name, state.value, str(priority))
        commands.append(replace(scripts.any_state, argv=scripts.any_state.argv + appended))
    return tuple(commands)


def _script_of_state(scripts: NotifyScripts, state: NotifyState) -> ScriptCommand | None:
    match state:
        case NotifyState.MASTER:
            return scripts.master
        case NotifyState.BACKUP:
            return scripts.backup
        case NotifyState.FAULT:
            return scripts.fault
        case NotifyState.STOP:
            return scripts.stop
        case NotifyState.DELETED:
            return scripts.deleted
    assert_never(state)
