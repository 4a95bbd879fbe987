"""From the checked words of a route or rule to what the kernel is told: numbers, units, defaults. Pure.

``items`` are (keyword, value) pairs in canonical spelling, in the order written; of equal keywords the last
one counts. Raises :class:`kad.config.iproute_names.UnknownName`.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from kad.addresses import INET, Prefix, parse_prefix
from kad.config import iproute_names
from kad.config.iproute_names import Names, UnknownName
from kad.config.model.routing import (
    MAIN_TABLE,
    METRICS,
    PROTOCOL_MARK,
    ROUTE_TYPES,
    UNICAST,
    Encapsulation,
    NextHop,
    Placing,
    Route,
    Rule,
    RuleAction,
)
from kad.config.numbers import c_integer, hexadecimal, is_digits, whole_number

_FEATURE_ECN = 1
_ROUND_TRIP_UNITS = {"rtt": 8, "rttvar": 4, "rto_min": 1}
"""The kernel counts these in so many parts of a millisecond."""
_LEAST_ROUND_TRIP_MS = 200
_LONGEST_ROUND_TRIP_MS = 120_000
_PREFERENCES = {"low": 3, "medium": 0, "high": 1}
_LOCATOR_GROUPS = 4
_LOCATOR_DIGITS = 4
_LONGEST_CONGESTION_NAME = 15
_LARGEST_LABEL = (1 << 20) - 1
_LARGEST_IP_PROTOCOL = 255
"""/etc/protocols may name some beyond it: IPPROTO_MPTCP is 262, which no packet can carry."""

Items = Iterable[tuple[str, Any]]


def route_of(family: int, items: Items, names: Names, *, no_track: bool, track_group: str) -> Route:
    """``items`` has a destination. Bits of it beyond its length are cleared, as the kernel demands."""
    items = list(items)
    found = dict(items)
    destination = _prefix(found["to"], family)
    source = _prefix(found["from"], family) if "from" in found else None
    metrics, locked = _metrics(found)
    hops = [value for name, value in items if name == "nexthop"]
    gateway = found.get("via", "")
    if "or" in found and not hops:
        hops = [NextHop(gateway), NextHop(found["or"])]
        gateway = ""
    return Route(
        family=family,
        destination=destination.address,
        prefix_length=destination.length,
        kind=ROUTE_TYPES[found["type"]] if "type" in found else UNICAST,
        table=names.number(iproute_names.TABLES, found["table"]) if "table" in found else MAIN_TABLE,
        vrf=found.get("vrf", ""),
        gateway=gateway,
        interface=found.get("dev", ""),
        onlink="onlink" in found,
        preferred_source=found.get("src", ""),
        source=source.address if source else "",
        source_length=source.length if source else 0,
        tos=names.number(iproute_names.CLASSES, found["tos"]) if "tos" in found else 0,
        scope=names.number(iproute_names.SCOPES, found["scope"]) if "scope" in found else None,
        metric=_number(found.get("metric")),
        protocol=_protocol(found, names),
        realms=realms(found.get("realms", ""), names),
        expires=_number(found.get("expires")),
        preference=_preference(found.get("pref")),
        ttl_propagate={"enabled": 1, "disabled": 0, None: None}[found.get("ttl-propagate")],
        metrics=metrics,
        locked=locked,
        congestion_control=found.get("congctl", "").removeprefix("lock ")[:_LONGEST_CONGESTION_NAME],
        encapsulation=found.get("encap"),
        next_hops=tuple(hops),
        placing=next((Placing(name) for name, _ in reversed(items) if name in _PLACINGS), Placing.PREPEND),
        no_track=no_track,
        track_group=track_group,
    )


_PLACINGS = frozenset(placing.value for placing in Placing)


def _prefix(text: str, family: int) -> Prefix:
    """The network of a checked prefix; "default" is everything."""
    if text == "default":
        return Prefix("0.0.0.0" if family == INET else "::", 0)
    prefix = parse_prefix(text)
    assert prefix is not None
    network = ipaddress.ip_network((prefix.address, prefix.length), strict=False)
    return Prefix(str(network.network_address), prefix.length)


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def _protocol(found: Mapping[str, Any], names: Names) -> int:
    text = found.get("protocol")
    return PROTOCOL_MARK if text is None else names.number(iproute_names.PROTOCOLS, text)


def _preference(text: str | None) -> int | None:
    if text is None:
        return None
    return _PREFERENCES[text] if text in _PREFERENCES else int(text)


def realms(text: str, names: Names) -> int:
    """``[FROM/]TO``; 0 when nothing was said."""
    if not text:
        return 0
    first, slash, second = text.partition("/")
    number = names.number(iproute_names.REALMS, first)
    return number << 16 | names.number(iproute_names.REALMS, second) if slash else number


def _metrics(found: Mapping[str, Any]) -> tuple[tuple[tuple[int, int], ...], int]:
    """(number, value) of every metric that is a number, ascending; and a bit for each that is locked."""
    values: dict[int, int] = {}
    locked = 0
    for name, number in METRICS.items():
        if name not in found:
            continue
        text = found[name]
        if text.startswith("lock "):
            text = text.removeprefix("lock ")
            locked |= 1 << number
        if name in _ROUND_TRIP_UNITS:
            values[number] = round_trip(text, _ROUND_TRIP_UNITS[name])
        elif name == "features":
            values[number] = _FEATURE_ECN
        elif name != "congctl":
            values[number] = int(text)
    return tuple(sorted(values.items())), locked


def round_trip(text: str, units: int) -> int:
    """A time in ``units`` parts of a millisecond: with s or ms, or already counted in them.

    From 200 ms to 120 s, as keepalived bounds it.
    """
    digits = text.rstrip("mesc")
    unit = text[len(digits) :]
    milliseconds = 1000 if unit.startswith("s") else 1
    whole, _, fraction = digits.partition(".")
    value = int(whole) * milliseconds + _rounded(fraction, milliseconds)
    if unit:
        value *= units
    return max(_LEAST_ROUND_TRIP_MS * units, min(value, _LONGEST_ROUND_TRIP_MS * units))


def _rounded(fraction: str, of: int) -> int:
    return (int(fraction) * of * 2 + 10 ** len(fraction)) // (2 * 10 ** len(fraction)) if fraction else 0


def next_hop_of(options: Mapping[str, Any], names: Names) -> NextHop:
    return NextHop(
        gateway=options.get("via", ""),
        interface=options.get("dev", ""),
        weight=int(options.get("weight", 1)),
        onlink="onlink" in options,
        realms=realms(options.get("realms", ""), names),
        encapsulation=options.get("encap"),
    )


def encapsulation_of(kind: str, options: Mapping[str, Any], names: Names) -> Encapsulation:
    """``options`` of ip and ip6. Raises ValueError with the reason when they do not make a tunnel."""
    if "dst" not in options and "id" not in options:
        raise ValueError(f"encap {kind} needs dst or id")
    for name in ("dst", "src"):
        if name in options and (":" in options[name]) != (kind == "ip6"):
            raise ValueError(f"'{options[name]}' is of the wrong family for encap {kind}")
    traffic_class = options.get("tos" if kind == "ip" else "tc")
    hop_limit = options.get("ttl" if kind == "ip" else "hoplimit")
    flags = options.get("flags")
    return Encapsulation(
        kind,
        tunnel_id=_number(options.get("id")),
        destination=options.get("dst", ""),
        source=options.get("src", ""),
        traffic_class=names.number(iproute_names.CLASSES, traffic_class) if traffic_class else None,
        hop_limit=_number(hop_limit),
        flags=None if flags is None else (c_integer(flags) or 0) & 0xFFFF,
    )


def labels_of(text: str) -> Encapsulation:
    """``encap mpls LABEL[/LABEL…]``. Raises ValueError."""
    words = text.split("/")
    labels = tuple(label for word in words if (label := whole_number(word, _LARGEST_LABEL)) is not None)
    if len(labels) < len(words) or len(labels) > 16:
        raise ValueError(f"'{text}' is no list of MPLS labels")
    return Encapsulation("mpls", labels=labels)


def locator_of(text: str) -> Encapsulation:
    """``encap ila A:B:C:D``. Raises ValueError."""
    words = text.split(":")
    groups = [group for word in words if (group := hexadecimal(word, _LOCATOR_DIGITS)) is not None]
    if len(words) != _LOCATOR_GROUPS or len(groups) != _LOCATOR_GROUPS:
        raise ValueError(f"'{text}' is no 64-bit locator")
    return Encapsulation("ila", locator=b"".join(group.to_bytes(2, "big") for group in groups))


# Rules ---------------------------------------------------------------------------------------------------


def rule_of(
    family: int, items: Items, names: Names, preference: int, *, no_track: bool, track_group: str
) -> Rule:
    """``preference``: the rule's own, or the one it is given."""
    found = dict(items)
    source = _prefix_or_none(found.get("from"), family)
    destination = _prefix_or_none(found.get("to"), family)
    mark, mask = _mark(found.get("fwmark", ""))
    action = next((action for action in RuleAction if action.value in found), RuleAction.TABLE)
    return Rule(
        family=family,
        preference=preference,
        action=action,
        table=names.number(iproute_names.TABLES, found["table"]) if "table" in found else 0,
        l3mdev="l3mdev" in found,
        goto=int(found.get("goto", 0)),
        inverted="not" in found,
        source=source.address if source else "",
        source_length=source.length if source else 0,
        destination=destination.address if destination else "",
        destination_length=destination.length if destination else 0,
        tos=names.number(iproute_names.CLASSES, found["tos"]) if "tos" in found else 0,
        mark=mark,
        mark_mask=mask,
        realms=realms(found.get("realms", ""), names),
        suppress_prefix_length=_number(found.get("suppress_prefixlength")),
        suppress_interface_group=(
            names.number(iproute_names.GROUPS, found["suppress_ifgroup"])
            if "suppress_ifgroup" in found
            else None
        ),
        input_interface=found.get("iif", ""),
        output_interface=found.get("oif", ""),
        tunnel_id=int(found.get("tunnel-id", 0)),
        users=_range(found.get("uidrange")),
        protocol=_rule_protocol(found, no_track=no_track),
        ip_protocol=_ip_protocol(found.get("ipproto")),
        source_ports=_range(found.get("sport")),
        destination_ports=_range(found.get("dport")),
        no_track=no_track,
        track_group=track_group,
    )


