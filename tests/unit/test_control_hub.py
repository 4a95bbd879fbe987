"""Control's ends: who is known by which life, and the socket pair to the supervisor."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kad.config.model.globals import Mail
from kad.control.events import ChildApplied, ChildGreeted, ChildPrepared, Event
from kad.control.hub import ChildrenHub, SupervisorPipe
from kad.ipc.codec import DropReason, encode
from kad.ipc.link import DealerEnd, child_identity, control_path
from kad.ipc.messages import (
    Alert,
    Applied,
    Apply,
    CommitGeneration,
    Committed,
    ControlToChild,
    Generation,
    Hello,
    HelloRequest,
    Prepared,
    ReloadRequested,
    Role,
    StatusReport,
    StatusRequest,
    SupervisorSettings,
    SupervisorToControl,
)
from kad.notify.policy import Letter
from kad.supervisor.channel import Channel, read_generation
from tests.support.reactor import LoopReactor


@pytest.fixture
def reactor() -> Iterator[LoopReactor]:
    reactor = LoopReactor()
    yield reactor
    reactor.close()


class Hub:
    def __init__(self, reactor: LoopReactor, directory: Path) -> None:
        self.events: list[Event] = []
        self.reports: list[StatusReport] = []
        self.alerts: list[Alert] = []
        self.hub = ChildrenHub(
            reactor,
            str(directory),
            feed=self.events.append,
            on_status=self.reports.append,
            on_alert=self.alerts.append,
        )


class Child:
    def __init__(self, reactor: LoopReactor, directory: Path, incarnation: int) -> None:
        self.heard: list[ControlToChild] = []
        self.end: DealerEnd[ControlToChild] = DealerEnd(
            reactor,
            control_path(str(directory)),
            ControlToChild,
            identity=child_identity(Role.VRRP, incarnation, 100 + incarnation),
            on_message=self.heard.append,
        )
        reactor.until(lambda: self.heard)
        assert self.heard.pop() == HelloRequest()


def test_children_speak_as_events(reactor: LoopReactor, tmp_path: Path) -> None:
    hub = Hub(reactor, tmp_path)
    child = Child(reactor, tmp_path, 1)
    child.end.send(Hello(Role.VRRP, 101, 1, 3))
    child.end.send(Prepared(Role.VRRP, 1, 7, "no"))
    child.end.send(Applied(Role.VRRP, 1, 4, ("why",)))
    alert = Alert(Role.VRRP, 1, Mail(recipients=("a@example.org",)), "node", Letter("subject", "body"))
    child.end.send(alert)
    child.end.send(StatusReport(Role.VRRP, 1, 4, 1, 9, b"body"))
    reactor.until(lambda: hub.reports)
    assert hub.alerts == [alert]
    assert hub.events == [
        ChildGreeted(Role.VRRP, 1, 3),
        ChildPrepared(Role.VRRP, 1, 7, "no"),
        ChildApplied(Role.VRRP, 1, 4, ("why",)),
    ]
    hub.hub.close()
    child.end.close()


def test_messages_go_to_the_life_they_are_for(reactor: LoopReactor, tmp_path: Path) -> None:
    hub = Hub(reactor, tmp_path)
    first, second = Child(reactor, tmp_path, 1), Child(reactor, tmp_path, 2)
    second.end.send(Hello(Role.VRRP, 102, 2, 0))
    reactor.until(lambda: hub.events)
    assert hub.hub.send(Role.VRRP, 2, Apply(3, {}))
    reactor.until(lambda: second.heard)
    assert not hub.hub.send(Role.VRRP, 1, Apply(3, {}))
    assert not first.heard
    # A life that has not spoken is found by its process id.
    assert not hub.hub.send(Role.CHECK, 1, StatusRequest(1))
    assert hub.hub.send(Role.VRRP, 1, HelloRequest(), pid=101)
    reactor.until(lambda: first.heard)
    hub.hub.close()
    first.end.close()
    second.end.close()


def test_life_that_has_ended_is_not_listened_to(reactor: LoopReactor, tmp_path: Path) -> None:
    hub = Hub(reactor, tmp_path)
    first, second = Child(reactor, tmp_path, 1), Child(reactor, tmp_path, 2)
    second.end.send(Hello(Role.VRRP, 102, 2, 0))
    reactor.until(lambda: hub.events)
    first.end.send(Applied(Role.VRRP, 1, 9))
    reactor.until(lambda: hub.hub.drops[DropReason.STALE_INCARNATION])
    assert hub.events == [ChildGreeted(Role.VRRP, 2, 0)]
    hub.hub.close()
    first.end.close()
    second.end.close()


# The supervisor --------------------------------------------------------------------------------------------


class Pipe:
    def __init__(self, reactor: LoopReactor) -> None:
        self.channel = Channel()
        self.heard: list[SupervisorToControl] = []
        self.gone = 0
        self.pipe = SupervisorPipe(
            reactor,
            os.dup(self.channel.theirs.fileno()),
            on_message=self.heard.append,
            on_gone=self.leave,
        )

    def leave(self) -> None:
        self.gone += 1


def open_generations() -> int:
    """Descriptors of generations that this process holds."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return sum(link.startswith("/memfd:kad-generation") for link in links)


def test_commit_carries_the_generation_sealed(reactor: LoopReactor) -> None:
    pipe = Pipe(reactor)
    generation = Generation(3, "digest", {Role.VRRP: {"VI_1": b"x" * 1_000_000}})
    message = CommitGeneration(3, (Role.VRRP,), SupervisorSettings())
    pipe.pipe.commit(message, generation)
    assert open_generations() == 0
    ((received, descriptor),) = pipe.channel.receive()
    assert received == message
    assert read_generation(descriptor) == generation
    assert open_generations() == 1
    os.close(descriptor)
    pipe.channel.close()
    pipe.pipe.close()


def test_supervisor_is_heard_in_order(reactor: LoopReactor) -> None:
    pipe = Pipe(reactor)
    for number in range(100):
        pipe.channel.send(Committed(number))
    pipe.channel.send(ReloadRequested())
    reactor.until(lambda: len(pipe.heard) == 101)
    assert pipe.heard == [*(Committed(number) for number in range(100)), ReloadRequested()]
    pipe.channel.close()
    pipe.pipe.close()


def test_garbage_on_the_socket_pair_is_counted(reactor: LoopReactor) -> None:
    pipe = Pipe(reactor)
    pipe.channel._socket.send(b"\xc1")
    pipe.channel._socket.send(encode(Committed(1)))
    reactor.until(lambda: pipe.heard)
    assert pipe.pipe.drops == {DropReason.GARBAGE: 1}
    pipe.channel.close()
    pipe.pipe.close()


def test_supervisor_gone_is_told_once(reactor: LoopReactor) -> None:
    pipe = Pipe(reactor)
    pipe.channel.close()
    reactor.until(lambda: pipe.gone)
    reactor.spin()
    assert pipe.gone == 1


def test_supervisor_that_does_not_read_is_no_reason_to_wait(reactor: LoopReactor) -> None:
    pipe = Pipe(reactor)
    with pytest.raises(BlockingIOError):
        for _ in range(100_000):
            pipe.pipe.send(CommitGeneration(1, (), SupervisorSettings()))
    assert isinstance(pipe.channel.theirs, socket.socket)
    pipe.channel.close()
    pipe.pipe.close()
