"""What a configuration asks of the machine it is read on, and the real machine's answers.

Findings about the machine are marked as such: they never refuse a reload. With ``--offline`` there is none.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
from typing import Protocol

from msgspec import Struct

LARGEST_SECRET = 140
"""Bytes of a key file: 64 bytes in hexadecimal, and a little."""


class User(Struct, frozen=True):
    name: str
    uid: int
    gid: int


class Machine(Protocol):
    """Questions about this machine. A test answers them itself."""

    def has_interface(self, name: str) -> bool:
        """Does a network interface of that name exist now?"""

    def user_named(self, name: str) -> User | None: ...

    def group_named(self, name: str) -> int | None: ...

    def groups_of(self, user: User) -> tuple[int, ...]:
        """Supplementary groups of a user."""

    def current_user(self) -> User: ...

    def processors(self) -> int:
        """How many there are."""

    def is_directory(self, path: str) -> bool: ...

    def secret(self, path: str) -> tuple[str | None, str]:
        """The content of a small file without its last line end, and a complaint about it or ""."""


class LocalMachine:
    """This machine, as it is at the moment of asking."""

    def has_interface(self, name: str) -> bool:
        try:
            socket.if_nametoindex(name)
        except (OSError, ValueError):
            return False
        return True

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
