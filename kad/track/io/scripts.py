"""Runs tracked scripts, and sees to it that none outlives the life that wants its answer.

A run is a process group of its own. The kernel's parent-death signal is no help: it cannot be set where a
script is started without a fork, and it would reach the script only, not what it has started. So every run
is written to the journal while it lasts, and the next life of the process, which is there within
milliseconds, ends what the former one has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import msgspec
from msgspec import Struct

from kad.notify.runner import NO_ROOM, ScriptStarter
from kad.runtime.process_end import ProcessEnd
from kad.track.script import Ending, EndScript, RunScript

LEFTOVER_PATIENCE_S = 2.0
"""From SIGTERM to SIGKILL for what a former life has left."""


class Journal(Protocol):
    """The part of :class:`kad.runtime.journal.Records` that is used here."""

    def write(self, key: str, value: bytes) -> bool: ...

    def delete(self, key: str) -> None: ...


class RunRecord(Struct, frozen=True, array_like=True):
    """A run in the journal. ``started`` (field 22 of /proc/PID/stat) tells processes of one id apart."""

    pid: int
    started: int


class NotRun(Struct, frozen=True):
    """Why a run was none. ``refused``: the script cannot be executed; else there was no room to run any."""

    why: str
    refused: bool


class _Run(Struct):
    script: str
    serial: int
    pid: int
    end: ProcessEnd | None = None
    ending: bool = False


class ScriptProcesses:
    """Starts, ends and reaps runs; one is started in a turn of the event loop.

    ``ended(script, serial, status)`` is never called from inside :meth:`run`; the status is the script's own,
    negative the signal that killed it. ``key(script)`` is the journal's key for the script's run, and
    ``title(script)`` what people call it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[str, int, int | NotRun], None],
        report: Callable[[str], None],
        environment: Mapping[str, str],
        journal: Journal,
        key: Callable[[str], str],
        *,
        title: Callable[[str], str] = "track script {}".format,
    ) -> None:
        self._loop = loop
        self._ended = ended
        self._report = report
        self._starter = ScriptStarter(environment)
        self._journal = journal
        self._key = key
        self._title = title
        self._waiting: deque[RunScript] = deque()
        self._runs: dict[int, _Run] = {}
        """By serial."""
        self._next_start: asyncio.Handle | None = None
        self._told_of_no_room = False

    @property
    def running(self) -> int:
        return len(self._runs)

    def run(self, action: RunScript) -> None:
        self._waiting.append(action)
        self._plan_start()

    def end(self, action: EndScript) -> None:
        """One that has not started yet never does; it ends with SIGTERM's status."""
        run = self._runs.get(action.serial)
        if run is None:
            for waiting in self._waiting:
                if waiting.serial == action.serial:
                    self._waiting.remove(waiting)
                    self._loop.call_soon(self._ended, action.script, action.serial, -signal.SIGTERM)
                    return
            return
        run.ending = True
        number = signal.SIGTERM if action.how is Ending.TERMINATE else signal.SIGKILL
        self._signal(run.pid, number, run.script)

    def close(self) -> None:
        """No answer is wanted any more: whatever runs is killed."""
        if self._next_start is not None:
            self._next_start.cancel()
        self._waiting.clear()
        for run in self._runs.values():
            self._signal(run.pid, signal.SIGKILL, run.script)
            assert run.end is not None
            run.end.close()
            self._journal.delete(self._key(run.script))
        self._runs.clear()

    def _plan_start(self) -> None:
        if self._waiting and self._next_start is None:
            self._next_start = self._loop.call_soon(self._start_next)

    def _start_next(self) -> None:
        self._next_start = None
        if self._waiting:
            self._start(self._waiting.popleft())
        self._plan_start()

    def _start(self, action: RunScript) -> None:
        try:
            pid = self._starter.start(action.command)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            refused = not isinstance(error, OSError) or error.errno not in NO_ROOM
            self._ended(action.script, action.serial, NotRun(str(error), refused))
            return
        run = self._runs[action.serial] = _Run(action.script, action.serial, pid)
        run.end = ProcessEnd(self._loop, pid, partial(self._on_end, run))
        record = RunRecord(pid, start_time(pid) or 0)
        if not self._journal.write(self._key(action.script), msgspec.msgpack.encode(record)):
            self._tell_of_no_room(action.script)

    def _tell_of_no_room(self, script: str) -> None:
        if not self._told_of_no_room:
            self._told_of_no_room = True
            self._report(f"{self._title(script)}: no room in the journal: a crash would leave it running")

    def _on_end(self, run: _Run, status: int) -> None:
        if run.ending:
            # It is not reaped yet: its group's id is not another's.
            self._signal(run.pid, signal.SIGKILL, run.script)
        run.end = None
        del self._runs[run.serial]
        if not any(other.script == run.script for other in self._runs.values()):
            self._journal.delete(self._key(run.script))
        self._ended(run.script, run.serial, status)

    def _signal(self, group: int, number: signal.Signals, script: str) -> None:
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            pass
        except PermissionError as error:
            self._report(f"{self._title(script)}: {number.name} is not allowed: {error}")

    # What a former life left --------------------------------------------------------------------------

    def end_leftover(self, script: str, record: bytes) -> None:
        """End the run that the journal tells of, if it still goes on."""
        self._journal.delete(self._key(script))
        try:
            run = msgspec.msgpack.decode(record, type=RunRecord)
        except msgspec.MsgspecError:
            return
        if not run.started or start_time(run.pid) != run.started:
            return
        self._report(f"{self._title(script)} of a former life still runs (PID {run.pid}): ending it")
        self._signal(run.pid, signal.SIGTERM, script)
        self._loop.call_later(LEFTOVER_PATIENCE_S, self._kill_leftover, script, run)

    def _kill_leftover(self, script: str, run: RunRecord) -> None:
        if start_time(run.pid) == run.started:
            self._signal(run.pid, signal.SIGKILL, script)


def start_time(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None when there is no such process."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read(4096).rpartition(b")")[2].split()[19])
    return None
