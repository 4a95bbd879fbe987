"""Runs notify scripts from a protocol process without ever waiting for one.

Starting one costs the same whatever the size of this process (``subprocess`` uses vfork); one that runs as
another user needs a real fork, dearer as the process grows (figures: ARCHITECTURE.md). Its end comes through
a pidfd. At most one script is started in a turn of the event loop, so that a burst of transitions never holds
up an advertisement.

Scripts are fire and forget, as keepalived's are: they run beside each other, in a process group of their own,
with no time limit. Unlike keepalived's they outlive the process that started them (no PDEATHSIG): a crash of
it must not cut a notification short. The supervisor, a subreaper, inherits them.
"""

import asyncio
import contextlib
import errno
import os
import resource
import signal
import subprocess
from collections import Counter, deque
from collections.abc import Callable, Mapping
from functools import partial

from msgspec import Struct

from kad.config.model.script import ScriptCommand
from kad.runtime.process import inherited_nofile
from kad.runtime.process_end import ProcessEnd
from kad.runtime.processors import restore_slice
from kad.runtime.tuning import inherited_nice, inherited_realtime_limit

RUNNING_LIMIT = 512
"""Scripts running at once, all instances together."""
RUNNING_LIMIT_EACH = 16
"""Scripts of one instance running at once: its hung scripts must not starve the others'."""
WAITING_LIMIT = 16384
"""Commands accepted but not started. Beyond it new ones are refused, and said so."""
NO_ROOM = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
"""Why a process cannot be made now: nothing about the script."""
PAUSES_S = (0.1, 0.5, 2.0, 5.0)
"""Before each further attempt to start a command there was no room for; the last one is repeated."""
START_LIMIT = 20
"""Attempts, at most: a minute and a half."""
NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""A shell's exit statuses for a command that cannot be run."""


def _started_with_ctype() -> bool:
    try:
        with open("/proc/self/environ", "rb") as file:
            return any(entry.startswith(b"LC_CTYPE=") for entry in file.read().split(b"\0"))
    except OSError:
        return False


_CTYPE_IS_OURS = _started_with_ctype()
"""Looked at when this module is imported: later the process's title lies over the memory this shows."""
_CTYPE_OF_PYTHON = ("C.UTF-8", "C.utf8", "UTF-8")


def script_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The daemon's environment as a script may see it.

    Taken out: what changes how a shell splits words or a loader finds libraries, what belongs to the service
    manager's conversation with the daemon alone, and the LC_CTYPE that Python puts there where it was started
    without a locale (PEP 538).
    """
    seen = {
        name: value
        for name, value in environment.items()
        if name not in ("IFS", "NOTIFY_SOCKET") and not name.startswith(("LD_", "WATCHDOG_"))
    }
    if not _CTYPE_IS_OURS and seen.get("LC_CTYPE") in _CTYPE_OF_PYTHON:
        del seen["LC_CTYPE"]
    return seen


def shell_line(argv: tuple[str, ...]) -> str:
    """One line for ``/bin/sh -c``, every word single-quoted, but for a redirection at its beginning."""
    quoted = ["'" + word.replace("'", "'\\''") + "'" for word in argv]
    if argv[0].startswith("<"):
        quoted[0] = argv[0]
    return " ".join(quoted)


def program_and_argv(command: ScriptCommand) -> tuple[str, tuple[str, ...]]:
    """The file to execute and its argv."""
    program = command.executable or command.argv[0]
    if command.through_shell:
        line = shell_line((program, *command.argv[1:]))
        # The shell becomes the script: one process, whose end is the script's own.
        return "/bin/sh", ("sh", "-c", line if line.startswith("<") else f"exec {line}")
    return program, command.argv


def start_process(command: ScriptCommand, environment: Mapping[str, str]) -> int:
    """Start one script and return its process id; OSError or SubprocessError when it is refused.

    Standard descriptors on /dev/null and no others, a process group of its own, this process's umask and
    working directory. The constructor waits for the exec, never for the script: so an exec that may hang is
    left to a shell (``through_shell``), which hangs alone.
    """
    program, argv = program_and_argv(command)
    other_ids = (command.uid, command.gid) != (os.geteuid(), os.getegid())
    other_groups = bool(command.groups) and set(command.groups) != set(os.getgroups())
    change = other_ids or other_groups
    process = subprocess.Popen(
        argv,
        executable=program,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=True,
        process_group=0,
        user=command.uid if change else None,
        group=command.gid if change else None,
        extra_groups=command.groups if change else None,
    )
    process.returncode = 0  # its end is heard of otherwise (runtime/process_end.py)
    _give_back(process.pid)
    return process.pid


def _give_back(pid: int) -> None:
    """The limits and the priority kad was started with. Real-time priority goes by itself at the fork.

    Only now: lowered before the fork, a limit might stand in the way of the fork's own pipe.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, inherited_nofile)
        if resource.getrlimit(resource.RLIMIT_RTTIME) != inherited_realtime_limit:
            resource.prlimit(pid, resource.RLIMIT_RTTIME, inherited_realtime_limit)
        if os.getpriority(os.PRIO_PROCESS, 0) != inherited_nice:
            os.setpriority(os.PRIO_PROCESS, pid, inherited_nice)
        restore_slice(pid)


