"""Which addresses, routes and rules should be there, which are, and how to get from one to the other. Pure.

Level before edge: ``plan`` compares what should be with what is. Every prefix of a plan is safe: removals
come first, so that no address is ever held under two configurations at once. Routes and rules may need the
addresses: they are added after them and removed before them, as with keepalived.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from hashlib import blake2b

import msgspec
from msgspec import Struct

from kad.config.model.routing import Route, Rule
from kad.config.model.vrrp import VirtualAddress, VrrpConfiguration, VrrpInstance
from kad_vrrp.core.actions import AddressEntry, Entry


class Holding(Enum):
    """Whose an object is that the kernel has."""

    OURS = 1
    """We added it, or may have: the journal was written before the kernel was asked."""
    FOREIGN = 2
    """It was there before us; it stays when we leave MASTER (unless with -X)."""


class Plan(Struct, frozen=True):
    """Kernel changes in order: ``remove``, then ``add``."""

    remove: tuple[Entry, ...]
    add: tuple[Entry, ...]

    def __bool__(self) -> bool:
        return bool(self.remove or self.add)


def entry_of(address: VirtualAddress, interface: str) -> AddressEntry:
    """One configured address, complete; ``interface`` is the instance's own."""
    return AddressEntry(
        interface=address.interface or interface,
        address=address.address,
        prefix_length=address.prefix_length,
        scope=address.scope,
        broadcast=address.broadcast,
        label=address.label,
        peer=address.peer,
        flags=address.flags,
        preferred_lifetime=address.preferred_lifetime,
        no_track=address.no_track,
    )


def entries_of(config: VrrpInstance) -> tuple[Entry, ...]:
    """Everything a master holds: virtual_ipaddress, virtual_ipaddress_excluded, then routes, then rules."""
    both = config.virtual_addresses + config.excluded_addresses
    addresses = dict.fromkeys(entry_of(address, config.interface) for address in both)
    return (*addresses, *dict.fromkeys(config.virtual_routes), *dict.fromkeys(config.virtual_rules))


def statics_of(configuration: VrrpConfiguration) -> tuple[Entry, ...]:
    """Every static address, route and rule."""
    usual = configuration.settings.default_interface
    addresses = dict.fromkeys(entry_of(address, usual) for address in configuration.static_addresses)
    routes, rules = configuration.static_routes, configuration.static_rules
    return (*addresses, *dict.fromkeys(routes), *dict.fromkeys(rules))


_ORDER_OF_REMOVAL = (Rule, Route, AddressEntry)


def in_order_of_removal(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Rules, routes, addresses; among themselves as they are."""
    return tuple(sorted(entries, key=lambda entry: _ORDER_OF_REMOVAL.index(type(entry))))


def plan(desired: Iterable[Entry], actual: Mapping[Entry, Holding]) -> Plan:
    """What to remove and add, in configuration order; an entry that changed in any detail is both.

    Foreign ones that are not desired stay: leaving them is what FOREIGN means.
    """
    wanted = dict.fromkeys(desired)
    return Plan(
        remove=in_order_of_removal(
            e for e, whose in actual.items() if e not in wanted and whose is Holding.OURS
        ),
        add=tuple(e for e in wanted if e not in actual),
    )


def digest(entries: tuple[Entry, ...]) -> bytes:
    """Names a list of addresses, so that a journal record can tell which list its bits are about."""
    return blake2b(msgspec.msgpack.encode(entries), digest_size=8).digest()


def to_bits(entries: tuple[Entry, ...], chosen: Iterable[Entry]) -> bytes:
    """One bit an entry, the first entry the lowest; trailing zero bytes are left off."""
    chosen = frozenset(chosen)
    number = sum(1 << i for i, entry in enumerate(entries) if entry in chosen)
    return number.to_bytes((number.bit_length() + 7) // 8, "little")


def from_bits(entries: tuple[Entry, ...], bits: bytes) -> tuple[Entry, ...]:
    """Inverse of :func:`to_bits`; bits beyond the list mean nothing."""
    number = int.from_bytes(bits, "little")
    return tuple(entry for i, entry in enumerate(entries) if number >> i & 1)
