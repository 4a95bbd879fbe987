"""Asks the disk for what a start will import, all at once, where it is not in memory (any more).

A start imports hundreds of small files one after the other, and each would wait for the disk by itself.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder

PACKAGES = ("kad", "kad_vrrp", "kad_check", "kad_bfd", "asyncio", "email", "json", "msgspec", "zmq")
"""Where most of it lies. The rest of Python's own library is used by others too."""
_COMPILED = "__pycache__"
_EXTENSION = ".so"


def fetch_modules() -> None:
    """Costs nothing worth mentioning where they are in memory, and nobody waits for the disk here."""
    own = os.path.dirname(os.path.dirname(__file__))
    first = os.path.join(own, "supervisor", _COMPILED, f"loop.{sys.implementation.cache_tag}.pyc")
    if is_cold(first):
        specs = [PathFinder.find_spec(name) for name in PACKAGES]
        fetch([place for spec in specs if spec for place in spec.submodule_search_locations or ()])


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
            is_compiled = os.path.basename(directory) == _COMPILED
            for name in names:
                if is_compiled or name.endswith(_EXTENSION):
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
