"""nf_tables to bytes: tables, chains, sets, rules and their expressions. Pure.

What nft(8) would say in a script becomes a list of :class:`Command`, and one transaction carries them all out
or none (``kad/kernel/nft_socket.py``). Numbers in nf_tables attributes are big-endian.

    commands = [
        *replaced_table(Family.IPV4, "kad"),
        base_chain(Family.IPV4, "kad", "in", Hook.LOCAL_IN, -1),
        new_set(Family.IPV4, "kad", "vips", (KeyType.IPV4_ADDRESS,), number=1),
        elements(Family.IPV4, "kad", "vips", [packed("192.0.2.1")]),
        rule(Family.IPV4, "kad", "in", payload(Header.NETWORK, 16, 4), lookup("vips"), DROP),
    ]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from itertools import islice, repeat
from struct import Struct as Layout

from msgspec import Struct

from kad.kernel.encoder import NLM_F_ACK, NLM_F_CREATE, attribute, message, nested, text

SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_APPEND = 0x800

_NEW_TABLE, _GET_TABLE, _DELETE_TABLE = 0, 1, 2
_NEW_CHAIN = 3
_NEW_RULE = 6
_NEW_SET = 9
_NEW_ELEMENTS = 12

_ITEM = 1  # NFTA_LIST_ELEM
_VALUE, _VERDICT = 1, 2  # NFTA_DATA_*
_SET_CONSTANT, _SET_INTERVAL, _SET_MAP, _SET_CONCATENATION = 0x2, 0x4, 0x8, 0x80
_TYPE_BITS = 6

_HEADER = Layout(">BBH")
_U32 = Layout(">I")
_I32 = Layout(">i")


class Family(IntEnum):
    INET = 1
    IPV4 = 2
    IPV6 = 10


class Hook(IntEnum):
    PRE_ROUTING = 0
    LOCAL_IN = 1
    FORWARD = 2
    LOCAL_OUT = 3
    POST_ROUTING = 4


class Header(IntEnum):
    """Where a payload expression counts from."""

    LINK = 0
    NETWORK = 1
    TRANSPORT = 2


class Meta(IntEnum):
    """What the kernel knows of a packet. Interface numbers are in the machine's byte order."""

    MARK = 3
    IN_INDEX = 4
    OUT_INDEX = 5
    IN_NAME = 6
    OUT_NAME = 7
    LAYER_4_PROTOCOL = 16
    OUT_KIND = 27


class KeyType(IntEnum):
    """nft's own numbers of data types: they tell nft how to show a set."""

    IPV4_ADDRESS = 7
    IPV6_ADDRESS = 8
    PROTOCOL = 12
    SERVICE = 13
    MARK = 19
    INTERFACE_INDEX = 20
    ICMPV6_TYPE = 29
    INTERFACE_NAME = 41

    @property
    def length(self) -> int:
        """Bytes."""
        return _LENGTHS[self]


_LENGTHS = {
    KeyType.IPV4_ADDRESS: 4,
    KeyType.IPV6_ADDRESS: 16,
    KeyType.PROTOCOL: 1,
    KeyType.SERVICE: 2,
    KeyType.MARK: 4,
    KeyType.INTERFACE_INDEX: 4,
    KeyType.ICMPV6_TYPE: 1,
    KeyType.INTERFACE_NAME: 16,
}
_NATIVE = (KeyType.INTERFACE_INDEX, KeyType.MARK)
_NATIVE_ORDER = Layout("=I").pack(1)


class Command(Struct, frozen=True, gc=False):
    """One message of a transaction."""

    kind: int
    flags: int
    family: int
    body: bytes


def transaction(commands: Sequence[Command], sequence: int) -> bytes:
    """The datagram that carries out all of them or none.

    Its messages are numbered upwards from ``sequence``, the first one being that of the beginning: an answer
    to that number is about the whole transaction.
    """
    parts = [message(_BATCH_BEGIN, 0, sequence, _HEADER.pack(0, 0, SUBSYSTEM))]
    for number, command in enumerate(commands, sequence + 1):
        body = _HEADER.pack(command.family, 0, 0) + command.body
        parts.append(message(SUBSYSTEM << 8 | command.kind, command.flags | NLM_F_ACK, number, body))
    end = sequence + len(commands) + 1
    parts.append(message(_BATCH_END, 0, end, _HEADER.pack(0, 0, SUBSYSTEM)))
    return b"".join(parts)


