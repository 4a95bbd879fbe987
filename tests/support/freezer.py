"""Makes a whole family of processes stand still, as a paused machine or container does.

Through the kernel's freezer where there is one (cgroup 1 or 2), else with SIGSTOP, parents first.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

_ROOTS = (Path("/sys/fs/cgroup/freezer"), Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
_serial = itertools.count(1)


@contextlib.contextmanager
def frozen(pids: Sequence[int]) -> Iterator[str]:
    """Inside, none of these processes runs. Gives how it was done: ``cgroup`` or ``SIGSTOP``."""
    group = _make_group()
    if group is None:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield "SIGSTOP"
        finally:
            for pid in reversed(pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        return
    homes = {pid: _home(pid, group) for pid in pids}
    control, (freeze, thaw) = _switch(group)
    try:
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
        control.write_text(freeze)
        yield "cgroup"
    finally:
        control.write_text(thaw)
        for pid, home in homes.items():
            with contextlib.suppress(OSError):
                (home / "cgroup.procs").write_text(str(pid))
        with contextlib.suppress(OSError):
            group.rmdir()


def _make_group() -> Path | None:
    for root in _ROOTS:
        group = root / f"kad-test-{os.getpid()}-{next(_serial)}"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / "freezer.state").exists() or (group / "cgroup.freeze").exists():
            return group
        with contextlib.suppress(OSError):
            group.rmdir()
    return None


def _switch(group: Path) -> tuple[Path, tuple[str, str]]:
    old = group / "freezer.state"
    return (old, ("FROZEN", "THAWED")) if old.exists() else (group / "cgroup.freeze", ("1", "0"))


def _home(pid: int, group: Path) -> Path:
    """The group it lives in now, under the same root."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "freezer" in controllers or (number == "0" and not (group / "freezer.state").exists()):
            return group.parent / path.lstrip("/")
    return group.parent
