"""Real processes: a spare VRRP child stands ready, and nobody but the supervisor deals with it."""

from __future__ import annotations

import os
import signal

import psutil

from tests.support.namespaces import remains
from tests.support.roles.family import Family, is_alive


def spare(family: Family) -> int:
    """The process id of the spare that waits; 0 when there is none."""
    for process in psutil.Process(family.pid).children():
        try:
            if process.name() == "kad_spare" and is_alive(process.pid):
                return process.pid
        except psutil.NoSuchProcess:
            continue
    return 0


def other_spare(family: Family, than: int) -> int:
    found: int = family.wait(lambda: (pid := spare(family)) != than and pid)
    return found


def test_the_spare_is_the_next_life_and_is_followed_by_another() -> None:
    with Family().start_ready() as family:
        for life in (2, 3):
            waiting = other_spare(family, 0)
            started = family.kill_and_wait("vrrp")
            assert (started["pid"], started["life"], started["generation"]) == (waiting, life, 1)
            assert psutil.Process(waiting).name() == "kad_vrrp"
            # It was told to begin first of all.
            family.wait(lambda pid=waiting: (family.directory / "vrrp.pid").read_text() == f"{pid}\n")
            assert other_spare(family, 0) != waiting
        assert [event["life"] for event in family.events("start", "vrrp")] == [1, 2, 3]


def test_the_third_life_in_a_minute_holds_preemption_spare_or_not() -> None:
    with Family().start_ready() as family:
        for _ in range(3):
            other_spare(family, 0)
            family.kill_and_wait("vrrp")
        starts = family.events("start", "vrrp")
        assert [start["hold"] for start in starts] == [False, False, False, True]


def test_a_spare_of_an_older_generation_goes() -> None:
    with Family().start_ready() as family:
        old = other_spare(family, 0)
        family.command("control", "commit 2")
        family.wait_for("committed", count=2)
        family.wait(lambda: not is_alive(old))
        started = family.kill_and_wait("vrrp")
        assert (started["generation"], started["life"]) == (2, 2)


def test_whatever_befalls_the_spare_costs_nothing() -> None:
    """Killed, or killed together with the child it was to follow, or stopped by somebody."""
    with Family().start_ready() as family:
        child = family.child("vrrp")
        first = other_spare(family, 0)
        os.kill(first, signal.SIGKILL)
        second = other_spare(family, first)
        assert family.child("vrrp") == child
        assert len(family.events("start", "vrrp")) == 1
        family.signal(signal.SIGSTOP)
        os.kill(second, signal.SIGKILL)
        family.kill("vrrp")
        family.signal(signal.SIGCONT)
        family.wait_for("start", "vrrp", 2)
        family.wait(lambda: family.states().get("vrrp") == "RUNNING")
        third = other_spare(family, second)
        os.kill(third, signal.SIGSTOP)
        assert family.kill_and_wait("vrrp")["pid"] == third


def test_no_spare_outlives_the_daemon() -> None:
    with Family().start_ready() as family:
        waiting = other_spare(family, 0)
        assert family.stop() == 0
        family.wait(lambda: not is_alive(waiting))
    with Family().start_ready() as family:
        waiting = other_spare(family, 0)
        family.signal(signal.SIGKILL)
        family.wait(lambda: not is_alive(waiting))


def test_without_restarts_there_is_no_spare() -> None:
    with Family(respawn=False).start_ready() as family:
        remains(lambda: spare(family) == 0, "no spare", seconds=1)
        family.kill("vrrp")
        assert family.exit_status() == 0
