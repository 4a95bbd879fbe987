"""VMACs: the interfaces and settings kad makes beside those keepalived makes, and both as peers."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.capture import Capture
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, Node, poll, remains
from tests.support.neighbours import who_answers
from tests.support.virtual_links import needs_macvlan, own_links, settings

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

VIP = "192.0.2.100"
VMAC4, VMAC6 = "00:00:5e:00:01:33", "00:00:5e:00:02:33"


class Lan:
    def __init__(self, network: Network) -> None:
        self.bridge = network.bridge()
        self.network = network
        self.client = self.node("probe", 9)

    def node(self, label: str, number: int) -> Node:
        node = self.network.node(label)
        node.attach(self.bridge, f"192.0.2.{number}/24", f"fe80::{number}/64")
        return node


@pytest.fixture
def lan(network: Network) -> Iterator[Lan]:
    needs_macvlan()
    yield Lan(network)


def vmac(priority: int = 100, *extra: str, **more: Any) -> str:
    return vrrp_instance(priority=priority, extra=("use_vmac", *extra), **more)


def reaches(client: Node, address: str) -> bool:
    """Packets go there and back: nobody listens, which the other end says."""
    with client.entered(), socket.socket() as made:
        made.settimeout(3)
        return made.connect_ex((address, 9)) == errno.ECONNREFUSED


def seen(lan: Lan, make: type[Daemon], text: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Links and settings while a daemon of this kind is MASTER of everything."""
    node = lan.node(make.program.rpartition("/")[2], 1)
    node.attach(lan.bridge, "198.51.100.1/24", "fe80::a/64", name="eth1")
    node.sysctl("net.ipv4.conf.all.rp_filter", "1")
    before = settings(node, "eth0", "eth1", "lo")
    with make(node, text) as daemon:
        names = text.count("vrrp_instance ")
        daemon.wait_for("Entering MASTER STATE", times=names)
        poll(lambda: node.holds("2001:db8::100"), "the last address")
        made = own_links(node)
        during = settings(node, "eth0", "eth1", "lo", *made)
        daemon.stop()
    assert own_links(node) == {}, "removed at the end"
    if make is Kad:
        assert settings(node, "eth0", "eth1", "lo") == before, "put back at the end"
    node.close()
    lan.network.nodes.remove(node)
    return made, during


def test_links_and_settings_are_keepaliveds(lan: Lan) -> None:
    needs_keepalived()
    text = configuration(
        vmac(addresses=(f"{VIP}/24", "192.0.2.101/24 dev eth1")),
        vrrp_instance(
            "VI_2", vrid=52, extra=("use_vmac named 02:11:22:33:44",), addresses=("192.0.2.102/24",)
        ),
        vrrp_instance(
            "VI_X", vrid=53, extra=("use_vmac", "use_vmac_addr"), addresses=("198.51.100.3/24 dev eth1",)
        ),
        vrrp_instance("VI_Y", vrid=54, addresses=("198.51.100.4/24 dev eth1 use_vmac",)),
        vrrp_instance("VI_6", version=3, extra=("use_vmac",), addresses=("fe80::99", "2001:db8::100/64")),
    )
    theirs, their_settings = seen(lan, Keepalived, text)
    ours, our_settings = seen(lan, Kad, text)
    assert ours == theirs
    differing = {k for k in our_settings if our_settings[k] != their_settings.get(k)}
    # 2.2.7 leaves an IPv6 VMAC as it is; 2.4 sets this, and so does kad. And it forgets some interfaces when
    # it moves rp_filter from all of them to each.
    assert differing <= {"vrrp6.51.arp_ignore", "eth1.rp_filter", "lo.rp_filter"}, differing
    assert set(ours) == {"vrrp.51", "named", "vrrp.53", "vrrp1.53", "vrrp.54", "vrrp6.51"}


