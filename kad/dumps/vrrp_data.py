"""keepalived.data of the VRRP process, line for line where both know the same.

What kad does not have (numbers of descriptors, the queue of interfaces) is left out.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from kad.addresses import INET6
from kad.config.model.track import TrackFile, TrackProcess, TrackScript
from kad.config.model.vrrp import (
    AuthType,
    NotifyScripts,
    SyncGroup,
    TrackedItem,
    Tracking,
    VirtualAddress,
    VrrpConfiguration,
    VrrpInstance,
)
from kad.dumps.states import wanted_state
from kad.dumps.wording import MASKED, address_text, command_text, interface_of, route_text, rule_text, vmac_of
from kad.ipc.reports import InstanceReport, VrrpReport
from kad.units import US_PER_SECOND

_ADDRESS = "     "
_SCRIPTS = (
    ("Backup", "backup"),
    ("Master", "master"),
    ("Fault", "fault"),
    ("Stop", "stop"),
    ("Deleted", "deleted"),
    ("Generic", "any_state"),
    ("Master rx lower pri", "master_rx_lower_pri"),
)
DYNAMIC = "\0"
"""Stands in a template where a value goes that changes. No word of a configuration holds it."""


def moment(epoch_us: int) -> str:
    """An instant as seconds, and for people in local time."""
    seconds, microseconds = divmod(epoch_us, US_PER_SECOND)
    text = _local_time(seconds)
    return f"{seconds}.{microseconds:06d} ({text[:19]}.{microseconds:06d}{text[19:]})"


@functools.lru_cache(maxsize=64)
def _local_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds).ctime()


def on(value: bool) -> str:
    return "enabled" if value else "disabled"


def yes(value: bool) -> str:
    return "yes" if value else "no"


def true(value: bool) -> str:
    return "true" if value else "false"


class InstanceTemplate:
    """One instance's lines, with :data:`DYNAMIC` where :meth:`fill` has something to say."""

    def __init__(self, config: VrrpInstance) -> None:
        self._config = config
        interface = interface_of(config)
        self._vips = [_ADDRESS + address_text(each, interface) for each in config.virtual_addresses]
        self._evips = [_ADDRESS + address_text(each, interface) for each in config.excluded_addresses]
        self._parts = "\n".join(_instance_lines(config)).split(DYNAMIC)

    def fill(self, report: InstanceReport, realtime_ahead_us: int) -> str:
        present = [address.present for address in report.addresses]
        vips = _with_set(self._vips, present)
        evips = _with_set(self._evips, present[len(self._vips) :])
        values = [
            _state_text(report),
            wanted_state(report),
            _moments(report, realtime_ahead_us),
            report.source_address or "(none)",
            str(report.effective_priority),
            str(report.priority + report.weight),
            _master_interval(report),
        ]
        # Instances without addresses have no place for them.
        values += ["\n".join(texts) for texts in (vips, evips) if texts]
        parts = self._parts
        assert len(parts) == len(values) + 1
        return "".join(part + value for part, value in zip(parts, [*values, ""], strict=True))


def _with_set(texts: list[str], present: list[bool]) -> list[str]:
    known = [*present, *[False] * len(texts)]
    return [f"{text} set" if there else text for text, there in zip(texts, known, strict=False)]


def _state_text(report: InstanceReport) -> str:
    lines = [report.state]
    if report.state == "BACKUP":
        lines.append(f"   Master router = {report.master_address or '0.0.0.0'}")
        lines.append(f"   Master priority = {report.heard_priority}")
        if report.version == 3:
            lines.append(f"   Master advert int = {report.master_adver_us / US_PER_SECOND:.2f} sec")
    return "\n".join(lines)


def _master_interval(report: InstanceReport) -> str:
    if report.state != "BACKUP" or report.version != 3:
        return ""
    return f"   Master advert interval = {report.master_adver_us // 1000} milli-sec\n"


def _moments(report: InstanceReport, realtime_ahead_us: int) -> str:
    waits = "DISABLED" if not report.timer_us else moment(report.timer_us + realtime_ahead_us)
    return "\n".join(
        (
            f"   Number of interface and track script faults = {int(bool(report.fault))}",
            f"   Number of track scripts init = {int(report.awaiting)}",
            f"   Last transition = {moment(report.since_us + realtime_ahead_us)}",
            f"   Read timeout = {waits}",
            f"   Master down timer = {report.master_down_us} usecs",
        )
    )


