"""Rows of virtual_routes, static_routes and the rules: the language of ``ip route`` and ``ip rule``.

A line becomes a Route or a Rule. Names of tables, scopes and so on are looked up while it is read: what runs
does not change under the daemon's feet when iproute2's files do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from kad.addresses import INET, INET6, family_of, parse_address, parse_prefix
from kad.config.grammar.addresses import take_track_group
from kad.config.iproute_names import UnknownName
from kad.config.model.routing import PROTOCOL_MARK, ROUTE_TYPES, Encapsulation, Route, Rule
from kad.config.numbers import c_integer, is_digits, whole_number
from kad.config.routing import (
    encapsulation_of,
    labels_of,
    locator_of,
    next_hop_of,
    route_of,
    rule_of,
)
from kad.config.schema import NOTHING, Block, Frame, Kind, Reading, Row, acting
from kad.config.tree import Statement
from kad.config.values import UNSIGNED_MAX, option_flag, option_text, unknown_option

WHOLE = ("default", "any", "all")
ACTIONS = ("goto", "nop", "blackhole", "unreachable", "prohibit")
FIRST_PREFERENCE = 16384
"""Of rules that have none of their own."""
_NAME = re.compile(r"[A-Za-z0-9_.+-]+")
_TIME = re.compile(r"\d+(\.\d+)?(s|sec|secs|ms|msec|msecs)?", re.ASCII)
_RANGE = re.compile(r"(\d{1,10})-(\d{1,10})", re.ASCII)

Checker = Callable[[str], bool]
Items = list[tuple[str, Any]]
"""(keyword, value), in the order written."""


def _number(highest: int, lowest: int = 0) -> Checker:
    return lambda text: whole_number(text, highest, lowest) is not None


def _c_number(text: str) -> bool:
    value = c_integer(text)
    return value is not None and value <= UNSIGNED_MAX


def _range(highest: int) -> Checker:
    """``A-B``, ascending."""

    def check(text: str) -> bool:
        match = _RANGE.fullmatch(text)
        return match is not None and int(match[1]) <= int(match[2]) <= highest

    return check


def _mark(text: str) -> bool:
    """``MARK[/MASK]``."""
    return len(text.split("/")) <= 2 and all(_c_number(part) for part in text.split("/"))


def _ip_protocol(text: str) -> bool:
    return _number(255)(text) if is_digits(text) else _name(text)


def _name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _address(text: str) -> bool:
    return parse_address(text) is not None


def _destination(text: str) -> bool:
    return text in WHOLE or text == "default6" or parse_prefix(text) is not None


def _realms(text: str) -> bool:
    return all(_name(part) for part in text.split("/", 1))


def _value(
    text: str, check: Checker, *, lock: bool = False, unit: str = "", low: str = "", high: str = ""
) -> Kind:
    """A value judged by ``check``; ``lock``: the word lock may stand before it (the kernel keeps it)."""

    def take(reading: Reading, frame: Frame, statement: Statement, index: int) -> tuple[object, int]:
        given = option_text(reading, frame, statement, index)
        locked = lock and given == "lock"
        if locked:
            index += 1
            given = option_text(reading, frame, statement, index)
        if given is None:
            _drop(frame)
            return NOTHING, index + 1
        if not check(given):
            name = statement.texts[index]
            reading.error(
                "bad-value",
                f"'{name}' cannot be '{given}'; the line is ignored",
                frame,
                statement,
                index + 1,
                remedy=f"{text} from {low} to {high}" if high else text,
            )
            _drop(frame)
            return NOTHING, index + 2
        return f"lock {given}" if locked else given, index + 2

    return Kind(f"[lock] {text}" if lock else text, take=take, unit=unit, low=low, high=high)


def _interface() -> Kind:
    def take(reading: Reading, frame: Frame, statement: Statement, index: int) -> tuple[object, int]:
        name = option_text(reading, frame, statement, index)
        if name is None:
            _drop(frame)
            return NOTHING, index + 1
        reading.require_interface(frame, statement, index + 1)
        return name, index + 2

    return Kind("interface", take=take, high="15 characters")


def _via() -> Kind:
    """``via [inet|inet6] ADDRESS``."""

    def take(reading: Reading, frame: Frame, statement: Statement, index: int) -> tuple[object, int]:
        start = index
        text = option_text(reading, frame, statement, index)
        if text in ("inet", "inet6"):
            index += 1
            text = option_text(reading, frame, statement, index)
        address = parse_address(text) if text is not None else None
        if address is None:
            if text is not None:
                reading.error(
                    "bad-address",
                    f"'{text}' is not an address; the line is ignored",
                    frame,
                    statement,
                    index + 1,
                )
            _drop(frame)
            return NOTHING, index + 2
        _agree(reading, frame, statement, start, family_of(address))
        return address, index + 2

    return Kind("[inet / inet6] address", take=take)


def _agree(reading: Reading, frame: Frame, statement: Statement, index: int, family: int) -> None:
    """A route or rule has one family; the first address decides it."""
    known = frame.fields.setdefault("(family)", family)
    if known != family:
        reading.error(
            "mixed-families", "IPv4 and IPv6 do not mix; the line is ignored", frame, statement, index
        )
        _drop(frame)


def _take_family(family: int) -> Kind:
    def take(reading: Reading, frame: Frame, statement: Statement, index: int) -> tuple[object, int]:
        _agree(reading, frame, statement, index, family)
        return NOTHING, index + 1

    return Kind("flag", take=take)


def _take_as(reading: Reading, frame: Frame, statement: Statement, index: int) -> tuple[object, int]:
    reading.error("unsupported", "'as' is for MPLS only; it is ignored", frame, statement, index)
    to = index + 1 < len(statement.texts) and statement.texts[index + 1] == "to"
    return NOTHING, index + (3 if to else 2)


_ENCAP_OPTIONS = (
    Row("id", _value("integer", _number(2**64 - 1)), "Tunnel id."),
    Row("dst", _value("address", _address), "Far end of the tunnel."),
    Row("src", _value("address", _address), "Near end of the tunnel."),
    Row("tos", _value("name / number", _name), "Type of service, ip only."),
    Row("ttl", _value("integer", _number(255), low="0", high="255"), "TTL, ip only."),
    Row("tc", _value("name / number", _name), "Traffic class, ip6 only."),
    Row("hoplimit", _value("integer", _number(255), low="0", high="255"), "Hop limit, ip6 only."),
    Row("flags", _value("integer", _c_number), "Flags of the tunnel."),
    Row("mpls LABEL[/LABEL..]", Kind("labels"), "Labels to push."),
    Row("ila LOCATOR", Kind("64-bit locator"), "Identifier locator addressing."),
)
ENCAP_OPTIONS = acting(_ENCAP_OPTIONS)
ENCAP = Block("routes/encap", ENCAP_OPTIONS)
_ENCAP_TABLE = {row.name: row for row in ENCAP_OPTIONS if row.kind.take is not None}


def _take_encap(reading: Reading, frame: Frame, statement: Statement, index: int) -> tuple[object, int]:
    """``encap ip|ip6 OPTIONS``, ``encap mpls LABELS``, ``encap ila LOCATOR``."""
    kind = option_text(reading, frame, statement, index)
    if kind not in ("ip", "ip6", "mpls", "ila"):
        if kind is not None:
            reading.error(
                "bad-choice",
                f"'{kind}' is no encapsulation",
                frame,
                statement,
                index + 1,
                remedy="ip, ip6, mpls, ila",
            )
        _drop(frame)
        return NOTHING, len(statement.texts)
    index += 2
    options: dict[str, object] = {}
    if kind in ("mpls", "ila"):
        options["value"] = statement.texts[index] if index < len(statement.texts) else ""
        index += 1
    while kind in ("ip", "ip6") and index < len(statement.texts):
        row = _ENCAP_TABLE.get(statement.texts[index])
        if row is None or row.kind.take is None:
            break
        options[row.name], index = row.kind.take(reading, frame, statement, index)
    if frame.fields.get("(drop)"):
        return NOTHING, index
    try:
        return _encapsulation(reading, kind, options), index
    except (UnknownName, ValueError) as error:
        _refuse(reading, frame, statement, error, min(index, len(statement.texts)) - 1)
        _drop(frame)
        return NOTHING, index


def _encapsulation(reading: Reading, kind: str, options: dict[str, object]) -> Encapsulation:
    if kind == "mpls":
        return labels_of(str(options["value"]))
    if kind == "ila":
        return locator_of(str(options["value"]))
    return encapsulation_of(kind, options, reading.names)


def _refuse(
    reading: Reading, frame: Frame, statement: Statement, error: Exception, word: int | None = None
) -> None:
    """A line that cannot be made into a route or rule is ignored. Names are this machine's affair."""
    if isinstance(error, UnknownName):
        reading.error("unknown-name", f"{error}; the line is ignored", frame, statement, word, machine=True)
    else:
        reading.error("bad-value", f"{error}; the line is ignored", frame, statement, word)


