"""Reads tracked files, and again whenever one is written, moved or deleted (inotify).

What is watched is the directory of each file and, where the file is a symbolic link, the directory it leads
to. Files on filesystems where reading may block or changes cannot be seen are not followed, like
keepalived's; they count as 0.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable, Iterable, Iterator

from kad.filesystem import filesystem_of, is_unfit
from kad.track.file import READ_LIMIT, OutOfRange, parse_value

RETRY_S = 1.0
"""How often a directory that is not there is looked for."""
BATCH_BYTES = 16 * 1024

_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
_OVERFLOW, _IGNORED, _ONLYDIR = 0x4000, 0x8000, 0x1000000
_WATCHED = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLYDIR
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_EVENT = struct.Struct("=iIII")

_libc = ctypes.CDLL(None, use_errno=True)
# Bound at import: nothing is looked up while running.
_inotify_init1 = _libc.inotify_init1
_inotify_add_watch = _libc.inotify_add_watch
_inotify_rm_watch = _libc.inotify_rm_watch


class FileWatch:
    """``told(path, value)`` is called for every file once when it is first watched, and at every change."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        told: Callable[[str, int], None],
        report: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._told = told
        self._report = report
        self._values: dict[str, int] = {}
        self._unfit: set[str] = set()
        self._directories: dict[str, int] = {}
        """Watch of each directory; -1 while there is none."""
        self._names: dict[str, dict[str, set[str]]] = {}
        """directory -> name in it -> paths that depend on it."""
        self._retry: asyncio.TimerHandle | None = None
        self._descriptor = -1

    def watch(self, paths: Iterable[str]) -> None:
        """Exactly these from now on. New ones are told before this returns."""
        wanted = dict.fromkeys(paths)
        fresh = [path for path in wanted if path not in self._values]
        self._values = {path: value for path, value in self._values.items() if path in wanted}
        if not wanted:
            self.close()
            return
        if self._descriptor < 0:
            self._open()
        for path in fresh:
            self._values[path] = 0
            self._vet(path)
        self._arrange()
        for path in fresh:
            value = self._values[path] = self._look(path)
            self._told(path, value)

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
        if self._retry is not None:
            self._retry.cancel()
        self._descriptor, self._retry = -1, None
        self._values.clear()
        self._unfit.clear()
        self._directories.clear()
        self._names.clear()

    def _open(self) -> None:
        self._descriptor = _inotify_init1(_NONBLOCK_CLOEXEC)
        if self._descriptor < 0:
            self._report(f"track files are read only now and then: {os.strerror(ctypes.get_errno())}")
            return
        self._loop.add_reader(self._descriptor, self._drain)

    # Where to look ---------------------------------------------------------------------------------------

    def _arrange(self) -> None:
        """Watch the directories that matter at this moment, and no others."""
        names: dict[str, dict[str, set[str]]] = {}
        for path in self._values:
            for place in () if path in self._unfit else places(path):
                directory, _, name = place.rpartition("/")
                names.setdefault(directory or "/", {}).setdefault(name, set()).add(path)
        self._names = names
        for directory in [each for each in self._directories if each not in names]:
            watch = self._directories.pop(directory)
            if watch >= 0 and watch not in self._directories.values():
                _inotify_rm_watch(self._descriptor, watch)
        for directory in names:
            if self._directories.get(directory, -1) < 0:
                self._directories[directory] = self._add(directory)
        if -1 in self._directories.values() and self._retry is None:
            self._retry = self._loop.call_later(RETRY_S, self._try_again)

    def _add(self, directory: str) -> int:
        if self._descriptor < 0:
            return -1
        return int(_inotify_add_watch(self._descriptor, os.fsencode(directory), _WATCHED))

    def _try_again(self) -> None:
        """A directory was missing, or had vanished."""
        self._retry = None
        self._arrange()
        for path in list(self._values):
            self._tell(path, self._look(path))

    # What has happened -----------------------------------------------------------------------------------

    def _drain(self) -> None:
        try:
            data = os.read(self._descriptor, BATCH_BYTES)
        except BlockingIOError:
            return
        by_watch = self._by_watch()
        rearrange = False
        for watch, mask, name in _changes(data):
            directories = by_watch.get(watch, [])
            if mask & (_OVERFLOW | _IGNORED):
                self._directories.update(dict.fromkeys(directories, -1))
                rearrange = True
                continue
            for directory in directories:
                rearrange |= self._on_change(directory, name, mask)
        if rearrange:
            self._try_again_now()

    def _by_watch(self) -> dict[int, list[str]]:
        """Directories that are one under several names, by a bind mount, share a watch."""
        found: dict[int, list[str]] = {}
        for directory, watch in self._directories.items():
            found.setdefault(watch, []).append(directory)
        return found

    def _try_again_now(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._try_again()

    def _on_change(self, directory: str, name: str, mask: int) -> bool:
        """True: other directories may matter from now on."""
        paths = self._names.get(directory, {}).get(name, ())
        if not paths:
            return False
        place = os.path.join(directory, name)
        if mask & (_DELETE | _MOVED_FROM):
            # Like keepalived's: whatever comes in its place is told of by an event of its own.
            for path in list(paths):
                self._tell(path, 0)
            return os.path.islink(place)
        if mask & _CREATE and not os.path.islink(place):
            return False  # what is written to it is told of when it is closed
        for path in list(paths):
            self._tell(path, self._look(path))
        return os.path.islink(place)

    def _tell(self, path: str, value: int) -> None:
        if path in self._values and self._values[path] != value:
            self._values[path] = value
            self._told(path, value)

    def _look(self, path: str) -> int:
        """The file's value now; the one it had when it cannot be believed."""
        if path in self._unfit:
            return 0
        try:
            return parse_value(read_beginning(path))
        except OutOfRange as error:
            self._report(f"{path}: {error}; ignored")
            return self._values[path]

    def _vet(self, path: str) -> None:
        """Whether it is on a filesystem where looking is safe and changes are seen."""
        self._unfit.discard(path)
        kind = filesystem_of(path)
        if is_unfit(kind):
            self._unfit.add(path)
            self._report(f"{path} is on a filesystem ({kind}) that cannot be followed; it counts as 0")


def _changes(data: bytes) -> Iterator[tuple[int, int, str]]:
    """Watch, mask and name of each event that was read."""
    position = 0
    while position + _EVENT.size <= len(data):
        watch, mask, _, length = _EVENT.unpack_from(data, position)
        position += _EVENT.size
        yield watch, mask, os.fsdecode(data[position : position + length].rstrip(b"\0"))
        position += length


def places(path: str) -> tuple[str, ...]:
    """The path itself, made absolute, and where symbolic links lead to."""
    absolute = os.path.abspath(path)
    directory, name = os.path.split(absolute)
    here = os.path.join(os.path.realpath(directory), name)
    return tuple(dict.fromkeys((here, os.path.realpath(path))))


def read_beginning(path: str) -> bytes:
    """What a value is made of; empty when there is no file or it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOCTTY | _NONBLOCK_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, READ_LIMIT)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def initialise(path: str, value: int, *, overwrite: bool) -> str:
    """init_file: write the value where there is no file yet, or always. Returns why it failed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NOCTTY | _NONBLOCK_CLOEXEC
    flags |= os.O_TRUNC if overwrite else os.O_EXCL
    try:
        descriptor = os.open(path, flags, 0o644)
        try:
            os.write(descriptor, b"%d\n" % value)
        finally:
            os.close(descriptor)
    except FileExistsError:
        return ""
    except OSError as error:
        return f"cannot initialise {path}: {error.strerror}"
    return ""
