"""The VRRP child on real wires: two of them in namespaces, every packet captured."""

import itertools
import signal
import socket
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from kad.config.model.vrrp import AuthType, UnicastPeer, VrrpInstance
from tests.support.capture import Advert, Capture
from tests.support.metronome import undisturbed
from tests.support.namespaces import Bridge, Network, Node, poll, remains
from tests.support.vrrp_node import VrrpNode, instance

pytestmark = pytest.mark.root

VIP, VIP6 = "192.0.2.100", "2001:db8::100"
INTERVAL_US = 100_000
PAUSE_MS = 50
HIGH, LOW = "192.0.2.1", "192.0.2.2"


@dataclass
class Pair:
    """Two nodes and an observer on one segment."""

    lan: Bridge
    high: Node
    low: Node
    observer: Node


@pytest.fixture
def pair(network: Network) -> Iterator[Pair]:
    lan = network.bridge()
    made = Pair(lan, network.node("high"), network.node("low"), network.node("see"))
    made.high.attach(lan, f"{HIGH}/24", "2001:db8::1/64")
    made.low.attach(lan, f"{LOW}/24", "2001:db8::2/64")
    made.observer.attach(lan)
    yield made


def v3(priority: int, *vips: str, **fields: Any) -> VrrpInstance:
    fields.setdefault("advert_int_us", INTERVAL_US)
    return instance("VI_1", 51, *(vips or (f"{VIP}/24",)), version=3, priority=priority, **fields)


def gaps(adverts: list[Advert]) -> list[int]:
    return [b.time_us - a.time_us for a, b in itertools.pairwise(adverts)]


def test_election_takeover_and_return(pair: Pair) -> None:
    skew_low = (256 - 100) * INTERVAL_US // 256
    with (
        VrrpNode(pair.high, v3(150)) as high,
        VrrpNode(pair.low, v3(100)) as low,
        Capture(pair.observer, "eth0") as wire,
    ):
        low.start()
        low.becomes("MASTER")
        poll(lambda: pair.low.holds(VIP), "the VIP")
        high.start()
        high.becomes("MASTER")
        low.becomes("BACKUP")
        poll(lambda: pair.high.holds(VIP) and not pair.low.holds(VIP), "the VIP on the better one")
        assert low.states() == ["BACKUP", "MASTER", "BACKUP"]
        last = wire.wait_for(lambda: wire.adverts(vrid=51, source=HIGH), "an advert of the better one")
        high.signal(signal.SIGKILL)
        high.wait()
        last = wire.adverts(vrid=51, source=HIGH)
        low.becomes("MASTER")
        poll(lambda: pair.low.holds(VIP), "the VIP taken over")
        first = [a for a in wire.adverts(vrid=51, source=LOW) if a.time_us > last[-1].time_us]
        silence = first[0].time_us - last[-1].time_us
        assert 3 * INTERVAL_US + skew_low <= silence < 3 * INTERVAL_US + skew_low + 200_000
        # What the dead process left is still there: only its successor can clear it.
        assert pair.high.holds(VIP)
        high.start()
        high.becomes("MASTER")
        low.becomes("BACKUP")
        assert high.stop() == 0
        low.becomes("MASTER")
        assert not pair.high.holds(VIP)
        assert low.stop() == 0
        assert not pair.low.holds(VIP)


def test_adverts_keep_their_schedule(pair: Pair) -> None:
    with VrrpNode(pair.high, v3(150, advert_int_us=50_000)) as high, Capture(pair.observer, "eth0") as wire:
        high.start()
        adverts = wire.wait_for(
            lambda: found if len(found := wire.adverts(vrid=51)) > 60 else [], "sixty adverts", seconds=10
        )
        # Absolute schedule: on the average it is the interval whatever single ones do that were late.
        means = [(b.time_us - a.time_us) / 30 for a, b in zip(adverts, adverts[30:61], strict=False)]
        assert 49_000 < statistics.median(means) < 52_000
        assert {a.priority for a in adverts} == {150}
        assert {(a.source, a.destination, a.hop_limit) for a in adverts} == {(HIGH, "224.0.0.18", 255)}
        assert {a.addresses for a in adverts} == {(VIP,)}
        assert high.stop() == 0
        last = wire.wait_for(lambda: [a for a in wire.adverts(vrid=51) if a.priority == 0], "priority 0")
        assert wire.adverts(vrid=51)[-1] == last[-1]


