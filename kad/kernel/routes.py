"""Routes as rtnetlink messages, and whether a message is about a route of ours. Pure.

The numbers are those of linux/rtnetlink.h, linux/lwtunnel.h and linux/mpls_iptunnel.h.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct as Layout

from kad.addresses import INET, packed
from kad.config.model.routing import Encapsulation, NextHop, Placing, Route
from kad.errors import KadError
from kad.kernel.encoder import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    attribute,
    attributes,
    nested,
    read_u32,
    text,
    u8,
    u16,
    u32,
    u64_big,
)
from kad.kernel.links import AF_INET, AF_INET6

RTM_NEWROUTE, RTM_DELROUTE = 24, 25
RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE = 7, 11

RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS = 1, 2, 4, 5, 6, 7, 8
RTA_MULTIPATH, RTA_FLOW, RTA_TABLE, RTA_PREF = 9, 11, 15, 20
RTA_ENCAP_TYPE, RTA_ENCAP, RTA_EXPIRES, RTA_TTL_PROPAGATE = 21, 22, 23, 26
RTAX_LOCK, RTAX_CC_ALGO = 1, 16
RTNH_F_ONLINK = 4
RT_SCOPE_UNIVERSE, RT_SCOPE_NOWHERE = 0, 255

_ENCAP_TYPES = {"mpls": 1, "ip": 2, "ila": 3, "ip6": 4}
_TUNNEL_ID, _TUNNEL_DST, _TUNNEL_SRC, _TUNNEL_TTL, _TUNNEL_TOS, _TUNNEL_FLAGS = 1, 2, 3, 4, 5, 6
"""Of ip and ip6 alike."""
_MPLS_DST = 1
_MPLS_BOTTOM = 0x100
_ILA_LOCATOR = 1

_ROUTE = Layout("=BBBBBBBBI")
_NEXT_HOP = Layout("=HBBi")
_LABEL = Layout(">I")

IPV6_METRIC = 1024
"""What the kernel makes of an IPv6 route without a metric."""
SMALL_TABLE = 256
"""Tables from here on do not fit into the header."""


class MissingInterface(KadError):
    """A route names an interface that does not exist."""


IndexOf = Callable[[str], int | None]


def addition_flags(route: Route) -> int:
    """Beside REQUEST and ACK. The kernel's default is to go before a route to the same destination."""
    extra = {Placing.PREPEND: 0, Placing.APPEND: NLM_F_APPEND, Placing.ADD: NLM_F_EXCL}
    return NLM_F_CREATE | extra[route.placing]


def addition(route: Route, table: int, index_of: IndexOf) -> bytes:
    """The body of RTM_NEWROUTE. ``table``: of the route, or of its VRF. Raises MissingInterface."""
    scope = RT_SCOPE_UNIVERSE if route.scope is None else route.scope
    return _body(route, table, scope, index_of)


def deletion(route: Route, table: int, index_of: IndexOf) -> bytes:
    """The body of RTM_DELROUTE, which asks for this very route. Raises MissingInterface."""
    scope = RT_SCOPE_NOWHERE if route.scope is None else route.scope
    return _body(route, table, scope, index_of)


def _body(route: Route, table: int, scope: int, index_of: IndexOf) -> bytes:
    family = AF_INET if route.family == INET else AF_INET6
    header = _ROUTE.pack(
        family,
        route.prefix_length,
        route.source_length,
        route.tos,
        table if table < SMALL_TABLE else 0,
        route.protocol,
        scope,
        route.kind,
        RTNH_F_ONLINK if route.onlink else 0,
    )
    parts = [header, u32(RTA_TABLE, table)]
    if route.prefix_length:
        parts.append(attribute(RTA_DST, packed(route.destination)))
    if route.source_length:
        parts.append(attribute(RTA_SRC, packed(route.source)))
    if route.preferred_source:
        parts.append(attribute(RTA_PREFSRC, packed(route.preferred_source)))
    if route.gateway:
        parts.append(attribute(RTA_GATEWAY, packed(route.gateway)))
    if route.interface:
        parts.append(u32(RTA_OIF, _index(route.interface, index_of)))
    if route.metric is not None:
        parts.append(u32(RTA_PRIORITY, route.metric))
    if route.realms:
        parts.append(u32(RTA_FLOW, route.realms))
    if route.expires is not None:
        parts.append(u32(RTA_EXPIRES, route.expires))
    if route.preference is not None:
        parts.append(u8(RTA_PREF, route.preference))
    if route.ttl_propagate is not None:
        parts.append(u8(RTA_TTL_PROPAGATE, route.ttl_propagate))
    if route.encapsulation is not None:
        parts.append(_encapsulation(route.encapsulation))
    parts.append(_metrics(route))
    if route.next_hops:
        hops = b"".join(_next_hop(hop, index_of) for hop in route.next_hops)
        parts.append(attribute(RTA_MULTIPATH, hops))
    return b"".join(parts)


def _index(interface: str, index_of: IndexOf) -> int:
    index = index_of(interface)
    if index is None:
        raise MissingInterface(f"no interface {interface}")
    return index


