"""The link from the BFD process to its subscribers, both ends on real sockets, a real heartbeat page."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from kad.ipc import bfd_view
from kad.ipc.bfd_feed import AWAKE_US, BfdFeed, BfdPublisher, bfd_path
from kad.ipc.bfd_view import BfdEve, BfdLevel, BfdMessage, BfdSnapshotRequest
from kad.ipc.link import child_identity
from kad.ipc.messages import Role
from kad.ipc.near_link import ConnectingEnd
from kad.runtime.clock import monotonic_us
from kad.runtime.journal import Journal
from kad.runtime.process import ChildContext, Options
from tests.support.reactor import LoopReactor

LONG_US = 3_600_000_000
"""A detection time that does not expire in a test."""


class Family:
    """One BFD process's end and any number of subscribers in this process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.reactor = LoopReactor()
        self.journal = Journal.create()
        self.publishers: list[BfdPublisher] = []
        self.feeds: list[BfdFeed] = []

    def context(self, role: Role, incarnation: int = 1) -> ChildContext:
        return ChildContext(role, incarnation, Options(), str(self.directory), self.journal, None, 1)

    def publisher(self, incarnation: int = 1) -> BfdPublisher:
        made = BfdPublisher(self.context(Role.BFD, incarnation), self.reactor)
        self.publishers.append(made)
        return made

    def feed(self, role: Role = Role.VRRP, *sessions: str, incarnation: int = 1) -> Subscriber:
        subscriber = Subscriber(self, role, incarnation)
        subscriber.feed.follow(frozenset(sessions or ("a", "b")))
        self.feeds.append(subscriber.feed)
        return subscriber

    def until(self, condition: object) -> None:
        """Turn, as a driver does: whatever was read, the end of the turn is the flush."""
        assert callable(condition)

        def turned() -> object:
            self.journal.heartbeat(Role.BFD).tick(monotonic_us())
            for publisher in self.publishers:
                publisher.flush()
            return condition()

        self.reactor.until(turned)

    def close(self) -> None:
        for end in (*self.publishers, *self.feeds):
            end.close()
        self.reactor.close()


class Subscriber:
    def __init__(self, family: Family, role: Role, incarnation: int) -> None:
        self.told: list[tuple[str, bool]] = []
        self.feed = BfdFeed(
            family.context(role, incarnation), family.reactor, lambda name, up: self.told.append((name, up))
        )


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Family]:
    # On a busy machine a tenth of a second may pass before a subscriber is connected.
    monkeypatch.setattr(bfd_view, "ANSWER_US", LONG_US)
    made = Family(tmp_path)
    yield made
    made.close()


def level(name: str, up: bool, detection_us: int = LONG_US) -> BfdLevel:
    return BfdLevel(name, up, detection_us if up else 0)


def test_who_connects_gets_a_snapshot_and_then_changes(family: Family) -> None:
    publisher = family.publisher()
    publisher.tell(level("a", True), to_vrrp=True, to_checker=True)
    publisher.tell(level("b", False), to_vrrp=True, to_checker=True)
    subscriber = family.feed()
    family.until(lambda: subscriber.told == [("a", True), ("b", False)])
    publisher.tell(level("b", True), to_vrrp=True, to_checker=True)
    publisher.tell(level("a", False), to_vrrp=True, to_checker=True)
    family.until(lambda: len(subscriber.told) == 4)
    assert subscriber.told[2:] == [("a", False), ("b", True)]
    assert (subscriber.feed.is_up("a"), subscriber.feed.is_up("b")) == (False, True)


def test_each_role_is_told_what_is_meant_for_it(family: Family) -> None:
    publisher = family.publisher()
    publisher.tell(level("a", True), to_vrrp=True, to_checker=False)
    publisher.tell(level("b", True), to_vrrp=False, to_checker=True)
    vrrp, check = family.feed(Role.VRRP), family.feed(Role.CHECK)
    family.until(lambda: vrrp.told and check.told)
    assert (vrrp.told, check.told) == ([("a", True)], [("b", True)])


def test_subscribers_may_be_there_first(family: Family) -> None:
    subscriber = family.feed()
    family.reactor.spin()
    publisher = family.publisher()
    publisher.tell(level("a", True), to_vrrp=True, to_checker=True)
    family.until(lambda: subscriber.told == [("a", True)])


def test_a_reborn_bfd_process_is_found_again_and_what_it_says_counts(family: Family) -> None:
    first = family.publisher()
    first.tell(level("a", True), to_vrrp=True, to_checker=True)
    subscriber = family.feed()
    family.until(lambda: subscriber.told)
    family.publishers.remove(first)
    first.close()
    second = family.publisher(incarnation=2)
    second.tell(level("a", True), to_vrrp=True, to_checker=True)
    second.tell(level("b", True), to_vrrp=True, to_checker=True)
    family.until(lambda: subscriber.feed.is_up("b"))
    assert subscriber.told == [("a", True), ("b", True)], "a never was down"


def test_a_reborn_subscriber_gets_a_snapshot(family: Family) -> None:
    publisher = family.publisher()
    publisher.tell(level("a", True), to_vrrp=True, to_checker=True)
    first = family.feed()
    family.until(lambda: first.told)
    first.feed.close()
    second = family.feed(Role.VRRP, incarnation=2)
    family.until(lambda: second.told == [("a", True)])


