"""Which services are ours, in the journal: the next life must know, also of those the file no longer names.

One record a pool, written before the first of its services is made and replaced after the last one that
went has gone. Ranges are kept as ranges. The keys begin with :data:`PREFIX`; other records of the role are
not ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Protocol

import msgspec

from kad.kernel.ipvs import Daemon, ServiceKey, Timeouts
from kad_check.core.ipvs_plan import service_keys
from kad_check.core.ipvs_state import PoolState, Service

PREFIX = "ipvs "
_GENERAL = PREFIX + "general"


class General(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is not about one pool. That there is such a record says that this is not the daemon's start."""

    timeouts_before: Timeouts | None = None
    """The kernel's own, while ours are set."""
    daemons: tuple[Daemon, ...] = ()
    """Sync daemons we started."""


class Journal(Protocol):
    """The part of :class:`kad.runtime.journal.Records` used here."""

    def write(self, key: str, value: bytes) -> bool: ...
    def delete(self, key: str) -> None: ...


_services = msgspec.msgpack.Decoder(tuple[Service, ...])
_general = msgspec.msgpack.Decoder(General)


class OwnServices:
    """``recorded``: everything the journal held when this life began."""

    def __init__(self, journal: Journal, recorded: Mapping[str, bytes]) -> None:
        self._journal = journal
        self._written: dict[str, bytes] = {}
        self._services: dict[str, tuple[Service, ...]] = {}
        self.general = General()
        self.is_first_life = _GENERAL not in recorded
        self.refused = 0
        """Records the journal had no room for."""
        for key, value in recorded.items():
            if key.startswith(PREFIX):
                self._take(key, value)

    def _take(self, key: str, value: bytes) -> None:
        try:
            if key == _GENERAL:
                self.general = _general.decode(value)
            else:
                self._services[key] = _services.decode(value)
                self._written[key] = value
        except msgspec.MsgspecError:
            # Written by a build that said it otherwise: as if it had not been there.
            self._journal.delete(key)

    def service_keys(self) -> Iterator[ServiceKey]:
        """Every service that is or may be ours."""
        for services in self._services.values():
            for service in services:
                yield from service_keys(service)

    def set_general(self, general: General) -> None:
        self.general = general
        self._write(_GENERAL, msgspec.msgpack.encode(general))

    def claim(self, pools: Iterable[PoolState]) -> None:
        """Before any of their services is made: those, and all that was ours before."""
        if _GENERAL not in self._written:
            self.set_general(self.general)
        for pool in pools:
            key, named = _key(pool.name), tuple(map(_identity, pool.services))
            before = self._services.get(key, ())
            self._put(key, tuple(dict.fromkeys((*before, *named))))

    def settle(self, pools: Iterable[PoolState]) -> None:
        """After the services that are in none of the pools have gone."""
        kept = {_key(pool.name): tuple(map(_identity, pool.services)) for pool in pools}
        for key in [key for key in self._services if key not in kept]:
            del self._services[key]
            self._written.pop(key, None)
            self._journal.delete(key)
        for key, services in kept.items():
            self._put(key, services)

    def _put(self, key: str, services: tuple[Service, ...]) -> None:
        self._services[key] = services
        self._write(key, msgspec.msgpack.encode(services))

    def _write(self, key: str, value: bytes) -> None:
        if self._written.get(key) != value:
            self._written[key] = value
            if not self._journal.write(key, value):
                self.refused += 1


def _identity(service: Service) -> Service:
    """What tells it from others, and nothing of how it is set."""
    return Service(
        service.family,
        service.protocol,
        service.address,
        service.last_address,
        service.port,
        service.fwmark,
        scheduler="",
    )


def _key(name: str) -> str:
    """Short, whatever the name."""
    return PREFIX + blake2b(name.encode(), digest_size=12).hexdigest()
