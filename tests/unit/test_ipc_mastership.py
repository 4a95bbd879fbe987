"""The link by which the sync daemon follows a VRRP instance: both ends on real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kad.ipc.mastership import MastershipFeed, MastershipPublisher
from kad.ipc.messages import Role
from kad.runtime.journal import Journal
from kad.runtime.process import ChildContext, Options
from tests.support.reactor import LoopReactor


class Pair:
    """Any number of lives of both ends in this process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.reactor = LoopReactor()
        self._journal = Journal.create()
        self._ends: list[MastershipPublisher | MastershipFeed] = []

    def _context(self, role: Role, incarnation: int) -> ChildContext:
        return ChildContext(role, incarnation, Options(), str(self.directory), self._journal, None, 1)

    def publisher(self, incarnation: int = 1) -> MastershipPublisher:
        made = MastershipPublisher(self._context(Role.VRRP, incarnation), self.reactor)
        self._ends.append(made)
        return made

    def feed(self, incarnation: int = 1) -> tuple[MastershipFeed, list[bool]]:
        told: list[bool] = []
        made = MastershipFeed(self._context(Role.CHECK, incarnation), self.reactor, told.append)
        self._ends.append(made)
        return made, told

    def close(self) -> None:
        for end in self._ends:
            end.close()
        self.reactor.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.close()


def test_the_present_state_and_every_change(pair: Pair) -> None:
    publisher = pair.publisher()
    publisher.tell("VI_1", True)
    feed, told = pair.feed()
    feed.follow("VI_1")
    pair.reactor.until(lambda: told == [True])
    publisher.tell("VI_1", True)
    publisher.tell("VI_1", False)
    pair.reactor.until(lambda: told == [True, False])
    publisher.tell("VI_1", True)
    pair.reactor.until(lambda: told == [True, False, True])


def test_whoever_comes_later_is_told(pair: Pair) -> None:
    feed, told = pair.feed()
    feed.follow("VI_1")
    publisher = pair.publisher()
    publisher.tell("VI_1", True)
    pair.reactor.until(lambda: told == [True])
    second, again = pair.feed(incarnation=2)
    feed.close()
    second.follow("VI_1")
    pair.reactor.until(lambda: again == [True])
    assert told == [True]


def test_another_life_of_the_vrrp_process(pair: Pair) -> None:
    first = pair.publisher()
    first.tell("VI_1", True)
    feed, told = pair.feed()
    feed.follow("VI_1")
    pair.reactor.until(lambda: told == [True])
    first.close()
    second = pair.publisher(incarnation=2)
    second.tell("VI_1", False)
    pair.reactor.until(lambda: told == [True, False])


def test_another_instance_is_not_ours(pair: Pair) -> None:
    publisher = pair.publisher()
    publisher.tell("VI_2", True)
    feed, told = pair.feed()
    feed.follow("VI_1")
    publisher.tell("VI_2", False)
    publisher.tell("VI_1", False)
    pair.reactor.until(lambda: told == [False])
    publisher.tell("", False)
    feed.follow("")
    assert told == [False]
