"""From what the IPVS table holds to what it is to hold: the commands, in an order in which every prefix is
safe.

Safe means: a service that has a destination able to take connections before and after never is without one
in between; a destination that is not wanted is never added; what is not ours is never touched. So within a
service come first the service itself, then additions and changes of destinations that take connections (a
weight), then those that do not, then removals; and services are removed last. A process killed anywhere in
the middle plans again from what is there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterable, Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from kad.addresses import packed
from kad.config.model.check import Forwarding, ForwardingMethod, Protocol, TunnelChecksum, TunnelType
from kad.kernel.ipvs import (
    IPV4_HOST_MASK,
    IPV6_HOST_MASK,
    DestinationEntry,
    DestinationKey,
    Method,
    ServiceEntry,
    ServiceFlag,
    ServiceKey,
    Tunnel,
    TunnelFlag,
    ipv6_mask,
)
from kad.kernel.links import AF_INET, AF_INET6
from kad_check.core.ipvs_state import Destination, PoolState, Service

_PROTOCOLS = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}
_METHODS = {
    ForwardingMethod.NAT: Method.MASQUERADE,
    ForwardingMethod.DIRECT_ROUTE: Method.DIRECT_ROUTE,
    ForwardingMethod.TUNNEL: Method.TUNNEL,
}
_TUNNELS = {TunnelType.IPIP: Tunnel.IPIP, TunnelType.GUE: Tunnel.GUE, TunnelType.GRE: Tunnel.GRE}
_CHECKSUMS = {
    TunnelChecksum.NONE: TunnelFlag.NO_CHECKSUM,
    TunnelChecksum.FULL: TunnelFlag.CHECKSUM,
    TunnelChecksum.REMOTE: TunnelFlag.REMOTE_CHECKSUM,
}
_SCHEDULER_FLAGS = {1: ServiceFlag.SCHEDULER_1, 2: ServiceFlag.SCHEDULER_2, 3: ServiceFlag.SCHEDULER_3}


# From the configuration's words to the kernel's -------------------------------------------------------------


def service_entries(service: Service) -> Iterator[ServiceEntry]:
    """One entry for each address of the range."""
    flags, timeout = _flags(service), service.persistence_timeout
    mask = _netmask(service)
    engine = service.persistence_engine if timeout else ""
    for key in service_keys(service):
        yield ServiceEntry(key, service.scheduler, flags, timeout, mask, engine)


def service_keys(service: Service) -> Iterator[ServiceKey]:
    """Lazily: a prefix may be large."""
    family = AF_INET if service.family == 4 else AF_INET6
    if service.fwmark:
        yield ServiceKey(family, 0, b"", 0, service.fwmark)
        return
    assert service.protocol is not None, "a service with an address has a protocol"
    protocol = _PROTOCOLS[service.protocol]
    first = packed(service.address)
    if not service.last_address:
        yield ServiceKey(family, protocol, first, service.port)
        return
    last = int.from_bytes(packed(service.last_address), "big")
    for number in range(int.from_bytes(first, "big"), last + 1):
        yield ServiceKey(family, protocol, number.to_bytes(len(first), "big"), service.port)


def _flags(service: Service) -> int:
    flags = ServiceFlag(0)
    if service.persistence_timeout:
        flags |= ServiceFlag.PERSISTENT
    if service.one_packet:
        flags |= ServiceFlag.ONE_PACKET
    for number in service.scheduler_flags:
        flags |= _SCHEDULER_FLAGS[number]
    return int(flags)


def _netmask(service: Service) -> bytes:
    granularity = service.persistence_granularity if service.persistence_timeout else ""
    if service.family == 4:
        return packed(granularity) if granularity else IPV4_HOST_MASK
    return ipv6_mask(int(granularity)) if granularity else IPV6_HOST_MASK


def destination_entry(destination: Destination) -> DestinationEntry:
    method = _METHODS[destination.forwarding.method]
    return DestinationEntry(
        packed(destination.address),
        destination.port,
        int(method),
        destination.weight,
        destination.upper_threshold,
        destination.lower_threshold,
        *(_tunnel(destination.forwarding) if method is Method.TUNNEL else ()),
    )


def _tunnel(forwarding: Forwarding) -> tuple[int, int, int]:
    kind = _TUNNELS[forwarding.tunnel_type]
    port = forwarding.tunnel_port if kind is Tunnel.GUE else 0
    return int(kind), port, int(_CHECKSUMS[forwarding.tunnel_checksum])


def fits(key: ServiceKey, entry: DestinationEntry) -> bool:
    """Only a tunnel leads to the other family; the kernel refuses the rest."""
    same = (key.family == AF_INET) == (len(entry.address) == 4)
    return same or entry.method == Method.TUNNEL


def placed(key: ServiceKey, entry: DestinationEntry) -> DestinationEntry:
    """A pool's destination as it stands in one of its services.

    Only NAT can change a port: what is reached otherwise has the service's own, and none with a mark.
    """
    if entry.method == Method.MASQUERADE or entry.port == key.port:
        return entry
    return replace(entry, port=key.port)


def describe(key: DestinationKey) -> str:
    """A destination for people, as keepalived writes a real server."""
    return f"[{ipaddress.ip_address(key[0])}]:{key[1]}"


# What is wanted and what is there ---------------------------------------------------------------------------

Destinations = Mapping[DestinationKey, DestinationEntry]


class Pool:
    """One virtual server's services and their destinations, which are the same for all of them but for the
    ports (:func:`placed`)."""

    __slots__ = ("_direct", "destinations", "name", "services", "state")

    def __init__(self, state: PoolState) -> None:
        self.state: PoolState | None = state
        """What it was made of; None: it was changed since."""
        self.name = state.name
        self.services: tuple[ServiceEntry, ...] = tuple(
            entry for service in state.services for entry in service_entries(service)
        )
        self.destinations: dict[DestinationKey, DestinationEntry] = {}
        """By address and configured port."""
        self._direct: dict[bytes, DestinationEntry] = {}
        """Those that are not reached by NAT, by address alone."""
        for destination in state.destinations:
            self.put(destination_entry(destination))
        self.state = state

    def put(self, entry: DestinationEntry) -> None:
        self.state = None
        self.destinations[entry.key] = entry
        if entry.method != Method.MASQUERADE:
            self._direct[entry.address] = entry

    def remove(self, key: DestinationKey) -> None:
        self.state = None
        gone = self.destinations.pop(key, None)
        if gone is None or self._direct.get(gone.address) is not gone:
            return
        del self._direct[gone.address]
        for entry in self.destinations.values():
            if entry.address == gone.address and entry.method != Method.MASQUERADE:
                self._direct[entry.address] = entry

    def find(self, service: ServiceKey, at: DestinationKey) -> DestinationEntry | None:
        """What the service's destination there is to be; None: nothing of this pool's."""
        origin = self.origin(service, at)
        return None if origin is None else placed(service, origin)

    def origin(self, service: ServiceKey, at: DestinationKey) -> DestinationEntry | None:
        """Which of the pool's destinations that is."""
        entry = self.destinations.get(at)
        if entry is not None and entry.method == Method.MASQUERADE:
            return entry
        return self._direct.get(at[0]) if at[1] == service.port else None

    def placed_in(self, service: ServiceKey) -> Iterator[DestinationEntry]:
        """All of them as they stand in one service."""
        entries = self.destinations.values()
        return (placed(service, entry) for entry in entries) if self._direct else iter(entries)


