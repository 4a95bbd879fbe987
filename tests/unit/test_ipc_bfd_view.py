"""What a subscriber makes of what the BFD process tells, and of its silence."""

from __future__ import annotations

from kad.ipc.bfd_view import (
    ABSENCE_US,
    ANSWER_US,
    GRACE_US,
    STALL_US,
    BfdChanges,
    BfdLevel,
    BfdSnapshot,
    BfdView,
)

MS = 1_000
NOW = 1_000_000_000


def snapshot(sequence: int, *levels: BfdLevel, incarnation: int = 1) -> BfdSnapshot:
    return BfdSnapshot(incarnation, sequence, levels)


def changes(sequence: int, *levels: BfdLevel, after: int | None = None) -> BfdChanges:
    return BfdChanges(1, sequence, sequence - 1 if after is None else after, levels)


def up(name: str = "a", detection_ms: int = 30) -> BfdLevel:
    return BfdLevel(name, True, detection_ms * MS)


def down(name: str = "a") -> BfdLevel:
    return BfdLevel(name, False, 0)


def following(*names: str) -> BfdView:
    view = BfdView()
    assert view.follow(frozenset(names), 0, NOW) == []
    return view


def trusting(*levels: BfdLevel) -> BfdView:
    view = following(*(level.session for level in levels))
    view.receive(snapshot(1, *levels), NOW)
    return view


def test_nothing_is_up_before_the_first_snapshot() -> None:
    view = following("a")
    assert not view.is_up("a")
    assert view.wants_snapshot
    assert view.receive(changes(1, up()), NOW) == []
    assert not view.is_up("a")


def test_a_snapshot_and_changes() -> None:
    view = following("a", "b")
    assert view.receive(snapshot(1, up("a"), down("b")), NOW) == ["a", "b"], "each is told of once"
    assert view.receive(changes(2, down("a"), up("b")), NOW) == ["a", "b"]
    assert (view.is_up("a"), view.is_up("b")) == (False, True)
    assert not view.wants_snapshot


def test_what_nobody_knows_anything_of_is_down_after_a_while() -> None:
    view = following("a")
    due = view.deadline_us(0)
    assert due == NOW + ANSWER_US
    assert view.look(0, due - 1) == []
    assert view.look(0, due) == ["a"]
    assert not view.is_up("a")
    assert view.look(0, due + ANSWER_US) == []


def test_a_session_the_process_does_not_have_yet_is_waited_for() -> None:
    view = following("a", "b")
    assert view.receive(snapshot(1, up("a", 10_000)), NOW) == ["a"]
    assert view.deadline_us(NOW) == NOW + ANSWER_US
    assert view.receive(changes(2, up("b", 10_000)), NOW + MS) == ["b"]
    assert view.deadline_us(NOW) == NOW + MS + 10_000 * MS


def test_older_messages_are_counted_and_change_nothing() -> None:
    view = trusting(up())
    view.receive(changes(2, down()), NOW)
    assert view.receive(changes(2, up()), NOW) == []
    assert view.receive(snapshot(1, up()), NOW) == []
    assert view.stale == 2
    assert not view.is_up("a")


def test_a_gap_is_taken_as_it_is_and_a_snapshot_asked_for() -> None:
    view = trusting(up("a"), up("b"))
    assert view.receive(changes(5, down("a"), after=4), NOW) == ["a"]
    assert view.wants_snapshot
    assert view.is_up("b")
    assert view.receive(snapshot(6, down("a"), down("b")), NOW) == ["b"]
    assert not view.wants_snapshot


def test_a_new_life_of_the_process_begins_its_numbers_anew() -> None:
    view = trusting(up())
    view.receive(changes(9, up(), after=1), NOW)
    assert view.receive(snapshot(1, down(), incarnation=2), NOW) == ["a"]
    assert view.receive(snapshot(10, up()), NOW) == []
    assert not view.is_up("a")


def test_silence_for_the_detection_time_is_the_loss_of_everything() -> None:
    view = trusting(up("a", 30), up("b", 150), down("c"))
    ticked = NOW + 5 * MS
    assert view.deadline_us(ticked) == ticked + 30 * MS
    assert view.look(ticked, ticked + 30 * MS - 1) == []
    assert view.look(ticked, ticked + 30 * MS) == ["a"]
    assert not view.is_up("a")
    assert view.is_up("b"), "its own detection time has not passed"
    assert view.wants_snapshot
    assert view.deadline_us(ticked) == ticked + 150 * MS
    assert view.look(ticked, ticked + 150 * MS) == ["b"]


