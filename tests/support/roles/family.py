"""A real supervisor with fake children, run and watched from a test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psutil

from tests.support.namespaces import poll

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 15.0

Event = dict[str, Any]


class Family:
    """One supervisor and everything below it. ``plan`` is what the fake roles read; ``wrapper`` must exec."""

    def __init__(
        self, plan: dict[str, Any] | None = None, wrapper: tuple[str, ...] = (), **options: Any
    ) -> None:
        self.wrapper = wrapper
        self.directory = Path(tempfile.mkdtemp(prefix="kad-family-"))
        self.run = self.directory / "run"
        self.plan_file = self.directory / "plan"
        self.console = self.directory / "console"
        self.plan({"roles": ["vrrp", "check", "bfd"]} | (plan or {}))
        self.options = {
            "foreground": True,
            "log_console": True,
            "log_syslog": False,
            "config_file": str(self.plan_file),
            "run_directory": str(self.run),
            "pid_file": str(self.directory / "daemon.pid"),
            "vrrp_pid_file": str(self.directory / "vrrp.pid"),
            "checkers_pid_file": str(self.directory / "check.pid"),
            "bfd_pid_file": str(self.directory / "bfd.pid"),
        } | options
        self.process: subprocess.Popen[bytes] | None = None

    def plan(self, plan: dict[str, Any]) -> None:
        self.plan_file.write_text(json.dumps(plan))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clean_up()

    def start(self, **environment: str) -> Self:
        argv = [*self.wrapper, sys.executable, "-m", "tests.support.roles", json.dumps(self.options)]
        with self.console.open("ab") as console:
            self.process = subprocess.Popen(
                argv,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=os.environ | environment,
            )
        return self

    def start_ready(self, **environment: str) -> Self:
        self.start(**environment)
        roles = json.loads(self.plan_file.read_text())["roles"]
        self.wait(lambda: self.states() == dict.fromkeys(["control", *roles], "RUNNING"))
        return self

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def clean_up(self) -> None:
        """End what this test started, by number, whatever state it is in."""
        pids = {event["pid"] for event in self.events()}
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, psutil.Error):
                if "kad" in psutil.Process(pid).name():
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    # What happened ---------------------------------------------------------------------------------------

    def events(self, what: str = "", role: str = "") -> list[Event]:
        with contextlib.suppress(FileNotFoundError):
            lines = (self.run / "events").read_text().splitlines()
            found = [json.loads(line) for line in lines if line.endswith("}")]
            return [e for e in found if what in ("", e["what"]) and role in ("", e["role"])]
        return []

    def log(self) -> str:
        return self.console.read_text(errors="replace")

    def states(self) -> dict[str, str]:
        """Of every role that is not STOPPED, as control was told last."""
        tables = self.events("table")
        if not tables:
            return {}
        return {role: row[0] for role, row in tables[-1]["table"].items() if row[0] != "STOPPED"}

    def child(self, role: str) -> int:
        """The process that runs a role now; 0 when none does."""
        starts = self.events("start", role)
        pid = starts[-1]["pid"] if starts else 0
        return pid if is_alive(pid) else 0

    def wait(self, condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
        return poll(condition, lambda: f"console:\n{self.log()}\nevents: {self.events()}", seconds=patience_s)

    def wait_for(self, what: str, role: str = "", count: int = 1) -> Event:
        """The ``count``-th event of the kind."""
        events: list[Event] = self.wait(lambda: len(found := self.events(what, role)) >= count and found)
        return events[count - 1]

    def wait_for_log(self, text: str) -> None:
        self.wait(lambda: text in self.log())

    # What to do ------------------------------------------------------------------------------------------

    def command(self, role: str, text: str) -> None:
        fresh = self.run / f"fresh.{role}"
        fresh.write_text(text)
        fresh.rename(self.run / f"command.{role}")

    def kill(self, role: str, signum: int = signal.SIGKILL) -> int:
        pid = self.child(role)
        os.kill(pid, signum)
        return pid

    def kill_and_wait(self, role: str) -> Event:
        """kill -9; the start of the next life, with the time it took."""
        lives = len(self.events("start", role))
        at_us = time.monotonic_ns() // 1000
        self.kill(role)
        event = self.wait_for("start", role, lives + 1)
        event["took_us"] = event["at_us"] - at_us
        return event

    def signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def signal_and_wait(self, signum: int) -> None:
        """Until the supervisor has read it: a second one of its kind would be one with it before that."""
        self.signal(signum)
        self.wait(lambda: not is_pending(self.pid, signum))

    def processor_s(self) -> float:
        """The supervisor's own use of a processor so far."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def exit_status(self, patience_s: float = PATIENCE_S) -> int:
        assert self.process is not None
        return self.process.wait(patience_s)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.exit_status()


def is_pending(pid: int, signum: int) -> bool:
    """Sent to the process and not taken yet."""
    with open(f"/proc/{pid}/status") as file:
        [line] = [line for line in file if line.startswith("ShdPnd:")]
    return bool(int(line.split()[1], 16) >> (signum - 1) & 1)


def is_alive(pid: int) -> bool:
    """Exists, and not only as a zombie."""
    if pid <= 0:
        return False
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
