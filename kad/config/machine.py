"""What a configuration asks of the machine it is read on, and the real machine's answers.

Findings about the machine are marked as such: they never refuse a reload. With ``--offline`` there is none.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
from typing import Protocol

import msgspec
from msgspec import Struct

from kad.config.model.check import SslContext
from kad.config.model.script import ScriptCommand
from kad.filesystem import Mounts, filesystem_of, is_unfit, mounts

LARGEST_SECRET = 140
"""Bytes of a key file: 64 bytes in hexadecimal, and a little."""


LARGEST_NAME_FILE = 1 << 20
"""Bytes of one of iproute2's files of names; what is beyond is not read."""

_LOOKED_AT = 256
"""Bytes of a file that the kernel looks at to execute it."""


class User(Struct, frozen=True):
    name: str
    uid: int
    gid: int


class FoundScript(Struct, frozen=True):
    """What a command turned out to be. ``command`` None: it is not there, ``problem`` says why."""

    command: ScriptCommand | None
    problem: str = ""
    executable: bool = True
    insecure: str = ""
    """Why somebody other than root could decide what root runs; empty: nobody could."""


class SslProblem(Struct, frozen=True):
    """What is wrong with the files of an SSL block."""

    text: str
    usable: bool


class Machine(Protocol):
    """Questions about this machine. A test answers them itself."""

    def has_interface(self, name: str) -> bool:
        """Does a network interface of that name exist now?"""

    def interface_called(self, name: str) -> str:
        """The name of the interface that has this one, or has it as an alternative name; "": none has."""

    def user_named(self, name: str) -> User | None: ...

    def group_named(self, name: str) -> int | None: ...

    def groups_of(self, user: User) -> tuple[int, ...]:
        """Supplementary groups of a user."""

    def current_user(self) -> User: ...

    def processors(self) -> int:
        """How many there are."""

    def is_directory(self, path: str) -> bool: ...

    def script(self, command: ScriptCommand, *, keep_links: bool) -> FoundScript:
        """Look a command up as the user who runs it. ``keep_links``: run it by the path as written."""

    def name_files(self, local: str, vendor: str, name: str) -> tuple[str, ...]:
        """Contents of iproute2's files of one kind, those that count first (kad.config.iproute_names)."""

    def secret(self, path: str) -> tuple[str | None, str]:
        """The content of a small file without its last line end, and a complaint about it or ""."""

    def ssl_problem(self, settings: SslContext) -> SslProblem | None:
        """Whether the files of an SSL block can be used."""


class LocalMachine:
    """This machine, for one reading: whatever is asked more than once has one answer.

    ``sees_interfaces`` False: they are somewhere else, and every one is taken to exist.
    """

    def __init__(self, *, sees_interfaces: bool = True) -> None:
        self._sees_interfaces = sees_interfaces
        self._interfaces: dict[str, str] = {}
        self._mounts: Mounts | None = None

    def has_interface(self, name: str) -> bool:
        if not self._sees_interfaces:
            return True
        return self.interface_called(name) == name

    def interface_called(self, name: str) -> str:
        # An alias of old (eth0:1): the kernel answers for the interface before the colon.
        if ":" in name:
            return ""
        known = self._interfaces.get(name)
        if known is None:
            # A thousand instances ask for the same few; each answer takes two sockets of the C library's.
            known = self._interfaces[name] = _interface_called(name)
        return known

    def user_named(self, name: str) -> User | None:
        try:
            entry = pwd.getpwuid(int(name)) if name.isascii() and name.isdigit() else pwd.getpwnam(name)
        except (KeyError, ValueError, OverflowError):
            return None
        return User(entry.pw_name, entry.pw_uid, entry.pw_gid)

    def group_named(self, name: str) -> int | None:
        try:
            return (
                grp.getgrgid(int(name)) if name.isascii() and name.isdigit() else grp.getgrnam(name)
            ).gr_gid
        except (KeyError, ValueError, OverflowError):
            return None

    def groups_of(self, user: User) -> tuple[int, ...]:
        return tuple(os.getgrouplist(user.name, user.gid))

    def current_user(self) -> User:
        uid = os.getuid()
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            name = str(uid)
        return User(name, uid, os.getgid())

    def processors(self) -> int:
        return os.cpu_count() or 1

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)

    def name_files(self, local: str, vendor: str, name: str) -> tuple[str, ...]:
        found = [_text(f"{local}/{name}")]
        if found[0] is None:
            found = [_text(f"{vendor}/{name}")]
        ours, theirs = _conf_files(f"{local}/{name}.d"), _conf_files(f"{vendor}/{name}.d")
        paths = [f"{vendor}/{name}.d/{each}" for each in theirs if each not in ours]
        paths += [f"{local}/{name}.d/{each}" for each in ours]
        found += map(_text, paths)
        return tuple(text for text in found if text is not None)

    def secret(self, path: str) -> tuple[str | None, str]:
        try:
            with open(
                os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb"
            ) as file:
                mode = os.fstat(file.fileno()).st_mode
                content = file.read(LARGEST_SECRET + 1)
        except OSError as error:
            return None, f"'{path}' cannot be read: {error.strerror}"
        if len(content) > LARGEST_SECRET:
            return None, f"'{path}' is too large for a key"
        complaint = f"'{path}' is open to group or others" if mode & 0o077 else ""
        return content.rstrip(b"\r\n").decode(errors="surrogateescape"), complaint

    def ssl_problem(self, settings: SslContext) -> SslProblem | None:
        paths = [settings.ca_file, settings.certificate_file, settings.key_file]
        if any(self._may_hang(path) or (os.path.exists(path) and not os.path.isfile(path)) for path in paths):
            return None  # nobody waits for it here
        import ssl

        from kad.certificates import load_files

        try:
            complaint = load_files(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), settings)
        except (OSError, ValueError) as error:
            return SslProblem(f"the SSL block cannot be used: {error}", usable=False)
        return SslProblem(complaint, usable=True) if complaint else None

    def script(self, command: ScriptCommand, *, keep_links: bool) -> FoundScript:
        first = command.argv[0]
        path, problem = (first, "") if "/" in first else _search(first, command)
        if problem:
            return FoundScript(None, problem)
        try:
            real = os.path.realpath(path, strict=True)
            status = os.stat(real)
        except OSError as error:
            return FoundScript(None, f"'{path}': {error.strerror}")
        if not _reachable(real, command):
            return FoundScript(None, f"'{path}' cannot be reached by its user")
        executable = _permitted(status, command, 1) and stat.S_ISREG(status.st_mode)
        written = os.path.normpath(path)
        beginning = _beginning(real)
        places = (written, real, _interpreter(beginning))
        found = msgspec.structs.replace(
            command,
            argv=(written, *command.argv[1:]),
            executable=written if keep_links else real,
            through_shell=executable and (not _loads(beginning) or any(map(self._may_hang, places))),
        )
        guarded = executable and (command.uid == 0 or command.gid == 0 or _becomes_root(status))
        insecure = ""
        if guarded:
            insecure = _tampered(written) or ("" if real == written else _tampered(real))
        return FoundScript(found, "", executable, insecure)

    def _may_hang(self, path: str) -> bool:
        """Whoever waits until it is executed may wait for another machine."""
        if self._mounts is None:
            self._mounts = mounts()
        return bool(path) and is_unfit(filesystem_of(path, self._mounts))


