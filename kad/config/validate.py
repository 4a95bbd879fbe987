"""What only the whole configuration tells: groups and their members, clashes of virtual routers, scripts."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from kad.config.alerts import alerts
from kad.config.assemble import assemble
from kad.config.global_scripts import vetted_globals
from kad.config.model.globals import Globals
from kad.config.model.script import ScriptCommand
from kad.config.model.vrrp import (
    GarpSettings,
    NotifyScripts,
    SyncGroup,
    TrackGroup,
    Tracking,
    VirtualLink,
    VrrpConfiguration,
    VrrpInstance,
    VrrpSettings,
)
from kad.config.needed_interfaces import unweighted_interfaces
from kad.config.receive_buffers import with_receive_buffers
from kad.config.resolve import (
    InstanceResolver,
    tracking_of,
)
from kad.config.schema import Frame, Reading
from kad.config.scripts import Vetting
from kad.config.static_tracking import with_static_interfaces
from kad.config.tree import Statement
from kad.config.virtual_links import place
from kad.errors import ExitStatus

_Notifying = TypeVar("_Notifying", VrrpInstance, SyncGroup)


def finish(reading: Reading, root: Frame) -> VrrpConfiguration:
    """What the VRRP child is told, once the whole file has been read."""
    frames: list[Frame] = root.fields.get("vrrp_instance", [])
    groups, of_instance = _groups(reading, root, frames)
    base = instance_base(reading)
    resolved: list[tuple[VrrpInstance, Frame]] = []
    for frame in frames:
        instance = InstanceResolver(reading, frame, base, of_instance.get(frame.name)).resolve()
        if instance is not None:
            resolved.append((extra_interface_period(instance), frame))
    _conflicts(reading, resolved)
    resolved, links = _placed(reading, resolved)
    sync_groups = [_sync_group(reading, frame, resolved) for frame in groups]
    configuration = VrrpConfiguration(
        settings=_settings(reading),
        instances=tuple(instance for instance, _ in resolved),
        sync_groups=tuple(sync_groups),
        virtual_links=links,
        track_groups=_track_groups(reading, root, {frame.name for frame in frames}),
        **{
            field: tuple(root.fields.get(source, ()))
            for field, source in (
                ("scripts", "vrrp_script"),
                ("files", "track_file"),
                ("processes", "vrrp_track_process"),
                ("garp_groups", "garp_group"),
                ("static_addresses", "static_addresses"),
                ("static_routes", "static_routes"),
                ("static_rules", "static_rules"),
            )
        },
        linkbeat_interfaces=tuple(
            each for block in root.fields.get("linkbeat_interfaces", ()) for each in block
        ),
    )
    configuration = with_static_interfaces(_vetted(reading, configuration, resolved, groups))
    _weigh_nothing(reading, configuration, [frame for _, frame in resolved])
    return configuration


def instance_base(reading: Reading) -> dict[str, Any]:
    """What every instance starts from: global_defs' ``instance.…`` fields."""
    known = {
        name.removeprefix("instance."): value
        for name, value in reading.globals.items()
        if name.startswith("instance.")
    }
    if reading.globals.get("minimal_garp"):
        for name, value in (("master_repeat", 1), ("master_delay_us", 0), ("master_refresh_us", 0)):
            known.setdefault(f"garp.{name}", value)
    for lower, master in (("lower_prio_delay_us", "master_delay_us"), ("lower_prio_repeat", "master_repeat")):
        if f"garp.{master}" in known:
            known.setdefault(f"garp.{lower}", known[f"garp.{master}"])
    return known


def extra_interface_period(instance: VrrpInstance) -> VrrpInstance:
    """Announcements on other interfaces only make sense where addresses are on some."""
    garp: GarpSettings = instance.garp
    if not garp.extra_if_us:
        return instance
    every = (*instance.virtual_addresses, *instance.excluded_addresses)
    others = [each for each in every if each.interface not in ("", instance.interface)]
    vmacs = instance.use_vmac_addr or any(each.use_vmac for each in every)
    if vmacs or (others and garp.extra_if_all):
        return instance
    return msgspec.structs.replace(instance, garp=msgspec.structs.replace(garp, extra_if_us=0))


