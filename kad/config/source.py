"""Reading configuration files: the only module of the configuration that opens anything.

What is read goes through a :class:`Reader`, so that the rest of the front end works on any text. Everything
is bounded: bytes, files, depth of includes.
"""

import errno
import glob
import hashlib
import os
import stat
from typing import Protocol

from msgspec import Struct

MAX_TOTAL_BYTES = 64 * 1024 * 1024
"""Bytes of all files of one reading; 10,000 real servers are 3 MB."""
MAX_FILES = 16_384
"""Files opened in one reading, repeated ones counted again."""
MAX_INCLUDE_DEPTH = 32
"""Files including files; a file that includes itself ends here."""
MAX_BRACE_ALTERNATIVES = 1_024
"""Names that one ``{a,b}`` pattern of an include may stand for."""


class Found(Struct, frozen=True):
    """What a file pattern stands for. ``missing`` are plain names, or directories of wildcards, not there."""

    paths: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    wildcard: bool = False
    braces: bool = False


class Unreadable(Struct, frozen=True):
    """Why a file could not be read, as a phrase that follows its name."""

    reason: str


class Reader(Protocol):
    """Where configuration text comes from."""

    def find(self, pattern: str, directory: str) -> Found:
        """The files a pattern stands for; relative patterns start at ``directory`` ("" = here)."""

    def read(self, path: str, limit: int) -> bytes | Unreadable:
        """All bytes of a file, ``limit`` + 1 of them at most."""

    def directory(self, path: str) -> str:
        """The absolute directory a file stands in (``${_PWD}``)."""


class DiskReader:
    """Files of this machine. Only regular files without an executable bit are read, as keepalived demands."""

    def find(self, pattern: str, directory: str) -> Found:
        paths: list[str] = []
        missing: list[str] = []
        wildcard = False
        if "\0" in pattern:
            return Found(missing=(pattern,))
        alternatives = expand_braces(pattern)
        for alternative in alternatives:
            path = os.path.join(directory, alternative)
            if glob.has_magic(alternative):
                wildcard = True
                matches = sorted(glob.glob(_escape_directory(directory, alternative)))
                paths += matches
                if not matches and not _directory_exists(path):
                    missing.append(path)
            elif os.path.lexists(path):
                paths.append(path)
            else:
                missing.append(path)
        return Found(tuple(paths), tuple(missing), wildcard, len(alternatives) > 1)

    def read(self, path: str, limit: int) -> bytes | Unreadable:
        try:
            # NONBLOCK: opening a FIFO must not wait for a writer
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            return Unreadable(_reason(error))
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(mode):
                return Unreadable("is a directory")
            if not stat.S_ISREG(mode):
                return Unreadable("is not a regular file")
            if mode & 0o111:
                return Unreadable("is executable, which a configuration file must not be")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(limit + 1)
        except OSError as error:
            return Unreadable(_reason(error))
        finally:
            os.close(descriptor)

    def directory(self, path: str) -> str:
        return os.path.realpath(os.path.dirname(path) or ".")


class TextReader:
    """Files kept in memory, by path: for configuration that is not on disk, and for tests."""

    def __init__(self, files: dict[str, bytes | str]) -> None:
        self.files = files

    def find(self, pattern: str, directory: str) -> Found:
        path = os.path.join(directory, pattern)
        if path in self.files:
            return Found((path,))
        return Found(missing=(path,))

    def read(self, path: str, limit: int) -> bytes | Unreadable:
        content = self.files.get(path)
        if content is None:
            return Unreadable("does not exist")
        data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        return data[: limit + 1]

    def directory(self, path: str) -> str:
        return os.path.dirname(path) or "/"


class Digest:
    """A digest of the files read, in order: equal digests mean the same text from the same places."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, path: str, data: bytes) -> None:
        name = path.encode("utf-8", "surrogateescape")
        self._hash.update(b"%d:%d:" % (len(name), len(data)) + name)
        self._hash.update(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def expand_braces(pattern: str) -> list[str]:
    """The names of a pattern with ``{a,b}`` alternatives (nested too), as the shell and glob(3) do.

    A brace without its partner stays as it is. No more than ``MAX_BRACE_ALTERNATIVES`` names come out.
    """
    done: list[str] = []
    todo = [pattern]
    while todo and len(done) < MAX_BRACE_ALTERNATIVES:
        text = todo.pop()
        parts = _first_braces(text)
        if parts is None:
            done.append(text)
            continue
        before, alternatives, after = parts
        room = MAX_BRACE_ALTERNATIVES - len(done) - len(todo)
        todo += [before + a + after for a in reversed(alternatives[: max(room, 1)])]
    return done


def _first_braces(text: str) -> tuple[str, list[str], str] | None:
    """Text before the first pair of braces, the alternatives within, the text after; None without a pair."""
    start = text.find("{")
    if start < 0:
        return None
    depth, begin = 0, start + 1
    alternatives: list[str] = []
    for position in range(start, len(text)):
        character = text[position]
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
        if depth == 0 or (depth == 1 and character == ","):
            alternatives.append(text[begin:position])
            begin = position + 1
        if depth == 0:
            return text[:start], alternatives, text[position + 1 :]
    return None


def _escape_directory(directory: str, alternative: str) -> str:
    return os.path.join(glob.escape(directory), alternative)


def _directory_exists(path: str) -> bool:
    """Whether the part of a pattern before its first wildcard is there."""
    while glob.has_magic(path):
        path = os.path.dirname(path)
    return os.path.isdir(path or ".")


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "does not exist"
    return f"cannot be read: {error.strerror or error}"