class Desired:
    """All pools. Where two claim the same service, the kernel knows it once: the first one's settings hold,
    as with keepalived, and its destinations are those of both."""

    def __init__(self, pools: Iterable[PoolState] = (), before: Desired | None = None) -> None:
        """``before``: pools of it whose state is the very same are taken over."""
        known: Mapping[str, Pool] = {} if before is None else before.pools
        self.pools: dict[str, Pool] = {state.name: _pool(state, known.get(state.name)) for state in pools}
        self.services: dict[ServiceKey, ServiceEntry] = {}
        self._pool_of: dict[ServiceKey, Pool] = {}
        self._shared: dict[ServiceKey, list[Pool]] = {}
        for pool in self.pools.values():
            for entry in pool.services:
                self._claim(entry, pool)

    def _claim(self, entry: ServiceEntry, pool: Pool) -> None:
        key = entry.key
        self.services.setdefault(key, entry)
        other = self._pool_of.setdefault(key, pool)
        if other is not pool:
            self._shared.setdefault(key, [other]).append(pool)

    def pools_of(self, key: ServiceKey) -> list[Pool]:
        """Those that claim a service; none for one not wanted."""
        if self._shared and key in self._shared:
            return self._shared[key]
        pool = self._pool_of.get(key)
        return [] if pool is None else [pool]

    def destination(self, key: ServiceKey, at: DestinationKey) -> DestinationEntry | None:
        """What a service's destination is to be; None: not there."""
        found = None
        for pool in self.pools_of(key):
            entry = pool.find(key, at)
            if entry is not None and fits(key, entry):
                found = entry
        return found

    def destinations(self, key: ServiceKey) -> dict[DestinationKey, DestinationEntry]:
        """All of a service's."""
        found: dict[DestinationKey, DestinationEntry] = {}
        for pool in self.pools_of(key):
            found.update((entry.key, entry) for entry in pool.placed_in(key) if fits(key, entry))
        return found


