"""When kad counts as started, for the service manager and the shell. Pure.

A role that does not come up, and is restarted again and again, must not keep the others from being believed:
the service manager would stop them all when its time for a start is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kad.ipc.messages import Role
from kad.supervisor.child import Child, State
from kad.units import US_PER_SECOND

ESSENTIAL = frozenset({Role.CONTROL, Role.VRRP})
"""Without these, where they are wanted, nothing is believed to have started."""
PATIENCE_US = 10 * US_PER_SECOND
"""How long the others are waited for once these are READY. In back-off they are not waited for at all."""
EXTENSION_US = 30 * US_PER_SECOND
EXTENSION_PERIOD_US = 10 * US_PER_SECOND
"""What the service manager is asked for, and how often, until the configuration is there: reading it and the
startup script have limits of their own.
"""


class Readiness:
    """``roles`` are those of the generation, beside control."""

    def __init__(self) -> None:
        self._waits_since_us = 0
        self._extended_at_us = 0

    def is_started(self, children: Mapping[Role, Child], roles: Iterable[Role], now_us: int) -> bool:
        missing = _missing(children, roles)
        if not ESSENTIAL.isdisjoint(missing):
            return False
        self._waits_since_us = self._waits_since_us or now_us
        in_vain = all(children[role].state == State.BACKOFF for role in missing)
        return in_vain or now_us - self._waits_since_us >= PATIENCE_US

    def wants_extension(self, now_us: int) -> bool:
        """Whether the service manager is to be asked for more time now."""
        due = now_us - self._extended_at_us >= EXTENSION_PERIOD_US
        if due:
            self._extended_at_us = now_us
        return due


def shortcomings(children: Mapping[Role, Child], roles: Iterable[Role]) -> str:
    """Who has never been READY, in words; "" for nobody."""
    missing = [children[role] for role in _missing(children, roles)]
    return "; ".join(f"{child.role} has not come up ({child.last_exit or child.state})" for child in missing)


def _missing(children: Mapping[Role, Child], roles: Iterable[Role]) -> list[Role]:
    return [role for role in (Role.CONTROL, *roles) if not children[role].been_ready]
