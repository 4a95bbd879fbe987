"""VRRP packets: building them, and judging what arrives. Pure.

Version 2 is RFC 3768 (with RFC 2338's authentication), version 3 is RFC 9568. Received bytes are checked in
keepalived's order, so that both count the same fault for the same packet; the first failure is the reason.
"""

from enum import StrEnum
from struct import Struct as Layout

from msgspec import Struct

from kad.addresses import INET, INET6, packed
from kad.config.model.vrrp import AuthType, UnicastPeer
from kad.errors import KadError
from kad.units import US_PER_CENTISECOND, US_PER_SECOND
from kad.wire import checksum_holds, internet_checksum, ipv4_pseudo_header
from kad_vrrp.core.auth import PASS_LENGTH, WIRE_TYPES, Authenticator, password_matches
from kad_vrrp.core.timers import VERSION_2, VERSION_3

PROTOCOL = 112
AH_PROTOCOL = 51
HEADER_LENGTH = 8
AH_LENGTH = 24
"""Of an Authentication Header with 96 bits of check value."""
TRAILER_LENGTH = 28
"""Of auth_hmac."""
IPV4_HEADER_LENGTH = 20
MOST_ADDRESSES = 255
LINK_LOCAL_TTL = 255
"""Adverts never cross a router (RFC 9568 §5.1.1.3)."""
INTERNET_CONTROL = 0xC0
"""Type of service of our packets."""
LONGEST_INTERVAL_US = 0xFFF * US_PER_CENTISECOND
"""What twelve bits of centiseconds hold."""

_ADVERTISEMENT = 1
_PLAIN_IPV4 = 0x45
"""Version 4, a header without options."""
_IPV4_HEADER = Layout("!BBHHHBBH4s4s")
_VRRP_HEADER = Layout("!BBBBHH")
_ADDRESS_LENGTH = {INET: 4, INET6: 16}
_LEAST_ETHERNET_PAYLOAD = 46
_VLAN_TAG_LENGTH = 4


class DropReason(StrEnum):
    """Why a packet was not believed. Order of the checks."""

    TRUNCATED = "truncated"
    UNKNOWN_VRID = "unknown_vrid"
    NOT_LISTENING = "not_listening"
    """The instance is in FAULT or INIT, or in its start-up delay."""
    STALE = "stale"
    """It lay in the socket, while we stood still, for longer than a master may be silent."""
    AH_HEADER = "ah_header"
    LENGTH = "length"
    TTL = "ttl"
    VERSION = "version"
    AUTH_EXT_MISSING = "auth_ext_missing"
    AUTH_EXT_MALFORMED = "auth_ext_malformed"
    AUTH_EXT_STALE = "auth_ext_stale"
    AUTH_EXT_UNKNOWN_KEY = "auth_ext_unknown_key"
    AUTH_EXT_INVALID_HMAC = "auth_ext_invalid_hmac"
    AUTH_EXT_REPLAY = "auth_ext_replay"
    AUTH_TYPE_INVALID = "auth_type_invalid"
    AUTH_TYPE_MISMATCH = "auth_type_mismatch"
    AUTH_FAILURE = "auth_failure"
    ADVERT_INTERVAL = "advert_interval"
    TYPE = "type"
    IP_LENGTH = "ip_length"
    CHECKSUM = "checksum"
    CAST = "cast"
    """Unicast where multicast was expected, or the other way round."""
    OWNER = "owner"
    """The address owner was told to ignore adverts."""
    UNICAST_SOURCE = "unicast_source"
    UNICAST_TTL = "unicast_ttl"


