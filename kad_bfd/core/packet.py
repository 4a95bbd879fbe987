"""The BFD Control packet on the wire: RFC 5880 §4.1, and the checks of §6.8.6 that need no session. Pure."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from struct import Struct as Layout

from msgspec import Struct

from kad.errors import KadError

VERSION = 1
LENGTH = 24
"""Bytes of the mandatory section."""
LENGTH_AUTHENTICATED = 26
"""The least with an Authentication section."""

_LAYOUT = Layout("!BBBBIIIII")


class State(IntEnum):
    """RFC 5880 §4.1, Sta."""

    ADMIN_DOWN = 0
    DOWN = 1
    INIT = 2
    UP = 3


class Diagnostic(IntEnum):
    """RFC 5880 §4.1, Diag: why the session last left Up (or why it is not there)."""

    NONE = 0
    DETECTION_TIME_EXPIRED = 1
    ECHO_FAILED = 2
    NEIGHBOR_SIGNALED_DOWN = 3
    FORWARDING_PLANE_RESET = 4
    PATH_DOWN = 5
    CONCATENATED_PATH_DOWN = 6
    ADMINISTRATIVELY_DOWN = 7
    REVERSE_CONCATENATED_PATH_DOWN = 8


POLL = 0x20
FINAL = 0x10
CONTROL_PLANE_INDEPENDENT = 0x08
AUTHENTICATION = 0x04
DEMAND = 0x02
MULTIPOINT = 0x01


class DropReason(StrEnum):
    """Why a packet was not believed. The first twelve are RFC 5880 §6.8.6, in its order."""

    VERSION = "version"
    LENGTH = "length"
    PAYLOAD = "payload"
    DETECT_MULT = "detect_mult"
    MULTIPOINT = "multipoint"
    MY_DISCRIMINATOR = "my_discriminator"
    YOUR_DISCRIMINATOR = "your_discriminator"
    """It names no session of ours."""
    STATE = "state"
    """Your Discriminator is zero in a state where the sender must know it."""
    NO_SESSION = "no_session"
    AUTHENTICATION = "authentication"
    """An Authentication section, and none is in use."""
    AUTHENTICATION_MISSING = "authentication_missing"
    ADMIN_DOWN = "admin_down"
    """The session is administratively down."""
    TTL = "ttl"
    SOURCE = "source"
    """The discriminator is a session's, the sender is not its neighbour."""
    PORT = "port"
    """Single hop on the multihop port, or the reverse."""
    INTERFACE = "interface"
    NOT_OPEN = "not_open"
    """We have no socket to answer from yet."""
    STOPPING = "stopping"
    OVERTAKEN = "overtaken"
    """It came before one that was read before it."""


class PacketError(KadError):
    """A packet that does not count. ``detail`` is for people."""

    def __init__(self, reason: DropReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class ControlPacket(Struct, frozen=True, gc=False):
    """The mandatory section, decoded. Intervals are microseconds, as on the wire."""

    state: State
    my_discriminator: int
    your_discriminator: int
    detect_mult: int
    desired_min_tx_us: int
    required_min_rx_us: int
    required_min_echo_rx_us: int = 0
    diagnostic: int = 0
    """Any of 0-31: unassigned values are only shown."""
    poll: bool = False
    final: bool = False
    control_plane_independent: bool = False
    authentication: bool = False
    demand: bool = False


def encode(packet: ControlPacket) -> bytes:
    """24 bytes. What is ours to say is in range, or it is our defect."""
    assert not (packet.poll and packet.final), "RFC 5880 §6.5: never both"
    flags = (
        packet.state << 6
        | (POLL if packet.poll else 0)
        | (FINAL if packet.final else 0)
        | (CONTROL_PLANE_INDEPENDENT if packet.control_plane_independent else 0)
        | (DEMAND if packet.demand else 0)
    )
    return _LAYOUT.pack(
        VERSION << 5 | packet.diagnostic,
        flags,
        packet.detect_mult,
        LENGTH,
        packet.my_discriminator,
        packet.your_discriminator,
        packet.desired_min_tx_us,
        packet.required_min_rx_us,
        packet.required_min_echo_rx_us,
    )


def contents(data: bytes) -> bytes:
    """A packet of ours without the bits of a poll sequence: what RFC 5880 §6.6 compares."""
    return data[:1] + bytes((data[1] & ~(POLL | FINAL),)) + data[2:]


def decode(data: bytes) -> ControlPacket:
    """The packet, or PacketError for the first check of RFC 5880 §6.8.6 that fails.

    ``data`` is the whole UDP payload; what follows the packet's own length is ignored.
    """
    check_length(data)
    first, flags, detect_mult, _, mine, yours, min_tx, min_rx, echo_rx = _LAYOUT.unpack_from(data)
    # "If the Detect Mult field is zero, the packet MUST be discarded."
    if detect_mult == 0:
        raise PacketError(DropReason.DETECT_MULT, "detect multiplier 0")
    # "If the Multipoint (M) bit is nonzero, the packet MUST be discarded."
    if flags & MULTIPOINT:
        raise PacketError(DropReason.MULTIPOINT, "multipoint bit set")
    # "If the My Discriminator field is zero, the packet MUST be discarded."
    if mine == 0:
        raise PacketError(DropReason.MY_DISCRIMINATOR, "my discriminator 0")
    return ControlPacket(
        state=State(flags >> 6),
        my_discriminator=mine,
        your_discriminator=yours,
        detect_mult=detect_mult,
        desired_min_tx_us=min_tx,
        required_min_rx_us=min_rx,
        required_min_echo_rx_us=echo_rx,
        diagnostic=first & 0x1F,
        poll=bool(flags & POLL),
        final=bool(flags & FINAL),
        control_plane_independent=bool(flags & CONTROL_PLANE_INDEPENDENT),
        authentication=bool(flags & AUTHENTICATION),
        demand=bool(flags & DEMAND),
    )


def check_length(data: bytes) -> None:
    """Version and lengths, the first three checks; raises PacketError.

    A payload too short to hold the fields fails the first check whose field it lacks.
    """
    # "If the version number is not correct (1), the packet MUST be discarded."
    version = data[0] >> 5 if data else 0
    if version != VERSION:
        raise PacketError(DropReason.VERSION, f"version {version}")
    # "If the Length field is less than the minimum correct value (24 if the A bit is clear, or 26 if the
    # A bit is set), the packet MUST be discarded."
    length = data[3] if len(data) > 3 else 0
    least = LENGTH_AUTHENTICATED if len(data) > 1 and data[1] & AUTHENTICATION else LENGTH
    if length < least:
        raise PacketError(DropReason.LENGTH, f"length {length}")
    # "If the Length field is greater than the payload of the encapsulating protocol, the packet MUST be
    # discarded."
    if length > len(data):
        raise PacketError(DropReason.PAYLOAD, f"length {length} in a payload of {len(data)} bytes")
