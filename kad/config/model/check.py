"""What a configuration says about virtual servers and health checks, fully resolved.

Inheritance (virtual server to real server to checker) is already applied: a checker never looks at its
server. Defaults stand here and nowhere else; durations are microseconds, addresses canonical text, and
port 0 means none.

Frozen values can be in no cycle: the garbage collector leaves them alone (``gc=False``). Looking through
those of tens of thousands of servers would stop a process for longer than everything else a reload does.
"""

from enum import StrEnum
from typing import Literal

from msgspec import Struct

from kad.config.model.globals import Fifo, IpvsTimeouts, Mail, NetlinkBuffers, SyncDaemon
from kad.config.model.script import ScriptCommand
from kad.config.model.track import TrackFile

DEFAULT_SCHEDULER = "wlc"
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "mh", "dh", "fo", "ovf", "sed", "nq", "twos")
DEFAULT_PERSISTENCE_TIMEOUT = 360
"""Seconds; also forced on a service without a port."""
DEFAULT_DELAY_LOOP_US = 60_000_000
DEFAULT_CONNECT_TIMEOUT_US = 5_000_000
DEFAULT_RETRY = 1
DEFAULT_DELAY_BEFORE_RETRY_US = 1_000_000
DEFAULT_HTTP_DELAY_BEFORE_RETRY_US = 3_000_000
DEFAULT_DNS_RETRY = 3
DEFAULT_MISC_RETRY = 0
DEFAULT_HELO_NAME = "smtpchecker.keepalived.org"
WEIGHT_LIMIT = 0x7FFFFFFF


class ForwardingMethod(StrEnum):
    NAT = "NAT"
    DIRECT_ROUTE = "DR"
    TUNNEL = "TUN"


class TunnelType(StrEnum):
    IPIP = "ipip"
    GUE = "gue"
    GRE = "gre"


class TunnelChecksum(StrEnum):
    NONE = "nocsum"
    FULL = "csum"
    REMOTE = "remcsum"


class Forwarding(Struct, frozen=True, gc=False, omit_defaults=True):
    """lvs_method with its tunnel options; the last three matter with TUNNEL only."""

    method: ForwardingMethod = ForwardingMethod.NAT
    tunnel_type: TunnelType = TunnelType.IPIP
    tunnel_port: int = 0
    """Destination port of a GUE tunnel."""
    tunnel_checksum: TunnelChecksum = TunnelChecksum.NONE


class Protocol(StrEnum):
    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"


class GroupRange(Struct, frozen=True, gc=False, tag="range"):
    """A line of a virtual_server_group: one address, N-M, or a prefix, as first and last address."""

    first: str
    last: str
    port: int = 0

    @property
    def family(self) -> int:
        return 6 if ":" in self.first else 4


class GroupFwmark(Struct, frozen=True, gc=False, tag="fwmark"):
    mark: int
    family: int = 0
    """4, 6, or 0: that of the virtual server."""


class VirtualServerGroup(Struct, frozen=True, gc=False, omit_defaults=True):
    name: str
    ranges: tuple[GroupRange, ...] = ()
    fwmarks: tuple[GroupFwmark, ...] = ()

    @property
    def families(self) -> frozenset[int]:
        """The families that some entry names."""
        return frozenset(r.family for r in self.ranges) | frozenset(
            f.family for f in self.fwmarks if f.family
        )


class SslContext(Struct, frozen=True, gc=False, omit_defaults=True):
    """The SSL block: what SSL_GET presents to a server. Servers' certificates are not verified."""

    password: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""


class Schedule(Struct, frozen=True, gc=False):
    """When a checker runs and how much failure it tolerates."""

    delay_loop_us: int = DEFAULT_DELAY_LOOP_US
    warmup_us: int = DEFAULT_DELAY_LOOP_US
    """Upper bound of the random part of the start delay."""
    retry: int = DEFAULT_RETRY
    """Failures tolerated, beyond the first, before the server is down."""
    delay_before_retry_us: int = DEFAULT_DELAY_BEFORE_RETRY_US
    alpha: bool = False
    """Down until a check has succeeded."""
    log_all_failures: bool = False


