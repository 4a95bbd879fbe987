"""Asks the disk for what a start will import, all at once, where it is not in memory (any more).

A start imports hundreds of small files one after the other, and each would wait for the disk by itself.
"""

from __future__ import annotations

import os
import sys

OWN = ("kad", "kad_vrrp", "kad_check", "kad_bfd")
LIBRARY = ("asyncio", "email", "json")
"""Packages of Python's own library, the rest of which is used by others too."""
_COMPILED = "__pycache__"


def fetch_modules() -> None:
    """Costs nothing worth mentioning where they are in memory, and nobody waits for the disk here."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    first = os.path.join(root, "kad", "supervisor", _COMPILED, f"loop.{sys.implementation.cache_tag}.pyc")
    if is_cold(first):
        library = os.path.dirname(os.__file__)
        fetch([os.path.join(root, name) for name in OWN] + [os.path.join(library, name) for name in LIBRARY])


def is_cold(path: str) -> bool:
    """Whether reading it would wait. False too where there is no such file, or the system does not tell."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def fetch(directories: list[str]) -> None:
    """Have all compiled modules below read into memory."""
    for top in directories:
        for directory, _, names in os.walk(top):
            if os.path.basename(directory) == _COMPILED:
                for name in names:
                    _ask_for(os.path.join(directory, name))


def _ask_for(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
    except OSError:
        return
    finally:
        os.close(descriptor)