def test_names_begin_as_asked_for(lan: Lan) -> None:
    needs_keepalived()
    text = configuration(
        vmac(),
        vrrp_instance("VI_Y", vrid=54, addresses=("198.51.100.4/24 dev eth1 use_vmac",)),
        vrrp_instance("VI_6", version=3, extra=("use_vmac",), addresses=("fe80::99", "2001:db8::100/64")),
        settings=("vmac_prefix floating", "vmac_addr_prefix single"),
    )
    theirs, _ = seen(lan, Keepalived, text)
    ours, _ = seen(lan, Kad, text)
    assert ours == theirs
    assert set(ours) == {"floating.51", "floating6.51", "single.54"}


def test_over_ipv6_it_begins_without_a_fault(lan: Lan) -> None:
    """The kernel says a little later that the VMAC has the address that adverts leave from."""
    names = range(1, 6)
    text = configuration(
        *(
            vrrp_instance(
                f"V{n}",
                vrid=n,
                version=3,
                advert_int=0.2,
                extra=("use_vmac",),
                addresses=(f"fe80::{n}00", f"2001:db8::{n}/64"),
            )
            for n in names
        )
    )
    with Kad(lan.node("kad", 1), text) as kad:
        kad.wait_for("Entering MASTER STATE", times=len(names))
        assert kad.count("FAULT") == 0, kad.said()


@pytest.mark.parametrize("version", [2, 3])
def test_mastership_moves_both_ways_with_the_mac(lan: Lan, version: int) -> None:
    needs_keepalived()
    ours, theirs = lan.node("kad", 1), lan.node("ka", 2)
    interval = 1.0 if version == 2 else 0.2
    fields: dict[str, Any] = {"version": version, "advert_int": interval}
    with (
        Keepalived(theirs, configuration(vmac(100, **fields))) as keepalived,
        Capture(lan.client, "eth0") as wire,
    ):
        keepalived.wait_for("Entering MASTER STATE")
        with Kad(ours, configuration(vmac(150, **fields))) as kad:
            kad.wait_for("(VI_1) Entering MASTER STATE")
            keepalived.wait_for("Entering BACKUP STATE", times=2)
            poll(lambda: ours.holds(VIP) and not theirs.holds(VIP), "the VIP here alone")
            assert who_answers(lan.client, "eth0", VIP) == {VMAC4}
            assert reaches(lan.client, VIP)
            wire.clear()
            advert = wire.wait_for(lambda: wire.adverts(vrid=51), "an advert")[-1]
            assert (advert.source_mac, advert.source) == (VMAC4, "192.0.2.1")
            kad.configure(configuration(vmac(50, **fields)))
            kad.reload()
            keepalived.wait_for("Entering MASTER STATE", times=2)
            kad.wait_for("(VI_1) Entering BACKUP STATE", times=2)
            poll(lambda: theirs.holds(VIP) and not ours.holds(VIP), "the VIP there alone")
            assert "vrrp.51" in own_links(ours), "it stays while BACKUP"
            assert who_answers(lan.client, "eth0", VIP) == {VMAC4}
            keepalived.kill_all()
            kad.wait_for("(VI_1) Entering MASTER STATE", times=2)


def test_announcements_and_ipv6_adverts_come_from_the_vmac(lan: Lan) -> None:
    node = lan.node("kad", 1)
    six = vrrp_instance("VI_6", version=3, extra=("use_vmac",), addresses=("fe80::99", "2001:db8::100/64"))
    with Capture(lan.client, "eth0") as wire, Kad(node, configuration(vmac(100), six)) as kad:
        kad.wait_for("Entering MASTER STATE", times=2)
        wire.wait_for(lambda: wire.announcements("2001:db8::100"), "a neighbour advertisement")
        wire.wait_for(lambda: wire.announcements(VIP), "a gratuitous ARP")
        assert {a.mac for a in wire.announcements(VIP)} == {VMAC4}
        assert {a.frame.source_mac for a in wire.announcements(VIP)} == {VMAC4}
        assert {a.mac for a in wire.announcements("2001:db8::100")} == {VMAC6}
        advert = wire.wait_for(lambda: [a for a in wire.adverts(vrid=51) if ":" in a.source], "an advert")[-1]
        assert (advert.source_mac, advert.source, advert.hop_limit) == (VMAC6, "fe80::1", 255)
        assert who_answers(lan.client, "eth0", "2001:db8::100") == {VMAC6}


