"""Packets as they pass an interface, with the kernel's own receive times.

    with Capture(node, "eth0") as capture:
        adverts = capture.wait_for(lambda: capture.adverts(vrid=51), "an advert")

Times are CLOCK_REALTIME microseconds stamped by the kernel on reception, so the test's own lateness is not in
them. Frames are kept until the capture is closed; the socket is drained on every look.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from tests.support.namespaces import Node, poll

T = TypeVar("T")

_ETH_P_ALL = 3
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_OUTGOING = 4


@dataclass(frozen=True, slots=True)
class Frame:
    time_us: int
    data: bytes
    outgoing: bool
    """Sent by the node the capture listens on."""

    @property
    def ethertype(self) -> int:
        return int.from_bytes(self.data[12:14], "big")

    @property
    def source_mac(self) -> str:
        return self.data[6:12].hex(":")

    @property
    def destination_mac(self) -> str:
        return self.data[:6].hex(":")


@dataclass(frozen=True, slots=True)
class Advert:
    """A VRRP packet on the wire, decoded loosely (checked by nobody)."""

    time_us: int
    source_mac: str
    source: str
    destination: str
    hop_limit: int
    version: int
    vrid: int
    priority: int
    addresses: tuple[str, ...]
    interval_us: int
    payload: bytes
    outgoing: bool


@dataclass(frozen=True, slots=True)
class Announcement:
    """A gratuitous ARP or an unsolicited neighbour advertisement."""

    time_us: int
    mac: str
    """The address it claims for the VIP."""
    address: str
    frame: Frame


@dataclass
class Capture:
    node: Node
    interface: str
    frames: list[Frame] = field(default_factory=list)

    def __post_init__(self) -> None:
        with self.node.entered():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        except PermissionError:  # root of a user namespace only: what the system gives must do
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        self.socket.setblocking(False)
        self.socket.bind((self.interface, _ETH_P_ALL))

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def drain(self) -> list[Frame]:
        """Everything seen so far, in order of arrival."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, ancillary, _, address = self.socket.recvmsg(65536, 64)
                seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2])
                time_us = seconds * 1_000_000 + nanoseconds // 1000
                self.frames.append(Frame(time_us, data, address[2] == _OUTGOING))
        return self.frames

    def lost(self) -> int:
        """Frames the kernel could not keep for us since the last call."""
        statistics = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        return int(struct.unpack("=II", statistics)[1])

    def clear(self) -> None:
        self.drain()
        self.frames.clear()

    def adverts(self, *, vrid: int | None = None, source: str = "") -> list[Advert]:
        found = filter(None, map(decode_advert, self.drain()))
        return [a for a in found if vrid in (None, a.vrid) and source in ("", a.source)]

    def announcements(self, address: str = "") -> list[Announcement]:
        found = filter(None, map(decode_announcement, self.drain()))
        return [a for a in found if address in ("", a.address)]

    def wait_for(self, condition: Callable[[], T], what: str, *, seconds: float = 15.0) -> T:
        return poll(condition, what, seconds=seconds)


def decode_advert(frame: Frame) -> Advert | None:
    data = frame.data
    if frame.ethertype == 0x0800 and data[23] in (112, 51):
        start = 14 + (data[14] & 15) * 4 + (24 if data[23] == 51 else 0)  # behind an Authentication Header
        end = 14 + int.from_bytes(data[16:18], "big")
        return _advert(frame, data[26:30], data[30:34], data[22], data[start:end], 4)
    if frame.ethertype == 0x86DD and data[20] == 112:
        end = 54 + int.from_bytes(data[18:20], "big")
        return _advert(frame, data[22:38], data[38:54], data[21], data[54:end], 16)
    return None


def _advert(
    frame: Frame, source: bytes, destination: bytes, hop_limit: int, payload: bytes, width: int
) -> Advert | None:
    if len(payload) < 8:
        return None
    version, vrid, priority, count = payload[0] >> 4, payload[1], payload[2], payload[3]
    interval = payload[5] * 1_000_000
    if version == 3:
        interval = (int.from_bytes(payload[4:6], "big") & 0xFFF) * 10_000
    listed = (payload[8 + i * width : 8 + (i + 1) * width] for i in range(count))
    return Advert(
        time_us=frame.time_us,
        source_mac=frame.source_mac,
        source=_text(source),
        destination=_text(destination),
        hop_limit=hop_limit,
        version=version,
        vrid=vrid,
        priority=priority,
        addresses=tuple(_text(item) for item in listed if len(item) == width),
        interval_us=interval,
        payload=payload,
        outgoing=frame.outgoing,
    )


def decode_announcement(frame: Frame) -> Announcement | None:
    data = frame.data
    if frame.ethertype == 0x0806 and data[28:32] == data[38:42]:
        return Announcement(frame.time_us, data[22:28].hex(":"), _text(data[28:32]), frame)
    if frame.ethertype == 0x86DD and data[20] == 58 and data[54] == 136 and len(data) >= 86:
        return Announcement(frame.time_us, data[80:86].hex(":"), _text(data[62:78]), frame)
    return None


def _text(data: bytes) -> str:
    return str(ipaddress.ip_address(data))
