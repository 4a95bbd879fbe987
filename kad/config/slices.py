"""What each child gets of a configuration: object name -> encoded object, and back.

A slice is a mapping so that the cost of a reload follows the change: equal bytes under the same name mean
an unchanged object. Names are ``KIND/NAME`` (``instance/VI_1``) or ``KIND/NUMBER`` for objects without a
name, in the order of the file; the child's own settings are ``settings``. The child calls ``decode_*``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from kad.config.model.bfd import BfdConfiguration, BfdInstance
from kad.config.model.check import (
    CheckConfiguration,
    CheckSettings,
    SslContext,
    VirtualServer,
    VirtualServerGroup,
)
from kad.config.model.config import Config
from kad.config.model.globals import Globals, ProcessSettings, ProcessTuning
from kad.config.model.routing import Route, Rule
from kad.config.model.track import TrackFile, TrackProcess, TrackScript
from kad.config.model.vrrp import (
    GarpGroup,
    LinkbeatInterface,
    SyncGroup,
    TrackGroup,
    VirtualAddress,
    VirtualLink,
    VrrpConfiguration,
    VrrpInstance,
    VrrpSettings,
)
from kad.ipc.messages import Role, SupervisorSettings

SCRIPT_ENDING_US = 7_000_000
"""Beyond its limit, for a script that has to be killed (control/bounded_script.py)."""
PROCESS = "itself"
"""Name of what a child is told of itself as a process."""
_encode = msgspec.msgpack.Encoder().encode

Kinds = tuple[tuple[str, str, type[Struct]], ...]
"""Kind in the object's name, field of the configuration, type."""

_VRRP_KINDS: Kinds = (
    ("script", "scripts", TrackScript),
    ("file", "files", TrackFile),
    ("process", "processes", TrackProcess),
    ("instance", "instances", VrrpInstance),
    ("sync_group", "sync_groups", SyncGroup),
    ("virtual_link", "virtual_links", VirtualLink),
    ("garp_group", "garp_groups", GarpGroup),
    ("linkbeat", "linkbeat_interfaces", LinkbeatInterface),
    ("track_group", "track_groups", TrackGroup),
    ("static_address", "static_addresses", VirtualAddress),
    ("static_route", "static_routes", Route),
    ("static_rule", "static_rules", Rule),
)
_CHECK_KINDS: Kinds = (
    ("group", "groups", VirtualServerGroup),
    ("file", "files", TrackFile),
    ("virtual_server", "virtual_servers", VirtualServer),
)
_BFD_KINDS: Kinds = (("session", "instances", BfdInstance),)

_KINDS: Kinds = (
    *_VRRP_KINDS,
    *_CHECK_KINDS,
    *_BFD_KINDS,
    ("", "", VrrpSettings),
    ("", "", CheckSettings),
    ("", "", SslContext),
    ("", "", ProcessSettings),
)
_DECODERS: dict[type[Struct], Any] = {kind: msgspec.msgpack.Decoder(kind) for _, _, kind in _KINDS}

_T = TypeVar("_T", bound=Struct)

Known = dict[str, tuple[bytes, Any]]
"""Objects of a slice by name, each with its bytes. What the next slice has in the same bytes is the same
object then, not decoded again. Begin with an empty one; a slice that decodes replaces what is in it."""


def slices(config: Config) -> dict[Role, dict[str, bytes]]:
    """The slice of every child that has something to do."""
    made = {
        Role.VRRP: {"settings": _encode(config.vrrp.settings), **_objects(config.vrrp, _VRRP_KINDS)},
        Role.CHECK: {"settings": _encode(config.check.settings), **_objects(config.check, _CHECK_KINDS)},
        Role.BFD: _objects(config.bfd, _BFD_KINDS),
    }
    for role, tuning in (
        (Role.VRRP, config.globals.vrrp),
        (Role.CHECK, config.globals.checker),
        (Role.BFD, config.globals.bfd),
    ):
        own = process_settings(config.globals, tuning)
        if own != ProcessSettings():
            made[role][PROCESS] = _encode(own)
    if config.check.ssl is not None:
        made[Role.CHECK]["ssl"] = _encode(config.check.ssl)
    return {role: slice_ for role, slice_ in made.items() if role in roles(config)}


def roles(config: Config) -> tuple[Role, ...]:
    """The children that a configuration needs, in the order keepalived starts them."""
    vrrp = config.vrrp
    needed = {
        Role.CHECK: bool(config.check.virtual_servers or config.check.settings.sync_daemon),
        Role.VRRP: bool(vrrp.instances or vrrp.static_addresses or vrrp.static_routes or vrrp.static_rules),
        Role.BFD: bool(config.bfd.instances),
    }
    return tuple(role for role, need in needed.items() if need)


