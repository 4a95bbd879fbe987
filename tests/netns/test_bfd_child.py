"""The BFD child on real wires: two of them in namespaces, their subscribers, and whoever attacks them."""

from __future__ import annotations

import itertools
import random
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from kad.config.model.bfd import BfdInstance
from kad.ipc.messages import Role
from kad.runtime.clock import monotonic_us
from kad_bfd.core.packet import State, decode, encode
from tests.support.bfd_host import control
from tests.support.bfd_node import BfdNode, session
from tests.support.bfd_subscriber import Subscriber
from tests.support.capture import Capture
from tests.support.metronome import undisturbed
from tests.support.namespaces import Network, Node, poll, remains

pytestmark = [pytest.mark.root, pytest.mark.pairs]

ONE, TWO = "192.0.2.1", "192.0.2.2"
ONE6, TWO6 = "2001:db8::1", "2001:db8::2"
LOCAL1, LOCAL2 = "fe80::1", "fe80::2"
PAUSE_MS = 50


@dataclass
class Pair:
    one: Node
    two: Node

    def cut(self) -> None:
        """The cable is pulled, at the far end."""
        self.two.set_link("eth0", "down")


@pytest.fixture
def pair(network: Network) -> Iterator[Pair]:
    one, two = network.node("one"), network.node("two")
    network.pair(one, two)
    made = Pair(one, two)
    give_addresses(made)
    yield made


def give_addresses(pair: Pair) -> None:
    for node, addresses in ((pair.one, (ONE, ONE6, LOCAL1)), (pair.two, (TWO, TWO6, LOCAL2))):
        for address in addresses:
            width = "64" if ":" in address else "24"
            extra = ("nodad",) if ":" in address else ()
            node.ip("addr", "add", f"{address}/{width}", "dev", "eth0", *extra)


def both(pair: Pair, one: BfdInstance, two: BfdInstance) -> tuple[BfdNode, BfdNode]:
    return BfdNode(pair.one, one), BfdNode(pair.two, two)