def _take_nexthop(reading: Reading, frame: Frame, statement: Statement, index: int) -> tuple[object, int]:
    """``nexthop …``: up to the next ``nexthop`` or the end of the line."""
    index += 1
    options: dict[str, object] = {}
    while index < len(statement.texts) and statement.texts[index] != "nexthop":
        row = _NEXTHOP_TABLE.get(statement.texts[index])
        if row is None or row.kind.take is None:
            reading.error(
                "unknown-option",
                f"'{statement.texts[index]}' does not belong to a nexthop; the line is ignored",
                frame,
                statement,
                index,
            )
            _drop(frame)
            return NOTHING, len(statement.texts)
        options[row.name], index = row.kind.take(reading, frame, statement, index)
    if frame.fields.get("(drop)"):
        return NOTHING, index
    try:
        return next_hop_of(options, reading.names), index
    except UnknownName as error:
        _refuse(reading, frame, statement, error)
        _drop(frame)
        return NOTHING, index


_VIA = _via()
_DEVICE = _interface()
_REALMS = _value("[from/]to", _realms)
_ENCAP_KIND = Kind("ip / ip6 / mpls / ila …", take=_take_encap, options=ENCAP_OPTIONS)
_NEXTHOP_TABLE = {
    row.name: row
    for row in (
        Row("via", _VIA, ""),
        Row("dev", _DEVICE, ""),
        Row("weight", _value("integer", _number(256, 1), low="1", high="256"), ""),
        Row("onlink", option_flag(), ""),
        Row("encap", _ENCAP_KIND, ""),
        Row("realms", _REALMS, ""),
    )
}
_METRIC = _value("integer", _number(UNSIGNED_MAX), low="0", high=str(UNSIGNED_MAX))
_LOCKABLE = _value("integer", _number(UNSIGNED_MAX), lock=True)
_ROUND_TRIP = _value("time", lambda text: _TIME.fullmatch(text) is not None, lock=True, unit="ms")
_BIT = _value("0 / 1", _number(1))
_TOS = _value("name / number", _name)
_PLAIN = _value("integer", _number(UNSIGNED_MAX))
_SIGNED = _value("integer", _number(0x7FFF_FFFF))
_PORTS = _value("A-B", lambda text: _range(65535)(text) or _number(65535)(text))


