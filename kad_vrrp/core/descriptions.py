"""Addresses, routes and rules in words for people, much as iproute2 would say them. Pure."""

from collections.abc import Iterator

from kad.addresses import INET6
from kad.config.model.routing import (
    MAIN_TABLE,
    METRICS,
    ROUTE_TYPES,
    UNICAST,
    Encapsulation,
    NextHop,
    Route,
    Rule,
    RuleAction,
)
from kad_vrrp.core.actions import AddressEntry, Entry

_KINDS = {number: name for name, number in ROUTE_TYPES.items() if name != "brd"}
_METRICS = {number: name for name, number in METRICS.items()}


def describe(entry: Entry) -> str:
    """One line."""
    match entry:
        case AddressEntry():
            return entry.address
        case Route():
            return " ".join(["route", *_route(entry)])
        case Rule():
            return " ".join(["rule", *_rule(entry)])


def _route(route: Route) -> Iterator[str]:
    if route.kind != UNICAST:
        yield _KINDS[route.kind]
    yield f"{route.destination}/{route.prefix_length}" if route.prefix_length else "default"
    if route.family == INET6 and not route.prefix_length:
        yield "inet6"
    if route.source_length:
        yield f"from {route.source}/{route.source_length}"
    if route.tos:
        yield f"tos {route.tos:#x}"
    if route.encapsulation is not None:
        yield _encapsulation(route.encapsulation)
    if route.gateway:
        yield f"via {route.gateway}"
    if route.interface:
        yield f"dev {route.interface}"
    if route.vrf:
        yield f"vrf {route.vrf}"
    elif route.table != MAIN_TABLE:
        yield f"table {route.table}"
    if route.preferred_source:
        yield f"src {route.preferred_source}"
    if route.metric is not None:
        yield f"metric {route.metric}"
    yield from (f"{_METRICS[number]} {value}" for number, value in route.metrics)
    yield from (_next_hop(hop) for hop in route.next_hops)


def _next_hop(hop: NextHop) -> str:
    words = ["nexthop"]
    if hop.encapsulation is not None:
        words.append(_encapsulation(hop.encapsulation))
    if hop.gateway:
        words.append(f"via {hop.gateway}")
    if hop.interface:
        words.append(f"dev {hop.interface}")
    words.append(f"weight {hop.weight}")
    return " ".join(words)


def _encapsulation(tunnel: Encapsulation) -> str:
    what = "/".join(map(str, tunnel.labels)) or tunnel.destination or tunnel.locator.hex(":", 2)
    return f"encap {tunnel.kind} {what}".rstrip()


def _rule(rule: Rule) -> Iterator[str]:
    yield f"{rule.preference}:"
    if rule.family == INET6:
        yield "inet6"
    if rule.inverted:
        yield "not"
    yield f"from {rule.source}/{rule.source_length}" if rule.source_length else "from all"
    if rule.destination_length:
        yield f"to {rule.destination}/{rule.destination_length}"
    if rule.mark is not None:
        yield f"fwmark {rule.mark:#x}" + (f"/{rule.mark_mask:#x}" if rule.mark_mask is not None else "")
    if rule.input_interface:
        yield f"iif {rule.input_interface}"
    if rule.output_interface:
        yield f"oif {rule.output_interface}"
    yield _action(rule)


def _action(rule: Rule) -> str:
    if rule.l3mdev:
        return "l3mdev"
    if rule.action is RuleAction.TABLE:
        return f"lookup {rule.table}"
    return f"goto {rule.goto}" if rule.action is RuleAction.GOTO else rule.action.value
