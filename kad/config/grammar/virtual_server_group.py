"""Rows of virtual_server_group: services that share one definition."""

from __future__ import annotations

import ipaddress

from kad.addresses import parse_address
from kad.config.grammar.connection import SUFFERED
from kad.config.grammar.endpoint import port_of
from kad.config.model.check import GroupFwmark, GroupRange, VirtualServerGroup
from kad.config.numbers import hexadecimal, whole_number
from kad.config.schema import CHECK, CLOSING, NOTHING, Block, Frame, Kind, Reading, Row
from kad.config.tree import Statement
from kad.config.values import UNSIGNED_MAX, ignored_words, number_of

ADDRESSES_LIMIT = 1 << 18
"""Of one group: each is a service of the kernel's, and 400 bytes here."""
FAMILIES = {"inet": 4, "inet6": 6}


def _group_entry(reading: Reading, frame: Frame, statement: Statement) -> object:
    if statement.texts[0] == "fwmark":
        return _group_fwmark(reading, frame, statement)
    return _group_range(reading, frame, statement)


def _group_fwmark(reading: Reading, frame: Frame, statement: Statement) -> object:
    words = statement.texts
    if len(words) < 2:
        reading.missing(frame, statement, "number")
        return NOTHING
    mark = number_of(reading, frame, statement, 1, 0, UNSIGNED_MAX)
    if mark is None:
        return NOTHING
    if not mark:
        # keepalived has the kernel refuse it.
        reading.error(
            "bad-range",
            "packets without a mark have mark 0: it names no service; the entry is ignored",
            frame,
            statement,
            1,
            remedy=f"a number from 1 to {UNSIGNED_MAX}",
            status=SUFFERED,
        )
        return NOTHING
    family = 0
    if len(words) > 2:
        family = FAMILIES.get(words[2], -1)
        if family < 0:
            reading.error(
                "bad-choice",
                f"'{words[2]}' is no address family; the mark is ignored",
                frame,
                statement,
                2,
                remedy="inet, inet6 or nothing",
            )
            return NOTHING
        _no_more(reading, frame, statement, 2)
    else:
        frame.places["mark of any family"] = statement
    return GroupFwmark(mark, family)


def _group_range(reading: Reading, frame: Frame, statement: Statement) -> object:
    port = port_of(reading, frame, statement, 1)
    bounds = _bounds(statement.texts[0])
    if isinstance(bounds, str):
        reading.error(
            "bad-range",
            f"'{statement.texts[0]}': {bounds}; the entry is ignored",
            frame,
            statement,
            0,
            remedy="ADDRESS, ADDRESS-LAST or ADDRESS/LENGTH",
        )
        return NOTHING
    if port is None:
        return NOTHING
    _no_more(reading, frame, statement, 1)
    size = int(ipaddress.ip_address(bounds[1])) - int(ipaddress.ip_address(bounds[0])) + 1
    size += frame.fields.get("addresses", 0)
    if size > ADDRESSES_LIMIT:
        # keepalived takes any number, and sends a command for each.
        reading.error(
            "bad-range",
            f"'{statement.texts[0]}': over {ADDRESSES_LIMIT} addresses in a group; the entry is ignored",
            frame,
            statement,
            0,
            remedy="fwmark NUMBER, and a mark by nftables for that network",
            status=SUFFERED,
        )
        return NOTHING
    frame.fields["addresses"] = size
    return GroupRange(bounds[0], bounds[1], port)


def _no_more(reading: Reading, frame: Frame, statement: Statement, takes: int) -> None:
    if len(statement.texts) > takes + 1:
        ignored_words(reading, frame, statement, takes)


def _bounds(text: str) -> tuple[str, str] | str:
    """First and last address of an entry, or what is wrong with it."""
    separators = [each for each in "-/" if each in text]
    cut = text.find(separators[0]) if separators else len(text)
    host = parse_address(text[:cut])
    if host is None:
        return "not an address"
    first = ipaddress.ip_address(host)
    if not separators:
        return str(first), str(first)
    rest = text[cut + 1 :]
    last = _end_of_prefix(first, rest) if separators[0] == "/" else _end_of_range(first, rest)
    return last if isinstance(last, str) else (str(first), str(last))


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _end_of_prefix(first: Address, text: str) -> Address | str:
    length = whole_number(text, first.max_prefixlen, 1)
    if length is None:
        return f"'{text}' is no prefix length"
    hosts = (1 << (first.max_prefixlen - length)) - 1
    if int(first) & hosts:
        return "bits of the address are set beyond the prefix"
    return type(first)(int(first) | hosts)


def _end_of_range(first: Address, text: str) -> Address | str:
    """The end is an address, or the last number of one: decimal for IPv4, hexadecimal for IPv6."""
    if "." in text or ":" in text:
        host = parse_address(text)
        if host is None:
            return f"'{text}' is not an address"
        last = ipaddress.ip_address(host)
        if last.version != first.version:
            return "the two addresses differ in family"
        return last if int(last) >= int(first) else "the range ends before it starts"
    number = _last_number(text, first.version)
    limit = 0xFF if first.version == 4 else 0xFFFF
    if number is None:
        return f"'{text}' cannot end a range"
    if int(first) & limit >= number:
        return "the range ends before it starts"
    return type(first)(int(first) & ~limit | number)


def _last_number(text: str, version: int) -> int | None:
    """The last of the numbers an address is written with."""
    if version == 4:
        return whole_number(text, 0xFF)
    digits = text.removeprefix("+")
    return hexadecimal(digits.lstrip("0") or digits[-1:], 4)


def _close_group(reading: Reading, frame: Frame) -> object:
    statement = frame.statement
    assert statement is not None
    name = statement.texts[1]
    group = VirtualServerGroup(
        name,
        tuple(each for each in frame.items if isinstance(each, GroupRange)),
        tuple(each for each in frame.items if isinstance(each, GroupFwmark)),
    )
    if not frame.items:
        reading.error(
            "empty-group",
            f"virtual_server_group '{name}' has no entries; it is ignored",
            frame,
            statement,
            CLOSING,
            remedy="ADDRESS PORT, or fwmark NUMBER",
        )
        return NOTHING
    if len(group.families) == 2 and any(not mark.family for mark in group.fwmarks):
        reading.error(
            "family-mismatch",
            f"virtual_server_group '{name}' has IPv4 and IPv6, so each fwmark needs a family; it is ignored",
            frame,
            frame.places["mark of any family"],
            0,
            remedy="fwmark NUMBER inet, or inet6",
        )
        return NOTHING
    if reading.definition("virtual_server_group", name) is not None:
        reading.error(
            "duplicate-name",
            f"a virtual_server_group '{name}' stands above already; this one is not used",
            frame,
            statement,
            1,
            status=SUFFERED,
        )
        return NOTHING
    reading.define("virtual_server_group", name, group)
    return group


def _has_name(reading: Reading, frame: Frame) -> bool:
    assert frame.statement is not None
    if len(frame.statement.texts) > 1:
        return True
    reading.missing(frame, frame.statement, "name")
    return False


VIRTUAL_SERVER_GROUP = Block(
    "virtual_server_group",
    (),
    item=Row(
        "<address, range or fwmark>",
        Kind("ADDRESS[-LAST | /LENGTH] [PORT] / fwmark N [inet | inet6]", _group_entry),
        "A service of the group.",
        acts=True,
    ),
    open=_has_name,
    close=_close_group,
    roles=CHECK,
    parameters=1,
)
