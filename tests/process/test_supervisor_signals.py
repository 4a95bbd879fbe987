"""Every signal has a handler from the first moment, and none kills the daemon that should not."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.support.namespaces import poll, remains
from tests.support.roles.family import Family, is_alive

HARMLESS = [signal.SIGUSR1, signal.SIGUSR2, 36, 63, 64, signal.SIGPIPE, signal.SIGXCPU, signal.SIGCHLD]
SPARE = [signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR, 34, 40, 50, 64]


def test_harmless_signals_are_passed_on_and_kill_nobody() -> None:
    with Family().start_ready() as family:
        pids = [family.child(role) for role in ("control", "vrrp", "check", "bfd")]
        for number in HARMLESS:
            family.signal_and_wait(number)
        seen = family.wait(lambda: len(found := family.events("SignalReceived")) == 4 and found)
        assert [event["signum"] for event in seen] == [10, 12, 36, 63]
        assert [family.child(role) for role in ("control", "vrrp", "check", "bfd")] == pids
        assert family.stop() == 0


def test_signals_that_mean_nothing_kill_nobody() -> None:
    with Family().start_ready() as family:
        pids = {role: family.child(role) for role in ("control", "vrrp", "check", "bfd")}
        for number in SPARE:
            family.signal_and_wait(number)
            for pid in pids.values():
                os.kill(pid, number)
        family.signal_and_wait(signal.SIGUSR2)
        family.wait(lambda: len(family.events("SignalReceived")) == 1)
        assert {role: family.child(role) for role in pids} == pids
        assert family.stop() == 0


def test_a_child_passes_on_what_asks_for_a_dump() -> None:
    """keepalived's users signal the pid in vrrp.pid too."""
    with Family().start_ready() as family:
        os.kill(family.child("vrrp"), signal.SIGUSR1)
        family.wait(lambda: [each["signum"] for each in family.events("SignalReceived")] == [10])
        assert family.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, *HARMLESS])
def test_signals_in_the_first_moments_kill_nobody(number: int) -> None:
    """From the moment the process has its signals blocked until it is READY, a thousand a second."""
    with Family().start() as family:
        family.wait(lambda: blocks(family.pid, signal.SIGHUP))

        def all_run_in_spite_of_it() -> bool:
            family.signal(number)
            assert family.is_running()
            return family.states() == dict.fromkeys(["control", "vrrp", "check", "bfd"], "RUNNING")

        poll(all_run_in_spite_of_it, "all four run", seconds=30, every=0.001)
        # The HUPs during the first load became one.
        assert len(family.events("reload")) == (number == signal.SIGHUP)
        assert family.stop() == 0


def blocks(pid: int, number: int) -> bool:
    with open(f"/proc/{pid}/status") as file:
        [line] = [line for line in file if line.startswith("SigBlk:")]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def test_signal_ignored_by_whoever_starts_us_still_works() -> None:
    """nohup ignores HUP, cron and shells INT; a daemon started by them must reload and stop all the same."""
    with Family() as family:
        previous = {number: signal.signal(number, signal.SIG_IGN) for number in (1, 2, 15, 17)}
        try:
            family.start()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        family.wait(lambda: len(family.states()) == 4)
        family.wait_for("committed")
        family.signal(signal.SIGHUP)
        family.wait_for("reload")
        assert family.stop() == 0


def test_int_stops_and_can_be_ignored() -> None:
    with Family().start_ready() as family:
        family.signal(signal.SIGINT)
        assert family.exit_status() == 0
    with Family(ignore_sigint=True).start_ready() as family:
        family.signal(signal.SIGINT)
        family.wait_for_log("SIGINT is ignored")
        assert family.states()["vrrp"] == "RUNNING"
        assert family.stop() == 0


def test_children_ignore_hup_and_int() -> None:
    with Family().start_ready() as family:
        for role in ("control", "vrrp", "check", "bfd"):
            pid = family.child(role)
            assert os.getpgid(pid) == pid
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
                os.kill(pid, number)
        remains(
            lambda: (
                {len(family.events("start", role)) for role in ("control", "vrrp", "check", "bfd")} == {1}
            ),
            "nobody was started again",
            seconds=0.1,
        )


def test_hup_asks_for_a_reload_and_a_second_one_waits() -> None:
    with Family().start_ready() as family:
        for _ in range(5):
            family.signal_and_wait(signal.SIGHUP)
        family.wait_for("reload")
        assert len(family.events("reload")) == 1
        family.command("control", "finish done")
        family.wait_for("reload", count=2)
        family.command("control", "finish done again")
        family.wait(lambda: "done again" in family.log())
        remains(lambda: len(family.events("reload")) == 2, "no third reload", seconds=0.1)


def test_term_twice_is_once() -> None:
    with Family({"settings": {"child_wait_us": 400_000}}).start_ready() as family:
        family.command("vrrp", "deaf")
        family.wait_for("command")
        family.signal_and_wait(signal.SIGTERM)
        family.signal_and_wait(signal.SIGTERM)
        family.signal(signal.SIGHUP)
        family.signal(signal.SIGINT)
        assert family.exit_status() == 0
        assert len(family.events("term", "check")) == 1


def test_addresses_go_before_the_services_behind_them() -> None:
    with Family().start_ready() as family:
        assert family.stop() == 0
        left = [event["role"] for event in family.events() if event["what"] in ("term", "stopped")]
        assert left[:2] == ["vrrp"] * 2
        assert sorted(left[2:6]) == ["bfd"] * 2 + ["check"] * 2
        assert left[6:] == ["control"] * 2


def test_services_stay_until_what_a_killed_process_held_is_withdrawn() -> None:
    with Family({"settings": {"child_wait_us": 200_000}, "withdraw_s": 0.2}).start_ready() as family:
        family.command("vrrp", "deaf")
        family.wait_for("command")
        family.signal(signal.SIGTERM)
        family.wait_for("withdraw")
        withdrawing = family.events("withdraw")[0]["pid"]
        family.wait_for("term", "check")
        assert not is_alive(withdrawing)
        assert family.exit_status() == 0
        order = [event["role"] for event in family.events() if event["what"] in ("term", "withdraw")]
        assert order[:2] == ["vrrp", "vrrp"] and order[-1] == "control"


def test_daemonises_and_the_first_process_waits_for_the_start() -> None:
    with Family(foreground=False) as family:
        family.start()
        assert family.exit_status() == 0
        daemon = int((family.directory / "daemon.pid").read_text())
        assert family.states() == dict.fromkeys(["control", "vrrp", "check", "bfd"], "RUNNING")
        assert os.getsid(daemon) == daemon
        assert os.readlink(f"/proc/{daemon}/cwd") == "/"
        os.kill(daemon, signal.SIGTERM)
        family.wait(lambda: not is_alive(daemon))


def test_daemonising_tells_the_shell_why_it_failed() -> None:
    with Family({"load_failed": 4}, foreground=False) as family:
        family.start()
        assert family.exit_status() == 4
        assert "told to fail" in family.log()


def test_one_thread_and_reaping_after_everything() -> None:
    with Family().start_ready() as family:
        for _ in range(3):
            family.kill_and_wait("check")
        assert len(os.listdir(f"/proc/{family.pid}/task")) == 1
        zombies = subprocess.run(
            ["ps", "--ppid", str(family.pid), "-o", "stat="], capture_output=True, text=True, check=False
        ).stdout.split()
        assert not [state for state in zombies if state.startswith("Z")]
