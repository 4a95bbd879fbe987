"""Kernel settings that virtual routers need, and what they were before.

What a setting was is written to the journal before it is changed: the next life of a process that was killed
still knows what to put back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from kad.runtime.journal import Records

ROOT = Path("/proc/sys")


class Sysctls:
    """``key_of``: the journal's key for a path below /proc/sys."""

    def __init__(
        self,
        records: Records,
        key_of: Callable[[str], str],
        complain: Callable[[str], None],
    ) -> None:
        self._records = records
        self._key_of = key_of
        self._complain = complain
        self._held: dict[str, tuple[bytes, bytes]] = {}
        """Path -> (as it was, as we set it)."""

    def recall(self, found: Mapping[str, bytes]) -> None:
        """What a former life left in the journal, by path."""
        for path, record in found.items():
            former, _, ours = record.partition(b"\n")
            self._held[path] = former, ours

    def hold(self, path: str, value: int) -> None:
        """Have it so from now on. Nothing is done where the kernel has no such setting."""
        wanted = str(value).encode()
        present = read(path)
        if present is None or present == wanted:
            return
        former = self._held[path][0] if path in self._held else present
        self._held[path] = former, wanted
        if not self._records.write(self._key_of(path), former + b"\n" + wanted):
            self._complain(f"no room in the journal: after a crash {path} would stay as it is set now")
        self._write(path, wanted)

    def release(self, path: str) -> None:
        """As it was before; left alone if somebody else has set it since."""
        held = self._held.pop(path, None)
        if held is None:
            return
        former, ours = held
        if read(path) == ours:
            self._write(path, former)
        self._records.delete(self._key_of(path))

    def forget(self, paths: Iterable[str]) -> None:
        """Their interface is gone, and they with it."""
        for path in paths:
            if self._held.pop(path, None) is not None:
                self._records.delete(self._key_of(path))

    @property
    def held(self) -> tuple[str, ...]:
        """Paths, in the order they were set."""
        return tuple(self._held)

    def _write(self, path: str, value: bytes) -> None:
        try:
            (ROOT / path).write_bytes(value)
        except OSError as error:
            self._complain(f"cannot set {path} to {value.decode()}: {error.strerror}")


def read(path: str) -> bytes | None:
    """The value; None where there is no such setting."""
    try:
        return (ROOT / path).read_bytes().strip()
    except OSError:
        return None


def interface_setting(interface: str, name: str) -> str:
    """The path of an IPv4 setting of an interface."""
    return f"net/ipv4/conf/{interface}/{name}"