def start(*nodes: BfdNode) -> None:
    for node in nodes:
        node.start()
    for node in nodes:
        for config in node.instances:
            node.becomes("Up", config.name)


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "IPv4": ({"neighbor": TWO}, {"neighbor": ONE}),
    "IPv4 with source": (
        {"neighbor": TWO, "source_address": ONE},
        {"neighbor": ONE, "source_address": TWO},
    ),
    "IPv6": ({"neighbor": TWO6}, {"neighbor": ONE6}),
    "link-local": (
        {"neighbor": LOCAL2, "interface": "eth0"},
        {"neighbor": LOCAL1, "interface": "eth0"},
    ),
    "bound to an interface": ({"neighbor": TWO, "interface": "eth0"}, {"neighbor": ONE}),
    "multihop": ({"neighbor": TWO, "multihop": True}, {"neighbor": ONE, "multihop": True}),
    "multihop IPv6": ({"neighbor": TWO6, "multihop": True}, {"neighbor": ONE6, "multihop": True}),
    "one passive": ({"neighbor": TWO, "passive": True}, {"neighbor": ONE}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_meet_lose_and_find_each_other(pair: Pair, variant: str) -> None:
    first, second = VARIANTS[variant]
    # Half a second: longer than the pauses of a busy machine.
    patient = {"multiplier": 10}
    one, two = both(pair, session("peer", **first, **patient), session("peer", **second, **patient))
    with one, two:
        start(one, two)
        remains(lambda: one.state("peer") == two.state("peer") == "Up", "both Up", seconds=0.5)
        two.kill()
        one.becomes("Down", "peer")
        assert one.session("peer").diagnostic == "DETECTION_TIME_EXPIRED"
        two.incarnation = 0
        two.start()
        one.becomes("Up", "peer")


def test_packets_on_the_wire_are_as_the_rfcs_want_them(pair: Pair) -> None:
    one, two = both(pair, session("peer", TWO), session("peer", ONE))
    with one, two, Capture(pair.two, "eth0") as wire:
        start(one, two)
        poll(lambda: not one.session("peer").polling and not two.session("peer").polling, "polls ended")
        wire.clear()
        poll(lambda: len(sent_by(wire, ONE)) > 40, "forty packets")
        frames = sent_by(wire, ONE)
    assert {frame.data[22] for frame in frames} == {255}, "RFC 5881 §5: TTL"
    assert {frame.data[15] for frame in frames} == {0xC0}, "internet control"
    (port,) = {int.from_bytes(frame.data[34:36], "big") for frame in frames}
    assert 49152 <= port <= 65535, "RFC 5881 §4: one source port, from its range"
    assert {int.from_bytes(frame.data[36:38], "big") for frame in frames} == {3784}
    gaps = [b.time_us - a.time_us for a, b in itertools.pairwise(frames)]
    assert min(gaps) >= 37_000, "RFC 5880 §6.8.7"
    assert len({gap // 1000 for gap in gaps}) > 3, "jittered"


@pytest.mark.parametrize("multihop", [False, True])
def test_rfc5881_5_over_ipv6_the_hop_limit_is_255_as_well(pair: Pair, multihop: bool) -> None:
    one, two = both(pair, session("peer", TWO6, multihop=multihop), session("peer", ONE6, multihop=multihop))
    with one, two, Capture(pair.two, "eth0") as wire:
        start(one, two)
        frames = [f for f in wire.drain() if f.ethertype == 0x86DD and f.data[20] == 17 and not f.outgoing]
    assert frames
    assert {frame.data[21] for frame in frames} == {255}
    assert {frame.data[14] & 0xF for frame in frames} == {0xC}, "internet control"
    wanted = 4784 if multihop else 3784
    assert {int.from_bytes(frame.data[56:58], "big") for frame in frames} == {wanted}, "RFC 5883 §5"


def test_rfc5881_6_a_session_with_an_interface_takes_no_other_way(network: Network, pair: Pair) -> None:
    """Not even where the routing table prefers one."""
    network.pair(pair.one, network.node("elsewhere"), "eth1")
    pair.one.ip("route", "add", f"{TWO}/32", "dev", "eth1")
    one, two = both(pair, session("peer", TWO, interface="eth0"), session("peer", ONE))
    with one, two, Capture(pair.one, "eth1") as elsewhere:
        start(one, two)
        assert sent_by(elsewhere, ONE) == []


@pytest.mark.parametrize("first", ["any", "bound"])
@pytest.mark.parametrize(
    "addresses", [(ONE, "192.0.2.11", TWO, "192.0.2.12"), (ONE6, "2001:db8::11", TWO6, "2001:db8::12")]
)
def test_sessions_with_and_without_an_interface_share_a_port(
    pair: Pair, addresses: tuple[str, ...], first: str
) -> None:
    """Whichever came first: the kernel may put what is for one into the other's socket."""
    one_any, one_bound, two_any, two_bound = addresses
    width, extra = ("64", ("nodad",)) if ":" in one_any else ("24", ())
    for node, address in ((pair.one, one_bound), (pair.two, two_bound)):
        node.ip("addr", "add", f"{address}/{width}", "dev", "eth0", *extra)
    patient = {"multiplier": 10}
    ours = {
        "any": session("any", two_any, source_address=one_any, **patient),
        "bound": session("bound", two_bound, source_address=one_bound, interface="eth0", **patient),
    }
    second = "bound" if first == "any" else "any"
    one = BfdNode(pair.one, ours[first])
    two = BfdNode(
        pair.two,
        session("any", one_any, source_address=two_any, **patient),
        session("bound", one_bound, source_address=two_bound, **patient),
    )
    with one, two:
        one.start()
        two.start()
        one.becomes("Up", first)
        one.configure(*ours.values())
        one.becomes("Up", second)
        one.configure(ours[second])
        two.becomes("Down", first)
        one.configure(*ours.values())
        two.becomes("Up", first)
        poll(lambda: one.session(first).counters["packets_received"] > 20, "packets")
        assert (one.states(second).count("Up"), one.states(first).count("Up")) == (1, 2), one.log()
        assert one.session(first).drops == one.session(second).drops == {}


def sent_by(wire: Capture, source: str) -> list[Any]:
    packed = socket.inet_aton(source)
    return [f for f in wire.drain() if f.ethertype == 0x0800 and f.data[23] == 17 and f.data[26:30] == packed]


# Crash, hang, stop -----------------------------------------------------------------------------------------


def test_killed_and_back_in_time_the_peer_sees_nothing(pair: Pair) -> None:
    """At 300 ms: this process forks more slowly than the supervisor, which tests/interop tries at 50 ms."""
    timers = {"min_rx_us": 300_000, "min_tx_us": 300_000}
    one, two = both(pair, session("peer", TWO, **timers), session("peer", ONE, **timers))
    with one, two:
        start(one, two)
        before = one.session("peer")
        for _ in range(8):
            one.kill()
            one.start()
            poll(one.ready, "the next life")
            poll(lambda: one.session("peer").counters["packets_received"] > 1, "packets")
        after = one.session("peer")
        assert two.states("peer")[-1] == "Up"
        assert two.states("peer").count("Up") == 1, two.log() + one.log()
        assert one.states("peer").count("Up") == 1, "no life of it ever was Down"
    assert (before.local_discriminator, before.port) == (after.local_discriminator, after.port)
    assert before.since_us == after.since_us


def test_stopped_in_order_the_peer_knows_at_once(pair: Pair) -> None:
    one, two = both(pair, session("peer", TWO), session("peer", ONE))
    with one, two, Capture(pair.two, "eth0") as wire:
        start(one, two)
        wire.clear()
        assert one.stop() == 0
        poll(lambda: "Down" in two.states("peer"), "the peer Down")
        last = [decode(frame.data[42:66]) for frame in sent_by(wire, ONE)][-3:]
        assert [(p.state, p.diagnostic) for p in last] == [(State.DOWN, 5)] * 3
        assert "Neighbor Signaled Session Down, Remote diagnostic - Path Down" in two.log()


def test_a_reload_leaves_what_did_not_change_alone(pair: Pair) -> None:
    one, two = both(pair, session("peer", TWO), session("peer", ONE))
    with one, two:
        start(one, two)
        for min_us in (20_000, 100_000, 50_000):
            one.configure(session("peer", TWO, min_rx_us=min_us, min_tx_us=min_us))
            poll(
                lambda wanted=min_us: two.session("peer").remote_desired_min_tx_us == wanted,  # type: ignore[misc]
                "the new interval at the peer",
            )
            poll(lambda: not one.session("peer").polling, "the end of the poll sequence")
        one.configure(*one.instances, session("new", "192.0.2.77"))
        remains(lambda: two.state("peer") == "Up", "Up", seconds=0.3)
        assert two.states("peer").count("Up") == 1
        one.configure(session("new", "192.0.2.77"))
        two.becomes("Down", "peer")
        assert two.session("peer").remote_diagnostic == "ADMINISTRATIVELY_DOWN"


def test_an_address_that_comes_later(pair: Pair) -> None:
    one, two = both(pair, session("peer", TWO, source_address="192.0.2.11"), session("peer", "192.0.2.11"))
    with one, two:
        one.start()
        two.start()
        poll(lambda: one.session("peer").failure, "no socket without its address")
        assert one.session("peer").state == "DOWN"
        pair.one.ip("addr", "add", "192.0.2.11/24", "dev", "eth0")
        one.becomes("Up", "peer")
        pair.one.ip("addr", "del", "192.0.2.11/24", "dev", "eth0")
        one.becomes("Down", "peer")
        pair.one.ip("addr", "add", "192.0.2.11/24", "dev", "eth0")
        one.becomes("Up", "peer")


BOUND = ("four", "six", "local")
"""Sessions with an interface; their neighbours' are named so too."""


def bound_pair(pair: Pair) -> tuple[BfdNode, BfdNode]:
    near, far = ((ONE, ONE6, LOCAL1), (TWO, TWO6, LOCAL2))
    return tuple(  # type: ignore[return-value]
        BfdNode(
            node, *(session(name, to, interface="eth0") for name, to in zip(BOUND, neighbors, strict=True))
        )
        for node, neighbors in ((pair.one, far), (pair.two, near))
    )


def delete_link(pair: Pair, *nodes: BfdNode) -> int:
    """The index it had at the first node. Every session is Down afterwards."""
    index = pair.one.ip_json("link", "show", "dev", "eth0")[0]["ifindex"]
    pair.one.ip("link", "del", "eth0")
    for node in nodes:
        for name in BOUND:
            node.becomes("Down", name)
    return int(index)


def test_an_interface_made_anew_carries_its_sessions_again(network: Network, pair: Pair) -> None:
    """Receiving and sending sockets are bound to the index of the one that is gone."""
    one, two = bound_pair(pair)
    with one, two:
        start(one, two)
        before = [one.session(name).local_discriminator for name in BOUND]
        for _ in range(2):
            index = delete_link(pair, one, two)
            network.pair(pair.one, pair.two)
            give_addresses(pair)
            assert pair.one.ip_json("link", "show", "dev", "eth0")[0]["ifindex"] != index
            for name in BOUND:
                one.becomes("Up", name)
                two.becomes("Up", name)
        assert [one.session(name).local_discriminator for name in BOUND] == before


def test_an_interface_made_anew_has_its_addresses_later(network: Network, pair: Pair) -> None:
    """A socket opened in between takes another interface's address, which is no neighbour of anybody."""
    network.pair(pair.one, network.node("elsewhere"), "eth1")
    pair.one.ip("addr", "add", "198.51.100.1/24", "dev", "eth1")
    one, two = bound_pair(pair)
    with one, two:
        start(one, two)
        delete_link(pair, one, two)
        network.pair(pair.one, pair.two)
        sockets = "(four) has a socket again"
        poll(lambda: sockets in one.log(), "a socket before there is an address")
        give_addresses(pair)
        for name in BOUND:
            one.becomes("Up", name)
            two.becomes("Up", name)


def test_another_daemon_on_the_port_is_told_and_waited_for(pair: Pair) -> None:
    with pair.two.entered():
        rival = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        rival.bind(("0.0.0.0", 3784))
    one, two = both(pair, session("peer", TWO), session("peer", ONE))
    with one, two:
        one.start()
        two.start()
        poll(lambda: "cannot listen on UDP port 3784" in two.log(), "a complaint")
        complaint = "cannot listen on UDP port 3784 (IPv4): Address already in use"
        assert two.session("peer").failure == complaint
        assert two.log().count(complaint) == 1
        rival.close()
        two.becomes("Up", "peer")
        assert two.session("peer").failure == ""


# Subscribers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval_ms", [10, 50])
def test_a_lost_link_is_told_to_subscribers(pair: Pair, interval_ms: int) -> None:
    timers = {"min_rx_us": interval_ms * 1000, "min_tx_us": interval_ms * 1000}
    one, two = both(pair, session("peer", TWO, **timers), session("peer", ONE, **timers))
    with one, two, Subscriber(one, "peer") as subscriber:
        start(one, two)
        subscriber.knows("peer", True)
        cut_us = monotonic_us()
        pair.cut()
        told_us = subscriber.knows("peer", False)
        # From the last packet it is the detection time, and that one came an interval before the cut at most.
        assert told_us - cut_us >= 2 * interval_ms * 1000 * 3 // 4
        pair.two.set_link("eth0", "up")
        subscriber.knows("peer", True)


def test_a_killed_bfd_process_that_is_not_reborn_is_told_within_the_detection_time(pair: Pair) -> None:
    def attempt() -> None:
        one, two = both(pair, session("peer", TWO), session("peer", ONE))
        with one, two, Subscriber(one, "peer") as vrrp:
            start(one, two)
            vrrp.knows("peer", True)
            killed_us = monotonic_us()
            one.kill()
            told_us = vrrp.knows("peer", False)
            assert told_us - killed_us < 150_000 + 100_000
            one.start()
            vrrp.knows("peer", True)

    undisturbed(attempt, PAUSE_MS)


def test_a_bfd_process_reborn_in_time_is_no_news_to_its_subscribers(pair: Pair) -> None:
    timers = {"min_rx_us": 300_000, "min_tx_us": 300_000}
    one, two = both(pair, session("peer", TWO, **timers), session("peer", ONE, **timers))
    with one, two, Subscriber(one, "peer") as vrrp:
        start(one, two)
        vrrp.knows("peer", True)
        before = vrrp.told[:]
        for _ in range(4):
            one.kill()
            one.start()
            poll(lambda: one.session("peer").counters["packets_received"] > 1, "packets")
        assert vrrp.told == before
        pair.cut()
        vrrp.knows("peer", False)


def test_a_hung_bfd_process_is_told_within_the_detection_time_and_believed_after_it(pair: Pair) -> None:
    def attempt() -> None:
        one, two = both(pair, session("peer", TWO), session("peer", ONE))
        with one, two, Subscriber(one, "peer") as vrrp:
            start(one, two)
            vrrp.knows("peer", True)
            stopped_us = monotonic_us()
            one.signal(signal.SIGSTOP)
            told_us = vrrp.knows("peer", False)
            assert told_us - stopped_us < 150_000 + 100_000
            two.becomes("Down", "peer")
            one.signal(signal.SIGCONT)
            one.becomes("Up", "peer")
            vrrp.knows("peer", True)

    undisturbed(attempt, PAUSE_MS)


def test_selectors_say_who_is_told(pair: Pair) -> None:
    one = BfdNode(
        pair.one,
        session("for-vrrp", TWO, events_to_checker=False),
        session("for-both", TWO6),
    )
    two = BfdNode(pair.two, session("a", ONE), session("b", ONE6))
    with one, two, Subscriber(one, "for-vrrp", "for-both", role=Role.CHECK) as check:
        start(one, two)
        check.knows("for-both", True)
        assert "for-vrrp" not in {name for _, name, up in check.told if up}


# Attacks (floods: test_bfd_flood.py) -----------------------------------------------------------------------


def test_any_bytes_to_the_port_are_counted(pair: Pair) -> None:
    """Mutations of a real packet, with the neighbour's own address and the right discriminator.

    The detection time is longer than the pauses of a busy machine.
    """
    timers = {"min_rx_us": 50_000, "min_tx_us": 50_000, "multiplier": 10}
    one, two = both(pair, session("peer", TWO, **timers), session("peer", ONE, **timers))
    chance = random.Random(5880)
    with one, two:
        start(one, two)
        good = bytearray(
            encode(control(State.UP, your_discriminator=one.session("peer").local_discriminator))
        )
        with pair.two.entered():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 254)
        with sender:
            for _ in range(5000):
                data = bytearray(good)
                for _ in range(chance.randint(0, 4)):
                    data[chance.randrange(24)] = chance.randrange(256)
                sender.sendto(bytes(data[: chance.randint(0, 30)]), (ONE, 3784))
        poll(lambda: total_drops(one) + overflows(one) >= 5000, "all of them counted")
        assert one.session("peer").drops["ttl"] > 100
        assert one.states("peer").count("Up") == 1, one.log()


def total_drops(node: BfdNode) -> int:
    report = node.report()
    return sum(report.drops.values()) + sum(sum(each.drops.values()) for each in report.sessions)


def overflows(node: BfdNode) -> int:
    process = node.report().process
    assert process is not None
    return process.counters["overflow strangers"] + process.counters["overflow neighbours"]
