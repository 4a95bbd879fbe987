"""Anything may die at any moment: afterwards there is one whole family on one generation, or none."""

from __future__ import annotations

import contextlib
import os
import random
import signal

import psutil
import pytest

from tests.support.namespaces import remains
from tests.support.roles.family import Family, is_alive

ROLES = ("control", "vrrp", "check", "bfd")
SETTINGS = {"hang_limit_us": 300_000, "child_wait_us": 300_000, "least_master_down_us": 100_000}
SHOTS = 25


def family_tree(pid: int) -> list[psutil.Process]:
    """What is alive below ``pid``. A process may end while it is looked at."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process for process in psutil.Process(pid).children() if is_alive(process.pid)]
    return []


def is_whole(family: Family) -> bool:
    """Control says that all run, it is still there itself, and nobody stands still but a spare."""
    try:
        children = [process for process in family_tree(family.pid) if process.name() != "kad_spare"]
        alive = {process.pid: process.status() for process in children}
    except psutil.NoSuchProcess:
        return False
    return (
        family.states() == dict.fromkeys(ROLES, "RUNNING")
        and set(alive) == {family.child(role) for role in ROLES}
        and psutil.STATUS_STOPPED not in alive.values()
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_random_deaths(seed: int) -> None:
    source = random.Random(seed)
    generation = 1
    with Family({"settings": SETTINGS, "withdraw_s": 0.02}).start_ready() as family:
        for _ in range(SHOTS):
            victims = family_tree(family.pid)
            shot = source.choice(["kill", "kill", "stop", "hup", "usr1", "commit", "term a child"])
            with contextlib.suppress(ProcessLookupError, IndexError):
                if shot == "kill":
                    os.kill(source.choice(victims).pid, signal.SIGKILL)
                elif shot == "stop":
                    os.kill(source.choice(victims).pid, signal.SIGSTOP)
                elif shot == "term a child":
                    os.kill(source.choice(victims).pid, signal.SIGTERM)
                elif shot in ("hup", "usr1"):
                    family.signal(signal.SIGHUP if shot == "hup" else signal.SIGUSR1)
                else:
                    generation += 1
                    family.command("control", f"commit {generation}")
            remains(family.is_running, "the daemon runs", seconds=source.uniform(0, 0.06))
        # The longest delay so many crashes lead to is far below the patience.
        family.wait(lambda: is_whole(family), 70)
        committed = max(event["number"] for event in family.events("committed"))
        newest = {role: family.events("start", role)[-1]["generation"] for role in ROLES}
        assert max(newest.values()) <= committed
        pids = [process.pid for process in family_tree(family.pid)]
        assert family.stop() == 0
        assert not any(is_alive(pid) for pid in pids)
        assert "Traceback" not in family.log()


@pytest.mark.slow
def test_supervisor_killed_again_and_again() -> None:
    """A new one is there at once each time, waits for the old family, and there are never two."""
    with Family().start_ready() as family:
        for turn in range(2, 6):
            family.signal(signal.SIGKILL)
            family.exit_status()
            family.start()
            family.wait_for("start", "bfd", turn)
            family.wait(lambda: all(family.child(role) for role in ROLES))
            alive = {event["pid"] for event in family.events() if is_alive(event["pid"])}
            assert alive == {family.child(role) for role in ROLES}
        assert family.stop() == 0
