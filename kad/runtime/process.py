"""What a child is given at birth, and its first acts as a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from kad.ipc.messages import Generation, Role

if TYPE_CHECKING:
    from kad.runtime.journal import Journal


class Options(Struct, frozen=True):
    """The command line, parsed (kad/cli.py); what every process needs to know of it."""

    config_file: str = "/etc/keepalived/keepalived.conf"
    config_id: str = ""
    foreground: bool = False
    log_console: bool = False
    log_detail: int = 0
    log_syslog: bool = True
    log_facility: str = "daemon"
    log_file: str = ""
    dump_configuration: bool = False
    run_vrrp: bool = True
    run_check: bool = True
    run_bfd: bool = True
    run_all: bool = False
    release_vips: bool = False
    """-X: remove VIPs on the transition to BACKUP even if they were not set by us."""
    keep_vips_at_stop: bool = False
    """-V"""
    keep_ipvs_at_stop: bool = False
    """-I"""
    respawn: bool = True
    """False with -R: a child's death stops the daemon."""
    log_address_changes: bool = False
    """-a"""
    ignore_sigint: bool = False
    net_namespace: str = ""
    pid_file: str = ""
    vrrp_pid_file: str = ""
    checkers_pid_file: str = ""
    bfd_pid_file: str = ""
    run_directory: str = ""
    """--run-dir; empty: /run/kad/NAME."""
    umask: int | None = None


class ChildContext(Struct):
    """Everything a child gets from the supervisor. Built before the fork, used after it."""

    role: Role
    incarnation: int
    """Counts this role's lives from 1."""
    options: Options
    run_directory: str
    journal: Journal
    generation: Generation | None
    """The committed configuration; None only for the first control."""
    supervisor_pid: int
    control_fd: int = -1
    """control only: its end of the SOCK_SEQPACKET pair to the supervisor."""
    withdraw: bool = False
    """A one-shot child that removes what the journal says is ours, says goodbye, and exits."""
