"""A reader of a notification pipe."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tests.support.namespaces import poll


class Reader:
    """Everything that is written to a FIFO."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._data = b""

    @property
    def data(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            self._data += os.read(self._descriptor, 65536)
        return self._data

    def forget(self) -> None:
        """All that was written so far."""
        assert self.data is not None
        self._data = b""

    def close(self) -> None:
        os.close(self._descriptor)

    def wait_for(self, line: str, times: int = 1) -> None:
        poll(lambda: self.data.count(line.encode()) >= times, f"{line!r} {times} times", seconds=20)