def _instance_lines(config: VrrpInstance) -> Iterator[str]:
    yield f" VRRP Instance = {config.name}"
    yield f"   VRRP Version = {config.version}"
    if config.sync_group:
        yield f"   Sync group = {config.sync_group}"
    if config.family == INET6:
        yield "   Using Native IPv6"
    yield f"   State = {DYNAMIC}"
    yield from _flag_lines(config)
    yield f"   Wantstate = {DYNAMIC}"
    yield "   Number of config faults = 0"
    yield DYNAMIC
    yield from _interface_lines(config)
    yield from _timing_lines(config)
    yield from _authentication_lines(config)
    yield from _address_lines("Virtual IP", config.virtual_addresses, counted=True)
    yield from _address_lines("Virtual IP Excluded", config.excluded_addresses, counted=False)
    yield from _unicast_lines(config)
    if config.virtual_routes:
        yield "   Virtual Routes :"
        yield from (_ADDRESS + route_text(each) for each in config.virtual_routes)
    if config.virtual_rules:
        yield "   Virtual Rules :"
        yield from (_ADDRESS + rule_text(each) for each in config.virtual_rules)
    yield from _tracking_lines(config.tracking, "Tracked processes")
    yield f"   Using smtp notification = {yes(config.smtp_alert)}"
    yield f"   Notify deleted = {'Deleted' if config.notify_deleted else 'Fault'}"
    yield from _script_lines(config.notify)
    yield f"   Notify priority changes = {true(config.notify_priority_changes)}"


def _flag_lines(config: VrrpInstance) -> Iterator[str]:
    flags = (
        config.unicast,
        config.dont_track_primary,
        config.skip_check_adv_addr,
        config.promote_secondaries,
        config.nopreempt,
        bool(config.source_address),
        config.vmac is not None,
        config.unicast_fault_no_peer,
    )
    if not any(flags):
        yield "   Flags: none"
        return
    yield "   Flags:"
    if config.unicast:
        yield "     Using unicast"
    if config.unicast_fault_no_peer:
        yield "     If unicast go to fault state if no peers"


def _interface_lines(config: VrrpInstance) -> Iterator[str]:
    vmac = vmac_of(config)
    if vmac and config.vmac is not None:
        kind = "ipvlan" if config.vmac.ipvlan else "vmac"
        base = ", xmit base i/f" if config.vmac.xmit_base else ""
        yield f"   Interface = {vmac}, {kind} on {config.interface}{base}"
    else:
        yield f"   Interface = {config.interface or 'not configured'}"
    if config.vrf:
        yield f"   VRF = {config.vrf}"
    if config.dont_track_primary:
        yield "   VRRP interface tracking disabled"
    if config.skip_check_adv_addr:
        yield "   Skip checking advert IP addresses"
    if config.strict_mode:
        yield "   Enforcing strict VRRP compliance"
    yield f"   Using src_ip = {DYNAMIC}" + (" (from configuration)" if config.source_address else "")
    if not config.unicast:
        yield f"   Multicast address {config.multicast_group}"


def _timing_lines(config: VrrpInstance) -> Iterator[str]:
    garp = config.garp
    yield f"   Gratuitous ARP delay = {garp.master_delay_us // US_PER_SECOND}"
    yield f"   Gratuitous ARP repeat = {garp.master_repeat}"
    yield f"   Gratuitous ARP refresh = {garp.master_refresh_us // US_PER_SECOND}"
    yield f"   Gratuitous ARP refresh repeat = {garp.master_refresh_repeat}"
    yield f"   Gratuitous ARP lower priority delay = {garp.lower_prio_delay_us // US_PER_SECOND}"
    yield f"   Gratuitous ARP lower priority repeat = {garp.lower_prio_repeat}"
    yield f"   Down timer adverts = {config.down_timer_adverts}"
    if garp.extra_if_us:
        where = "i/f" if garp.extra_if_all else "VMAC"
        yield f"   Gratuitous ARP for each secondary {where} = {garp.extra_if_us // US_PER_SECOND}"
    yield f"   Send advert after receive lower priority advert = {true(not config.lower_prio_no_advert)}"
    yield f"   Send advert after receive higher priority advert = {true(config.higher_prio_send_advert)}"
    yield f"   Virtual Router ID = {config.virtual_router_id}"
    yield f"   Priority = {config.priority}"
    yield f"   Effective priority = {DYNAMIC}"
    yield f"   Total priority = {DYNAMIC}"
    if config.version == 2:
        yield f"   Advert interval = {config.advert_int_us // US_PER_SECOND} sec"
    else:
        yield f"   Advert interval = {config.advert_int_us // 1000} milli-sec"
    yield f"{DYNAMIC}   Accept = {on(config.accept)}"
    yield f"   Preempt = {on(not config.nopreempt)}"
    if config.preempt_delay_us:
        yield f"   Preempt delay = {config.preempt_delay_us / US_PER_SECOND:g} secs"
    yield f"   Promote_secondaries = {on(config.promote_secondaries)}"


