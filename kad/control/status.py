"""What ``kadctl status`` shows: the process table and the children's own reports, put together."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from kad.ipc.messages import ProcessInfo, Role, StatusReport
from kad.ipc.reports import (
    BfdReport,
    CheckReport,
    InstanceReport,
    ProcessReport,
    RealServerReport,
    ServiceReport,
    VirtualServerReport,
    VrrpReport,
)


class ProcessStatus(Struct, frozen=True):
    """One process of the daemon. Instants are seconds since the epoch."""

    role: str
    pid: int
    state: str
    incarnation: int
    restarts: int
    since: float
    generation: int | None
    """What it says it runs; None: it has not said."""
    answered: bool
    """False: it did not answer within the time limit, and what is shown of it is what it last said."""
    last_exit: str = ""
    late: int = 0
    """How often its loop came more than 10 ms late to something that was due."""
    worst_late_us: int = 0


class AddressStatus(Struct, frozen=True):
    address: str
    present: bool


class InstanceStatus(Struct, frozen=True):
    """One VRRP instance."""

    name: str
    state: str
    since: float
    interface: str
    virtual_router_id: int
    priority: int
    effective_priority: int
    reason: str
    fault: str
    master_address: str
    error: str = ""
    """What the kernel would not do for it, though it runs."""
    addresses: tuple[AddressStatus, ...] = ()


class RealServerStatus(Struct, frozen=True):
    """One real server of a virtual server."""

    name: str
    alive: bool
    since: float
    weight: int
    kernel_weight: int | None
    """What was last asked of IPVS; None: that it is not there."""
    problem: str
    """Why it is down, or what IPVS refused; empty: neither."""
    active: int = 0
    """Open connections through IPVS."""
    inactive: int = 0
    connections: int = 0
    """Ever since IPVS has it."""
    snmp_name: str = ""


class VirtualServerStatus(Struct, frozen=True):
    """One virtual server."""

    name: str
    has_quorum: bool
    since: float
    quorum: int
    weight: int
    scheduler: str
    suspended: bool
    sorry_server: str
    sorry_in_use: bool
    sorry_problem: str = ""
    """What IPVS refused; empty: nothing."""
    real_servers: tuple[RealServerStatus, ...] = ()
    services: tuple[ServiceReport, ...] = ()
    """What the kernel has counted, in its own terms: as ``ipvsadm -Ln --stats``."""
    snmp_name: str = ""


class BfdSessionStatus(Struct, frozen=True):
    """One BFD session; everything else about it is in the report. Times are microseconds."""

    name: str
    state: str
    since: float
    neighbor: str
    transmit_interval_us: int
    detection_time_us: int
    """0 while it is not up."""
    dropped: int
    """Packets not believed."""
    reason: str
    """Why it entered this state, or why it has no socket."""


class ObjectStatus(Struct, frozen=True):
    """One route or rule, or static address."""

    owner: str
    """An instance; empty: it is static."""
    text: str
    present: bool
    wanted: bool
    """It should be there now."""


class LastReload(Struct, frozen=True):
    at: float
    accepted: bool
    text: str


class DaemonStatus(Struct, frozen=True):
    """The whole daemon, as control knows it."""

    version: str
    supervisor_pid: int
    run_directory: str
    config_file: str
    generation: int
    applied_everywhere: bool
    file_is_what_runs: bool | None
    """None: could not be told in time."""
    file_note: str
    """Why the file on disk is not what runs, or cannot be told."""
    transaction: str
    """IDLE, or what a reload is at: LOADING, PREPARING, COMMITTING, APPLYING."""
    last_reload: LastReload | None
    processes: tuple[ProcessStatus, ...]
    instances: tuple[InstanceStatus, ...]
    reports: dict[str, Any]
    """Each child's own report, whole."""
    dropped: dict[str, int]
    """Messages control threw away, by reason."""
    virtual_servers: tuple[VirtualServerStatus, ...] = ()
    ipvs: str = ""
    """Why the kernel holds none of them; empty: it does, or there are none."""
    bfd_sessions: tuple[BfdSessionStatus, ...] = ()
    objects: tuple[ObjectStatus, ...] = ()
    """Static addresses, routes and rules, then those of the instances."""


