"""What is not in memory is asked for, and comes without anybody reading it."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import pytest

from kad.runtime import readahead
from kad.runtime.readahead import fetch, is_cold
from tests.support.namespaces import poll


def write_cold(path: Path) -> None:
    """On the disk, and not in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(os.urandom(50_000))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if is_in_memory(path):
        pytest.skip("this file system keeps what it is told to forget")


def is_in_memory(path: Path) -> bool:
    """Any page of it. Asking as kad does would bring it there."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = path.stat().st_size
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        address = ctypes.c_void_p(ctypes.addressof(first))
        del first
        assert libc.mincore(address, ctypes.c_size_t(size), pages) == 0
    return any(page & 1 for page in pages)


def test_compiled_modules_come_into_memory_and_nothing_else(tmp_path: Path) -> None:
    package = tmp_path / "package"
    modules = [package / "__pycache__" / "a.pyc", package / "inner" / "__pycache__" / "b.pyc"]
    source = package / "a.py"
    for path in (*modules, source):
        write_cold(path)
    fetch([str(package), str(tmp_path / "missing")])
    poll(lambda: all(map(is_in_memory, modules)), "the modules in memory")
    assert not is_in_memory(source)


def test_what_has_been_read_or_does_not_exist_is_not_cold(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_cold(path)
    if not is_cold(str(path)):
        pytest.skip("this system does not tell")
    path.read_bytes()
    assert not is_cold(str(path))
    assert not is_cold(str(tmp_path / "missing"))
    assert not is_cold(str(tmp_path))


def test_nobody_is_asked_where_the_first_module_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(readahead, "fetch", asked.append)
    for cold in (False, True):
        monkeypatch.setattr(readahead, "is_cold", lambda path, cold=cold: cold and "supervisor" in path)
        readahead.fetch_modules()
    (directories,) = asked
    assert all(os.path.isdir(directory) for directory in directories)