def test_the_base_sends_the_adverts_if_asked(lan: Lan) -> None:
    node = lan.node("kad", 1)
    with Capture(lan.client, "eth0") as wire, Kad(node, configuration(vmac(100, "vmac_xmit_base"))) as kad:
        kad.wait_for("Entering MASTER STATE")
        poll(lambda: node.holds(VIP), "the VIP")
        assert {a.source_mac for a in wire.adverts(vrid=51)} == {node.mac("eth0")}
        wire.wait_for(lambda: wire.announcements(VIP), "a gratuitous ARP")
        assert {a.mac for a in wire.announcements(VIP)} == {VMAC4}
        assert who_answers(lan.client, "eth0", VIP) == {VMAC4}


def test_a_killed_child_finds_its_vmac_and_what_to_put_back(lan: Lan) -> None:
    node = lan.node("kad", 1)
    before = settings(node, "eth0")
    with Kad(node, configuration(vmac(100, version=3, advert_int=0.3))) as kad:
        kad.wait_for("Entering MASTER STATE")
        poll(lambda: node.holds(VIP), "the VIP")
        index = node.ip_json("link", "show", "dev", "vrrp.51")[0]["ifindex"]
        pid = kad.vrrp_pid()
        os.kill(pid, signal.SIGKILL)
        kad.new_vrrp_pid(pid)
        kad.wait_for("going on as MASTER")
        remains(lambda: node.holds(VIP), "the VIP over the crash", seconds=1)
        assert node.ip_json("link", "show", "dev", "vrrp.51")[0]["ifindex"] == index, "not made anew"
        assert kad.count("Entering MASTER STATE") == 1
        assert settings(node, "eth0") != before
        assert kad.stop() == 0
    assert settings(node, "eth0") == before
    assert own_links(node) == {}


def test_a_reload_adds_changes_and_removes_them(lan: Lan) -> None:
    node = lan.node("kad", 1)
    fast: dict[str, Any] = {"version": 3, "advert_int": 0.3}

    def text(first: str, *more: str) -> str:
        return configuration(vrrp_instance(extra=(first,), **fast), *more)

    other = vrrp_instance("VI_2", vrid=52, extra=("use_vmac",), addresses=("192.0.2.102/24",), **fast)
    with Kad(node, text("")) as kad, Capture(lan.client, "eth0") as wire:

        def answers_as(mac: str) -> None:
            poll(lambda: who_answers(lan.client, "eth0", VIP) == {mac}, f"{mac} to answer", seconds=10)

        kad.wait_for("(VI_1) Entering MASTER STATE")
        answers_as(node.mac("eth0"))
        kad.configure(text("use_vmac", other))
        kad.reload()
        answers_as(VMAC4)
        kad.wait_for("(VI_2) Entering MASTER STATE")
        assert set(own_links(node)) == {"vrrp.51", "vrrp.52"}
        kad.configure(text("use_vmac 02:11:22:33:44:55"))
        kad.reload()
        answers_as("02:11:22:33:44:55")
        poll(lambda: set(own_links(node)) == {"vrrp.51"}, "the other one removed")
        kad.configure(text(""))
        kad.reload()
        answers_as(node.mac("eth0"))
        poll(lambda: own_links(node) == {}, "none left")
        assert kad.count("(VI_1) Entering MASTER STATE") == 1, "mastership was kept all along"
        assert kad.count("(VI_1) Entering FAULT STATE") == 0
        assert wire.adverts(vrid=51)[-1].source_mac == node.mac("eth0")


