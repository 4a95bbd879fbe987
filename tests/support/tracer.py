"""A tracer (as strace is) that does not let go of what it traces when that has ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator

_PTRACE_SEIZE = 0x4206
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def held_by_a_tracer(pid: int) -> Iterator[None]:
    """Meanwhile only the tracer may reap the process. Raises OSError where tracing is not allowed."""
    ours, theirs = os.pipe()
    tracer = os.fork()
    if tracer == 0:
        number = 0 if _libc.ptrace(_PTRACE_SEIZE, pid, None, None) == 0 else ctypes.get_errno()
        os.write(theirs, bytes([number]))
        signal.pause()
    os.close(theirs)
    try:
        number = os.read(ours, 1)[0]
        if number:
            raise OSError(number, os.strerror(number))
        yield
    finally:
        os.close(ours)
        os.kill(tracer, signal.SIGKILL)
        os.waitpid(tracer, 0)