def table_question(family: Family, name: str, sequence: int) -> bytes:
    """A request of its own: what is this table? ENOENT: there is none."""
    return message(SUBSYSTEM << 8 | _GET_TABLE, 0, sequence, _HEADER.pack(family, 0, 0) + text(1, name))


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, _U32.pack(value))


# Tables, chains, rules -----------------------------------------------------------------------------------


def table(family: Family, name: str) -> Command:
    """Make the table if it is not there."""
    return Command(_NEW_TABLE, NLM_F_CREATE, family, text(1, name))


def deleted_table(family: Family, name: str) -> Command:
    """It and all in it; ENOENT when there is none."""
    return Command(_DELETE_TABLE, 0, family, text(1, name))


def removed_table(family: Family, name: str) -> tuple[Command, ...]:
    """The same, whether it is there or not."""
    return table(family, name), deleted_table(family, name)


def replaced_table(family: Family, name: str) -> tuple[Command, ...]:
    """An empty one, whatever was there. Within a transaction no packet ever sees it missing."""
    return *removed_table(family, name), table(family, name)


def base_chain(
    family: Family, table_name: str, name: str, hook: Hook, priority: int, kind: str = "filter"
) -> Command:
    """A chain the kernel sends packets through, policy accept."""
    place = nested(4, _u32(1, hook), attribute(2, _I32.pack(priority)))
    body = text(1, table_name) + text(3, name) + place + _u32(5, 1) + text(7, kind)
    return Command(_NEW_CHAIN, NLM_F_CREATE, family, body)


def chain(family: Family, table_name: str, name: str) -> Command:
    """A chain that rules jump to."""
    return Command(_NEW_CHAIN, NLM_F_CREATE, family, text(1, table_name) + text(3, name))


def rule(family: Family, table_name: str, chain_name: str, *expressions: bytes) -> Command:
    """At the end of the chain."""
    body = text(1, table_name) + text(2, chain_name) + nested(4, *(nested(_ITEM, e) for e in expressions))
    return Command(_NEW_RULE, NLM_F_CREATE | _APPEND, family, body)


# Sets ----------------------------------------------------------------------------------------------------


