"""Notifications of one virtual or real server: scripts carried out at least once, FIFO lines, mail. Pure."""

from __future__ import annotations

from kad.config.model.script import ScriptCommand
from kad.notify.policy import Letter
from kad_check.core.actions import Health, Notify, SendMail, WriteFifo
from kad_check.core.context import Context
from kad_check.core.record import OWED_LIMIT

_NONE: frozenset[int] = frozenset()


class Notices:
    """What one owner's scripts are still owed: asked for and not known to have finished."""

    __slots__ = ("_waiting", "owed")

    def __init__(self) -> None:
        # Most owe nothing, and there are tens of thousands: the empty ones are all the same two objects.
        self.owed: tuple[tuple[int, Health], ...] = ()
        """Started or not, oldest first, with the serial number of each."""
        self._waiting = _NONE

    def ask(self, context: Context, health: Health, script: ScriptCommand | None) -> None:
        """A transition happened: what it wants run is owed from now on."""
        if script is None:
            return
        self._owe(context.next_serial(), health)
        if len(self.owed) > OWED_LIMIT:
            self._waiting -= {self.owed[0][0]}
            self.owed = self.owed[1:]

    def restore(self, context: Context, owed: tuple[str, ...]) -> None:
        """What a former life owed, in this life's numbers; it is run again, whether it ended or not."""
        for text in owed[-OWED_LIMIT:]:
            self._owe(context.next_serial(), Health(text))

    def _owe(self, serial: int, health: Health) -> None:
        self.owed += ((serial, health),)
        self._waiting |= {serial}

    def start(
        self, context: Context, owner: str, up: ScriptCommand | None, down: ScriptCommand | None
    ) -> None:
        """Start what was not started. What has no script any more is not owed."""
        if not self._waiting:
            return
        for serial, health in self.owed:
            if serial not in self._waiting:
                continue
            script = up if health is Health.UP else down
            if script is None:
                self.done(serial)
            else:
                context.emit(Notify(owner, serial, (script,)))
        self._waiting = _NONE

    def done(self, serial: int) -> bool:
        """Its script has ended. False: nothing of that number was owed."""
        before = self.owed
        self.owed = tuple(entry for entry in before if entry[0] != serial)
        return len(self.owed) < len(before)

    def recorded(self) -> tuple[str, ...]:
        return tuple(health.value for _, health in self.owed)


def server_line(server: str, pool: str, health: Health) -> bytes:
    """A real server on the FIFO."""
    return f"RS {server} {pool} {health}\n".encode(errors="surrogateescape")


def pool_line(pool: str, health: Health) -> bytes:
    """A virtual server on the FIFO."""
    return f"VS {pool} {health}\n".encode(errors="surrogateescape")


def tell_fifo(context: Context, line: bytes) -> None:
    if context.has_fifo:
        context.emit(WriteFifo(line))


def mail_about_server(context: Context, server: str, pool: str, health: Health, body: str) -> None:
    context.emit(SendMail(Letter(f"Realserver {server} of virtual server {pool} - {health}", body)))


def mail_about_pool(context: Context, pool: str, health: Health, body: str) -> None:
    context.emit(SendMail(Letter(f"Virtualserver {pool} - {health}", body)))
