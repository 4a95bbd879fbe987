"""Rows of virtual_ipaddress, virtual_ipaddress_excluded and static_ipaddress: one address a line."""

from __future__ import annotations

import ipaddress
from typing import Any

from kad.addresses import INET, INET6, Prefix, family_of, parse_address
from kad.config.encoding import as_bytes
from kad.config.model.vrrp import FOREVER, VirtualAddress, VrrpSettings
from kad.config.numbers import c_integer, whole_number
from kad.config.schema import NOTHING, Block, Frame, Kind, Reading, Row, Take
from kad.config.tree import Statement
from kad.config.values import (
    UNSIGNED_MAX,
    number_of,
    option_flag,
    option_text,
    read_options,
)
from kad.errors import ExitStatus

IFA_F_NODAD = 0x02
IFA_F_HOMEADDRESS = 0x10
IFA_F_MANAGETEMPADDR = 0x100
IFA_F_NOPREFIXROUTE = 0x200
IFA_F_MCAUTOJOIN = 0x400
SCOPES = {"global": 0, "universe": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255}
_LARGEST_SCOPE = 255


def read_prefix(reading: Reading, frame: Frame, statement: Statement, index: int) -> Prefix | None:
    """Word ``index`` as ADDRESS[/LENGTH]; a bad length becomes that of a host, said. None after reporting."""
    text = statement.texts[index]
    host, slash, length = text.partition("/")
    address = parse_address(host)
    widest = 128 if ":" in host else 32
    given = widest
    if slash:
        number = whole_number(length, widest) if len(length) < 4 else None
        if number is not None:
            given = number
        else:
            reading.error(
                "bad-prefix",
                f"'/{length}' is not a prefix length of 0 to {widest}: /{widest} is used",
                frame,
                statement,
                index,
            )
    if address is None:
        reading.error(
            "bad-address", f"'{host}' is not an address; the line is ignored", frame, statement, index
        )
        return None
    return Prefix(address, given)


def _option_interface() -> Kind:
    def take(reading: Reading, frame: Frame, statement: Statement, index: int) -> tuple[object, int]:
        name = option_text(reading, frame, statement, index)
        if name is None:
            frame.fields["(drop)"] = True
            return NOTHING, index + 1
        if "(dev)" in frame.fields:
            reading.error("repeated", "an address has one interface", frame, statement, index)
            frame.fields["(drop)"] = True
        frame.fields["(dev)"] = True
        reading.require_interface(frame, statement, index + 1)
        return name, index + 2

    return Kind("interface", take=take, high="15 characters")


def _take_scope(reading: Reading, frame: Frame, statement: Statement, index: int) -> tuple[object, int]:
    text = option_text(reading, frame, statement, index)
    if text is None:
        frame.fields["(drop)"] = True
        return NOTHING, index + 1
    value = SCOPES.get(text, c_integer(text))
    if value is None or value > _LARGEST_SCOPE:
        reading.error(
            "bad-scope",
            f"'{text}' is not a scope; ignored",
            frame,
            statement,
            index + 1,
            remedy="a number of 0 to 255, or " + ", ".join(SCOPES),
        )
        return NOTHING, index + 2
    return value, index + 2


def _take_broadcast(reading: Reading, frame: Frame, statement: Statement, index: int) -> tuple[object, int]:
    text = option_text(reading, frame, statement, index)
    if text is None:
        frame.fields["(drop)"] = True
        return NOTHING, index + 1
    if ":" in statement.texts[0]:
        reading.error(
            "broadcast-ipv6", "IPv6 has no broadcast address; the line is ignored", frame, statement, index
        )
        frame.fields["(drop)"] = True
    elif text not in "+-" and (parse_address(text) is None or family_of(text) != INET):
        reading.error(
            "bad-address",
            f"'{text}' is not an IPv4 address; the line is ignored",
            frame,
            statement,
            index + 1,
            remedy="an address, + or -",
        )
        frame.fields["(drop)"] = True
    return text, index + 2


def _take_label(reading: Reading, frame: Frame, statement: Statement, index: int) -> tuple[object, int]:
    text = option_text(reading, frame, statement, index)
    if text is None or len(as_bytes(text)) > 15:
        if text is not None:
            reading.error(
                "too-long",
                f"the label '{text}' is longer than 15 characters; the line is ignored",
                frame,
                statement,
                index + 1,
            )
        frame.fields["(drop)"] = True
        return NOTHING, index + 2
    return text, index + 2