def _authentication_lines(config: VrrpInstance) -> Iterator[str]:
    if config.auth_type is AuthType.AH:
        yield "   Authentication type = IPSEC_AH"
    elif config.auth_type is AuthType.PASS:
        yield "   Authentication type = SIMPLE_PASSWORD"
        yield f"   Password = {MASKED}"
    elif config.version == 2:
        yield "   Authentication type = none"
    if config.kernel_rx_buf_size:
        yield f"   Kernel rx buffer size = {config.kernel_rx_buf_size}"


def _address_lines(title: str, addresses: tuple[VirtualAddress, ...], *, counted: bool) -> Iterator[str]:
    """The lines themselves change: :meth:`InstanceTemplate.fill` has them."""
    if addresses:
        yield f"   {title} ({len(addresses)}):" if counted else f"   {title} :"
        yield DYNAMIC


def _unicast_lines(config: VrrpInstance) -> Iterator[str]:
    if not config.unicast:
        return
    yield f"   Unicast TTL = {config.unicast_ttl}"
    yield f"   Check unicast src : {yes(config.check_unicast_src)}"
    yield "   Unicast Peer :"
    for peer in config.unicast_peers:
        yield f"     {peer.address} min_ttl {peer.min_ttl} max_ttl {peer.max_ttl}"
    compatible = {"": "no", "on": "config", "never": "never"}
    yield f"   Unicast checksum compatibility = {compatible.get(config.old_unicast_checksum, 'no')}"


def _tracking_lines(tracking: Tracking, processes: str) -> Iterator[str]:
    yield from _items("Tracked interfaces", tracking.interfaces, "")
    yield from _items("Tracked scripts", tracking.scripts, "")
    yield from _items("Tracked files", tracking.files, ",")
    yield from _items(processes, tracking.processes, ",")
    yield from _items("Tracked BFDs", tracking.bfds, ":")


def _items(title: str, items: tuple[TrackedItem, ...], after: str) -> Iterator[str]:
    if items:
        yield f"   {title} :"
    for item in items:
        yield f"     {item.name}{after} weight {item.weight or 0}{' reverse' if item.reverse else ''}"


def _script_lines(scripts: NotifyScripts) -> Iterator[str]:
    for label, field in _SCRIPTS:
        command = getattr(scripts, field)
        if command is not None:
            identity = f"uid:gid {command.uid}:{command.gid}"
            yield f"   {label} state transition script = {command_text(command)}, {identity}"


# Beside instances ----------------------------------------------------------------------------------------


class DataDump:
    """The VRRP part of the dump for one configuration."""

    def __init__(self, configuration: VrrpConfiguration) -> None:
        self._configuration = configuration
        self._templates = {each.name: InstanceTemplate(each) for each in configuration.instances}
        self._statics = "".join(f"{line}\n" for line in _static_lines(configuration))
        self._followers = _followers(configuration)

    def text(self, report: VrrpReport, realtime_ahead_us: int) -> str:
        parts = [self._statics]
        if self._templates:
            parts.append("------< VRRP Topology >------\n")
        for each in report.instances:
            template = self._templates.get(each.name)
            if template is not None:
                parts.append(template.fill(each, realtime_ahead_us) + "\n")
        parts += [f"{line}\n" for line in self._other_lines(report)]
        return "".join(parts)

    def _other_lines(self, report: VrrpReport) -> Iterator[str]:
        configuration = self._configuration
        if configuration.sync_groups:
            yield "------< VRRP Sync groups >------"
            groups = {each.name: each for each in report.groups}
            for group in configuration.sync_groups:
                found = groups.get(group.name)
                state, faults, inits = (
                    (found.state, found.faulty, found.awaiting) if found is not None else ("INIT", 0, 0)
                )
                yield f" VRRP Sync Group = {group.name}, {state}"
                yield f"   Num member fault {faults}, num member init {inits}"
                yield from _group_lines(group)
        yield from self._script_section(report)
        yield from self._file_section(report)
        yield from self._process_section(report)

    def _script_section(self, report: VrrpReport) -> Iterator[str]:
        found = {each.name: each for each in report.scripts}
        used = [each for each in self._configuration.scripts if each.name in found]
        if used:
            yield "------< VRRP Scripts >------"
        for script in used:
            state = found[script.name]
            yield from _script_head(script)
            yield f"   Result = {state.result}"
            yield "   Insecure = no"
            yield f"   Init state = {'unknown' if state.answered else 'INIT'}"
            yield f"   Status = {'GOOD' if state.up else 'BAD'}"
            yield f"   Script uid:gid = {script.command.uid}:{script.command.gid}"
            yield "   VRRP instances :"
            yield from self._follower_lines("scripts", script.name)
            yield f"   State = {state.phase}"

    def _file_section(self, report: VrrpReport) -> Iterator[str]:
        found = {each.name: each for each in report.files}
        used = [each for each in self._configuration.files if each.name in found]
        if used:
            yield "------< VRRP Track files >------"
        for file in used:
            yield from _file_lines(file, found[file.name].value)
            yield from self._follower_lines("files", file.name)

    def _process_section(self, report: VrrpReport) -> Iterator[str]:
        found = {each.name: each for each in report.processes}
        used = [each for each in self._configuration.processes if each.name in found]
        if used:
            yield "------< VRRP Track processes >------"
        for process in used:
            state = found[process.name]
            yield from _process_head(process)
            yield f"   Current processes = {state.count or 0}"
            yield f"   Have quorum = {true(state.up)}"
            yield f"   Weight = {process.weight}{' reverse' if process.reverse else ''}"
            yield f"   Terminate delay = {process.terminate_delay_us / US_PER_SECOND:f}s"
            yield f"   Fork delay = {process.fork_delay_us / US_PER_SECOND:f}s"
            yield f"   Fork delay timer {'' if state.delayed and not state.up else 'not '}running"
            yield f"   Terminate delay timer {'' if state.delayed and state.up else 'not '}running"
            yield f"   Full command = {true(process.full_command)}"
            yield from self._follower_lines("processes", process.name)

    def _follower_lines(self, kind: str, name: str) -> Iterator[str]:
        yield "   Tracking instances :"
        for instance, item in self._followers.get((kind, name), ()):
            yield f"     {instance}, weight {item.weight or 0}{' reverse' if item.reverse else ''}"