def test_a_process_that_ticks_is_trusted_for_ever() -> None:
    view = trusting(up())
    for tick in range(1000):
        at = NOW + tick * 15 * MS
        assert view.look(at, at + 14 * MS) == []
    assert view.is_up("a")


def test_only_what_it_says_anew_makes_up_what_was_lost() -> None:
    view = trusting(up())
    view.look(NOW, NOW + 30 * MS)
    later = NOW + 100 * MS
    assert view.look(later, later) == []
    assert not view.is_up("a"), "ticking again is not enough"
    assert view.receive(changes(2, up()), later) == []
    assert not view.is_up("a"), "nor are changes"
    assert view.receive(snapshot(3, up()), later) == ["a"]


def test_a_message_is_a_sign_of_life_before_the_tick_that_follows_it() -> None:
    view = trusting(up())
    view.look(NOW, NOW + 30 * MS)
    at = NOW + 500 * MS
    view.receive(snapshot(2, up()), at)
    assert view.look(NOW, at + 1 * MS) == []
    assert view.is_up("a")


def test_a_subscriber_that_did_not_run_itself_gives_grace_once() -> None:
    view = trusting(up())
    late = NOW + 30 * MS + STALL_US
    assert view.look(NOW, late) == []
    assert view.deadline_us(NOW) == late + GRACE_US
    assert view.look(NOW, late + GRACE_US) == ["a"]


def test_and_the_process_may_use_it() -> None:
    view = trusting(up())
    late = NOW + 30 * MS + STALL_US
    view.look(NOW, late)
    ticked = late + 2 * MS
    assert view.look(ticked, late + GRACE_US) == []
    assert view.deadline_us(ticked) == ticked + 30 * MS


def test_silence_means_nothing_while_nothing_is_up() -> None:
    view = trusting(down())
    assert view.deadline_us(NOW) > NOW + 3_600_000 * MS
    assert view.look(NOW, NOW + 3_600_000 * MS) == []
    assert view.receive(changes(2, up()), NOW + 3_600_001 * MS) == ["a"]


def test_a_session_missing_from_a_snapshot_is_down_after_a_while() -> None:
    view = trusting(up("a", 10_000), up("b", 10_000))
    assert view.receive(snapshot(2, up("b", 10_000)), NOW) == []
    assert view.is_up("a")
    due = view.deadline_us(NOW)
    assert due == NOW + ABSENCE_US
    assert view.look(due, due) == ["a"]
    assert view.is_up("b")


def test_a_session_that_comes_back_is_not_missed() -> None:
    view = trusting(up("a", 10_000))
    view.receive(snapshot(2), NOW)
    view.receive(changes(3, up("a", 10_000)), NOW)
    later = NOW + 2 * ABSENCE_US
    assert view.look(later, later) == []
    assert view.is_up("a")


def test_what_is_no_longer_followed_is_not_judged() -> None:
    view = trusting(up("a", 30), up("b", 500))
    assert view.follow(frozenset({"b"}), NOW, NOW) == []
    assert not view.is_up("a")
    assert view.deadline_us(NOW) == NOW + 500 * MS


def test_what_is_followed_later_is_known_at_once() -> None:
    view = trusting(up("a", 10_000))
    view.receive(snapshot(2, up("a", 10_000), up("b", 10_000), down("c")), NOW)
    assert view.follow(frozenset({"a", "b", "c"}), NOW, NOW + 5 * MS) == ["b", "c"]
    assert (view.is_up("b"), view.is_up("c")) == (True, False)


def test_what_is_followed_later_does_not_count_if_the_process_has_been_silent() -> None:
    view = trusting(down("a"))
    view.receive(snapshot(2, down("a"), up("b", 30)), NOW)
    assert view.follow(frozenset({"a", "b"}), NOW, NOW + 30 * MS) == ["b"]
    assert not view.is_up("b")
    assert view.wants_snapshot


def test_what_is_followed_again_is_told_of_again() -> None:
    view = trusting(up("a", 10_000), up("b", 10_000))
    view.follow(frozenset({"b"}), NOW, NOW)
    view.receive(changes(2, down("a")), NOW)
    assert view.follow(frozenset({"a", "b"}), NOW, NOW) == ["a"]
    assert not view.is_up("a")