def test_a_reload_gives_them_other_names_and_nobody_is_without_master(lan: Lan) -> None:
    """Its successor has the same MAC address, of which there can be one; then two exchange their names."""
    node = lan.node("kad", 1)
    fast: dict[str, Any] = {"version": 3, "advert_int": 0.3}

    def text(first: str, second: str) -> str:
        one = vrrp_instance(extra=(f"use_vmac {first}",), **fast)
        other = vrrp_instance(
            "VI_2", vrid=52, extra=(f"use_vmac {second}",), addresses=("192.0.2.102/24",), **fast
        )
        return configuration(one, other)

    with Kad(node, text("", "")) as kad, Capture(lan.client, "eth0") as wire:
        kad.wait_for("(VI_1) Entering MASTER STATE")
        kad.wait_for("(VI_2) Entering MASTER STATE")
        for names in (("vip51", "vrrp.52"), ("left", "right"), ("right", "left")):
            kad.configure(text(*names))
            kad.reload_surely()
            poll(lambda names=names: set(own_links(node)) == set(names), f"{names}")
            found = own_links(node)
            assert found[names[0]]["mac"] == VMAC4
            assert found[names[1]]["mac"] == VMAC4[:-2] + "34"
            held = [address for address, *_ in found[names[0]]["addresses"]]
            assert VIP in held, found
            poll(lambda: who_answers(lan.client, "eth0", VIP) == {VMAC4}, "an answer", seconds=10)
        sent = [advert for advert in wire.adverts(vrid=51) if advert.priority]
        gaps = [after.time_us - before.time_us for before, after in itertools.pairwise(sent)]
        assert max(gaps) < 1.5 * 300_000, gaps
        assert all(advert.priority for advert in wire.adverts()), "no farewell"
        assert kad.count("Entering FAULT STATE") == 0, kad.said()
        assert kad.count("Entering MASTER STATE") == 2, kad.said()


def test_it_is_made_again_when_somebody_removes_it_or_its_base(lan: Lan) -> None:
    node = lan.node("kad", 1)
    with Kad(node, configuration(vmac(100, version=3, advert_int=0.3))) as kad:
        kad.wait_for("Entering MASTER STATE")
        poll(lambda: node.holds(VIP), "the VIP")
        node.ip("link", "del", "vrrp.51")
        kad.wait_for("Entering FAULT STATE")
        kad.wait_for("Entering MASTER STATE", times=2)
        poll(lambda: who_answers(lan.client, "eth0", VIP) == {VMAC4}, "the VMAC again", seconds=10)
        node.ip("link", "del", "eth0")
        kad.wait_for("Entering FAULT STATE", times=2)
        assert own_links(node) == {}
        node.attach(lan.bridge, "192.0.2.1/24", name="eth0")
        kad.wait_for("Entering MASTER STATE", times=3)
        poll(lambda: who_answers(lan.client, "eth0", VIP) == {VMAC4}, "the VMAC once more", seconds=10)
        assert settings(node, "eth0")["eth0.arp_ignore"] == "1"


def test_an_interface_of_that_name_is_not_touched(lan: Lan) -> None:
    node = lan.node("kad", 1)
    node.attach(lan.bridge, name="vrrp.51")
    mac = node.mac("vrrp.51")
    with Kad(node, configuration(vmac(100))) as kad:
        kad.wait_for("there is another interface of that name")
        kad.wait_for("Entering FAULT STATE")
        assert kad.stop() == 0
    assert node.mac("vrrp.51") == mac


@pytest.mark.parametrize(
    "words",
    [
        "link eth0 name vrrp.51 address 02:00:00:00:00:09 type macvlan mode bridge",
        "link eth1 name vrrp.51 address 00:00:5e:00:01:33 type macvlan mode private",
    ],
    ids=["another MAC and mode", "on another interface"],
)
def test_a_wrong_one_of_that_name_is_put_right(lan: Lan, words: str) -> None:
    node = lan.node("kad", 1)
    node.attach(lan.bridge, name="eth1")
    node.ip("link", "add", *words.split())
    with Kad(node, configuration(vmac(100, version=3, advert_int=0.3))) as kad:
        kad.wait_for("Entering MASTER STATE")
        poll(lambda: node.holds(VIP), "the VIP")
        made = own_links(node)["vrrp.51"]
        assert (made["on"], made["mac"], made["mode"], made["up"]) == ("eth0", VMAC4, "private", True)
        assert kad.count("Entering FAULT STATE") == 0


