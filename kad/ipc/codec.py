"""The one encoder and decoder of everything kad's processes say to each other.

MessagePack by msgspec: typed, and an unknown tag or field is refused. What does not decode is counted and
dropped, never raised: the sender is another process, and this one goes on.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

MESSAGE_LIMIT = 64 * 1024 * 1024
"""Bytes of one message. The greatest is a slice: 10,000 real servers are about 3 MB."""

_encoder = msgspec.msgpack.Encoder()


class DropReason(StrEnum):
    """Why a message was thrown away."""

    TOO_LONG = "too_long"
    GARBAGE = "garbage"
    STALE_INCARNATION = "stale_incarnation"
    STALE_GENERATION = "stale_generation"
    STALE_SEQUENCE = "stale_sequence"
    STALE_TRANSACTION = "stale_transaction"
    UNSENT = "unsent"
    """The peer was not there, or its queue was full."""


Drops = Counter[DropReason]


def encode(message: msgspec.Struct) -> bytes:
    """``message`` as bytes. Longer than :data:`MESSAGE_LIMIT` would be refused at the other end."""
    return _encoder.encode(message)


class Decoder(Generic[T]):
    """Decodes one direction's union of messages, or any one type. ``drops`` counts what did not decode."""

    def __init__(self, kind: Any, drops: Drops | None = None) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(kind)
        self.drops: Drops = Counter() if drops is None else drops

    def decode(self, data: bytes | memoryview) -> T | None:
        """The message, or None when the bytes are not one (counted)."""
        if len(data) > MESSAGE_LIMIT:
            self.drops[DropReason.TOO_LONG] += 1
            return None
        try:
            return self._decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.drops[DropReason.GARBAGE] += 1
            return None
