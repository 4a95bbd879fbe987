"""The receiving sockets that the sessions need between them, opened again where that failed. Pure.

And the looks at all sockets that may be worth nothing any more, those that send too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from kad.units import NEVER
from kad_bfd.core.actions import CheckInterface, CloseListener, Listener, LogLevel, OpenListener
from kad_bfd.core.context import Context
from kad_bfd.core.session import RETRY_US, Session

CHECK_US = 1_000_000
"""Between two looks at the sockets of a session that is not Up."""
LOOKS = 32
"""Sessions looked at in one go: a millisecond or two, in which nobody is heard."""
LOOK_GAP_US = 10_000


def listener_of(session: Session) -> Listener:
    config = session.config
    return Listener(config.family, config.multihop, config.interface)


class Listeners:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._wanted: dict[Listener, int] = {}
        """When to try (again); NEVER: open, or being opened."""
        self._failures: dict[Listener, str] = {}
        self._watched: dict[Listener, list[Session]] = {}
        """Sessions of which something else may come to be than what their sockets were bound to."""
        self._looks: deque[tuple[Listener, bool, list[Session]]] = deque()
        """What is left of this round; whether the listener is looked at too."""
        self._round_us = 0
        """When the next one may begin."""
        self._check_us = NEVER

    @property
    def deadline_us(self) -> int:
        return min(NEVER, self._check_us, *self._wanted.values())

    def failure_of(self, session: Session) -> str:
        """Why it hears nothing; "": its listener is open, or being opened."""
        listener = listener_of(session)
        reason = self._failures.get(listener)
        return _complaint(listener, reason) if reason else ""

    def need(self, sessions: Iterable[Session], now_us: int) -> None:
        """Open what is missing, close what nobody needs."""
        needed: dict[Listener, list[Session]] = {}
        for session in sessions:
            needed.setdefault(listener_of(session), []).append(session)
        self._watch(needed, now_us)
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
            self._context.log(LogLevel.ERROR, _complaint(listener, reason))

    def retry(self, now_us: int) -> None:
        for listener in [listener for listener, at_us in self._wanted.items() if at_us <= now_us]:
            self._open(listener)

    def lose(self, now_us: int) -> None:
        """A session is not Up (any more): its sockets may be why."""
        if self._watched:
            self._check_us = min(self._check_us, max(self._round_us, now_us + CHECK_US))

    def check(self, now_us: int) -> None:
        """Have the sockets looked at of who is not Up: nothing tells this process of an interface or address.

        A session that is Up proves that its sockets serve, whatever the interface is called now.
        """
        if now_us < self._check_us:
            return
        if not self._looks:
            self._round_us = now_us + CHECK_US
            self._looks.extend(self._next_round())
            if not self._looks:
                self._check_us = NEVER
                return
        left = LOOKS
        while self._looks and left > 0:
            left -= self._look(*self._looks.popleft())
        self._check_us = now_us + LOOK_GAP_US if self._looks else max(self._round_us, now_us + LOOK_GAP_US)

    def _watch(self, needed: dict[Listener, list[Session]], now_us: int) -> None:
        watched = {
            listener: [user for user in users if _may_fail(user)] for listener, users in needed.items()
        }
        self._watched = {listener: users for listener, users in watched.items() if users}
        self._looks.clear()
        soon_us = max(self._round_us, min(self._check_us, now_us + CHECK_US))
        self._check_us = soon_us if self._watched else NEVER

    def _next_round(self) -> Iterator[tuple[Listener, bool, list[Session]]]:
        for listener, sessions in self._watched.items():
            lost = [session for session in sessions if not session.is_up]
            is_idle = bool(listener.interface) and len(lost) == len(sessions)
            for at in range(0, len(lost), LOOKS):
                yield listener, is_idle and not at, lost[at : at + LOOKS]

    def _look(self, listener: Listener, is_idle: bool, sessions: list[Session]) -> int:
        """How many were looked at: some may have come up since the round began."""
        lost = tuple(session.number for session in sessions if not session.is_up)
        is_idle = is_idle and not any(session.is_up for session in self._watched[listener])
        if lost:
            self._context.emit(CheckInterface(listener if is_idle else None, lost))
        return len(lost)

    def _open(self, listener: Listener) -> None:
        self._wanted[listener] = NEVER
        self._context.emit(OpenListener(listener, self._context.tag))


def _may_fail(session: Session) -> bool:
    """Bound to an interface, which may be made anew, or to an address that the kernel chose."""
    return bool(session.config.interface) or not session.config.source_address


def _place(listener: Listener) -> str:
    where = f" of {listener.interface}" if listener.interface else ""
    return f"UDP port {listener.port}{where} (IPv{listener.family})"


def _complaint(listener: Listener, reason: str) -> str:
    return f"cannot listen on {_place(listener)}: {reason}"
