"""Hangs that are, and stillness that is none: real loops, stops, debuggers and starvation."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.metronome import undisturbed
from tests.support.namespaces import poll, remains, wait_until
from tests.support.roles.family import Family, is_alive

pytestmark = pytest.mark.alone

CPU = Path("/sys/fs/cgroup/cpu")
REPLACED_WITHIN_US = 1_500_000
PAUSE_MS = 100
"""A replacement later than that while the machine itself stood still for so long is tried again."""
STARVED_S = 4.0
PTRACE_ATTACH, PTRACE_DETACH = 16, 17


def replaced_after_us(family: Family, role: str, begin_us: int) -> int:
    at_us: int = family.wait_for("start", role, 2)["at_us"]
    return at_us - begin_us


def assert_only_replaced(family: Family, role: str) -> None:
    for other in ("control", "vrrp", "check", "bfd"):
        assert len(family.events("start", other)) == (2 if other == role else 1)


@pytest.mark.parametrize("role", ["control", "vrrp", "check", "bfd"])
def test_stopped_child_is_replaced(role: str) -> None:
    def attempt() -> None:
        with Family().start_ready() as family:
            begin_us = time.monotonic_ns() // 1000
            pid = family.kill(role, signal.SIGSTOP)
            assert replaced_after_us(family, role, begin_us) < REPLACED_WITHIN_US
            assert not is_alive(pid)
            assert_only_replaced(family, role)
            assert "signal SIGKILL (hung, stopped)" in family.log()

    undisturbed(attempt, PAUSE_MS)


@pytest.mark.parametrize("how", ["loop", "sleep"])
def test_child_that_does_not_come_back_is_replaced_and_says_where_it_stood(how: str) -> None:
    def attempt() -> None:
        with Family().start_ready() as family:
            family.command("vrrp", how)
            begin_us = family.wait_for("command", "vrrp")["at_us"]
            assert replaced_after_us(family, "vrrp", begin_us) < REPLACED_WITHIN_US
            assert_only_replaced(family, "vrrp")
            assert "in obey" in (family.run / "crash.vrrp").read_text()
            assert "signal SIGABRT (hung" in family.log()

    undisturbed(attempt, PAUSE_MS)


def test_child_deaf_to_sigabrt_is_killed() -> None:
    def attempt() -> None:
        with Family().start_ready() as family:
            family.command("vrrp", "abort-deaf")
            begin_us = family.wait_for("command", "vrrp")["at_us"]
            assert replaced_after_us(family, "vrrp", begin_us) < REPLACED_WITHIN_US
            assert "signal SIGKILL (hung, sleeping)" in family.log()

    undisturbed(attempt, PAUSE_MS)


def test_the_limit_is_the_configurations() -> None:
    def attempt() -> None:
        with Family({"settings": {"hang_limit_us": 300_000}}).start_ready() as family:
            family.command("vrrp", "sleep")
            begin_us = family.wait_for("command", "vrrp")["at_us"]
            # The last tick came up to one turn (20 ms) before the command was heard.
            assert 250_000 <= replaced_after_us(family, "vrrp", begin_us) < 800_000

    undisturbed(attempt, PAUSE_MS)


@contextlib.contextmanager
def traced(pid: int) -> Iterator[None]:
    """Stopped by a debugger, this process; released, it goes on as if nothing had been."""
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if ptrace(PTRACE_ATTACH, pid, None, None) != 0:
        pytest.skip(f"ptrace is not allowed: {os.strerror(ctypes.get_errno())}")
    try:
        os.waitpid(pid, 0x40000000)  # __WALL: it stopped for us
        yield
    finally:
        ptrace(PTRACE_DETACH, pid, None, None)


def test_traced_child_is_logged_and_let_be() -> None:
    with Family({"settings": {"hang_limit_us": 300_000}}).start_ready() as family:
        pid = family.child("vrrp")
        with traced(pid):
            family.wait_for_log("traced: it is let be")
            remains(lambda: family.child("vrrp") == pid, "the traced child lives", seconds=2)
        assert_still_works(family, pid)
        assert family.stop() == 0


@contextlib.contextmanager
def cgroup(name: str) -> Iterator[Path]:
    path = CPU / f"kad-test-{os.getpid()}-{name}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cpu control group to starve a child in: {error}")
    try:
        yield path
    finally:
        remove(path)


def remove(path: Path) -> None:
    """A group with processes in it, the dying among them, cannot be removed."""

    def is_gone() -> bool:
        with contextlib.suppress(OSError):
            for pid in (path / "tasks").read_text().split():
                (CPU / "tasks").write_text(pid)
            path.rmdir()
        return not path.exists()

    poll(is_gone, f"{path} is removed", seconds=10, every=0.02)


@pytest.mark.root
def test_child_throttled_by_its_cgroup_is_logged_and_let_be() -> None:
    """One hundredth of a processor, where it needs 20 ms of one between two ticks."""
    with cgroup("throttle") as group, Family().start_ready() as family:
        family.command("vrrp", "burn 20")
        family.wait_for("command", "vrrp")
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text("1000")
        pid = family.child("vrrp")
        (group / "tasks").write_text(str(pid))
        family.wait_for_log("starved: it is let be")
        remains(lambda: family.child("vrrp") == pid, "the starved child lives", seconds=STARVED_S, every=0.05)
        (group / "cpu.cfs_quota_us").write_text("-1")
        assert_still_works(family, pid)


@pytest.mark.root
def test_one_that_is_starved_at_its_stop_is_not_killed_for_it() -> None:
    """What it holds would stay, and the services behind it go."""
    with cgroup("leave") as group, Family({"settings": {"child_wait_us": 600_000}}).start_ready() as family:
        family.command("vrrp", "burn 100")
        family.wait_for("command", "vrrp")
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text("1000")
        (group / "tasks").write_text(str(family.child("vrrp")))
        family.signal(signal.SIGTERM)
        family.wait_for_log("does not get to leave: it is starved")
        assert not family.events("term", "check")
        (group / "cpu.cfs_quota_us").write_text("-1")
        assert family.exit_status() == 0
        assert family.events("stopped", "vrrp") and not family.events("withdraw")


@pytest.mark.root
def test_child_starved_by_a_real_time_hog_is_logged_and_let_be() -> None:
    """The kernel leaves ordinary processes a twentieth; the child needs 100 ms of it between two ticks."""
    with Family().start_ready() as family:
        pid = family.child("vrrp")
        cpu = max(os.sched_getaffinity(0))
        os.sched_setaffinity(pid, {cpu})
        family.command("vrrp", "burn 100")
        family.wait_for("command", "vrrp")
        hog = subprocess.Popen(
            ["chrt", "-f", "50", "taskset", "-c", str(cpu), "sh", "-c", "while :; do :; done"],
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: hog.poll() is not None, STARVED_S, every=0.05)
            if hog.poll() is not None:
                pytest.skip("real-time scheduling is not allowed here")
        finally:
            hog.kill()
            hog.wait()
        assert "starved: it is let be" in family.log()
        assert_still_works(family, pid)


def assert_still_works(family: Family, pid: int) -> None:
    family.command("vrrp", "threads")
    assert family.wait_for("threads", "vrrp")["pid"] == pid
    assert len(family.events("start", "vrrp")) == 1


def children(family: Family) -> list[int]:
    return [family.child(role) for role in ("control", "vrrp", "check", "bfd")]


def stand_still(pids: list[int]) -> bool:
    return all(psutil.Process(pid).status() == psutil.STATUS_STOPPED for pid in pids)


def test_stall_of_the_whole_machine_is_not_a_hang() -> None:
    """The supervisor stood still as long as its children: all of them get another chance."""
    with Family({"settings": {"hang_limit_us": 300_000}}).start_ready() as family:
        pids = children(family)
        for _ in range(3):
            for pid in (family.pid, *pids):
                os.kill(pid, signal.SIGSTOP)
            family.wait(lambda: stand_still([family.pid, *pids]))
            remains(lambda: stand_still(pids), "all of them stand still", seconds=0.8)
            # The supervisor wakes first and looks while they still stand.
            os.kill(family.pid, signal.SIGCONT)
            remains(lambda: stand_still(pids), "the children stand still", seconds=0.05)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            remains(lambda: children(family) == pids, "nobody was replaced", seconds=0.2)
        assert family.stop() == 0