class Connection(Struct, frozen=True, gc=False, omit_defaults=True):
    """Where a checker connects to, and from where."""

    address: str
    port: int = 0
    bind_address: str = ""
    bind_port: int = 0
    bind_interface: str = ""
    timeout_us: int = DEFAULT_CONNECT_TIMEOUT_US
    """For connecting, and for each read or write after that."""
    fwmark: int = 0

    @property
    def family(self) -> int:
        return 6 if ":" in self.address else 4


class Url(Struct, frozen=True, gc=False, omit_defaults=True):
    """One request of HTTP_GET or SSL_GET and what its answer must be."""

    path: str
    digest: bytes = b""
    """MD5 of the body; empty: not checked."""
    status_codes: tuple[tuple[int, int], ...] = ((200, 299),)
    """Accepted codes, as inclusive ranges in ascending order that do not overlap."""
    virtualhost: str = ""
    """Host header; the checker's and the servers' values are already applied. Empty: address and port."""
    regex: str = ""
    regex_no_match: bool = False
    """The pattern must not match."""
    regex_options: tuple[str, ...] = ()
    regex_min_offset: int = 0
    regex_max_offset: int | None = None
    """Last body offset where a match may start; None: anywhere."""
    regex_stack: tuple[int, int] | None = None
    """Start and greatest size in bytes."""
    tls_compliant: bool = False
    """Close the TLS session with close_notify."""
    server_name: str = ""
    """SNI to send; empty: none."""
    virtualhost_is_inherited: bool = False
    """It is the real or virtual server's, not the checker's or the url's own."""


class TcpCheck(Struct, frozen=True, gc=False, tag="tcp"):
    schedule: Schedule
    connection: Connection


class HttpGet(Struct, frozen=True, gc=False, omit_defaults=True, tag="http"):
    """HTTP_GET, and SSL_GET when ``ssl``."""

    schedule: Schedule
    connection: Connection
    urls: tuple[Url, ...]
    ssl: bool = False
    protocol: Literal["1.0", "1.0C", "1.1"] = "1.0"
    """1.0C is 1.0 with ``Connection: close``."""
    fast_recovery: bool = False
    """No delay between URLs while the server is coming up."""


class SmtpCheck(Struct, frozen=True, gc=False, omit_defaults=True, tag="smtp"):
    """A ``host`` block of SMTP_CHECK has become a checker of its own."""

    schedule: Schedule
    connection: Connection
    helo_name: str = DEFAULT_HELO_NAME


class DnsCheck(Struct, frozen=True, gc=False, omit_defaults=True, tag="dns"):
    schedule: Schedule
    connection: Connection
    query_type: str = "SOA"
    name: str = "."


class UdpCheck(Struct, frozen=True, gc=False, omit_defaults=True, tag="udp"):
    schedule: Schedule
    connection: Connection
    payload: bytes = b""
    """Empty: 32 bytes of a text of our own choice."""
    require_reply: bool = False
    reply: bytes = b""
    """What the reply must begin with; empty: anything."""
    reply_mask: bytes = b""
    """As long as ``reply``; a bit that is 1 is not compared. Empty: all bits are."""
    min_reply_length: int = 0
    max_reply_length: int = 255


class PingCheck(Struct, frozen=True, gc=False, tag="ping"):
    schedule: Schedule
    connection: Connection


class MiscCheck(Struct, frozen=True, gc=False, omit_defaults=True, tag="misc"):
    schedule: Schedule
    script: ScriptCommand
    timeout_us: int = 0
    """Time before SIGTERM; the virtual server's delay_loop is already applied."""
    dynamic: bool = False
    """The exit status sets the weight."""


class FileCheck(Struct, frozen=True, gc=False, omit_defaults=True, tag="file"):
    track_file: str
    weight: int | None = None
    """None: the track_file's own."""
    reverse: bool = False


class BfdCheck(Struct, frozen=True, gc=False, tag="bfd"):
    bfd_instance: str
    alpha: bool = False


Checker = TcpCheck | HttpGet | SmtpCheck | DnsCheck | UdpCheck | PingCheck | MiscCheck | FileCheck | BfdCheck