def _placed(
    reading: Reading, resolved: list[tuple[VrrpInstance, Frame]]
) -> tuple[list[tuple[VrrpInstance, Frame]], tuple[VirtualLink, ...]]:
    """Instances with the interfaces of their own, and these."""
    frames = [frame for _, frame in resolved]
    prefixes = (reading.globals.get(name, "") for name in ("vmac_prefix", "vmac_address_prefix"))
    placement = place([instance for instance, _ in resolved], *prefixes)
    for index, reason in placement.clashes:
        frame = frames[index]
        text = f"({frame.name}) {reason}; the instance stays in FAULT"
        reading.error("vmac-clash", text, frame, frame.statement, 1, remedy="another virtual_router_id")
    return list(zip(placement.instances, frames, strict=True)), placement.links


def globals_of(reading: Reading, root: Frame) -> Globals:
    """The settings of the daemon as a whole."""
    own = {
        name: value
        for name, value in reading.globals.items()
        if not name.startswith(("instance.", "settings."))
    }
    return vetted_globals(reading, assemble(Globals, {**root.fields, **own}))


def with_vrrp_settings(vrrp: VrrpConfiguration, settings: Globals) -> VrrpConfiguration:
    """What the VRRP child is told of global_defs, once that is complete."""
    own = msgspec.structs.replace(
        vrrp.settings,
        notify_fifo=settings.notify_fifo,
        notify_fifo_script=settings.notify_fifo_script,
        vrrp_notify_fifo=settings.vrrp_notify_fifo,
        vrrp_notify_fifo_script=settings.vrrp_notify_fifo_script,
        fifo_write_states_on_reload=settings.fifo_write_vrrp_states_on_reload,
        firewall=settings.firewall,
        disable_local_igmp=settings.disable_local_igmp,
        linkbeat_use_polling=settings.linkbeat_use_polling,
        netlink=settings.vrrp_netlink,
        process_monitor_buffer=settings.process_monitor_buffer,
        process_monitor_buffer_force=settings.process_monitor_buffer_force,
        router_id=settings.router_id,
        mail=settings.mail,
    )
    return msgspec.structs.replace(vrrp, settings=own, instances=with_receive_buffers(vrrp.instances, own))


def _settings(reading: Reading) -> VrrpSettings:
    own = {
        name.removeprefix("settings."): value
        for name, value in reading.globals.items()
        if name.startswith("settings.")
    }
    return assemble(VrrpSettings, own)


# Sync groups ---------------------------------------------------------------------------------------------


def _groups(reading: Reading, root: Frame, frames: list[Frame]) -> tuple[list[Frame], dict[str, Frame]]:
    """Groups that have members, their member lists cleaned, and the group of each instance."""
    names = {frame.name for frame in frames}
    of_instance: dict[str, Frame] = {}
    kept = []
    for group in root.fields.get("vrrp_sync_group", ()):
        members = []
        for name in group.fields["members"]:
            reason = ""
            if name not in names:
                reason = "is not defined"
            elif name in of_instance:
                reason = f"is in the group '{of_instance[name].name}' already"
            if reason:
                text = f"({group.name}) the instance '{name}' {reason}; ignored"
                reading.error("group-member", text, group, *_place_of_member(reading, group, name))
            else:
                of_instance[name] = group
                members.append(name)
        group.fields["members"] = members
        if not members:
            _group_error(reading, group, "no-members", "none of its instances exists; the group is removed")
            continue
        if len(members) == 1:
            text = f"({group.name}) a group of one changes nothing"
            reading.warning("one-member", text, group, group.place("members"), 0)
        kept.append(group)
    return kept, of_instance


def _place_of_member(reading: Reading, group: Frame, name: str) -> tuple[Statement | None, int]:
    """The statement that names it as a member, and which word does."""
    found: tuple[Statement | None, int] = reading.definition(f"(place) {group.path()}", name)
    return found


def _group_error(reading: Reading, group: Frame, code: str, message: str) -> None:
    reading.error(code, f"({group.name}) {message}", group, group.place("members"), 0)