def _take_peer(reading: Reading, frame: Frame, statement: Statement, index: int) -> tuple[object, int]:
    text = option_text(reading, frame, statement, index)
    if text is None:
        frame.fields["(drop)"] = True
        return NOTHING, index + 1
    address = parse_address(text)
    if address is None or family_of(address) != family_of(statement.texts[0]):
        reading.error(
            "bad-address",
            f"the peer '{text}' is not an address of the same family",
            frame,
            statement,
            index + 1,
        )
        return NOTHING, index + 2
    return address, index + 2


def _take_lifetime(reading: Reading, frame: Frame, statement: Statement, index: int) -> tuple[object, int]:
    text = option_text(reading, frame, statement, index)
    if text is None:
        frame.fields["(drop)"] = True
        return NOTHING, index + 1
    if text == "forever":
        return FOREVER, index + 2
    value = number_of(reading, frame, statement, index + 1, 0, UNSIGNED_MAX)
    return (NOTHING if value is None else value), index + 2


def take_track_group(reading: Reading, frame: Frame, statement: Statement, index: int) -> tuple[object, int]:
    """``track_group NAME`` of a static item; the group must stand above."""
    name = option_text(reading, frame, statement, index)
    if name is None:
        return NOTHING, index + 1
    if reading.definition("track_group", name) is None:
        reading.error(
            "not-defined", f"no track_group '{name}' is defined above this line", frame, statement, index + 1
        )
        return NOTHING, index + 2
    return name, index + 2


def _bit(name: str, help: str, bit: int) -> Row:
    def take(reading: Reading, frame: Frame, statement: Statement, index: int) -> tuple[object, int]:
        frame.fields["(flags)"] = frame.fields.get("(flags)", 0) | bit
        return NOTHING, index + 1

    return Row(name, Kind("flag", take=take), help, acts=True)


def _options(static: bool) -> tuple[Row, ...]:
    broadcast: Take = _take_broadcast
    rows = (
        Row("dev", _option_interface(), "Interface of the address.", "interface", acts=True),
        Row("scope", Kind("name / number", take=_take_scope), "Scope, IPv4 only.", acts=True),
        Row(
            "brd",
            Kind("address / + / -", take=broadcast),
            "Broadcast address; + sets the host's bits, - clears them.",
            "broadcast",
            acts=True,
        ),
        Row(
            "broadcast",
            Kind("address / + / -", take=broadcast),
            "As brd.",
            alias_of="brd",
            acts=True,
        ),
        Row(
            "label",
            Kind("text", take=_take_label, high="15 characters"),
            "Label of the address, IPv4 only.",
            acts=True,
        ),
        Row("peer", Kind("address", take=_take_peer), "Address of the other end of a link.", acts=True),
        _bit("home", "Mark as a Mobile IPv6 home address.", IFA_F_HOMEADDRESS),
        Row("-nodad", option_flag(), "Do look for duplicates of this IPv6 address.", "dad", acts=True),
        _bit("mngtmpaddr", "Template of temporary addresses.", IFA_F_MANAGETEMPADDR),
        _bit("noprefixroute", "Add no route for its prefix.", IFA_F_NOPREFIXROUTE),
        _bit("autojoin", "Join the multicast group on adding.", IFA_F_MCAUTOJOIN),
        Row(
            "no_track",
            option_flag(),
            "Its deletion and its interface's state do not matter to the instance.",
            acts=True,
        ),
        Row(
            "preferred_lft",
            Kind("integer / forever", take=_take_lifetime, unit="s", low="0", high=str(UNSIGNED_MAX)),
            "How long the address is preferred as a source; 0: never.",
            "preferred_lifetime",
            acts=True,
            default="forever; 0 for an IPv6 /128",
        ),
    )
    if static:
        group = Row(
            "track_group",
            Kind("name", take=take_track_group),
            "Have the instances of this group follow.",
            acts=True,
        )
        return (*rows, group)
    return (
        *rows,
        Row("use_vmac", option_flag(), "Put the address on a VMAC of its own interface.", acts=True),
    )


ADDRESS_OPTIONS = _options(static=False)
STATIC_OPTIONS = _options(static=True)
_TABLES = {False: {row.name: row for row in ADDRESS_OPTIONS}, True: {row.name: row for row in STATIC_OPTIONS}}