class PacketError(KadError):
    """A packet that is not believed. ``detail`` is for people, without the sender's address."""

    def __init__(self, reason: DropReason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Advertisement(Struct, frozen=True, gc=False):
    """A believed packet."""

    virtual_router_id: int
    priority: int
    advert_int_us: int
    source: str
    addresses: tuple[bytes, ...]
    old_checksum: bool = False
    """Its version 3 checksum holds only with the multicast group in the pseudo header."""


class ReceiveRules(Struct, frozen=True):
    """What an instance demands of a packet; made once per configuration."""

    family: int
    version: int
    auth_type: AuthType
    auth_data: bytes
    trailer: bool
    """An auth_hmac trailer may follow."""
    advert_int_us: int
    unicast: bool
    group: bytes
    """The multicast group, packed: also the old unicast pseudo header's destination."""
    v3_checksum_as_v2: bool
    old_unicast_checksum: str
    peers: dict[str, UnicastPeer]
    check_unicast_src: bool


# Building ------------------------------------------------------------------------------------------------


def build_payload(
    *,
    version: int,
    virtual_router_id: int,
    priority: int,
    addresses: tuple[bytes, ...],
    advert_int_us: int,
    auth_type: AuthType = AuthType.NONE,
    auth_data: bytes = b"",
) -> bytes:
    """An advertisement without checksum (RFC 9568 §5.2, RFC 3768 §5.3).

    ``auth_data`` is appended as it is: 8 bytes for version 2 over IPv4, empty otherwise. At most 255
    addresses can be counted on the wire; the ones beyond are not advertised.
    """
    counted = addresses[:MOST_ADDRESSES]
    if version == VERSION_2:
        interval = WIRE_TYPES[auth_type] << 8 | advert_int_us // US_PER_SECOND
    else:
        interval = min(advert_int_us, LONGEST_INTERVAL_US) // US_PER_CENTISECOND
    first = version << 4 | _ADVERTISEMENT
    header = _VRRP_HEADER.pack(first, virtual_router_id, priority, len(counted), interval, 0)
    return header + b"".join(counted) + auth_data


def with_checksum(payload: bytes, pseudo_header: bytes = b"") -> bytes:
    """The payload with its checksum over itself and the pseudo header, if any."""
    checksum = internet_checksum(pseudo_header + payload)
    return payload[:6] + checksum.to_bytes(2, "big") + payload[8:]


def ipv4_packet(
    payload: bytes, source: bytes, destination: bytes, ttl: int = LINK_LOCAL_TTL, protocol: int = PROTOCOL
) -> bytes:
    """The payload under an IPv4 header. The kernel fills in identification (0) and header checksum (0)."""
    length = IPV4_HEADER_LENGTH + len(payload)
    return (
        _IPV4_HEADER.pack(_PLAIN_IPV4, INTERNET_CONTROL, length, 0, 0, ttl, protocol, 0, source, destination)
        + payload
    )


# Judging -------------------------------------------------------------------------------------------------


def ipv4_header_length(data: bytes) -> int:
    """Length of the IPv4 header at the front. PacketError when there is no room for it and a VRRP header."""
    if len(data) < IPV4_HEADER_LENGTH + HEADER_LENGTH:
        raise PacketError(DropReason.TRUNCATED, f"{len(data)} bytes")
    length = (data[0] & 0x0F) * 4
    if data[0] >> 4 != 4 or length < IPV4_HEADER_LENGTH or len(data) < length + HEADER_LENGTH:
        raise PacketError(DropReason.TRUNCATED, f"{len(data)} bytes with a header of {length}")
    return length


def virtual_router_id(data: bytes, family: int) -> int:
    """The VRID of a packet that may be anything. PacketError when it is too short to have one.

    ``family``: INET, INET6, or AH_PROTOCOL for IPv4 with an Authentication Header.
    """
    if family == INET:
        if len(data) >= IPV4_HEADER_LENGTH + HEADER_LENGTH and data[0] == _PLAIN_IPV4:
            return data[IPV4_HEADER_LENGTH + 1]
        return data[ipv4_header_length(data) + 1]
    if family == AH_PROTOCOL:
        return data[_behind_authentication_header(data, ipv4_header_length(data)) + 1]
    if len(data) < HEADER_LENGTH:
        raise PacketError(DropReason.TRUNCATED, f"{len(data)} bytes")
    return data[1]


def _behind_authentication_header(data: bytes, offset: int) -> int:
    """Where the VRRP part begins. The header may be IPsec's for something else."""
    if len(data) < offset + AH_LENGTH + HEADER_LENGTH:
        raise PacketError(DropReason.TRUNCATED, f"{len(data)} bytes with an AH header")
    if data[offset] != PROTOCOL:
        raise PacketError(DropReason.AH_HEADER, f"AH header for protocol {data[offset]}")
    return offset + AH_LENGTH


def judge(
    data: bytes,
    rules: ReceiveRules,
    *,
    source: str,
    hop_limit: int = LINK_LOCAL_TTL,
    destination: str = "",
    ignore_as_owner: bool = False,
    authenticator: Authenticator | None = None,
    now_us: int = 0,
) -> Advertisement:
    """The advertisement in a received packet, or PacketError with the first reason not to believe it.

    ``hop_limit`` and ``destination`` are for IPv6 only; IPv4 has them in its header. ``authenticator``: the
    instance's, if it has one; ``now_us`` is for it.
    """
    offset = ipv4_header_length(data) if rules.family == INET else 0
    if offset and data[9] == AH_PROTOCOL:
        if rules.auth_type is not AuthType.AH:
            raise PacketError(DropReason.AH_HEADER, "AH header not expected")
        offset = _behind_authentication_header(data, offset)
    if not offset and len(data) < HEADER_LENGTH:
        raise PacketError(DropReason.TRUNCATED, f"{len(data)} bytes")
    first, vrid, priority, count, interval, _ = _VRRP_HEADER.unpack_from(data, offset)
    length = _believed_length(data, offset, first >> 4, count, rules)
    ttl = data[8] if offset else hop_limit
    if not rules.unicast and ttl != LINK_LOCAL_TTL:
        raise PacketError(DropReason.TTL, f"TTL/HL {ttl}, expected {LINK_LOCAL_TTL}")
    if first >> 4 != rules.version:
        raise PacketError(DropReason.VERSION, f"version {first >> 4}, expected {rules.version}")
    if authenticator is not None:
        authenticator.check(data, offset, length, source, now_us)
    if rules.version == VERSION_2:
        advert_int_us = _check_version_2(data, rules, offset, length, interval)
    else:
        advert_int_us = (interval & 0xFFF) * US_PER_CENTISECOND
    if first & 0x0F != _ADVERTISEMENT:
        raise PacketError(DropReason.TYPE, f"type {first & 0x0F}, expected {_ADVERTISEMENT}")
    if not advert_int_us:
        # Zero would make every timer expire at once. keepalived believes it.
        raise PacketError(DropReason.ADVERT_INTERVAL, "advertisement interval 0")
    old_checksum = False
    if offset:
        _check_ipv4_length(data)
        old_checksum = _check_checksum(data, rules, offset, length)
    _check_destination(data, rules, destination)
    if ignore_as_owner:
        raise PacketError(DropReason.OWNER, "we are the address owner")
    _check_peer(rules, source, ttl)
    width = _ADDRESS_LENGTH[rules.family]
    start = offset + HEADER_LENGTH
    addresses = tuple(data[at : at + width] for at in range(start, start + count * width, width))
    return Advertisement(vrid, priority, advert_int_us, source, addresses, old_checksum)


def _believed_length(data: bytes, offset: int, version: int, count: int, rules: ReceiveRules) -> int:
    """Length of the VRRP part by its own count of addresses, if the packet is as long, padded, or signed."""
    length = HEADER_LENGTH + count * _ADDRESS_LENGTH[rules.family]
    if version == VERSION_2 and rules.family == INET:
        length += PASS_LENGTH
    if len(data) != offset + length and not _is_padding(offset + length, len(data)):
        if rules.trailer and len(data) == offset + length + TRAILER_LENGTH:
            return length  # padding is never as long
        raise PacketError(DropReason.LENGTH, f"length {len(data)}, expected {offset + length}")
    return length


def _is_padding(length: int, received: int) -> bool:
    """Whether the excess is what Ethernet adds to short frames; each VLAN tag takes 4 bytes off it."""
    return (
        length < _LEAST_ETHERNET_PAYLOAD
        and length < received <= _LEAST_ETHERNET_PAYLOAD
        and (received - _LEAST_ETHERNET_PAYLOAD) % _VLAN_TAG_LENGTH == 0
    )


def _check_version_2(data: bytes, rules: ReceiveRules, offset: int, length: int, word: int) -> int:
    """Authentication, then the interval, which must be ours (RFC 3768 §7.1). Returns the interval in µs."""
    auth_type, seconds = word >> 8, word & 0xFF
    if auth_type not in WIRE_TYPES.values():
        raise PacketError(DropReason.AUTH_TYPE_INVALID, f"authentication type {auth_type}")
    if auth_type != WIRE_TYPES[rules.auth_type]:
        wanted = WIRE_TYPES[rules.auth_type]
        raise PacketError(
            DropReason.AUTH_TYPE_MISMATCH, f"authentication type {auth_type}, expected {wanted}"
        )
    if rules.auth_type is AuthType.PASS and rules.family == INET:
        received = data[offset + length - PASS_LENGTH : offset + length]
        if not password_matches(rules.auth_data, received):
            raise PacketError(DropReason.AUTH_FAILURE, "wrong password")
    if seconds * US_PER_SECOND != rules.advert_int_us:
        mine = rules.advert_int_us // US_PER_SECOND
        raise PacketError(
            DropReason.ADVERT_INTERVAL,
            f"advertisement interval mismatch: mine {mine} s, received {seconds} s",
        )
    return seconds * US_PER_SECOND


def _check_ipv4_length(data: bytes) -> None:
    total = int.from_bytes(data[2:4], "big")
    if total != len(data) and not _is_padding(total, len(data)):
        raise PacketError(DropReason.IP_LENGTH, f"IP length {total}, received {len(data)}")


def _check_checksum(data: bytes, rules: ReceiveRules, offset: int, length: int) -> bool:
    """IPv4 only: over IPv6 the kernel has checked. True: it holds as old unicast senders compute it."""
    payload = data[offset : offset + length]
    if rules.version != VERSION_3:
        if not checksum_holds(payload):
            raise PacketError(DropReason.CHECKSUM, "VRRPv2 checksum")
        return False
    if rules.v3_checksum_as_v2:
        # As keepalived: senders disagree about the pseudo header here, so nothing is verified.
        return False
    old = rules.unicast and rules.old_unicast_checksum == "on"
    destination = rules.group if old else data[16:20]
    if checksum_holds(ipv4_pseudo_header(data[12:16], destination, PROTOCOL, length) + payload):
        return old
    # keepalived before 1.3.6 took the multicast group for the destination of unicast packets too.
    old_possible = rules.unicast and rules.old_unicast_checksum == "" and destination != rules.group
    if old_possible and checksum_holds(
        ipv4_pseudo_header(data[12:16], rules.group, PROTOCOL, length) + payload
    ):
        return True
    raise PacketError(DropReason.CHECKSUM, "VRRPv3 checksum")


def _check_destination(data: bytes, rules: ReceiveRules, destination: str) -> None:
    if rules.family == INET:
        multicast = data[16] >> 4 == 0xE
    elif destination:
        multicast = destination[:2].lower() == "ff"
    else:
        return
    if multicast == rules.unicast:
        wanted, received = ("unicast", "multicast") if rules.unicast else ("multicast", "unicast")
        raise PacketError(DropReason.CAST, f"{wanted} packet expected, {received} received")


def _check_peer(rules: ReceiveRules, source: str, ttl: int) -> None:
    if not rules.unicast:
        return
    peer = rules.peers.get(source)
    if peer is None:
        if rules.check_unicast_src:
            raise PacketError(DropReason.UNICAST_SOURCE, "source is not a unicast peer")
        return
    if not peer.min_ttl <= ttl <= peer.max_ttl:
        raise PacketError(
            DropReason.UNICAST_TTL, f"TTL/HL {ttl} not in range [{peer.min_ttl}, {peer.max_ttl}]"
        )


def group_bytes(group: str) -> bytes:
    """The multicast group packed; empty text gives no bytes."""
    return packed(group) if group else b""
