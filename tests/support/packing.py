"""Everything of a configuration as the kernel would be asked for it, by the encoders that ask."""

from __future__ import annotations

from kad.config.model.config import Config
from kad.config.model.routing import Route, Rule
from kad.config.numbers import is_digits
from kad.kernel import ipvs, routes, rules
from kad.kernel.links import AddressKey
from kad_check.core.ipvs_plan import destination_entry, service_entries
from kad_check.core.ipvs_state import Destination, services_of
from kad_vrrp.core.actions import Entry
from kad_vrrp.core.resources import entries_of, statics_of
from kad_vrrp.io import addresses, link_maker


def pack_vrrp(config: Config) -> int:
    """How many entries were packed."""
    entries = list(statics_of(config.vrrp))
    for instance in config.vrrp.instances:
        entries += entries_of(instance)
    for entry in entries:
        pack_entry(entry)
    for link in config.vrrp.virtual_links:
        assert not link.mac or len(link_maker.mac_bytes(link.mac)) == 6
        assert not is_digits(link.group) or int(link.group) <= link_maker.LARGEST_GROUP
    return len(entries)


def pack_entry(entry: Entry) -> None:
    if isinstance(entry, Route):
        routes.addition(entry, entry.table, lambda _: 1)
        routes.deletion(entry, entry.table, lambda _: 1)
    elif isinstance(entry, Rule):
        rules.body(entry)
    else:
        key = AddressKey(1, addresses.packed(entry.address), entry.prefix_length)
        addresses.addition(key, entry)
        addresses.deletion(key, entry)


def pack_check(config: Config) -> int:
    count = 0
    groups = {group.name: group for group in config.check.groups}
    for server in config.check.virtual_servers:
        for service in services_of(server, groups.get(server.group) if server.group else None):
            ipvs.service_body(next(service_entries(service)))
            count += 1
        for each in server.real_servers:
            destination = Destination(
                each.address,
                each.port,
                each.weight,
                each.forwarding,
                each.upper_threshold,
                each.lower_threshold,
            )
            ipvs.destination_body(destination_entry(destination))
            count += 1
    return count
