"""Which instances follow which static items: their track_group, put into the instances. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kad.config.model.vrrp import VrrpConfiguration


def with_static_interfaces(configuration: VrrpConfiguration) -> VrrpConfiguration:
    """Each instance with the interfaces of the items that its track groups follow.

    keepalived too tracks the interface of an item, with weight 0, and not the item itself: that is put back.
    """
    followed: dict[str, dict[str, None]] = {}
    members = {group.name: group.members for group in configuration.track_groups}
    for group, interface in _tracked(configuration):
        for name in members.get(group, ()):
            followed.setdefault(name, {})[interface] = None
    if not followed:
        return configuration
    instances = tuple(
        msgspec.structs.replace(each, static_interfaces=tuple(followed.get(each.name, ())))
        for each in configuration.instances
    )
    return msgspec.structs.replace(configuration, instances=instances)


def _tracked(configuration: VrrpConfiguration) -> Iterator[tuple[str, str]]:
    """(track_group, interface) of every item that has one and is tracked."""
    usual = configuration.settings.default_interface
    for address in configuration.static_addresses:
        if address.track_group and not address.no_track:
            yield address.track_group, address.interface or usual
    for route in configuration.static_routes:
        if route.track_group and not route.no_track and route.interface:
            yield route.track_group, route.interface
    for rule in configuration.static_rules:
        if rule.track_group and not rule.no_track and rule.input_interface:
            yield rule.track_group, rule.input_interface
