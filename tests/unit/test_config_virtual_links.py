"""Which interfaces of their own virtual routers get, and which addresses go there."""

from __future__ import annotations

from kad.config.model.vrrp import VirtualAddress, Vmac, VrrpInstance
from kad.config.virtual_links import Placement, place

VMAC = Vmac()


def instance(name: str = "A", vrid: int = 51, *addresses: str, **fields: object) -> VrrpInstance:
    """Each address: ``ADDRESS [DEV]``; an ``!`` at its end is use_vmac."""
    made = []
    for text in addresses:
        words = text.removesuffix("!").split()
        interface = words[1] if len(words) > 1 else ""
        made.append(VirtualAddress(words[0], 24, interface=interface, use_vmac=text.endswith("!")))
    settings: dict[str, object] = {"interface": "eth0", "virtual_addresses": tuple(made)}
    return VrrpInstance(name, vrid, **(settings | fields))  # type: ignore[arg-type]


def names(placement: Placement) -> list[tuple[str, str, str]]:
    return [(link.name, link.base, link.mac) for link in placement.links]


def homes(placement: Placement) -> list[list[str]]:
    return [[address.interface for address in each.virtual_addresses] for each in placement.instances]


def test_without_any_nothing_changes() -> None:
    one = instance("A", 51, "10.0.0.1", "10.0.0.2 eth1")
    assert place([one]) == Placement((one,))


def test_addresses_of_its_interface_and_family_go_on_the_vmac() -> None:
    one = instance("A", 51, "10.0.0.1", "10.0.0.2 eth0", "10.0.0.3 eth1", "2001:db8::1", vmac=VMAC)
    placement = place([one])
    assert names(placement) == [("vrrp.51", "eth0", "00:00:5e:00:01:33")]
    assert homes(placement) == [["vrrp.51", "vrrp.51", "eth1", ""]]
    assert not placement.links[0].has_ipv6 and not placement.links[0].link_local
    assert placement.instances[0].transport_interface == "vrrp.51"


def test_an_ipvlan_leaves_the_addresses_on_the_base() -> None:
    placement = place([instance("A", 51, "10.0.0.1", vmac=Vmac(ipvlan=True, address="10.0.0.9/24"))])
    assert names(placement) == [("vrrp.51", "eth0", "")]
    assert homes(placement) == [[""]]
    assert placement.links[0].address == "10.0.0.9/24"


def test_use_vmac_addr_is_for_other_interfaces_and_the_other_family() -> None:
    one = instance("A", 51, "10.0.0.1", "10.0.0.3 eth1", "2001:db8::1", vmac=VMAC, use_vmac_addr=True)
    placement = place([one], "v", "w")
    assert names(placement) == [
        ("v.51", "eth0", "00:00:5e:00:01:33"),
        ("w.51", "eth1", "00:00:5e:00:01:33"),
        ("w6.51", "eth0", "00:00:5e:00:02:33"),
    ]
    assert homes(placement) == [["v.51", "w.51", "w6.51"]]
    assert [link.has_ipv6 for link in placement.links] == [False, False, True]


def test_a_single_address_may_ask_for_one() -> None:
    placement = place([instance("A", 51, "10.0.0.1", "10.0.0.3 eth1!", "10.0.0.4 eth1!")])
    assert names(placement) == [("vrrp.51", "eth1", "00:00:5e:00:01:33")]
    assert homes(placement) == [["", "vrrp.51", "vrrp.51"]]
    assert placement.instances[0].transport_interface == "eth0"


def test_names_are_taken_once_and_explicit_ones_first() -> None:
    four = instance("A", 51, "10.0.0.1", vmac=VMAC)
    six = instance("B", 51, "fe80::1", vmac=VMAC, family=6)
    third = instance("C", 51, "10.0.1.1", vmac=VMAC, interface="eth1")
    named = instance("D", 52, "10.0.1.1", vmac=Vmac(name="vrrp1.51"))
    placement = place([four, six, third, named])
    assert [link.name for link in placement.links] == ["vrrp.51", "vrrp6.51", "vrrp2.51", "vrrp1.51"]
    assert placement.links[1].link_local and placement.links[1].has_ipv6


def test_names_fit_the_kernel() -> None:
    two = instance("A", 251, "10.0.0.1", vmac=VMAC), instance("B", 251, interface="eth1", vmac=VMAC)
    placement = place(two, "a" * 20)
    assert [link.name for link in placement.links] == ["aaaaaaaaaaa.251", "aaaaaaaaaa1.251"]
    assert {len(link.name) for link in placement.links} == {15}


def test_an_explicit_mac_is_that_of_its_address_vmacs_too() -> None:
    one = instance("A", 51, "10.0.0.1 eth1", vmac=Vmac(mac="02:00:00:00:00:01"), use_vmac_addr=True)
    assert {link.mac for link in place([one]).links} == {"02:00:00:00:00:01"}


def test_one_mac_on_one_network_is_one_virtual_routers() -> None:
    four = instance("A", 51, "10.0.0.1", "2001:db8::1", vmac=VMAC, use_vmac_addr=True)
    six = instance("B", 51, "fe80::1", vmac=VMAC, family=6)
    placement = place([four, six])
    assert [index for index, _ in placement.clashes] == [1]
    assert placement.instances[1].fault and not placement.instances[0].fault
    members = [instance(each.name, 51, family=each.family, vmac=VMAC, sync_group="G") for each in (four, six)]
    assert place(members).clashes == ()


def test_instances_with_one_mac_on_one_interface_share_a_vmac() -> None:
    mac = "02:00:00:00:00:01"
    four = instance("A", 51, "10.0.0.1", vmac=Vmac(mac=mac))
    six = instance("B", 51, "fe80::1", vmac=Vmac(mac=mac, name="other"), family=6)
    placement = place([four, six])
    assert names(placement) == [("vrrp.51", "eth0", mac)] and not placement.clashes
    assert homes(placement) == [["vrrp.51"], ["vrrp.51"]]
    link = placement.links[0]
    assert (link.family, link.has_ipv6, link.link_local) == (4, True, True)


def test_adverts_from_the_base_need_no_link_local_address_there() -> None:
    one = instance("B", 51, "fe80::1", vmac=Vmac(xmit_base=True), family=6)
    placement = place([one])
    assert placement.links[0].has_ipv6 and not placement.links[0].link_local
    assert placement.instances[0].transport_interface == "eth0"
