"""Which interfaces of their own the virtual routers need, how they are called, and which addresses go there.

All of it follows from the configuration alone, so that a restarted process and the next generation mean the
same interfaces. Names are keepalived's: ``vrrp.VRID``, then for IPv6 ``vrrp6.VRID``, then ``vrrp1.VRID`` …
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, count

from msgspec import Struct
from msgspec.structs import replace

from kad.addresses import INET6, family_of
from kad.config.model.vrrp import VirtualAddress, VirtualLink, Vmac, VrrpInstance

NAME_LIMIT = 15
"""IFNAMSIZ without the terminating zero."""
DEFAULT_PREFIX = "vrrp"


class Placement(Struct, frozen=True):
    instances: tuple[VrrpInstance, ...]
    """The same ones, in order, with names and addresses in their places."""
    links: tuple[VirtualLink, ...] = ()
    clashes: tuple[tuple[int, str], ...] = ()
    """(index of an instance, why it cannot run)."""


def place(
    instances: Sequence[VrrpInstance], prefix: str = DEFAULT_PREFIX, address_prefix: str = ""
) -> Placement:
    """``prefix`` and ``address_prefix``: vmac_prefix and vmac_addr_prefix."""
    if not any(_needs_links(instance) for instance in instances):
        return Placement(tuple(instances))
    return _Placing(instances, prefix or DEFAULT_PREFIX, address_prefix or prefix or DEFAULT_PREFIX).run()


def _needs_links(instance: VrrpInstance) -> bool:
    if instance.vmac is not None or instance.use_vmac_addr:
        return True
    return any(each.use_vmac for each in chain(instance.virtual_addresses, instance.excluded_addresses))


def virtual_mac(virtual_router_id: int, family: int) -> str:
    """RFC 9568 §7.3."""
    return f"00:00:5e:00:{'02' if family == INET6 else '01'}:{virtual_router_id:02x}"


class _Placing:
    def __init__(self, instances: Sequence[VrrpInstance], prefix: str, address_prefix: str) -> None:
        self._instances = instances
        self._prefix = prefix
        self._address_prefix = address_prefix
        self._names = {each.vmac.name for each in instances if each.vmac is not None}
        self._links: dict[str, VirtualLink] = {}
        self._by_mac: dict[tuple[str, str], tuple[str, VrrpInstance]] = {}
        """(base, MAC) -> the link's name, and who wanted it first."""
        self._own: set[str] = set()
        """Links that adverts of an instance leave from, not only addresses."""
        self._clashes: dict[int, str] = {}

    def run(self) -> Placement:
        placed = []
        for index, instance in enumerate(self._instances):
            if instance.vmac is not None:
                instance = self._with_link(index, instance, instance.vmac)
            if _needs_links(instance):
                instance = replace(
                    instance,
                    virtual_addresses=self._placed(index, instance, instance.virtual_addresses),
                    excluded_addresses=self._placed(index, instance, instance.excluded_addresses),
                )
            fault = instance.fault or self._clashes.get(index, "")
            placed.append(replace(instance, fault=fault) if fault else instance)
        return Placement(tuple(placed), tuple(self._links.values()), tuple(self._clashes.items()))

    def _with_link(self, index: int, instance: VrrpInstance, vmac: Vmac) -> VrrpInstance:
        family = instance.family
        mac = "" if vmac.ipvlan else vmac.mac or virtual_mac(instance.virtual_router_id, family)
        # keepalived: instances with the same MAC on the same interface share one VMAC (both families, say).
        known = self._by_mac.get((instance.interface, mac)) if mac else None
        shared = known[0] if known is not None else ""
        name = shared or vmac.name or self._new_name(self._prefix, instance.virtual_router_id, family)
        # Over IPv6 the same address as the base's is not enough to send from: it has to be here too.
        link_local = family == INET6 and not vmac.ipvlan and not vmac.xmit_base
        source = instance.source_address if link_local else ""
        made = VirtualLink(
            name,
            instance.interface,
            mac,
            family,
            vmac.ipvlan_mode or "bridge",
            vmac.address,
            has_ipv6=family == INET6,
            link_local=link_local,
            source=source,
            group=vmac.group,
            netlink_notify_msg=vmac.netlink_notify_msg,
        )
        self._links[name] = _merged(self._links[shared], made) if shared else made
        if mac and shared not in self._own:
            self._claim(index, instance, instance.interface, mac, name)
            self._own.add(name)
        return replace(instance, vmac=replace(vmac, name=name, mac=mac))

    def _claim(self, index: int, instance: VrrpInstance, base: str, mac: str, name: str) -> None:
        """One MAC on one network is one virtual router's: where it answers is where its master is."""
        _, other = self._by_mac.setdefault((base, mac), (name, instance))
        if other.name == instance.name or (other.sync_group and other.sync_group == instance.sync_group):
            return
        self._clashes.setdefault(index, f"its VMAC on {base} is that of {other.name} too")

    def _placed(
        self, index: int, instance: VrrpInstance, addresses: tuple[VirtualAddress, ...]
    ) -> tuple[VirtualAddress, ...]:
        return tuple(self._place_one(index, instance, address) for address in addresses)

    def _place_one(self, index: int, instance: VrrpInstance, address: VirtualAddress) -> VirtualAddress:
        family = family_of(address.address)
        at_home = address.interface in ("", instance.interface) and family == instance.family
        vmac = instance.vmac
        if at_home and vmac is not None and not vmac.ipvlan:
            # An ipvlan has no MAC of its own to answer with: keepalived leaves the addresses on the base.
            self._use(vmac.name, family)
            return replace(address, interface=vmac.name)
        if not (address.use_vmac or (instance.use_vmac_addr and not at_home)):
            return address
        base = address.interface or instance.interface
        if not base:
            return address
        given = vmac.mac if vmac is not None and vmac.mac != _own_mac(instance) else ""
        mac = given or virtual_mac(instance.virtual_router_id, family)
        return replace(address, interface=self._address_link(index, instance, base, mac, family))

    def _address_link(self, index: int, instance: VrrpInstance, base: str, mac: str, family: int) -> str:
        known = self._by_mac.get((base, mac))
        if known is None:
            name = self._new_name(self._address_prefix, instance.virtual_router_id, family)
            is_ipv6 = family == INET6
            self._links[name] = VirtualLink(name, base, mac, family, has_ipv6=is_ipv6, link_local=is_ipv6)
        else:
            name = known[0]
        self._claim(index, instance, base, mac, name)
        self._use(name, family)
        return name

    def _use(self, name: str, family: int) -> None:
        if family == INET6 and not self._links[name].has_ipv6:
            self._links[name] = replace(self._links[name], has_ipv6=True)

    def _new_name(self, prefix: str, virtual_router_id: int, family: int) -> str:
        for number in chain(("",), (6,) if family == INET6 else (), _numbers(family)):
            tail = f"{number}.{virtual_router_id}"
            name = f"{prefix[: NAME_LIMIT - len(tail)]}{tail}"
            if name not in self._names:
                self._names.add(name)
                return name
        raise AssertionError("numbers do not end")


def _merged(one: VirtualLink, other: VirtualLink) -> VirtualLink:
    """The same interface for both."""
    return replace(
        one,
        family=min(one.family, other.family),
        has_ipv6=one.has_ipv6 or other.has_ipv6,
        link_local=one.link_local or other.link_local,
        source=one.source or other.source,
        netlink_notify_msg=one.netlink_notify_msg or other.netlink_notify_msg,
    )


def _numbers(family: int) -> count[int] | chain[int]:
    return count(1) if family != INET6 else chain(range(1, 6), count(7))


def _own_mac(instance: VrrpInstance) -> str:
    return virtual_mac(instance.virtual_router_id, instance.family)
