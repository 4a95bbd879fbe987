"""What the log says of changes, in keepalived's words: people's scripts and alerts look for them. Pure."""

from __future__ import annotations

from collections.abc import Callable

from kad.config.model.vrrp import VrrpConfiguration
from kad_vrrp.core.actions import Log, LogLevel, State, StateChanged
from kad_vrrp.core.conditions import interfaces_of
from kad_vrrp.core.events import LinkChanged, LinkRemoved

_REMEDIES = {
    "the kernel refused a virtual address": " (as told above): tried again later; one that may be missing"
    " belongs in virtual_ipaddress_excluded"
}
"""What can be done about the reason of a FAULT, where the reason does not tell."""


def lines_of_change(change: StateChanged) -> list[Log]:
    """Why, and what. keepalived tells the first of a lost election and of an interface only."""
    name, old, new = change.instance, change.old, change.new
    level = LogLevel.WARNING if new is State.FAULT else LogLevel.INFO
    if State.INIT in (old, new) and new is not State.FAULT:
        # Starts and stops of them all are not worth two lines each.
        level = LogLevel.DEBUG
    lines = [Log(level, f"({name}) {change.reason}{_REMEDIES.get(change.reason, '')}")]
    if new is not State.INIT:
        first = " (init)" if old is State.INIT and new is State.BACKUP else ""
        lines.append(Log(LogLevel.INFO, f"({name}) Entering {new} STATE{first}"))
    return lines


def watched_interfaces(configuration: VrrpConfiguration) -> frozenset[str]:
    """Those whose going and coming matters to some instance."""
    own = frozenset[str]().union(*map(interfaces_of, configuration.instances))
    tracked = [each.tracking for each in configuration.instances]
    tracked += [each.tracking for each in configuration.sync_groups]
    return own | {item.name for each in tracked for item in each.interfaces}


class LinkNews:
    """Tells when an interface that matters goes up or down."""

    def __init__(self) -> None:
        self._up: dict[str, bool | None] = {}
        """None: one of our own that is still to be made, which is no news."""

    def watch(self, configuration: VrrpConfiguration, link: Callable[[str], LinkChanged | None]) -> None:
        """A configuration, and what there is of what it names; of others nothing is told any more."""
        own = {each.name for each in configuration.virtual_links}
        former, self._up = self._up, {}
        for name in watched_interfaces(configuration):
            found = link(name)
            absent = former.get(name, None if name in own else False)
            self._up[name] = absent if found is None else found.up

    def heard(self, event: LinkChanged | LinkRemoved) -> list[str]:
        """The lines this event is worth."""
        name = event.name
        if name not in self._up:
            return []
        up = isinstance(event, LinkChanged) and event.up
        was_up = self._up[name]
        self._up[name] = up or (None if was_up is None else False)
        gone = [f"Interface {name} deleted"] if isinstance(event, LinkRemoved) else []
        if was_up is None or was_up is up:
            return gone
        return [f"Netlink reports {name} {'up' if up else 'down'}", *gone]
