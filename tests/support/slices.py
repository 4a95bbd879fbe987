"""How long the kernel lets a thread run at a stretch."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest


def slice_us(pid: int) -> float:
    found = re.search(r"^se\.slice\s*:\s*(\d+)$", Path(f"/proc/{pid}/sched").read_text(), re.M)
    assert found is not None
    return int(found.group(1)) / 1000


def needs_slices() -> None:
    version = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
    if version < (6, 12):
        pytest.skip("before Linux 6.12 slices cannot be set")
    if not Path("/proc/self/sched").exists():
        pytest.skip("the kernel does not tell what slices are")
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("tried on x86_64 and aarch64 only")
