"""A child's conversation with control, both on real sockets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kad.config.model.globals import Mail
from kad.ipc.child_link import ALERTS_LIMIT, ChildLink, Slice
from kad.ipc.codec import DropReason
from kad.ipc.link import RouterEnd, control_path
from kad.ipc.messages import (
    Abandon,
    Alert,
    Applied,
    Apply,
    ChildToControl,
    Generation,
    Hello,
    HelloRequest,
    Prepare,
    Prepared,
    Role,
    StatusReport,
    StatusRequest,
)
from kad.ipc.trial import Trial
from kad.notify.policy import Letter
from kad.runtime.journal import Journal
from kad.runtime.process import ChildContext, Options
from tests.support.reactor import LoopReactor

MAIL = Mail(recipients=("a@example.org",))


class Conversation:
    """A child that applies when told to, and a bare router in control's place."""

    def __init__(self, directory: Path, generation: Generation | None) -> None:
        self.reactor = LoopReactor()
        self.journal = Journal.create()
        self.directory = directory
        self.asked: list[tuple[int, Slice]] = []
        self.prepared: list[Slice] = []
        self.abandoned = 0
        self.received: list[ChildToControl] = []
        self.peers: list[bytes] = []
        self.refusal = ""
        self.turns: int | None = None
        """Of the loop, that looking takes; None: it is done at once."""
        self.tried = self.ended = 0
        context = ChildContext(
            Role.VRRP, 3, Options(), str(directory), self.journal, generation, supervisor_pid=1
        )
        self.link = ChildLink(
            context,
            self.reactor,
            on_prepare=self._prepare,
            on_apply=lambda number, slice_: self.asked.append((number, slice_)),
            on_abandon=self._abandon,
            report=lambda: b"body",
        )
        self.router = self._listen()

    def _listen(self) -> RouterEnd[ChildToControl]:
        return RouterEnd(
            self.reactor,
            control_path(str(self.directory)),
            ChildToControl,
            on_peer=self.peers.append,
            on_message=lambda _peer, message: self.received.append(message),
        )

    def _prepare(self, slice_: Slice) -> str | Trial:
        self.prepared.append(slice_)
        return self.refusal if self.turns is None else self._trial(self.turns)

    def _trial(self, turns: int) -> Trial:
        try:
            for _ in range(turns):
                self.tried += 1
                yield
            return self.refusal
        finally:
            self.ended += 1

    def _abandon(self) -> None:
        self.abandoned += 1

    def begin(self) -> None:
        self.link.start()
        self.reactor.until(lambda: self.peers)

    def say(self, *messages: HelloRequest | Prepare | Abandon | Apply | StatusRequest) -> None:
        for message in messages:
            assert self.router.send(self.peers[-1], message)

    def hear(self, *messages: ChildToControl) -> None:
        self.reactor.until(lambda: len(self.received) >= len(messages))
        assert self.received == list(messages)
        self.received.clear()

    def restart_control(self) -> None:
        self.router.close()
        self.peers.clear()
        self.router = self._listen()
        self.reactor.until(lambda: self.peers)

    def close(self) -> None:
        self.link.close()
        self.router.close()
        self.reactor.close()


@pytest.fixture
def conversation(tmp_path: Path) -> Iterator[Conversation]:
    slices = {Role.VRRP: {"VI_1": b"one"}, Role.CHECK: {"vs": b"other"}}
    conversation = Conversation(tmp_path, Generation(4, "digest", slices))
    yield conversation
    conversation.close()


def hello(generation: int) -> Hello:
    return Hello(Role.VRRP, os.getpid(), 3, generation)


def test_generation_of_birth_is_applied_without_control(conversation: Conversation) -> None:
    conversation.router.close()
    conversation.link.start()
    assert conversation.asked == [(4, {"VI_1": b"one"})]
    conversation.link.applied(4)
    assert conversation.journal.heartbeat(Role.VRRP).generation == 4


def test_hello_says_what_has_been_applied_not_what_was_asked(conversation: Conversation) -> None:
    conversation.begin()
    conversation.say(HelloRequest())
    conversation.hear(hello(0))
    conversation.link.applied(4)
    conversation.hear(Applied(Role.VRRP, 3, 4))
    conversation.say(HelloRequest())
    conversation.hear(hello(4))


def test_a_trial_is_played_over_many_turns_and_answered_at_its_end(conversation: Conversation) -> None:
    conversation.begin()
    conversation.refusal, conversation.turns = "no room", 50
    conversation.say(Prepare(77, 5, {"VI_1": b"two"}))
    conversation.hear(Prepared(Role.VRRP, 3, 77, "no room"))
    assert (conversation.tried, conversation.ended) == (50, 1)


