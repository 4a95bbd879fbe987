"""What a daemon has to live through around it: its files moved away, a full disk, what systemd hears."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.namespaces import remains
from tests.support.roles.family import ROOT, Family

ROLES = ("control", "vrrp", "check", "bfd")


@pytest.mark.root
def test_files_moved_away_are_not_missed() -> None:
    """The installation and Python's own library are covered up in the daemon's mount namespace."""
    if os.geteuid() != 0 or shutil.which("nsenter") is None:
        pytest.skip("needs root and nsenter")
    with Family(wrapper=("unshare", "--mount", "--propagation", "private")).start_ready() as family:
        library = Path(sys.base_prefix) / "lib"
        for covered in (ROOT, library):
            subprocess.run(
                ["nsenter", "-t", str(family.pid), "-m", "mount", "-t", "tmpfs", "none", str(covered)],
                check=True,
            )
        assert os.listdir(f"/proc/{family.pid}/root{library}") == []
        for role in ROLES:
            family.kill_and_wait(role)
        family.command("check", "raise planted")
        family.wait_for("start", "check", 3)
        assert "RuntimeError: planted" in (family.run / "crash.check").read_text()
        family.command("vrrp", "sleep")
        family.wait_for("start", "vrrp", 3)
        family.command("control", "commit 2")
        family.wait_for("committed", count=2)
        assert family.stop() == 0
        counts = {event["modules"] for event in family.events() if "modules" in event}
        assert len(counts) == 1, "something was imported after the start"


@pytest.mark.root
def test_full_disk() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with Family() as family:
        small = family.directory / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], check=True)
        try:
            family.options["pid_file"] = str(small / "daemon.pid")
            family.options["vrrp_pid_file"] = str(small / "vrrp.pid")
            family.options["log_file"] = str(small / "log")
            family.start_ready()
            with (small / "fill").open("wb", buffering=0) as fill, pytest.raises(OSError, match="space"):
                while True:
                    fill.write(b"x" * 4096)
            for role in ROLES:
                family.kill_and_wait(role)
            assert family.stop() == 0
        finally:
            subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.root
def test_start_on_a_full_disk() -> None:
    """No room for a number in the pid file: a warning, and the lock holds."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with Family() as family, Family() as second:
        small = family.directory / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(small)], check=True)
        try:
            with (small / "fill").open("wb", buffering=0) as fill, pytest.raises(OSError, match="space"):
                while True:
                    fill.write(b"x" * 4096)
            family.options["pid_file"] = second.options["pid_file"] = str(small / "daemon.pid")
            family.start_ready()
            assert "No space left" in family.log()
            second.start()
            assert second.exit_status() == 1
            assert family.stop() == 0
        finally:
            subprocess.run(["umount", "-l", str(small)], check=True)


def test_pid_file_that_cannot_be_is_a_refusal_with_a_reason() -> None:
    with Family(pid_file="/dev/full") as family:
        family.start()
        assert family.exit_status() == 1
        assert "/dev/full" in family.log()


def test_pid_file_is_named_with_what_is_wrong_with_it() -> None:
    with Family() as family:
        family.options["pid_file"] = str(family.directory)
        family.start()
        assert family.exit_status() == 1
        assert f"{family.directory}: Is a directory" in family.log()


def test_second_daemon_is_told_what_to_do_and_leaves_no_file() -> None:
    with Family().start_ready() as family, Family(run_directory=str(family.run)) as second:
        second.start()
        assert second.exit_status() == 1
        assert f"kad is running as process {family.pid}" in second.log()
        assert "stop that one, or give this one" in second.log()
        assert not list(second.directory.glob("*.pid"))


def test_pid_file_of_a_child_that_another_daemon_has_ends_the_start() -> None:
    with Family().start_ready() as family:
        theirs = str(family.directory / "vrrp.pid")
        with Family(vrrp_pid_file=theirs) as second:
            second.start()
            assert second.exit_status() == 1
            assert f"pid file {theirs} locked" in second.log()
            assert not list(second.directory.glob("*.pid"))


