"""Interfaces an instance cannot do without, whatever else is said of them. Pure."""

from __future__ import annotations

from kad.config.model.vrrp import VrrpInstance


def needed_interfaces(config: VrrpInstance) -> dict[str, str]:
    """Interfaces of what is tracked, and what that is; keepalived tracks them with weight 0 too."""
    needed: dict[str, str] = {}
    for addresses in (config.virtual_addresses, config.excluded_addresses):
        for address in addresses:
            if address.interface and not address.no_track:
                needed[address.interface] = "virtual address"
    for route in config.virtual_routes:
        # Not those of next hops: a route with one of them gone still leads somewhere.
        if route.interface and not route.no_track:
            needed.setdefault(route.interface, "virtual route")
    for rule in config.virtual_rules:
        if not rule.no_track:
            needed.update((name, "virtual rule") for name in rule.interfaces if name not in needed)
    for name in config.static_interfaces:
        needed.setdefault(name, "static item")
    if needed and config.vmac is not None:
        needed.pop(config.vmac.name, None)
    return needed


def unweighted_interfaces(config: VrrpInstance) -> frozenset[str]:
    """Those that ``track_interface`` gives no weight: down is a fault already. As with keepalived."""
    needed = {name for name in needed_interfaces(config) if name != config.interface}
    return frozenset(needed if config.dont_track_primary else needed | {config.interface})
