"""The kernel's counters for a status report, which may not wait long for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from kad.addresses import unpacked
from kad.ipc.reports import (
    CheckReport,
    DestinationReport,
    RealServerReport,
    ServiceReport,
    TrafficReport,
    VirtualServerReport,
)
from kad.kernel.ipvs import Counters, DestinationStatus, ServiceKey
from kad.runtime.clock import monotonic_us
from kad_check.core.ipvs_plan import Pool
from kad_check.io.ipvs import Ipvs
from kad_check.io.ipvs_sweep import ServiceCount, Statistics

PATIENCE_S = 0.2
"""A report does not wait longer: it then shows what was read last. A large table takes seconds to read."""


class StatisticsReader:
    """:meth:`gather` before a report, :meth:`add_to` it then."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ipvs: Ipvs) -> None:
        self._loop = loop
        self._ipvs = ipvs
        self._waiting: list[Callable[[], None]] = []
        self._limit: asyncio.TimerHandle | None = None
        self._reading = False
        self._counted: dict[str, list[ServiceReport]] = {}
        """By the engine's names of virtual servers."""
        self._sums: dict[tuple[str, str, int], list[int]] = {}
        """Of the name, address and port of each real server: connections open, closing, ever made."""
        self._counted_at_us = 0

    def gather(self, done: Callable[[], None]) -> None:
        """Have the counters read; ``done`` is called when they are, or after :data:`PATIENCE_S`."""
        self._waiting.append(done)
        if self._limit is None:
            self._limit = self._loop.call_later(PATIENCE_S, self._end)
        if not self._reading:
            self._reading = True
            self._ipvs.ask_statistics(self._read)

    def close(self) -> None:
        if self._limit is not None:
            self._limit.cancel()

    def _read(self, statistics: Statistics) -> None:
        self._reading = False
        self._counted_at_us = monotonic_us()
        self._counted, self._sums = {}, {}
        for each in statistics:
            key = each.service.entry.key
            for pool in self._ipvs.pools_of(key):
                self._counted.setdefault(pool.name, []).append(_service(each))
                for status in each.destinations:
                    self._sum_up(pool, key, status)
        self._end()

    def _sum_up(self, pool: Pool, service: ServiceKey, status: DestinationStatus) -> None:
        origin = pool.origin(service, status.entry.key)
        if origin is not None:
            total = self._sums.setdefault((pool.name, unpacked(origin.address), origin.port), [0, 0, 0])
            total[0] += status.active
            total[1] += status.inactive
            total[2] += status.counters.connections

    def _end(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done()

    def add_to(self, report: CheckReport, names: Iterable[str]) -> CheckReport:
        """``names``: the engine's, of the report's virtual servers in the same order."""
        servers = tuple(
            self._with_services(server, name)
            for server, name in zip(report.virtual_servers, names, strict=True)
        )
        return replace(report, virtual_servers=servers, counted_at_us=self._counted_at_us)

    def _with_services(self, server: VirtualServerReport, name: str) -> VirtualServerReport:
        services = self._counted.get(name)
        if services is None:
            return server
        real_servers = tuple(self._with_sums(each, name) for each in server.real_servers)
        return replace(server, services=tuple(services), real_servers=real_servers)

    def _with_sums(self, server: RealServerReport, name: str) -> RealServerReport:
        found = self._sums.get((name, server.address, server.port))
        if found is None:
            return server
        return replace(server, active=found[0], inactive=found[1], connections=found[2])


def _service(counted: ServiceCount) -> ServiceReport:
    entry = counted.service.entry
    return ServiceReport(
        str(entry.key),
        entry.scheduler,
        _traffic(counted.service.counters),
        tuple(map(_destination, counted.destinations)),
    )


def _destination(status: DestinationStatus) -> DestinationReport:
    entry = status.entry
    return DestinationReport(
        unpacked(entry.address),
        entry.port,
        entry.weight,
        status.active,
        status.inactive,
        status.persistent,
        _traffic(status.counters),
    )


def _traffic(counters: Counters) -> TrafficReport:
    return TrafficReport(
        counters.connections,
        counters.in_packets,
        counters.out_packets,
        counters.in_bytes,
        counters.out_bytes,
    )