def test_unicast_with_a_vmac_sends_from_the_base(lan: Lan) -> None:
    needs_keepalived()
    ours, theirs = lan.node("kad", 1), lan.node("ka", 2)

    def text(priority: int, number: int) -> str:
        peers = (f"192.0.2.{3 - number}",)
        fields: dict[str, Any] = {"version": 3, "advert_int": 0.2, "source": f"192.0.2.{number}"}
        return configuration(vmac(priority, "vmac_xmit_base", peers=peers, **fields))

    with (
        Capture(theirs, "eth0") as wire,
        Keepalived(theirs, text(100, 2)) as keepalived,
        Kad(ours, text(150, 1)) as kad,
    ):
        kad.wait_for("Entering MASTER STATE")
        poll(lambda: ours.holds(VIP) and not theirs.holds(VIP), "the VIP here alone")
        heard = wire.wait_for(lambda: wire.adverts(source="192.0.2.1"), "an advert to the peer")
        assert {advert.source_mac for advert in heard} == {ours.mac("eth0")}
        assert who_answers(lan.client, "eth0", VIP) == {VMAC4}
        kad.stop()
        keepalived.wait_for("Entering MASTER STATE")
        poll(lambda: theirs.holds(VIP), "the VIP there")


def test_what_a_killed_keepalived_left_is_taken_over(lan: Lan) -> None:
    needs_keepalived()
    node = lan.node("ka", 1)
    text = configuration(vmac(100, version=3, advert_int=0.3))
    with Keepalived(node, text) as keepalived:
        keepalived.wait_for("Entering MASTER STATE")
        poll(lambda: node.holds(VIP), "the VIP")
        keepalived.kill_all()
        left = own_links(node)
        index = node.ip_json("link", "show", "dev", "vrrp.51")[0]["ifindex"]
        with Kad(node, text) as kad:
            kad.wait_for("Entering MASTER STATE")
            poll(lambda: own_links(node) == left, "all as it was")
            assert node.ip_json("link", "show", "dev", "vrrp.51")[0]["ifindex"] == index, "not made anew"
            assert who_answers(lan.client, "eth0", VIP) == {VMAC4}
            kad.stop()
    assert own_links(node) == {}


def test_many_are_removed_at_once_and_nothing_else(lan: Lan) -> None:
    node = lan.node("kad", 1)
    node.ip("link", "set", "eth0", "group", "7")
    node.ip("link", "add", "link", "eth0", "name", "foreign", "type", "macvlan", "mode", "private")
    blocks = [
        vrrp_instance(
            f"VI_{n}",
            vrid=n,
            version=3,
            advert_int=0.3,
            extra=("use_vmac group 9" if n % 2 else "use_vmac netlink_notify_msg",),
            addresses=(f"10.0.{n}.1/24",),
        )
        for n in range(1, 41)
    ]
    with Kad(node, configuration(*blocks)) as kad:
        kad.wait_for("Entering MASTER STATE", times=40)
        poll(lambda: len(node.addresses()) > 40, "the addresses")
        made = own_links(node)
        assert len(made) == 41
        assert {made[f"vrrp.{n}"]["group"] for n in range(1, 41, 2)} == {"9"}
        assert {made[f"vrrp.{n}"]["group"] for n in range(2, 41, 2)} == {"7"}, "the base's"
        kad.configure(configuration(*blocks[:10]))
        kad.reload()
        poll(lambda: len(own_links(node)) == 11, "thirty of them gone", seconds=10)
        assert kad.stop() == 0
    assert set(own_links(node)) == {"foreign"}


