"""What a session's journal record holds: enough for the next life to go on unnoticed by the peer. Pure."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from kad_bfd.core.packet import State

RECORD_VERSION = 1

Identity = tuple[str, bool, str]
"""Neighbour, multihop, interface: with another of them a session is another one. Not the source: a reload may
set the address that is in use, and the neighbour goes by the discriminators."""


class Record(Struct, frozen=True, array_like=True):
    """Version 1. Durations are microseconds; ``since_us`` is CLOCK_MONOTONIC."""

    version: int
    place: tuple[str, str, bool, str]
    """Neighbour, source, multihop, interface. The source is part of the format and not of the identity."""
    port: int
    local_discr: int
    remote_discr: int
    state: State
    since_us: int
    local_diag: int
    remote_state: State
    remote_diag: int
    remote_demand: bool
    remote_min_rx_us: int
    remote_desired_min_tx_us: int
    remote_detect_mult: int
    detect_mult: int
    desired_min_tx_us: int
    required_min_rx_us: int
    tx_in_use_us: int
    rx_in_use_us: int
    polling: bool

    @property
    def identity(self) -> Identity:
        """A record of another session under the same name is no use."""
        neighbor, _, multihop, interface = self.place
        return neighbor, multihop, interface

    @property
    def patience_us(self) -> int:
        """How long the peer waits for us: its detection time (RFC 5880 §6.8.4 seen from the other side)."""
        return self.detect_mult * max(self.desired_min_tx_us, self.remote_min_rx_us)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    return _encoder.encode(record)


def decode(data: bytes) -> Record | None:
    """The record, or None when it is not one of this version (a newer program wrote it, or it is damaged)."""
    try:
        record = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        return None
    return record if record.version == RECORD_VERSION else None
