"""What a running kad says of itself, asked without starting a kadctl for each question."""

from __future__ import annotations

import itertools
import os
import signal

import msgspec

from kad.control.status import DaemonStatus
from kad.ipc.client import ask
from kad.ipc.messages import ReloadAnswer, ReloadQuery, StatusAnswer, StatusQuery
from tests.support.daemon import Kad
from tests.support.namespaces import poll

CHILDREN = ("vrrp", "check", "bfd")
_serial = itertools.count(1)


def run_directory(daemon: Kad) -> str:
    return f"{daemon.directory}/run"


def status_of(daemon: Kad) -> DaemonStatus:
    answer = ask(run_directory(daemon), StatusQuery(f"t{next(_serial)}"), 10)
    assert isinstance(answer, StatusAnswer)
    return msgspec.msgpack.decode(answer.status, type=DaemonStatus)


def reload(daemon: Kad, *, force: bool = False) -> ReloadAnswer:
    answer = ask(run_directory(daemon), ReloadQuery(f"t{next(_serial)}", force), 30)
    assert isinstance(answer, ReloadAnswer)
    return answer


def pids_of(daemon: Kad) -> dict[str, int]:
    """Role -> process id, of what runs."""
    return {process.role: process.pid for process in status_of(daemon).processes if process.pid}


def wait_for_generation(daemon: Kad, number: int) -> DaemonStatus:
    """Until every process runs this generation and no other, at rest."""

    def settled() -> DaemonStatus | None:
        status = status_of(daemon)
        running = [process for process in status.processes if process.incarnation]
        at_rest = status.applied_everywhere and status.transaction == "IDLE"
        same = {process.generation for process in running} == {status.generation} == {number}
        return status if at_rest and same and all(p.state == "RUNNING" for p in running) else None

    poll(settled, f"generation {number} everywhere", seconds=15, every=0.02)
    # Asked anew: of that one a process may have told its part just before it was given the generation.
    return status_of(daemon)


def wait_for_transaction(daemon: Kad, state: str) -> None:
    """Until a reload is at this point."""
    poll(lambda: status_of(daemon).transaction == state, f"a reload that is {state}", every=0.001)


def kill(pid: int, signum: int = signal.SIGKILL) -> None:
    os.kill(pid, signum)
