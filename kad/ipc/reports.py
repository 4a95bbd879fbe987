"""What a child tells about itself: the bodies of StatusReport. Instants are CLOCK_MONOTONIC microseconds."""

from msgspec import Struct


class VirtualAddressReport(Struct, frozen=True, omit_defaults=True):
    """One configured virtual address. ``text`` reads as the configuration would write it."""

    address: str
    prefix_length: int
    interface: str
    excluded: bool = False
    present: bool = False
    """In the kernel by this instance's doing or knowledge."""


class ObjectReport(Struct, frozen=True, omit_defaults=True):
    """One route, rule or static address, in words."""

    text: str
    present: bool = False
    """In the kernel by our doing or knowledge."""


class InstanceReport(Struct, frozen=True, omit_defaults=True):
    """One VRRP instance at this moment."""

    name: str
    state: str
    """INIT, BACKUP, MASTER or FAULT."""
    since_us: int
    """When it entered this state, over crashes too."""
    priority: int
    effective_priority: int
    interface: str
    family: int
    version: int
    virtual_router_id: int
    wanted_state: str
    advert_int_us: int
    master_adver_us: int
    """The present master's interval, learnt in version 3."""
    source_address: str = ""
    master_address: str = ""
    """Empty while it is this router, or none was heard."""
    master_priority: int = 0
    heard_priority: int = 0
    """Of the last other master it gave way to, kept while it is MASTER itself."""
    reason: str = ""
    """Why it entered this state, in words."""
    fault: str = ""
    """What is in the way, in FAULT."""
    error: str = ""
    """What the kernel would not do for it, though it runs: the packet filter, routes, excluded addresses."""
    vips_set: bool = False
    addresses: tuple[VirtualAddressReport, ...] = ()
    routes: tuple[ObjectReport, ...] = ()
    """Virtual routes and rules."""
    owed_notifications: int = 0
    timer_us: int = 0
    """When the next advert, or the end of the master's time, is due; 0: nothing is."""
    master_down_us: int = 0
    """The master-down interval."""
    weight: int = 0
    """What it follows adds to its priority."""
    awaiting: bool = False
    """Something it follows has not answered yet."""
    counters: dict[str, int] = {}
    """keepalived's names and order."""
    drops: dict[str, int] = {}
    """Packets not believed, by reason."""


class GroupReport(Struct, frozen=True, omit_defaults=True):
    """One sync group."""

    name: str
    state: str
    members: tuple[str, ...] = ()
    faulty: int = 0
    """Members that something is in the way of."""
    awaiting: int = 0
    """Members that follow something which has not answered yet."""


class ScriptReport(Struct, frozen=True, omit_defaults=True):
    """One tracked script."""

    name: str
    up: bool
    answered: bool = False
    """False: it has not run yet."""
    result: int = 0
    """0 to rise + fall - 1; good from rise up."""
    status: int = 0
    """What it last ended with."""
    phase: str = "idle"
    """idle, running, requested termination or forcing termination."""


class FileReport(Struct, frozen=True, omit_defaults=True):
    """One tracked file."""

    name: str
    value: int = 0


class ProcessTrackerReport(Struct, frozen=True, omit_defaults=True):
    """One tracked process."""

    name: str
    up: bool
    """It has its quorum."""
    count: int | None = None
    """None: not counted yet."""
    delayed: bool = False
    """The count says otherwise, and has to last."""


class BfdTrackerReport(Struct, frozen=True, omit_defaults=True):
    """One BFD session that is followed."""

    name: str
    up: bool | None = None
    """None: nothing was heard yet."""


class Cause(Struct, frozen=True):
    """One transition and why. ``at_us`` is CLOCK_MONOTONIC."""

    at_us: int
    instance: str
    old: str
    new: str
    reason: str
    priority: int


class ProcessReport(Struct, frozen=True, omit_defaults=True):
    """How a child's own process is doing."""

    deadlines: int = 0
    """Times the core's deadline came."""
    late: dict[str, int] = {}
    """How often its loop came later than so many microseconds."""
    worst_late_us: int = 0
    counters: dict[str, int] = {}
    """What its shells count, by name."""
    causes: tuple[Cause, ...] = ()
    """The last transitions, oldest first."""


class VrrpReport(Struct, frozen=True, omit_defaults=True):
    """The VRRP child. ``drops`` counts packets that belong to no instance."""

    generation: int
    instances: tuple[InstanceReport, ...] = ()
    statics: tuple[ObjectReport, ...] = ()
    drops: dict[str, int] = {}
    process: ProcessReport | None = None
    groups: tuple[GroupReport, ...] = ()
    scripts: tuple[ScriptReport, ...] = ()
    files: tuple[FileReport, ...] = ()
    processes: tuple[ProcessTrackerReport, ...] = ()
    bfds: tuple[BfdTrackerReport, ...] = ()


