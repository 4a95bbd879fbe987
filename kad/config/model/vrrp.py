"""What a configuration says about VRRP, fully resolved.

Every inherited value (global default, strict_mode, family) is already applied: the VRRP core never looks at
global_defs. Defaults stand here and nowhere else; durations are microseconds.
"""

from enum import StrEnum

from msgspec import Struct

from kad.config.model.globals import Fifo, Firewall, Mail, NetlinkBuffers
from kad.config.model.routing import Route, Rule
from kad.config.model.script import ScriptCommand
from kad.config.model.track import TrackFile, TrackProcess, TrackScript

OWNER = 255
"""Priority of an address owner (RFC 9568 §5.2.4)."""
FOREVER = 0xFFFFFFFF
"""A lifetime of an address in seconds."""


class WantedState(StrEnum):
    MASTER = "MASTER"
    BACKUP = "BACKUP"


class AuthType(StrEnum):
    NONE = "NONE"
    PASS = "PASS"
    AH = "AH"


class VirtualAddress(Struct, frozen=True, omit_defaults=True):
    """One item of virtual_ipaddress, virtual_ipaddress_excluded or static_ipaddress."""

    address: str
    """Canonical text, without prefix length."""
    prefix_length: int
    interface: str = ""
    """Empty: the instance's interface."""
    scope: int = 0
    broadcast: str = ""
    """Canonical address already computed from ``+`` and ``-``; empty: none."""
    label: str = ""
    peer: str = ""
    flags: int = 0
    """IFA_F_* bits asked for: NODAD is set for IPv6 unless ``-nodad``, HOMEADDRESS, MANAGETEMPADDR,
    NOPREFIXROUTE, MCAUTOJOIN."""
    no_track: bool = False
    preferred_lifetime: int = FOREVER
    """Seconds; 0 is deprecated."""
    use_vmac: bool = False
    track_group: str = ""


class UnicastPeer(Struct, frozen=True, omit_defaults=True):
    address: str
    min_ttl: int = 0
    max_ttl: int = 255


ANNOUNCEMENTS_LIMIT = 1000
"""Of one address in one burst: keepalived would send four thousand millions, and nothing else meanwhile."""


class GarpSettings(Struct, frozen=True, omit_defaults=True):
    """Gratuitous ARP and unsolicited neighbour advertisements."""

    master_delay_us: int = 5_000_000
    """After becoming MASTER, when the second burst follows; 0: none."""
    master_repeat: int = 5
    master_refresh_us: int = 0
    """Period of further bursts while MASTER; 0: none."""
    master_refresh_repeat: int = 1
    lower_prio_delay_us: int = 5_000_000
    lower_prio_repeat: int = 5
    extra_if_us: int = 0
    """Period of announcements on interfaces of VIPs other than the instance's; 0: none."""
    extra_if_all: bool = False
    interval_us: int = 0
    """Least gap between gratuitous ARPs on one interface; 0: none."""
    gna_interval_us: int = 0


class TrackedItem(Struct, frozen=True, omit_defaults=True):
    """A line of a track_* block. ``weight`` None: the tracked object's own."""

    name: str
    weight: int | None = None
    reverse: bool = False


class Tracking(Struct, frozen=True, omit_defaults=True):
    interfaces: tuple[TrackedItem, ...] = ()
    scripts: tuple[TrackedItem, ...] = ()
    files: tuple[TrackedItem, ...] = ()
    processes: tuple[TrackedItem, ...] = ()
    bfds: tuple[TrackedItem, ...] = ()


class NotifyScripts(Struct, frozen=True, omit_defaults=True):
    master: ScriptCommand | None = None
    backup: ScriptCommand | None = None
    fault: ScriptCommand | None = None
    stop: ScriptCommand | None = None
    deleted: ScriptCommand | None = None
    any_state: ScriptCommand | None = None
    """``notify``: INSTANCE NAME STATE PRIORITY are appended."""
    master_rx_lower_pri: ScriptCommand | None = None