def _old(name: str, use: str, kind: Kind) -> Row:
    return Row(name, kind, f"As {use}.", use, alias_of=use)


_METRIC_ROWS = (
    Row("mtu", _LOCKABLE, "MTU towards the destination."),
    Row("hoplimit", _value("integer", _number(255), low="0", high="255"), "Hop limit."),
    Row("advmss", _LOCKABLE, "Segment size to advertise."),
    Row("rtt", _ROUND_TRIP, "First estimate of the round trip."),
    Row("rttvar", _ROUND_TRIP, "First estimate of its variance."),
    Row("reordering", _LOCKABLE, "Reordering to tolerate."),
    Row("window", _PLAIN, "Largest window to advertise."),
    Row("cwnd", _LOCKABLE, "Clamp of the congestion window."),
    Row("ssthresh", _LOCKABLE, "Slow start threshold."),
    Row("realms", _REALMS, "Realms, IPv4 only."),
    Row("rto_min", _ROUND_TRIP, "Least retransmission timeout."),
    Row("initcwnd", _PLAIN, "First congestion window."),
    Row("initrwnd", _PLAIN, "First receive window."),
    Row("features", _value("ecn", lambda text: text == "ecn"), "Features to enable."),
    Row("quickack", _BIT, "Acknowledge at once."),
    Row("congctl", _value("name", _name, lock=True), "Congestion control."),
    Row(
        "pref",
        _value(
            "low / medium / high / integer",
            lambda text: text in ("low", "medium", "high") or _number(255)(text),
        ),
        "Router preference, IPv6 only.",
    ),
    Row(
        "ttl-propagate",
        _value("enabled / disabled", lambda text: text in ("enabled", "disabled")),
        "MPLS TTL.",
    ),
    Row("fastopen_no_cookie", _BIT, "TCP fast open without a cookie."),
)


