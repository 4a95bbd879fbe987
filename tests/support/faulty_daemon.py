"""A real kad in which faults can be planted, each of which is met once.

with FaultyKad(node, text) as kad:
    kad.plant("vrrp", "loop")
    begin_us = kad.met("vrrp")
"""

from __future__ import annotations

import sys

from tests.support import planted_faults
from tests.support.daemon import Kad
from tests.support.namespaces import poll


class FaultyKad(Kad):
    """``act`` and ``kind``: see ``planted_faults.py``."""

    def argv(self) -> list[str]:
        return [sys.executable, "-P", planted_faults.__file__, str(self.directory), *super().argv()[1:]]

    def plant(self, act: str, kind: str) -> None:
        (self.directory / f"{act}.met").unlink(missing_ok=True)
        (self.directory / f"{act}.{kind}").touch()

    def met(self, act: str) -> int:
        """Wait until the fault is met; when that was, monotonic microseconds."""
        met = self.directory / f"{act}.met"
        poll(met.exists, f"{act} to meet its fault", every=0.002)
        return int(met.read_text())

    def go_on(self, act: str) -> None:
        """The end of a pause."""
        (self.directory / f"{act}.taken").unlink()

    def last_words(self, role: str) -> str:
        file = self.directory / "run" / f"crash.{role}"
        return file.read_text() if file.exists() else ""
