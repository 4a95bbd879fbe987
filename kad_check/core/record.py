"""What the journal holds, so that a restart goes on where the former life stopped. Pure.

Only what differs from the usual is recorded: a server without a record is up and was checked, a virtual
server without one has its quorum. One record says which generation this is about; without that record
nothing was ever started.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

RECORD_VERSION = 1
OWED_LIMIT = 16
"""Notifications remembered as not finished; beyond it the oldest is given up."""
STARTED_KEY = "started"
MARKS_KEY = "marks"
_PREFIXES = ("rs/", "vs/", STARTED_KEY, MARKS_KEY)


class StartedRecord(Struct, frozen=True, array_like=True, gc=False):
    """Under STARTED_KEY: the last generation whose servers were all recorded."""

    version: int
    generation: int


class CheckerRecord(Struct, frozen=True, array_like=True, gc=False):
    digest: int
    is_up: bool
    has_run: bool
    retries: int
    wish: int | None
    step: int
    failed_step: int


class ServerRecord(Struct, frozen=True, array_like=True, gc=False):
    """One real server. ``since_us`` is CLOCK_MONOTONIC."""

    version: int
    alive: bool
    since_us: int
    checkers: tuple[CheckerRecord, ...]
    owed: tuple[str, ...]


class PoolRecord(Struct, frozen=True, array_like=True, gc=False):
    """One virtual server."""

    version: int
    has_quorum: bool
    sorry_in_use: bool
    since_us: int
    owed: tuple[str, ...]


class MarksRecord(Struct, frozen=True, array_like=True, gc=False):
    """Under MARKS_KEY: the firewall marks of groups, by group and protocol."""

    version: int
    next_mark: int
    marks: dict[str, int]
    table: str
    """Of nftables, where the rules are; empty: there are none."""


Record = StartedRecord | ServerRecord | PoolRecord | MarksRecord

_encode = msgspec.msgpack.Encoder().encode
_decoders: dict[type[Record], Any] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in (StartedRecord, ServerRecord, PoolRecord, MarksRecord)
}


def encode(record: Record) -> bytes:
    return _encode(record)


def decode(data: bytes | None, kind: type[Record]) -> Record | None:
    """None: nothing recorded, or a newer program's or damaged bytes, which count as nothing."""
    if data is None:
        return None
    try:
        record: Record = _decoders[kind].decode(data)
    except msgspec.MsgspecError:
        return None
    return record if record.version == RECORD_VERSION else None


def started_generation(remembered: Mapping[str, bytes]) -> int:
    """The last one that a former life had begun with; 0: there was none, or it gave everything back."""
    started = decode(remembered.get(STARTED_KEY), StartedRecord)
    return started.generation if isinstance(started, StartedRecord) else 0


def is_ours(key: str) -> bool:
    """The journal's area holds records of other parts of the process too."""
    return key.startswith(_PREFIXES)


def server_key(pool: str, server: str) -> str:
    return f"rs/{pool}/{server}"


def pool_key(pool: str) -> str:
    return f"vs/{pool}"
