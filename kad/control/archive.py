"""config_save_dir: the configurations that were read, and the state before and after each reload.

It is an aid for the day on which reloads go wrong, and may not make it worse: whatever touches the directory
is done in one thread at a time, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice

import msgspec

from kad.control.candidate import Candidate, globals_of
from kad.dumps.files import MODE, replace_file
from kad.ipc.messages import Generation, ProcessInfo, Role
from kad.runtime import logs
from kad.runtime.thread import in_thread

JOBS_LIMIT = 16
"""Files that wait to be written; a directory that hangs gets no more."""
LISTED_LIMIT = 100_000
"""Names of the directory that are looked at for the last number."""
DIRECTORY_MODE = 0o700
TEXT_MODE = 0o600
"""The configuration holds passwords. keepalived's copy is for whom the umask lets read it."""

_STATES = {Role.VRRP: "vrrp", Role.CHECK: "check"}
"""Whose state is kept, and its name in keepalived's files."""
_KEPT = re.compile(r"keepalived(?:\.conf|_(?:vrrp|check))\.(\d+)\.(\d+)(?:\.(?:pre|post))?")

Ask = Callable[[Role, Callable[[Callable[[], str]], None]], None]
"""Asks a child for its state; the second argument gets, in the loop, what puts it into words."""


class Reading:
    """The files of one reading of the configuration, which share a number. For one thread at a time."""

    def __init__(self, pids: frozenset[int], *, first: bool) -> None:
        self.first = first
        self._pids = pids
        self._numbers: dict[str, int] = {}

    def write(self, directory: str, name: str, text: Callable[[], str], mode: int) -> str:
        """``name`` with the number in the place of {}. Why it was not written; empty: it was."""
        try:
            path = os.path.join(directory, name.format(self._number_in(directory)))
            replace_file(path, text(), mode)
        except OSError as error:
            return f"{directory}: {error.strerror}"
        except msgspec.MsgspecError as error:
            return f"{name}: the state does not decode: {error}"
        return ""

    def _number_in(self, directory: str) -> int:
        if directory not in self._numbers:
            _make(directory)
            last = last_number(directory, self._pids)
            self._numbers[directory] = max(0 if self.first else 1, last + 1)
        return self._numbers[directory]


def last_number(directory: str, pids: frozenset[int]) -> int:
    """The last number these processes' files have; -1: none. keepalived counts in its memory; here whoever
    counts may be born anew. Raises OSError.
    """
    with os.scandir(directory) as entries:
        names = [_KEPT.fullmatch(entry.name) for entry in islice(entries, LISTED_LIMIT)]
    return max((int(name[2]) for name in names if name and int(name[1]) in pids), default=-1)


def _make(directory: str) -> None:
    """Its parents must be there, as with keepalived. Raises OSError."""
    try:
        os.mkdir(directory, DIRECTORY_MODE)
    except FileExistsError:
        return
    # The umask is for files, and takes a directory's x away.
    os.chmod(directory, DIRECTORY_MODE)


class Archive:
    """What control keeps: :meth:`begin`, :meth:`read` and :meth:`end` of each reading, in this order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, supervisor_pid: int, ask: Ask) -> None:
        self._loop = loop
        self._supervisor_pid = supervisor_pid
        self._ask = ask
        self._reading: Reading | None = None
        self._jobs: deque[Callable[[], str]] = deque()
        self._busy = False

    def begin(self, running: Generation | None, processes: Mapping[Role, ProcessInfo]) -> None:
        pids = {self._supervisor_pid, *(info.pid for info in processes.values())}
        self._reading = Reading(frozenset(pids), first=running is None)
        self._keep_states("pre", running, processes)

    def read(self, candidate: Candidate, running: Generation | None) -> None:
        """Whether it is to run or not. One that does not ask for it is kept where the one before it was."""
        directory = candidate.save_directory or _directory_of(running)
        reading, transcript = self._reading, candidate.transcript
        if not directory or reading is None or transcript is None:
            return
        name = f"keepalived.conf.{self._supervisor_pid}.{{}}"
        self._put(lambda: reading.write(directory, name, transcript.text, TEXT_MODE))

    def end(self, running: Generation | None, processes: Mapping[Role, ProcessInfo]) -> None:
        self._keep_states("post", running, processes)
        self._reading = None

    def _keep_states(
        self, when: str, running: Generation | None, processes: Mapping[Role, ProcessInfo]
    ) -> None:
        directory = _directory_of(running)
        reading = self._reading
        if not directory or reading is None or reading.first:
            return
        for role, word in _STATES.items():
            info = processes.get(role)
            if info is not None and info.pid:
                self._keep_state(reading, directory, role, f"keepalived_{word}.{info.pid}.{{}}.{when}")

    def _keep_state(self, reading: Reading, directory: str, role: Role, name: str) -> None:
        self._ask(role, lambda text: self._put(lambda: reading.write(directory, name, text, MODE)))

    def _put(self, job: Callable[[], str]) -> None:
        if len(self._jobs) >= JOBS_LIMIT:
            self._complain("too many files wait to be written; one is left out")
            return
        self._jobs.append(job)
        self._go_on()

    def _go_on(self) -> None:
        if self._jobs and not self._busy:
            self._busy = True
            in_thread(self._loop, "archive", self._jobs.popleft(), self._done)

    def _done(self, complaint: str) -> None:
        self._busy = False
        self._complain(complaint)
        self._go_on()

    def _complain(self, complaint: str) -> None:
        if complaint:
            logs.warning(f"config_save_dir: {complaint}")


def _directory_of(generation: Generation | None) -> str:
    return globals_of(generation).reloading.config_save_dir