def new_set(
    family: Family,
    table_name: str,
    name: str,
    keys: Sequence[KeyType],
    *,
    number: int,
    data: KeyType | None = None,
    constant: bool = False,
    intervals: bool = False,
) -> Command:
    """A set, or with ``data`` a map. ``number`` is its own within the transaction.

    Several ``keys`` are one after the other, each filled up to four bytes. ``intervals``: its elements are
    pairs of a first and a last key (Linux 5.6).
    """
    flags = (_SET_CONSTANT if constant else 0) | (_SET_MAP if data is not None else 0)
    if intervals:
        flags |= _SET_INTERVAL | _SET_CONCATENATION
    key_type = 0
    for key in keys:
        key_type = key_type << _TYPE_BITS | key
    length = keys[0].length if len(keys) == 1 else sum(-(-key.length // 4) * 4 for key in keys)
    body = text(1, table_name) + text(2, name) + _u32(3, flags) + _u32(4, key_type) + _u32(5, length)
    if data is not None:
        body += _u32(6, data) + _u32(7, data.length)
    if intervals:
        body += nested(9, nested(2, *(nested(_ITEM, _u32(1, key.length)) for key in keys)))
    return Command(_NEW_SET, NLM_F_CREATE, family, body + _u32(10, number) + _byte_orders(keys, data))


def _byte_orders(keys: Sequence[KeyType], data: KeyType | None) -> bytes:
    """Notes that nft leaves for itself: without them it shows interface numbers the wrong way round."""
    notes = b""
    for kind, key in enumerate((keys[0] if len(keys) == 1 else None, data)):
        if key in _NATIVE:
            notes += bytes((kind, 4)) + _NATIVE_ORDER
    return attribute(13, notes) if notes else b""


_ELEMENTS_LIMIT = 500
"""In one command: an attribute has 64 KB at most."""

Keys = Iterable[bytes | tuple[bytes, bytes]] | Mapping[bytes, bytes] | Mapping[tuple[bytes, bytes], bytes]
"""Keys, or pairs of a first and a last one; with what they stand for, in a map."""


def elements(family: Family, table_name: str, set_name: str, keys: Keys) -> Iterator[Command]:
    """Put these into a set; a mapping is for a map."""
    items = _items(keys)
    while some := list(islice(items, _ELEMENTS_LIMIT)):
        content = text(1, table_name) + text(2, set_name) + nested(3, *some)
        yield Command(_NEW_ELEMENTS, NLM_F_CREATE, family, content)


def _items(keys: Keys) -> Iterator[bytes]:
    values = keys.values() if isinstance(keys, Mapping) else repeat(None)
    for key, value in zip(keys, values, strict=False):
        first, last = key if isinstance(key, tuple) else (key, None)
        parts = [nested(1, attribute(_VALUE, first))]
        if value is not None:
            parts.append(nested(2, attribute(_VALUE, value)))
        if last is not None:
            parts.append(nested(10, attribute(_VALUE, last)))
        yield nested(_ITEM, *parts)


# Expressions ---------------------------------------------------------------------------------------------

REGISTER_1, REGISTER_2 = 1, 2
"""Of 16 bytes each, one right after the other: a key of an address and an interface fills both."""
_VERDICT_REGISTER = 0


def _expression(name: str, *parts: bytes) -> bytes:
    return text(1, name) + nested(2, *parts)


def payload(header: Header, offset: int, length: int, into: int = REGISTER_1) -> bytes:
    """Bytes of the packet into a register."""
    return _expression("payload", _u32(1, into), _u32(2, header), _u32(3, offset), _u32(4, length))


def meta(key: Meta, into: int = REGISTER_1) -> bytes:
    """What the kernel knows of the packet into a register."""
    return _expression("meta", _u32(2, key), _u32(1, into))


def set_meta(key: Meta, register: int = REGISTER_1) -> bytes:
    """The other way round: a mark, say."""
    return _expression("meta", _u32(2, key), _u32(3, register))


def load(value: bytes, into: int = REGISTER_1) -> bytes:
    """A constant into a register."""
    return _expression("immediate", _u32(1, into), nested(2, attribute(_VALUE, value)))


def equals(value: bytes, register: int = REGISTER_1) -> bytes:
    """Go on only if the register holds this."""
    return _expression("cmp", _u32(1, register), _u32(2, 0), nested(3, attribute(_VALUE, value)))


def masked(mask: bytes, register: int = REGISTER_1) -> bytes:
    """Keep these bits of the register only."""
    none = nested(5, attribute(_VALUE, bytes(len(mask))))
    bits = nested(4, attribute(_VALUE, mask))
    return _expression("bitwise", _u32(1, register), _u32(2, register), _u32(3, len(mask)), bits, none)


def lookup(set_name: str, register: int = REGISTER_1, into: int | None = None) -> bytes:
    """Go on only if the set has what the register holds; ``into``: what the map has for it."""
    parts = [text(1, set_name), _u32(2, register)]
    if into is not None:
        parts.append(_u32(3, into))
    return _expression("lookup", *parts)


def duplicate(address_register: int, device_register: int) -> bytes:
    """Send a copy to this address, out of the interface of this number."""
    return _expression("dup", _u32(1, address_register), _u32(2, device_register))


COUNTER = _expression("counter")


def _verdict(code: int, chain_name: str = "") -> bytes:
    parts = [attribute(1, _I32.pack(code))]
    if chain_name:
        parts.append(text(2, chain_name))
    return _expression("immediate", _u32(1, _VERDICT_REGISTER), nested(2, nested(_VERDICT, *parts)))


DROP = _verdict(0)
ACCEPT = _verdict(1)


def go_to(chain_name: str) -> bytes:
    """To another chain for good."""
    return _verdict(-4, chain_name)