def test_silence_of_the_bfd_process_is_told_and_ended_by_a_snapshot(family: Family) -> None:
    publisher = family.publisher()
    publisher.tell(level("a", True, 30_000), to_vrrp=True, to_checker=True)
    subscriber = family.feed()
    # This process may itself have been kept from the processor for so long, and told of it.
    family.until(lambda: subscriber.told[-1:] == [("a", True)])
    before = len(subscriber.told)
    silent_since_us = family.journal.heartbeat(Role.BFD).ticked_at_us
    # Nothing ticks and nothing is flushed: as if it had been stopped.
    family.reactor.until(lambda: len(subscriber.told) > before)
    assert subscriber.told[-1] == ("a", False)
    assert monotonic_us() - silent_since_us >= 30_000
    family.until(lambda: subscriber.told[-1] == ("a", True))


def test_a_subscriber_that_does_not_read_gets_the_present_state_later(family: Family) -> None:
    publisher = family.publisher()
    subscriber = family.feed()
    family.until(lambda: subscriber.feed.view.has_snapshot)
    # The other end stands still: its queue of messages fills, and all the rest is refused.
    reader = family.feeds[0]._end
    assert reader is not None and reader._connection is not None
    family.reactor.remove_reader(reader._connection.socket.fileno())
    for number in range(20_000):
        publisher.tell(level("a", number % 2 == 0), to_vrrp=True, to_checker=True)
        publisher.flush()
    assert publisher._end.drops, "the queue never was full"
    publisher.tell(level("a", True), to_vrrp=True, to_checker=True)
    publisher.tell(level("b", True), to_vrrp=True, to_checker=True)
    reader._connection.watch()
    family.until(lambda: subscriber.feed.is_up("b"))
    assert subscriber.feed.is_up("a")


def test_a_session_that_is_gone_is_not_in_the_snapshot(family: Family) -> None:
    publisher = family.publisher()
    for name in ("a", "b"):
        publisher.tell(level(name, True), to_vrrp=True, to_checker=True)
    first = family.feed()
    family.until(lambda: len(first.told) == 2)
    publisher.forget("a")
    second = family.feed(Role.CHECK)
    family.until(lambda: second.told == [("b", True)])
    assert first.feed.is_up("a"), "for a while: the others apply a reload in their own time"


def test_strangers_are_told_nothing(family: Family) -> None:
    publisher = family.publisher()
    publisher.tell(level("a", True), to_vrrp=True, to_checker=True)
    received: list[object] = []
    stranger: ConnectingEnd[object] = ConnectingEnd(
        family.reactor,
        bfd_path(str(family.directory)),
        BfdSnapshotRequest,
        identity=b"nobody.1.1",
        on_message=received.append,
    )
    known = family.feed()
    family.until(lambda: known.told)
    stranger.send(BfdSnapshotRequest())
    family.reactor.spin()
    assert received == []
    assert not stranger.drops
    stranger.close()


def test_without_sessions_to_follow_there_is_no_link(family: Family) -> None:
    publisher = family.publisher()
    publisher.tell(level("a", True), to_vrrp=True, to_checker=True)
    subscriber = family.feed()
    family.until(lambda: subscriber.told)
    subscriber.feed.follow(frozenset())
    assert not subscriber.feed.is_up("a")
    assert len(subscriber.told) == 1
    subscriber.feed.follow(frozenset({"a"}))
    family.until(lambda: subscriber.feed.is_up("a"))


def test_the_bfd_process_is_awake_while_it_ticks(family: Family) -> None:
    feed = family.feed().feed
    heartbeat = family.journal.heartbeat(Role.BFD)
    heartbeat.tick(monotonic_us() + 1_000_000)
    assert feed.is_awake()
    heartbeat.tick(monotonic_us() - AWAKE_US)
    assert not feed.is_awake()


class Listener:
    """A process that does nothing, and what it would have been told."""

    def __init__(self, family: Family, role: Role) -> None:
        self.process = subprocess.Popen(["sleep", "1000"])
        self.pid = self.process.pid
        self.usual = self.processors
        self.received: list[BfdMessage] = []
        self.end: ConnectingEnd[BfdMessage] = ConnectingEnd(
            family.reactor,
            bfd_path(str(family.directory)),
            BfdMessage,
            identity=child_identity(role, 1, self.pid),
            on_message=self.received.append,
        )

    @property
    def processors(self) -> set[int]:
        """Those it may run on."""
        return os.sched_getaffinity(self.pid)

    def close(self) -> None:
        self.end.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def vrrp(family: Family) -> Iterator[Listener]:
    made = Listener(family, Role.VRRP)
    if len(made.usual) < 2:
        made.close()
        pytest.skip("there is one processor only")
    yield made
    made.close()


def test_on_the_eve_of_a_loss_vrrp_alone_is_told_and_wakes_up_elsewhere(
    family: Family, vrrp: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = family.publisher()
    check = Listener(family, Role.CHECK)
    family.until(lambda: vrrp.received and check.received)
    told: list[tuple[object, int]] = []
    send = publisher._end.send

    def noting(peer: bytes, message: Struct) -> bool:
        told.append((message, len(vrrp.processors)))
        return send(peer, message)

    monkeypatch.setattr(publisher._end, "send", noting)
    eve = BfdEve(monotonic_us())
    publisher.rouse(eve.due_us)
    assert told == [(eve, len(vrrp.usual) - 1)], "check has nothing to prepare"
    assert vrrp.processors == vrrp.usual
    family.until(lambda: vrrp.received[1:] == [eve])
    check.close()


def test_without_vrrp_nobody_is_told_of_an_eve(family: Family) -> None:
    publisher = family.publisher()
    check = Listener(family, Role.CHECK)
    family.until(lambda: check.received)
    publisher.rouse(monotonic_us())
    publisher.tell(level("a", True), to_vrrp=False, to_checker=True)
    family.until(lambda: len(check.received) > 1)
    assert not any(isinstance(each, BfdEve) for each in check.received), "check has nothing to prepare"
    check.close()
