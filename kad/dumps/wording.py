"""Addresses, routes, rules and commands as keepalived's dumps write them."""

from __future__ import annotations

from kad.addresses import INET6, family_of
from kad.config.model.routing import MAIN_TABLE, UNICAST, NextHop, Route, Rule, RuleAction
from kad.config.model.script import ScriptCommand
from kad.config.model.vrrp import FOREVER, VirtualAddress, VrrpInstance

SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
MASKED = "********"
"""In the place of a password."""
_FLAGS = ((0x10, " home"), (0x02, " -nodad"), (0x100, " mngtmpaddr"), (0x200, " noprefixroute"))
_AUTOJOIN = 0x400


def command_text(command: ScriptCommand) -> str:
    """The command as it will be executed, each word in quotes."""
    words = (command.executable or command.argv[0], *command.argv[1:])
    return " ".join(f"'{word}'" for word in words)


def interface_of(config: VrrpInstance) -> str:
    """The interface adverts use: the VMAC's where there is one."""
    return vmac_of(config) or config.interface


def vmac_of(config: VrrpInstance) -> str:
    """Name of its VMAC or ipvlan as configured; empty: it has none."""
    return "" if config.vmac is None else config.vmac.name


def address_text(address: VirtualAddress, interface: str) -> str:
    """One address without what changes while it is run. ``interface``: where it goes when it names none."""
    is_ipv6 = family_of(address.address) == INET6
    longest = 128 if is_ipv6 else 32
    length = "" if address.prefix_length == longest else f"/{address.prefix_length}"
    parts = [f"{address.address}{length}"]
    if address.broadcast:
        parts.append(f"brd {address.broadcast}")
    parts.append(f"dev {address.interface or interface}")
    if address.use_vmac:
        parts.append("use_vmac")
    parts.append(f"scope {SCOPES.get(address.scope, address.scope)}")
    if address.label:
        parts.append(f"label {address.label}")
    if address.peer:
        parts.append(f"peer {address.peer.partition('/')[0]}/{address.prefix_length}")
    text = " ".join(parts) + "".join(_flags(address, is_ipv6))
    if address.no_track:
        text += " no_track"
    if address.track_group:
        text += f" track_group {address.track_group}"
    return text + (_lifetime(address.preferred_lifetime) if is_ipv6 else "")


def _flags(address: VirtualAddress, is_ipv6: bool) -> list[str]:
    found = []
    for bit, word in _FLAGS:
        # Without duplicate address detection is the rule for IPv6: said is only that one wants it.
        is_set = bool(address.flags & bit)
        if is_set != (bit == 0x02 and is_ipv6):
            found.append(word)
    if address.flags & _AUTOJOIN:
        found.append(" autojoin")
    return found


def _lifetime(seconds: int) -> str:
    if seconds == 0:
        return " deprecated"
    return " preferred_lft forever" if seconds == FOREVER else f" preferred_lft {seconds}"


_KINDS = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
    9: "throw",
}
"""RTN_*."""
_METRICS = {
    2: "mtu",
    3: "window",
    4: "rtt",
    5: "rttvar",
    6: "ssthresh",
    7: "cwnd",
    8: "advmss",
    9: "reordering",
    10: "hoplimit",
    11: "initcwnd",
    12: "features",
    13: "rto_min",
    14: "initrwnd",
    15: "quickack",
    17: "fastopen_no_cookie",
}
"""RTAX_*."""
_PREFERENCES = {0: "medium", 1: "high", 3: "low"}


