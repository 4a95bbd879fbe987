"""What an instance's journal record holds: enough for the next life to go on where this one stopped. Pure.

A record states an intention before it is acted upon. The bits of addresses are about the instance's list of
addresses under the configuration named by ``addresses_digest``.
"""

import msgspec
from msgspec import Struct

from kad_vrrp.core.actions import State

RECORD_VERSION = 1
RECORD_LIMIT = 1500
"""Bytes. What does not fit (thousands of addresses) is said in fewer words: ``ours`` None is all of them."""
OWED_LIMIT = 32
"""Notifications remembered as not finished; beyond it the oldest is given up, and logged."""


class Remembered(Struct, frozen=True):
    """A record found in the journal at birth.

    ``silent_for_us``: time by CLOCK_BOOTTIME since the instance last transmitted (its stamp).
    """

    record: bytes
    silent_for_us: int


class OwedNotice(Struct, frozen=True, array_like=True):
    """A notification that has not finished: MASTER, BACKUP, FAULT, STOP or DELETED with a priority."""

    serial: int
    state: str
    priority: int


class Record(Struct, frozen=True, array_like=True):
    """Version 1. Times are CLOCK_MONOTONIC microseconds."""

    version: int
    generation: int
    state: State
    since_us: int
    effective_priority: int
    master_adver_us: int
    master_address: str
    master_priority: int
    preempt_at_us: int
    old_checksum: bool
    addresses_digest: bytes
    ours: bytes | None
    foreign: bytes
    serial: int
    """The highest number given to a plan or notification so far."""
    notified: str
    """State of the last notification asked for."""
    owed: tuple[OwedNotice, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """At most RECORD_LIMIT bytes."""
    data = _encoder.encode(record)
    if len(data) > RECORD_LIMIT:
        # Foreign addresses lose their protection and are removed on leaving MASTER: better an address
        # too few than one on two nodes.
        data = _encoder.encode(msgspec.structs.replace(record, ours=None, foreign=b""))
    assert len(data) <= RECORD_LIMIT
    return data


def decode(data: bytes) -> Record | None:
    """The record, or None when it is not one of this version (a newer program wrote it, or it is damaged)."""
    try:
        record = _decoder.decode(data)
    except msgspec.MsgspecError:
        return None
    return record if record.version == RECORD_VERSION else None
