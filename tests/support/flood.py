"""A flood of packets from any address one likes, sent by a C program (``flood.c``) through one interface.

    sender = Flooder(directory)
    done = sender.flood(node, "eth0", frames, rate=100_000, seconds=3)
    done.sent, done.rate

The program costs two microseconds a packet, delivery included, where Python costs ten.
"""

from __future__ import annotations

import ipaddress
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.adverts import checksum
from tests.support.namespaces import Node

SOURCE = Path(__file__).with_name("flood.c")
_VRRP_MAC = bytes.fromhex("01005e000012")
"""Of 224.0.0.18."""
_UDP = 17


@dataclass(frozen=True)
class Flood:
    """What went out."""

    sent: int
    took_us: int
    lost: int
    """Of any interface's packets meanwhile: those a processor's queue had no room for, before any socket."""

    @property
    def rate(self) -> float:
        """Packets a second."""
        return self.sent * 1e6 / self.took_us


class Flooder:
    """Skips the test where there is no C compiler."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("cc") is None:
            pytest.skip("needs a C compiler (Debian: gcc, libc6-dev)")
        self._program = directory / "flood"
        subprocess.run(["cc", "-O2", "-o", self._program, SOURCE], check=True, capture_output=True)

    def flood(
        self, node: Node, interface: str, frames: Sequence[bytes], *, rate: int, seconds: float
    ) -> Flood:
        """All frames round and round, evenly; at most 1024 of up to 2048 bytes."""
        data = b"".join(struct.pack("=H", len(frame)) + frame for frame in frames)
        lost = lost_before_sockets()
        argv = [self._program, interface, str(rate), str(round(rate * seconds))]
        with node.entered():
            done = subprocess.run(argv, input=data, check=True, capture_output=True, timeout=60)
        sent, took_us = map(int, done.stdout.split())
        return Flood(sent, took_us, lost_before_sockets() - lost)


def lost_before_sockets() -> int:
    """Packets that all processors' queues had no room for, since the machine started."""
    rows = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(row.split()[1], 16) for row in rows)


def vrrp_frame(mac: str, packet: bytes) -> bytes:
    """An Ethernet frame to all VRRP routers with this IPv4 packet; ``mac``: the sender's."""
    return _VRRP_MAC + bytes.fromhex(mac.replace(":", "")) + b"\x08\x00" + packet


def udp_frame(
    macs: tuple[str, str], source: str, destination: str, port: int, payload: bytes, *, hop_limit: int = 255
) -> bytes:
    """One Ethernet frame. ``macs``: from and to."""
    here, there = (bytes.fromhex(mac.replace(":", "")) for mac in macs)
    udp = struct.pack("!HHHH", 50_000, port, 8 + len(payload), 0) + payload
    one, two = ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed
    if len(one) == 4:
        head = struct.pack("!BBHIBBH", 0x45, 0xC0, 20 + len(udp), 0, hop_limit, _UDP, 0) + one + two
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        # A UDP checksum of 0 is none (RFC 768).
        return there + here + b"\x08\x00" + head + udp
    pseudo = one + two + struct.pack("!II", len(udp), _UDP)
    udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp) or 0xFFFF) + udp[8:]
    head = struct.pack("!IHBB", 6 << 28 | 0xC0 << 20, len(udp), _UDP, hop_limit) + one + two
    return there + here + b"\x86\xdd" + head + udp