def _pool(state: PoolState, before: Pool | None) -> Pool:
    return before if before is not None and before.state is state else Pool(state)


class ActualService:
    """One service as it is in the kernel, as far as we know."""

    __slots__ = ("destinations", "entry")

    def __init__(self, entry: ServiceEntry, destinations: Destinations | None = None) -> None:
        self.entry = entry
        self.destinations: dict[DestinationKey, DestinationEntry] = dict(destinations or {})


Actual = dict[ServiceKey, ActualService]


# The plan ---------------------------------------------------------------------------------------------------


class Change(Struct, frozen=True, gc=False):
    """Something of a service that differs: one destination, or (``destination`` None) the service itself.

    What is to be done about it is decided when it is sent (:func:`step`): by then more may have been said.
    """

    service: ServiceKey
    destination: DestinationKey | None = None

    def __str__(self) -> str:
        if self.destination is None:
            return f"service {self.service}"
        return f"{describe(self.destination)} of service {self.service}"


class PutService(Struct, frozen=True):
    entry: ServiceEntry
    new: bool


class RemoveService(Struct, frozen=True):
    key: ServiceKey


class PutDestination(Struct, frozen=True):
    service: ServiceKey
    entry: DestinationEntry
    new: bool


class RemoveDestination(Struct, frozen=True):
    service: ServiceKey
    key: DestinationKey


Step = PutService | RemoveService | PutDestination | RemoveDestination


def plan(desired: Desired, actual: Actual, owned: Container[ServiceKey]) -> Iterator[Change]:
    """Everything that differs, in order. ``owned``: services that are ours if they are there."""
    for key, entry in desired.services.items():
        there = actual.get(key)
        if there is None or there.entry != entry:
            yield Change(key)
        yield from _destinations(key, desired.destinations(key), there.destinations if there else {})
    for key in actual:
        if key not in desired.services and key in owned:
            yield Change(key)


def _destinations(key: ServiceKey, wanted: Destinations, there: Destinations) -> Iterator[Change]:
    differing = [entry for at, entry in wanted.items() if there.get(at) != entry]
    for entry in differing:
        if entry.weight:
            yield Change(key, entry.key)
    for entry in differing:
        if not entry.weight:
            yield Change(key, entry.key)
    for at in there:
        if at not in wanted:
            yield Change(key, at)


def plan_service(desired: Desired, actual: Actual, key: ServiceKey) -> Iterator[Change]:
    """The part of one service that is wanted."""
    there = actual.get(key)
    if there is None or there.entry != desired.services[key]:
        yield Change(key)
    yield from _destinations(key, desired.destinations(key), there.destinations if there else {})


def step(desired: Desired, actual: Actual, change: Change) -> Step | None:
    """The command that brings about a change, from what is known now; None when nothing is left to do."""
    key, at = change.service, change.destination
    there = actual.get(key)
    if at is None:
        wanted = desired.services.get(key)
        if wanted is None:
            return RemoveService(key) if there else None
        return None if there and there.entry == wanted else PutService(wanted, new=there is None)
    if there is None:
        return None
    entry = desired.destination(key, at)
    present = there.destinations.get(at)
    if entry is None:
        return RemoveDestination(key, at) if present else None
    return None if entry == present else PutDestination(key, entry, new=present is None)


def apply(actual: Actual, done: Step) -> None:
    """Take the command as carried out."""
    match done:
        case PutService():
            there = actual.get(done.entry.key)
            if there is None:
                actual[done.entry.key] = ActualService(done.entry)
            else:
                there.entry = done.entry
        case RemoveService():
            actual.pop(done.key, None)
        case PutDestination():
            actual[done.service].destinations[done.entry.key] = done.entry
        case RemoveDestination():
            actual[done.service].destinations.pop(done.key, None)