def process_settings(settings: Globals, tuning: ProcessTuning) -> ProcessSettings:
    """What one process is told of itself."""
    return ProcessSettings(
        tuning=tuning,
        maximum_automatic_priority=max(0, settings.maximum_automatic_priority),
        minimum_automatic_delay_us=settings.minimum_automatic_priority_delay_us,
        umask=settings.umask,
    )


def decode_process(slice_: Mapping[str, bytes]) -> ProcessSettings:
    """A child's own settings as a process; raises msgspec.MsgspecError."""
    data = slice_.get(PROCESS)
    return ProcessSettings() if data is None else _DECODERS[ProcessSettings].decode(data)


def supervisor_settings(config: Config) -> SupervisorSettings:
    """What the supervisor must know. Without instances the usual master-down interval stands."""
    downs = [master_down_us(instance) for instance in config.vrrp.instances]
    usual = SupervisorSettings()
    return SupervisorSettings(
        child_wait_us=config.globals.child_wait_us,
        shutdown_us=_shutdown_us(config.globals),
        process_name=config.globals.process_name,
        umask=config.globals.umask,
        least_master_down_us=min(downs, default=usual.least_master_down_us),
    )


def _shutdown_us(settings: Globals) -> int:
    return 0 if settings.shutdown_script is None else settings.shutdown_script_timeout_us + SCRIPT_ENDING_US


def master_down_us(instance: VrrpInstance) -> int:
    """RFC 9568 §6.1 (skew in parts of the interval), RFC 3768 §6.1 (in parts of a second)."""
    base = instance.advert_int_us if instance.version == 3 else 1_000_000
    skew = (256 - instance.priority) * base // 256
    return instance.down_timer_adverts * instance.advert_int_us + skew


def decode_vrrp(slice_: Mapping[str, bytes]) -> VrrpConfiguration:
    """The VRRP child's configuration; raises msgspec.MsgspecError on bytes that control did not write."""
    settings = slice_.get("settings")
    lists = _lists(slice_, _VRRP_KINDS)
    if settings is not None:
        lists["settings"] = _DECODERS[VrrpSettings].decode(settings)
    return VrrpConfiguration(**lists)


def decode_check(slice_: Mapping[str, bytes], known: Known | None = None) -> CheckConfiguration:
    """The check child's configuration; raises msgspec.MsgspecError."""
    lists = _lists(slice_, _CHECK_KINDS, known)
    if "settings" in slice_:
        lists["settings"] = _DECODERS[CheckSettings].decode(slice_["settings"])
    if "ssl" in slice_:
        lists["ssl"] = _DECODERS[SslContext].decode(slice_["ssl"])
    return CheckConfiguration(**lists)


def decode_bfd(slice_: Mapping[str, bytes]) -> BfdConfiguration:
    """The BFD child's configuration; raises msgspec.MsgspecError."""
    return BfdConfiguration(**_lists(slice_, _BFD_KINDS))


def _objects(configuration: Struct, kinds: Kinds) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for kind, field, _ in kinds:
        for key, value in _named(kind, getattr(configuration, field)):
            found[key] = _encode(value)
    return found


def _named(kind: str, objects: Iterable[Any]) -> Iterable[tuple[str, Any]]:
    """Names of objects; those without a name, or with a name that another one has, are numbered."""
    seen: set[str] = set()
    for number, value in enumerate(objects):
        name = getattr(value, "name", "")
        key = f"{kind}/{name}" if name else f"{kind}/{number}"
        if key in seen:
            key = f"{key}#{number}"
        seen.add(key)
        yield key, value


def _lists(slice_: Mapping[str, bytes], kinds: Kinds, known: Known | None = None) -> dict[str, Any]:
    fields = {kind: (field, _DECODERS[struct].decode) for kind, field, struct in kinds}
    lists: dict[str, list[Any]] = {}
    objects: Known = {}
    for key, data in slice_.items():
        meant = fields.get(key.partition("/")[0])
        if meant is None:
            continue
        before = known.get(key) if known is not None else None
        if before is None or before[0] != data:
            before = data, meant[1](data)
        objects[key] = before
        lists.setdefault(meant[0], []).append(before[1])
    if known is not None:
        known.clear()
        known.update(objects)
    return {field: tuple(values) for field, values in lists.items()}
