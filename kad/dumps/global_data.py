"""The head of every .data dump: global_defs, in keepalived's words."""

from __future__ import annotations

import os
from collections.abc import Iterator

from kad.config.model.globals import Fifo, Globals, ProcessTuning
from kad.config.model.script import ScriptCommand
from kad.dumps.wording import command_text
from kad.units import US_PER_SECOND


def global_text(settings: Globals, umask: int) -> str:
    return "".join(f"{line}\n" for line in _lines(settings, umask))


def true(value: bool) -> str:
    return "true" if value else "false"


def _lines(settings: Globals, umask: int) -> Iterator[str]:
    yield "------< Global definitions >------"
    yield from _name_lines(settings)
    yield from _mail_lines(settings)
    yield from _reload_lines(settings)
    yield from _ipvs_lines(settings)
    for title, fifo, script in (
        ("Global", settings.notify_fifo, settings.notify_fifo_script),
        ("VRRP", settings.vrrp_notify_fifo, settings.vrrp_notify_fifo_script),
        ("LVS", settings.lvs_notify_fifo, settings.lvs_notify_fifo_script),
    ):
        yield from _fifo_lines(title, fifo, script)
    yield f" FIFO write vrrp states on reload = {true(settings.fifo_write_vrrp_states_on_reload)}"
    yield from _process_lines(settings)
    yield " SNMP vrrp disabled"
    yield " SNMP checker disabled"
    yield " SNMP RFCv2 disabled"
    yield " SNMP RFCv3 disabled"
    yield " SNMP traps disabled"
    yield " DBus disabled"
    yield f" Script security {'enabled' if settings.enable_script_security else 'disabled'}"
    yield f" rs_init_notifies = {int(settings.rs_init_notifies)}"
    yield f" no_checker_emails = {int(settings.mail.no_checker)}"
    yield f" umask = 0{umask:o}"


def _name_lines(settings: Globals) -> Iterator[str]:
    if settings.reloading.config_save_dir:
        yield f" Config save dir = {settings.reloading.config_save_dir}"
    yield f" Network namespace = {settings.net_namespace or '(default)'}"
    ipvs = settings.net_namespace_ipvs
    yield f" Network namespace ipvs = {'(main namespace)' if ipvs is None else ipvs or '(default)'}"
    for label, value in (
        ("Instance name", settings.instance),
        ("Parent process name", settings.process_name),
        ("VRRP process name", settings.vrrp.process_name),
        ("LVS process name", settings.checker.process_name),
        ("BFD process name", settings.bfd.process_name),
        ("Router ID", settings.router_id or os.uname().nodename),
    ):
        if value:
            yield f" {label} = {value}"


def _mail_lines(settings: Globals) -> Iterator[str]:
    mail = settings.mail
    if mail.server is not None:
        yield f" Smtp server = {mail.server.host}"
        yield f" Smtp server port = {mail.server.port}"
    if mail.helo_name:
        yield f" Smtp HELO name = {mail.helo_name}"
    yield f" Smtp server connection timeout = {mail.connect_timeout_us // US_PER_SECOND}"
    if mail.sender:
        yield f" Email notification from = {mail.sender}"
        yield " Email notification to:"
        yield from (f"   {each}" for each in mail.recipients)
    words = {None: "unset", True: "on", False: "off"}
    yield f" Default smtp_alert = {words[mail.alert]}"
    yield f" Default smtp_alert_vrrp = {words[mail.alert_vrrp]}"
    yield f" Default smtp_alert_checker = {words[mail.alert_checker]}"
    yield f" Checkers log all failures = {true(settings.checker_log_all_failures)}"
    if mail.no_faults:
        yield " Send emails for fault transitions = off"


def _reload_lines(settings: Globals) -> Iterator[str]:
    reloading = settings.reloading
    if reloading.check_config:
        yield f" Test config before reload, log to {reloading.check_config}"
    else:
        yield " No test config before reload"
    if reloading.time_file:
        yield f" Reload time file = {reloading.time_file}{' (repeat)' if reloading.repeat else ''}"
    if reloading.file:
        yield f" Reload_file = {reloading.file}"
    if reloading.tmp_config_directory:
        yield f" config save directory = {reloading.tmp_config_directory}"
    if settings.data_use_instance:
        yield " Use instance name in data dumps"
    for label, script, limit_us in (
        ("Startup", settings.startup_script, settings.startup_script_timeout_us),
        ("Shutdown", settings.shutdown_script, settings.shutdown_script_timeout_us),
    ):
        if script is not None:
            timeout = limit_us // US_PER_SECOND
            yield f" {label} script = {_command(script)}, timeout {timeout}"


def _ipvs_lines(settings: Globals) -> Iterator[str]:
    timeouts = settings.lvs_timeouts
    for label, value in (
        ("TCP", timeouts.tcp),
        ("TCP FIN", timeouts.tcp_fin),
        ("UDP", timeouts.udp),
    ):
        if value:
            yield f" LVS {label} timeout = {value}"
    daemon = settings.lvs_sync_daemon
    if daemon is not None:
        if daemon.instance:
            yield f" LVS syncd vrrp instance = {daemon.instance}"
        yield f" LVS syncd interface = {daemon.interface}"
        yield f" LVS syncd syncid = {daemon.sync_id or 0}"
    yield f" LVS flush = {true(settings.lvs_flush)}"
    stop = {"": "disabled", "VS": "VS"}.get(settings.lvs_flush_on_stop, "full")
    yield f" LVS flush on stop = {stop}"


def _fifo_lines(title: str, fifo: Fifo | None, script: ScriptCommand | None) -> Iterator[str]:
    if fifo is None:
        return
    yield f" {title} notify fifo = {fifo.path}, uid:gid {fifo.uid}:{fifo.gid}"
    if script is not None:
        yield f" {title} notify fifo script = {_command(script)}"


def _command(script: ScriptCommand) -> str:
    return f"{command_text(script)}, uid:gid {script.uid}:{script.gid}"


def _process_lines(settings: Globals) -> Iterator[str]:
    highest = settings.maximum_automatic_priority
    yield f" Max auto priority = {'Disabled' if highest < 0 else highest}"
    yield f" Min auto priority delay = {settings.minimum_automatic_priority_delay_us} usecs"
    for label, tuning in (
        ("VRRP", settings.vrrp),
        ("Checker", settings.checker),
        ("BFD", settings.bfd),
    ):
        yield from _tuning_lines(label, tuning)


def _tuning_lines(label: str, tuning: ProcessTuning) -> Iterator[str]:
    yield f" {label} process priority = {tuning.nice}"
    yield f" {label} don't swap = {true(tuning.no_swap)}"
    yield f" {label} realtime priority = {tuning.realtime_priority}"
    if tuning.cpu_affinity:
        yield f" {label} CPU Affinity = {', '.join(map(str, tuning.cpu_affinity))}"
    yield f" {label} realtime limit = {tuning.realtime_limit_us}"
