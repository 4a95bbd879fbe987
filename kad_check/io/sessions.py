"""BFD sessions that servers follow, as the engine is told of them."""

from __future__ import annotations

from collections.abc import Callable

from kad.ipc.bfd_feed import BfdFeed
from kad.ipc.link import Reactor
from kad.runtime.process import ChildContext

BIRTH_S = 5.0
"""A session needs a while to come up. Until then a server is held for what it was, at a start for up."""


class Sessions:
    """``tell(session, up)``: see :class:`BfdFeed`; only a session that never was up is told of later."""

    def __init__(self, context: ChildContext, reactor: Reactor, tell: Callable[[str, bool], None]) -> None:
        self._reactor = reactor
        self._tell = tell
        self._feed = BfdFeed(context, reactor, self._on_change)
        self._inherited: frozenset[str] = frozenset()
        self._known: set[str] = set()

    def inherit(self, sessions: frozenset[str]) -> None:
        """A former life followed these. What its journal says of their servers may be wrong by now: the first
        word of them counts at once.
        """
        self._inherited = sessions

    def follow(self, sessions: frozenset[str]) -> None:
        """These and no others."""
        self._known &= sessions
        self._inherited &= sessions
        self._feed.follow(sessions)

    def close(self) -> None:
        """Nothing is told any more."""
        self._known.clear()
        self._feed.close()

    def _on_change(self, session: str, up: bool) -> None:
        is_first = session not in self._known
        self._known.add(session)
        if is_first and not up and session not in self._inherited:
            self._reactor.loop.call_later(BIRTH_S, self._tell_if_down, session)
        else:
            self._tell(session, up)

    def _tell_if_down(self, session: str) -> None:
        if session in self._known and not self._feed.is_up(session):
            self._tell(session, False)
