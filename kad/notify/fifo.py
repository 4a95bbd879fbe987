"""A named pipe that events are written to, a line each. Nobody is waited for: a full pipe loses the line."""

from __future__ import annotations

import contextlib
import os
import stat

from kad.config.model.globals import Fifo

_MODE = 0o644
"""Less what the umask takes away, which by default leaves it to its owner alone; keepalived's too."""


class FifoWriter:
    """One pipe. It is opened for reading too, so that it may be written to before a reader is there."""

    def __init__(self, fifo: Fifo, *, is_ours: bool = False) -> None:
        self.fifo = fifo
        self.is_ours = is_ours
        """It was made here, or by a former life: it is removed in the end."""
        self._descriptor = -1
        self.lost = 0
        """Lines nobody read in time."""
        self.is_losing = False
        """The last line was one of them."""

    @property
    def is_open(self) -> bool:
        return self._descriptor >= 0

    def open(self) -> str:
        """Make the pipe if it is not there; "" or why it cannot be used.

        One that is there must be a pipe of ours or of the configured user's.
        """
        fifo = self.fifo
        try:
            with contextlib.suppress(FileExistsError):
                os.mkfifo(fifo.path, _MODE)
                self.is_ours = True
            flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(fifo.path, flags)
        except OSError as error:
            return f"{fifo.path}: {error.strerror}"
        problem = self._take(descriptor)
        if problem:
            os.close(descriptor)
        else:
            self._descriptor = descriptor
        return problem

    def _take(self, descriptor: int) -> str:
        fifo = self.fifo
        found = os.fstat(descriptor)
        if not stat.S_ISFIFO(found.st_mode) or found.st_uid not in (os.geteuid(), fifo.uid):
            return f"{fifo.path} is not a pipe of ours"
        if self.is_ours:
            try:
                os.fchown(descriptor, fifo.uid, fifo.gid)
            except OSError as error:
                return f"{fifo.path}: {error.strerror}"
        return ""

    def write(self, line: bytes) -> None:
        """A line is written whole or not at all: it is shorter than what a pipe takes in one piece."""
        if self._descriptor < 0:
            return
        try:
            self.is_losing = os.write(self._descriptor, line) < len(line)
        except OSError:
            self.is_losing = True
        self.lost += self.is_losing

    def is_where_it_was(self) -> bool:
        """Whether the path still leads to the pipe that is open."""
        try:
            found = os.lstat(self.fifo.path)
        except OSError:
            return False
        opened = os.fstat(self._descriptor)
        return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)

    def close(self, *, remove: bool = True) -> None:
        """``remove``: take the pipe away if it is ours."""
        if self._descriptor < 0:
            return
        os.close(self._descriptor)
        self._descriptor = -1
        if remove and self.is_ours:
            with contextlib.suppress(OSError):
                os.unlink(self.fifo.path)
