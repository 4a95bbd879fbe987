"""Virtual servers once the whole file has been read: what is missing is filled in, what is wrong put right.

The adjustments are keepalived's, and so is their order, because one may bring about the next: a quorum is
lowered to the weights there are, and then the hysteresis to below the quorum.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from kad.config.alerts import alerts
from kad.config.grammar.endpoint import Endpoint
from kad.config.inheritance import checkers_of
from kad.config.model.check import (
    DEFAULT_PERSISTENCE_TIMEOUT,
    DEFAULT_SCHEDULER,
    CheckConfiguration,
    CheckSettings,
    FileCheck,
    Forwarding,
    ForwardingMethod,
    Protocol,
    RealServer,
    SorryServer,
    VirtualServer,
    VirtualServerGroup,
)
from kad.config.model.globals import Globals
from kad.config.model.track import TrackFile
from kad.config.schema import CLOSING, Frame, Reading
from kad.config.service_scripts import ServiceScripts
from kad.errors import ExitStatus


def configuration(reading: Reading, root: Frame) -> CheckConfiguration:
    """Everything the check child is told."""
    members: dict[str, int] = {}
    resolved: list[tuple[VirtualServer, Frame]] = []
    scripts = ServiceScripts(reading)
    for frame in root.fields.get("virtual_server", []):
        service = _Service(reading, frame)
        if not service.find_group():
            continue
        name = frame.fields.get("group", "")
        index = members.get(name, 0) if name else 0
        members[name] = index + 1
        resolved.append((service.resolve(index, scripts), frame))
    if resolved:
        scripts.finish()
    _note_twins(reading, resolved)
    servers = [server for server, _ in resolved]
    return CheckConfiguration(
        tuple(servers),
        tuple(reading.defined.get("virtual_server_group", {}).values()),
        root.fields.get("SSL"),
        _followed_files(reading, servers),
    )


def with_settings(check: CheckConfiguration, settings: Globals) -> CheckConfiguration:
    """The check child's part with what global_defs says to it.

    A configuration without services has none, unless a sync daemon follows an instance: that runs all the
    same, as with keepalived.
    """
    daemon = settings.lvs_sync_daemon
    if not check.virtual_servers and (daemon is None or not daemon.instance):
        return check
    firewall = settings.firewall
    own = CheckSettings(
        rs_init_notifies=settings.rs_init_notifies,
        notify_fifo=settings.notify_fifo,
        notify_fifo_script=settings.notify_fifo_script,
        lvs_notify_fifo=settings.lvs_notify_fifo,
        lvs_notify_fifo_script=settings.lvs_notify_fifo_script,
        router_id=settings.router_id,
        mail=settings.mail,
        timeouts=settings.lvs_timeouts,
        flush=settings.lvs_flush,
        flush_on_stop=settings.lvs_flush_on_stop,
        sync_daemon=daemon,
        net_namespace_ipvs=settings.net_namespace_ipvs,
        netlink=settings.lvs_netlink,
        nftables=firewall.ipvs_nftables,
        nftables_priority=firewall.ipvs_nftables_priority,
        start_fwmark=firewall.ipvs_start_fwmark,
    )
    return replace(check, settings=own)


def _followed_files(reading: Reading, servers: list[VirtualServer]) -> tuple[TrackFile, ...]:
    names = {
        checker.track_file
        for server in servers
        for real_server in server.real_servers
        for checker in real_server.checkers
        if isinstance(checker, FileCheck)
    }
    defined = (reading.definition("track_file", name) for name in sorted(names))
    return tuple(each for each in defined if isinstance(each, TrackFile))


def _note_twins(reading: Reading, servers: list[tuple[VirtualServer, Frame]]) -> None:
    """Two definitions of one service: the kernel knows it once, and both would steer it."""
    seen: set[str] = set()
    for server, frame in servers:
        if server.name in seen:
            reading.warning(
                "duplicate-service",
                f"virtual_server {server.name} is defined twice; both steer the same service",
                frame,
                frame.statement,
                1,
                remedy="one virtual_server with all the real servers",
                status=ExitStatus.OK,
            )
        seen.add(server.name)


_Place = tuple[str, int]
"""A real server's address and port."""


