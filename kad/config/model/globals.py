"""What stands outside instances and servers: global_defs and the single keywords of the file's top level.

A value of None or "" means that nothing was said; what then holds is decided where it is used (an instance's
own default, another global). Durations are microseconds.
"""

from msgspec import Struct

from kad.config.model.script import ScriptCommand

CHILD_WAIT_US = 5_000_000
"""How long children may take to stop, unless `child_wait_time` says otherwise."""


class Fifo(Struct, frozen=True):
    """A named pipe that events are written to, and whose it is."""

    path: str
    uid: int = 0
    gid: int = 0


class SmtpServer(Struct, frozen=True):
    host: str
    port: int = 25


class SyncDaemon(Struct, frozen=True, omit_defaults=True):
    """lvs_sync_daemon: the kernel's connection synchronisation."""

    interface: str
    instance: str = ""
    """Follow this VRRP instance; empty: master and backup both run."""
    sync_id: int | None = None
    """None: not said; it becomes the instance's virtual router id, else 0."""
    maximum_length: int = 0
    port: int = 8848
    ttl: int = 0
    group: str = "224.0.0.81"


class IpvsTimeouts(Struct, frozen=True, omit_defaults=True):
    """Seconds; 0 leaves the kernel's own."""

    tcp: int = 0
    tcp_fin: int = 0
    udp: int = 0


class ProcessTuning(Struct, frozen=True, omit_defaults=True):
    """Scheduling and memory of one child."""

    process_name: str = ""
    nice: int = 0
    realtime_priority: int = 0
    """SCHED_RR; 0: none."""
    realtime_limit_us: int = 10_000
    cpu_affinity: tuple[int, ...] = ()
    no_swap: bool = False


class ProcessSettings(Struct, frozen=True, omit_defaults=True):
    """What global_defs says to one process about itself."""

    tuning: ProcessTuning = ProcessTuning()
    maximum_automatic_priority: int = 0
    """Real-time priority up to which it raises itself where it is late; 0: not at all."""
    minimum_automatic_delay_us: int = 1_000_000
    """How late that is."""
    umask: int | None = None


class NetlinkBuffers(Struct, frozen=True, omit_defaults=True):
    """Receive buffers in bytes; 0: the system's."""

    command: int = 0
    command_force: bool = False
    monitor: int = 0
    monitor_force: bool = False


class Firewall(Struct, frozen=True, omit_defaults=True):
    """Names for the firewall rules that VMACs and no_accept need."""

    nftables: str = ""
    nftables_priority: int = -1
    nftables_counters: bool = False
    nftables_ifindex: bool = False
    iptables: tuple[str, ...] = ()
    ipsets: tuple[str, ...] = ()
    ipvs_nftables: str = ""
    ipvs_nftables_priority: int = -1
    ipvs_start_fwmark: int = 1000


class Snmp(Struct, frozen=True, omit_defaults=True):
    socket: str = "unix:/var/agentx/master"
    traps: bool = False
    vrrp: bool = False
    rfc2: bool = False
    rfc3: bool = False
    checker: bool = False
    virtual_server_interval_us: int = 5_000_000
    real_server_interval_us: int = 0
    """0: as virtual_server_interval_us."""


class Mail(Struct, frozen=True, omit_defaults=True):
    sender: str = ""
    """Empty: USER@HOST."""
    recipients: tuple[str, ...] = ()
    server: SmtpServer | None = None
    helo_name: str = ""
    connect_timeout_us: int = 30_000_000
    alert: bool | None = None
    alert_vrrp: bool | None = None
    alert_checker: bool | None = None
    no_faults: bool = False
    no_checker: bool = False

    @property
    def is_wanted(self) -> bool:
        """As keepalived: alerts go out only with a server and a recipient."""
        return self.server is not None and bool(self.recipients)


class Reloading(Struct, frozen=True, omit_defaults=True):
    check_config: str = ""
    """Where a test of the new configuration logs; empty: no separate test."""
    time_file: str = ""
    repeat: bool = False
    file: str = ""
    config_save_dir: str = ""
    tmp_config_directory: str = ""


class Globals(Struct, frozen=True, omit_defaults=True):
    net_namespace: str = ""
    net_namespace_ipvs: str | None = None
    """None: as net_namespace; "": the default namespace."""
    namespace_with_ipsets: bool = False
    use_pid_dir: bool = False
    instance: str = ""
    child_wait_us: int = CHILD_WAIT_US
    linkbeat_use_polling: bool = False
    process_name: str = ""
    vrrp: ProcessTuning = ProcessTuning()
    checker: ProcessTuning = ProcessTuning()
    bfd: ProcessTuning = ProcessTuning()
    maximum_automatic_priority: int = 0
    minimum_automatic_priority_delay_us: int = 1_000_000
    use_symlink_paths: bool = False
    set_supplementary_groups: bool = False
    script_user: tuple[str, ...] = ()
    enable_script_security: bool = False
    startup_script: ScriptCommand | None = None
    startup_script_timeout_us: int = 10_000_000
    shutdown_script: ScriptCommand | None = None
    shutdown_script_timeout_us: int = 10_000_000
    router_id: str = ""
    mail: Mail = Mail()
    notify_fifo: Fifo | None = None
    notify_fifo_script: ScriptCommand | None = None
    vrrp_notify_fifo: Fifo | None = None
    vrrp_notify_fifo_script: ScriptCommand | None = None
    lvs_notify_fifo: Fifo | None = None
    lvs_notify_fifo_script: ScriptCommand | None = None
    fifo_write_vrrp_states_on_reload: bool = False
    checker_log_all_failures: bool = False
    rs_init_notifies: bool = False
    lvs_timeouts: IpvsTimeouts = IpvsTimeouts()
    lvs_flush: bool = False
    lvs_flush_on_stop: str = ""
    """"" keep to what is ours, "VS" delete services only, "all" the whole table."""
    lvs_sync_daemon: SyncDaemon | None = None
    vrrp_netlink: NetlinkBuffers = NetlinkBuffers()
    lvs_netlink: NetlinkBuffers = NetlinkBuffers()
    process_monitor_buffer: int = 0
    process_monitor_buffer_force: bool = False
    disable_local_igmp: bool = False
    vmac_prefix: str = "vrrp"
    vmac_address_prefix: str = ""
    """Empty: vmac_prefix."""
    firewall: Firewall = Firewall()
    snmp: Snmp = Snmp()
    dbus: bool = False
    dbus_service_name: str = "org.keepalived.Vrrp1"
    dbus_no_interface_name: str = ""
    umask: int | None = None
    random_seed: int | None = None
    include_check: tuple[str, ...] = ()
    reloading: Reloading = Reloading()
    data_use_instance: bool = False
    json_version: int = 1
    iproute_usr_dir: str = "/usr/share/iproute2"
    iproute_etc_dir: str = "/etc/iproute2"
    state_dump_file: str = ""
    stats_dump_file: str = ""
    json_dump_file: str = ""