def test_addresses_are_announced_once_they_are_there(pair: Pair) -> None:
    vips = (f"{VIP}/24", f"{VIP6}/64")
    with VrrpNode(pair.high, v3(150, *vips)) as high, Capture(pair.observer, "eth0") as wire:
        high.start()
        high.becomes("MASTER")
        wire.wait_for(lambda: len(wire.announcements(VIP)) >= 5, "five gratuitous ARPs")
        wire.wait_for(lambda: len(wire.announcements(VIP6)) >= 5, "five neighbour advertisements")
        mac = pair.high.mac("eth0")
        first = wire.announcements(VIP)[0]
        assert (first.mac, first.frame.source_mac) == (mac, mac)
        assert first.frame.destination_mac == "ff:ff:ff:ff:ff:ff"
        six = wire.announcements(VIP6)[0]
        assert (six.mac, six.frame.destination_mac) == (mac, "33:33:00:00:00:01")
        assert first.time_us > wire.adverts(vrid=51)[0].time_us
        high.stop()


def test_ipv6(pair: Pair) -> None:
    fields = {"family": 6, "interface": "eth0"}
    with (
        VrrpNode(pair.high, v3(150, "fe80::5100/64", f"{VIP6}/64", **fields)) as high,
        VrrpNode(pair.low, v3(100, "fe80::5100/64", f"{VIP6}/64", **fields)) as low,
        Capture(pair.observer, "eth0") as wire,
    ):
        low.start()
        low.becomes("MASTER")
        high.start()
        high.becomes("MASTER")
        low.becomes("BACKUP")
        poll(lambda: pair.high.holds(VIP6) and not pair.low.holds(VIP6), "the VIP on the better one")
        heard = wire.adverts(vrid=51)[-1]
        assert (heard.destination, heard.hop_limit, heard.priority) == ("ff02::12", 255, 150)
        assert heard.source.startswith("fe80::") and heard.source != "fe80::5100"
        assert heard.addresses == ("fe80::5100", VIP6)
        high.signal(signal.SIGKILL)
        high.wait()
        low.becomes("MASTER")


@pytest.mark.parametrize("family", [4, 6])
def test_unicast(pair: Pair, family: int) -> None:
    ours, theirs = (HIGH, LOW) if family == 4 else ("2001:db8::1", "2001:db8::2")
    vips = [f"{VIP}/24"] if family == 4 else ["fe80::5100/64", f"{VIP6}/64"]

    def made(priority: int, source: str, peer: str) -> VrrpInstance:
        return v3(
            priority,
            *vips,
            family=family,
            unicast=True,
            source_address=source,
            unicast_peers=(UnicastPeer(peer),),
        )

    with (
        VrrpNode(pair.high, made(150, ours, theirs)) as high,
        VrrpNode(pair.low, made(100, theirs, ours)) as low,
        Capture(pair.low, "eth0") as wire,
    ):
        low.start()
        low.becomes("MASTER")
        high.start()
        high.becomes("MASTER")
        low.becomes("BACKUP")
        heard = wire.adverts(source=ours)[-1]
        assert (heard.destination, heard.hop_limit) == (theirs, 255)
        remains(lambda: low.state() == "BACKUP", "calm", seconds=0.5)
        high.stop()
        low.becomes("MASTER")


def test_version_2_with_password(pair: Pair) -> None:
    fields: dict[str, Any] = {
        "version": 2,
        "auth_type": AuthType.PASS,
        "auth_pass": b"1111",
        "advert_int_us": 1_000_000,
    }
    right = instance("VI_1", 51, f"{VIP}/24", priority=100, **fields)
    wrong = instance("VI_1", 51, f"{VIP}/24", priority=200, **(fields | {"auth_pass": b"2222"}))
    with VrrpNode(pair.low, right) as low, VrrpNode(pair.high, wrong) as high:
        low.start()
        high.start()
        low.becomes("MASTER")
        high.becomes("MASTER")
        # Neither believes the other: a wrong password is no reason to give way.
        remains(lambda: low.state() == high.state() == "MASTER", "two masters", seconds=1.2)
        assert "dropped packet" in low.log()


def test_link_down_is_fault_and_back(pair: Pair) -> None:
    with VrrpNode(pair.high, v3(150)) as high, VrrpNode(pair.low, v3(100)) as low:
        high.start()
        low.start()
        high.becomes("MASTER")
        pair.lan.unplug(pair.high, "eth0")
        high.becomes("FAULT")
        low.becomes("MASTER")
        poll(lambda: not pair.high.holds(VIP), "the VIP gone")
        pair.lan.replug(pair.high, "eth0")
        high.becomes("MASTER")
        low.becomes("BACKUP")
        poll(lambda: pair.high.holds(VIP), "the VIP back")
        assert high.states() == ["BACKUP", "MASTER", "FAULT", "BACKUP", "MASTER"]


