"""What the engine tells about its services. Pure."""

from __future__ import annotations

from kad.ipc.reports import CheckerReport, RealServerReport, VirtualServerReport
from kad_check.core.checker import CheckerState
from kad_check.core.pool import Pool
from kad_check.core.server import RealServerState
from kad_check.core.texts import server_name


def report_of(pool: Pool) -> VirtualServerReport:
    """The whole present state of one virtual server."""
    config = pool.config
    sorry = config.sorry_server
    return VirtualServerReport(
        name=pool.title,
        has_quorum=pool.has_quorum,
        since_us=pool.since_us,
        quorum=config.quorum,
        hysteresis=config.hysteresis,
        weight=pool.weight,
        scheduler=config.scheduler,
        suspended=pool.suspended,
        sorry_server=server_name(sorry, config) if sorry is not None else "",
        sorry_in_use=pool.sorry_in_use,
        sorry_refused=pool.sorry_refused,
        snmp_name=config.snmp_name,
        real_servers=tuple(map(_server, pool.servers.values())),
    )


def _server(server: RealServerState) -> RealServerReport:
    placed = server.placed
    return RealServerReport(
        name=server.name,
        address=server.config.address,
        port=server.config.port,
        alive=server.alive,
        since_us=server.since_us,
        weight=server.weight,
        configured_weight=server.config.weight,
        kernel_weight=placed.weight if placed is not None else None,
        refused=server.refused,
        snmp_name=server.config.snmp_name,
        checkers=tuple(map(_checker, server.checkers)),
    )


def _checker(checker: CheckerState) -> CheckerReport:
    return CheckerReport(
        kind=checker.kind,
        up=checker.is_up,
        has_run=checker.has_run,
        retries=checker.retries,
        detail=checker.detail,
        runs=checker.runs,
        failures=checker.failures,
    )
