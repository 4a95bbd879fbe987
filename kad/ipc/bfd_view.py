"""What the BFD process tells its subscribers, and what a subscriber makes of it. Pure.

Levels, not edges: a message states whole present values. A session counts as up only while the process that
says so is alive: it shows that in its heartbeat page, at least twice in the shortest detection time. Silent
for as long as a neighbour might be, it has lost its sessions, and they stay lost until it has spoken anew.
"""

from __future__ import annotations

from msgspec import Struct

from kad.ipc.messages import Message

NEVER_US = 1 << 62
STALL_US = 5_000
"""A subscriber that comes this late to its look did not run, and perhaps nothing did: the BFD process gets
:data:`GRACE_US` to show itself."""
GRACE_US = 10_000
ABSENCE_US = 2_000_000
"""A session that the BFD process does not have (any more) is down after this. At a reload the processes do
not change in the same moment."""


class BfdLevel(Struct, frozen=True, forbid_unknown_fields=True):
    """One session at this moment."""

    session: str
    up: bool
    detection_time_us: int
    """While up: how long its neighbour may be silent, and so may the BFD process. Else 0."""


class BfdSnapshotRequest(Message, frozen=True):
    """Tell me everything: from a subscriber that has lost its trust, or missed something."""


class BfdSnapshot(Message, frozen=True):
    """All sessions there are for this subscriber."""

    incarnation: int
    sequence: int
    levels: tuple[BfdLevel, ...]


class BfdChanges(Message, frozen=True):
    """Sessions that changed since the message numbered ``after``."""

    incarnation: int
    sequence: int
    after: int
    levels: tuple[BfdLevel, ...]


BfdMessage = BfdSnapshot | BfdChanges


class BfdView:
    """A subscriber's knowledge. :meth:`receive` and :meth:`look` return the sessions whose ``is_up`` changed.

    ``ticked_at_us`` is always the time in the BFD process's heartbeat page. All are CLOCK_MONOTONIC.
    """

    def __init__(self) -> None:
        self._levels: dict[str, BfdLevel] = {}
        self._absent_since_us: dict[str, int] = {}
        self._position = (0, 0)
        self._heard_at_us = 0
        self._grace_until_us = NEVER_US
        self._patience_us = NEVER_US
        self.is_trusted = False
        """The process has spoken, and been alive since."""
        self.wants_snapshot = True
        self.stale = 0
        """Messages that came after newer ones."""

    def is_up(self, session: str) -> bool:
        """False too for a session never heard of."""
        level = self._levels.get(session)
        return self.is_trusted and level is not None and level.up

    def receive(self, message: BfdMessage, now_us: int) -> list[str]:
        """Take what the process says now."""
        position = (message.incarnation, message.sequence)
        if position <= self._position:
            self.stale += 1
            return []
        before, last = self._up(), self._position
        self._position = position
        self._heard_at_us = now_us
        self._grace_until_us = NEVER_US
        if isinstance(message, BfdSnapshot):
            self.is_trusted, self.wants_snapshot = True, False
            self._note_absent({level.session for level in message.levels}, now_us)
        elif (message.incarnation, message.after) != last:
            # Something in between is missing.
            self.wants_snapshot = True
        for level in message.levels:
            self._levels[level.session] = level
            self._absent_since_us.pop(level.session, None)
        return self._changed(before)

    def look(self, ticked_at_us: int, now_us: int) -> list[str]:
        """Judge the process by its heartbeat; call at :meth:`deadline_us`."""
        before = self._up()
        self._drop_absent(now_us)
        silent_since_us = max(ticked_at_us, self._heard_at_us)
        due_us = silent_since_us + self._patience_us
        if now_us < due_us:
            self._grace_until_us = NEVER_US
        elif self._grace_until_us == NEVER_US and now_us >= due_us + STALL_US:
            self._grace_until_us = now_us + GRACE_US
        elif self._grace_until_us == NEVER_US or now_us >= self._grace_until_us:
            self._grace_until_us = NEVER_US
            self.is_trusted, self.wants_snapshot = False, True
        return self._changed(before)

    def deadline_us(self, ticked_at_us: int) -> int:
        """When to :meth:`look` at the latest."""
        absent_us = min(self._absent_since_us.values(), default=NEVER_US) + ABSENCE_US
        if self._grace_until_us != NEVER_US:
            return min(absent_us, self._grace_until_us)
        return min(absent_us, max(ticked_at_us, self._heard_at_us) + self._patience_us)

    def keep(self, sessions: frozenset[str]) -> None:
        """Forget all but these: the configuration has no more."""
        for name in [name for name in self._levels if name not in sessions]:
            del self._levels[name]
            self._absent_since_us.pop(name, None)
        self._find_patience()

    def _up(self) -> set[str]:
        return {name for name, level in self._levels.items() if level.up} if self.is_trusted else set()

    def _changed(self, before: set[str]) -> list[str]:
        self._find_patience()
        return sorted(before ^ self._up())

    def _find_patience(self) -> None:
        """The shortest detection time of what is up."""
        times = (self._levels[name].detection_time_us for name in self._up())
        self._patience_us = min(times, default=NEVER_US)

    def _note_absent(self, present: set[str], now_us: int) -> None:
        for name in self._levels.keys() - present:
            self._absent_since_us.setdefault(name, now_us)

    def _drop_absent(self, now_us: int) -> None:
        for name in [n for n, at_us in self._absent_since_us.items() if at_us + ABSENCE_US <= now_us]:
            del self._absent_since_us[name]
            del self._levels[name]
