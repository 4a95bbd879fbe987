"""Interfaces an instance cannot do without, whatever else is said of them. Pure."""

from __future__ import annotations

from kad.config.model.vrrp import VrrpInstance


def needed_interfaces(config: VrrpInstance) -> dict[str, str]:
    """Interfaces of what is tracked, and what that is; keepalived tracks them with weight 0 too."""
    both = config.virtual_addresses + config.excluded_addresses
    own = config.vmac.name if config.vmac is not None else ""
    needed = {a.interface: "virtual address" for a in both if a.interface and not a.no_track}
    for route in config.virtual_routes:
        # Not those of next hops: a route with one of them gone still leads somewhere.
        if route.interface and not route.no_track:
            needed.setdefault(route.interface, "virtual route")
    for rule in config.virtual_rules:
        if not rule.no_track:
            needed.update((name, "virtual rule") for name in rule.interfaces if name not in needed)
    for name in config.static_interfaces:
        needed.setdefault(name, "static item")
    return {name: what for name, what in needed.items() if name != own}


def unweighted_interfaces(config: VrrpInstance) -> frozenset[str]:
    """Those that ``track_interface`` gives no weight: down is a fault already. As with keepalived."""
    needed = {name for name in needed_interfaces(config) if name != config.interface}
    return frozenset(needed if config.dont_track_primary else needed | {config.interface})
