"""What is to be filtered for virtual routers, as nf_tables commands. Pure.

Two things. Packets to and from addresses of instances that do not accept them (RFC 9568 §6.1, Accept_Mode)
are dropped, but for neighbour discovery. And what the kernel says of its own accord on a VMAC would teach
switches a virtual MAC on a router that is not master: membership reports leave from the base interface
instead, router solicitations and answers to discovery for the base's address do not leave at all.

Tables, chains and sets are called as keepalived calls them. Addresses are in their set in every state;
keepalived puts them there while MASTER. Where the address is not, nothing comes for it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from msgspec import Struct

from kad.addresses import INET6, family_of, is_link_local, packed
from kad.config.model.globals import Firewall
from kad.config.model.vrrp import VirtualLink, VrrpInstance
from kad.kernel import nftables as nf
from kad.kernel.nftables import Command, Family, Header, Hook, KeyType, Meta
from kad_vrrp.core.actions import AddressEntry
from kad_vrrp.core.events import LinkChanged
from kad_vrrp.core.resources import entries_of

DEFAULT_TABLE = "keepalived"

_IGMP, _ICMPV6 = 2, 58
_MLD_REPORTS = (131, 143)
_ROUTER_SOLICITATION = 133
_NEIGHBOR_DISCOVERY = (135, 136)
_NEIGHBOR_ADVERTISEMENT = 136
_MACVLAN = b"macvlan".ljust(16, b"\0")
_PROTOCOL_AT = 9
_SOURCE_AT = {Family.IPV4: (12, 4), Family.IPV6: (8, 16)}
_DESTINATION_AT = {Family.IPV4: (16, 4), Family.IPV6: (24, 16)}
_LINK_LOCAL_MASK = b"\xff\xc0" + bytes(14)
_LINK_LOCAL = b"\xfe\x80" + bytes(14)
_ADDRESS_TYPES = {Family.IPV4: KeyType.IPV4_ADDRESS, Family.IPV6: KeyType.IPV6_ADDRESS}


class Vmac(Struct, frozen=True):
    """A VMAC that is there."""

    name: str
    index: int
    base: int
    """Index of the interface below."""
    families: tuple[int, ...]
    """Whose membership reports it would send."""
    base_link_local: bytes = b""
    """Its own link-local address, which is its base's too."""


class Refused(Struct, frozen=True, order=True):
    """An address of an instance that does not accept packets."""

    address: str
    interface: str
    index: int = 0
    """0: the interface is not there."""


class FilterSpec(Struct, frozen=True):
    """Everything the rules depend on."""

    settings: Firewall = Firewall()
    refused: tuple[Refused, ...] = ()
    vmacs: tuple[Vmac, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.refused or self.vmacs)


def needs_filter(instance: VrrpInstance) -> bool:
    return instance.no_accept or (instance.vmac is not None and not instance.vmac.ipvlan)


def filter_spec(
    settings: Firewall,
    instances: Sequence[VrrpInstance],
    links: Sequence[VirtualLink],
    present: Mapping[str, LinkChanged],
    *,
    local_igmp: bool,
) -> FilterSpec:
    """``present``: interfaces by name. ``local_igmp`` False: the kernel reports no local groups anyway."""
    refused = {
        Refused(entry.address, entry.interface, _index_of(present, entry.interface))
        for instance in instances
        if instance.no_accept
        for entry in entries_of(instance)
        if isinstance(entry, AddressEntry)
    }
    vmacs = []
    for link in links:
        own, base = present.get(link.name), present.get(link.base)
        if not link.mac or own is None or base is None:
            continue
        families = ((4,) if link.family != INET6 and local_igmp else ()) + ((6,) if link.has_ipv6 else ())
        shared = [a for a in own.addresses if a in base.addresses and is_link_local(a)]
        vmacs.append(Vmac(link.name, own.index, base.index, families, packed(shared[0]) if shared else b""))
    return FilterSpec(settings, tuple(sorted(refused)), tuple(vmacs))


def _index_of(present: Mapping[str, LinkChanged], name: str) -> int:
    link = present.get(name)
    return 0 if link is None else link.index


def table_of(settings: Firewall) -> str:
    return settings.nftables or DEFAULT_TABLE


