"""The direct link from the BFD process to those who act on its sessions: both ends.

Nothing on the way waits for control. The BFD process tells every change at the end of the turn it happened
in; whoever connects gets a snapshot, and so does a subscriber whose queue was full, once it reads again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from kad.ipc.bfd_view import (
    BfdChanges,
    BfdEve,
    BfdLevel,
    BfdMessage,
    BfdSnapshot,
    BfdSnapshotRequest,
    BfdView,
)
from kad.ipc.link import Reactor, child_identity
from kad.ipc.messages import Role
from kad.ipc.near_link import AcceptingEnd, ConnectingEnd
from kad.runtime.clock import monotonic_us
from kad.runtime.process import ChildContext
from kad.runtime.processors import kept_away

RETRY_US = 20_000
"""Between two attempts to tell a subscriber that does not read."""

_NOBODY = -1


def bfd_path(run_directory: str) -> str:
    """Where the BFD process listens to its subscribers."""
    return os.path.join(run_directory, "bfd.ipc")


class _Subscriber:
    """One connection of one role."""

    def __init__(self, identity: bytes) -> None:
        self.identity = identity
        pid = identity.rpartition(b".")[2]
        self.pid = int(pid) if pid.isdigit() else _NOBODY
        self.sequence = 0
        """Of the last message sent to it."""
        self.is_dirty = True
        """It needs a snapshot."""
        self.retry_at_us = 0


class BfdPublisher:
    """The BFD process's end. Hand :meth:`flush` to the driver as work for the end of each turn."""

    def __init__(self, context: ChildContext, reactor: Reactor) -> None:
        self._incarnation = context.incarnation
        self._sequence = 0
        self._levels: dict[Role, dict[str, BfdLevel]] = {Role.VRRP: {}, Role.CHECK: {}}
        self._changed: dict[Role, dict[str, BfdLevel]] = {Role.VRRP: {}, Role.CHECK: {}}
        self._subscribers: dict[Role, _Subscriber] = {}
        self._end: AcceptingEnd[BfdSnapshotRequest] = AcceptingEnd(
            reactor,
            bfd_path(context.run_directory),
            BfdSnapshotRequest,
            on_peer=self._welcome,
            on_message=self._on_request,
        )

    def tell(self, level: BfdLevel, *, to_vrrp: bool, to_checker: bool) -> None:
        """This is how the session is now."""
        for role, wanted in ((Role.VRRP, to_vrrp), (Role.CHECK, to_checker)):
            if wanted:
                self._levels[role][level.session] = self._changed[role][level.session] = level
            elif self._levels[role].pop(level.session, None) is not None:
                self._changed[role].pop(level.session, None)
                self._make_dirty(role)

    def forget(self, session: str) -> None:
        """There is no such session any more."""
        for role, levels in self._levels.items():
            self._changed[role].pop(session, None)
            if levels.pop(session, None) is not None:
                self._make_dirty(role)

    def flush(self) -> bool:
        """Tell everybody what they do not know yet. Never asks for another turn."""
        for role, subscriber in self._subscribers.items():
            if subscriber.is_dirty:
                self._send_snapshot(role, subscriber)
            elif self._changed[role]:
                self._send_changes(role, subscriber)
        for changed in self._changed.values():
            changed.clear()
        return False

    def rouse(self, due_us: int) -> None:
        """A session may be lost in a moment: the VRRP process goes the way there once for nobody.

        It looks out for the news as this process does for the loss: on one processor each would be in the
        other's way.
        """
        subscriber = self._subscribers.get(Role.VRRP)
        if subscriber is not None and self._end.is_connected(subscriber.identity):
            with kept_away(subscriber.pid):
                self._end.send(subscriber.identity, BfdEve(due_us))

    def close(self) -> None:
        self._end.close()

    def _welcome(self, identity: bytes) -> None:
        """A process has one life at a time: the newest connection of a role is its only one."""
        name = identity.partition(b".")[0].decode(errors="replace")
        role = next((role for role in self._levels if role.value == name), None)
        if role is not None:
            self._subscribers[role] = _Subscriber(identity)

    def _on_request(self, identity: bytes, _request: BfdSnapshotRequest) -> None:
        for subscriber in self._subscribers.values():
            if subscriber.identity == identity:
                subscriber.is_dirty, subscriber.retry_at_us = True, 0

    def _make_dirty(self, role: Role) -> None:
        if role in self._subscribers:
            self._subscribers[role].is_dirty = True

    def _send_snapshot(self, role: Role, subscriber: _Subscriber) -> None:
        now_us = monotonic_us()
        if now_us < subscriber.retry_at_us:
            return
        self._sequence += 1
        levels = tuple(self._levels[role].values())
        subscriber.is_dirty = False
        self._send(subscriber, BfdSnapshot(self._incarnation, self._sequence, levels))

    def _send_changes(self, role: Role, subscriber: _Subscriber) -> None:
        self._sequence += 1
        levels = tuple(self._changed[role].values())
        self._send(subscriber, BfdChanges(self._incarnation, self._sequence, subscriber.sequence, levels))

    def _send(self, subscriber: _Subscriber, message: BfdSnapshot | BfdChanges) -> None:
        if self._end.send(subscriber.identity, message):
            subscriber.sequence = message.sequence
        else:
            subscriber.is_dirty = True
            subscriber.retry_at_us = monotonic_us() + RETRY_US