def route_text(route: Route) -> str:
    """A route in keepalived's order of words."""
    words = [route.placing.value]
    if route.kind != UNICAST:
        words.append(_KINDS.get(route.kind, str(route.kind)))
    words.append(_prefix(route.family, route.destination, route.prefix_length) or "default")
    source = _prefix(route.family, route.source, route.source_length)
    gateway_family = "inet6" if ":" in route.gateway else "inet"
    words += _said(
        ("from", source),
        ("src", route.preferred_source),
        ("tos", route.tos or ""),
        ("encap", route.encapsulation.kind if route.encapsulation is not None else ""),
        (f"via {gateway_family}", route.gateway),
        ("dev", route.interface),
        ("table", route.table if route.table != MAIN_TABLE else ""),
        ("proto", route.protocol),
        ("scope", route.scope),
        ("metric", route.metric),
    )
    if route.onlink:
        words.append("onlink")
    words += _said(("realms" if route.realms >> 16 else "realm", _realms(route.realms)))
    if route.expires is not None:
        words.append(f"expires {route.expires}sec")
    words += _said(("congctl", route.congestion_control))
    words += [_metric(route, number, value) for number, value in route.metrics]
    words += _said(("pref", _PREFERENCES.get(route.preference, "") if route.preference is not None else ""))
    words += [_hop(hop) for hop in route.next_hops]
    return " ".join(words) + _tracking(route)


def _metric(route: Route, number: int, value: int) -> str:
    locked = "lock " if route.locked >> number & 1 else ""
    return f"{_METRICS.get(number, number)} {locked}{value}"


def _hop(hop: NextHop) -> str:
    family = "inet6" if ":" in hop.gateway else "inet"
    words = _said((f"via {family}", hop.gateway), ("dev", hop.interface), ("weight", hop.weight))
    return " ".join(["nexthop", *words, *(["onlink"] if hop.onlink else [])])


def rule_text(rule: Rule) -> str:
    """A rule in keepalived's order of words."""
    words = ["inet6"] if rule.family == INET6 and not rule.source and not rule.destination else []
    if rule.inverted:
        words.append("not")
    words.append(f"from {_prefix(rule.family, rule.source, rule.source_length) or 'all'}")
    words += _said(("to", _prefix(rule.family, rule.destination, rule.destination_length)))
    words.append(f"priority {rule.preference} tos {rule.tos:#x}")
    if rule.mark is not None:
        masked = "" if rule.mark_mask in (None, 0xFFFFFFFF) else f"/{rule.mark_mask:#x}"
        words.append(f"fwmark {rule.mark:#x}{masked}")
    words += _said(
        ("iif", rule.input_interface),
        ("oif", rule.output_interface),
        ("suppress_prefixlen", rule.suppress_prefix_length),
        ("suppress_ifgroup", rule.suppress_interface_group),
        ("tunnel-id", rule.tunnel_id or ""),
        ("uidrange", _range(rule.users)),
    )
    if rule.l3mdev:
        words.append("l3mdev")
    words += _said(
        ("protocol", rule.protocol),
        ("ipproto", rule.ip_protocol),
        ("sport", _range(rule.source_ports)),
        ("dport", _range(rule.destination_ports)),
        ("realms", f"{rule.realms >> 16}/{rule.realms & 0xFFFF}" if rule.realms else ""),
    )
    return " ".join([*words, _action(rule)]) + _tracking(rule)


def _action(rule: Rule) -> str:
    match rule.action:
        case RuleAction.TABLE:
            return f"lookup {rule.table}"
        case RuleAction.GOTO:
            return f"goto {rule.goto}"
        case RuleAction.NOP:
            return "nop"
    return f"type {rule.action.value}"


def _said(*pairs: tuple[str, str | int | None]) -> list[str]:
    """Those that have a value."""
    return [f"{word} {value}" for word, value in pairs if value is not None and value != ""]


def _prefix(family: int, address: str, length: int) -> str:
    if not address or (not length and address in ("0.0.0.0", "::")):
        return ""
    return address if length == (128 if family == INET6 else 32) else f"{address}/{length}"


def _range(bounds: tuple[int, int] | None) -> str:
    return "" if bounds is None else f"{bounds[0]}-{bounds[1]}"


def _realms(realms: int) -> str:
    if not realms:
        return ""
    return f"{realms >> 16}/{realms & 0xFFFF}" if realms >> 16 else str(realms)


def _tracking(spec: Route | Rule) -> str:
    text = " no_track" if spec.no_track else ""
    return text + (f" track_group {spec.track_group}" if spec.track_group else "")
