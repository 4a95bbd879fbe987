"""Notifications of one instance or sync group: asked for in order, carried out at least once. Pure."""

from kad.config.model.script import ScriptCommand
from kad.config.model.vrrp import SyncGroup, VrrpInstance
from kad.notify.policy import (
    NotifyState,
    group_commands,
    group_line,
    instance_commands,
    instance_line,
    told_state,
)
from kad_vrrp.core.actions import Notify, State
from kad_vrrp.core.record import OWED_LIMIT, OwedNotice


class Notices:
    """What is owed: asked for and not yet known to have finished.

    A notification is started only when the addresses are as the state wants them, since scripts bind to
    them; until then it waits here, and in the journal. One that has ended stays for as long as an earlier one
    has not: a later life runs both again, in order, and the last word is the right one.
    """

    def __init__(self) -> None:
        self.owed: list[OwedNotice] = []
        self.notified = ""
        self._started: set[int] = set()
        self._ended: set[int] = set()

    def restore(self, owed: tuple[OwedNotice, ...], notified: str) -> None:
        """What the former life owed is owed still, started or not."""
        self.owed = list(owed)
        self.notified = notified

    @property
    def waiting(self) -> bool:
        """Some have not been started."""
        return len(self.owed) > len(self._started)

    def ask(
        self,
        config: VrrpInstance | SyncGroup,
        state: NotifyState,
        priority: int,
        serial: int,
        *,
        has_fifo: bool = False,
    ) -> OwedNotice | None:
        """A transition happened. Returns a notice that had to be given up for want of room, if any."""
        self.notified = state.value
        if not has_fifo and not _commands(config, state, priority):
            return None
        self.owed.append(OwedNotice(serial, state.value, priority))
        if len(self.owed) <= OWED_LIMIT:
            return None
        given_up = self.owed[0]
        self._ended.add(given_up.serial)
        self._settle()
        return given_up

    def start(self, config: VrrpInstance | SyncGroup, *, has_fifo: bool = False) -> list[Notify]:
        """Start what has not been started, in order. What has no commands (any more) is not owed; a line for
        the FIFOs is done with the writing.
        """
        actions = []
        for notice in list(self.owed):
            if notice.serial in self._started:
                continue
            state = NotifyState(notice.state)
            commands = _commands(config, state, notice.priority)
            line = _line(config, state, notice.priority) if has_fifo else b""
            self._started.add(notice.serial)
            if not commands:
                self._ended.add(notice.serial)
                self._settle()
            if commands or line:
                notify = Notify(config.name, notice.serial, notice.state, notice.priority, commands, line)
                actions.append(notify)
        return actions

    def owes(self, serial: int) -> bool:
        """Whether one of this number has been asked for and is not forgotten."""
        return any(notice.serial == serial for notice in self.owed)

    def done(self, serial: int) -> bool:
        """Its scripts have ended. True when less is owed now."""
        if not self.owes(serial):
            return False
        self._ended.add(serial)
        return self._settle()

    def _settle(self) -> bool:
        """Let go of what has ended, with everything before it."""
        before = len(self.owed)
        while self.owed and self.owed[0].serial in self._ended:
            serial = self.owed.pop(0).serial
            self._ended.discard(serial)
            self._started.discard(serial)
        return len(self.owed) < before


def notify_state(state: State) -> NotifyState:
    """What a transition to this state of the protocol is called in notifications."""
    return NotifyState.STOP if state is State.INIT else NotifyState(state.value)


def _commands(
    config: VrrpInstance | SyncGroup, state: NotifyState, priority: int
) -> tuple[ScriptCommand, ...]:
    if isinstance(config, SyncGroup):
        return group_commands(config.notify, config.name, state)
    return instance_commands(
        config.notify, config.name, state, priority, notify_deleted=config.notify_deleted
    )


def _line(config: VrrpInstance | SyncGroup, state: NotifyState, priority: int) -> bytes:
    if isinstance(config, SyncGroup):
        return group_line(config.name, state)
    return instance_line(config.name, told_state(state, notify_deleted=config.notify_deleted), priority)
