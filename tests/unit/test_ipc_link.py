"""Both ends of a link on real sockets: connections, lost routers, full queues, garbage."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from kad.ipc import link
from kad.ipc.codec import DropReason
from kad.ipc.link import DealerEnd, LinkError, RouterEnd
from kad.ipc.messages import ChildToControl, ControlToChild, Hello, HelloRequest, Role, StatusRequest
from tests.support.reactor import LoopReactor

HELLO = Hello(Role.VRRP, 1, 1, 0)


@pytest.fixture
def reactor() -> Iterator[LoopReactor]:
    reactor = LoopReactor()
    yield reactor
    reactor.close()


class Router:
    def __init__(self, reactor: LoopReactor, path: Path) -> None:
        self.peers: list[bytes] = []
        self.received: list[tuple[bytes, ChildToControl]] = []
        self.end: RouterEnd[ChildToControl] = RouterEnd(
            reactor,
            str(path),
            ChildToControl,
            on_peer=self.peers.append,
            on_message=lambda peer, message: self.received.append((peer, message)),
        )


class Dealer:
    def __init__(self, reactor: LoopReactor, path: Path, identity: bytes = b"vrrp.1") -> None:
        self.received: list[ControlToChild] = []
        self.end: DealerEnd[ControlToChild] = DealerEnd(
            reactor, str(path), ControlToChild, identity=identity, on_message=self.received.append
        )


def test_new_connection_is_known_and_both_directions_carry(reactor: LoopReactor, tmp_path: Path) -> None:
    router, dealer = Router(reactor, tmp_path / "s"), Dealer(reactor, tmp_path / "s")
    reactor.until(lambda: router.peers)
    assert router.peers == [b"vrrp.1"]
    assert router.end.send(b"vrrp.1", HelloRequest())
    reactor.until(lambda: dealer.received)
    assert dealer.end.send(HELLO)
    reactor.until(lambda: router.received)
    assert router.received == [(b"vrrp.1", HELLO)]
    router.end.close()
    dealer.end.close()


def test_dealer_may_come_first(reactor: LoopReactor, tmp_path: Path) -> None:
    dealer = Dealer(reactor, tmp_path / "s")
    assert not dealer.end.send(HELLO)
    assert dealer.end.drops == {DropReason.UNSENT: 1}
    router = Router(reactor, tmp_path / "s")
    reactor.until(lambda: router.peers)
    # What could not be sent was not kept for later either: only the present counts.
    reactor.spin()
    assert not router.received
    router.end.close()
    dealer.end.close()


def test_dealer_greets_each_new_router(reactor: LoopReactor, tmp_path: Path) -> None:
    dealer = Dealer(reactor, tmp_path / "s")
    for _ in range(5):
        router = Router(reactor, tmp_path / "s")
        reactor.until(lambda: router.peers)  # noqa: B023 - called at once
        router.end.send(b"vrrp.1", StatusRequest(9))
        router.end.close()
        reactor.spin(5)
    dealer.end.close()


def test_socket_left_by_a_killed_router_is_replaced(reactor: LoopReactor, tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(b"")
    router, dealer = Router(reactor, path), Dealer(reactor, path)
    reactor.until(lambda: router.peers)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    router.end.close()
    dealer.end.close()


def test_every_message_of_a_burst_arrives_in_order(reactor: LoopReactor, tmp_path: Path) -> None:
    """More than one batch, both ways at once: the descriptor's news must not get lost between them."""
    router, dealer = Router(reactor, tmp_path / "s"), Dealer(reactor, tmp_path / "s")
    reactor.until(lambda: router.peers)
    sent = received = 0
    while received < 2000:
        if sent < 2000 and router.end.send(b"vrrp.1", StatusRequest(sent)):
            sent += 1
            dealer.end.send(HELLO)
        else:
            reactor.spin(1)
        received = len(dealer.received)
    assert dealer.received == [StatusRequest(number) for number in range(2000)]
    reactor.until(lambda: len(router.received) + dealer.end.drops[DropReason.UNSENT] == 2000)
    router.end.close()
    dealer.end.close()


def test_peer_that_does_not_read_costs_a_bounded_queue(reactor: LoopReactor, tmp_path: Path) -> None:
    router = Router(reactor, tmp_path / "s")
    context = zmq.Context()
    deaf = context.socket(zmq.DEALER)
    deaf.setsockopt(zmq.RCVHWM, 1)
    deaf.setsockopt(zmq.LINGER, 0)
    deaf.connect(f"ipc://{tmp_path}/s")
    deaf.send(b"")
    reactor.until(lambda: router.peers)
    body = StatusRequest(1)
    for _ in range(100_000):
        if not router.end.send(router.peers[0], body):
            break
    assert router.end.drops == {DropReason.UNSENT: 1}
    deaf.close(0)
    context.term()
    router.end.close()


def test_send_to_a_stranger_is_counted(reactor: LoopReactor, tmp_path: Path) -> None:
    router = Router(reactor, tmp_path / "s")
    assert not router.end.send(b"vrrp.9", HelloRequest())
    assert router.end.drops == {DropReason.UNSENT: 1}
    router.end.close()


def test_garbage_is_counted_and_harms_nobody(reactor: LoopReactor, tmp_path: Path) -> None:
    router, dealer = Router(reactor, tmp_path / "s"), Dealer(reactor, tmp_path / "s")
    context = zmq.Context()
    rude = context.socket(zmq.DEALER)
    rude.connect(f"ipc://{tmp_path}/s")
    for frames in ([b"\xc1"], [b"a", b"b"], [b"", b"", b""], [b"\x81\xa4type\xa5Hello"], [b"x" * 100_000]):
        rude.send_multipart(frames)
    reactor.until(lambda: router.end.drops[DropReason.GARBAGE] == 5)
    reactor.until(lambda: b"vrrp.1" in router.peers)
    dealer.end.send(HELLO)
    reactor.until(lambda: router.received)
    rude.close(0)
    context.term()
    router.end.close()
    dealer.end.close()


def test_second_peer_of_the_same_name_takes_over(reactor: LoopReactor, tmp_path: Path) -> None:
    router = Router(reactor, tmp_path / "s")
    first = Dealer(reactor, tmp_path / "s")
    reactor.until(lambda: router.peers)
    second = Dealer(reactor, tmp_path / "s")
    reactor.until(lambda: len(router.peers) >= 2)
    router.end.send(b"vrrp.1", StatusRequest(5))
    reactor.until(lambda: second.received)
    router.end.close()
    first.end.close()
    second.end.close()


def test_path_too_long_for_the_kernel_is_said_at_once(reactor: LoopReactor, tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="107"):
        Router(reactor, tmp_path / ("x" * 120))
    assert link.PATH_LIMIT == 107


def test_closing_twice_and_sending_after_it_are_harmless(reactor: LoopReactor, tmp_path: Path) -> None:
    router, dealer = Router(reactor, tmp_path / "s"), Dealer(reactor, tmp_path / "s")
    for end in (router.end, dealer.end):
        end.close()
        end.close()
    assert not dealer.end.send(HELLO)
    assert not router.end.send(b"vrrp.1", HelloRequest())