_vrrp_decoder = msgspec.msgpack.Decoder(VrrpReport)
_bfd_decoder = msgspec.msgpack.Decoder(BfdReport)
_check_decoder = msgspec.msgpack.Decoder(CheckReport)


class Clocks(Struct, frozen=True):
    """Both clocks at one moment: children speak of CLOCK_MONOTONIC, people of the day."""

    monotonic_us: int
    realtime_us: int

    def epoch(self, monotonic_us: int) -> float:
        """Seconds since the epoch of an instant of CLOCK_MONOTONIC; 0 for none."""
        if not monotonic_us:
            return 0.0
        return (self.realtime_us - self.monotonic_us + monotonic_us) / 1_000_000


def instances_of(report: StatusReport | None, clocks: Clocks) -> tuple[InstanceStatus, ...]:
    """The instances in the VRRP child's report; none when there is no report or it is not one."""
    if report is None:
        return ()
    try:
        body = _vrrp_decoder.decode(report.body)
    except msgspec.MsgspecError:
        return ()
    return tuple(_instance_status(instance, clocks) for instance in body.instances)


def _instance_status(instance: InstanceReport, clocks: Clocks) -> InstanceStatus:
    return InstanceStatus(
        name=instance.name,
        state=instance.state,
        since=clocks.epoch(instance.since_us),
        interface=instance.interface,
        virtual_router_id=instance.virtual_router_id,
        priority=instance.priority,
        effective_priority=instance.effective_priority,
        reason=instance.reason,
        fault=instance.fault,
        master_address=instance.master_address,
        error=instance.error,
        addresses=tuple(
            AddressStatus(f"{virtual.address}/{virtual.prefix_length}", virtual.present)
            for virtual in instance.addresses
        ),
    )


def objects_of(report: StatusReport | None) -> tuple[ObjectStatus, ...]:
    """Routes, rules and static addresses in the VRRP child's report."""
    if report is None:
        return ()
    try:
        body = _vrrp_decoder.decode(report.body)
    except msgspec.MsgspecError:
        return ()
    found = [ObjectStatus("", each.text, each.present, True) for each in body.statics]
    for instance in body.instances:
        wanted = instance.state == "MASTER"
        found += [ObjectStatus(instance.name, each.text, each.present, wanted) for each in instance.routes]
    return tuple(found)


def services_of(report: StatusReport | None, clocks: Clocks) -> tuple[tuple[VirtualServerStatus, ...], str]:
    """The virtual servers in the check child's report, and why IPVS has none of them."""
    if report is None:
        return (), ""
    try:
        body = _check_decoder.decode(report.body)
    except msgspec.MsgspecError:
        return (), ""
    return tuple(_virtual_server_status(each, clocks) for each in body.virtual_servers), body.ipvs


def _virtual_server_status(server: VirtualServerReport, clocks: Clocks) -> VirtualServerStatus:
    return VirtualServerStatus(
        name=server.name,
        has_quorum=server.has_quorum,
        since=clocks.epoch(server.since_us),
        quorum=server.quorum,
        weight=server.weight,
        scheduler=server.scheduler,
        suspended=server.suspended,
        sorry_server=server.sorry_server,
        sorry_in_use=server.sorry_in_use,
        sorry_problem=f"IPVS: {server.sorry_refused}" if server.sorry_refused else "",
        real_servers=tuple(_real_server_status(each, clocks) for each in server.real_servers),
        services=server.services,
        snmp_name=server.snmp_name,
    )


def _real_server_status(server: RealServerReport, clocks: Clocks) -> RealServerStatus:
    failing = [f"{each.kind}: {each.detail}" for each in server.checkers if not each.up and each.detail]
    refused = [f"IPVS: {server.refused}"] if server.refused else []
    return RealServerStatus(
        name=server.name,
        alive=server.alive,
        since=clocks.epoch(server.since_us),
        weight=server.weight,
        kernel_weight=server.kernel_weight,
        problem="; ".join(failing + refused),
        active=server.active,
        inactive=server.inactive,
        connections=server.connections,
        snmp_name=server.snmp_name,
    )