class Asking(threading.Thread):
    """A client that asks for the VIP every 10 ms: how often nobody answered within 50 ms."""

    def __init__(self, client: Node) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._over = threading.Event()
        self.asked = self.lost = 0

    def run(self) -> None:
        with self._client.entered():
            while not self._over.wait(0.01):
                with socket.socket() as made:
                    made.settimeout(0.05)
                    self.asked += 1
                    self.lost += made.connect_ex((VIP, 9)) != errno.ECONNREFUSED

    def __enter__(self) -> Asking:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(10)


def go_over(lan: Lan, then: type[Daemon]) -> tuple[int, int]:
    """A pair of keepalived becomes one of ``then``, the backup first; (asked, lost)."""
    fields: dict[str, Any] = {"version": 3, "advert_int": 0.2}
    one, two = lan.node("one", 1), lan.node("two", 2)
    texts = {one: configuration(vmac(150, **fields)), two: configuration(vmac(100, **fields))}
    with Keepalived(one, texts[one]) as first, Keepalived(two, texts[two]) as second:
        first.wait_for("Entering MASTER STATE")
        second.wait_for("Entering BACKUP STATE")
        poll(lambda: reaches(lan.client, VIP), "the VIP")
        with Asking(lan.client) as asking:
            second.stop()
            with then(two, texts[two]) as new_second:
                new_second.wait_for("Entering BACKUP STATE")
                assert one.holds(VIP) and not two.holds(VIP)
                first.stop()
                new_second.wait_for("Entering MASTER STATE")
                poll(lambda: two.holds(VIP) and not one.holds(VIP), "the VIP on the other")
                with then(one, texts[one]) as new_first:
                    new_first.wait_for("Entering MASTER STATE")
                    poll(lambda: one.holds(VIP) and not two.holds(VIP), "the VIP back")
                    poll(lambda: who_answers(lan.client, "eth0", VIP) == {VMAC4}, "one answer")
                    before = asking.asked
                    poll(lambda: asking.asked > before + 20, "more of it")
                    new_second.stop()
                    new_first.stop()
                    asking.__exit__()
    for node in (one, two):
        node.close()
        lan.network.nodes.remove(node)
    return asking.asked, asking.lost


def test_a_pair_goes_over_from_keepalived_and_loses_no_more_than_with_it(lan: Lan) -> None:
    needs_keepalived()
    asked, lost = go_over(lan, Kad)
    theirs_asked, theirs_lost = go_over(lan, Keepalived)
    print(f"kad lost {lost} of {asked}, keepalived {theirs_lost} of {theirs_asked}")
    assert asked > 100 and theirs_asked > 100
    # Two changes of place: each costs the skew time and the client's own patience.
    assert lost <= theirs_lost + 10


def test_ipv6_moves_both_ways(lan: Lan) -> None:
    needs_keepalived()
    ours, theirs = lan.node("kad", 1), lan.node("ka", 2)
    vip6 = "2001:db8::100"

    def text(priority: int) -> str:
        return configuration(vmac(priority, version=3, advert_int=0.2, addresses=("fe80::99", f"{vip6}/64")))

    with Keepalived(theirs, text(100)) as keepalived, Kad(ours, text(150)) as kad:
        kad.wait_for("(VI_1) Entering MASTER STATE")
        poll(lambda: ours.holds(vip6) and not theirs.holds(vip6), "the VIP here alone")
        assert who_answers(lan.client, "eth0", vip6) == {VMAC6}
        kad.configure(text(50))
        kad.reload()
        keepalived.wait_for("Entering MASTER STATE")
        poll(lambda: theirs.holds(vip6) and not ours.holds(vip6), "the VIP there alone")
        assert who_answers(lan.client, "eth0", vip6) == {VMAC6}
        keepalived.stop()
        kad.wait_for("(VI_1) Entering MASTER STATE", times=2)