def _metrics(route: Route) -> bytes:
    parts = [u32(number, value) for number, value in route.metrics]
    if route.congestion_control:
        parts.append(text(RTAX_CC_ALGO, route.congestion_control))
    if not parts:
        return b""
    if route.locked:
        parts.append(u32(RTAX_LOCK, route.locked))
    return nested(RTA_METRICS, *parts)


def _next_hop(hop: NextHop, index_of: IndexOf) -> bytes:
    """A struct rtnexthop with its attributes."""
    parts = b""
    if hop.gateway:
        parts += attribute(RTA_GATEWAY, packed(hop.gateway))
    if hop.realms:
        parts += u32(RTA_FLOW, hop.realms)
    if hop.encapsulation is not None:
        parts += _encapsulation(hop.encapsulation)
    index = _index(hop.interface, index_of) if hop.interface else 0
    flags = RTNH_F_ONLINK if hop.onlink else 0
    return _NEXT_HOP.pack(_NEXT_HOP.size + len(parts), flags, hop.weight - 1, index) + parts


def _encapsulation(tunnel: Encapsulation) -> bytes:
    if tunnel.kind == "mpls":
        parts = attribute(_MPLS_DST, _label_stack(tunnel.labels))
    elif tunnel.kind == "ila":
        parts = attribute(_ILA_LOCATOR, tunnel.locator)
    else:
        parts = _ip_tunnel(tunnel)
    return nested(RTA_ENCAP, parts) + u16(RTA_ENCAP_TYPE, _ENCAP_TYPES[tunnel.kind])


def _ip_tunnel(tunnel: Encapsulation) -> bytes:
    parts = b""
    if tunnel.tunnel_id is not None:
        parts += u64_big(_TUNNEL_ID, tunnel.tunnel_id)
    if tunnel.destination:
        parts += attribute(_TUNNEL_DST, packed(tunnel.destination))
    if tunnel.source:
        parts += attribute(_TUNNEL_SRC, packed(tunnel.source))
    if tunnel.traffic_class is not None:
        parts += u8(_TUNNEL_TOS, tunnel.traffic_class)
    if tunnel.hop_limit is not None:
        parts += u8(_TUNNEL_TTL, tunnel.hop_limit)
    if tunnel.flags is not None:
        # The kernel reads network order, keepalived writes the machine's: what a configuration says has to
        # have the same effect here.
        parts += u16(_TUNNEL_FLAGS, tunnel.flags)
    return parts


def _label_stack(labels: tuple[int, ...]) -> bytes:
    """RFC 3032 section 2.1; the last label is marked as the bottom."""
    last = len(labels) - 1
    entries = [label << 12 | (_MPLS_BOTTOM if i == last else 0) for i, label in enumerate(labels)]
    return b"".join(map(_LABEL.pack, entries))


# Messages ------------------------------------------------------------------------------------------------

RouteKey = tuple[int, int, int, bytes]
"""Family, prefix length, table, destination."""


def key_of(body: bytes) -> RouteKey:
    """Where to look for a route, be the body ours or the kernel's. Raises MalformedMessage."""
    family, length, _, _, table = _ROUTE.unpack_from(body.ljust(_ROUTE.size, b"\0"))[:5]
    found = attributes(body, _ROUTE.size)
    return family, length, read_u32(found.get(RTA_TABLE, b""), table), found.get(RTA_DST, b"")


def protocol_of(body: bytes) -> int:
    """Who set a route, as the kernel tells it."""
    return body[5]


def is_in_place_of(heard: bytes, ours: bytes) -> bool:
    """Whether a route that replaced another may have replaced ours; both have the same key."""
    if is_about(heard, ours):
        return protocol_of(heard) != protocol_of(ours)
    theirs, mine = attributes(heard, _ROUTE.size), attributes(ours, _ROUTE.size)
    return heard[2:4] == ours[2:4] and _metric(heard[0], theirs) == _metric(ours[0], mine)


def _metric(family: int, found: dict[int, bytes]) -> int:
    return read_u32(found.get(RTA_PRIORITY, b"")) or (IPV6_METRIC if family == AF_INET6 else 0)


_EXACT = (RTA_SRC, RTA_PREFSRC)
_IF_SAID = (RTA_OIF, RTA_GATEWAY)


def is_about(heard: bytes, ours: bytes) -> bool:
    """Whether the kernel's words are about the route that ``ours`` asked for; both have the same key.

    The kernel finds the interface or the gateway where we name none.
    """
    theirs, mine = attributes(heard, _ROUTE.size), attributes(ours, _ROUTE.size)
    if heard[2:4] != ours[2:4] or heard[7] != ours[7]:  # source length, tos, kind
        return False
    if _metric(heard[0], theirs) != _metric(ours[0], mine):
        return False
    if any(theirs.get(kind) != mine.get(kind) for kind in _EXACT):
        return False
    return all(theirs.get(kind) == mine[kind] for kind in _IF_SAID if kind in mine)
