"""Real processes: start, death, restart, back-off, withdrawing, stop, and the supervisor's own end."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from tests.support.metronome import interpreter_start_us
from tests.support.namespaces import remains
from tests.support.roles.family import Family, is_alive

ROLES = ("control", "vrrp", "check", "bfd")
AT_ONCE_US = 20_000
TOLD_WITHIN_US = 500_000


def test_start_and_orderly_stop() -> None:
    with Family().start_ready() as family:
        assert {role: family.child(role) > 0 for role in ROLES} == dict.fromkeys(ROLES, True)
        assert family.events("start", "control")[0]["generation"] == 0
        assert {event["generation"] for role in ROLES[1:] for event in family.events("start", role)} == {1}
        pids = [family.child(role) for role in ROLES]
        assert family.stop() == 0
        assert not any(is_alive(pid) for pid in pids)
        assert not list(family.directory.glob("*.pid"))
        stops = [event["role"] for event in family.events("stopped")]
        assert sorted(stops) == sorted(ROLES)
        assert stops[-1] == "control", "status can be asked until the end"


@pytest.mark.alone
@pytest.mark.parametrize("role", ROLES)
def test_killed_child_is_back_and_nobody_else_notices(role: str) -> None:
    with Family().start_ready() as family:
        others = {other: family.child(other) for other in ROLES if other != role}
        took_us: list[int] = []
        new_interpreter_us: list[int] = []
        for life in (2, 3, 4):
            started = family.kill_and_wait(role)
            took_us.append(started["took_us"])
            assert (started["life"], started["generation"]) == (life, 1)
            family.wait(lambda: family.states().get(role) == "RUNNING")
            new_interpreter_us.append(interpreter_start_us())
        print(f"took {took_us} us, a new interpreter {new_interpreter_us}")
        # A fork, and nothing that is waited for; how long that takes, the machine says.
        assert min(took_us) < max(AT_ONCE_US, 2 * min(new_interpreter_us))
        assert {other: family.child(other) for other in others} == others
        assert not [event for event in family.events() if event["what"] in ("term", "stopped")]
        # The pid file says who it is now.
        if role != "control":
            pid_file = family.directory / f"{role}.pid"
            family.wait(lambda: pid_file.read_text() == f"{family.child(role)}\n")


def test_fourth_crash_waits_and_third_withdraws() -> None:
    with Family().start_ready() as family:
        for _ in range(4):
            family.kill_and_wait("vrrp")
        starts = family.events("start", "vrrp")
        assert [start["hold"] for start in starts] == [False, False, False, True, True]
        withdraws = family.events("withdraw", "vrrp")
        assert [event["life"] for event in withdraws] == [3, 4]
        assert withdraws[0]["at_us"] < starts[3]["at_us"]
        # Without any delay but the withdrawing; then one second.
        assert starts[4]["at_us"] - withdraws[1]["at_us"] > 900_000
        assert family.events("withdraw", "check") == []


def test_next_child_waits_for_the_withdrawing_one() -> None:
    with Family({"withdraw_s": 0.4}).start_ready() as family:
        for _ in range(3):
            family.kill_and_wait("vrrp")
        withdraw = family.wait_for("withdraw")
        start = family.wait_for("start", "vrrp", 4)
        assert start["at_us"] - withdraw["at_us"] > 400_000


def test_exception_leaves_its_traceback_and_70() -> None:
    with Family().start_ready() as family:
        family.command("vrrp", "raise planted")
        family.wait_for("start", "vrrp", 2)
        assert "RuntimeError: planted" in (family.run / "crash.vrrp").read_text()
        assert "exit status 70" in family.log()


@pytest.mark.parametrize("status", [2, 4])
def test_configuration_error_before_the_first_ready_stops_the_daemon(status: int) -> None:
    with Family({"vrrp": {"exit": status}}).start() as family:
        assert family.exit_status() == status
        assert len(family.events("start", "vrrp")) == 1


def test_configuration_error_after_ready_is_survived() -> None:
    with Family().start_ready() as family:
        for life, role in enumerate(("vrrp", "vrrp"), 2):
            family.command(role, f"exit {life}")
            family.wait_for("start", role, life)
        family.command("control", "exit 4")
        family.wait_for("start", "control", 2)
        assert family.stop() == 0


@pytest.mark.parametrize("status", [2, 4, 6])
def test_first_load_that_fails_stops_the_daemon_with_its_status(status: int) -> None:
    with Family({"load_failed": status}).start() as family:
        assert family.exit_status() == status
        assert "told to fail" in family.log()
        assert {event["role"] for event in family.events()} == {"control"}


def test_control_that_can_never_load_stops_the_daemon() -> None:
    with Family({"control": {"crash": True}}).start() as family:
        assert family.exit_status() == 70
        assert len(family.events("start", "control")) == 4


def test_no_respawn() -> None:
    with Family(respawn=False).start_ready() as family:
        family.kill("check")
        assert family.exit_status() == 0
        assert [event["role"] for event in family.events("stopped")][-1] == "control"
        assert len(family.events("start", "check")) == 1


def test_child_that_does_not_stop_is_killed_and_withdrawn() -> None:
    with Family({"settings": {"child_wait_us": 300_000}}).start_ready() as family:
        family.command("vrrp", "deaf")
        family.wait_for("command", "vrrp")
        begin = time.monotonic()
        assert family.stop() == 0
        assert 0.3 <= time.monotonic() - begin < 3
        assert len(family.events("withdraw", "vrrp")) == 1
        assert family.events("stopped", "vrrp") == []


def test_stopped_child_leaves_in_order_all_the_same() -> None:
    with Family().start_ready() as family:
        family.kill("vrrp", signal.SIGSTOP)
        assert family.stop() == 0
        assert len(family.events("stopped", "vrrp")) == 1
        assert family.events("withdraw") == []


def test_killed_supervisor_takes_a_stopped_child_along() -> None:
    with Family().start_ready() as family:
        pid = family.kill("vrrp", signal.SIGSTOP)
        # The kernel wakes the stopped members of a group that loses its last tie; it must be one by then.
        family.wait(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        family.signal(signal.SIGKILL)
        family.wait(lambda: not is_alive(pid))
        assert len(family.events("stopped", "vrrp")) == 1


def test_killed_supervisor_takes_its_children_along() -> None:
    with Family().start_ready() as family:
        pids = [family.child(role) for role in ROLES]
        begin_us = time.monotonic_ns() // 1000
        family.signal(signal.SIGKILL)
        family.exit_status()
        family.wait(lambda: not any(is_alive(pid) for pid in pids))
        ends = {event["role"]: event["at_us"] - begin_us for event in family.events("stopped")}
        assert set(ends) == set(ROLES)
        # A fake child looks at its flag every 20 ms. Who was not told would go on.
        assert min(ends.values()) < TOLD_WITHIN_US


def test_new_supervisor_waits_for_the_old_family() -> None:
    with Family().start_ready() as family:
        family.command("vrrp", "deaf")
        family.wait_for("command", "vrrp")
        orphan = family.child("vrrp")
        family.signal(signal.SIGKILL)
        family.exit_status()
        family.start()
        family.wait(lambda: not is_alive(family.child("control")))
        remains(lambda: len(family.events("start", "control")) == 1, "it waits", seconds=0.3)
        os.kill(orphan, signal.SIGKILL)
        family.wait_for("start", "vrrp", 2)
        assert family.stop() == 0


def test_second_daemon_is_refused_at_once() -> None:
    with Family().start_ready() as family, Family() as second:
        second.options["run_directory"] = str(family.run)
        second.start()
        assert second.exit_status() == 1
        assert "run directory" in second.log()
        with Family() as third:
            third.options["pid_file"] = family.options["pid_file"]
            third.start()
            assert third.exit_status() == 1
            assert "pid file" in third.log()
        with Family() as fourth:
            fourth.options["vrrp_pid_file"] = family.options["vrrp_pid_file"]
            fourth.start()
            assert fourth.exit_status() == 1
            assert fourth.events("start", "vrrp") == []
        assert family.states() == dict.fromkeys(ROLES, "RUNNING")


def test_orphans_are_reaped() -> None:
    with Family().start_ready() as family:
        children = f"/proc/{family.pid}/task/{family.pid}/children"
        with open(children) as file:

            def are(count: int) -> None:
                family.wait(lambda: file.seek(0) or len(file.read().split()) == count)

            are(len(ROLES) + 1)  # and the spare
            family.command("check", "orphan")
            family.wait_for("command", "check")
            are(len(ROLES) + 2)
            are(len(ROLES) + 1)
        assert family.states() == dict.fromkeys(ROLES, "RUNNING")


def test_children_hold_nothing_of_the_supervisor_and_nothing_is_imported_late() -> None:
    with Family().start_ready() as family:
        for role in ROLES:
            [start] = family.events("start", role)
            kinds = [os.path.basename(name).split(":")[0] for name in start["descriptors"]]
            own = ["socket"] if role == "control" else [f"{role}.pid"]
            if role == "vrrp" and "socket" in kinds:
                own.append("socket")  # for announcements, where packet sockets are allowed
            assert sorted(kinds) == sorted(["lock", f"crash.{role}", *own])
        family.kill_and_wait("vrrp")
        assert family.stop() == 0
        counts = {event["modules"] for event in family.events() if "modules" in event}
        assert len(counts) == 1