def _sync_group(reading: Reading, frame: Frame, resolved: list[tuple[VrrpInstance, Frame]]) -> SyncGroup:
    members = [instance for instance, _ in resolved if instance.name in frame.fields["members"]]
    if any(each.is_owner for each in members):
        _unweight_group(reading, frame)
        if not all(each.is_owner for each in members):
            _group_error(reading, frame, "owners", "either all members own their addresses or none")
    _followed_twice(reading, frame, resolved)
    fields = {**frame.fields, "smtp_alert": alerts(reading, frame, "vrrp", default=False)}
    members_of = tuple(frame.fields["members"])
    return assemble(
        SyncGroup, fields, name=frame.name, members=members_of, tracking=tracking_of(frame.fields)
    )


def _unweight_group(reading: Reading, frame: Frame) -> None:
    for field in Tracking.__struct_fields__:
        for block in frame.fields.get(field, ()):
            for position, (item, statement) in enumerate(block):
                if item.weight:
                    reading.error(
                        "weight",
                        f"({frame.name}) a group with an address owner follows nothing by weight; ignored",
                        frame,
                        statement,
                        0,
                        remedy="weight 0",
                    )
                    block[position] = (msgspec.structs.replace(item, weight=0), statement)


def _followed_twice(reading: Reading, frame: Frame, resolved: list[tuple[VrrpInstance, Frame]]) -> None:
    names = {item.name for block in frame.fields.get("interfaces", ()) for item, _ in block}
    for instance, own in resolved:
        if instance.sync_group != frame.name:
            continue
        for block in own.fields.get("interfaces", ()):
            for item, statement in block:
                if item.name in names:
                    reading.error(
                        "followed-twice",
                        f"({instance.name}) its group follows '{item.name}' too",
                        own,
                        statement,
                        0,
                        remedy="follow it in one place",
                    )


def _weigh_nothing(reading: Reading, configuration: VrrpConfiguration, frames: list[Frame]) -> None:
    """Say which interfaces are followed by weight to no effect. keepalived says nothing of it."""
    for instance, frame in zip(configuration.instances, frames, strict=True):
        followed = [each for block in frame.fields.get("interfaces", ()) for each in block]
        unweighted = unweighted_interfaces(instance) if followed else ()
        for item, statement in followed:
            if item.weight and item.name in unweighted:
                reading.warning(
                    "weight",
                    f"({instance.name}) it cannot do without '{item.name}': the weight does not count",
                    frame,
                    statement,
                    0,
                    remedy="no_track with that address, route or rule",
                    status=ExitStatus.OK,
                )


def _track_groups(reading: Reading, root: Frame, names: set[str]) -> tuple[TrackGroup, ...]:
    """Groups that static items follow, with those members that exist. keepalived too only logs the others."""
    groups: list[TrackGroup] = root.fields.get("track_group", [])
    kept = []
    for group in groups:
        members = tuple(name for name in group.members if name in names)
        frame = reading.definition("(place) track_group", group.name)
        for name in group.members:
            if name not in names:
                _strange_member(reading, frame, name)
        if members:
            kept.append(msgspec.structs.replace(group, members=members))
    return tuple(kept)


def _strange_member(reading: Reading, frame: Frame, name: str) -> None:
    reading.warning(
        "group-member",
        f"track_group '{frame.name}' names the instance '{name}', which is not defined; ignored",
        frame,
        *_place_of_member(reading, frame, name),
        remedy=f"vrrp_instance {name} {{ … }}",
        status=ExitStatus.OK,
    )


# Virtual routers -----------------------------------------------------------------------------------------


def _conflicts(reading: Reading, resolved: list[tuple[VrrpInstance, Frame]]) -> None:
    """RFC 9568 §1.6: a VRID is unique on a LAN and in a family; with peers, among those that share one."""
    seen: dict[tuple[Any, ...], list[VrrpInstance]] = {}
    for instance, frame in resolved:
        key = _network(instance)
        for other in seen.setdefault(key, []):
            if not instance.unicast or _share_a_peer(instance, other):
                reading.fatal(
                    "vrid-clash",
                    f"({instance.name}) '{other.name}' has VRID {instance.virtual_router_id} there too",
                    frame,
                    frame.place("virtual_router_id"),
                    1,
                    remedy="another virtual_router_id",
                )
        seen[key].append(instance)


