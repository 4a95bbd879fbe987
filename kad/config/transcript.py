"""What a reading read, as one text: each file under its name, an include's files in the place of its line."""

from __future__ import annotations

from typing import NamedTuple


class _Begin(NamedTuple):
    path: str
    data: bytes


class _Include(NamedTuple):
    line: int


class _End(NamedTuple):
    pass


class Transcript:
    """Filled while files are read, which costs next to nothing; :meth:`text` is for whoever wants it.

    keepalived keeps it without comments; here the lines are as they stand in the files, but for the line of
    an include, which is a comment: so the whole can be read as a configuration again.
    """

    def __init__(self) -> None:
        self._events: list[_Begin | _Include | _End] = []

    def begin(self, path: str, data: bytes) -> None:
        self._events.append(_Begin(path, data))

    def include(self, line: int) -> None:
        """Line ``line`` of the file being read stands for files that begin now."""
        self._events.append(_Include(line))

    def end(self) -> None:
        """Of the file begun last."""
        self._events.append(_End())

    def text(self) -> str:
        """Bytes that are no text are surrogate escapes."""
        pieces: list[str] = []
        reading: list[_File] = []
        for event in self._events:
            match event:
                case _Begin(path, data):
                    pieces.append(f"# {path.replace(chr(10), ' ')}\n")
                    reading.append(_File(data))
                case _Include(line):
                    pieces += reading[-1].up_to(line)
                case _End():
                    pieces += reading.pop().rest()
        for left in reversed(reading):
            # The reading broke off in it.
            pieces += left.rest()
        return "".join(pieces)


class _File:
    """The lines of one file that are yet to come."""

    def __init__(self, data: bytes) -> None:
        text = data.decode(errors="surrogateescape").removeprefix("\ufeff")
        self._lines = text.removesuffix("\n").split("\n") if text else []
        self._next = 0

    def up_to(self, line: int) -> list[str]:
        """What stands before an include's line, and that line, unless it was told already."""
        if line <= self._next:
            return []
        before = self._take(line - 1)
        self._next = line
        return [*before, f"# {self._lines[line - 1].lstrip()}\n"]

    def rest(self) -> list[str]:
        return [*self._take(len(self._lines)), "!\n"]

    def _take(self, end: int) -> list[str]:
        taken = [f"{line}\n" for line in self._lines[self._next : end]]
        self._next = end
        return taken
