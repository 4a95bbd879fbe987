"""The files of the SSL block, read beside the event loop: they may lie where reading hangs."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
import stat
from collections.abc import Callable
from functools import partial

from kad.config.model.check import SslContext
from kad.runtime.thread import in_thread
from kad_check.io.tls import client_context

PATIENCE_S = 2.0
"""How long checks that have no context yet wait for one, before they are answered without having run."""
FILE_LIMIT = 4 * 1024 * 1024
"""Bytes of one file: ten times the certificates of all that a system trusts."""
_HANGS = "the files of the SSL block are still being read"


class SslBlock:
    """``turned`` is called when a reading has ended or hangs, never from inside a method."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, turned: Callable[[], None], warn: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._turned = turned
        self._warn = warn
        self._settings: SslContext | None = None
        self._reading: SslContext | None = None
        self._serial = 0
        """Of the reading whose outcome counts."""
        self._is_wanted = False
        self._is_stale = False
        """A reload wants files that are being read to be read again."""
        self._patience: asyncio.TimerHandle | None = None
        self.context: ssl.SSLContext | None = None
        """What was read last, whatever happened since; None: nothing was read yet."""
        self.problem = ""
        """Why there is no context; empty: it comes in a moment."""

    def configure(self, settings: SslContext | None) -> None:
        """The block of the generation that comes. Its files are read anew each time, if they are wanted."""
        if settings is None or self._settings is None:
            self._drop()
        self._settings = settings
        if self._is_wanted:
            self._begin()

    def want(self) -> None:
        """A checker needs it."""
        if not self._is_wanted:
            self._is_wanted = True
            self._begin()

    def close(self) -> None:
        self._drop()

    def _drop(self) -> None:
        self._forget_reading()
        self.context, self.problem = None, ""

    def _begin(self) -> None:
        if self._settings is None:
            self.context = self.context or client_context(None)
        elif self._reading == self._settings:
            self._is_stale = True
        else:
            self._read(self._settings)

    def _read(self, settings: SslContext) -> None:
        """Where another reading hangs, of other files, nobody waits for it any more."""
        self._forget_reading()
        self._reading, self.problem = settings, ""
        in_thread(self._loop, "SSL files", partial(_attempt, settings), partial(self._end, self._serial))
        self._patience = self._loop.call_later(PATIENCE_S, self._overdue)

    def _forget_reading(self) -> None:
        self._reading, self._is_stale = None, False
        self._serial += 1
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _end(self, serial: int, end: tuple[ssl.SSLContext | str, list[str]]) -> None:
        if serial != self._serial:
            return
        outcome, complaints = end
        for complaint in complaints:
            self._warn(complaint)
        settings, is_stale = self._reading, self._is_stale
        self._forget_reading()
        if isinstance(outcome, ssl.SSLContext):
            self.context, self.problem = outcome, ""
        elif self.context is None:
            self.problem = f"the SSL block cannot be used: {outcome}"
        else:
            # They are away, or half replaced: no server has got any worse by that.
            self._warn(f"the SSL block cannot be read again, what was read before goes on: {outcome}")
        self._turned()
        if is_stale and settings is not None:
            self._read(settings)

    def _overdue(self) -> None:
        self._patience = None
        if self.context is None:
            self.problem = _HANGS
            self._turned()
        else:
            self._warn(f"{_HANGS}; what was read before goes on")


def _attempt(settings: SslContext) -> tuple[ssl.SSLContext | str, list[str]]:
    """In the thread: a context or why there is none, and complaints about files that have no effect."""
    complaints: list[str] = []
    try:
        for path in (settings.ca_file, settings.certificate_file, settings.key_file):
            if path:
                _vet(path)
        return client_context(settings, complaints.append), complaints
    except (OSError, ValueError) as error:
        return str(error), complaints


def _vet(path: str) -> None:
    """Reading it comes to an end. Raises OSError."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", path)
    if found.st_size > FILE_LIMIT:
        raise OSError(errno.EFBIG, f"it is longer than {FILE_LIMIT} bytes", path)
