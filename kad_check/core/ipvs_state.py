"""What the kernel's IPVS table is to hold for each virtual server. Pure.

The engine states it; how it comes into the kernel is the business of ``ipvs_plan.py`` and ``io/ipvs.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from kad.config.model.check import (
    Forwarding,
    Protocol,
    VirtualServer,
    VirtualServerGroup,
)


class Service(Struct, frozen=True, gc=False):
    """One line of a virtual server: an address with a port, a range of addresses, or a firewall mark.

    A range stands for one service of the kernel for each of its addresses; it may be as large as a prefix.
    """

    family: int
    """4 or 6."""
    protocol: Protocol | None
    """None for a mark."""
    address: str = ""
    """The only or first address; empty for a mark."""
    last_address: str = ""
    """Of a range, inclusive; empty: ``address`` alone."""
    port: int = 0
    fwmark: int = 0
    scheduler: str = "wlc"
    scheduler_flags: tuple[int, ...] = ()
    """Of 1, 2 and 3."""
    one_packet: bool = False
    persistence_timeout: int = 0
    """Seconds; 0: not persistent."""
    persistence_granularity: str = ""
    """IPv4 netmask, or IPv6 prefix length; empty: one client address."""
    persistence_engine: str = ""


class Destination(Struct, frozen=True, gc=False):
    """One destination of every service of a pool, identified by address and port."""

    address: str
    port: int
    weight: int
    forwarding: Forwarding
    upper_threshold: int = 0
    lower_threshold: int = 0

    @property
    def family(self) -> int:
        return 6 if ":" in self.address else 4

    @property
    def key(self) -> tuple[str, int]:
        return self.address, self.port


class PoolState(Struct, frozen=True, gc=False):
    """All that one virtual server wants in the kernel at this moment."""

    name: str
    """The engine's name of the virtual server, unique, the same over reloads and restarts."""
    services: tuple[Service, ...]
    destinations: tuple[Destination, ...]


def services_of(server: VirtualServer, group: VirtualServerGroup | None) -> tuple[Service, ...]:
    """The services of a virtual server, in the order of the file; ``group`` is the one it names."""
    return tuple(_services(server, group))


def marked_services(server: VirtualServer, group: VirtualServerGroup, mark: int) -> tuple[Service, ...]:
    """The same where a mark stands for all addresses of the group: one service for each family."""
    families = (server.family,) if server.family else sorted(group.families)
    return tuple(_service(server, family, fwmark=mark) for family in families)


def _services(server: VirtualServer, group: VirtualServerGroup | None) -> Iterator[Service]:
    if group is not None:
        for entry in group.ranges:
            last = entry.last if entry.last != entry.first else ""
            yield _service(server, entry.family, address=entry.first, last_address=last, port=entry.port)
        for mark in group.fwmarks:
            yield _service(server, mark.family or server.family or 4, fwmark=mark.mark)
    elif server.fwmark is not None:
        yield _service(server, server.family or 4, fwmark=server.fwmark)
    elif server.address:
        yield _service(server, server.family, address=server.address, port=server.port)


def _service(
    server: VirtualServer,
    family: int,
    *,
    address: str = "",
    last_address: str = "",
    port: int = 0,
    fwmark: int = 0,
) -> Service:
    return Service(
        family=family,
        protocol=None if fwmark else server.protocol,
        address=address,
        last_address=last_address,
        port=port,
        fwmark=fwmark,
        scheduler=server.scheduler,
        scheduler_flags=server.scheduler_flags,
        one_packet=server.one_packet,
        persistence_timeout=server.persistence_timeout,
        persistence_granularity=server.persistence_granularity,
        persistence_engine=server.persistence_engine,
    )