def _route_rows(static: bool) -> tuple[Row, ...]:
    rows = (
        Row("[to] DEST/LEN or default/any/all", Kind("prefix"), "Where the route leads."),
        Row(
            "unicast local broadcast anycast multicast blackhole unreachable prohibit throw nat",
            Kind("route type"),
            "Type of the route, before its destination.",
        ),
        Row("inet", _take_family(INET), "An IPv4 route."),
        Row("inet6", _take_family(INET6), "An IPv6 route."),
        Row("src", _value("address", _address), "Source address to prefer."),
        Row("as [to]", Kind("ignored", take=_take_as), "For MPLS only."),
        Row("via", _VIA, "Gateway."),
        Row("gw", _VIA, "As via.", "via", alias_of="via", deprecated="via"),
        Row("from", _value("prefix", _destination), "Source prefix, IPv6 only."),
        Row("tos", _TOS, "Type of service."),
        _old("dsfield", "tos", _TOS),
        Row("table", _value("name / number", _name), "Routing table.", default="main"),
        Row(
            "protocol", _value("name / number", _name), "Who set the route; keepalived's own unless no_track."
        ),
        Row("scope", _value("name / number", _name), "Scope.", default="global"),
        Row("metric", _METRIC, "Preference among routes to the same destination."),
        _old("priority", "metric", _METRIC),
        _old("preference", "metric", _METRIC),
        Row("dev", _DEVICE, "Outgoing interface."),
        _old("oif", "dev", _DEVICE),
        Row("onlink", option_flag(), "The gateway is on the link, whatever its address."),
        Row("encap", _ENCAP_KIND, "Tunnel of the route."),
        Row("expires", _value("integer", _number(UNSIGNED_MAX), unit="s"), "Lifetime, IPv6 only."),
        *_METRIC_ROWS,
        Row("add", option_flag(), "Fail when the route exists."),
        Row("prepend", option_flag(), "Go before the same route, if there is one: the default."),
        Row("append", option_flag(), "Go after it."),
        Row("or", _value("address", _address), "Second gateway.", deprecated="nexthop"),
        Row(
            "nexthop",
            Kind("[via ADDR] [dev IF] [weight 1-256] [onlink] [encap] [realms]", take=_take_nexthop),
            "One of several gateways; must be last, may be repeated.",
        ),
        Row("no_track", option_flag(), "Its deletion does not matter to the instance."),
        Row("vrf", _interface(), "Table of this VRF."),
    )
    if static:
        group = Row(
            "track_group",
            Kind("name", take=take_track_group),
            "Have the instances of this group follow.",
            acts=True,
        )
        return (*acting(rows), group)
    return acting(rows)


