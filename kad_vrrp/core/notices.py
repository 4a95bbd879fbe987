"""Notifications of one instance or sync group: asked for in order, carried out at least once. Pure."""

from msgspec import Struct

from kad.config.model.script import ScriptCommand
from kad.config.model.vrrp import SyncGroup, VrrpInstance, VrrpSettings
from kad.notify.policy import (
    Letter,
    NotifyState,
    group_commands,
    group_letter,
    group_line,
    instance_commands,
    instance_letter,
    instance_line,
    told_state,
)
from kad_vrrp.core.actions import Notify, State
from kad_vrrp.core.record import OWED_LIMIT, OwedNotice


class Audience(Struct, frozen=True):
    """Who hears of transitions beside scripts."""

    fifo: bool = False
    """Somebody may read what happens line by line."""
    mail: bool = False
    """Alerts have somewhere to go."""
    faults: bool = True
    """FAULT is worth a mail."""


def audience_of(settings: VrrpSettings) -> Audience:
    return Audience(
        fifo=settings.notify_fifo is not None or settings.vrrp_notify_fifo is not None,
        mail=settings.mail.is_wanted,
        faults=not settings.mail.no_faults,
    )


class Notices:
    """What is owed: asked for and not yet known to have finished.

    A notification is started only when the addresses are as the state wants them, since scripts bind to
    them; until then it waits here, and in the journal. One that has ended stays for as long as an earlier one
    has not: a later life runs both again, in order, and the last word is the right one.
    """

    def __init__(self) -> None:
        self.owed: list[OwedNotice] = []
        self.held = False
        """Somebody had the name before and owes something still: that counts as an earlier one of ours."""
        self.notified = ""
        self._mailed = ""
        """The state that was mailed last."""
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
        audience: Audience,
    ) -> OwedNotice | None:
        """A transition happened. Returns a notice that had to be given up for want of room, if any."""
        self.notified = state.value
        heard = audience.fifo or (audience.mail and config.smtp_alert)
        if not heard and not _commands(config, state, priority):
            return None
        self.owed.append(OwedNotice(serial, state.value, priority))
        if len(self.owed) <= OWED_LIMIT:
            return None
        given_up = self._let_go()
        self._settle()
        return given_up

    def start(self, config: VrrpInstance | SyncGroup, audience: Audience) -> list[Notify]:
        """Start what has not been started, in order. What has no commands (any more) is not owed; a line for
        the FIFOs and a mail are done with the sending.
        """
        actions = []
        for notice in list(self.owed):
            if notice.serial in self._started:
                continue
            state = NotifyState(notice.state)
            commands = _commands(config, state, notice.priority)
            line = _line(config, state, notice.priority) if audience.fifo else b""
            letter = self._letter(config, state, audience)
            self._started.add(notice.serial)
            if not commands:
                self._ended.add(notice.serial)
                self._settle()
            if commands or line or letter:
                name, serial = config.name, notice.serial
                actions.append(Notify(name, serial, notice.state, notice.priority, commands, line, letter))
        return actions

    def _letter(
        self, config: VrrpInstance | SyncGroup, state: NotifyState, audience: Audience
    ) -> Letter | None:
        """As keepalived: nothing about a state that was mailed last, whatever came in between unmailed."""
        if isinstance(config, VrrpInstance):
            state = told_state(state, notify_deleted=config.notify_deleted)
        if not (audience.mail and config.smtp_alert) or state.value == self._mailed:
            return None
        if state is NotifyState.FAULT and not audience.faults:
            return None
        self._mailed = state.value
        return _letter(config, state)

    def owes(self, serial: int) -> bool:
        """Whether one of this number has been asked for and is not forgotten."""
        return any(notice.serial == serial for notice in self.owed)

    def done(self, serial: int) -> bool:
        """Its scripts have ended. True when less is owed now."""
        if not self.owes(serial):
            return False
        self._ended.add(serial)
        return self._settle()

    def release(self) -> bool:
        """Nobody before this one owes anything any more. True when less is owed now."""
        self.held = False
        return self._settle()

    def _settle(self) -> bool:
        """Let go of what has ended, with everything before it."""
        before = len(self.owed)
        while not self.held and self.owed and self.owed[0].serial in self._ended:
            self._let_go()
        return len(self.owed) < before

    def _let_go(self) -> OwedNotice:
        first = self.owed.pop(0)
        self._ended.discard(first.serial)
        self._started.discard(first.serial)
        return first


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


def _letter(config: VrrpInstance | SyncGroup, state: NotifyState) -> Letter:
    if isinstance(config, SyncGroup):
        return group_letter(config.name, state)
    return instance_letter(config.name, state)