def test_removed_run_directory_is_made_again_for_the_next_child() -> None:
    with Family().start_ready() as family:
        control = family.child("control")
        shutil.rmtree(family.run)
        os.kill(control, signal.SIGKILL)
        family.wait_for("start", "control")
        assert family.child("control") != control
        assert (family.run / "lock").read_text() == f"{family.pid}\n"
        assert "is made again" in family.log()


def test_systemd_hears_start_reload_and_stop_and_is_fed_all_the_while() -> None:
    with Family() as family:
        address = str(family.directory / "notify")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listener.bind(address)
        listener.settimeout(10)
        family.start(NOTIFY_SOCKET=address, WATCHDOG_USEC="200000")
        heard: list[str] = []

        def hear_until(word: str) -> None:
            while not heard or word not in heard[-1]:
                heard.append(listener.recv(4096).decode())

        hear_until("READY=1")
        family.wait(lambda: family.states() == dict.fromkeys(ROLES, "RUNNING"), 1)
        family.signal(signal.SIGHUP)
        hear_until("RELOADING=1")
        family.wait_for("reload")
        family.command("control", "finish as asked")
        hear_until("READY=1")
        assert "STATUS=as asked" in heard[-1]
        # A child in back-off is not a fault of the daemon.
        for _ in range(3):
            family.kill_and_wait("bfd")
        family.kill("bfd")
        begin = time.monotonic()
        beats = 0
        while time.monotonic() - begin < 1:
            beats += listener.recv(4096) == b"WATCHDOG=1"
        assert beats >= 5
        family.signal(signal.SIGTERM)
        hear_until("STOPPING=1")
        assert family.exit_status() == 0


def test_a_child_that_never_comes_up_does_not_keep_the_others_from_being_ready() -> None:
    """The service manager would end them all, the MASTER too, when its time for a start is over."""
    with Family({"check": {"crash": True}}) as family:
        heard = hear(family)
        family.start(NOTIFY_SOCKET=str(family.directory / "notify"))
        ready = next(word for word in heard if "READY=1" in word)
        assert "check has not come up (exit status 70)" in ready
        # As soon as it is in back-off, so after the fourth of its lives.
        assert len(family.events("start", "check")) in (4, 5)
        family.plan({"roles": ["vrrp", "check", "bfd"]})
        assert next(word for word in heard if "STATUS" in word) == "STATUS=generation 1"
        family.wait(lambda: family.states()["check"] == "RUNNING")
        assert family.stop() == 0


def test_a_start_without_vrrp_is_not_ready_and_one_that_reads_for_long_says_that_it_does() -> None:
    with Family({"vrrp": {"crash": True}, "load_s": 0.5}) as family:
        heard = hear(family)
        family.start(NOTIFY_SOCKET=str(family.directory / "notify"))
        assert next(heard) == "EXTEND_TIMEOUT_USEC=30000000"
        family.wait_for("start", "vrrp", 5)
        family.plan({"roles": ["vrrp", "check", "bfd"]})
        assert next(heard) == "READY=1\nSTATUS=generation 1"
        assert family.stop() == 0


def hear(family: Family) -> Iterator[str]:
    """What the service manager hears, word by word; ends the test where nothing comes."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(family.directory / "notify"))
    listener.settimeout(20)
    return iter(lambda: listener.recv(4096).decode(), "")


def test_a_hung_supervisor_is_not_fed() -> None:
    with Family() as family:
        address = str(family.directory / "notify")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listener.bind(address)
        family.start_ready(NOTIFY_SOCKET=address, WATCHDOG_USEC="100000")
        family.signal(signal.SIGSTOP)
        family.wait(lambda: psutil.Process(family.pid).status() == psutil.STATUS_STOPPED)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                listener.recv(4096)
        remains(lambda: not select.select([listener], [], [], 0)[0], "no word to systemd", seconds=0.5)
        family.signal(signal.SIGCONT)
        assert family.stop() == 0
