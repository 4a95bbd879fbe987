"""BFD where processes stand still: what arrived meanwhile is read before anybody is held for lost."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kad_bfd.core.packet import State, decode, encode
from tests.support.bfd_host import control
from tests.support.bfd_node import BfdNode, session
from tests.support.control import status_of
from tests.support.daemon import Kad, descendants
from tests.support.freezer import frozen
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.metronome import undisturbed
from tests.support.namespaces import Network, Node, poll, remains, stand_still

pytestmark = [pytest.mark.root, pytest.mark.alone]

ONE, TWO = "192.0.2.1", "192.0.2.2"
MS = 1_000
DETECTION_MS = 300
"""Of ours: six times 50 ms."""
PATIENCE_MS = 10_000
"""Of the neighbour that is to see nothing: ten times a second."""
PAUSE_MS = 100
SHORTER_S, LONGER_S = 0.15, 1.2
"""How long somebody stands still, beside the detection time."""
TIMES = 2


@pytest.fixture
def nodes(network: Network) -> tuple[Node, Node]:
    one, two = network.node("one"), network.node("two")
    for name in ("eth0", "eth1"):
        network.pair(one, two, name)
    for node, host in ((one, 1), (two, 2)):
        node.ip("addr", "add", f"192.0.2.{host}/24", "dev", "eth0")
        node.ip("addr", "add", f"198.51.100.{host}/24", "dev", "eth1")
    return one, two


@contextmanager
def up(nodes: tuple[Node, Node], *, patient: bool) -> Iterator[tuple[BfdNode, BfdNode]]:
    """Both Up. ``patient``: the second one sends as fast, and waits ten seconds for the first."""
    slowly = {"min_rx_us": 1000 * MS} if patient else {}
    one = BfdNode(nodes[0], session("peer", TWO, multiplier=10 if patient else 6))
    two = BfdNode(nodes[1], session("peer", ONE, multiplier=6, **slowly))
    with one, two:
        for node in (one, two):
            node.start()
        for node in (one, two):
            node.becomes("Up", "peer")
        poll(lambda: one.session("peer").detection_time_us == DETECTION_MS * MS, "the detection time")
        if patient:
            poll(lambda: two.session("peer").detection_time_us == PATIENCE_MS * MS, "the neighbour's")
        yield one, two


def freeze(seconds: float, *pids: int) -> None:
    with frozen(pids):
        stand_still(seconds)


def hears(node: BfdNode) -> None:
    before = node.session("peer").counters["packets_received"]
    poll(lambda: node.session("peer").counters["packets_received"] > before + 5, "packets")


def never_down(*nodes: BfdNode) -> None:
    for node in nodes:
        assert node.states("peer").count("Up") == 1 and node.state("peer") == "Up", node.log()
        assert node.session("peer").counters["detections"] == 0


@pytest.mark.parametrize("seconds", [SHORTER_S, LONGER_S])
def test_what_arrived_while_it_stood_still_counts(nodes: tuple[Node, Node], seconds: float) -> None:
    """Its neighbour spoke all the time; nothing has to be put off for that to be seen."""

    def attempt() -> None:
        with up(nodes, patient=True) as (one, two):
            for _ in range(TIMES):
                before = one.session("peer").counters["packets_received"]
                freeze(seconds, one.pid)
                heard = one.session("peer").counters["packets_received"] - before
                assert heard >= seconds / 0.05, "what lay in the socket"
                hears(one)
            never_down(one, two)
            assert one.session("peer").counters["stalls"] == 0

    undisturbed(attempt, PAUSE_MS)


@pytest.mark.parametrize("seconds", [SHORTER_S, LONGER_S])
def test_where_all_stood_still_nobody_is_lost(nodes: tuple[Node, Node], seconds: float) -> None:
    """As when a host is suspended: nobody spoke, and whoever wakes up first finds nothing in its socket."""

    def attempt() -> None:
        with up(nodes, patient=False) as (one, two):
            for _ in range(TIMES):
                freeze(seconds, one.pid, two.pid)
                hears(one)
                hears(two)
            never_down(one, two)

    undisturbed(attempt, PAUSE_MS)


def test_who_died_meanwhile_is_lost_all_the_same(nodes: tuple[Node, Node]) -> None:
    with up(nodes, patient=True) as (one, two):
        with frozen([one.pid]):
            two.kill()
            stand_still(LONGER_S)
        one.becomes("Down", "peer", seconds=2)
        assert one.session("peer").diagnostic == "DETECTION_TIME_EXPIRED"
        two.incarnation = 0
        two.start()
        one.becomes("Up", "peer")


def test_what_was_said_first_is_not_believed_last(nodes: tuple[Node, Node]) -> None:
    """A neighbour's first packet lies in another socket than those that answer us; both wait to be read."""
    with neighbor(nodes[1]) as (ears, mouth), BfdNode(nodes[0], session("peer", TWO, multiplier=60)) as one:
        one.start()
        ours = decode(ears.recv(256)).my_discriminator
        with frozen([one.pid]):
            # The other socket is ready first, by what is another session's or nobody's.
            mouth.send(encode(control(State.UP, your_discriminator=ours ^ 1)))
            mouth.send(encode(control(State.DOWN)))
            mouth.send(encode(control(State.INIT, your_discriminator=ours)))
        poll(lambda: one.session("peer").drops.get("overtaken"), lambda: f"the Down; it said\n{one.log()}")
        one.becomes("Up", "peer")  # its log is written a moment later
        assert one.states("peer") == ["Up"]


