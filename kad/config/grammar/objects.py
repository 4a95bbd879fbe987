"""Rows of the smaller blocks of the VRRP part: pacing, link polling, debouncing, groups that items follow."""

from __future__ import annotations

from collections.abc import Callable

from kad.config.model.vrrp import GarpGroup, LinkbeatInterface, TrackGroup
from kad.config.schema import NOTHING, Block, Frame, Kind, Reading, Repeat, Row, opens
from kad.config.tree import Statement
from kad.config.values import UNSIGNED_MAX, decimal, decimal_of
from kad.errors import ExitStatus

LONGEST_DEBOUNCE_US = 255_000_000


def named_once(what: str, key: str) -> Callable[[Reading, Frame], bool]:
    """For ``Block.open``: exactly one word follows, and no block of that kind has the name yet."""

    def open(reading: Reading, frame: Frame) -> bool:
        statement = frame.statement
        assert statement is not None
        if len(statement.texts) != 2:
            reading.error(
                "bad-name",
                f"'{statement.texts[0]}' takes one name; the block is skipped",
                frame.parent,
                statement,
                min(2, len(statement.texts) - 1),
                remedy=f"{statement.texts[0]} NAME {{",
            )
            return False
        if reading.definition(key, frame.name) is not None:
            reading.error(
                "duplicate-name",
                f"{what} '{frame.name}' stands above already; this one is skipped",
                frame.parent,
                statement,
                1,
                remedy="another name",
            )
            return False
        return True

    return open


# garp_group ----------------------------------------------------------------------------------------------


def _group_interface(reading: Reading, frame: Frame, statement: Statement, index: int) -> str | None:
    """An interface of a garp_group, which may be in one group only."""
    name = statement.texts[index]
    reading.require_interface(frame, statement, index)
    if reading.definition("garp_group interface", name) is not None:
        reading.error("repeated", f"'{name}' is in a garp_group already; ignored", frame, statement, index)
        return None
    reading.define("garp_group interface", name, True)
    return name


def _interface_item(reading: Reading, frame: Frame, statement: Statement) -> object:
    for index in range(len(statement.texts)):
        name = _group_interface(reading, frame, statement, index)
        if name is not None:
            frame.items.append(name)
    return NOTHING


def _close_interfaces(reading: Reading, frame: Frame) -> object:
    if frame.statement is not None and not frame.statement.block:
        reading.warning("empty-block", "the block names no interface", frame, frame.statement)
    return tuple(frame.items)


def _single_interface(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "interface")
        return NOTHING
    name = _group_interface(reading, frame, statement, 1)
    return NOTHING if name is None else (name,)


INTERFACES = Block(
    "garp_group/interfaces",
    (),
    item=Row(
        "<IFNAME>", Kind("interface", _interface_item), "An interface that shares this pace.", acts=True
    ),
    close=_close_interfaces,
)


def _close_garp_group(reading: Reading, frame: Frame) -> object:
    fields = frame.fields
    if "garp_interval_us" not in fields and "gna_interval_us" not in fields:
        reading.error(
            "no-interval",
            "the garp_group sets no interval; it is removed",
            frame,
            frame.statement,
            remedy="garp_interval SECONDS",
        )
        return NOTHING
    interfaces = (*fields.pop("interface", ()), *fields.pop("interfaces", ()))
    return GarpGroup(interfaces, **fields)


GARP_GROUP = Block(
    "garp_group",
    (
        Row(
            "garp_interval",
            decimal(0, UNSIGNED_MAX),
            "Least gap between two gratuitous ARPs.",
            "garp_interval_us",
            acts=True,
        ),
        Row(
            "gna_interval",
            decimal(0, UNSIGNED_MAX),
            "Least gap between two neighbour advertisements.",
            "gna_interval_us",
            acts=True,
        ),
        Row(
            "interface",
            Kind("interface", _single_interface, takes=1),
            "The one interface it is about.",
            acts=True,
        ),
        Row("interfaces", opens(INTERFACES), "Those that share one pace.", acts=True, default="required"),
    ),
    close=_close_garp_group,
    model=GarpGroup,
)


