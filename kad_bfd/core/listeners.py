"""The receiving sockets that the sessions need between them, opened again where that failed. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from kad.units import NEVER
from kad_bfd.core.actions import CheckInterface, CloseListener, Listener, LogLevel, OpenListener
from kad_bfd.core.context import Context
from kad_bfd.core.session import RETRY_US, Session

CHECK_US = 1_000_000
"""Between two looks at interfaces over which no session is Up."""


def listener_of(session: Session) -> Listener:
    config = session.config
    return Listener(config.family, config.multihop, config.interface)


class Listeners:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._wanted: dict[Listener, int] = {}
        """When to try (again); NEVER: open, or being opened."""
        self._failures: dict[Listener, str] = {}
        self._bound: dict[Listener, list[Session]] = {}
        """Those with an interface, and the sessions they are for."""
        self._check_us = NEVER

    @property
    def deadline_us(self) -> int:
        return min(NEVER, self._check_us, *self._wanted.values())

    def need(self, sessions: Iterable[Session], now_us: int) -> None:
        """Open what is missing, close what nobody needs."""
        needed: dict[Listener, list[Session]] = {}
        for session in sessions:
            needed.setdefault(listener_of(session), []).append(session)
        self._bound = {listener: users for listener, users in needed.items() if listener.interface}
        self._check_us = now_us + CHECK_US if self._bound else NEVER
        for listener in [listener for listener in self._wanted if listener not in needed]:
            del self._wanted[listener]
            self._failures.pop(listener, None)
            self._context.emit(CloseListener(listener))
        for listener in needed:
            if listener not in self._wanted:
                self._open(listener)

    def opened(self, listener: Listener) -> None:
        if self._failures.pop(listener, None) is not None:
            self._context.log(LogLevel.INFO, f"listening on {_place(listener)} now")

    def failed(self, listener: Listener, reason: str, now_us: int) -> None:
        if listener not in self._wanted:
            return
        self._wanted[listener] = now_us + RETRY_US
        if self._failures.get(listener) != reason:
            self._failures[listener] = reason
            self._context.log(LogLevel.ERROR, f"cannot listen on {_place(listener)}: {reason}")

    def retry(self, now_us: int) -> None:
        for listener in [listener for listener, at_us in self._wanted.items() if at_us <= now_us]:
            self._open(listener)

    def check(self, now_us: int) -> None:
        """Have interfaces looked at over which nobody is heard: nothing tells this process of a new one.

        A session that is Up proves that its sockets serve, whatever the interface is called now.
        """
        if now_us < self._check_us:
            return
        self._check_us = now_us + CHECK_US
        for listener, sessions in self._bound.items():
            if not any(session.is_up for session in sessions):
                self._context.emit(CheckInterface(listener, tuple(session.number for session in sessions)))

    def _open(self, listener: Listener) -> None:
        self._wanted[listener] = NEVER
        self._context.emit(OpenListener(listener, self._context.tag))


def _place(listener: Listener) -> str:
    where = f" of {listener.interface}" if listener.interface else ""
    return f"UDP port {listener.port}{where} (IPv{listener.family})"
