"""Makes and takes away the interfaces of virtual routers. It waits for the kernel: for a thread of its own.

What is there already is compared and put right, so that it does not matter who made it, or when: a former
life, keepalived, or nobody.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from struct import Struct as Layout

from kad.addresses import INET6, is_link_local, packed, parse_prefix, unpacked
from kad.config.model.vrrp import VirtualLink
from kad.config.numbers import is_digits, whole_number
from kad.kernel.conversation import (
    IFLA_AF_SPEC,
    IFLA_GROUP,
    IFLA_LINK,
    IFLA_LINKINFO,
    INFO_DATA,
    INFO_KIND,
    Conversation,
    LinkFacts,
    link_body,
)
from kad.kernel.encoder import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    UNPACKABLE,
    attribute,
    nested,
    text,
    u8,
    u16,
    u32,
)
from kad.kernel.links import (
    ADDRESS_REQUEST,
    AF_INET,
    AF_INET6,
    IFA_ADDRESS,
    IFA_CACHEINFO,
    IFA_FLAGS,
    IFA_LOCAL,
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_MASTER,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_GETADDR,
    RTM_NEWADDR,
    RTM_NEWLINK,
    Address,
    address_body,
    read_address,
)

_ETHERNET = 1
_MACVLAN_PRIVATE = 1
_IPVLAN_L2 = 0
_IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
_NO_GENERATED_ADDRESS = 1  # IN6_ADDR_GEN_MODE_NONE
_ADDRESS_GENERATION = 8  # IFLA_INET6_ADDR_GEN_MODE
_CONFIGURATION = 1  # IFLA_INET_CONF
_REVERSE_PATH, _ARP_IGNORE, _PROMOTE, _ACCEPT_LOCAL = 8, 19, 20, 23
_IPV4_SETTINGS = ((_ARP_IGNORE, 1), (_ACCEPT_LOCAL, 1), (_REVERSE_PATH, 0), (_PROMOTE, 1))
_IPV6_SETTINGS = ((_ARP_IGNORE, 1),)
_NO_DUPLICATE_DETECTION = 0x02
_LINK_SCOPE = 253
_DEPRECATED = Layout("=IIII").pack(0, 0xFFFFFFFF, 0, 0)
_OURS = ("macvlan", "ipvlan")
LARGEST_GROUP = 0xFFFF_FFFF
_MAC_LENGTH = 6
_GROUPS = ("/etc/iproute2/group", "/usr/share/iproute2/group", "/usr/lib/iproute2/group")


def make(links: Iterable[VirtualLink]) -> dict[str, str]:
    """Have them all there. Name -> why it could not be done; a missing base is no failure."""
    return _each(links, _Making.make)


def in_the_way(
    there: Iterable[VirtualLink], fresh: Iterable[VirtualLink], wanted: Mapping[str, VirtualLink]
) -> list[VirtualLink]:
    """Those of ours whose MAC address another of ours is to have on that base, under another name.

    There can be only one of an address: without giving theirs up they would keep the other from being made,
    though they are used until it is there.
    """
    names = {(link.base, link.mac.lower()): link.name for link in fresh if link.mac}
    found = []
    for link in there:
        place = link.base, link.mac.lower()
        kept = wanted.get(link.name)
        stays = kept is not None and (kept.base, kept.mac.lower()) == place
        if names.get(place, link.name) != link.name and not stays:
            found.append(link)
    return found


def move_aside(links: Iterable[VirtualLink]) -> None:
    """Give them any other MAC address. What goes wrong shows when their own is asked for."""
    with contextlib.suppress(OSError), Conversation() as kernel:
        for link in links:
            facts = kernel.link(link.name)
            if facts is not None and facts.kind in _OURS and facts.mac == mac_bytes(link.mac):
                anything = attribute(IFLA_ADDRESS, b"\x02" + os.urandom(5))
                kernel.request(RTM_NEWLINK, 0, link_body(facts.index) + anything)


def raise_(links: Iterable[VirtualLink]) -> dict[str, str]:
    """Have those that are there up, with the addresses of their own."""
    return _each(links, _Making.raise_)


def _each(links: Iterable[VirtualLink], work: Callable[[_Making], None]) -> dict[str, str]:
    links, failures = tuple(links), dict[str, str]()
    try:
        with Conversation() as kernel:
            for link in links:
                try:
                    work(_Making(kernel, link))
                except (OSError, _Impossible, *UNPACKABLE) as error:
                    failures[link.name] = _cannot_make(link, error)
    except OSError as error:
        # No conversation with the kernel at all.
        return {link.name: _cannot_make(link, error) for link in links}
    return failures


def _cannot_make(link: VirtualLink, error: Exception) -> str:
    reason = str(error)
    if isinstance(error, OSError):
        reason = f"{errno.errorcode.get(error.errno or 0, '?')}: {error.strerror or error}"
    return f"interface {link.name} on {link.base}: {reason}"


def remove(links: Iterable[VirtualLink]) -> dict[str, str]:
    """Take them away. Name -> why not; what is not there, or is another kind of interface, is left alone."""
    concerned = list(links)
    try:
        with Conversation() as kernel:
            found = [(link, kernel.link(link.name)) for link in concerned]
            present = [(link, facts) for link, facts in found if facts is not None and facts.kind in _OURS]
            concerned = [link for link, _ in present]
            if len(present) > 1:
                _remove_together(kernel, [facts for _, facts in present])
            elif present:
                kernel.request(RTM_DELLINK, 0, link_body(present[0][1].index))
            for link in concerned:
                if link.netlink_notify_msg:
                    _notify_base(kernel, link.base)
    except OSError as error:
        return {link.name: f"cannot remove {link.name}: {error.strerror or error}" for link in concerned}
    return {}


def _remove_together(kernel: Conversation, links: Iterable[LinkFacts]) -> None:
    """As one group, for whose end the kernel waits once: a hundred take as long as two do one by one.

    Meanwhile it holds a lock that every change of an address needs.
    """
    taken = {facts.group for facts in kernel.links()}
    group = next(number for number in iter(_random_group, 0) if number not in taken)
    for facts in links:
        kernel.request(RTM_NEWLINK, 0, link_body(facts.index) + u32(IFLA_GROUP, group))
    kernel.request(RTM_DELLINK, 0, link_body() + u32(IFLA_GROUP, group))


def _random_group() -> int:
    """One that nobody uses but by chance; never 0, the usual one."""
    return int.from_bytes(os.urandom(4), "big") & 0x3FFF_FFFF | 1 << 30


class _Impossible(Exception):
    """For reasons that are no error of the kernel's."""