def _rule_rows(static: bool) -> tuple[Row, ...]:
    preference = _value("integer", _c_number)
    device = _interface()
    rows = (
        Row("inet", _take_family(INET), "An IPv4 rule."),
        Row("inet6", _take_family(INET6), "An IPv6 rule."),
        Row("from", _value("prefix / all", _destination), "Source prefix."),
        Row("to", _value("prefix / all", _destination), "Destination prefix."),
        Row(
            "table",
            _value("name / number", lambda text: _name(text) and text != "0"),
            "Look the route up there.",
        ),
        _old("lookup", "table", _value("name / number", lambda text: _name(text) and text != "0")),
        Row("not", option_flag(), "Match what does not match."),
        Row("preference", preference, "Order among rules.", default="16384 downwards, reported"),
        _old("order", "preference", preference),
        _old("priority", "preference", preference),
        Row("tos", _TOS, "Type of service."),
        _old("dsfield", "tos", _TOS),
        Row("fwmark", _value("N[/MASK]", _mark), "Firewall mark."),
        Row("realms", _REALMS, "Realms, IPv4 with a table only."),
        Row("suppress_prefixlength", _SIGNED, "Ignore routes with shorter prefixes; with a table only."),
        _old("sup_pl", "suppress_prefixlength", _SIGNED),
        Row(
            "suppress_ifgroup",
            _value("name / number", _name),
            "Ignore routes out of this group; with a table only.",
        ),
        _old("sup_group", "suppress_ifgroup", _value("name / number", _name)),
        Row("dev", device, "Incoming interface.", "iif"),
        Row("iif", device, "As dev."),
        Row("oif", device, "Interface of the socket."),
        Row("tunnel-id", _value("integer", _number(2**64 - 1)), "Tunnel id."),
        Row(
            "uidrange",
            _value("A-B", _range(UNSIGNED_MAX)),
            "Users of local traffic.",
        ),
        Row("l3mdev", option_flag(), "Look the route up in the VRF's table."),
        Row(
            "protocol",
            _value("integer", _number(255), low="0", high="255"),
            "Who set the rule; keepalived's own unless no_track.",
        ),
        Row("ipproto", _value("name / number", _ip_protocol), "IP protocol."),
        Row("sport", _PORTS, "Source ports."),
        Row("dport", _PORTS, "Destination ports."),
        Row(
            "type",
            Kind("action", take=lambda reading, frame, statement, index: (NOTHING, index + 1)),
            "May stand before an action.",
        ),
        Row("goto", _PLAIN, "Go on at this preference, which must be a higher one."),
        Row("nop", option_flag(), "Do nothing."),
        Row("blackhole", option_flag(), "Drop silently."),
        Row("unreachable", option_flag(), "Answer unreachable."),
        Row("prohibit", option_flag(), "Answer prohibited."),
        Row("no_track", option_flag(), "Its deletion does not matter to the instance."),
    )
    if static:
        group = Row(
            "track_group",
            Kind("name", take=take_track_group),
            "Have the instances of this group follow.",
            acts=True,
        )
        return (*acting(rows), group)
    return acting(rows)


def _drop(frame: Frame) -> None:
    frame.fields["(drop)"] = True


def _read_line(
    reading: Reading, frame: Frame, statement: Statement, table: dict[str, Row], other: Callable[..., int]
) -> tuple[Frame, Items]:
    """The options of a line in order. ``other`` handles a word that is none; it returns the next index."""
    scratch = Frame(frame.block, frame.statement, frame.parent)
    items: Items = []
    index = 0
    while index < len(statement.texts):
        row = table.get(statement.texts[index])
        if row is None or row.kind.take is None:
            index = other(reading, scratch, statement, index, items)
            continue
        if row.deprecated:
            reading.warning(
                "deprecated",
                f"'{row.name}' is deprecated",
                frame,
                statement,
                index,
                remedy=f"write '{row.deprecated}' instead",
            )
        value, index = row.kind.take(reading, scratch, statement, index)
        if value is not NOTHING:
            items.append((row.target, value))
    return scratch, items


