"""Commits: the acknowledgement, generations kept, roles added and dropped, control dying at each point."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from tests.support.roles.family import Family, is_alive

SETTINGS: dict[str, Any] = {"child_wait_us": 1_000_000}


def test_commit_is_acknowledged_and_later_lives_start_from_it() -> None:
    with Family(log_detail=1).start_ready() as family:
        family.command("control", "commit 2")
        assert family.wait_for("committed", count=2)["number"] == 2
        started = family.kill_and_wait("vrrp")
        assert (started["generation"], started["previous"]) == (2, 1)
        family.command("control", "applied 2")
        family.wait_for_log("generation 2 runs everywhere")
        started = family.kill_and_wait("bfd")
        assert (started["generation"], started["previous"]) == (2, 0)


def test_dead_control_is_back_with_the_generation() -> None:
    with Family().start_ready() as family:
        family.command("control", "commit 2")
        family.wait_for("committed", count=2)
        started = family.kill_and_wait("control")
        assert (started["generation"], started["previous"]) == (2, 1)
        assert family.events("committed")[-1]["number"] == 2
        family.wait(lambda: family.states() == dict.fromkeys(["control", "vrrp", "check", "bfd"], "RUNNING"))
        assert {len(family.events("start", role)) for role in ("vrrp", "check", "bfd")} == {1}


def test_a_commit_sent_before_controls_death_counts() -> None:
    for _ in range(3):
        with Family().start_ready() as family:
            family.command("control", "commit-and-die 2")
            started = family.wait_for("start", "control", 2)
            assert (started["generation"], started["previous"]) == (2, 1)


def test_stale_commit_is_answered_with_the_present() -> None:
    with Family().start_ready() as family:
        family.command("control", "commit 5")
        family.wait_for("committed", count=2)
        family.command("control", "commit 4")
        assert family.wait_for("committed", count=3)["number"] == 5
        family.wait(lambda: "not newer" in family.log())


def test_generation_adds_and_drops_roles() -> None:
    with Family({"roles": ["vrrp"], "settings": SETTINGS}).start_ready() as family:
        assert family.states() == {"control": "RUNNING", "vrrp": "RUNNING"}
        assert not (family.directory / "bfd.pid").exists()
        vrrp = family.child("vrrp")
        family.plan({"roles": ["vrrp", "bfd"], "settings": SETTINGS})
        family.command("control", "commit 2")
        assert family.wait_for("start", "bfd")["generation"] == 2
        family.wait(lambda: family.states().get("bfd") == "RUNNING")
        bfd = family.child("bfd")
        family.plan({"roles": ["bfd"], "settings": SETTINGS})
        family.command("control", "commit 3")
        family.wait_for("stopped", "vrrp")
        family.wait(lambda: family.states() == {"control": "RUNNING", "bfd": "RUNNING"})
        assert not is_alive(vrrp)
        assert family.child("bfd") == bfd
        assert not (family.directory / "vrrp.pid").exists()
        assert family.stop() == 0
        assert len(family.events("start", "vrrp")) == 1


def test_control_that_talks_nonsense_is_replaced() -> None:
    with Family().start_ready() as family:
        vrrp = family.child("vrrp")
        family.command("control", "nonsense")
        assert family.wait_for("start", "control", 2)["generation"] == 1
        assert "no message" in family.log()
        assert family.child("vrrp") == vrrp


def test_control_that_hangs_up_is_replaced_and_costs_no_processor() -> None:
    with Family().start_ready() as family:
        family.command("control", "hang-up")
        begin_us = family.wait_for("command", "control")["at_us"]
        before_s = family.processor_s()
        started = family.wait_for("start", "control", 2)
        assert started["at_us"] - begin_us < 2_000_000
        assert family.processor_s() - before_s < 0.3
        assert "closed its line" in family.log()


def test_a_hup_for_a_control_that_hung_up_goes_to_the_next_one() -> None:
    with Family().start_ready() as family:
        deaf, before = family.child("control"), sockets_of(family.pid)
        family.command("control", "hang-up")
        # The supervisor hears of it within a moment; the process itself lives on for a second.
        family.wait(lambda: sockets_of(family.pid) < before)
        family.signal(1)
        assert family.wait_for("reload")["pid"] != deaf
        assert family.stop() == 0


def sockets_of(pid: int) -> int:
    count = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            count += os.readlink(each).startswith("socket:")
    return count


def test_reload_lost_with_control_is_said_and_the_next_one_works() -> None:
    with Family().start_ready() as family:
        family.signal(1)
        family.wait_for("reload")
        family.kill_and_wait("control")
        assert "reload ended with control" in family.log()
        family.signal(1)
        family.wait_for("reload", count=2)