class _Making:
    """One interface."""

    def __init__(self, kernel: Conversation, link: VirtualLink) -> None:
        self._kernel = kernel
        self._link = link

    def make(self) -> None:
        kernel, link = self._kernel, self._link
        base = kernel.link(link.base)
        if base is None:
            return
        if base.hardware != _ETHERNET:
            raise _Impossible(f"{link.base} is not an Ethernet interface")
        found = kernel.link(link.name)
        if found is not None and found.kind not in _OURS:
            raise _Impossible("there is another interface of that name")
        if found is not None and not self._is_on(found, base):
            kernel.request(RTM_DELLINK, 0, link_body(found.index))
            found = None
        if found is None:
            self._create(base)
        else:
            self._correct(found, base)
        made = kernel.link(link.name)
        if made is None:
            raise _Impossible("it went away again")
        self._settle(made)
        if found is None and link.netlink_notify_msg:
            _notify_base(kernel, link.base)

    def raise_(self) -> None:
        kernel, link = self._kernel, self._link
        base, made = kernel.link(link.base), kernel.link(link.name)
        if base is None or made is None or made.kind not in _OURS:
            return
        if not made.flags & IFF_UP:
            kernel.request(RTM_NEWLINK, 0, link_body(made.index, IFF_UP, IFF_UP))
        if link.mac and link.has_ipv6:
            self._settle_link_local(made, base)
        if link.address:
            self._add_own_address(made)

    @property
    def _kind(self) -> str:
        return "macvlan" if self._link.mac else "ipvlan"

    def _is_on(self, found: LinkFacts, base: LinkFacts) -> bool:
        # On top of a macvlan means on top of what that one is on.
        return found.kind == self._kind and found.below in (base.index, base.below or base.index)

    def _info(self) -> bytes:
        if self._link.mac:
            data = u32(1, _MACVLAN_PRIVATE)
        else:
            data = u16(1, _IPVLAN_L2) + u16(2, _IPVLAN_FLAGS[self._link.ipvlan_mode])
        return nested(IFLA_LINKINFO, text(INFO_KIND, self._kind), nested(INFO_DATA, data))

    def _mac(self) -> bytes:
        return attribute(IFLA_ADDRESS, mac_bytes(self._link.mac)) if self._link.mac else b""

    def _create(self, base: LinkFacts) -> None:
        link = self._link
        group = _group_number(link.group) if link.group else base.group
        parts = [u32(IFLA_LINK, base.index), text(IFLA_IFNAME, link.name), self._info(), self._mac()]
        parts.append(u32(IFLA_GROUP, group))
        vrf = self._vrf_of(base)
        if vrf:
            parts.append(u32(IFLA_MASTER, vrf))
        self._kernel.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, link_body() + b"".join(parts))

    def _correct(self, found: LinkFacts, base: LinkFacts) -> None:
        """Of what was there already: MAC, mode and VRF."""
        link = self._link
        request = self._kernel.request
        is_private = found.mode[:1] == bytes((_MACVLAN_PRIVATE,))
        if link.mac and (found.mac != mac_bytes(link.mac) or not is_private):
            request(RTM_NEWLINK, 0, link_body(found.index) + self._info() + self._mac())
        vrf = self._vrf_of(base)
        if found.master != vrf:
            request(RTM_NEWLINK, 0, link_body(found.index) + u32(IFLA_MASTER, vrf))

    def _vrf_of(self, base: LinkFacts) -> int:
        master = self._kernel.link_at(base.master)
        return master.index if master is not None and master.kind == "vrf" else 0

    def _settle(self, made: LinkFacts) -> None:
        """What cannot be said when it is created, before it goes up."""
        link, request = self._link, self._kernel.request
        if link.mac:
            settings = _IPV6_SETTINGS if link.family == INET6 else _IPV4_SETTINGS
            conf = nested(_CONFIGURATION, *(u32(key, value) for key, value in settings))
            request(RTM_NEWLINK, 0, link_body(made.index) + nested(IFLA_AF_SPEC, nested(AF_INET, conf)))
        _switch_ipv6(link.name, link.has_ipv6)
        if link.mac and link.has_ipv6:
            spec = nested(AF_INET6, u8(_ADDRESS_GENERATION, _NO_GENERATED_ADDRESS))
            request(RTM_NEWLINK, 0, link_body(made.index) + nested(IFLA_AF_SPEC, spec))

    def _settle_link_local(self, made: LinkFacts, base: LinkFacts) -> None:
        """The address that adverts leave from, where they do."""
        wanted = self._source(base)
        is_there = any(address.key.data == wanted for address in self._addresses(made.index))
        if self._link.link_local and not is_there:
            self._change_address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, made.index, wanted)
        elif is_there and not self._link.link_local:
            self._change_address(RTM_DELADDR, 0, made.index, wanted)

    def _source(self, base: LinkFacts) -> bytes:
        if self._link.source:
            return packed(self._link.source)
        for address in self._addresses(base.index):
            if is_link_local(unpacked(address.key.data)):
                return address.key.data
        return link_local_of(base.mac)

    def _addresses(self, index: int) -> list[Address]:
        """IPv6 addresses of an interface."""
        replies = self._kernel.dump(RTM_GETADDR, bytes((AF_INET6,)) + ADDRESS_REQUEST[1:])
        found = (read_address(reply) for reply in replies)
        return [address for address in found if address is not None and address.key.index == index]

    def _change_address(self, kind: int, flags: int, index: int, data: bytes) -> None:
        # Deprecated, as with keepalived: nobody else shall choose it as a source.
        parts = attribute(IFA_LOCAL, data) + attribute(IFA_ADDRESS, data)
        parts += u32(IFA_FLAGS, _NO_DUPLICATE_DETECTION) + attribute(IFA_CACHEINFO, _DEPRECATED)
        body = address_body(AF_INET6, 64, _NO_DUPLICATE_DETECTION, _LINK_SCOPE, index, parts)
        self._kernel.request(kind, flags, body)

    def _add_own_address(self, made: LinkFacts) -> None:
        prefix = parse_prefix(self._link.address)
        if prefix is None:
            raise _Impossible(f"{self._link.address} is not an address")
        data = packed(prefix.address)
        family = AF_INET6 if prefix.family == INET6 else AF_INET
        parts = attribute(IFA_LOCAL, data) + attribute(IFA_ADDRESS, data)
        with contextlib.suppress(FileExistsError):
            self._kernel.request(
                RTM_NEWADDR,
                NLM_F_CREATE | NLM_F_EXCL,
                address_body(family, prefix.length, 0, 0, made.index, parts),
            )


