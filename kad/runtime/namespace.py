"""Entering a named network namespace, as ``ip netns`` names them."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

DIRECTORY = "/run/netns"
_CLONE_NEWNET = 0x4000_0000


def enter_network_namespace(name: str) -> None:
    """Move this thread, which must be the only one, there. Raises OSError, ValueError."""
    if "/" in name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no name of a network namespace")
    _enter(os.path.join(DIRECTORY, name))


@contextlib.contextmanager
def inside_network_namespace(name: str) -> Iterator[None]:
    """This thread is there meanwhile: sockets made here stay there. "": the first process's namespace.

    Raises OSError, ValueError.
    """
    back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if name:
            enter_network_namespace(name)
        else:
            _enter("/proc/1/ns/net")
        try:
            yield
        finally:
            _enter(f"/proc/self/fd/{back}")
    finally:
        os.close(back)


def _enter(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(descriptor)