# linkbeat_interfaces, interface_up_down_delays -----------------------------------------------------------


def _linkbeat(reading: Reading, frame: Frame, statement: Statement) -> object:
    reading.require_interface(frame, statement, 0, status=ExitStatus.CANNOT_RUN)
    method = statement.texts[1] if len(statement.texts) > 1 else ""
    if method not in ("", "MII", "ETHTOOL", "IOCTL"):
        reading.error(
            "bad-choice", f"'{method}' is no way to poll", frame, statement, 1, remedy="MII, ETHTOOL or IOCTL"
        )
        method = ""
    elif len(statement.texts) > 2:
        extra = statement.texts[2]
        reading.error("bad-choice", f"'{extra}' after the way to poll is ignored", frame, statement, 2)
    return LinkbeatInterface(statement.texts[0], method)


LINKBEAT_INTERFACES = Block(
    "linkbeat_interfaces",
    (),
    item=Row(
        "<IFNAME> [MII/ETHTOOL/IOCTL]",
        Kind("interface [method]", _linkbeat),
        "Poll the link of this interface.",
        acts=True,
        default="the first method that works",
    ),
    close=lambda reading, frame: tuple(frame.items),
)


def _delays(reading: Reading, frame: Frame, statement: Statement) -> object:
    reading.require_interface(frame, statement, 0, status=ExitStatus.CANNOT_RUN)
    delays = []
    for index in range(1, min(3, len(statement.texts))):
        value = decimal_of(reading, frame, statement, index, 0, LONGEST_DEBOUNCE_US, 6)
        if value is None:
            return NOTHING
        delays.append(value)
    if not delays or len(statement.texts) > 3:
        reading.warning(
            "bad-delays",
            "an interface has one or two delays",
            frame,
            statement,
            remedy="IFNAME DOWN [UP]",
            status=ExitStatus.OK,
        )
        if not delays:
            return NOTHING
    return statement.texts[0], delays[0], delays[1] if len(delays) > 1 else 0


def _close_delays(reading: Reading, frame: Frame) -> object:
    return {name: (down, up) for name, down, up in frame.items}


INTERFACE_UP_DOWN_DELAYS = Block(
    "interface_up_down_delays",
    (),
    item=Row(
        "<IFNAME> DOWN [UP]",
        Kind("interface decimal [decimal]", _delays, "s", "0", "255"),
        "How long a change of its link must last to be believed.",
        acts=True,
        default="UP: 0",
    ),
    close=_close_delays,
)


# track_group ---------------------------------------------------------------------------------------------


def _member(reading: Reading, frame: Frame, statement: Statement) -> object:
    assert frame.parent is not None
    frame.items.extend(statement.texts)
    for index, name in enumerate(statement.texts):
        reading.define(f"(place) {frame.parent.path()}", name, (statement, index))
    return NOTHING


def _close_members(reading: Reading, frame: Frame) -> object:
    if not frame.items:
        reading.warning("empty-block", "the group names no instance", frame, frame.statement)
        return NOTHING
    return tuple(frame.items)


def group_of(path: str, acts: bool = False) -> Block:
    """The list of instance names in a track_group or vrrp_sync_group."""
    item = Row("<NAME>", Kind("name …", _member), "A vrrp_instance.", acts=acts)
    return Block(f"{path}/group", (), item=item, close=_close_members)


def _close_track_group(reading: Reading, frame: Frame) -> object:
    members = frame.fields.get("members")
    if not members:
        reading.error(
            "no-members", f"track_group '{frame.name}' has no members; removed", frame, frame.statement
        )
        return NOTHING
    group = TrackGroup(frame.name, members)
    reading.define("track_group", frame.name, group)
    reading.define("(place) track_group", frame.name, frame)
    return group


TRACK_GROUP = Block(
    "track_group",
    (
        Row(
            "group",
            opens(group_of("track_group", acts=True)),
            "Instances that static items follow.",
            "members",
            repeat=Repeat.FIRST,
            default="required",
            acts=True,
        ),
    ),
    open=named_once("track_group", "track_group"),
    close=_close_track_group,
    model=TrackGroup,
    parameters=-1,
)
