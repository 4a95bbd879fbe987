"""Netlink messages and attributes to bytes and back. Pure.

kad speaks rtnetlink for links and addresses (and IPVS) in its own few lines rather than through pyroute2: an
address costs 0.01 ms instead of 0.2-0.5, a take-over adds a thousand of them, and batches with an
acknowledgement each are what its recovery rests on.

Everything read is bounded by its buffer; what does not parse raises :class:`MalformedMessage`.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct as Layout
from struct import error as StructError

from msgspec import Struct

from kad.errors import KadError

NLM_F_REQUEST = 0x001
NLM_F_MULTI = 0x002
NLM_F_ACK = 0x004
NLM_F_DUMP_INTR = 0x010
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_DUMP = 0x300
NLM_F_CAPPED = 0x100
"""On an error reply: the request is not echoed whole."""
NLM_F_ACK_TLVS = 0x200
"""On an error reply: attributes follow."""

NLMSG_ERROR = 2
NLMSG_DONE = 3

_NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_ERROR_TEXT = 1

_HEADER = Layout("=IHHII")
_ATTRIBUTE = Layout("=HH")
_U8 = Layout("=B")
_U16 = Layout("=H")
_U16_BIG = Layout(">H")
_U32 = Layout("=I")
_U64 = Layout("=Q")
_U64_BIG = Layout(">Q")
_I32 = Layout("=i")

HEADER_SIZE = _HEADER.size


class MalformedMessage(KadError):
    """Bytes that are no netlink message, or no attributes."""


UNPACKABLE = (StructError, ValueError, OverflowError)
"""What an encoder raises of a value that its message has no room for. The configuration's reader lets no such
value through; where it does all the same, one entry is refused, and nothing else is lost for it."""


class Unpackable(KadError):
    """Nothing can be asked of the kernel about this entry: it cannot be put into a message."""

    def __init__(self, reason: object) -> None:
        super().__init__(f"it cannot be put into a message: {reason}")


class Message(Struct, frozen=True, gc=False):
    """One message as read. ``port_id`` and ``sequence`` name the request that caused it (0: nobody's)."""

    kind: int
    flags: int
    sequence: int
    port_id: int
    body: bytes


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A whole request. Its length is a multiple of four, so that requests can be strung together."""
    length = HEADER_SIZE + len(body)
    return _HEADER.pack(length, kind, flags | NLM_F_REQUEST, sequence, 0) + body + bytes(-length & 3)


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded."""
    length = _ATTRIBUTE.size + len(data)
    return _ATTRIBUTE.pack(length, kind) + data + bytes(-length & 3)


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | _NESTED, b"".join(parts))


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, _U8.pack(value))


def u16(kind: int, value: int) -> bytes:
    return attribute(kind, _U16.pack(value))


def u16_big(kind: int, value: int) -> bytes:
    """Network byte order (ports)."""
    return attribute(kind, _U16_BIG.pack(value))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, _U32.pack(value))


def u64(kind: int, value: int) -> bytes:
    return attribute(kind, _U64.pack(value))


def u64_big(kind: int, value: int) -> bytes:
    """Network byte order (tunnel ids)."""
    return attribute(kind, _U64_BIG.pack(value))


def text(kind: int, value: str) -> bytes:
    """A string with its terminating zero."""
    return attribute(kind, value.encode() + b"\0")


def messages(data: bytes) -> Iterator[Message]:
    """The messages of one datagram, in order."""
    offset, size = 0, len(data)
    while offset + HEADER_SIZE <= size:
        length, kind, flags, sequence, port_id = _HEADER.unpack_from(data, offset)
        if length < HEADER_SIZE or offset + length > size:
            raise MalformedMessage(f"message of {length} bytes at {offset} of {size}")
        yield Message(kind, flags, sequence, port_id, data[offset + HEADER_SIZE : offset + length])
        offset += (length + 3) & ~3


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes from ``offset`` on, by type. Of equal types the last one counts."""
    found: dict[int, bytes] = {}
    size = len(data)
    while offset + _ATTRIBUTE.size <= size:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > size:
            raise MalformedMessage(f"attribute of {length} bytes at {offset} of {size}")
        found[kind & _TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def read_u32(data: bytes, default: int = 0) -> int:
    """The value of a 32-bit attribute; ``default`` if it is too short."""
    return int(_U32.unpack_from(data)[0]) if len(data) >= _U32.size else default


def read_text(data: bytes) -> str:
    """The value of a string attribute."""
    return data.partition(b"\0")[0].decode(errors="replace")


class Answer(Struct, frozen=True):
    """What the kernel said to one request: 0 or an errno, and its words if it had any."""

    error: int
    text: str = ""


def answer(reply: Message) -> Answer:
    """Read an NLMSG_ERROR (0 is an acknowledgement) or the end of a dump."""
    body = reply.body
    if len(body) < _I32.size:
        if reply.kind == NLMSG_DONE:
            return Answer(0)
        raise MalformedMessage("an acknowledgement without a status")
    error = -_I32.unpack_from(body)[0]
    if not reply.flags & NLM_F_ACK_TLVS:
        return Answer(error)
    return Answer(error, _words(reply))


def _words(reply: Message) -> str:
    """The text of an extended acknowledgement; it follows the echoed request."""
    offset = _I32.size
    if reply.kind == NLMSG_ERROR:
        echoed = HEADER_SIZE if reply.flags & NLM_F_CAPPED else read_u32(reply.body[offset : offset + 4])
        offset += (echoed + 3) & ~3
    return read_text(attributes(reply.body, offset).get(_ERROR_TEXT, b""))
