"""What the kernel says of a process: the looks at /proc."""

from __future__ import annotations

from kad.supervisor.hang import Observation, parse_observation

READ_LIMIT = 16_384


def observe(pid: int) -> Observation | None:
    """The process's state at this moment; None when it is gone."""
    try:
        return parse_observation(*(_read(pid, name) for name in ("stat", "status", "schedstat")))
    except OSError:
        return None


def state_of(pid: int) -> str:
    """The kernel's letter for what the process does at this moment; "" when it is gone."""
    try:
        return parse_observation(_read(pid, "stat"), "", "").state
    except OSError:
        return ""


def _read(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
        return file.read(READ_LIMIT)
