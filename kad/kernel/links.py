"""What the kernel's messages say about links and addresses, as one table. Pure.

Fed with RTM_NEWLINK, DELLINK, NEWADDR, DELADDR and NEWNETCONF in the order one socket delivered them, dumps
included; a dump also tells what is gone (:meth:`LinkTable.begin_dump`, :meth:`LinkTable.end_dump`). Out come
the links that are different now, as whole present values, and the addresses that went away.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct as Layout

from msgspec import Struct
from msgspec.structs import replace

from kad.addresses import unpacked
from kad.kernel.encoder import Message, attributes, read_text, read_u32

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWNETCONF = 80

AF_UNSPEC, AF_INET, AF_INET6 = 0, 2, 10

IFF_UP, IFF_RUNNING, IFF_NOARP, IFF_MULTICAST = 0x1, 0x40, 0x80, 0x1000
IFA_F_SECONDARY, IFA_F_DADFAILED, IFA_F_TENTATIVE = 0x01, 0x08, 0x40

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER = 1, 3, 4, 10
IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_BROADCAST, IFA_CACHEINFO = 1, 2, 3, 4, 6
IFA_FLAGS, IFA_PROTO = 8, 11
IFLA_LINKINFO, IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_VRF_TABLE = 18, 1, 2, 1
IFLA_AF_SPEC, IFLA_INET6_CONF = 26, 2
NETCONFA_IFINDEX, NETCONFA_FORWARDING = 1, 2

_LINK = Layout("=BxHiII")
_ADDRESS = Layout("=BBBBi")
_NETCONF = Layout("=Bxxx")

LINK_REQUEST = _LINK.pack(AF_UNSPEC, 0, 0, 0, 0)
ADDRESS_REQUEST = _ADDRESS.pack(AF_UNSPEC, 0, 0, 0, 0)


class AddressKey(Struct, frozen=True):
    """What makes an address one of its own in the kernel: ``data`` is 4 or 16 bytes."""

    index: int
    data: bytes
    prefix_length: int


class Address(Struct, frozen=True):
    """One address on a link. ``body`` is the kernel's own description: enough to restore the address."""

    key: AddressKey
    flags: int
    scope: int
    protocol: int
    """IFA_PROTO: who set it (kernels from 5.18 on), 0 when unknown."""
    body: bytes


class Link(Struct, frozen=True):
    """One link, whole."""

    index: int
    name: str
    flags: int
    mac: bytes
    mtu: int
    addresses: tuple[str, ...] = ()
    """Usable as a source, in the kernel's order: neither tentative nor duplicate nor excluded."""
    master: int = 0
    """Index of the VRF, bridge or bond it belongs to."""
    forwarding: bool = False
    """IPv6 packets that come in here are forwarded: the host is a router there."""

    @property
    def up(self) -> bool:
        """Administratively up and running (the lower layers too)."""
        return self.flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING

    @property
    def arp(self) -> bool:
        return not self.flags & IFF_NOARP

    @property
    def multicast(self) -> bool:
        return bool(self.flags & IFF_MULTICAST)


class Loss(Struct, frozen=True):
    """An address went away. ``port_id`` and ``sequence`` name the request that did it (0: unknown)."""

    address: Address
    port_id: int = 0
    sequence: int = 0


def address_body(
    family: int, prefix_length: int, flags: int, scope: int, index: int, attributes_: bytes
) -> bytes:
    """The body of an RTM_NEWADDR or RTM_DELADDR request. Flags over 8 bits go in IFA_FLAGS."""
    return _ADDRESS.pack(family, prefix_length, flags & 0xFF, scope, index) + attributes_