def _network(instance: VrrpInstance) -> tuple[Any, ...]:
    """Instances clash only where this is equal."""
    if instance.unicast:
        return instance.virtual_router_id, instance.family, instance.source_address
    return instance.virtual_router_id, instance.family, instance.interface, instance.multicast_group


def _share_a_peer(one: VrrpInstance, other: VrrpInstance) -> bool:
    if one.interface and other.interface and one.interface != other.interface:
        return False
    peers = {peer.address for peer in one.unicast_peers}
    return any(peer.address in peers for peer in other.unicast_peers)


# Scripts -------------------------------------------------------------------------------------------------


def _vetted(
    reading: Reading,
    configuration: VrrpConfiguration,
    resolved: list[tuple[VrrpInstance, Frame]],
    groups: list[Frame],
) -> VrrpConfiguration:
    """Every script looked up and judged; without interfaces keepalived never gets as far as its complaint."""
    if not resolved and not reading.root.fields.get("vrrp_instance"):
        return configuration
    vetting = Vetting(reading)
    scripts = tuple(
        msgspec.structs.replace(script, command=command)
        for script in configuration.scripts
        if (command := _track_script(reading, vetting, script.name, script.command)) is not None
    )
    names = {script.name for script in scripts}
    instances = tuple(_with_usable(vetting, instance, frame, names) for instance, frame in resolved)
    sync_groups = tuple(
        _with_usable(vetting, group, frame, names)
        for group, frame in zip(configuration.sync_groups, groups, strict=True)
    )
    for name in ("notify_fifo_script", "vrrp_notify_fifo_script"):
        command = reading.globals.get(name)
        if isinstance(command, ScriptCommand):
            vetting.judge(command, None, reading.global_places.get(name))
    vetting.complain("scripts", silent=reading.missing_interface)
    return msgspec.structs.replace(
        configuration, scripts=scripts, instances=instances, sync_groups=sync_groups
    )


def _with_usable(vetting: Vetting, one: _Notifying, frame: Frame, scripts: set[str]) -> _Notifying:
    """The same with the scripts that will run; ``scripts``: those to follow."""
    notify = _notify(vetting, one.notify, frame)
    tracking = _without_scripts(one.tracking, scripts)
    if notify is one.notify and tracking is one.tracking:
        return one
    return msgspec.structs.replace(one, notify=notify, tracking=tracking)


def _without_scripts(tracking: Tracking, names: set[str]) -> Tracking:
    if all(item.name in names for item in tracking.scripts):
        return tracking
    kept = tuple(item for item in tracking.scripts if item.name in names)
    return msgspec.structs.replace(tracking, scripts=kept)


def _track_script(
    reading: Reading, vetting: Vetting, name: str, command: ScriptCommand
) -> ScriptCommand | None:
    frame: Frame | None = reading.definition("(place) vrrp_script", name)
    place = frame.place("argv") if frame is not None else None
    verdict = vetting.judge(command, frame, place)
    if verdict.command is None:
        reading.error(
            "script-unusable",
            f"vrrp_script '{name}' is disabled: {verdict.problem}",
            frame,
            place,
            1,
            machine=True,
            status=ExitStatus.OK
            if reading.missing_interface or verdict.only_logged
            else ExitStatus.CONFIG_ERRORS,
        )
    return verdict.command


def _notify(vetting: Vetting, scripts: NotifyScripts, frame: Frame) -> NotifyScripts:
    """The scripts that can run. keepalived only logs the loss of one: the status is not changed."""
    changed: dict[str, ScriptCommand | None] = {}
    for name in NotifyScripts.__struct_fields__:
        command = getattr(scripts, name)
        if command is None:
            continue
        place = frame.place(f"notify.{name}")
        verdict = vetting.judge(command, frame, place)
        changed[name] = verdict.command
        if verdict.command is None:
            vetting.reading.error(
                "script-unusable",
                f"({frame.name}) '{command.argv[0]}' will not run: {verdict.problem}",
                frame,
                place,
                1,
                machine=True,
                status=ExitStatus.OK,
            )
    return msgspec.structs.replace(scripts, **changed) if changed else scripts
