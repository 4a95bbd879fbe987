"""Packs once, for nobody, what a configuration will have the kernel asked and the network told.

A value that no message has room for is a defect of the reader that let it through. Found here, before the
commit, it refuses a reload; found afterwards it would end this process in every life.
"""

from __future__ import annotations

from collections.abc import Iterator

from kad.addresses import packed
from kad.config.model.routing import Route, Rule
from kad.config.model.vrrp import VirtualLink, VrrpConfiguration, VrrpInstance
from kad.ipc.trial import Trial, trial_of
from kad.kernel import routes, rules
from kad.kernel.links import AddressKey
from kad_vrrp.core.actions import Entry
from kad_vrrp.core.advertiser import advertised_addresses, auth_data_of
from kad_vrrp.core.descriptions import describe
from kad_vrrp.core.packet import build_payload
from kad_vrrp.core.resources import entries_of, statics_of
from kad_vrrp.io import address_requests, link_maker

Thing = Entry | VirtualLink | VrrpInstance


def trial(configuration: VrrpConfiguration) -> Trial:
    """A few at a time. Returns which cannot be packed, and why; empty: there is none."""
    return trial_of(_everything(configuration), pack, _words)


def _everything(configuration: VrrpConfiguration) -> Iterator[tuple[str, Thing]]:
    for entry in statics_of(configuration):
        yield "static", entry
    for link in configuration.virtual_links:
        yield "interface", link
    for instance in configuration.instances:
        yield instance.name, instance
        for entry in entries_of(instance):
            yield instance.name, entry


def _words(whose: str, thing: Thing) -> str:
    if isinstance(thing, VirtualLink):
        return f"{whose} {thing.name}"
    if isinstance(thing, VrrpInstance):
        return f"({whose}) the advert"
    return f"({whose}) {describe(thing)}"


def pack(thing: Thing) -> None:
    """Raises one of UNPACKABLE."""
    match thing:
        case VrrpInstance():
            _pack_advert(thing)
        case VirtualLink():
            link_maker.pack(thing)
        case Rule():
            rules.body(thing)
        case Route():
            routes.addition(thing, thing.table, _any_index)
            routes.deletion(thing, thing.table, _any_index)
        case _:
            key = AddressKey(1, packed(thing.address), thing.prefix_length)
            address_requests.addition(key, thing)


def _any_index(_name: str) -> int:
    return 1


def _pack_advert(config: VrrpInstance) -> None:
    build_payload(
        version=config.version,
        virtual_router_id=config.virtual_router_id,
        priority=config.priority,
        addresses=advertised_addresses(config),
        advert_int_us=config.advert_int_us,
        auth_type=config.auth_type,
        auth_data=auth_data_of(config),
    )
