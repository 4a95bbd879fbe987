"""The link for news that cannot wait: connecting, losing each other, bounds, strangers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from kad.ipc.codec import DropReason
from kad.ipc.link import LinkError
from kad.ipc.near_link import MESSAGE_LIMIT, PEERS_LIMIT, AcceptingEnd, ConnectingEnd
from tests.support.reactor import LoopReactor


class News(Struct, frozen=True):
    text: str


class Pair:
    """One end that listens, and as many others as wanted."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "near")
        self.reactor = LoopReactor()
        self.peers: list[bytes] = []
        self.heard: list[tuple[bytes, str]] = []
        self.told: list[str] = []
        self.ends: list[AcceptingEnd[News] | ConnectingEnd[News]] = []

    def listen(self) -> AcceptingEnd[News]:
        end: AcceptingEnd[News] = AcceptingEnd(
            self.reactor,
            self.path,
            News,
            on_peer=self.peers.append,
            on_message=lambda peer, message: self.heard.append((peer, message.text)),
        )
        self.ends.append(end)
        return end

    def connect(self, identity: bytes = b"one") -> ConnectingEnd[News]:
        end: ConnectingEnd[News] = ConnectingEnd(
            self.reactor,
            self.path,
            News,
            identity=identity,
            on_message=lambda message: self.told.append(message.text),
        )
        self.ends.append(end)
        return end

    def close(self) -> None:
        for end in self.ends:
            end.close()
        self.reactor.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("first", ["listener", "connector"])
def test_messages_go_both_ways_whoever_is_there_first(pair: Pair, first: str) -> None:
    if first == "listener":
        listener = pair.listen()
        connector = pair.connect()
    else:
        connector = pair.connect()
        pair.reactor.spin()
        listener = pair.listen()
    pair.reactor.until(lambda: pair.peers)
    assert listener.send(b"one", News("hello"))
    assert connector.send(News("here"))
    pair.reactor.until(lambda: pair.told and pair.heard)
    assert (pair.told, pair.heard) == (["hello"], [(b"one", "here")])


def test_the_socket_is_the_owners_alone(pair: Pair) -> None:
    pair.listen()
    assert os.stat(pair.path).st_mode & 0o777 == 0o600


def test_a_successor_is_found_by_itself(pair: Pair) -> None:
    first = pair.listen()
    connector = pair.connect()
    pair.reactor.until(lambda: pair.peers)
    first.close()
    pair.reactor.until(lambda: not connector.send(News("into nothing")))
    second = pair.listen()
    pair.reactor.until(lambda: len(pair.peers) == 2)
    second.send(b"one", News("again"))
    pair.reactor.until(lambda: pair.told)


def test_a_second_life_takes_the_place_of_the_first(pair: Pair) -> None:
    listener = pair.listen()
    pair.connect(b"one")
    pair.reactor.until(lambda: pair.peers)
    pair.ends.pop().close()
    pair.connect(b"one")
    pair.reactor.until(lambda: len(pair.peers) == 2)
    assert listener.send(b"one", News("for the living"))
    pair.reactor.until(lambda: pair.told)


def test_to_nobody_nothing_is_sent_and_that_is_counted(pair: Pair) -> None:
    listener, connector = pair.listen(), pair.connect()
    assert not listener.send(b"nobody", News("x"))
    assert listener.drops == {DropReason.UNSENT: 1}
    listener.close()
    pair.reactor.until(lambda: not connector.send(News("x")))
    assert connector.drops[DropReason.UNSENT] >= 1


def test_who_does_not_read_is_not_waited_for(pair: Pair) -> None:
    listener = pair.listen()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sleeper:
        sleeper.connect(pair.path)
        sleeper.send(b"sleeper")
        pair.reactor.until(lambda: pair.peers)
        message = News("x" * 10_000)
        for _ in range(10_000):
            if not listener.send(b"sleeper", message):
                break
        assert listener.drops[DropReason.UNSENT] == 1


def test_bytes_that_are_no_message_are_counted(pair: Pair) -> None:
    listener = pair.listen()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MESSAGE_LIMIT)
        stranger.connect(pair.path)
        stranger.send(b"stranger")
        for data in (b"\xc1", os.urandom(100), b"\x80"):
            stranger.send(data)
        pair.reactor.until(lambda: listener.drops[DropReason.GARBAGE] == 3)
    pair.reactor.spin()
    assert pair.heard == []


def test_connections_are_bounded_and_the_oldest_goes(pair: Pair) -> None:
    pair.listen()
    strangers = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(PEERS_LIMIT + 3)]
    for number, stranger in enumerate(strangers):
        stranger.connect(pair.path)
        stranger.send(f"{number}".encode())
        pair.reactor.until(lambda wanted=number: len(pair.peers) == wanted + 1)  # type: ignore[misc]
    assert [stranger.recv(1) for stranger in strangers[:3]] == [b""] * 3
    for stranger in strangers:
        stranger.close()


def test_a_path_that_is_too_long_or_not_there(tmp_path: Path) -> None:
    reactor = LoopReactor()
    for path in (tmp_path / ("x" * 120), tmp_path / "none" / "near"):
        with pytest.raises(LinkError):
            AcceptingEnd(reactor, str(path), News, on_peer=print, on_message=print)
    reactor.close()
