"""Network addresses as values. Addresses travel as canonical text; families are keepalived's 4 and 6."""

import ipaddress
import re
from functools import lru_cache

from msgspec import Struct

INET = 4
INET6 = 6
PACKED_LIMIT = 256
"""Addresses remembered in bytes: at its start an instance asks seven times, mostly about what all have."""


_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
is_canonical_ipv4 = re.compile(rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}").fullmatch
"""Dotted quads without leading zeros, which are canonical as they stand: most addresses, told quickly."""
_begins_link_local = re.compile("fe[89ab][0-9a-f]:").match


class Prefix(Struct, frozen=True):
    """An address with its prefix length. ``address`` is canonical text (``ipaddress`` spelling)."""

    address: str
    length: int

    @property
    def family(self) -> int:
        return family_of(self.address)

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"


def family_of(address: str) -> int:
    """4 or 6, told by the colon only IPv6 text has."""
    return INET6 if ":" in address else INET


def parse_address(text: str) -> str | None:
    """Canonical text of an address, or None when it is not one. No zone, no prefix length."""
    if is_canonical_ipv4(text):
        return text
    if "%" in text:
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def is_link_local(address: str) -> bool:
    """A canonical IPv6 address of fe80::/10, which means something on one interface only."""
    return _begins_link_local(address) is not None


def is_link_local_multicast(address: str) -> bool:
    """A canonical IPv6 multicast address of link-local scope, whatever its flags (RFC 4291 section 2.7)."""
    return address.startswith("ff") and address[3:5] == "2:"


def parse_prefix(text: str) -> Prefix | None:
    """``ADDRESS[/LEN]``; a missing length is that of a host. None when malformed."""
    host, slash, length = text.partition("/")
    address = parse_address(host)
    if address is None:
        return None
    widest = 128 if family_of(address) == INET6 else 32
    if not slash:
        return Prefix(address, widest)
    if not (length.isascii() and length.isdigit() and len(length) <= 3) or int(length) > widest:
        return None
    return Prefix(address, int(length))


@lru_cache(maxsize=PACKED_LIMIT)
def packed(address: str) -> bytes:
    """4 or 16 bytes in network order of an address in canonical text."""
    if ":" in address:
        return ipaddress.IPv6Address(address).packed
    # Five times faster than ipaddress.
    return bytes(map(int, address.split(".")))


def unpacked(data: bytes) -> str:
    """Canonical text of 4 or 16 bytes."""
    return str(ipaddress.ip_address(data))