@contextmanager
def neighbor(node: Node) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Where it hears and from where it speaks."""
    with node.entered():
        ears, mouth = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with ears, mouth:
        ears.settimeout(10)
        ears.bind((TWO, 3784))
        mouth.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
        mouth.bind((TWO, 49152))
        mouth.connect((ONE, 3784))
        yield ears, mouth


# Whole daemons ---------------------------------------------------------------------------------------------


SERVER = "real_server 192.0.2.2 80 {\nBFD_CHECK {\nname peer\n}\n}"
SERVICE = f"virtual_server 198.51.100.200 80 {{\nlvs_sched rr\nprotocol TCP\n{SERVER}\n}}\n"


def bfd(neighbor: str, source: str, *, min_rx: int = 50, multiplier: int = 6) -> str:
    return (
        f"bfd_instance peer {{\nneighbor_ip {neighbor}\nsource_ip {source}\nmin_tx 50\nmin_rx {min_rx}\n"
        f"multiplier {multiplier}\n}}\n"
    )


@contextmanager
def daemons(nodes: tuple[Node, Node], *, patient: bool) -> Iterator[tuple[Kad, Kad]]:
    """The first is master while the session is Up, and has a real server that follows it too."""
    instance = vrrp_instance(
        interface="eth1",
        version=3,
        priority=200,
        advert_int=1,
        addresses=["198.51.100.100/24"],
        extra=("track_bfd {", "peer", "}"),
    )
    mine = configuration(bfd(TWO, ONE, multiplier=10 if patient else 6), instance) + SERVICE
    other = configuration(bfd(ONE, TWO, min_rx=1000 if patient else 50))
    with Kad(nodes[1], other) as peer, Kad(nodes[0], mine) as kad:
        kad.wait_for("(VI_1) Entering MASTER STATE", seconds=30)
        peer.wait_for("(peer) Entering Up state")
        poll(lambda: is_alive(kad), "the server up")
        yield kad, peer


def is_alive(kad: Kad) -> bool:
    services = status_of(kad).virtual_servers
    return bool(services) and services[0].real_servers[0].alive


def family(kad: Kad) -> list[int]:
    return [kad.pid, *descendants(kad.pid)]


def received(kad: Kad) -> int:
    return int(status_of(kad).reports["bfd"]["sessions"][0]["counters"]["packets_received"])


@pytest.mark.parametrize("who", ["one node", "both nodes"])
def test_a_node_that_stood_still_gives_nothing_up(nodes: tuple[Node, Node], who: str) -> None:
    """Neither VRRP nor the checker takes the pause for a loss, and nobody for the end of the BFD process."""

    def attempt() -> None:
        with daemons(nodes, patient=who == "one node") as (kad, peer):
            pids = family(kad) + (family(peer) if who == "both nodes" else [])
            roles = {role: kad._pid_of(role) for role in ("vrrp", "checkers", "bfd")}
            told = [kad.count(words) for words in LOSSES]
            for _ in range(TIMES):
                before = received(kad)
                freeze(LONGER_S, *pids)
                poll(lambda wanted=before + 5: received(kad) > wanted, "packets")  # type: ignore[misc]
                remains(lambda: is_alive(kad), "the server up", seconds=0.5, every=0.05)
            assert [kad.count(words) for words in LOSSES] == told, kad.said()
            assert peer.count("(peer) Entering Down") == 0, peer.said()
            assert {role: kad._pid_of(role) for role in roles} == roles

    undisturbed(attempt, PAUSE_MS)


LOSSES = ("(peer) Entering Down", "(VI_1) Entering FAULT", "(VI_1) Entering BACKUP", " is DOWN")


def test_a_node_that_stood_still_acts_on_what_was_lost_meanwhile(nodes: tuple[Node, Node]) -> None:
    with daemons(nodes, patient=True) as (kad, peer):
        with frozen(family(kad)):
            peer.kill_all()
            stand_still(LONGER_S)
        kad.wait_for("(VI_1) Entering FAULT STATE", seconds=3)
        poll(lambda: not is_alive(kad), "the server down")
        assert "(peer) Entering Down state (Local diagnostic - Control Detection Time Expired" in kad.said()