class HmacKey(Struct, frozen=True):
    key_id: int
    value: bytes


class AuthHmac(Struct, frozen=True, omit_defaults=True):
    keys: tuple[HmacKey, ...] = ()
    active_key: int = 0
    time_window_us: int = 5_000_000
    anti_replay: str = "time"
    mode: str = "enforce"


class Vmac(Struct, frozen=True, omit_defaults=True):
    """use_vmac or use_ipvlan. What becomes of it is a :class:`VirtualLink` of the same name."""

    ipvlan: bool = False
    name: str = ""
    """Never empty in an instance: one is chosen as keepalived does."""
    mac: str = ""
    """Of a VMAC, six octets; never empty in an instance."""
    address: str = ""
    """ipvlan's own address."""
    ipvlan_mode: str = ""
    netlink_notify_msg: bool = False
    group: str = ""
    xmit_base: bool = False


class VirtualLink(Struct, frozen=True, omit_defaults=True):
    """An interface of a virtual router's own, on top of another: a macvlan in private mode, or an ipvlan."""

    name: str
    base: str
    mac: str = ""
    """Six octets; empty: an ipvlan, which has its base's."""
    family: int = 4
    ipvlan_mode: str = "bridge"
    address: str = ""
    """ipvlan: ADDRESS[/LEN] of its own."""
    has_ipv6: bool = False
    """IPv6 is needed on it; else it is switched off."""
    link_local: bool = False
    """Adverts over IPv6 leave from it: it needs a link-local address, which is not made of its MAC (RFC 9568
    §7.4)."""
    source: str = ""
    """That address; empty: the base's, or one made of the base's MAC."""
    group: str = ""
    """Interface group, by name or number; empty: the base's."""
    netlink_notify_msg: bool = False


class VrrpInstance(Struct, frozen=True, omit_defaults=True):
    """One vrrp_instance. What identifies it across reloads is :attr:`identity`, not its name."""

    name: str
    virtual_router_id: int
    interface: str = ""
    family: int = 4
    version: int = 2
    wanted_state: WantedState = WantedState.BACKUP
    priority: int = 100
    advert_int_us: int = 1_000_000
    source_address: str = ""
    """mcast_src_ip or unicast_src_ip; empty: the first address of the interface."""
    multicast_group: str = "224.0.0.18"
    unicast: bool = False
    unicast_peers: tuple[UnicastPeer, ...] = ()
    unicast_ttl: int = 255
    check_unicast_src: bool = False
    unicast_fault_no_peer: bool = False
    old_unicast_checksum: str = ""
    """"" auto-detect, "on", "never"."""
    track_src_ip: bool = False
    dont_track_primary: bool = False
    vrf: str = ""
    virtual_addresses: tuple[VirtualAddress, ...] = ()
    excluded_addresses: tuple[VirtualAddress, ...] = ()
    no_virtual_ipaddress: bool = False
    promote_secondaries: bool = False
    v3_checksum_as_v2: bool = False
    accept: bool = True
    no_accept: bool = False
    skip_check_adv_addr: bool = False
    strict_mode: bool = False
    nopreempt: bool = False
    preempt_delay_us: int = 0
    down_timer_adverts: int = 3
    timer_expired_backup: int = 0
    """Priority compared when a late timer expires under nopreempt; 0: off."""
    lower_prio_no_advert: bool = False
    higher_prio_send_advert: bool = False
    owner_ignore_adverts: bool = False
    kernel_rx_buf_size: int = 0
    receive_buffer: int = 0
    """Bytes its socket is to have for all that share it, and so many times the interface's MTU; both 0: the
    usual."""
    receive_buffer_mtus: int = 0
    garp: GarpSettings = GarpSettings()
    auth_type: AuthType = AuthType.NONE
    auth_pass: bytes = b""
    auth_hmac: AuthHmac | None = None
    vmac: Vmac | None = None
    use_vmac_addr: bool = False
    notify: NotifyScripts = NotifyScripts()
    notify_deleted: bool = False
    notify_priority_changes: bool = False
    smtp_alert: bool = False
    tracking: Tracking = Tracking()
    virtual_routes: tuple[Route, ...] = ()
    virtual_rules: tuple[Rule, ...] = ()
    static_interfaces: tuple[str, ...] = ()
    """Interfaces of static addresses, routes and rules whose track_group it is in."""
    linkbeat_polling: bool = False
    interface_down_delay_us: int = 0
    interface_up_delay_us: int = 0
    sync_group: str = ""
    fault: str = ""
    """Why it cannot take part, whatever the machine looks like; empty: it can."""

    @property
    def transport_interface(self) -> str:
        """Where adverts leave and arrive."""
        if self.vmac is not None and not self.vmac.xmit_base:
            return self.vmac.name
        return self.interface

    @property
    def is_owner(self) -> bool:
        """Address owner, RFC 9568 §5.2.4: priority 255."""
        return self.priority == OWNER