def _destination_word(reading: Reading, frame: Frame, statement: Statement, index: int, items: Items) -> int:
    """``[to] [TYPE] DESTINATION``."""
    words = statement.texts
    if words[index] == "to":
        index += 1
    if index < len(words) and words[index] in ROUTE_TYPES:
        items.append(("type", words[index]))
        index += 1
    if index >= len(words):
        reading.error("missing-value", "the destination is missing", frame, statement, index - 1)
        _drop(frame)
        return index
    text = words[index]
    if not _destination(text):
        table = _ROUTE_TABLES[False]
        unknown_option(reading, frame, statement, index, table)
        _drop(frame)
        return len(words)
    if text == "default6":
        _agree(reading, frame, statement, index, INET6)
        text = "default"
    elif text not in WHOLE:
        _agree(reading, frame, statement, index, family_of(text))
    items.append(("to", "default" if text in WHOLE else str(parse_prefix(text))))
    return index + 1


def _rule_word(reading: Reading, frame: Frame, statement: Statement, index: int, items: Items) -> int:
    unknown_option(reading, frame, statement, index, _RULE_TABLES[False])
    _drop(frame)
    return len(statement.texts)


def _tracking(reading: Reading, frame: Frame, statement: Statement, items: Items) -> tuple[Items, bool, str]:
    """(items but those about tracking, no_track, track_group)."""
    names = dict(items)
    no_track = "no_track" in names
    if not no_track and names.get("protocol") not in (None, "keepalived", str(PROTOCOL_MARK)):
        reading.error(
            "protocol",
            f"what is tracked has protocol {PROTOCOL_MARK}; another is ignored",
            frame,
            statement,
            remedy="no_track",
        )
    group = names.get("track_group", "")
    if group and not (names.get("dev") or names.get("iif")):
        reading.error(
            "track-group", "track_group needs an interface; ignored", frame, statement, remedy="dev IF"
        )
        group = ""
    kept = [item for item in items if no_track or item[0] != "protocol"]
    return kept, no_track, group


def read_route(reading: Reading, frame: Frame, statement: Statement, static: bool) -> object:
    scratch, items = _read_line(reading, frame, statement, _ROUTE_TABLES[static], _destination_word)
    if scratch.fields.get("(drop)"):
        return NOTHING
    if not any(name == "to" for name, _ in items):
        reading.error("missing-value", "a route needs a destination; the line is ignored", frame, statement)
        return NOTHING
    _agree_on_family(reading, scratch, statement, items, "from", "expires", "pref")
    if scratch.fields.get("(drop)"):
        return NOTHING
    family = scratch.fields.get("(family)", INET)
    kept, no_track, group = _tracking(reading, frame, statement, items)
    try:
        return route_of(family, kept, reading.names, no_track=no_track, track_group=group)
    except UnknownName as error:
        _refuse(reading, frame, statement, error)
        return NOTHING


def _agree_on_family(reading: Reading, frame: Frame, statement: Statement, items: Items, *only: str) -> None:
    """Addresses, and words that are of one family only. Names for everything become "default".

    ``only``: further words that only IPv6 has.
    """
    for number, (name, value) in enumerate(items):
        if name in only:
            _agree(reading, frame, statement, 0, INET6)
        if name in ("from", "to") and value in (*WHOLE, "default6"):
            items[number] = (name, "default")
            if value == "default6":
                _agree(reading, frame, statement, 0, INET6)
        elif name in ("from", "to", "src", "or"):
            _agree(reading, frame, statement, 0, family_of(value))
        elif name == "realms":
            _agree(reading, frame, statement, 0, INET)


