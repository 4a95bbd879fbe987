"""What a child is given at birth, and its first acts as a process of its own."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, NoReturn

import setproctitle
from msgspec import Struct

from kad.errors import ExitStatus
from kad.ipc.messages import Generation, Role, SupervisorSettings
from kad.runtime.processors import restore_slice
from kad.runtime.tuning import set_name
from kad.supervisor import signals

if TYPE_CHECKING:
    from kad.runtime.journal import Journal


class Options(Struct, frozen=True):
    """The command line, parsed (kad/cli.py); what every process needs to know of it."""

    program: str = "kad"
    """What it was called as: kad, or keepalived by a link of that name."""
    config_file: str = "/etc/keepalived/keepalived.conf"
    config_id: str = ""
    foreground: bool = False
    log_console: bool = False
    log_detail: int = 0
    log_syslog: bool = True
    log_facility: str = "daemon"
    log_file: str = ""
    dump_configuration: bool = False
    run_vrrp: bool = True
    run_check: bool = True
    run_bfd: bool = True
    run_all: bool = False
    release_vips: bool = False
    """-X: remove VIPs on the transition to BACKUP even if they were not set by us."""
    keep_vips_at_stop: bool = False
    """-V"""
    keep_ipvs_at_stop: bool = False
    put_back_ipvs: bool = False
    """-I"""
    respawn: bool = True
    """False with -R: a child's death stops the daemon."""
    log_address_changes: bool = False
    """-a"""
    ignore_sigint: bool = False
    net_namespace: str = ""
    instance: str = ""
    """The configuration's ``instance`` word. It names files: whoever starts the daemon looks it up first."""
    use_pid_dir: bool = False
    """The configuration's ``use_pid_dir`` word."""
    pid_file: str = ""
    vrrp_pid_file: str = ""
    checkers_pid_file: str = ""
    bfd_pid_file: str = ""
    run_directory: str = ""
    """--run-dir; empty: /run/kad/NAME."""
    umask: int | None = None
    include_all: bool = False
    """-e: every include must find a file."""
    not_acting: tuple[str, ...] = ()
    """What the command line asked for that does nothing yet, in words, for the log."""

    def umask_with(self, configured: int | None) -> int:
        """-u, or else the configuration's, or else keepalived's own."""
        given = configured if self.umask is None else self.umask
        return DEFAULT_UMASK if given is None else given


class ChildContext(Struct):
    """Everything a child gets from the supervisor. Built before the fork, used after it."""

    role: Role
    incarnation: int
    """Counts this role's lives from 1."""
    options: Options
    run_directory: str
    journal: Journal
    generation: Generation | None
    """The committed configuration; None only for the first control."""
    supervisor_pid: int
    control_fd: int = -1
    """control only: its end of the SOCK_SEQPACKET pair to the supervisor."""
    packet_fd: int = -1
    """vrrp only: a packet socket for announcements; the supervisor holds it too (supervisor/spawn.py)."""
    withdraw: bool = False
    """A one-shot child that removes what the journal says is ours, says goodbye, and exits."""
    previous_generation: Generation | None = None
    """The one before, while not every child has applied ``generation``."""
    hold_preemption: bool = False
    """The lives before this one crashed: do not preempt until this one has lasted 60 s."""
    await_turn: Callable[[], None] | None = None
    """Only of a spare: returns when its life is to begin (supervisor/spare.py). Whoever is made a spare of
    calls :meth:`take_turn` once it has done what can be done before, and :func:`begin_life` soon after.
    """

    def take_turn(self) -> None:
        """Wait until the life begins; of all but a spare it has."""
        if self.await_turn is not None:
            self.await_turn()


SHORT_SLICED = frozenset({Role.VRRP, Role.BFD})
"""They keep the supervisor's short time slices, in all their threads: a process that was killed is not gone
before the last of its threads has run once more.
"""
TITLES: dict[Role, str] = {role: f"kad: {role.value}" for role in Role}

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)

DEFAULT_UMASK = 0o177
"""keepalived's: what it and its scripts create is for its user alone unless the user says otherwise."""
CRASH_FILE_LIMIT = 256 * 1024
"""Bytes; a crash file longer than this begins anew."""
NOFILE_LIMIT = 65_536
"""As many descriptors as a process of ours asks for; a higher limit that was given stays."""
inherited_nofile = resource.getrlimit(resource.RLIMIT_NOFILE)
"""The limits kad was started with: scripts get them back."""


def set_parent_death_signal(signum: int) -> None:
    """Get ``signum`` when the parent's process ends. Raises OSError."""
    _prctl(_PR_SET_PDEATHSIG, signum)