@pytest.mark.parametrize("after", [Abandon(77), Prepare(78, 5, {"VI_1": b"two"}), Apply(5, {"VI_1": b"two"})])
def test_a_trial_that_was_overtaken_is_not_answered(
    conversation: Conversation, after: Abandon | Prepare | Apply
) -> None:
    conversation.begin()
    conversation.turns = 1_000_000_000
    conversation.say(Prepare(77, 5, {"VI_1": b"one"}))
    conversation.reactor.until(lambda: conversation.tried > 3)
    conversation.turns = None
    conversation.say(after, HelloRequest())
    found = hello(0)
    answers = [Prepared(Role.VRRP, 3, 78, "")] if isinstance(after, Prepare) else []
    conversation.hear(*answers, found)
    assert conversation.ended == 1


def test_prepare_is_answered_and_changes_nothing(conversation: Conversation) -> None:
    conversation.begin()
    conversation.link.applied(4)
    conversation.hear(Applied(Role.VRRP, 3, 4))
    conversation.refusal = "no"
    conversation.say(Prepare(77, 5, {"VI_1": b"two"}), Abandon(77))
    conversation.hear(Prepared(Role.VRRP, 3, 77, "no"))
    conversation.reactor.until(lambda: conversation.abandoned)
    assert conversation.prepared == [{"VI_1": b"two"}]
    assert conversation.asked == [(4, {"VI_1": b"one"})]
    assert conversation.link.generation == 4


def test_apply_is_carried_out_once_and_answered_each_time(conversation: Conversation) -> None:
    conversation.begin()
    conversation.link.applied(4)
    apply = Apply(5, {"VI_1": b"two"})
    conversation.say(apply, apply)
    conversation.reactor.until(lambda: len(conversation.asked) == 2)
    conversation.link.applied(5, ("no such device",))
    answer = Applied(Role.VRRP, 3, 5, ("no such device",))
    conversation.hear(Applied(Role.VRRP, 3, 4), answer)
    conversation.say(apply)
    conversation.hear(answer)
    assert conversation.asked[1:] == [(5, {"VI_1": b"two"})]


def test_what_is_older_than_the_present_is_dropped(conversation: Conversation) -> None:
    conversation.begin()
    conversation.link.applied(4)
    conversation.say(Apply(3, {}), Prepare(1, 4, {}), StatusRequest(8))
    conversation.hear(Applied(Role.VRRP, 3, 4), StatusReport(Role.VRRP, 3, 4, 1, 8, b"body"))
    assert conversation.link.drops[DropReason.STALE_GENERATION] == 2
    assert not conversation.prepared
    assert len(conversation.asked) == 1


def test_a_late_end_of_an_older_apply_does_not_take_the_generation_back(conversation: Conversation) -> None:
    conversation.begin()
    conversation.say(Apply(5, {}))
    conversation.reactor.until(lambda: len(conversation.asked) == 2)
    conversation.link.applied(5)
    conversation.link.applied(4)
    assert conversation.link.generation == 5


def test_control_reborn_is_told_where_the_child_is(conversation: Conversation) -> None:
    conversation.begin()
    conversation.link.applied(4)
    conversation.hear(Applied(Role.VRRP, 3, 4))
    for _ in range(3):
        conversation.restart_control()
        conversation.say(HelloRequest())
        conversation.hear(hello(4))


def test_applying_while_control_is_away_is_told_later(conversation: Conversation) -> None:
    conversation.begin()
    conversation.router.close()
    conversation.reactor.spin()
    conversation.link.applied(4)
    conversation.restart_control()
    conversation.say(HelloRequest())
    conversation.hear(hello(4))


def test_alerts_wait_for_a_control_that_is_away(conversation: Conversation) -> None:
    conversation.begin()
    conversation.router.close()
    conversation.reactor.spin()
    for number in range(ALERTS_LIMIT + 3):
        conversation.link.alert(MAIL, "node", Letter(str(number), "body"))
    assert conversation.link.alerts_lost == 3
    conversation.restart_control()
    conversation.say(HelloRequest())
    heard = conversation.received
    conversation.reactor.until(lambda: len(heard) == ALERTS_LIMIT + 1)
    alerts = [each for each in heard if isinstance(each, Alert)]
    assert [each.letter.subject for each in alerts] == [str(n + 3) for n in range(ALERTS_LIMIT)]
    assert {(each.mail, each.router_id, each.role, each.incarnation) for each in alerts} == {
        (MAIL, "node", Role.VRRP, 3)
    }
