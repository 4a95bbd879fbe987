"""Entering a named network namespace, as ``ip netns`` names them."""

from __future__ import annotations

import ctypes
import os

DIRECTORY = "/run/netns"
_CLONE_NEWNET = 0x4000_0000


def enter_network_namespace(name: str) -> None:
    """Move this thread, which must be the only one, there. Raises OSError, ValueError."""
    if "/" in name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no name of a network namespace")
    path = os.path.join(DIRECTORY, name)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(descriptor)
