"""Fork: everything imported beforehand, one thread, and the child's first steps."""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

from kad.errors import ExitStatus, KadError
from kad.ipc.messages import Role
from kad.runtime import logs
from kad.runtime.process import ChildContext, become_child, begin_life, die

Main = Callable[[ChildContext], int]

ENTRIES: dict[Role, str] = {
    Role.CONTROL: "kad.control.app:main",
    Role.VRRP: "kad_vrrp.app:main",
    Role.CHECK: "kad_check.app:main",
    Role.BFD: "kad_bfd.app:main",
}
"""Where each role begins, as text: kad imports no child."""

PREIMPORTS = (
    "_strptime",
    "asyncio",
    "concurrent.futures.thread",
    "encodings.ascii",
    "encodings.cp437",
    "encodings.idna",
    "encodings.latin_1",
    "encodings.unicode_escape",
    "encodings.utf_8",
    "encodings.utf_8_sig",
    "grp",
    "linecache",
    "locale",
    "pwd",
    "runpy",
    "stringprep",
    "tokenize",
    "traceback",
    "unicodedata",
    "zlib",
)
"""What the standard library imports only when it is first needed. Nothing is imported after the freeze: an
upgrade or a removal of the files on disk must not reach a daemon that runs."""


class Unloadable(KadError):
    """A role's modules cannot be imported: files that are missing, or just being replaced."""


class Mains:
    """Where each role begins, imported when it is first needed or when there is time (:meth:`complete`)."""

    def __init__(self, entries: Mapping[Role, str]) -> None:
        for name in PREIMPORTS:
            importlib.import_module(name)
        self._entries = dict(entries)
        self._loaded: dict[Role, Main] = {}
        self._cold: list[Main] = []
        self._broken = False

    def __getitem__(self, role: Role) -> Main:
        """Raises Unloadable."""
        if role not in self._loaded:
            self._loaded[role] = main = _load(self._entries[role])
            self._cold.append(main)
            freeze()
        return self._loaded[role]

    def load_one(self) -> bool:
        """The next role that is missing. False: there is none, or one cannot be loaded, which hurts only who
        needs it.
        """
        missing = [role for role in self._entries if role not in self._loaded]
        if not missing or self._broken:
            return False
        try:
            self[missing[0]]
        except Unloadable as error:
            self._broken = True
            logs.error(f"whoever needs it cannot be started: {error}")
            return False
        return True

    def complete(self) -> bool:
        """One step of what is left to do: a role to load, or its module to warm up for the lives to come.
        False: there was nothing.
        """
        if self.load_one():
            return True
        if not self._cold:
            return False
        _warm_up(self._cold.pop())
        freeze()
        return True


def _load(entry: str) -> Main:
    """Raises Unloadable."""
    module_name, _, function = entry.partition(":")
    try:
        main: Main = getattr(importlib.import_module(module_name), function)
    except Exception as error:
        raise Unloadable(f"{module_name}: {error!r}") from error
    return main


def _warm_up(main: Main) -> None:
    """A role's module may have a ``warm_up()``: what lives that begin suddenly are faster for."""
    module = sys.modules[main.__module__]
    if hasattr(module, "warm_up"):
        module.warm_up()


def open_packet_socket() -> int:
    """A packet socket for the VRRP child to send announcements with; -1 where that is not allowed.

    Closing the last descriptor of a packet socket waits for a grace period of the kernel's RCU, about 10 ms,
    and so does the end of a process that held it: every crash would be noticed that much later. The
    supervisor holds this one as well, so a child's death closes nothing. Nothing arrives on it (protocol 0).
    """
    try:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0).detach()
    except OSError:
        return -1


def freeze() -> None:
    """What exists now belongs to all processes: no collection touches its pages, so they stay shared."""
    # Importing leaves next to no garbage; looking for it would take as long as importing a child does.
    gc.disable()
    gc.freeze()


def fork_child(main: Main, context: ChildContext, kept: Iterable[int]) -> int:
    """Fork a child that runs ``main`` and never returns. Its pid. Raises OSError.

    Signals must be blocked: the child unblocks them when no handler of the parent's can run in it.
    """
    assert len(os.listdir("/proc/self/task")) == 1, "another thread's locks would stay locked in the child"
    # The child would have what is held back, too.
    logs.release()
    gc.freeze()
    pid = os.fork()
    if pid == 0:
        _run(main, context, kept)
    return pid


def _run(main: Main, context: ChildContext, kept: Iterable[int]) -> NoReturn:
    """The whole life of a child, from the fork to its exit."""
    try:
        become_child(context, kept)
        logs.open(context.role, context.options)
        begin_life(context)
        if context.await_turn is not None:
            # What that touches is this process's own from now on: the turn begins with fewer page faults.
            _warm_up(main)
        status = main(context)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else ExitStatus.FATAL
    except BaseException as error:  # noqa: BLE001 (the outermost frame: what comes here ends the process)
        die(error)
    logs.close()
    os._exit(status)