def pack(link: VirtualLink) -> None:
    """Raises one of UNPACKABLE where no message has room for what it says."""
    text(IFLA_IFNAME, link.name)
    if link.mac and len(mac_bytes(link.mac)) != _MAC_LENGTH:
        raise ValueError(f"{link.mac} is not {_MAC_LENGTH} octets")
    if link.source:
        packed(link.source)
    if link.address and parse_prefix(link.address) is None:
        raise ValueError(f"{link.address} is not an address")
    if is_digits(link.group):
        u32(IFLA_GROUP, int(link.group))


def link_local_of(mac: bytes) -> bytes:
    """RFC 4291 Appendix A: fe80:: and the modified EUI-64 of a MAC."""
    return b"\xfe\x80" + bytes(6) + bytes((mac[0] ^ 2, *mac[1:3], 0xFF, 0xFE)) + mac[3:]


def mac_bytes(text_: str) -> bytes:
    return bytes(int(part, 16) for part in text_.split(":"))


def _notify_base(kernel: Conversation, name: str) -> None:
    """A bridge's promiscuity changes without a word from the kernel; setting its group anew brings one."""
    base = kernel.link(name)
    if base is not None:
        kernel.request(RTM_NEWLINK, 0, link_body(base.index) + u32(IFLA_GROUP, base.group))


def _switch_ipv6(name: str, wanted: bool) -> None:
    path = Path("/proc/sys/net/ipv6/conf", name, "disable_ipv6")
    value = "0" if wanted else "1"
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        if path.read_text().strip() != value:
            path.write_text(value)


def _group_number(name: str) -> int:
    number = whole_number(name, LARGEST_GROUP)
    if number is not None:
        return number
    for path in _GROUPS:
        with contextlib.suppress(OSError):
            for line in Path(path).read_text(errors="replace").splitlines():
                words = line.partition("#")[0].split()
                number = whole_number(words[0], LARGEST_GROUP) if words[1:] == [name] else None
                if number is not None:
                    return number
    raise _Impossible(f"there is no interface group '{name}'")