def sessions_of(report: StatusReport | None, clocks: Clocks) -> tuple[BfdSessionStatus, ...]:
    """The sessions in the BFD child's report; none when there is no report or it is not one."""
    if report is None:
        return ()
    try:
        body = _bfd_decoder.decode(report.body)
    except msgspec.MsgspecError:
        return ()
    return tuple(
        BfdSessionStatus(
            name=session.name,
            state=session.state,
            since=clocks.epoch(session.since_us),
            neighbor=session.neighbor,
            transmit_interval_us=session.transmit_interval_us,
            detection_time_us=session.detection_time_us if session.state == "UP" else 0,
            dropped=sum(session.drops.values()),
            reason=session.failure or session.reason,
        )
        for session in body.sessions
    )


class _AnyReport(Struct, frozen=True):
    """What every child's report has."""

    process: ProcessReport | None = None


_any_decoder = msgspec.msgpack.Decoder(_AnyReport)
_LATE = "10000"
"""Microseconds: less goes unnoticed by every protocol's timers."""


def lateness_of(report: StatusReport | None) -> tuple[int, int]:
    """How often a child's loop came late, and the worst in microseconds; zeros where it does not say."""
    if report is None:
        return 0, 0
    try:
        process = _any_decoder.decode(report.body).process
    except msgspec.MsgspecError:
        return 0, 0
    return (process.late.get(_LATE, 0), process.worst_late_us) if process is not None else (0, 0)


def process_status(
    info: ProcessInfo,
    *,
    generation: int | None,
    answered: bool,
    clocks: Clocks,
    lateness: tuple[int, int] = (0, 0),
) -> ProcessStatus:
    return ProcessStatus(
        role=info.role.value,
        pid=info.pid,
        state=info.state,
        incarnation=info.incarnation,
        restarts=info.restarts,
        since=clocks.epoch(info.since_us),
        generation=generation,
        answered=answered,
        last_exit=info.last_exit,
        late=lateness[0],
        worst_late_us=lateness[1],
    )


class StatusRound:
    """One asking round: every child that runs is asked once; those who wait share the answer."""

    def __init__(self, number: int, waited_for: set[Role]) -> None:
        self.number = number
        self.askers: list[tuple[bytes, str]] = []
        """Who is to be answered: the peer and its request."""
        self.answered: set[Role] = set()
        self._waited_for = waited_for
        self.file_looked_at = False

    @property
    def is_complete(self) -> bool:
        return self.file_looked_at and self._waited_for <= self.answered

    def take(self, report: StatusReport) -> None:
        """A report; one that answers an earlier round is news too, but not this round's answer."""
        if report.request == self.number:
            self.answered.add(report.role)


class Reports:
    """The last report of each child's present life."""

    def __init__(self) -> None:
        self._reports: dict[Role, StatusReport] = {}
        self.stale = 0

    def take(self, report: StatusReport) -> bool:
        """False (counted): older than what is known."""
        known = self._reports.get(report.role)
        if known is not None:
            newer = (report.incarnation, report.sequence) > (known.incarnation, known.sequence)
            if not newer:
                self.stale += 1
                return False
        self._reports[report.role] = report
        return True

    def forget(self, role: Role) -> None:
        """It has ended, and nobody is to come after it."""
        self._reports.pop(role, None)

    def of(self, role: Role) -> StatusReport | None:
        return self._reports.get(role)

    def bodies(self) -> dict[str, Any]:
        """Each report as plain data, for whoever does not know its type."""
        return {role.value: _plain(report.body) for role, report in self._reports.items()}


def _plain(body: bytes) -> Any:
    try:
        return msgspec.msgpack.decode(body)
    except msgspec.MsgspecError:
        return None