class SyncGroup(Struct, frozen=True, omit_defaults=True):
    name: str
    members: tuple[str, ...]
    tracking: Tracking = Tracking()
    notify: NotifyScripts = NotifyScripts()
    smtp_alert: bool = False
    sync_group_tracking_weight: bool = False
    notify_priority_changes: bool = False


class VrrpSettings(Struct, frozen=True, omit_defaults=True):
    """What global_defs says to the VRRP child itself."""

    startup_delay_us: int = 0
    delay_after_boot_us: int = 0
    dynamic_interfaces: bool = False
    allow_if_changes: bool = False
    log_unknown_vrids: bool = False
    rx_bufs_policy: str = ""
    rx_bufs_multiplier: int = 3
    netlink: NetlinkBuffers = NetlinkBuffers()
    process_monitor_buffer: int = 0
    process_monitor_buffer_force: bool = False
    default_interface: str = "eth0"
    notify_fifo: Fifo | None = None
    notify_fifo_script: ScriptCommand | None = None
    """None: nobody is to read it, or the check child starts the reader."""
    vrrp_notify_fifo: Fifo | None = None
    vrrp_notify_fifo_script: ScriptCommand | None = None
    fifo_write_states_on_reload: bool = False
    router_id: str = ""
    """Empty: the host's name."""
    mail: Mail = Mail()
    firewall: Firewall = Firewall()
    disable_local_igmp: bool = False
    linkbeat_use_polling: bool = False
    """For the interfaces of all instances."""
    followed_instance: str = ""
    """The check process is told whether this one is master: its sync daemon follows it. Empty: none."""


class GarpGroup(Struct, frozen=True, omit_defaults=True):
    """garp_group: announcements of several interfaces paced together."""

    interfaces: tuple[str, ...]
    garp_interval_us: int = 0
    gna_interval_us: int = 0


class LinkbeatInterface(Struct, frozen=True, omit_defaults=True):
    name: str
    method: str = ""
    """MII, ETHTOOL or IOCTL; empty: the first of them that works."""


class TrackGroup(Struct, frozen=True):
    """track_group: instances that static items follow."""

    name: str
    members: tuple[str, ...]


class VrrpConfiguration(Struct, frozen=True, omit_defaults=True):
    """Everything the VRRP child is told. ``instances`` keep the order of the file."""

    settings: VrrpSettings = VrrpSettings()
    instances: tuple[VrrpInstance, ...] = ()
    sync_groups: tuple[SyncGroup, ...] = ()
    scripts: tuple[TrackScript, ...] = ()
    files: tuple[TrackFile, ...] = ()
    processes: tuple[TrackProcess, ...] = ()
    virtual_links: tuple[VirtualLink, ...] = ()
    garp_groups: tuple[GarpGroup, ...] = ()
    linkbeat_interfaces: tuple[LinkbeatInterface, ...] = ()
    track_groups: tuple[TrackGroup, ...] = ()
    static_addresses: tuple[VirtualAddress, ...] = ()
    static_routes: tuple[Route, ...] = ()
    static_rules: tuple[Rule, ...] = ()
