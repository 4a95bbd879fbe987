"""keepalived.json, versions 1 (keepalived 2.2) and 2 (2.4), key for key.

What a configuration fixes is made once into a template; a dump then fills in what has changed since.
Passwords are masked, as keepalived does since 2.4.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from kad.config.model.track import TrackProcess
from kad.config.model.vrrp import AuthType, NotifyScripts, VirtualAddress, VrrpConfiguration, VrrpInstance
from kad.dumps.states import NUMBERS, wanted_state
from kad.dumps.wording import MASKED, address_text, command_text, interface_of, route_text, rule_text, vmac_of
from kad.ipc.reports import InstanceReport, ProcessTrackerReport, VrrpReport
from kad.units import US_PER_SECOND

_SCRIPTS = (
    ("script_backup", "backup"),
    ("script_master", "master"),
    ("script_fault", "fault"),
    ("script_stop", "stop"),
    ("script_deleted", "deleted"),
    ("script", "any_state"),
    ("script_master_rx_lower_pri", "master_rx_lower_pri"),
)
_AUTH_TYPES = {AuthType.NONE: 0, AuthType.PASS: 1, AuthType.AH: 2}
_COUNTERS = (
    "advert_rcvd",
    "advert_sent",
    "become_master",
    "release_master",
    "packet_len_err",
    "advert_interval_err",
    "ip_ttl_err",
    "invalid_type_rcvd",
    "addr_list_err",
    "invalid_authtype",
    "authtype_mismatch",
    "auth_failure",
)
_EXTENSION_COUNTERS = (
    "auth_ext_missing",
    "auth_ext_malformed",
    "auth_ext_unknown_key",
    "auth_ext_invalid_hmac",
    "auth_ext_stale",
    "auth_ext_replay",
)
_LAST_COUNTERS = ("pri_zero_rcvd", "pri_zero_sent")


def quoted(text: str) -> str:
    """A JSON string; keepalived escapes the slash too."""
    return json.dumps(text, ensure_ascii=False).replace("/", "\\/")


def number(value_us: int) -> str:
    """Microseconds as seconds, in C's %g."""
    return f"{value_us / US_PER_SECOND:g}"


class _Filled:
    """A value that is known only when a dump is made: printf's word for it."""

    def __init__(self, conversion: str) -> None:
        self.conversion = conversion


_NUMBER, _TEXT = _Filled("%d"), _Filled("%s")


def _pair(key: str, value: Any) -> str:
    match value:
        case _Filled():
            text = value.conversion
        case bool():
            text = "true" if value else "false"
        case int():
            text = str(value)
        case list():
            text = f"[{','.join(map(quoted, value))}]".replace("%", "%%")
        case _:
            text = quoted(value).replace("%", "%%")
    return f'"{key}":{text}'


class InstanceTemplate:
    """One instance's object, but for what changes."""

    def __init__(self, config: VrrpInstance, version: int) -> None:
        interface = interface_of(config)
        self._counters = (*_COUNTERS, *(_EXTENSION_COUNTERS if version == 2 else ()), *_LAST_COUNTERS)
        self._vips = _variants(config.virtual_addresses, interface)
        self._evips = _variants(config.excluded_addresses, interface)
        data = ",".join(_data_pairs(config, interface, version, bool(self._vips), bool(self._evips)))
        stats = ",".join(_pair(name, _NUMBER) for name in self._counters)
        self._template = f'{{"data":{{{data}}},"stats":{{{stats}}}}}'

    def fill(self, report: InstanceReport, realtime_ahead_us: int) -> str:
        """``realtime_ahead_us``: CLOCK_REALTIME less CLOCK_MONOTONIC."""
        present = [address.present for address in report.addresses]
        lists = []
        if self._vips:
            lists.append(_join(self._vips, present))
        if self._evips:
            lists.append(_join(self._evips, present[len(self._vips) :]))
        return self._template % (
            report.heard_priority,
            (report.since_us + realtime_ahead_us) / US_PER_SECOND,
            report.effective_priority,
            "true" if report.vips_set else "false",
            number(report.master_adver_us),
            NUMBERS[report.state],
            NUMBERS[wanted_state(report)],
            *lists,
            *(report.counters.get(name, 0) for name in self._counters),
        )


