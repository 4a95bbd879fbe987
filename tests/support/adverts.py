"""Advertisements made by hand, and a sender that keeps a rate: masters that need no daemon, and attackers."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from collections.abc import Sequence

from tests.support.namespaces import Node

GROUP = "224.0.0.18"


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def advert(
    *,
    source: str = "192.0.2.66",
    vip: str = "192.0.2.100",
    vrid: int = 51,
    priority: int = 255,
    interval_us: int = 100_000,
    ttl: int = 255,
    spoil: int = 0,
    cut: int = 0,
) -> bytes:
    """A whole IPv4 packet with a version 3 advertisement.

    ``spoil`` is XORed into the checksum, ``cut`` bytes are left out at the end; the IP header stays right.
    """
    addresses = socket.inet_aton(source) + socket.inet_aton(GROUP)
    body = struct.pack("!BBBBHH", 0x31, vrid, priority, 1, interval_us // 10_000, 0) + socket.inet_aton(vip)
    pseudo = addresses + struct.pack("!BBH", 0, 112, len(body))
    body = body[:6] + struct.pack("!H", checksum(pseudo + body) ^ spoil) + body[8:]
    body = body[: len(body) - cut]
    head = struct.pack("!BBHHHBBH", 0x45, 0xC0, 20 + len(body), 7, 0, ttl, 112, 0) + addresses
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


class Sender:
    """Sends these packets in turn from a node's interfaces, ``rate`` a second, until it is closed.

    ``packets``: (interface, packet).
    """

    def __init__(self, node: Node, packets: Sequence[tuple[str, bytes]], rate: float) -> None:
        with node.entered():
            self.sockets = {name: _socket(name) for name in {name for name, _ in packets}}
        self.packets, self.rate, self.sent = packets, rate, 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self) -> Sender:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        for made in self.sockets.values():
            made.close()

    def run(self) -> None:
        start = time.monotonic()
        for name, packet in itertools.cycle(self.packets):
            if self.stop.is_set():
                return
            self.sockets[name].sendto(packet, (GROUP, 0))
            self.sent += 1
            ahead = start + self.sent / self.rate - time.monotonic()
            if ahead > 0.0005:
                self.stop.wait(ahead)


def _socket(interface: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
    request = struct.pack("4s4si", bytes(4), bytes(4), socket.if_nametoindex(interface))
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
    return made