def _conf_files(directory: str) -> list[str]:
    try:
        return sorted(
            each for each in os.listdir(directory) if each.endswith(".conf") and not each.startswith(".")
        )
    except OSError:
        return []


def _text(path: str) -> str | None:
    """A regular file's content, as far as a file of names can be long; None when it cannot be read."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            return file.read(LARGEST_NAME_FILE).decode(errors="replace")
    except OSError:
        return None


def _search(name: str, command: ScriptCommand) -> tuple[str, str]:
    """``name`` in PATH, as the user who runs it would find it; and what is wrong."""
    refused = ""
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        candidate = os.path.join(directory or ".", name)
        try:
            status = os.stat(candidate)
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode) and _permitted(status, command, 1):
            return candidate, ""
        refused = candidate
    if refused:
        return "", f"'{refused}' is not executable for its user"
    return "", f"'{name}' is not in PATH"


def _permitted(status: os.stat_result, command: ScriptCommand, bit: int) -> bool:
    """Has the command's user the permission ``bit`` (1 execute or search, 2 write, 4 read)?"""
    mode = status.st_mode
    if command.uid == 0:
        return bit != 1 or stat.S_ISDIR(mode) or bool(mode & 0o111)
    if status.st_uid == command.uid:
        return bool(mode & bit << 6)
    if status.st_gid == command.gid or status.st_gid in command.groups:
        return bool(mode & bit << 3)
    return bool(mode & bit)


def _reachable(path: str, command: ScriptCommand) -> bool:
    """May the command's user search every directory above ``path``?"""
    directory = os.path.dirname(path)
    while True:
        try:
            if not _permitted(os.stat(directory), command, 1):
                return False
        except OSError:
            return False
        if directory == "/":
            return True
        directory = os.path.dirname(directory)


def _becomes_root(status: os.stat_result) -> bool:
    mode = status.st_mode
    by_user = status.st_uid == 0 and mode & stat.S_IXUSR and mode & stat.S_ISUID
    by_group = status.st_gid == 0 and mode & stat.S_IXGRP and mode & stat.S_ISGID
    return bool(by_user or by_group)


def _tampered(path: str) -> str:
    """The first part of ``path`` that somebody other than root could change, told; empty: none.

    Symbolic links on the way are not followed here: the resolved path is walked on its own.
    """
    parts = [part for part in path.split("/") if part]
    current = "/"
    for number in range(len(parts) + 1):
        try:
            status = os.lstat(current)
        except OSError as error:
            return f"'{current}': {error.strerror}"
        if status.st_uid != 0:
            return f"'{current}' does not belong to root"
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        if not stat.S_ISLNK(status.st_mode) and not sticky:
            if status.st_gid != 0 and status.st_mode & stat.S_IWGRP:
                return f"'{current}' can be changed by its group"
            if status.st_mode & stat.S_IWOTH:
                return f"'{current}' can be changed by everybody"
        if number < len(parts):
            current = os.path.join(current, parts[number])
    return ""


def _beginning(path: str) -> bytes | None:
    """As much of a file as the kernel looks at; None when it cannot be read."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            return file.read(_LOOKED_AT)
    except OSError:
        return None


def _loads(beginning: bytes | None) -> bool:
    """Would the kernel run the file by itself: a program, or a script with an interpreter line?"""
    if beginning is None:
        return True  # unreadable is not unrunnable
    return beginning.startswith((b"#!", b"\x7fELF"))


def _interpreter(beginning: bytes | None) -> str:
    """The program that a script names in its first line; "" without one."""
    words = beginning[2:].split(b"\n")[0].split() if beginning and beginning.startswith(b"#!") else ()
    return os.fsdecode(words[0]) if words else ""


def _interface_called(name: str) -> str:
    try:
        return socket.if_indextoname(socket.if_nametoindex(name))
    except (OSError, ValueError):
        return ""