def commands(spec: FilterSpec) -> list[Command]:
    """One transaction that replaces whatever the tables held."""
    return [*_Rules(spec, Family.IPV4).build(), *_Rules(spec, Family.IPV6).build()]


def families(spec: FilterSpec) -> tuple[Family, ...]:
    """Those that have a table."""
    return tuple(family for family in (Family.IPV4, Family.IPV6) if _Rules(spec, family).is_needed)


def removal(settings: Firewall) -> list[Command]:
    """One transaction after which there are no tables."""
    name = table_of(settings)
    return [*nf.removed_table(Family.IPV4, name), *nf.removed_table(Family.IPV6, name)]


class _Rules:
    """The table of one family."""

    def __init__(self, spec: FilterSpec, family: Family) -> None:
        self._settings = spec.settings
        self._family = family
        self._table = table_of(spec.settings)
        number = 6 if family is Family.IPV6 else 4
        self._refused = [each for each in spec.refused if family_of(each.address) == number]
        self._vmacs = [each for each in spec.vmacs if number in each.families]
        self._commands: list[Command] = []
        self._sets = 0

    @property
    def is_needed(self) -> bool:
        return bool(self._refused or self._vmacs)

    def build(self) -> list[Command]:
        if not self.is_needed:
            return list(nf.removed_table(self._family, self._table))
        self._commands = list(nf.replaced_table(self._family, self._table))
        self._base_chain("out", Hook.LOCAL_OUT)
        if self._vmacs:
            self._quieten_vmacs()
        if self._refused:
            self._base_chain("in", Hook.LOCAL_IN)
            self._refuse()
        return self._commands

    # Parts -----------------------------------------------------------------------------------------------

    def _base_chain(self, name: str, hook: Hook) -> None:
        priority = self._settings.nftables_priority
        self._commands.append(nf.base_chain(self._family, self._table, name, hook, priority))

    def _set(
        self, name: str, keys: Sequence[KeyType], content: Sequence[bytes], *, constant: bool = False
    ) -> None:
        self._sets += 1
        family, table = self._family, self._table
        self._commands.append(nf.new_set(family, table, name, keys, number=self._sets, constant=constant))
        self._commands += nf.elements(family, table, name, content)

    def _rule(self, chain: str, *expressions: bytes) -> None:
        """The last expression is the verdict; the counter stands before it."""
        if self._settings.nftables_counters:
            expressions = (*expressions[:-1], nf.COUNTER, expressions[-1])
        self._commands.append(nf.rule(self._family, self._table, chain, *expressions))

    @property
    def _interface_type(self) -> KeyType:
        by_index = self._settings.nftables_ifindex
        return KeyType.INTERFACE_INDEX if by_index else KeyType.INTERFACE_NAME

    def _interface_key(self, name: str, index: int) -> bytes:
        if self._settings.nftables_ifindex:
            return _native(index)
        return name.encode().ljust(KeyType.INTERFACE_NAME.length, b"\0")

    def _interface_meta(self, chain: str) -> Meta:
        if self._settings.nftables_ifindex:
            return Meta.IN_INDEX if chain == "in" else Meta.OUT_INDEX
        return Meta.IN_NAME if chain == "in" else Meta.OUT_NAME

    # VMACs -----------------------------------------------------------------------------------------------

    def _quieten_vmacs(self) -> None:
        self._sets += 1
        family, table = self._family, self._table
        index = KeyType.INTERFACE_INDEX
        self._commands.append(nf.new_set(family, table, "vmac_map", (index,), number=self._sets, data=index))
        bases = {_native(vmac.index): _native(vmac.base) for vmac in self._vmacs}
        self._commands += nf.elements(family, table, "vmac_map", bases)
        if family is Family.IPV6:
            self._quieten_ipv6()
        else:
            self._move_reports(nf.payload(Header.NETWORK, _PROTOCOL_AT, 1), nf.equals(bytes((_IGMP,))))

    def _move_reports(self, *reports: bytes) -> None:
        """What matches leaves from the base, and not from here."""
        self._rule(
            "out",
            *reports,
            nf.meta(Meta.OUT_KIND, nf.REGISTER_2),
            nf.equals(_MACVLAN, nf.REGISTER_2),
            nf.payload(Header.NETWORK, *_DESTINATION_AT[self._family]),
            nf.meta(Meta.OUT_INDEX, nf.REGISTER_2),
            nf.lookup("vmac_map", nf.REGISTER_2, nf.REGISTER_2),
            nf.duplicate(nf.REGISTER_1, nf.REGISTER_2),
            nf.DROP,
        )

    def _quieten_ipv6(self) -> None:
        self._hide_base_address()
        self._set("mld-report", (KeyType.ICMPV6_TYPE,), [bytes((t,)) for t in _MLD_REPORTS], constant=True)
        self._move_reports(*_icmpv6(), nf.lookup("mld-report"))
        indexes = [_native(vmac.index) for vmac in self._vmacs]
        self._set("vmac_set", (KeyType.INTERFACE_INDEX,), indexes)
        self._rule(
            "out",
            *_icmpv6(),
            nf.equals(bytes((_ROUTER_SOLICITATION,))),
            nf.meta(Meta.OUT_INDEX, nf.REGISTER_2),
            nf.lookup("vmac_set", nf.REGISTER_2),
            nf.DROP,
        )

    def _hide_base_address(self) -> None:
        """The address adverts leave from is its base's: only the base may answer for it."""
        found = [(vmac.base_link_local, vmac) for vmac in self._vmacs if vmac.base_link_local]
        if not found:
            return
        keys = [address + self._interface_key(vmac.name, vmac.index) for address, vmac in found]
        self._set("parent_link_local", (KeyType.IPV6_ADDRESS, self._interface_type), keys)
        self._rule(
            "out",
            *_icmpv6(),
            nf.equals(bytes((_NEIGHBOR_ADVERTISEMENT,))),
            nf.payload(Header.NETWORK, *_SOURCE_AT[Family.IPV6]),
            nf.meta(self._interface_meta("out"), nf.REGISTER_2),
            nf.lookup("parent_link_local"),
            nf.DROP,
        )

    # Addresses -------------------------------------------------------------------------------------------

    def _refuse(self) -> None:
        family = self._family
        near = [each for each in self._refused if is_link_local(each.address)]
        far = sorted({packed(each.address) for each in self._refused if not is_link_local(each.address)})
        if family is Family.IPV6:
            types = [bytes((t,)) for t in _NEIGHBOR_DISCOVERY]
            self._set("neighbor-discovery", (KeyType.ICMPV6_TYPE,), types, constant=True)
            for chain in ("in", "out"):
                self._rule(chain, *_icmpv6(), nf.lookup("neighbor-discovery"), nf.ACCEPT)
            if near:
                self._refuse_link_local(near)
        if not far:
            return
        self._set("vips", (_ADDRESS_TYPES[family],), far)
        for chain, place in (("in", _DESTINATION_AT), ("out", _SOURCE_AT)):
            self._rule(chain, nf.payload(Header.NETWORK, *place[family]), nf.lookup("vips"), nf.DROP)

    def _refuse_link_local(self, near: Sequence[Refused]) -> None:
        """The same address may be another host's on another link."""
        name = "vips_link_local" if self._settings.nftables_ifindex else "vips_link_local_name"
        keys = [packed(each.address) + self._interface_key(each.interface, each.index) for each in near]
        self._set(name, (KeyType.IPV6_ADDRESS, self._interface_type), keys)
        for chain, place in (("in", _DESTINATION_AT), ("out", _SOURCE_AT)):
            side = f"{chain}_link_local"
            self._commands.append(nf.chain(self._family, self._table, side))
            address = nf.payload(Header.NETWORK, *place[Family.IPV6])
            self._rule(
                side, address, nf.meta(self._interface_meta(chain), nf.REGISTER_2), nf.lookup(name), nf.DROP
            )
            self._rule(chain, address, nf.masked(_LINK_LOCAL_MASK), nf.equals(_LINK_LOCAL), nf.go_to(side))


def _native(index: int) -> bytes:
    return index.to_bytes(4, sys.byteorder)


def _icmpv6() -> tuple[bytes, ...]:
    """Go on only with ICMPv6, whose type is then in the first register."""
    return (
        nf.meta(Meta.LAYER_4_PROTOCOL),
        nf.equals(bytes((_ICMPV6,))),
        nf.payload(Header.TRANSPORT, 0, 1),
    )
