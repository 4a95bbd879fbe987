"""Pid files, where keepalived puts them and with the locks it believes in.

kad and keepalived must never run on the same pid file. keepalived 2.3.2 and later hold an
open-file-description write lock over the whole file; earlier ones only look whether the process of that
number exists. So kad takes the same lock, and where it gets it, reads the number that is there: a keepalived
or kad of that number that is alive is refused. A number nobody has, or that something else has by now, is
stale and never blocks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct

from msgspec import Struct

from kad.errors import KadError
from kad.ipc.messages import Role
from kad.runtime.process import Options

RUN = "/run"
PID_DIRECTORY = "/run/keepalived"
OUR_NAMES = ("keepalived", "kad_")
"""How a process that may own a pid file is called (the beginning of its kernel name), or else ``kad``."""
_STALE_OPENS = 10
_NAMES: dict[Role | None, str] = {
    None: "keepalived",
    Role.VRRP: "vrrp",
    Role.CHECK: "checkers",
    Role.BFD: "bfd",
}


class PidFileInUse(KadError):
    """Another daemon owns the pid file."""


def pid_file_path(options: Options, role: Role | None) -> str:
    """Where the pid file of ``role`` is (None: the daemon itself). control has none; asking is an error."""
    given = {
        None: options.pid_file,
        Role.VRRP: options.vrrp_pid_file,
        Role.CHECK: options.checkers_pid_file,
        Role.BFD: options.bfd_pid_file,
    }[role]
    if given:
        return given
    name = f"{_NAMES[role]}_{options.instance}" if options.instance else _NAMES[role]
    if options.net_namespace:
        # keepalived mounts this one over the directory itself, for its own eyes.
        return f"{PID_DIRECTORY}/{options.net_namespace}/{name}.pid"
    if options.instance or options.use_pid_dir:
        return f"{PID_DIRECTORY}/{name}.pid"
    return f"{RUN}/{name}.pid"


class PidFile(Struct):
    """One pid file, locked while ``descriptor`` is open anywhere."""

    path: str
    descriptor: int

    @classmethod
    def acquire(cls, path: str) -> PidFile:
        """Open and lock the file, empty. Raises PidFileInUse, or OSError when it cannot be made."""
        _make_pid_directory(os.path.dirname(path))
        for _ in range(_STALE_OPENS):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o644)
            try:
                if _lock(descriptor, path) and leads_to(path, descriptor):
                    _refuse_living_owner(descriptor, path)
                    os.ftruncate(descriptor, 0)
                    # The umask is for files users ask for; everyone may read a pid.
                    os.fchmod(descriptor, 0o644)
                    return cls(path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        raise PidFileInUse(f"{path} is being replaced all the time")

    def write(self, pid: int) -> None:
        """Say ``pid``. The file is made again if somebody removed it. Raises OSError (a full disk)."""
        if not leads_to(self.path, self.descriptor):
            fresh = PidFile.acquire(self.path)
            os.close(self.descriptor)
            self.descriptor = fresh.descriptor
        text = b"%d\n" % pid
        os.pwrite(self.descriptor, text, 0)
        os.ftruncate(self.descriptor, len(text))

    def remove(self) -> None:
        """Remove the file, if it is still ours, and let go of the lock."""
        with contextlib.suppress(OSError):
            if leads_to(self.path, self.descriptor):
                os.unlink(self.path)
            directory = os.path.dirname(self.path)
            if os.path.dirname(directory) == PID_DIRECTORY:
                os.rmdir(directory)
        os.close(self.descriptor)


def process_name(pid: int) -> str:
    """The kernel's name of a living process; "" when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read(4096)
    except OSError:
        return ""
    name, _, rest = text.partition("(")[2].rpartition(")")
    # A zombie owns nothing any more.
    return "" if rest.split()[:1] in (["Z"], ["X"]) else name


def is_daemon(pid: int) -> bool:
    """Whether ``pid`` is a living keepalived or kad, other than this process."""
    if pid <= 1 or pid == os.getpid():
        return False
    name = process_name(pid)
    if not name:
        return False
    # keepalived can be told to call itself anything; its program keeps its name.
    with contextlib.suppress(OSError):
        if os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("keepalived"):
            return True
    return name == "kad" or name.startswith(OUR_NAMES)


def _lock(descriptor: int, path: str) -> bool:
    """The lock keepalived takes: a write lock of the open file description, over everything."""
    whole_file = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, whole_file)
    except (BlockingIOError, PermissionError):
        owner = _read_pid(descriptor)
        who = f" (process {owner})" if owner else ""
        raise PidFileInUse(f"another daemon{who} has the pid file {path} locked") from None
    return True


def _refuse_living_owner(descriptor: int, path: str) -> None:
    """keepalived before 2.3.2 does not lock: its number in the file is all there is."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise PidFileInUse(f"{path} is not a regular file")
    owner = _read_pid(descriptor)
    if is_daemon(owner):
        raise PidFileInUse(f"{process_name(owner)} is running as process {owner} (pid file {path})")


def _read_pid(descriptor: int) -> int:
    """The number in the file; 0 when there is none."""
    text = os.pread(descriptor, 32, 0).split()[:1]
    return int(text[0]) if text and text[0].isdigit() else 0


def leads_to(path: str, descriptor: int) -> bool:
    """Whether the path still leads to the file that is open."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    opened = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def _make_pid_directory(directory: str) -> None:
    """The one pid files are in with ``use_pid_dir``, or a network namespace's below it; no other."""
    if directory != PID_DIRECTORY:
        if os.path.dirname(directory) != PID_DIRECTORY:
            return
        _make_pid_directory(PID_DIRECTORY)
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory)
        os.chmod(directory, 0o755)
