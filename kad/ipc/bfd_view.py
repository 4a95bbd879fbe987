"""What the BFD process tells its subscribers, and what a subscriber makes of it. Pure.

Levels, not edges: a message states whole present values. A session counts as up only while the process that
says so is alive: it shows that in its heartbeat page, at least twice in the shortest detection time. Silent
for as long as a session's neighbour might be, it has lost that session, until it has stated everything anew.
"""

from __future__ import annotations

from msgspec import Struct

from kad.ipc.messages import Message
from kad.units import NEVER

STALL_US = 5_000
"""A subscriber that comes this late to its look did not run, and perhaps nothing did: the BFD process gets
:data:`GRACE_US` to show itself."""
GRACE_US = 10_000
ABSENCE_US = 2_000_000
"""A session that the BFD process does not have (any more) is down after this. At a reload the processes do
not change in the same moment."""
ANSWER_US = 100_000
"""What is followed and nothing was heard of is down after this: there is nobody who could say more."""


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


class BfdEve(Message, frozen=True):
    """A session may be lost in a moment. Nothing follows from it but that its receiver may get ready."""

    due_us: int
    """CLOCK_MONOTONIC."""


BfdMessage = BfdSnapshot | BfdChanges | BfdEve


class BfdView:
    """A subscriber's knowledge. Whatever returns names returns those whose :meth:`is_up` there is news of.

    Each session followed is told of once, in :data:`ANSWER_US` at the latest, and then at every change.
    ``ticked_at_us`` is always the time in the BFD process's heartbeat page. All are CLOCK_MONOTONIC.
    """

    def __init__(self) -> None:
        self._levels: dict[str, BfdLevel] = {}
        self._told: dict[str, bool | None] = {}
        """What is followed, as the subscriber knows it; None: not at all yet."""
        self._answer_by_us = NEVER
        self._lost: set[str] = set()
        """Up when the process last spoke, and it has been silent for too long since."""
        self._absent_since_us: dict[str, int] = {}
        self._position = (0, 0)
        self._heard_at_us = 0
        self._grace_until_us = NEVER
        self._patience_us = NEVER
        self.has_snapshot = False
        self.wants_snapshot = True
        self.stale = 0
        """Messages that came after newer ones."""

    def is_up(self, session: str) -> bool:
        """As the subscriber was told. False too for a session not followed."""
        return bool(self._told.get(session))

    def follow(self, sessions: frozenset[str], ticked_at_us: int, now_us: int) -> list[str]:
        """These are of interest from now on, and no others."""
        if sessions - self._told.keys():
            self._answer_by_us = now_us + ANSWER_US
        self._told = {name: self._told.get(name) for name in sorted(sessions)}
        # Of what was not followed until now nobody has asked whether it still counts.
        self._judge(max(ticked_at_us, self._heard_at_us), now_us)
        return self._news(now_us)

    def receive(self, message: BfdSnapshot | BfdChanges, now_us: int) -> list[str]:
        """Take what the process says now."""
        position = (message.incarnation, message.sequence)
        if position <= self._position:
            self.stale += 1
            return []
        last, self._position = self._position, position
        self._heard_at_us = now_us
        self._grace_until_us = NEVER
        if isinstance(message, BfdSnapshot):
            self.has_snapshot, self.wants_snapshot = True, False
            self._lost.clear()
            self._note_absent({level.session for level in message.levels}, now_us)
        elif (message.incarnation, message.after) != last:
            # Something in between is missing.
            self.wants_snapshot = True
        for level in message.levels:
            self._levels[level.session] = level
            self._absent_since_us.pop(level.session, None)
        return self._news(now_us)

    def look(self, ticked_at_us: int, now_us: int) -> list[str]:
        """Judge the process by its heartbeat; call at :meth:`deadline_us`."""
        self._drop_absent(now_us)
        silent_since_us = max(ticked_at_us, self._heard_at_us)
        due_us = silent_since_us + self._patience_us
        if now_us < due_us:
            self._grace_until_us = NEVER
        elif self._grace_until_us == NEVER and now_us >= due_us + STALL_US:
            self._grace_until_us = now_us + GRACE_US
        elif self._grace_until_us == NEVER or now_us >= self._grace_until_us:
            self._grace_until_us = NEVER
            self._judge(silent_since_us, now_us)
        return self._news(now_us)

    def deadline_us(self, ticked_at_us: int) -> int:
        """When to :meth:`look` at the latest."""
        absent_us = min(self._absent_since_us.values(), default=NEVER) + ABSENCE_US
        first_us = min(absent_us, self._answer_by_us)
        if self._grace_until_us != NEVER:
            return min(first_us, self._grace_until_us)
        return min(first_us, max(ticked_at_us, self._heard_at_us) + self._patience_us)

    def _judge(self, silent_since_us: int, now_us: int) -> None:
        """Lost is what has a detection time no longer than this silence."""
        for name, level in self._levels.items():
            if level.up and silent_since_us + level.detection_time_us <= now_us:
                self._lost.add(name)
                self.wants_snapshot = True

    def _news(self, now_us: int) -> list[str]:
        """What the subscriber does not know yet."""
        must_answer = now_us >= self._answer_by_us
        news = []
        for name, told in self._told.items():
            level = self._levels.get(name) if self.has_snapshot else None
            if told is None and level is None and not must_answer:
                continue
            up = level is not None and level.up and name not in self._lost
            if up is not told:
                self._told[name] = up
                news.append(name)
        if None not in self._told.values():
            self._answer_by_us = NEVER
        # The shortest detection time of what is up.
        times = (self._levels[name].detection_time_us for name, up in self._told.items() if up)
        self._patience_us = min(times, default=NEVER)
        return news

    def _note_absent(self, present: set[str], now_us: int) -> None:
        for name in self._levels.keys() - present:
            self._absent_since_us.setdefault(name, now_us)

    def _drop_absent(self, now_us: int) -> None:
        for name in [n for n, at_us in self._absent_since_us.items() if at_us + ABSENCE_US <= now_us]:
            del self._absent_since_us[name]
            del self._levels[name]
            self._lost.discard(name)
