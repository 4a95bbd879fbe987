"""What the kernel is asked about one address: bodies of RTM_NEWADDR and RTM_DELADDR. Pure."""

from __future__ import annotations

from struct import Struct as Layout

from kad.addresses import packed
from kad.config.model.routing import PROTOCOL_MARK
from kad.config.model.vrrp import FOREVER
from kad.kernel.batch import Request
from kad.kernel.encoder import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    UNPACKABLE,
    Unpackable,
    attribute,
    text,
    u8,
    u32,
)
from kad.kernel.links import (
    AF_INET,
    AF_INET6,
    IFA_ADDRESS,
    IFA_BROADCAST,
    IFA_CACHEINFO,
    IFA_FLAGS,
    IFA_LABEL,
    IFA_LOCAL,
    IFA_PROTO,
    RTM_DELADDR,
    RTM_NEWADDR,
    AddressKey,
    address_body,
)
from kad_vrrp.core.actions import AddressEntry

_CACHE_INFO = Layout("=IIII")
ADDITION_FLAGS = NLM_F_CREATE | NLM_F_EXCL
_MARK = u8(IFA_PROTO, PROTOCOL_MARK)


def key_of(entry: AddressEntry, index: int) -> AddressKey:
    """``index``: of its interface. Raises Unpackable."""
    try:
        return AddressKey(index, packed(entry.address), entry.prefix_length)
    except UNPACKABLE as error:
        raise Unpackable(error) from error


def request(key: AddressKey, entry: AddressEntry, *, adding: bool) -> Request:
    """One command of a plan. Raises Unpackable."""
    try:
        if adding:
            return Request(RTM_NEWADDR, ADDITION_FLAGS, addition(key, entry))
        return Request(RTM_DELADDR, 0, deletion(key, entry))
    except UNPACKABLE as error:
        raise Unpackable(error) from error


def addition(key: AddressKey, entry: AddressEntry) -> bytes:
    """The body of the request that sets an address."""
    peer = packed(entry.peer) if entry.peer else key.data
    parts = [attribute(IFA_LOCAL, key.data), attribute(IFA_ADDRESS, peer)]
    if entry.broadcast:
        parts.append(attribute(IFA_BROADCAST, packed(entry.broadcast)))
    if entry.label:
        parts.append(text(IFA_LABEL, entry.label))
    if entry.flags:
        parts.append(u32(IFA_FLAGS, entry.flags))
    if entry.preferred_lifetime != FOREVER:
        lifetimes = _CACHE_INFO.pack(entry.preferred_lifetime, FOREVER, 0, 0)
        parts.append(attribute(IFA_CACHEINFO, lifetimes))
    parts.append(_MARK)
    return address_body(_family(key), key.prefix_length, entry.flags, entry.scope, key.index, b"".join(parts))


def deletion(key: AddressKey, entry: AddressEntry) -> bytes:
    """The body of the request that removes an address. Without IFA_ADDRESS any prefix length would do."""
    peer = packed(entry.peer) if entry.peer else key.data
    parts = attribute(IFA_LOCAL, key.data) + attribute(IFA_ADDRESS, peer)
    return address_body(_family(key), key.prefix_length, 0, 0, key.index, parts)


def _family(key: AddressKey) -> int:
    return AF_INET if len(key.data) == 4 else AF_INET6