def _static_lines(configuration: VrrpConfiguration) -> Iterator[str]:
    if configuration.static_addresses:
        yield "------< Static Addresses >------"
        for address in configuration.static_addresses:
            yield _ADDRESS + address_text(address, configuration.settings.default_interface) + " set"
    if configuration.static_routes:
        yield "------< Static Routes >------"
        yield from (_ADDRESS + route_text(each) for each in configuration.static_routes)
    if configuration.static_rules:
        yield "------< Static Rules >------"
        yield from (_ADDRESS + rule_text(each) for each in configuration.static_rules)


def _group_lines(group: SyncGroup) -> Iterable[str]:
    yield "   VRRP member instances :"
    yield from (f"     {name}" for name in group.members)
    if group.sync_group_tracking_weight:
        yield "   sync group tracking weight set"
    yield f"   Using smtp notification = {yes(group.smtp_alert)}"
    yield from _tracking_lines(group.tracking, "Tracked process")
    yield from _script_lines(group.notify)


def _script_head(script: TrackScript) -> Iterator[str]:
    yield f" VRRP Script = {script.name}"
    yield f"   Command = {command_text(script.command)}"
    yield f"   Interval = {script.interval_us // US_PER_SECOND} sec"
    yield f"   Timeout = {script.timeout_us // US_PER_SECOND} sec"
    yield f"   Weight = {script.weight}{' reverse' if script.reverse else ''}"
    yield f"   Rise = {script.rise}"
    yield f"   Fall = {script.fall}"


def _file_lines(file: TrackFile, value: int) -> Iterator[str]:
    yield f" Track file = {file.name}"
    yield f"   File = {file.path}"
    yield f"   Status = {value}"
    yield f"   Weight = {file.weight}{' reverse' if file.reverse else ''}"


def _process_head(process: TrackProcess) -> Iterator[str]:
    yield f" VRRP Track process = {process.name}"
    yield f"   Process = {process.process}"
    if process.parameters:
        yield f"   Parameters = {' '.join(process.parameters)}"
    if process.param_match:
        kind = "" if process.param_match == "exact" else f" = {process.param_match}"
        yield f"   Param match{kind}"
    yield f"   Min processes = {process.quorum}"
    if process.quorum_max is not None:
        yield f"   Max processes = {process.quorum_max}"


def _followers(configuration: VrrpConfiguration) -> Mapping[tuple[str, str], list[tuple[str, TrackedItem]]]:
    """Who follows what: by field of Tracking and name."""
    found: dict[tuple[str, str], list[tuple[str, TrackedItem]]] = {}
    for instance in configuration.instances:
        for kind in Tracking.__struct_fields__:
            for item in getattr(instance.tracking, kind):
                found.setdefault((kind, item.name), []).append((instance.name, item))
    return found