def read_rule(reading: Reading, frame: Frame, statement: Statement, static: bool) -> object:
    scratch, items = _read_line(reading, frame, statement, _RULE_TABLES[static], _rule_word)
    if scratch.fields.get("(drop)"):
        return NOTHING
    _agree_on_family(reading, scratch, statement, items)
    if scratch.fields.get("(drop)") or not _rule_makes_sense(reading, frame, statement, items):
        return NOTHING
    family = scratch.fields.get("(family)", INET)
    kept, no_track, group = _tracking(reading, frame, statement, items)
    preference = _preference(reading, dict(items), family)
    try:
        return rule_of(family, kept, reading.names, preference, no_track=no_track, track_group=group)
    except UnknownName as error:
        _refuse(reading, frame, statement, error)
        return NOTHING


def _preference(reading: Reading, names: dict[str, Any], family: int) -> int:
    """As said, or the next one downwards: each family counts its own, as keepalived has it."""
    if "preference" in names:
        return c_integer(names["preference"]) or 0
    key = str(family)
    preference: int = reading.definition("(rule preference)", key) or FIRST_PREFERENCE
    reading.define("(rule preference)", key, preference - 1)
    return preference


def _rule_makes_sense(reading: Reading, frame: Frame, statement: Statement, items: Items) -> bool:
    names = dict(items)
    actions = [name for name in (*ACTIONS, "table", "l3mdev") if name in names]
    reason = ""
    if not actions:
        reason = "a rule needs an action"
    elif len(actions) > 1:
        reason = f"a rule has one action, not {' and '.join(actions)}"
    elif actions[0] not in ("table", "l3mdev") and names.keys() & {
        "realms",
        "suppress_prefixlength",
        "suppress_ifgroup",
    }:
        reason = "realms and suppress_… belong to a table"
    elif actions[0] == "goto" and (
        "preference" not in names or (c_integer(names["preference"]) or 0) >= int(names["goto"])
    ):
        reason = "goto needs a preference below its target"
    if reason:
        reading.error("bad-rule", f"{reason}; the line is ignored", frame, statement)
        return False
    if "preference" not in names:
        reading.warning(
            "no-preference",
            "the rule has no preference: kad counts down from 16384",
            frame,
            statement,
            remedy="preference N",
        )
    return True


_ROUTE_TABLES = {static: {row.name: row for row in _route_rows(static)} for static in (False, True)}
_RULE_TABLES = {static: {row.name: row for row in _rule_rows(static)} for static in (False, True)}
for _table in _ROUTE_TABLES.values():
    _table["as"] = _table["as [to]"]


def list_block(
    path: str,
    field: str,
    name: str,
    help: str,
    model: type[Struct],
    options: tuple[Row, ...],
    read: Callable[..., object],
    static: bool,
) -> Block:
    def item(reading: Reading, frame: Frame, statement: Statement) -> object:
        return read(reading, frame, statement, static)

    def close(reading: Reading, frame: Frame) -> object:
        assert frame.parent is not None
        frame.parent.fields.setdefault(field, []).extend(frame.items)
        return NOTHING

    return Block(
        path,
        (),
        item=Row(name, Kind("…", item, options=options), help, acts=True),
        close=close,
        model=model,
    )


VIRTUAL_ROUTES = list_block(
    "vrrp_instance/virtual_routes",
    "virtual_routes",
    "<ROUTE>",
    "A route that is there while MASTER.",
    Route,
    _route_rows(False),
    read_route,
    False,
)
STATIC_ROUTES = list_block(
    "static_routes",
    "static_routes",
    "<ROUTE>",
    "A route kept while kad runs.",
    Route,
    _route_rows(True),
    read_route,
    True,
)
VIRTUAL_RULES = list_block(
    "vrrp_instance/virtual_rules",
    "virtual_rules",
    "<RULE>",
    "A rule that is there while MASTER.",
    Rule,
    _rule_rows(False),
    read_rule,
    False,
)
STATIC_RULES = list_block(
    "static_rules",
    "static_rules",
    "<RULE>",
    "A rule kept while kad runs.",
    Rule,
    _rule_rows(True),
    read_rule,
    True,
)
