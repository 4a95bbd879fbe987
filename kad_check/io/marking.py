"""Rules that give the traffic of virtual server groups its firewall marks (nftables_ipvs).

One table for each family, always replaced whole and in one transaction, so that no packet sees it half done:

    table ip keepalived_ipvs {
        map tcp_map { typeof ip daddr . tcp dport : meta mark; flags interval; elements = { … } }
        chain in {
            type filter hook input priority -1
            meta l4proto tcp meta mark set ip daddr . tcp dport map @tcp_map
        }
    }
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator

from kad.addresses import packed
from kad.config.model.check import Protocol
from kad.kernel.nft_socket import commit
from kad.kernel.nftables import (
    COUNTER,
    REGISTER_1,
    REGISTER_2,
    Command,
    Family,
    Header,
    Hook,
    KeyType,
    Meta,
    base_chain,
    elements,
    equals,
    lookup,
    meta,
    new_set,
    payload,
    removed_table,
    replaced_table,
    rule,
    set_meta,
)
from kad.runtime.thread import in_thread
from kad_check.core.actions import MarkedRange, MarkTraffic
from kad_check.core.events import MarkingDone

_CHAIN = "in"
_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}
_EVERY_PORT = (0, 0xFFFF)
_DESTINATION = {Family.IPV4: (16, 4), Family.IPV6: (24, 16)}
"""Where the destination address stands in the header, and its length."""
_ADDRESS_TYPES = {Family.IPV4: KeyType.IPV4_ADDRESS, Family.IPV6: KeyType.IPV6_ADDRESS}
_AFTER_ADDRESS = {Family.IPV4: 9, Family.IPV6: REGISTER_2}
"""The register right after the address: NFT_REG32_01, the second of four bytes, or the second of sixteen."""


class Marking:
    """``told`` hears the kernel's answers; none is given to a wish that another has overtaken.

    One transaction at a time, in a thread: the kernel may take long.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, told: Callable[[MarkingDone], None]) -> None:
        self._loop = loop
        self._told = told
        self._waiting: MarkTraffic | None = None
        self._running = False

    def mark(self, action: MarkTraffic) -> None:
        """Replace the rules; without ranges, remove them."""
        self._waiting = action
        self._next()

    def _next(self) -> None:
        action = self._waiting
        if self._running or action is None:
            return
        self._running, self._waiting = True, None

        def work() -> MarkingDone:
            return MarkingDone(action.serial, commit(commands(action)))

        in_thread(self._loop, "marking", work, self._done)

    def _done(self, answer: MarkingDone) -> None:
        self._running = False
        self._told(answer)
        self._next()


def commands(action: MarkTraffic) -> list[Command]:
    """The transaction."""
    found: list[Command] = []
    for family in (Family.IPV4, Family.IPV6):
        ranges = [each for each in action.ranges if (":" in each.first) == (family is Family.IPV6)]
        if ranges:
            found += _table(family, action, ranges)
        else:
            found += removed_table(family, action.table)
    return found


def _table(family: Family, action: MarkTraffic, ranges: list[MarkedRange]) -> Iterator[Command]:
    table = action.table
    yield from replaced_table(family, table)
    yield base_chain(family, table, _CHAIN, Hook.LOCAL_IN, action.priority)
    for number, protocol in enumerate(dict.fromkeys(each.protocol for each in ranges), 1):
        name = f"{protocol.value.lower()}_map"
        keys = (_ADDRESS_TYPES[family], KeyType.SERVICE)
        yield new_set(family, table, name, keys, number=number, data=KeyType.MARK, intervals=True)
        marks = {_interval(each): _mark(each) for each in ranges if each.protocol is protocol}
        yield from elements(family, table, name, marks)
        yield rule(
            family,
            table,
            _CHAIN,
            meta(Meta.LAYER_4_PROTOCOL),
            equals(bytes([_NUMBERS[protocol]])),
            payload(Header.NETWORK, *_DESTINATION[family]),
            payload(Header.TRANSPORT, 2, 2, into=_AFTER_ADDRESS[family]),
            lookup(name, into=REGISTER_1),
            set_meta(Meta.MARK),
            COUNTER,
        )


def _mark(marked: MarkedRange) -> bytes:
    return marked.mark.to_bytes(4, sys.byteorder)


def _interval(marked: MarkedRange) -> tuple[bytes, bytes]:
    first, last = (marked.port, marked.port) if marked.port else _EVERY_PORT
    return _key(marked.first, first), _key(marked.last, last)


def _key(address: str, port: int) -> bytes:
    """Each part is filled up to four bytes."""
    return packed(address) + port.to_bytes(2, "big") + bytes(2)