def let_exec_reset_signals() -> None:
    """Turn ignored signals into ones with an empty handler: the effect on us is the same, but exec resets it.

    ``subprocess`` itself resets SIGPIPE and SIGXFSZ only.
    """
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()), "a blocked signal would be blocked in scripts"
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _do_nothing)


def _do_nothing(_number: int, _frame: object) -> None:
    pass


class ScriptStarter:
    """What a process needs to start scripts; made ready for the first one, since few ever start any."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._ours = environment
        self._theirs: dict[str, str] | None = None

    def start(self, command: ScriptCommand) -> int:
        """The script's process. Raises OSError."""
        if self._theirs is None:
            let_exec_reset_signals()
            self._theirs = script_environment(self._ours)
        return start_process(command, self._theirs)


class _Notification(Struct):
    """The commands of one transition. ``left`` counts those that have not ended."""

    instance: str
    serial: int
    statuses: list[int | None]
    left: int


class _Command(Struct, eq=False):
    """One command of a notification, and its place there."""

    notification: _Notification
    place: int
    command: ScriptCommand
    attempts: int = 0
    """To start it."""


class ScriptRunner:
    """Starts scripts in the order they were submitted in and tells when all of a notification have ended.

    ``ended(instance, serial, statuses)``: exit status each, negative the signal that killed it, None when it
    could not be started (``report`` has said why). It is never called from inside :meth:`submit`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[str, int, tuple[int | None, ...]], None],
        report: Callable[[str], None],
        environment: Mapping[str, str],
    ) -> None:
        self._loop = loop
        self._ended = ended
        self._report = report
        self._starter = ScriptStarter(environment)
        self._waiting: deque[_Command] = deque()
        self._held: dict[str, deque[_Command]] = {}
        """Commands passed over because their instance has reached its limit, or there was no room."""
        self._running: dict[_Command, ProcessEnd] = {}
        self._pauses: dict[str, asyncio.TimerHandle] = {}
        """Of instances whose next command found no room."""
        self._running_each: Counter[str] = Counter()
        self._next_start: asyncio.Handle | None = None
        self._full = False

    @property
    def running(self) -> int:
        """Scripts started and not ended."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Commands not started."""
        return len(self._waiting) + sum(map(len, self._held.values()))

    def submit(self, instance: str, serial: int, commands: tuple[ScriptCommand, ...]) -> None:
        """Run these, started in this order, after all that were submitted before for the same instance."""
        notification = _Notification(instance, serial, [None] * len(commands), len(commands))
        if not commands:
            self._loop.call_soon(self._ended, instance, serial, ())
            return
        if self.waiting + len(commands) > WAITING_LIMIT:
            self._report(f"({instance}) notify scripts not run: {self.waiting} others wait already")
            self._loop.call_soon(self._ended, instance, serial, tuple(notification.statuses))
            return
        queue = self._held.get(instance, self._waiting)
        queue.extend(_Command(notification, place, command) for place, command in enumerate(commands))
        self._plan_start()

    def close(self) -> None:
        """Start no more and listen no more; what runs goes on under the supervisor."""
        if self._next_start is not None:
            self._next_start.cancel()
        for pause in self._pauses.values():
            pause.cancel()
        self._pauses.clear()
        self._waiting.clear()
        self._held.clear()
        for end in self._running.values():
            end.close()
        self._running.clear()

    def _plan_start(self) -> None:
        if not self._waiting or self._next_start is not None:
            return
        if len(self._running) >= RUNNING_LIMIT:
            if not self._full:
                self._report(f"{RUNNING_LIMIT} notify scripts are running; {self.waiting} more wait")
            self._full = True
            return
        self._full = False
        self._next_start = self._loop.call_soon(self._start_next)

    def _start_next(self) -> None:
        self._next_start = None
        item = self._waiting.popleft()
        instance = item.notification.instance
        if self._running_each[instance] >= RUNNING_LIMIT_EACH:
            self._report(f"({instance}) {RUNNING_LIMIT_EACH} notify scripts are running; more wait")
            self._hold(instance, item)
        else:
            self._start(item)
        self._plan_start()

    def _hold(self, instance: str, item: _Command) -> None:
        """Set this command aside with everything of the instance that waits behind it."""
        behind = [other for other in self._waiting if other.notification.instance == instance]
        self._waiting = deque(other for other in self._waiting if other.notification.instance != instance)
        self._held[instance] = deque([item, *behind, *self._held.get(instance, ())])

    def _start(self, item: _Command) -> None:
        try:
            pid = self._starter.start(item.command)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            if not self._put_off(item, error):
                name = item.notification.instance
                self._report(f"({name}) script {item.command.argv[0]} could not be started: {error}")
                self._finish(item, None)
            return
        self._running[item] = ProcessEnd(self._loop, pid, partial(self._script_ended, item))
        self._running_each[item.notification.instance] += 1

    def _put_off(self, item: _Command, error: Exception) -> bool:
        """Where there was no room: for a while, with the instance's others. The machine's want of processes
        passes, and a notification must not be lost by it."""
        item.attempts += 1
        if not isinstance(error, OSError) or error.errno not in NO_ROOM or item.attempts == START_LIMIT:
            return False
        name = item.notification.instance
        if item.attempts == 1:
            self._report(f"({name}) script {item.command.argv[0]} waits: {error}")
        self._hold(name, item)
        pause_s = PAUSES_S[min(item.attempts, len(PAUSES_S)) - 1]
        self._pauses[name] = self._loop.call_later(pause_s, self._resume, name)
        return True

    def _resume(self, instance: str) -> None:
        del self._pauses[instance]
        self._waiting.extendleft(reversed(self._held.pop(instance)))
        self._plan_start()

    def _script_ended(self, item: _Command, status: int) -> None:
        del self._running[item]
        self._release(item.notification.instance)
        if item.command.through_shell and status in (NOT_EXECUTABLE, NOT_FOUND):
            name, script = item.notification.instance, item.command.argv[0]
            self._report(f"({name}) script {script} could not be run: the shell's status {status}")
        self._finish(item, status)
        self._plan_start()

    def _release(self, instance: str) -> None:
        self._running_each[instance] -= 1
        if not self._running_each[instance]:
            del self._running_each[instance]
        held = self._held.get(instance)
        if held and instance not in self._pauses:
            self._waiting.appendleft(held.popleft())
            if not held:
                del self._held[instance]

    def _finish(self, item: _Command, status: int | None) -> None:
        notification = item.notification
        notification.statuses[item.place] = status
        notification.left -= 1
        if notification.left == 0:
            self._ended(notification.instance, notification.serial, tuple(notification.statuses))