def test_an_interface_set_down_loses_its_ipv6_addresses_and_gets_them_back(pair: Pair) -> None:
    with VrrpNode(pair.high, v3(150, f"{VIP}/24", f"{VIP6}/64")) as high:
        high.start()
        high.becomes("MASTER")
        poll(lambda: pair.high.holds(VIP6), "the VIP")
        pair.high.set_link("eth0", "down")
        high.becomes("FAULT")
        poll(lambda: not pair.high.holds(VIP), "the VIP gone")
        pair.high.set_link("eth0", "up")
        high.becomes("MASTER")
        poll(lambda: pair.high.holds(VIP) and pair.high.holds(VIP6), "both back")
        # The kernel took the IPv6 address away: that was the link, and nobody's deletion.
        assert high.states() == ["BACKUP", "MASTER", "FAULT", "BACKUP", "MASTER"]


def test_a_stopped_master_makes_one_clean_transition(pair: Pair) -> None:
    """What lay in its sockets meanwhile is stale; it may not be worked off packet by packet."""
    fast = {"advert_int_us": 10_000}
    with (
        VrrpNode(pair.high, v3(150, **fast)) as high,
        VrrpNode(pair.low, v3(100, **fast)) as low,
        Capture(pair.observer, "eth0") as wire,
    ):
        high.start()
        low.start()
        high.becomes("MASTER")
        low.becomes("BACKUP")
        high.signal(signal.SIGSTOP)
        low.becomes("MASTER")
        taken = len(wire.adverts(source=LOW))
        wire.wait_for(lambda: len(wire.adverts(source=LOW)) > taken + 100, "a hundred adverts meanwhile")
        wire.clear()
        high.signal(signal.SIGCONT)
        low.becomes("BACKUP")
        wire.wait_for(lambda: len(wire.adverts(source=HIGH)) > 100, "the schedule again")
        assert high.states() == ["BACKUP", "MASTER"]
        first = wire.adverts(source=HIGH)[0].time_us
        assert len([a for a in wire.adverts(source=HIGH) if a.time_us < first + 50_000]) < 15
        assert 1 <= len(wire.announcements(VIP)) <= 20
        remains(lambda: low.state() == "BACKUP", "calm", seconds=0.3)


def test_an_interface_that_vanishes_and_returns(pair: Pair) -> None:
    with VrrpNode(pair.high, v3(150)) as high:
        high.start()
        high.becomes("MASTER")
        pair.high.ip("link", "del", "eth0")
        high.becomes("FAULT")
        pair.high.attach(pair.lan, f"{HIGH}/24", name="eth0")
        high.becomes("MASTER")
        poll(lambda: pair.high.holds(VIP), "the VIP on the new interface")
        with Capture(pair.observer, "eth0") as wire:
            wire.wait_for(lambda: wire.adverts(vrid=51), "adverts from the new interface")


def test_somebody_deletes_the_address(pair: Pair) -> None:
    with VrrpNode(pair.high, v3(150)) as high, Capture(pair.observer, "eth0") as wire:
        high.start()
        high.becomes("MASTER")
        poll(lambda: pair.high.holds(VIP), "the VIP")
        pair.high.ip("addr", "del", f"{VIP}/24", "dev", "eth0")
        poll(lambda: high.states().count("MASTER") == 2, "mastery again")
        poll(lambda: pair.high.holds(VIP), "the VIP again")
        assert [a.priority for a in wire.adverts(vrid=51)].count(0) == 1
        assert high.states() == ["BACKUP", "MASTER", "BACKUP", "MASTER"]


def test_an_address_the_kernel_refuses(pair: Pair) -> None:
    # Another scope than the rest of its subnet: the kernel says no.
    pair.high.ip("addr", "add", "10.5.0.1/24", "dev", "eth0", "scope", "global")
    refused = v3(150, f"{VIP}/24", "10.5.0.100/24")
    refused = VrrpInstance(
        **{name: getattr(refused, name) for name in refused.__struct_fields__}
        | {
            "virtual_addresses": (
                refused.virtual_addresses[0],
                type(refused.virtual_addresses[1])("10.5.0.100", 24, scope=253),
            )
        }
    )
    with VrrpNode(pair.high, refused) as high, VrrpNode(pair.low, v3(100)) as low:
        high.start()
        low.start()
        high.becomes("FAULT")
        assert "Invalid scope" in high.log()
        assert "the kernel refused a virtual address (as told above)" in high.log()
        assert "belongs in virtual_ipaddress_excluded" in high.log()
        low.becomes("MASTER")
        poll(lambda: not pair.high.holds(VIP), "nothing left here")


