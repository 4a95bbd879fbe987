"""A real daemon, kad or keepalived, running in a namespace, with everything it leaves behind cleaned up.

    with Kad(node, text) as daemon:
        daemon.wait_for("(VI_1) Entering MASTER STATE")
        daemon.kill_all()          # kill -9 of every process at once
        daemon.start()             # again

Both speak the same command line, so tests are written once for either. Nothing is shared with the machine's
own keepalived: process id files, run directory and configuration live in a directory of the daemon's own. One
daemon a namespace: at the end everything in the namespace is killed, orphans and stopped processes too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from kad.ipc.client import NoAnswer, NoDaemon, ask
from kad.ipc.messages import ReloadAnswer, ReloadQuery
from tests.support.namespaces import Node, poll


class Daemon:
    """One family of processes. ``text`` is its configuration; :meth:`configure` rewrites the file."""

    program: ClassVar[str]

    def __init__(
        self, node: Node, text: str, *options: str, wrapper: Sequence[str] = (), name: str = "daemon.conf"
    ) -> None:
        self.node = node
        self.options = options
        self.wrapper = wrapper
        self.directory = Path(tempfile.mkdtemp(prefix="kd-"))
        self.config = self.directory / name
        self.log = self.directory / "log"
        self.log.touch()
        self.configure(text)
        self.process: subprocess.Popen[str] | None = None
        self._mark = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def configure(self, text: str) -> None:
        """Replace the configuration file in one step, as an editor does."""
        fresh = self.directory / "fresh.conf"
        fresh.write_text(text)
        fresh.chmod(0o644)
        fresh.rename(self.config)

    def argv(self) -> list[str]:
        names = [("-p", "parent"), ("-r", "vrrp"), ("-c", "checkers"), ("-b", "bfd")]
        pid_files = [word for flag, name in names for word in (flag, f"{self.directory}/{name}.pid")]
        return [self.program, "-n", "-l", "-G", "-f", str(self.config), *pid_files, *self.options]

    def start(self) -> None:
        assert self.process is None or self.process.poll() is not None, "is running"
        self._mark = len(self.log.read_text())
        # Compiled modules are kept, as on any host: a start that compiles everything would be another matter.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        with self.log.open("a") as log:
            self.process = self.node.start(
                [*self.wrapper, *self.argv()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=environment,
            )

    @property
    def pid(self) -> int:
        """The parent's process id."""
        assert self.process is not None
        return self.process.pid

    def children(self) -> list[int]:
        return children_of(self.pid)

    def vrrp_pid(self) -> int:
        """The VRRP child's process id, as the daemon's own file tells it."""
        return self._pid_of("vrrp")

    def _pid_of(self, role: str) -> int:
        file = self.directory / f"{role}.pid"

        def read() -> int:
            with contextlib.suppress(OSError, ValueError):
                pid = int(file.read_text())
                return pid if Path(f"/proc/{pid}").exists() else 0
            return 0

        return poll(read, f"{role} process of {self.program}", seconds=60)

    def new_vrrp_pid(self, old: int) -> int:
        """The VRRP child that comes after ``old``."""

        def fresh() -> int:
            pid = self._pid_of("vrrp")
            return pid if pid != old else 0

        return poll(fresh, f"another vrrp process than {old}", seconds=60)

    def said(self) -> str:
        """Everything logged since the last start."""
        return self.log.read_text(errors="replace")[self._mark :]

    def count(self, text: str) -> int:
        return self.said().count(text)

    def wait_for(self, text: str, *, times: int = 1, seconds: float = 30) -> None:
        def seen() -> bool:
            if self.count(text) >= times:
                return True
            assert self.process is not None
            if self.process.poll() is not None and self.count(text) < times:
                raise AssertionError(f"{self.program} left with {self.process.returncode}\n{self.said()}")
            return False

        try:
            poll(seen, f"{self.program} to say {text!r}", seconds=seconds)
        except BaseException:
            print(f"--- log of {self.program} on {self.node.label}:\n{self.said()}", file=sys.stderr)
            raise

    def reload(self) -> None:
        os.kill(self.pid, signal.SIGHUP)

    def stop(self, seconds: float = 15) -> int:
        """Ask it to end in order; returns its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill_all(self) -> None:
        """kill -9 of the whole family, the children before their parent: none has a chance to withdraw."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGSTOP)
            for pid in descendants(self.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os.kill(self.pid, signal.SIGKILL)
        self.process.wait(10)

    def close(self) -> None:
        """End every process that still is in the namespace, and remove the files."""
        if self.process is not None and self.process.poll() is None:
            self.kill_all()
        for pid in processes_in(self.node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)


class Kad(Daemon):
    program = str(Path(sys.executable).parent / "kad")

    def argv(self) -> list[str]:
        return [*super().argv(), "--run-dir", f"{self.directory}/run"]

    def reload_surely(self, seconds: float = 60) -> None:
        """Reload until it is accepted: where everything is slow, a process may answer too late."""
        poll(
            self._reloads,
            lambda: f"a reload of {self.program}\n{self.said()[-5000:]}",
            seconds=seconds,
            every=1,
        )

    def _reloads(self) -> bool:
        """Asked for as kadctl does, without the time that takes to start."""
        with contextlib.suppress(NoDaemon, NoAnswer):
            answer = ask(f"{self.directory}/run", ReloadQuery(f"t{time.monotonic_ns()}"), 60)
            return isinstance(answer, ReloadAnswer) and answer.accepted
        return False

    def kadctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``kadctl WORDS`` for this daemon."""
        argv = [f"{self.program}ctl", "--run-dir", f"{self.directory}/run", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=180)

    def role(self, role: str) -> int:
        """The process of that role by its name, 0 where there is none: nothing is asked of it."""
        for pid in self.children():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == f"kad_{role}":
                    return pid
        return 0


class Keepalived(Daemon):
    program = "keepalived"


def processes_in(node: Node) -> list[int]:
    """Process ids of everything that lives in this namespace."""
    listed = subprocess.run(["ip", "netns", "pids", node.name], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]


def children_of(pid: int) -> list[int]:
    """Process ids of the direct children, oldest first; none when it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(word) for word in (task / "children").read_text().split()]
    return found


def descendants(pid: int) -> list[int]:
    direct = children_of(pid)
    return direct + [below for child in direct for below in descendants(child)]


def cpu_seconds(pid: int) -> float:
    """User and system time a process has used, its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def proportional_memory(pids: Sequence[int]) -> int:
    """PSS of these processes together, in bytes."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total
