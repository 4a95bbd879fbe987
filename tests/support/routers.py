"""FRR and BIRD as BFD peers in a namespace, each with files of its own, ended with the context."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.namespaces import Node, kill_group, poll

FRR_DAEMONS = Path("/usr/lib/frr")


def needs(program: str) -> None:
    """Skip the running test, saying why, where a peer is not installed."""
    if shutil.which(program) is None and not (FRR_DAEMONS / program).exists():
        pytest.skip(f"{program} is not installed")


class Frr:
    """zebra, bfdd and, if asked for, bgpd; steered by vtysh."""

    def __init__(self, node: Node, *extra: str) -> None:
        self.node = node
        self.daemons = ("zebra", "bfdd", *extra)
        self.directory = Path(tempfile.mkdtemp(prefix="kt-frr-"))
        self.directory.chmod(0o777)
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Frr:
        try:
            for daemon in self.daemons:
                self.start(daemon)
            poll(lambda: "eth0" in self.ask("show interface brief"), "zebra to know eth0", seconds=15)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            kill_group(process)
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, daemon: str) -> None:
        config = self.directory / f"{daemon}.conf"
        config.touch()
        words = ["-f", config, "-i", self.directory / f"{daemon}.pid", "-z", self.directory / "zserv.api"]
        if daemon == "bfdd" and self.has_control_socket():
            words += ["--bfdctl", self.directory / "bfdd.sock"]
        argv = [str(FRR_DAEMONS / daemon), *map(str, words), "--vty_socket", str(self.directory)]
        with (self.directory / f"{daemon}.log").open("a") as log:
            # As the user of Debian's package: bfdd wants its group on the sockets.
            self.processes[daemon] = self.node.start(
                [*argv, "-u", "frr", "-g", "frr"], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        poll((self.directory / f"{daemon}.vty").exists, f"{daemon} to listen", seconds=15)

    def has_control_socket(self) -> bool:
        """FRR 10 has none any more, and bfdd refuses the option."""
        return "--bfdctl" in self.node.run([str(FRR_DAEMONS / "bfdd"), "--help"]).stdout

    def kill(self, daemon: str) -> None:
        process = self.processes[daemon]
        kill_group(process)
        (self.directory / f"{daemon}.vty").unlink(missing_ok=True)

    def ask(self, *commands: str) -> str:
        """Output of vtysh; what it says against a command is in there too."""
        words = [word for command in commands for word in ("-c", command)]
        done = self.node.run(["vtysh", "--vty_socket", str(self.directory), *words], check=False)
        return done.stdout + done.stderr

    def configure(self, *lines: str) -> None:
        said = self.ask("configure terminal", *lines)
        assert "%" not in said and "rror" not in said, said

    def peers(self) -> list[dict[str, Any]]:
        said = self.ask("show bfd peers json")
        try:
            found: list[dict[str, Any]] = json.loads(said)
        except json.JSONDecodeError:
            return []
        return found

    def peer(self) -> dict[str, Any]:
        """The only one; empty while it has none."""
        found = self.peers()
        return found[0] if len(found) == 1 else {}


class Bird:
    """BIRD 2 with this configuration; :meth:`configure` rewrites it and has it read."""

    def __init__(self, node: Node, text: str) -> None:
        self.node = node
        self.directory = Path(tempfile.mkdtemp(prefix="kt-bird-"))
        self.config = self.directory / "bird.conf"
        self.config.write_text(text)
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Bird:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            kill_group(self.process)
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        argv = ["bird", "-f", "-c", self.config, "-s", self.directory / "ctl", "-P", self.directory / "pid"]
        with (self.directory / "log").open("a") as log:
            self.process = self.node.start(list(map(str, argv)), stdout=log, stderr=log)
        poll(lambda: "BIRD" in self.ask("show status"), "BIRD to answer")

    def kill(self) -> None:
        assert self.process is not None
        kill_group(self.process)
        (self.directory / "ctl").unlink(missing_ok=True)

    def stop(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGTERM)
        self.process.wait(10)

    def ask(self, *words: str) -> str:
        done = self.node.run(["birdc", "-s", str(self.directory / "ctl"), *words], check=False)
        return done.stdout

    def configure(self, text: str) -> None:
        self.config.write_text(text)
        said = self.ask("configure")
        assert "Reconfigured" in said or "Reconfiguration in progress" in said, said

    def session(self) -> Sequence[str]:
        """(address, interface, state, since, interval, timeout) of the only session; empty while none."""
        rows = [line.split() for line in self.ask("show bfd sessions").splitlines()]
        found = [row for row in rows if len(row) == 6 and (row[0].count(".") == 3 or ":" in row[0])]
        return found[0] if len(found) == 1 else ()