def test_a_restarted_master_goes_on(pair: Pair) -> None:
    with (
        VrrpNode(pair.high, v3(150)) as high,
        VrrpNode(pair.low, v3(100)) as low,
        Capture(pair.observer, "eth0") as wire,
    ):
        high.start()
        low.start()
        high.becomes("MASTER")
        poll(lambda: pair.high.holds(VIP), "the VIP")
        # On a busy machine it may have spoken first.
        poll(lambda: low.states()[-1:] == ["BACKUP"], "the other one is BACKUP")
        before = low.states()
        wire.clear()
        for _ in range(5):
            sent = len(wire.adverts(vrid=51))
            high.signal(signal.SIGKILL)
            high.wait()
            assert pair.high.holds(VIP)
            high.start()
            wire.wait_for(lambda least=sent + 2: len(wire.adverts(vrid=51)) > least, "adverts going on")
            assert pair.high.holds(VIP)
        adverts = wire.adverts(vrid=51)
        assert {a.source for a in adverts} == {HIGH}
        assert low.states() == before
        assert max(gaps(adverts)) < 3 * INTERVAL_US


def test_one_that_comes_back_too_late_begins_as_backup(pair: Pair) -> None:
    with VrrpNode(pair.high, v3(150)) as high, VrrpNode(pair.low, v3(100)) as low:
        high.start()
        low.start()
        high.becomes("MASTER")
        poll(lambda: pair.high.holds(VIP), "the VIP")
        high.signal(signal.SIGKILL)
        high.wait()
        low.becomes("MASTER")
        high.start()
        poll(lambda: high.states().count("BACKUP") == 2, "a beginning as BACKUP")
        poll(lambda: not pair.high.holds(VIP) or high.state() == "MASTER", "the left-over cleared")
        high.becomes("MASTER")


def test_the_supervisors_death_withdraws(pair: Pair) -> None:
    """PDEATHSIG is SIGTERM: the same path as a stop."""
    with VrrpNode(pair.high, v3(150)) as high, Capture(pair.observer, "eth0") as wire:
        high.start()
        high.becomes("MASTER")
        poll(lambda: pair.high.holds(VIP), "the VIP")
        assert high.stop() == 0
        assert not pair.high.holds(VIP)
        assert wire.adverts(vrid=51)[-1].priority == 0


def test_withdraw_mode_takes_back_and_leaves(pair: Pair) -> None:
    with VrrpNode(pair.high, v3(150)) as high, Capture(pair.observer, "eth0") as wire:
        high.start()
        high.becomes("MASTER")
        poll(lambda: pair.high.holds(VIP), "the VIP")
        high.signal(signal.SIGKILL)
        high.wait()
        wire.clear()
        high.start(withdraw=True)
        assert high.wait() == 0
        assert not pair.high.holds(VIP)
        wire.wait_for(lambda: [a for a in wire.adverts(vrid=51) if a.priority == 0], "the farewell")


def test_bad_packets_leave_the_schedule_alone(pair: Pair) -> None:
    with VrrpNode(pair.high, v3(150)) as high, Capture(pair.observer, "eth0") as wire:
        high.start()
        high.becomes("MASTER")
        good = wire.wait_for(lambda: wire.adverts(vrid=51), "an advert")[0]
        bad = good.payload[:6] + b"\xde\xad" + good.payload[8:]
        with pair.observer.entered():
            sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
            index = socket.if_nametoindex("eth0")
            membership = socket.inet_aton("224.0.0.18") + bytes(4) + index.to_bytes(4, "little")
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, membership)
        pair.observer.ip("addr", "add", "192.0.2.9/24", "dev", "eth0")

        def sent_enough() -> bool:
            for _ in range(50):
                sender.sendto(bad, ("224.0.0.18", 0))
            return len(wire.adverts(vrid=51, source=HIGH)) > 20

        def attempt() -> None:
            wire.clear()
            poll(sent_enough, "twenty adverts in the hail", seconds=10)
            ours = wire.adverts(vrid=51, source=HIGH)
            assert max(gaps(ours)) < 2 * INTERVAL_US
            assert len(wire.adverts(vrid=51, source="192.0.2.9")) > 1000
            assert high.state() == "MASTER"

        undisturbed(attempt, PAUSE_MS)
        sender.close()