def read_address(reading: Reading, frame: Frame, statement: Statement, static: bool) -> VirtualAddress | None:
    """One line of an address block; None after reporting that it is ignored."""
    prefix = read_prefix(reading, frame, statement, 0)
    if prefix is None:
        return None
    scratch = Frame(frame.block, frame.statement, frame.parent)
    found = read_options(reading, scratch, statement, 1, _TABLES[static])
    if scratch.fields.get("(drop)"):
        return None
    flags = scratch.fields.get("(flags)", 0)
    return _address_of(reading, frame, statement, prefix, found, flags)


def _address_of(
    reading: Reading, frame: Frame, statement: Statement, prefix: Prefix, found: dict[str, Any], flags: int
) -> VirtualAddress:
    length = prefix.length
    peer = found.get("peer", "")
    if peer:
        if length != (128 if prefix.family == INET6 else 32):
            reading.error(
                "prefix-and-peer", "an address with a peer has no prefix; it is ignored", frame, statement, 0
            )
        length = 128 if prefix.family == INET6 else 32
    dad = found.pop("dad", False)
    if prefix.family == INET6:
        _refuse_ipv4_options(reading, frame, statement, found)
        # keepalived adds IPv6 addresses without duplicate detection unless -nodad (sic) asks for it.
        flags |= 0 if dad else IFA_F_NODAD
        found.setdefault("preferred_lifetime", 0 if length == 128 else FOREVER)
    elif found.pop("preferred_lifetime", FOREVER) != FOREVER:
        reading.warning(
            "ipv6-only",
            "'preferred_lft' is for IPv6 addresses; it has no effect",
            frame,
            statement,
            0,
            status=ExitStatus.OK,
        )
    if "broadcast" in found:
        found["broadcast"] = _broadcast(reading, frame, statement, prefix, found["broadcast"], bool(peer))
    return VirtualAddress(prefix.address, length, flags=flags, **found)


def _refuse_ipv4_options(reading: Reading, frame: Frame, statement: Statement, found: dict[str, Any]) -> None:
    for name in ("scope", "label"):
        if found.pop(name, None):
            reading.error(
                "ipv4-only", f"'{name}' is for IPv4 addresses only; it is ignored", frame, statement, 0
            )


def _broadcast(
    reading: Reading, frame: Frame, statement: Statement, prefix: Prefix, text: str, peer: bool
) -> str:
    """The broadcast address meant by ``text``; empty after reporting."""
    if peer:
        reading.error(
            "broadcast-and-peer",
            "an address has a broadcast address or a peer; the first is ignored",
            frame,
            statement,
        )
        return ""
    if text not in "+-":
        return str(parse_address(text))
    if prefix.length > 30:
        reading.error(
            "bad-prefix", f"a /{prefix.length} has no broadcast address; ignored", frame, statement, 0
        )
        return ""
    network = ipaddress.ip_network((prefix.address, prefix.length), strict=False)
    return str(network.broadcast_address if text == "+" else network.network_address)


def _static_item(reading: Reading, frame: Frame, statement: Statement) -> object:
    address = read_address(reading, frame, statement, static=True)
    if address is None:
        return NOTHING
    if address.interface:
        return address
    default = reading.globals.get("settings.default_interface", VrrpSettings().default_interface)
    if reading.machine is not None and not reading.machine.has_interface(default):
        # keepalived cannot run such a configuration; kad leaves the address out.
        reading.error(
            "no-interface",
            f"the address names no interface, and the default one, '{default}', does not exist",
            frame,
            statement,
            remedy="dev INTERFACE, or default_interface in global_defs",
            status=ExitStatus.CANNOT_RUN,
            machine=True,
        )
    return address


def _close_static(reading: Reading, frame: Frame) -> object:
    assert frame.parent is not None
    frame.parent.fields.setdefault("static_addresses", []).extend(frame.items)
    return NOTHING


STATIC_IPADDRESS = Block(
    "static_ipaddress",
    (),
    item=Row(
        "<IP[/LEN]>",
        Kind("address", _static_item, options=STATIC_OPTIONS),
        "An address kept while kad runs.",
        acts=True,
        default="/32 or /128",
    ),
    close=_close_static,
    model=VirtualAddress,
)
