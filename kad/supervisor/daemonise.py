"""Leaving the terminal: one fork, a session of its own, and a first process that waits for the outcome."""

from __future__ import annotations

import contextlib
import os
import select

from kad.errors import ExitStatus

START_LIMIT_MS = 30_000
"""How long the first process waits for news; then it assumes that all is well."""
TEXT_LIMIT = 4096


class Starter:
    """The line to whoever started the daemon: how the start went, once.

    With a descriptor it leads to the process that was called from the shell; without one the caller is still
    there and reads our standard error.
    """

    def __init__(self, descriptor: int = -1, *, quiet: bool = False) -> None:
        self._descriptor = descriptor
        self._quiet = quiet
        self._told = False

    def tell(self, status: int, text: str = "") -> None:
        """``status`` is what the first process exits with, ``text`` what it prints. The first word counts."""
        if self._told:
            return
        self._told = True
        said = f"kad: {text}\n".encode()[:TEXT_LIMIT] if text else b""
        with contextlib.suppress(OSError):
            if self._descriptor >= 0:
                os.write(self._descriptor, bytes([status & 0xFF]) + said)
                os.close(self._descriptor)
            elif said and not self._quiet:
                os.write(2, said)


def daemonise() -> Starter:
    """Continue in a child with a session of its own; the calling process exits when it hears how it went."""
    ours, theirs = os.pipe()
    if os.fork() != 0:
        os.close(theirs)
        os._exit(_outcome(ours))
    os.close(ours)
    os.setsid()
    os.chdir("/")
    nowhere = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    return Starter(theirs)


def _outcome(descriptor: int) -> int:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(START_LIMIT_MS):
        return ExitStatus.OK
    told = os.read(descriptor, 1 + TEXT_LIMIT)
    with contextlib.suppress(OSError):
        os.write(2, told[1:])
    # Closed without a word: it was killed.
    return told[0] if told else ExitStatus.FATAL