def _data_pairs(
    config: VrrpInstance, interface: str, version: int, has_vips: bool, has_evips: bool
) -> Iterable[str]:
    garp = config.garp
    yield _pair("iname", config.name)
    yield _pair("dont_track_primary", int(config.dont_track_primary))
    yield _pair("skip_check_adv_addr", int(config.skip_check_adv_addr))
    yield _pair("strict_mode", int(config.strict_mode))
    yield _pair("vmac_ifname", vmac_of(config))
    if interface:
        yield _pair("ifp_ifname", interface)
    yield _pair("master_priority", _NUMBER)
    yield _pair("last_transition", _Filled("%f"))
    yield f'"garp_delay":{number(garp.master_delay_us)}'
    yield _pair("garp_refresh", garp.master_refresh_us // US_PER_SECOND)
    yield _pair("garp_rep", garp.master_repeat)
    yield _pair("garp_refresh_rep", garp.master_refresh_repeat)
    yield _pair("garp_lower_prio_delay", garp.lower_prio_delay_us // US_PER_SECOND)
    yield _pair("garp_lower_prio_rep", garp.lower_prio_repeat)
    yield _pair("lower_prio_no_advert", int(config.lower_prio_no_advert))
    yield _pair("higher_prio_send_advert", int(config.higher_prio_send_advert))
    yield _pair("vrid", config.virtual_router_id)
    yield _pair("base_priority", config.priority)
    yield _pair("effective_priority", _NUMBER)
    yield _pair("vipset", _TEXT)
    yield _pair("promote_secondaries", config.promote_secondaries)
    yield f'"adver_int":{number(config.advert_int_us)}'
    yield _pair("master_adver_int", _TEXT)
    yield _pair("accept", int(config.accept))
    yield _pair("nopreempt", config.nopreempt)
    yield _pair("preempt_delay", config.preempt_delay_us // US_PER_SECOND)
    yield _pair("state", _NUMBER)
    yield _pair("wantstate", _NUMBER)
    yield _pair("version", config.version)
    yield _pair("smtp_alert", config.smtp_alert)
    yield _pair("notify_deleted", config.notify_deleted)
    yield from _script_pairs(config.notify)
    if has_vips:
        yield _pair("vips", _Filled("[%s]"))
    if has_evips:
        yield _pair("evips", _Filled("[%s]"))
    yield from _list_pairs(config, version)
    yield _pair("auth_type", _AUTH_TYPES[config.auth_type])
    if config.auth_type is not AuthType.NONE:
        yield _pair("auth_data", MASKED)


def _script_pairs(scripts: NotifyScripts) -> Iterable[str]:
    for key, field in _SCRIPTS:
        command = getattr(scripts, field)
        if command is not None:
            yield _pair(key, command_text(command))


def _list_pairs(config: VrrpInstance, version: int) -> Iterable[str]:
    tracking = config.tracking
    lists = [
        ("vroutes", [route_text(each) for each in config.virtual_routes]),
        ("vrules", [rule_text(each) for each in config.virtual_rules]),
        ("track_ifp", [each.name for each in tracking.interfaces]),
        ("track_script", [each.name for each in tracking.scripts]),
    ]
    if version == 2:
        lists.append(("track_process", [each.name for each in tracking.processes]))
    for key, values in lists:
        if values:
            yield _pair(key, values)


def _variants(addresses: tuple[VirtualAddress, ...], interface: str) -> list[tuple[str, str]]:
    """Each address as it reads while it is not there, and while it is."""
    texts = [address_text(address, interface) for address in addresses]
    return [(quoted(text), quoted(f"{text} set")) for text in texts]


def _join(variants: list[tuple[str, str]], present: list[bool]) -> str:
    known = [*present, *[False] * len(variants)]
    return ",".join(variant[there] for variant, there in zip(variants, known, strict=False))


class JsonDump:
    """The dump of one configuration, ready to be filled."""

    def __init__(self, configuration: VrrpConfiguration, version: int) -> None:
        self._version = version
        commands = {each.name: command_text(each.command) for each in configuration.scripts}
        self._templates = {
            each.name: InstanceTemplate(_with_commands(each, commands), version)
            for each in configuration.instances
        }
        self._processes = configuration.processes

    def text(self, report: VrrpReport, realtime_ahead_us: int) -> str:
        """The whole file; empty, and then none is written, when there are no instances."""
        objects = [
            template.fill(each, realtime_ahead_us)
            for each in report.instances
            if (template := self._templates.get(each.name)) is not None
        ]
        if not objects:
            return ""
        listed = f"[{','.join(objects)}]"
        if self._version == 1:
            return f"{listed}\n"
        found = {each.name: each for each in report.processes}
        processes = [_process_object(config, found) for config in self._processes if config.name in found]
        tail = f',"track_process":[{",".join(processes)}]' if processes else ""
        return f'{{"vrrp":{listed}{tail}}}\n'


def _with_commands(config: VrrpInstance, commands: Mapping[str, str]) -> VrrpInstance:
    """Tracked scripts are listed by what they run, not by name."""
    tracking = config.tracking
    if not tracking.scripts:
        return config
    scripts = tuple(replace(each, name=commands.get(each.name, each.name)) for each in tracking.scripts)
    return replace(config, tracking=replace(tracking, scripts=scripts))


def _process_object(config: TrackProcess, found: Mapping[str, ProcessTrackerReport]) -> str:
    report = found[config.name]
    pairs = [_pair("process", config.name)]
    if config.parameters:
        pairs.append(_pair("parameters", " ".join(config.parameters)))
    pairs.append(_pair("param_match", config.param_match or "none"))
    pairs.append(_pair("min_processes", config.quorum))
    if config.quorum_max is not None:
        pairs.append(_pair("max_processes", config.quorum_max))
    pairs.append(_pair("current_processes", report.count or 0))
    pairs.append(_pair("have_quorum", report.up))
    pairs.append(_pair("weight", -config.weight if config.reverse else config.weight))
    pairs.append(f'"terminate_delay":{number(config.terminate_delay_us)}')
    pairs.append(f'"fork_delay":{number(config.fork_delay_us)}')
    pairs.append(_pair("fork_delay_timer_running", report.delayed and not report.up))
    pairs.append(_pair("terminate_delay_timer_running", report.delayed and report.up))
    pairs.append(_pair("full_command", config.full_command))
    return "{" + ",".join(pairs).replace("%%", "%") + "}"
