"""The order in which the children leave when the daemon stops, and how long each may take. Pure.

The addresses go before the services behind them: one that is held without its services refuses what is sent
to it. The checker believes what the BFD process says until it leaves itself. keepalived tells all at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kad.ipc.messages import Role, SupervisorSettings
from kad.supervisor.child import STARVED_FACTOR, WITHDRAW_LIMIT_US, Child, State

CONTROL_WAIT_US = 1_000_000
"""How long control may take to leave, after all the others have."""
_ORDER = ((Role.VRRP,), (Role.CHECK, Role.BFD), (Role.CONTROL,))
"""Each when all of those before have left."""
_MARGIN_US = 1_000_000


def patience_us(role: Role, settings: SupervisorSettings) -> int:
    """How long this one may take from when it is told."""
    return CONTROL_WAIT_US + settings.shutdown_us if role == Role.CONTROL else settings.child_wait_us


def longest_us(settings: SupervisorSettings) -> int:
    """How long a stop may take altogether."""
    starved_us = (STARVED_FACTOR - 1) * settings.child_wait_us + STARVED_FACTOR * WITHDRAW_LIMIT_US
    return sum(patience_us(roles[0], settings) for roles in _ORDER) + starved_us + _MARGIN_US


def leaving(children: Mapping[Role, Child]) -> Iterator[Role]:
    """Those that are to be told now, or have been told. They may become STOPPED meanwhile."""
    for roles in _ORDER:
        yield from roles
        if any(children[role].state != State.STOPPED for role in roles):
            return
