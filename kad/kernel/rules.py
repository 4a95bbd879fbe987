"""Policy rules as rtnetlink messages, and whether a message is about a rule of ours. Pure.

The numbers are those of linux/fib_rules.h.
"""

from __future__ import annotations

from struct import Struct as Layout

from kad.addresses import INET, packed
from kad.config.model.routing import Rule, RuleAction
from kad.kernel.encoder import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    attribute,
    attributes,
    read_u32,
    text,
    u8,
    u32,
    u64_big,
)
from kad.kernel.links import AF_INET, AF_INET6
from kad.kernel.routes import SMALL_TABLE

RTM_NEWRULE, RTM_DELRULE = 32, 33
RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE = 8, 19

FRA_DST, FRA_SRC, FRA_IFNAME, FRA_GOTO, FRA_PRIORITY, FRA_FWMARK, FRA_FLOW, FRA_TUN_ID = (
    1,
    2,
    3,
    4,
    6,
    10,
    11,
    12,
)
FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN, FRA_TABLE, FRA_FWMASK, FRA_OIFNAME = 13, 14, 15, 16, 17
FRA_L3MDEV, FRA_UID_RANGE, FRA_PROTOCOL, FRA_IP_PROTO = 19, 20, 21, 22
FRA_SPORT_RANGE, FRA_DPORT_RANGE = 23, 24
FIB_RULE_INVERT = 2

ADDITION_FLAGS = NLM_F_CREATE | NLM_F_EXCL

_ACTIONS = {
    RuleAction.TABLE: 1,
    RuleAction.GOTO: 2,
    RuleAction.NOP: 3,
    RuleAction.BLACKHOLE: 6,
    RuleAction.UNREACHABLE: 7,
    RuleAction.PROHIBIT: 8,
}
_RULE = Layout("=BBBBBBBBI")
_USERS = Layout("=II")
_PORTS = Layout("=HH")


def body(rule: Rule) -> bytes:
    """The body of RTM_NEWRULE and of RTM_DELRULE."""
    header = _RULE.pack(
        AF_INET if rule.family == INET else AF_INET6,
        rule.destination_length,
        rule.source_length,
        rule.tos,
        rule.table if rule.table < SMALL_TABLE else 0,
        0,
        0,
        _ACTIONS[rule.action],
        FIB_RULE_INVERT if rule.inverted else 0,
    )
    parts = [header, u32(FRA_PRIORITY, rule.preference)]
    if rule.action is RuleAction.TABLE and not rule.l3mdev:
        parts.append(u32(FRA_TABLE, rule.table))
    if rule.action is RuleAction.GOTO:
        parts.append(u32(FRA_GOTO, rule.goto))
    if rule.l3mdev:
        parts.append(u8(FRA_L3MDEV, 1))
    if rule.protocol is not None:
        parts.append(u8(FRA_PROTOCOL, rule.protocol))
    if rule.suppress_prefix_length is not None:
        parts.append(u32(FRA_SUPPRESS_PREFIXLEN, rule.suppress_prefix_length))
    if rule.suppress_interface_group is not None:
        parts.append(u32(FRA_SUPPRESS_IFGROUP, rule.suppress_interface_group))
    return b"".join(parts) + _selectors(rule)


def _selectors(rule: Rule) -> bytes:
    """What a packet has to be like."""
    parts = []
    if rule.source_length:
        parts.append(attribute(FRA_SRC, packed(rule.source)))
    if rule.destination_length:
        parts.append(attribute(FRA_DST, packed(rule.destination)))
    if rule.mark is not None:
        parts.append(u32(FRA_FWMARK, rule.mark))
    if rule.mark_mask is not None:
        parts.append(u32(FRA_FWMASK, rule.mark_mask))
    if rule.realms:
        parts.append(u32(FRA_FLOW, rule.realms))
    if rule.input_interface:
        parts.append(text(FRA_IFNAME, rule.input_interface))
    if rule.output_interface:
        parts.append(text(FRA_OIFNAME, rule.output_interface))
    if rule.tunnel_id:
        parts.append(u64_big(FRA_TUN_ID, rule.tunnel_id))
    if rule.users is not None:
        parts.append(attribute(FRA_UID_RANGE, _USERS.pack(*rule.users)))
    if rule.ip_protocol is not None:
        parts.append(u8(FRA_IP_PROTO, rule.ip_protocol))
    if rule.source_ports is not None:
        parts.append(attribute(FRA_SPORT_RANGE, _PORTS.pack(*rule.source_ports)))
    if rule.destination_ports is not None:
        parts.append(attribute(FRA_DPORT_RANGE, _PORTS.pack(*rule.destination_ports)))
    return b"".join(parts)


# Messages ------------------------------------------------------------------------------------------------

RuleKey = tuple[int, int]
"""Family, preference."""

_HEADER_KIND = slice(0, 4)
_SELECTORS = (
    FRA_DST,
    FRA_SRC,
    FRA_IFNAME,
    FRA_OIFNAME,
    FRA_FLOW,
    FRA_TUN_ID,
    FRA_UID_RANGE,
    FRA_IP_PROTO,
    FRA_SPORT_RANGE,
    FRA_DPORT_RANGE,
)
_NO_MARK = bytes(4)


def key_of(heard: bytes) -> RuleKey:
    """Where to look for a rule, be the body ours or the kernel's. Raises MalformedMessage."""
    found = attributes(heard, _RULE.size)
    return heard[0] if heard else 0, read_u32(found.get(FRA_PRIORITY, b""))


def is_about(heard: bytes, ours: bytes) -> bool:
    """Whether the kernel's words are about the rule that ``ours`` asked for; both have the same key."""
    theirs, mine = attributes(heard, _RULE.size), attributes(ours, _RULE.size)
    if heard[_HEADER_KIND] != ours[_HEADER_KIND] or heard[7:9] != ours[7:9]:  # action, inversion
        return False
    if any(theirs.get(kind) != mine.get(kind) for kind in _SELECTORS):
        return False
    if theirs.get(FRA_FWMARK, _NO_MARK) != mine.get(FRA_FWMARK, _NO_MARK):
        return False
    return all(theirs.get(kind) == mine[kind] for kind in (FRA_TABLE, FRA_GOTO) if kind in mine)
