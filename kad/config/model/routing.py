"""Routes and rules, every name already a number: what virtual_routes, static_rules and so on come to.

Numbers are the kernel's (rtnetlink(7), fib_rules.h). None, or an empty text, is what was not said.
"""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

MAIN_TABLE = 254
UNICAST = 1
"""RTN_UNICAST."""
PROTOCOL_MARK = 18
"""RTPROT_KEEPALIVED: who set a route, rule or address of ours."""


ROUTE_TYPES: Mapping[str, int] = {
    "unicast": 1,
    "local": 2,
    "broadcast": 3,
    "brd": 3,
    "anycast": 4,
    "multicast": 5,
    "blackhole": 6,
    "unreachable": 7,
    "prohibit": 8,
    "throw": 9,
    "nat": 10,
    "xresolve": 11,
}
"""RTN_* of rtnetlink(7)."""

METRICS: Mapping[str, int] = {
    "mtu": 2,
    "window": 3,
    "rtt": 4,
    "rttvar": 5,
    "ssthresh": 6,
    "cwnd": 7,
    "advmss": 8,
    "reordering": 9,
    "hoplimit": 10,
    "initcwnd": 11,
    "features": 12,
    "rto_min": 13,
    "initrwnd": 14,
    "quickack": 15,
    "congctl": 16,
    "fastopen_no_cookie": 17,
}
"""RTAX_* of rtnetlink(7)."""


class Placing(StrEnum):
    """Where a route goes among others to the same destination."""

    PREPEND = "prepend"
    APPEND = "append"
    ADD = "add"
    """Only where there is none yet."""


class Encapsulation(Struct, frozen=True, omit_defaults=True):
    """A lightweight tunnel: ``ip``, ``ip6``, ``mpls`` or ``ila``."""

    kind: str
    tunnel_id: int | None = None
    destination: str = ""
    source: str = ""
    traffic_class: int | None = None
    """TOS of ip."""
    hop_limit: int | None = None
    """TTL of ip."""
    flags: int | None = None
    labels: tuple[int, ...] = ()
    """mpls."""
    locator: bytes = b""
    """ila: 8 bytes in network order."""


class NextHop(Struct, frozen=True, omit_defaults=True):
    gateway: str = ""
    interface: str = ""
    weight: int = 1
    onlink: bool = False
    realms: int = 0
    encapsulation: Encapsulation | None = None


class Route(Struct, frozen=True, omit_defaults=True):
    """One route. ``destination`` is canonical text; 0.0.0.0 and :: with length 0 are the default route."""

    family: int
    destination: str
    prefix_length: int
    kind: int = UNICAST
    table: int = MAIN_TABLE
    vrf: str = ""
    """The table is that of this VRF."""
    gateway: str = ""
    interface: str = ""
    onlink: bool = False
    preferred_source: str = ""
    source: str = ""
    source_length: int = 0
    """Prefix that packets come from, IPv6 only."""
    tos: int = 0
    scope: int | None = None
    metric: int | None = None
    protocol: int = PROTOCOL_MARK
    realms: int = 0
    """Source realm in the upper 16 bits."""
    expires: int | None = None
    """Seconds."""
    preference: int | None = None
    """Of the router, RFC 4191 section 2.1: 0 medium, 1 high, 3 low."""
    ttl_propagate: int | None = None
    metrics: tuple[tuple[int, int], ...] = ()
    """(RTAX number, value), ascending."""
    locked: int = 0
    """A bit for each metric the kernel is to leave alone."""
    congestion_control: str = ""
    encapsulation: Encapsulation | None = None
    next_hops: tuple[NextHop, ...] = ()
    placing: Placing = Placing.PREPEND
    no_track: bool = False
    track_group: str = ""

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Every interface it names."""
        named = (self.interface, *(hop.interface for hop in self.next_hops))
        return tuple(dict.fromkeys(name for name in named if name))

    @property
    def is_tracked(self) -> bool:
        """Whether its loss matters. One with a lifetime ends by itself."""
        return not self.no_track and self.expires is None


class RuleAction(StrEnum):
    TABLE = "table"
    GOTO = "goto"
    NOP = "nop"
    BLACKHOLE = "blackhole"
    UNREACHABLE = "unreachable"
    PROHIBIT = "prohibit"


class Rule(Struct, frozen=True, omit_defaults=True):
    """One policy rule. ``source`` and ``destination``: canonical text; empty: anything."""

    family: int
    preference: int
    action: RuleAction = RuleAction.TABLE
    table: int = 0
    l3mdev: bool = False
    """The table is that of the VRF a packet belongs to."""
    goto: int = 0
    inverted: bool = False
    source: str = ""
    source_length: int = 0
    destination: str = ""
    destination_length: int = 0
    tos: int = 0
    mark: int | None = None
    mark_mask: int | None = None
    realms: int = 0
    suppress_prefix_length: int | None = None
    suppress_interface_group: int | None = None
    input_interface: str = ""
    output_interface: str = ""
    tunnel_id: int = 0
    users: tuple[int, int] | None = None
    protocol: int | None = PROTOCOL_MARK
    ip_protocol: int | None = None
    source_ports: tuple[int, int] | None = None
    destination_ports: tuple[int, int] | None = None
    no_track: bool = False
    track_group: str = ""

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Every interface it names."""
        named = (self.input_interface, self.output_interface)
        return tuple(dict.fromkeys(name for name in named if name))

    @property
    def is_tracked(self) -> bool:
        """Whether its loss matters."""
        return not self.no_track
