"""Generations and owed reloads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kad.ipc.messages import CommitGeneration, Generation, SupervisorSettings
from kad.supervisor.reload import Generations, ReloadRequests


def generation(number: int) -> Generation:
    return Generation(number=number, source_digest=f"digest {number}", slices={})


def commit(generations: Generations, number: int, said: int | None = None) -> str:
    message = CommitGeneration(said or number, (), SupervisorSettings())
    return generations.commit(message, generation(number))


def numbers(generations: Generations) -> tuple[int, int]:
    previous = generations.previous
    return generations.number, previous.number if previous else 0


def test_the_one_before_is_kept_until_all_have_applied() -> None:
    generations = Generations()
    assert numbers(generations) == (0, 0)
    assert commit(generations, 1) == ""
    assert numbers(generations) == (1, 0)
    assert generations.all_applied(1)
    assert commit(generations, 2) == ""
    assert numbers(generations) == (2, 1)
    assert generations.all_applied(2)
    assert numbers(generations) == (2, 0)


def test_a_second_commit_before_all_applied_keeps_the_oldest() -> None:
    generations = Generations()
    for number in (1, 2, 3):
        assert commit(generations, number) == ""
    assert numbers(generations) == (3, 1)
    assert not generations.all_applied(2), "stale"
    assert numbers(generations) == (3, 1)


def test_stale_and_inconsistent_commits_change_nothing() -> None:
    generations = Generations()
    commit(generations, 5)
    assert "not newer" in commit(generations, 5)
    assert "not newer" in commit(generations, 4)
    assert "memory" in commit(generations, 7, said=6)
    assert numbers(generations) == (5, 0)


def test_hup_during_the_first_load_is_passed_once_after_it() -> None:
    requests = ReloadRequests()
    assert not requests.request()
    assert not requests.control_started(loading=True)
    assert not requests.request()
    assert not requests.request()
    assert requests.finished()
    assert not requests.finished()


def test_a_second_hup_is_queued_once() -> None:
    requests = ReloadRequests()
    requests.control_started(loading=True)
    assert not requests.finished()
    assert requests.request()
    assert not requests.request()
    assert not requests.request()
    assert requests.finished()
    assert not requests.finished()
    assert requests.request()


def test_the_reload_control_died_of_is_not_repeated_but_the_queued_one_comes() -> None:
    requests = ReloadRequests()
    requests.control_started(loading=False)
    assert requests.request()
    requests.begun()
    requests.control_died()
    assert not requests.control_started(loading=False)
    assert requests.request()
    requests.begun()
    assert not requests.request()
    requests.control_died()
    assert requests.control_started(loading=False)


def test_what_control_died_without_reading_goes_to_the_next() -> None:
    requests = ReloadRequests()
    requests.control_started(loading=False)
    assert requests.request()
    requests.control_died()
    assert requests.control_started(loading=False)
    requests.begun()
    requests.control_died()
    assert not requests.control_started(loading=False)


def test_hup_without_control_waits_for_it() -> None:
    requests = ReloadRequests()
    requests.control_started(loading=False)
    requests.control_died()
    assert not requests.request()
    assert requests.control_started(loading=False)


@given(st.lists(st.sampled_from(["request", "begun", "finished", "started", "died"]), max_size=50))
def test_never_two_at_once_and_a_request_is_never_forgotten(history: list[str]) -> None:
    requests = ReloadRequests()
    listens = running = unread = False
    asked_since_passed = False
    for move in [*history, "died", "started", "finished", "finished"]:
        if move == "request":
            asked_since_passed = True
            passed = requests.request()
        elif move == "begun":
            requests.begun()
            passed = unread = False
        elif move == "finished":
            running = unread = False
            passed = requests.finished()
        elif move == "started":
            listens, running = True, False
            passed = requests.control_started(loading=False)
        else:
            asked_since_passed |= unread
            listens = running = unread = False
            requests.control_died()
            passed = False
        if passed:
            assert asked_since_passed
            assert listens
            assert not running
            running, unread, asked_since_passed = True, True, False
    assert not asked_since_passed