def _prefix_or_none(text: str | None, family: int) -> Prefix | None:
    """All addresses are as good as none said."""
    prefix = None if text is None else _prefix(text, family)
    return prefix if prefix is not None and prefix.length else None


def _rule_protocol(found: Mapping[str, Any], *, no_track: bool) -> int | None:
    """keepalived's own where the rule is tracked; else what was said, or the kernel's default."""
    if not no_track:
        return PROTOCOL_MARK
    return int(found["protocol"]) if "protocol" in found else None


def _mark(text: str) -> tuple[int | None, int | None]:
    if not text:
        return None, None
    mark, slash, mask = text.partition("/")
    return c_integer(mark), c_integer(mask) if slash else None


def _range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, dash, last = text.partition("-")
    return int(first), int(last if dash else first)


def _ip_protocol(text: str | None) -> int | None:
    if text is None:
        return None
    if is_digits(text):
        return int(text)
    number: int | None
    try:
        number = socket.getprotobyname(text)
    except OSError:
        # A small system has no /etc/protocols: what every kernel knows needs no file.
        number = getattr(socket, f"IPPROTO_{text.upper()}", None)
    if number is None or number > _LARGEST_IP_PROTOCOL:
        raise UnknownName(f"there is no IP protocol '{text}'")
    return number