def become_subreaper() -> None:
    """Orphans below this process become its children instead of init's. Raises OSError."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_title(title: str, name: str) -> None:
    """``title`` for ps, ``name`` (15 bytes count) for the kernel's own."""
    _set_command_line(title)
    set_name(name)


def _set_command_line(title: str) -> None:
    """Within the room the command line had: /proc/PID/environ, which lies behind it, stays what it was.

    setproctitle looks for the variable the first time it is called.
    """
    os.environ["SPT_NOENV"] = "1"
    setproctitle.setproctitle(title)
    del os.environ["SPT_NOENV"]


def adopt(settings: SupervisorSettings, options: Options) -> None:
    """What the configuration says to the supervisor's own process."""
    set_name(settings.process_name or options.program)
    # Always: a reload may have taken the word out, and children inherit what stands here.
    os.umask(options.umask_with(settings.umask))


def raise_nofile_limit() -> None:
    """More descriptors for this process and its children, as far as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = NOFILE_LIMIT if hard == unlimited else min(NOFILE_LIMIT, hard)
    if soft != unlimited and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def close_descriptors_except(kept: Iterable[int]) -> None:
    """Close every descriptor above 2 that is not in ``kept``."""
    keep = set(kept)
    # Listing first: the listing's own descriptor is in it, and gone by the time it would be closed.
    for number in [int(name) for name in os.listdir("/proc/self/fd")]:
        if number > 2 and number not in keep:
            with contextlib.suppress(OSError):
                os.close(number)


def crash_file(run_directory: str, role: Role) -> str:
    """Where a child of this role leaves its last words: faulthandler's stack, an uncaught traceback."""
    return os.path.join(run_directory, f"crash.{role.value}")


def become_child(context: ChildContext, kept: Iterable[int]) -> None:
    """The first acts after the fork. ``kept``: descriptors this child needs beside 0, 1, 2 and the context's.

    Leaves by os._exit when the supervisor died meanwhile. Raises OSError where the kernel refuses.
    """
    # Signals are blocked until here: nothing may run a handler of the supervisor's in the child.
    _reset_signals(context.supervisor_pid)
    set_parent_death_signal(signal.SIGTERM)
    if os.getppid() != context.supervisor_pid:
        # It died before the line above: nobody would ever tell us.
        os._exit(ExitStatus.FATAL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpgid(0, 0)
    if context.role not in SHORT_SLICED:
        restore_slice(0)
    close_descriptors_except((*kept, context.control_fd, context.packet_fd))
    open_crash_file(context.run_directory, context.role)
    # The supervisor turned collection off before the freeze.
    gc.enable()


def begin_life(context: ChildContext) -> None:
    """What others see of a child. Of a spare's life it is called twice: before its turn, and then."""
    spare = context.await_turn is not None
    title = TITLES[context.role] + (" withdraw" if context.withdraw else " spare" if spare else "")
    set_title(title, "kad_spare" if spare else f"kad_{context.role.value}")
    if not context.withdraw and not spare:
        context.journal.heartbeat(context.role).pid = os.getpid()


def _reset_signals(supervisor_pid: int) -> None:
    """HUP and INT ignored, they are the supervisor's to handle; what asks for a dump is passed on to it.

    The supervisor has no handlers to undo: it keeps its signals blocked and reads them.
    """
    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)

    def pass_on(number: int, _frame: object) -> None:
        # Whoever signals the pid of keepalived's VRRP process gets a dump from it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(supervisor_pid, number)

    for number in signals.FORWARDED:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


_crash_stream: IO[str] | None = None


def open_crash_file(run_directory: str, role: Role) -> None:
    """Have faulthandler write there (SIGABRT, SIGSEGV …); to stderr when there is no such file."""
    global _crash_stream
    path = crash_file(run_directory, role)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        if os.fstat(descriptor).st_size > CRASH_FILE_LIMIT:
            os.ftruncate(descriptor, 0)
        # Held for the life of the process: faulthandler writes to its descriptor.
        _crash_stream = os.fdopen(descriptor, "w")
        faulthandler.enable(_crash_stream)
    except OSError:
        faulthandler.enable(sys.__stderr__) if sys.__stderr__ else faulthandler.disable()


def die(error: BaseException) -> NoReturn:
    """End this process at once for ``error``, a defect of ours: traceback to the crash file, status 70.

    Nothing else of the process runs: no handler, no cleaning up, no other thread.
    """
    text = "".join(traceback.format_exception(error))
    descriptor = _crash_stream.fileno() if _crash_stream else 2
    with contextlib.suppress(OSError):
        os.write(descriptor, text.encode(errors="replace"))
    os._exit(ExitStatus.SOFTWARE)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
