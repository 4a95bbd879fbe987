"""Files around a reload: one that exists while the configuration is read, one that says when to read it, and
what is kept of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable

from kad.config.model.globals import Globals, Reloading
from kad.control.reload_time import ReloadTime, parse
from kad.runtime import logs
from kad.runtime.clock import realtime_us

LOOK_S = 1.0
"""How often the reload_time_file is looked at."""
CONTENT_LIMIT = 21
"""Characters of it that count, as in keepalived."""
DEFAULT_NAME = "keepalived.reload"
"""What reload_file without a path comes to."""


class ReloadFile:
    """It exists exactly while the configuration is read."""

    def __init__(self) -> None:
        self._path = ""

    def configure(self, path: str) -> None:
        """``path`` empty: none. What a former life left is removed."""
        self._path = path
        self.remove()

    def create(self) -> None:
        if not self._path:
            return
        try:
            _make_empty(self._path)
        except OSError as error:
            logs.warning(f"reload_file {self._path}: {error.strerror}")

    def remove(self) -> None:
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


class ReloadTimeFile:
    """Asks for a reload at the time that the file says.

    The file goes then, unless it names no date and reload_repeat is set. Whoever removes it before, or writes
    something else into it, has changed their mind.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, reload: Callable[[], None]) -> None:
        self._loop = loop
        self._reload = reload
        self._settings = Reloading()
        self._timer: asyncio.TimerHandle | None = None
        self._content = ""
        self._due: ReloadTime | None = None

    def configure(self, settings: Reloading) -> None:
        if settings.time_file != self._settings.time_file:
            self._forget()
        self._settings = settings
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if settings.time_file:
            self._look()

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_S, self._look)
        content = _first_line(self._settings.time_file)
        if content != self._content:
            self._read(content)
        if self._due is not None and self._due.at <= realtime_us() / 1_000_000:
            self._come(self._due)

    def _read(self, content: str) -> None:
        path = self._settings.time_file
        if self._due is not None:
            logs.info("Cancelling the scheduled reload")
        self._content, self._due = content, None
        if not content:
            return
        found = parse(content, realtime_us() / 1_000_000)
        if isinstance(found, str):
            logs.warning(f"reload time '{content}' in {path} is ignored: {found}")
            return
        self._due = found
        logs.info(f"Scheduling reload for {content}")

    def _come(self, due: ReloadTime) -> None:
        path = self._settings.time_file
        self._forget()
        if due.has_date or not self._settings.repeat:
            with contextlib.suppress(OSError):
                os.unlink(path)
        logs.info(f"reload: its time, in {path}, has come")
        self._reload()

    def _forget(self) -> None:
        self._content, self._due = "", None


def _make_empty(path: str) -> None:
    """A FIFO that stands there is neither waited for nor changed. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o644)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            # Whoever looks for it may be another user.
            os.fchmod(descriptor, 0o644)
    finally:
        os.close(descriptor)


def _first_line(path: str) -> str:
    """What is there, or nothing; a FIFO is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, CONTENT_LIMIT).decode(errors="replace").split("\n")[0]
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def reload_file_path(settings: Globals) -> str:
    """Where it is; without a path of its own it stands beside keepalived's pid file."""
    path = settings.reloading.file
    if path != DEFAULT_NAME:
        return path
    if settings.instance:
        return f"/run/keepalived/keepalived_{settings.instance}.reload"
    return f"/run/keepalived/{path}" if settings.use_pid_dir else f"/run/{path}"