class LinkTable:
    """All links and addresses of one network namespace, as far as the kernel has told.

    ``excluded`` says of an address that it is no source address for us (a virtual one).
    """

    def __init__(self, excluded: Callable[[Address], bool] = lambda address: False) -> None:
        self._excluded = excluded
        self._links: dict[int, Link] = {}
        self._names: dict[str, int] = {}
        self._vrf_tables: dict[int, int] = {}
        self._addresses: dict[int, dict[AddressKey, Address]] = {}
        self._told: dict[str, Link] = {}
        self._touched: dict[int, None] = {}
        self._losses: list[Loss] = []
        self._unseen_links: set[int] | None = None
        self._unseen_addresses: set[AddressKey] | None = None

    # Looking ---------------------------------------------------------------------------------------------

    def index_of(self, name: str) -> int | None:
        return self._names.get(name)

    def name_of(self, index: int) -> str:
        """The link's name; "" when there is none."""
        link = self._links.get(index)
        return link.name if link else ""

    def address(self, key: AddressKey) -> Address | None:
        return self._addresses.get(key.index, {}).get(key)

    def vrf_table(self, name: str) -> int | None:
        """The routing table of a VRF; None when there is no VRF of that name."""
        return self._vrf_tables.get(self._names.get(name, 0))

    def link(self, name: str) -> Link | None:
        """The link as last told by :meth:`changes`."""
        return self._told.get(name)

    # Feeding ---------------------------------------------------------------------------------------------

    def apply(self, message: Message) -> None:
        """Take one message; kinds of no concern are ignored. Raises MalformedMessage."""
        if message.kind in (RTM_NEWLINK, RTM_DELLINK):
            self._apply_link(message)
        elif message.kind in (RTM_NEWADDR, RTM_DELADDR):
            self._apply_address(message)
        elif message.kind == RTM_NEWNETCONF:
            self._apply_settings(message)

    def begin_dump(self) -> None:
        """Whatever is not mentioned until :meth:`end_dump` is gone."""
        self._unseen_links = set(self._links)
        self._unseen_addresses = {key for keys in self._addresses.values() for key in keys}

    def end_dump(self) -> None:
        links, addresses = self._unseen_links, self._unseen_addresses
        self._unseen_links = self._unseen_addresses = None
        for key in addresses or ():
            self._remove_address(key, 0, 0)
        for index in links or ():
            self._remove_link(index)

    def abandon_dump(self) -> None:
        """The dump was not whole: it removes nothing."""
        self._unseen_links = self._unseen_addresses = None

    # Telling ---------------------------------------------------------------------------------------------

    def changes(self) -> tuple[list[str], list[Link]]:
        """Names of links that are gone, and links that are new or different, since the last call."""
        touched, self._touched = self._touched, {}
        if not touched:
            return [], []
        changed = [link for link in map(self._present, touched) if link and self._told.get(link.name) != link]
        # A name that came back on another link is gone too: its sockets and addresses are.
        gone = [name for name, link in self._told.items() if self._names.get(name) != link.index]
        for name in gone:
            del self._told[name]
        self._told.update({link.name: link for link in changed})
        return gone, changed

    def losses(self) -> list[Loss]:
        """Addresses that went away since the last call, in order."""
        losses, self._losses = self._losses, []
        return losses

    def touch_all(self) -> None:
        """``excluded`` may answer differently now: look at every link again."""
        self._touched.update(dict.fromkeys(self._links))

    # Inside ----------------------------------------------------------------------------------------------

    def _apply_link(self, message: Message) -> None:
        family, _, index, flags, _ = _LINK.unpack_from(message.body.ljust(_LINK.size, b"\0"))
        if family != AF_UNSPEC:
            return  # AF_BRIDGE: a port left its bridge; the link itself is still there
        if message.kind == RTM_DELLINK:
            self._remove_link(index)
            return
        found = attributes(message.body, _LINK.size)
        if self._unseen_links is not None:
            self._unseen_links.discard(index)
        name = read_text(found.get(IFLA_IFNAME, b""))
        mac, mtu = found.get(IFLA_ADDRESS, b""), read_u32(found.get(IFLA_MTU, b""))
        old = self._links.get(index)
        if old is not None and old.name != name and self._names.get(old.name) == index:
            del self._names[old.name]
        table = _vrf_table(found.get(IFLA_LINKINFO, b""))
        if table is not None:
            self._vrf_tables[index] = table
        master = read_u32(found.get(IFLA_MASTER, b""))
        forwarding = _forwards_ipv6(found.get(IFLA_AF_SPEC, b""))
        self._links[index] = Link(index, name, flags, mac, mtu, master=master, forwarding=forwarding)
        self._names[name] = index
        self._touched[index] = None

    def _apply_settings(self, message: Message) -> None:
        """RTM_NEWLINK does not tell when a setting is changed. Those of all links together come here too."""
        (family,) = _NETCONF.unpack_from(message.body.ljust(_NETCONF.size, b"\0"))
        found = attributes(message.body, _NETCONF.size)
        index = read_u32(found.get(NETCONFA_IFINDEX, b""))
        link, forwarding = self._links.get(index), found.get(NETCONFA_FORWARDING)
        if family == AF_INET6 and link is not None and forwarding is not None:
            self._links[index] = replace(link, forwarding=bool(read_u32(forwarding)))
            self._touched[index] = None

    def _remove_link(self, index: int) -> None:
        link = self._links.pop(index, None)
        self._vrf_tables.pop(index, None)
        if link is None:
            return
        if self._names.get(link.name) == index:
            del self._names[link.name]
        for key in list(self._addresses.pop(index, ())):
            if self._unseen_addresses is not None:
                self._unseen_addresses.discard(key)
        self._touched[index] = None

    def _apply_address(self, message: Message) -> None:
        address = read_address(message)
        if address is None:
            return
        key = address.key
        if message.kind == RTM_DELADDR:
            self._remove_address(key, message.port_id, message.sequence, address)
            return
        if self._unseen_addresses is not None:
            self._unseen_addresses.discard(key)
        self._addresses.setdefault(key.index, {})[key] = address
        self._touched[key.index] = None

    def _remove_address(
        self, key: AddressKey, port_id: int, sequence: int, address: Address | None = None
    ) -> None:
        known = self._addresses.get(key.index, {}).pop(key, None)
        lost = address or known
        if lost is not None:
            # The kernel's last words describe it best; an address never heard of may still be one of ours.
            self._losses.append(Loss(lost, port_id, sequence))
            self._touched[key.index] = None

    def _present(self, index: int) -> Link | None:
        link = self._links.get(index)
        if link is None:
            return None
        usable = [a for a in self._addresses.get(index, {}).values() if self._usable(a)]
        usable.sort(key=lambda address: address.flags & IFA_F_SECONDARY)
        texts = tuple(unpacked(address.key.data) for address in usable)
        return replace(link, addresses=texts)

    def _usable(self, address: Address) -> bool:
        if address.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED):
            return False
        return not self._excluded(address)