class RealServer(Struct, frozen=True, gc=False, omit_defaults=True):
    """One destination of a virtual server, identified within it by address and port."""

    address: str
    port: int = 0
    forwarding: Forwarding = Forwarding()
    weight: int = 1
    upper_threshold: int = 0
    lower_threshold: int = 0
    inhibit_on_failure: bool = False
    smtp_alert: bool = True
    notify_up: ScriptCommand | None = None
    notify_down: ScriptCommand | None = None
    snmp_name: str = ""
    checkers: tuple[Checker, ...] = ()

    @property
    def family(self) -> int:
        return 6 if ":" in self.address else 4


class SorryServer(Struct, frozen=True, gc=False, omit_defaults=True):
    """Where clients go when the quorum is lost."""

    address: str
    port: int = 0
    forwarding: Forwarding = Forwarding()
    inhibit: bool = False


class VirtualServer(Struct, frozen=True, gc=False, omit_defaults=True):
    """One virtual_server. Exactly one of ``address``, ``fwmark`` and ``group`` says what it serves."""

    address: str = ""
    port: int = 0
    fwmark: int | None = None
    group: str = ""
    group_index: int = 0
    """Which of the virtual servers of that group this is, counted from 0 in the order of the file."""
    family: int = 4
    """0: the group's entries have both."""
    protocol: Protocol | None = None
    """None for services that are firewall marks only."""
    scheduler: str = DEFAULT_SCHEDULER
    scheduler_flags: tuple[int, ...] = ()
    """Of 1, 2 and 3, ascending; sh-port and mh-port are 2, sh-fallback and mh-fallback 1."""
    one_packet: bool = False
    forwarding: Forwarding = Forwarding()
    persistence_timeout: int = 0
    """Seconds; 0: not persistent."""
    persistence_granularity: str = ""
    """IPv4 netmask, or IPv6 prefix length; empty: one client address."""
    persistence_engine: str = ""
    delay_loop_us: int = DEFAULT_DELAY_LOOP_US
    ha_suspend: bool = False
    omega: bool = False
    alpha: bool = False
    quorum: int = 1
    hysteresis: int = 0
    quorum_up: ScriptCommand | None = None
    quorum_down: ScriptCommand | None = None
    smtp_alert: bool = False
    snmp_name: str = ""
    virtualhost: str = ""
    sorry_server: SorryServer | None = None
    real_servers: tuple[RealServer, ...] = ()

    @property
    def name(self) -> str:
        """As keepalived writes it in logs and on its FIFO, and what identifies it across reloads."""
        if self.group:
            return f"[{self.group}]:{self.group_index}"
        if self.fwmark is not None:
            return f"FWM {self.fwmark}"
        return f"[{self.address}]:{protocol_name(self.protocol)}:{self.port}"


def protocol_name(protocol: Protocol | None) -> str:
    """The name of a protocol inside a server's name."""
    return protocol.value.lower() if protocol else "none"


class CheckSettings(Struct, frozen=True, gc=False, omit_defaults=True):
    """What global_defs says to the check child itself."""

    rs_init_notifies: bool = False
    """Servers that are up from the start are notified too."""
    notify_fifo: Fifo | None = None
    notify_fifo_script: ScriptCommand | None = None
    lvs_notify_fifo: Fifo | None = None
    lvs_notify_fifo_script: ScriptCommand | None = None
    router_id: str = ""
    mail: Mail = Mail()
    timeouts: IpvsTimeouts = IpvsTimeouts()
    flush: bool = False
    """Empty the whole table at start."""
    flush_on_stop: str = ""
    """Empty: what is ours; "VS": services only, "all": the whole table."""
    sync_daemon: SyncDaemon | None = None
    net_namespace_ipvs: str | None = None
    """None: the daemon's own; empty: the default one."""
    netlink: NetlinkBuffers = NetlinkBuffers()
    nftables: str = ""
    """Table that turns groups into marks; empty: a service for each address."""
    nftables_priority: int = -1
    start_fwmark: int = 1000


class CheckConfiguration(Struct, frozen=True, gc=False, omit_defaults=True):
    """Everything the check child is told about services, in the order of the file."""

    virtual_servers: tuple[VirtualServer, ...] = ()
    groups: tuple[VirtualServerGroup, ...] = ()
    ssl: SslContext | None = None
    files: tuple[TrackFile, ...] = ()
    """Those that a FILE_CHECK follows."""
    settings: CheckSettings = CheckSettings()