class _Service:
    """One virtual server on its way from a frame to a value."""

    def __init__(self, reading: Reading, frame: Frame) -> None:
        self.reading = reading
        self.frame = frame
        self.fields: dict[str, Any] = frame.fields
        self.group: VirtualServerGroup | None = None

    # Reports

    def _altered(
        self, code: str, what: str, field: str = "", remedy: str = "", status: int = ExitStatus.CONFIG_ERRORS
    ) -> None:
        """Said where ``field`` was given; at the end of the block when it was not."""
        given = field in self.frame.places
        statement = self.frame.places[field] if given else self.frame.statement
        message = f"virtual_server {self.frame.name}: {what}"
        word = 0 if given else CLOSING
        self.reading.warning(code, message, self.frame, statement, word, remedy=remedy, status=status)

    def _dropped(self, code: str, what: str) -> bool:
        """keepalived says no more of this than a line in the log."""
        self.reading.error(
            code,
            f"virtual_server {self.frame.name}: {what}; it is ignored",
            self.frame,
            self.frame.statement,
            0,
            status=ExitStatus.OK,
        )
        return False

    # What it serves

    def find_group(self) -> bool:
        """Finds the group it names, which may stand below it. False: it cannot serve anything."""
        name = self.fields.get("group", "")
        if not name:
            return True
        self.group = self.reading.definition("virtual_server_group", name)
        if self.group is None:
            return self._dropped("not-defined", f"there is no virtual_server_group '{name}'")
        families = self.group.families
        family = self.fields.get("family", 0)
        if family and (len(families) == 2 or (families and family not in families)):
            return self._dropped("family-mismatch", "its group has addresses of another family")
        if not family:
            if len(families) == 2:
                self.fields["family"] = 0
            elif families:
                self.fields["family"] = min(families)
            else:
                self.fields["family"] = 4
        return True

    @property
    def has_addresses(self) -> bool:
        if self.group is not None:
            return bool(self.group.ranges)
        return "fwmark" not in self.fields

    @property
    def has_marks(self) -> bool:
        return bool(self.group.fwmarks) if self.group is not None else "fwmark" in self.fields

    def _adjust_service(self) -> None:
        fields = self.fields
        if fields.get("ha_suspend") and self.has_marks:
            self._altered("ha-suspend", "ha_suspend needs an address to watch, not a mark; off", "ha_suspend")
            fields["ha_suspend"] = False
        if self.has_addresses:
            self._adjust_protocol()
        self._adjust_persistence()
        if self.has_marks and not self.has_addresses and "protocol" in fields:
            self._altered("protocol", "a mark has no protocol; it is ignored", "protocol")
            fields["protocol"] = None
        if "scheduler" not in fields:
            self._altered(
                "no-scheduler",
                f"no lvs_sched is given: {DEFAULT_SCHEDULER} is used",
                remedy=f"lvs_sched {DEFAULT_SCHEDULER}",
            )

    def _adjust_protocol(self) -> None:
        fields = self.fields
        if "protocol" not in fields:
            self._altered("no-protocol", "no protocol is given: UDP is used", remedy="protocol TCP")
            fields["protocol"] = Protocol.UDP
        if fields.get("one_packet") and fields["protocol"] != Protocol.UDP:
            self._altered("ops", "ops is for UDP only; off", "one_packet")
            fields["one_packet"] = False

    def _adjust_persistence(self) -> None:
        """A service of every port can only be one that clients stick to."""
        if self.fields.get("persistence_timeout") or not self.has_addresses:
            return
        ports = [each.port for each in self.group.ranges] if self.group else [self.fields["port"]]
        if all(ports):
            return
        self._altered(
            "no-port",
            f"without a port it must be persistent: {DEFAULT_PERSISTENCE_TIMEOUT} seconds are used",
            remedy="a port, or a persistence_timeout",
        )
        self.fields["persistence_timeout"] = DEFAULT_PERSISTENCE_TIMEOUT

    # Its servers

    def _drop_twins(self) -> list[Frame]:
        """Those that differ as they are written."""
        kept: dict[_Place, Frame] = {}
        for frame in self.fields["real_servers"]:
            place = frame.fields["address"], frame.fields["port"]
            if place in kept:
                self._report_twin(frame, "stands above already", ExitStatus.CONFIG_ERRORS)
            else:
                kept[place] = frame
        return list(kept.values())

    def _by_place(self, servers: list[Frame]) -> dict[_Place, Frame]:
        """The servers by where clients reach them, which may not be the port that was written.

        IPVS knows each place once. keepalived keeps both servers, without a word: both count for the quorum,
        and either that fails takes the only destination away.
        """
        kept: dict[_Place, Frame] = {}
        for frame in servers:
            fields = frame.fields
            port = self._port(frame, "", fields["port"], fields["forwarding"])
            place = fields["address"], port
            if place in kept:
                self._report_twin(frame, f"is reached at port {port}, as one above is", ExitStatus.OK)
            else:
                kept[place] = frame
        return kept

    def _report_twin(self, frame: Frame, what: str, status: int) -> None:
        message = f"real_server {frame.name} {what}; this one is ignored"
        self.reading.error("duplicate-server", message, frame, frame.statement, 1, status=status)

    def _adjust_forwarding(self, servers: list[Frame]) -> None:
        """A server above the first lb_kind has that of the whole block."""
        fields = self.fields
        needed = [each.fields for each in servers if "forwarding" not in each.fields]
        lacks_sorry = "sorry_server" in fields and "sorry_forwarding" not in fields
        if (needed or lacks_sorry) and "forwarding" not in fields:
            self._altered("no-method", "no lvs_method is given: NAT is used", remedy="lvs_method NAT")
            fields["forwarding"] = Forwarding()
        for each in needed:
            each["forwarding"] = fields["forwarding"]
        if lacks_sorry:
            fields["sorry_forwarding"] = fields["forwarding"]

    def _weight(self, server: Frame) -> int:
        weight = server.fields.get("weight", self.fields.get("weight", 1))
        assert isinstance(weight, int)
        return weight

    def _inhibit(self, server: Frame) -> bool:
        return bool(server.inherited("inhibit_on_failure", False))

    def _adjust_sorry_server(self, servers: list[Frame]) -> None:
        sorry = self.fields.get("sorry_server")
        for server in servers:
            if sorry != Endpoint(server.fields["address"], server.fields["port"]):
                continue
            inhibit = self._inhibit(server)
            if bool(self.fields.get("sorry_inhibit")) != inhibit:
                field = "sorry_inhibit" if "sorry_inhibit" in self.frame.places else "sorry_server"
                self._altered(
                    "sorry-inhibit",
                    "the sorry server is a real server too, but they differ in inhibiting:"
                    f" it is {'on' if inhibit else 'off'} for both",
                    field,
                )
                self.fields["sorry_inhibit"] = inhibit

    def _judge_thresholds(self, servers: Iterable[Frame]) -> None:
        """keepalived says nothing, and is refused by the kernel."""
        for frame in servers:
            upper, lower = (frame.fields.get(name, 0) for name in ("upper_threshold", "lower_threshold"))
            if lower > upper:
                self.reading.warning(
                    "thresholds",
                    f"lthreshold {lower} is above uthreshold {upper}: IPVS takes no such server",
                    frame,
                    frame.places["lower_threshold"],
                    1,
                    remedy=f"a uthreshold of {lower} or more",
                    status=ExitStatus.OK,
                )

    def _adjust_quorum(self, servers: Iterable[Frame], written: list[Frame]) -> None:
        """A quorum above what the servers can reach would never be won.

        ``written``: those that keepalived counts, and complains by.
        """
        total = sum(self._weight(server) for server in servers)
        counted = sum(self._weight(server) for server in written)
        quorum = given = self.fields.get("quorum", 1)
        if quorum > total:
            self._altered(
                "quorum",
                f"quorum {quorum} exceeds the servers' total weight: {total} is used",
                "quorum",
                status=_status(given > counted),
            )
            quorum = max(total, 1)
        hysteresis = self.fields.get("hysteresis", 0)
        if hysteresis >= quorum:
            self._altered(
                "hysteresis",
                f"hysteresis {hysteresis} is not below the quorum {quorum}: {quorum - 1} is used",
                "hysteresis",
                status=_status(hysteresis >= min(given, max(counted, 1))),
            )
            hysteresis = quorum - 1
        self.fields["quorum"] = quorum
        self.fields["hysteresis"] = hysteresis

    # Ports: only NAT can change one

    def _port(self, frame: Frame, statement_field: str, port: int, forwarding: Forwarding) -> int:
        """The port a server is reached at, said where it is not the one given."""
        if self.group is not None:
            return self._port_in_group(frame, statement_field, port, forwarding)
        marked = "fwmark" in self.fields
        service_port = 0 if marked else self.fields["port"]
        if forwarding.method is ForwardingMethod.NAT:
            return port or service_port
        if port and port != service_port:
            self._port_report(
                frame,
                statement_field,
                f"port {port} cannot be reached with {forwarding.method}: "
                + ("a mark has none" if marked else f"the service's, {service_port}, is used"),
            )
        return int(service_port)

    def _port_in_group(self, frame: Frame, statement_field: str, port: int, forwarding: Forwarding) -> int:
        assert self.group is not None
        if forwarding.method is ForwardingMethod.NAT or not port:
            return port
        if self.group.fwmarks or any(each.port != port for each in self.group.ranges):
            self._port_report(
                frame,
                statement_field,
                f"port {port} cannot be reached with {forwarding.method}: packets keep the port they have",
            )
        return port

    def _port_report(self, frame: Frame, statement_field: str, what: str) -> None:
        statement = frame.places.get(statement_field, frame.statement)
        self.reading.warning(
            "port-mismatch",
            f"virtual_server {self.frame.name}: {what}",
            frame,
            statement,
            2,
            remedy="lvs_method NAT, or the service's port",
        )

    # Values

    def _real_server(self, frame: Frame, port: int) -> RealServer:
        fields = frame.fields
        # A checker goes to the port that was written, even where clients cannot.
        examined = Endpoint(fields["address"], fields["port"] or port)
        return RealServer(
            fields["address"],
            port,
            forwarding=fields["forwarding"],
            weight=self._weight(frame),
            inhibit_on_failure=self._inhibit(frame),
            smtp_alert=alerts(self.reading, frame, "checker", default=True),
            checkers=tuple(checkers_of(self.reading, frame, examined)),
            **_given(fields, "upper_threshold", "lower_threshold", "notify_up", "notify_down", "snmp_name"),
        )

    def _sorry_server(self) -> SorryServer | None:
        sorry = self.fields.get("sorry_server")
        if sorry is None:
            return None
        forwarding = self.fields["sorry_forwarding"]
        port = self._port(self.frame, "sorry_server", sorry.port, forwarding)
        return SorryServer(
            sorry.address,
            port,
            forwarding,
            bool(self.fields.get("sorry_inhibit")),
        )

    def resolve(self, group_index: int, scripts: ServiceScripts) -> VirtualServer:
        fields = self.fields
        self._adjust_service()
        servers = self._drop_twins()
        self._adjust_forwarding(servers)
        self._adjust_sorry_server(servers)
        by_place = self._by_place(servers)
        self._adjust_quorum(by_place.values(), servers)
        self._judge_thresholds(by_place.values())
        scripts.vet(self.frame, servers)
        return VirtualServer(
            group_index=group_index,
            smtp_alert=alerts(self.reading, self.frame, "checker", default=False),
            scheduler_flags=tuple(sorted(fields.get("scheduler_flags", ()))),
            forwarding=fields.get("forwarding", Forwarding()),
            real_servers=tuple(self._real_server(frame, port) for (_, port), frame in by_place.items()),
            sorry_server=self._sorry_server(),
            **_given(fields, *_PLAIN_FIELDS),
        )


def _status(keepalived_complains: bool) -> int:
    return ExitStatus.CONFIG_ERRORS if keepalived_complains else ExitStatus.OK


def _given(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: fields[name] for name in names if name in fields}


_PLAIN_FIELDS = (
    "address",
    "port",
    "fwmark",
    "group",
    "family",
    "protocol",
    "scheduler",
    "one_packet",
    "persistence_timeout",
    "persistence_granularity",
    "persistence_engine",
    "delay_loop_us",
    "ha_suspend",
    "omega",
    "alpha",
    "quorum",
    "hysteresis",
    "quorum_up",
    "quorum_down",
    "snmp_name",
    "virtualhost",
)