class BfdSessionReport(Struct, frozen=True, omit_defaults=True):
    """One BFD session at this moment. Discriminators, states and diagnostics are RFC 5880's."""

    name: str
    state: str
    """ADMIN_DOWN, DOWN, INIT or UP."""
    since_us: int
    """When it entered this state, over crashes too."""
    neighbor: str
    source: str = ""
    interface: str = ""
    port: int = 0
    """Our source port."""
    multihop: bool = False
    passive: bool = False
    reason: str = ""
    """Why it entered this state, in words."""
    failure: str = ""
    """Why it has no socket, hears nothing or cannot send."""
    diagnostic: str = ""
    local_discriminator: int = 0
    remote_discriminator: int = 0
    remote_state: str = ""
    remote_diagnostic: str = ""
    remote_demand: bool = False
    detect_multiplier: int = 0
    desired_min_tx_us: int = 0
    required_min_rx_us: int = 0
    transmit_interval_us: int = 0
    """What we send at, before jitter."""
    remote_detect_multiplier: int = 0
    remote_desired_min_tx_us: int = 0
    remote_min_rx_us: int = 0
    detection_time_us: int = 0
    """Silence after which the neighbour is lost."""
    polling: bool = False
    counters: dict[str, int] = {}
    drops: dict[str, int] = {}
    """Packets not believed, by reason."""


class BfdReport(Struct, frozen=True, omit_defaults=True):
    """The BFD child. ``drops`` counts packets that belong to no session."""

    generation: int
    sessions: tuple[BfdSessionReport, ...] = ()
    drops: dict[str, int] = {}
    process: ProcessReport | None = None


class TrafficReport(Struct, frozen=True, gc=False):
    """What the kernel has counted since the service or destination was made, in 64 bits."""

    connections: int = 0
    in_packets: int = 0
    out_packets: int = 0
    in_bytes: int = 0
    out_bytes: int = 0


class DestinationReport(Struct, frozen=True, gc=False):
    """One destination of a service in the kernel, as ``ipvsadm -Ln`` shows it."""

    address: str
    port: int
    weight: int
    active: int
    """Connections that are open."""
    inactive: int
    persistent: int
    traffic: TrafficReport


class ServiceReport(Struct, frozen=True):
    """One service in the kernel. A virtual server has one for each address of its group."""

    name: str
    scheduler: str
    traffic: TrafficReport
    destinations: tuple[DestinationReport, ...] = ()


class CheckerReport(Struct, frozen=True, omit_defaults=True):
    """One checker of a real server."""

    kind: str
    """The keyword it was written with."""
    up: bool
    has_run: bool
    retries: int = 0
    detail: str = ""
    """Of the last failure."""
    runs: int = 0
    failures: int = 0


class RealServerReport(Struct, frozen=True, omit_defaults=True):
    """One real server of a virtual server."""

    name: str
    address: str
    port: int
    alive: bool
    since_us: int
    weight: int
    """What scripts and files say is in it."""
    configured_weight: int
    kernel_weight: int | None = None
    """What was last asked of IPVS; None: that it is not there."""
    refused: str = ""
    """Why IPVS did not take it."""
    active: int = 0
    """Open connections, of all the services of its virtual server."""
    inactive: int = 0
    connections: int = 0
    """Since it was put into the kernel."""
    snmp_name: str = ""
    """What the configuration labels it."""
    checkers: tuple[CheckerReport, ...] = ()


class VirtualServerReport(Struct, frozen=True, omit_defaults=True):
    """One virtual server."""

    name: str
    has_quorum: bool
    since_us: int
    quorum: int
    weight: int
    """Of all servers that are up."""
    hysteresis: int = 0
    scheduler: str = ""
    suspended: bool = False
    """ha_suspend: none of its addresses is on this node."""
    sorry_server: str = ""
    sorry_in_use: bool = False
    sorry_refused: str = ""
    """Why the kernel did not do what was last asked for it."""
    snmp_name: str = ""
    """What the configuration labels it."""
    real_servers: tuple[RealServerReport, ...] = ()
    services: tuple[ServiceReport, ...] = ()
    """What the kernel says of them; as of ``CheckReport.counted_at_us``."""


class CheckReport(Struct, frozen=True, omit_defaults=True):
    """The check child."""

    generation: int
    virtual_servers: tuple[VirtualServerReport, ...] = ()
    counters: dict[str, int] = {}
    ipvs: str = ""
    """Why nothing is programmed; empty: IPVS answers."""
    counted_at_us: int = 0
    """When the kernel's counters were read; 0: never."""
    process: ProcessReport | None = None
