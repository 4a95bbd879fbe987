"""ipvlan, VRF and VLAN under virtual routers, beside keepalived."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.capture import Capture
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Bridge, Network, Node, poll
from tests.support.neighbours import who_answers
from tests.support.virtual_links import own_links, settings

VIP = "192.0.2.100"
VMAC4 = "00:00:5e:00:01:33"
PATIENCE_S = 180
FAST: dict[str, Any] = {"version": 3, "advert_int": 0.5}


@pytest.fixture
def lan(network: Network) -> Bridge:
    return network.bridge()


def made_by(
    network: Network, lan: Bridge, make: type[Daemon], text: str, prepare: Callable[[Node], None]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Interfaces and settings while a daemon of this kind is MASTER of all its instances."""
    node = network.node(make.__name__.lower())
    node.attach(lan, "192.0.2.1/24", "fe80::1/64", mac="02:00:00:00:00:01")
    prepare(node)
    with make(node, text) as daemon:
        daemon.wait_for("Entering MASTER STATE", times=text.count("vrrp_instance "), seconds=PATIENCE_S)
        poll(lambda: node.holds(VIP), "the VIP", seconds=PATIENCE_S)
        found = own_links(node), settings(node, "eth0", *own_links(node))
        daemon.stop(PATIENCE_S)
    assert own_links(node) == {}
    node.close()
    network.nodes.remove(node)
    return found


def test_ipvlans_are_keepaliveds(network: Network, lan: Bridge) -> None:
    text = configuration(
        vrrp_instance(extra=("use_ipvlan 192.0.2.7/24 private",), **FAST),
        vrrp_instance(
            "VI_6", vrid=52, extra=("use_ipvlan six private group 5",), addresses=("fe80::99",), **FAST
        ),
    )
    theirs, their_settings = made_by(network, lan, Keepalived, text, lambda node: None)
    ours, our_settings = made_by(network, lan, Kad, text, lambda node: None)
    # 2.2.7 does not know groups: for it that was the interface's name.
    assert ours.pop("six").pop("group") == "5"
    theirs.pop("six", None), theirs.pop("group", None)
    assert ours == theirs and set(ours) == {"vrrp.51"}
    assert ours["vrrp.51"]["addresses"][0][0] == "192.0.2.7"
    assert {k: v for k, v in our_settings.items() if "six" not in k} == {
        k: v for k, v in their_settings.items() if "six" not in k and "group" not in k
    }


@pytest.mark.parametrize("ours_is_better", [True, False])
def test_ipvlans_of_both_kinds_elect_one(network: Network, lan: Bridge, ours_is_better: bool) -> None:
    one, two = network.node("kad"), network.node("ka")
    one.attach(lan, "192.0.2.1/24")
    two.attach(lan, "192.0.2.2/24")

    def text(number: int, priority: int) -> str:
        extra = (f"use_ipvlan 192.0.2.{number}/24",)
        return configuration(vrrp_instance(priority=priority, extra=extra, **FAST))

    with (
        Kad(one, text(7, 150 if ours_is_better else 50)) as kad,
        Keepalived(two, text(8, 100)) as keepalived,
        Capture(two, "eth0") as wire,
    ):
        better, node = (kad, one) if ours_is_better else (keepalived, two)
        other = two if ours_is_better else one
        better.wait_for("Entering MASTER STATE", seconds=PATIENCE_S)
        poll(lambda: node.holds(VIP) and not other.holds(VIP), "one holder", seconds=PATIENCE_S)
        source = "192.0.2.7" if ours_is_better else "192.0.2.8"
        wire.wait_for(lambda: wire.adverts(source=source), "adverts from its own address", seconds=PATIENCE_S)
        assert better.stop(PATIENCE_S) == 0
        poll(lambda: other.holds(VIP) and not node.holds(VIP), "the other one", seconds=PATIENCE_S)


def in_vrf(node: Node) -> None:
    node.ip("link", "add", "red", "type", "vrf", "table", "10")
    node.ip("link", "set", "red", "up")
    node.ip("link", "set", "eth0", "master", "red")
    node.ip("link", "add", "link", "eth0", "name", "eth0.5", "type", "vlan", "id", "5")
    node.ip("link", "set", "eth0.5", "up")
    node.ip("addr", "add", "192.0.5.1/24", "dev", "eth0.5")


def test_vmacs_in_a_vrf_and_on_a_vlan_are_keepaliveds(network: Network, lan: Bridge) -> None:
    text = configuration(
        vrrp_instance(extra=("use_vmac",), **FAST),
        vrrp_instance(
            "VI_V",
            vrid=53,
            interface="eth0.5",
            extra=("use_vmac tagged",),
            addresses=("192.0.5.100/24",),
            **FAST,
        ),
    )
    theirs, their_settings = made_by(network, lan, Keepalived, text, in_vrf)
    ours, our_settings = made_by(network, lan, Kad, text, in_vrf)
    assert ours == theirs
    assert our_settings == their_settings
    assert (ours["vrrp.51"]["in"], ours["tagged"]["in"]) == ("red", None)


def test_a_vmac_follows_its_base_into_another_vrf(network: Network, lan: Bridge) -> None:
    node, client = network.node("kad"), network.node("client")
    node.attach(lan, "192.0.2.1/24")
    client.attach(lan, "192.0.2.9/24")
    in_vrf(node)
    node.ip("link", "add", "blue", "type", "vrf", "table", "20")
    node.ip("link", "set", "blue", "up")
    with Kad(node, configuration(vrrp_instance(extra=("use_vmac",), **FAST))) as kad:
        kad.wait_for("Entering MASTER STATE", seconds=PATIENCE_S)
        assert who_answers(client, "eth0", VIP, seconds=2) == {VMAC4}
        for vrf in ("blue", None):
            if vrf is None:
                node.ip("link", "set", "eth0", "nomaster")
            else:
                node.ip("link", "set", "eth0", "master", vrf)

            def followed(vrf: str | None = vrf) -> bool:
                found = own_links(node).get("vrrp.51", {})
                return bool(found) and found["in"] == vrf and node.holds(VIP)

            poll(followed, f"the VMAC in {vrf}", seconds=PATIENCE_S)
            poll(
                lambda: who_answers(client, "eth0", VIP, seconds=1) == {VMAC4},
                "its answer",
                seconds=PATIENCE_S,
            )


def test_a_unicast_instance_without_interface_speaks_in_its_vrf(network: Network, lan: Bridge) -> None:
    one, two = network.node("kad"), network.node("ka")
    for number, node in ((1, one), (2, two)):
        node.attach(lan, f"192.0.2.{number}/24")
        in_vrf(node)

    def text(number: int, other: int, priority: int, *extra: str) -> str:
        whole = vrrp_instance(
            priority=priority,
            source=f"192.0.2.{number}",
            peers=(f"192.0.2.{other}",),
            addresses=(f"{VIP}/24 dev eth0",),
            extra=extra,
            **FAST,
        )
        return configuration(whole.replace("interface eth0\n", "") if extra else whole)

    # 2.2.7 cannot do without an interface.
    with Kad(one, text(1, 2, 150, "vrf red")) as kad, Keepalived(two, text(2, 1, 100)) as keepalived:
        kad.wait_for("Entering MASTER STATE", seconds=PATIENCE_S)
        poll(lambda: one.holds(VIP) and not two.holds(VIP), "one holder", seconds=PATIENCE_S)
        kad.stop(PATIENCE_S)
        keepalived.wait_for("Entering MASTER STATE", seconds=PATIENCE_S)
        poll(lambda: two.holds(VIP) and not one.holds(VIP), "the other one", seconds=PATIENCE_S)
