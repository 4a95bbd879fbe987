"""The run directory: /run/kad/NAME, 0700, one daemon at a time.

Every process of the daemon holds the directory's lock through the same open file, so the lock is free only
when the last of them is gone. A new supervisor therefore waits, for a bounded time, while the children of a
supervisor that was killed still withdraw; where the supervisor itself lives, it is told no at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import stat

from msgspec import Struct

from kad.errors import KadError, in_words
from kad.runtime import logs
from kad.runtime.clock import monotonic_us
from kad.runtime.pidfile import is_daemon, leads_to
from kad.runtime.process import Options

ROOT = "/run/kad"
LOCK = "lock"
WAIT_US = 5_000_000
"""How long an old family may take to withdraw."""
_POLL_MS = 10


class RunDirectoryInUse(KadError):
    """Another kad of the same name runs, or the directory is not to be trusted."""


class RunDirectory(Struct):
    """The directory's path, and the descriptor that keeps it locked (children inherit it)."""

    path: str
    lock: int

    @classmethod
    def acquire(cls, options: Options, wait_us: int = WAIT_US) -> RunDirectory:
        """Make, check and lock it. Raises RunDirectoryInUse, or OSError when it cannot be made."""
        path = run_directory_path(options)
        return cls(path, _make_and_lock(path, wait_us))

    def held(self) -> int:
        """The lock, for a child that is about to be. A directory that somebody removed is made again."""
        if not leads_to(os.path.join(self.path, LOCK), self.lock):
            try:
                fresh = _make_and_lock(self.path, 0)
            except (OSError, RunDirectoryInUse) as error:
                logs.error(f"the run directory is gone and cannot be made again: {in_words(error)}")
            else:
                logs.warning(f"the run directory {self.path} was gone and is made again")
                os.close(self.lock)
                self.lock = fresh
        return self.lock


def run_directory_path(options: Options) -> str:
    """/run/kad/NAME: the instance, else the network namespace, else "default"; or what --run-dir says."""
    if options.run_directory:
        return os.path.abspath(options.run_directory)
    name = options.instance or options.net_namespace or "default"
    if "/" in name or name in (".", ".."):
        raise RunDirectoryInUse(f"{name!r} cannot name a directory: give one with --run-dir")
    return f"{ROOT}/{name}"


def _make_and_lock(path: str, wait_us: int) -> int:
    """The lock's descriptor."""
    _make(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(os.path.join(path, LOCK), flags, 0o600)
    try:
        _wait_for_lock(lock, path, wait_us)
        # A full disk is no reason not to run: the number only makes the refusal of a second one quicker.
        with contextlib.suppress(OSError):
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _make(path: str) -> None:
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        os.makedirs(parent, exist_ok=True)
        os.chmod(parent, 0o755)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise RunDirectoryInUse(f"{path} is not a directory of this user's") from None
    # Whatever the umask was, and whatever somebody made of it since.
    os.chmod(path, 0o700)


def _wait_for_lock(lock: int, path: str, wait_us: int) -> None:
    deadline_us = monotonic_us() + wait_us
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        owner = _owner(lock)
        if is_daemon(owner):
            raise RunDirectoryInUse(f"kad is running as process {owner} (run directory {path})")
        if monotonic_us() >= deadline_us:
            raise RunDirectoryInUse(f"processes of an earlier kad still hold the run directory {path}")
        select.poll().poll(_POLL_MS)


def _owner(lock: int) -> int:
    text = os.pread(lock, 32, 0).strip()
    return int(text) if text.isdigit() else 0
