"""A file whose execution hangs, as on a network's filesystem whose server is away."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_FAN_CLOEXEC, _FAN_CLASS_CONTENT, _FAN_MARK_ADD = 0x1, 0x4, 0x1
_FAN_OPEN_EXEC_PERM = 0x40000
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def held_exec(path: Path) -> Iterator[None]:
    """Whoever executes it waits for a permission, which comes at the end of the context. Needs root."""
    descriptor = _libc.fanotify_init(_FAN_CLOEXEC | _FAN_CLASS_CONTENT, os.O_RDONLY | os.O_CLOEXEC)
    if descriptor < 0:
        pytest.skip(f"needs fanotify with permissions: {os.strerror(ctypes.get_errno())}")
    try:
        mask = ctypes.c_uint64(_FAN_OPEN_EXEC_PERM)
        if _libc.fanotify_mark(descriptor, _FAN_MARK_ADD, mask, _AT_FDCWD, os.fsencode(path)):
            pytest.skip(f"needs fanotify's FAN_OPEN_EXEC_PERM: {os.strerror(ctypes.get_errno())}")
        yield
    finally:
        os.close(descriptor)
