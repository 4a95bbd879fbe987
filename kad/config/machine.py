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
