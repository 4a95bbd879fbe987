"""Who answers for an address: the link-layer addresses that reply, as a client on the wire would learn them.

A ping proves nothing: a dead daemon's kernel goes on answering. So every test of "who holds the address" asks
here, and sees two answers where two nodes hold it.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import time

from tests.support.namespaces import Node

_ETH_P_ARP, _ETH_P_IPV6, _ETH_P_ALL = 0x0806, 0x86DD, 3
_ND_SOLICIT, _ND_ADVERT = 135, 136


def who_answers(client: Node, interface: str, address: str, *, seconds: float = 0.25) -> set[str]:
    """Every MAC that says, within this time, that it holds ``address``."""
    mac = bytes.fromhex(client.mac(interface).replace(":", ""))
    with client.entered():
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    with listener:
        listener.bind((interface, _ETH_P_ALL))
        wanted = ipaddress.ip_address(address)
        if isinstance(wanted, ipaddress.IPv4Address):
            request, reply = arp_request(mac, wanted), arp_reply
        else:
            request, reply = neighbour_solicitation(mac, wanted), neighbour_reply
        listener.send(request)
        found: set[str] = set()
        limit = time.monotonic() + seconds
        while (left := limit - time.monotonic()) > 0:
            listener.settimeout(left)
            try:
                frame = listener.recv(2048)
            except TimeoutError:
                break
            if answer := reply(frame, wanted.packed):
                found.add(answer)
        return found


def arp_request(mac: bytes, target: ipaddress.IPv4Address) -> bytes:
    """A probe (sender address 0.0.0.0, RFC 5227): it teaches nobody anything."""
    head = b"\xff" * 6 + mac + struct.pack("!H", _ETH_P_ARP)
    return head + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + bytes(4) + bytes(6) + target.packed


def arp_reply(frame: bytes, address: bytes) -> str:
    is_reply = frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x02"
    return frame[22:28].hex(":") if is_reply and frame[28:32] == address else ""


def neighbour_solicitation(mac: bytes, target: ipaddress.IPv6Address) -> bytes:
    """As duplicate address detection sends it: from the unspecified address, answered to all nodes."""
    group = ipaddress.ip_address("ff02::1:ff00:0").packed[:13] + target.packed[13:]
    body = struct.pack("!BBHI", _ND_SOLICIT, 0, 0, 0) + target.packed
    pseudo = bytes(16) + group + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", _checksum(pseudo + body)) + body[4:]
    ip = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + bytes(16) + group
    return b"\x33\x33" + group[12:] + mac + struct.pack("!H", _ETH_P_IPV6) + ip + body


def neighbour_reply(frame: bytes, address: bytes) -> str:
    is_advert = frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == _ND_ADVERT
    return frame[80:86].hex(":") if is_advert and frame[62:78] == address and len(frame) >= 86 else ""


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