def _forwards_ipv6(families: bytes) -> bool:
    """Of a link's IFLA_AF_SPEC. It is the first of the settings; without IPv6 there are none."""
    found = attributes(attributes(families).get(AF_INET6, b""))
    return bool(read_u32(found.get(IFLA_INET6_CONF, b"")))


def _vrf_table(info: bytes) -> int | None:
    """The table of a VRF, of a link's IFLA_LINKINFO; None for other links."""
    if not info:
        return None
    found = attributes(info)
    if read_text(found.get(IFLA_INFO_KIND, b"")) != "vrf":
        return None
    table = attributes(found.get(IFLA_INFO_DATA, b"")).get(IFLA_VRF_TABLE)
    return None if table is None else read_u32(table)


def read_address(message: Message) -> Address | None:
    """What an RTM_NEWADDR or RTM_DELADDR is about; None for families of no concern."""
    body = message.body
    family, prefix_length, flags, scope, index = _ADDRESS.unpack_from(body.ljust(_ADDRESS.size, b"\0"))
    if family not in (AF_INET, AF_INET6):
        return None
    found = attributes(body, _ADDRESS.size)
    data = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS, b"")
    if len(data) != (4 if family == AF_INET else 16):
        return None
    flags = read_u32(found.get(IFA_FLAGS, b""), flags)
    protocol = found.get(IFA_PROTO, b"\0")[0]
    return Address(AddressKey(index, data, prefix_length), flags, scope, protocol, body)