class BfdFeed:
    """A subscriber's end, for the VRRP and check processes.

    ``on_change(session, up)`` is called on the reactor's loop, first for each session followed, in
    :data:`ANSWER_US` at the latest, and then whenever :meth:`is_up` of it changed: because its neighbour was
    lost or found, or because the BFD process was. ``on_eve(due_us)``: it may be called so at that
    instant. ``on_lost``: the BFD process is gone, whatever it was about.
    """

    def __init__(
        self,
        context: ChildContext,
        reactor: Reactor,
        on_change: Callable[[str, bool], None],
        *,
        on_eve: Callable[[int], None] = lambda due_us: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._context = context
        self._reactor = reactor
        self._on_change = on_change
        self._on_eve = on_eve
        self._on_lost = on_lost
        self._heartbeat = context.journal.heartbeat(Role.BFD)
        self._end: ConnectingEnd[BfdMessage] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due_us = 0
        self.view = BfdView()

    def is_up(self, session: str) -> bool:
        """False too for a session never heard of."""
        return self.view.is_up(session)

    def is_awake(self) -> bool:
        """Whether the BFD process is running. If it waits for a processor, it may be ours."""
        return monotonic_us() - self._heartbeat.ticked_at_us < AWAKE_US

    def follow(self, sessions: frozenset[str]) -> None:
        """These are tracked now. None: the link is given up (there may be nobody at the other end)."""
        if not sessions:
            self.close()
            return
        if self._end is None:
            context = self._context
            self._end = ConnectingEnd(
                self._reactor,
                bfd_path(context.run_directory),
                BfdMessage,
                identity=child_identity(context.role, context.incarnation, os.getpid()),
                on_message=self._receive,
                on_lost=self._on_lost,
            )
        self._tell(self.view.follow(sessions, self._heartbeat.ticked_at_us, monotonic_us()))

    def close(self) -> None:
        """Nothing is up any more, and nobody is told."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._end is not None:
            self._end.close()
            self._end = None
        self.view = BfdView()

    def _receive(self, message: BfdMessage) -> None:
        if isinstance(message, BfdEve):
            self._on_eve(message.due_us)
        else:
            self._tell(self.view.receive(message, monotonic_us()))

    def _look(self) -> None:
        self._timer = None
        self._tell(self.view.look(self._heartbeat.ticked_at_us, monotonic_us()))

    def _tell(self, sessions: list[str]) -> None:
        if self.view.wants_snapshot and self._end is not None:
            # Unsent is no harm: whoever comes to the other end sends one by itself.
            self._end.send(BfdSnapshotRequest())
            self.view.wants_snapshot = False
        for session in sessions:
            self._on_change(session, self.view.is_up(session))
        self._arm()

    def _arm(self) -> None:
        """Have the timer stand at the view's deadline, or before it."""
        if self._end is None:
            return
        now_us = monotonic_us()
        due_us = self.view.deadline_us(self._heartbeat.ticked_at_us)
        if self._timer is not None:
            if self._due_us <= due_us:
                return
            self._timer.cancel()
            self._timer = None
        if due_us < now_us + LONGEST_WAIT_US:
            self._due_us = due_us
            self._timer = self._reactor.loop.call_later(max(0, due_us - now_us) / 1e6, self._look)


AWAKE_US = 300
"""A process that looks out for a deadline ticks several times in it."""
LONGEST_WAIT_US = 1 << 40
"""A deadline further away is none."""
