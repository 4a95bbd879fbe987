"""kad's BFD with keepalived, FRR and BIRD: up, timers, link loss, restarts, AdminDown, multihop, stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from kad.config.model.bfd import BfdInstance
from tests.support.bfd_node import BfdNode, session
from tests.support.daemon import Keepalived
from tests.support.keepalived import is_newer, needs_keepalived
from tests.support.metronome import Metronome
from tests.support.namespaces import Network, Node, poll, remains
from tests.support.routers import Bird, Frr, needs

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

MS = 1_000
ADDRESSES = {"IPv4": ("192.0.2.1", "192.0.2.2"), "IPv6": ("2001:db8::1", "2001:db8::2")}
FAR_ADDRESSES = ("192.0.2.1", "198.51.100.2")


@dataclass
class Stage:
    """kad's node and the peer's; between them a cable, or a router with a cable to each."""

    ours: Node
    theirs: Node
    our_address: str
    their_address: str
    multihop: bool = False

    def cut(self) -> None:
        self.theirs.set_link("eth0", "down")

    def mend(self) -> None:
        self.theirs.set_link("eth0", "up")
        if ":" in self.their_address:  # IPv6 addresses go with the link
            self.theirs.ip("-6", "addr", "replace", f"{self.their_address}/64", "dev", "eth0", "nodad")
        if self.multihop:
            self.theirs.ip("route", "replace", "192.0.2.0/24", "via", "198.51.100.254")

    def instance(self, **fields: Any) -> BfdInstance:
        fields.setdefault("source_address", self.our_address)
        if self.multihop:
            fields |= {"multihop": True, "max_hops": 255}
        return session("peer", self.their_address, **fields)


class Peer(Protocol):
    """The other implementation. ``multiplier`` is 3 throughout."""

    def __enter__(self) -> Peer: ...

    def __exit__(self, *_: object) -> None: ...

    def is_up(self) -> bool: ...

    def sees_interval_ms(self) -> int:
        """What it has understood of our Desired Min TX Interval."""
        ...

    def set_interval_ms(self, interval_ms: int) -> None: ...

    def kill(self) -> None: ...

    def start(self) -> None: ...

    def go_admin_down(self) -> None:
        """Raises NotImplementedError where it has no such word."""
        ...


class KeepalivedPeer:
    """It tells what it thinks in its log only."""

    def __init__(self, stage: Stage) -> None:
        needs_keepalived()
        if stage.multihop and not is_newer():
            pytest.skip("keepalived 2.2.7 does not know the keyword multihop")
        self.stage = stage
        self.daemon = Keepalived(stage.theirs, self.text(50), "-D")

    def text(self, interval_ms: int) -> str:
        stage = self.stage
        multihop = "multihop\nmax_hops 255\n" if stage.multihop else ""
        return (
            f"bfd_instance peer {{\nneighbor_ip {stage.our_address}\nsource_ip {stage.their_address}\n"
            f"min_rx {interval_ms}\nmin_tx {interval_ms}\nmultiplier 3\n{multihop}}}\n"
        )

    def __enter__(self) -> KeepalivedPeer:
        self.daemon.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.close()

    def is_up(self) -> bool:
        entered = [line for line in self.daemon.said().splitlines() if "(peer) Entering" in line]
        return bool(entered) and "Entering Up" in entered[-1]

    def sees_interval_ms(self) -> int:
        rows = [line.split() for line in self.daemon.said().splitlines() if "remote  " in line]
        return int(rows[-1][rows[-1].index("remote") + 1]) // MS if rows else 0

    def set_interval_ms(self, interval_ms: int) -> None:
        self.daemon.configure(self.text(interval_ms))
        self.daemon.reload()

    def kill(self) -> None:
        self.daemon.kill_all()

    def start(self) -> None:
        for left in self.daemon.directory.glob("*.pid"):
            left.unlink()  # by which it would take itself for running
        self.daemon.start()

    def go_admin_down(self) -> None:
        raise NotImplementedError  # it falls silent, whether it stops or the session is removed


class FrrPeer:
    def __init__(self, stage: Stage) -> None:
        needs("bfdd")
        self.stage = stage
        self.frr = Frr(stage.theirs)
        hops = "multihop " if stage.multihop else ""
        self.line = f"peer {stage.our_address} {hops}local-address {stage.their_address}"

    def __enter__(self) -> FrrPeer:
        self.frr.__enter__()
        self.set_interval_ms(50)
        return self

    def __exit__(self, *_: object) -> None:
        self.frr.__exit__()

    def is_up(self) -> bool:
        return bool(self.frr.peer().get("status") == "up")

    def sees_interval_ms(self) -> int:
        return int(self.frr.peer().get("remote-transmit-interval", 0))

    def set_interval_ms(self, interval_ms: int) -> None:
        timers = (f"receive-interval {interval_ms}", f"transmit-interval {interval_ms}")
        self.frr.configure("bfd", self.line, "detect-multiplier 3", *timers, "no shutdown")

    def kill(self) -> None:
        self.frr.kill("bfdd")

    def start(self) -> None:
        self.frr.start("bfdd")
        self.set_interval_ms(50)

    def go_admin_down(self) -> None:
        self.frr.configure("bfd", self.line, "shutdown")


class BirdPeer:
    def __init__(self, stage: Stage) -> None:
        needs("bird")
        self.stage = stage
        self.bird = Bird(stage.theirs, self.text(50))

    def text(self, interval_ms: int) -> str:
        stage = self.stage
        timers = f"min rx interval {interval_ms} ms; min tx interval {interval_ms} ms; multiplier 3;"
        addresses = f"neighbor {stage.our_address}", f"local {stage.their_address}"
        if stage.multihop:
            where, neighbor = "multihop", " ".join((*addresses, "multihop"))
        else:
            where, neighbor = 'interface "eth0"', ' dev "eth0" '.join(addresses)
        return (
            "router id 192.0.2.2;\nprotocol device {}\n"
            f"protocol bfd b1 {{\n{where} {{ {timers} }};\n{neighbor};\n}}\n"
        )

    def __enter__(self) -> BirdPeer:
        self.bird.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bird.__exit__()

    def is_up(self) -> bool:
        return tuple(self.bird.session()[2:3]) == ("Up",)

    def sees_interval_ms(self) -> int:
        """It shows what it sends at and how long it waits: three of our intervals."""
        row = self.bird.session()
        return round(float(row[5]) * 1000 / 3) if row else 0

    def set_interval_ms(self, interval_ms: int) -> None:
        self.bird.configure(self.text(interval_ms))

    def kill(self) -> None:
        self.bird.kill()

    def start(self) -> None:
        self.bird.start()

    def go_admin_down(self) -> None:
        raise NotImplementedError  # see test_bird_ends_without_a_word


PEERS: dict[str, Callable[[Stage], Peer]] = {"keepalived": KeepalivedPeer, "FRR": FrrPeer, "BIRD": BirdPeer}


@pytest.fixture(params=["IPv4", "IPv6", "multihop"])
def stage(network: Network, request: pytest.FixtureRequest) -> Stage:
    ours, theirs = network.node("ours"), network.node("theirs")
    if request.param == "multihop":
        return far_apart(network, ours, theirs)
    network.pair(ours, theirs)
    one, two = ADDRESSES[request.param]
    for node, address in ((ours, one), (theirs, two)):
        width, extra = ("64", ("nodad",)) if ":" in address else ("24", ())
        node.ip("addr", "add", f"{address}/{width}", "dev", "eth0", *extra)
    return Stage(ours, theirs, one, two)


def far_apart(network: Network, ours: Node, theirs: Node) -> Stage:
    """A router in between: packets arrive with a TTL of 254."""
    router = network.node("router")
    network.pair(ours, router, "eth0")
    router.ip("link", "set", "eth0", "name", "eth9")
    network.pair(theirs, router, "eth0")
    router.ip("link", "set", "eth9", "up")
    router.ip("addr", "add", "192.0.2.254/24", "dev", "eth9")
    router.ip("addr", "add", "198.51.100.254/24", "dev", "eth0")
    router.sysctl("net.ipv4.ip_forward", "1")
    one, two = FAR_ADDRESSES
    ours.ip("addr", "add", f"{one}/24", "dev", "eth0")
    theirs.ip("addr", "add", f"{two}/24", "dev", "eth0")
    ours.ip("route", "add", "198.51.100.0/24", "via", "192.0.2.254")
    theirs.ip("route", "add", "192.0.2.0/24", "via", "198.51.100.254")
    return Stage(ours, theirs, one, two, multihop=True)


@pytest.fixture(params=PEERS)
def meeting(stage: Stage, request: pytest.FixtureRequest) -> Iterator[tuple[Stage, BfdNode, Peer]]:
    """Both run and are Up."""
    peer = PEERS[request.param](stage)
    with peer, BfdNode(stage.ours, stage.instance()) as kad:
        kad.start()
        both_up(kad, peer)
        yield stage, kad, peer


def both_up(kad: BfdNode, peer: Peer) -> None:
    kad.becomes("Up", "peer", seconds=15)
    poll(peer.is_up, "the peer Up", seconds=10)


def ups(kad: BfdNode) -> int:
    return kad.states("peer").count("Up")


def test_up_and_stays(meeting: tuple[Stage, BfdNode, Peer]) -> None:
    _, kad, peer = meeting
    poll(lambda: not kad.session("peer").polling, "the end of our poll sequence")
    found = kad.session("peer")
    assert (found.transmit_interval_us, found.detection_time_us) == (50 * MS, 150 * MS)
    assert found.drops == {}
    poll(lambda: peer.sees_interval_ms() == 50, "our interval at the peer")
    before = found.counters["packets_received"]
    poll(lambda: kad.session("peer").counters["packets_received"] > before + 20, "packets")
    assert peer.is_up()


def test_our_timers_change(meeting: tuple[Stage, BfdNode, Peer]) -> None:
    stage, kad, peer = meeting
    for interval_ms in (200, 100):
        kad.configure(stage.instance(min_rx_us=interval_ms * MS, min_tx_us=interval_ms * MS))
        poll(lambda: not kad.session("peer").polling, "the end of our poll sequence")
        poll(lambda wanted=interval_ms: peer.sees_interval_ms() == wanted, "our interval at the peer")  # type: ignore[misc]
        assert kad.session("peer").transmit_interval_us == interval_ms * MS
    assert ups(kad) == 1, kad.log()


def test_their_timers_change(meeting: tuple[Stage, BfdNode, Peer]) -> None:
    _, kad, peer = meeting
    peer.set_interval_ms(200)
    poll(lambda: kad.session("peer").remote_desired_min_tx_us == 200 * MS, "their new interval")
    assert kad.session("peer").detection_time_us == 600 * MS
    poll(lambda: kad.session("peer").transmit_interval_us == 200 * MS, "we send no faster than they take")
    remains(lambda: kad.state("peer") == "Up", "Up", seconds=1)


def test_our_source_is_set_and_unset(meeting: tuple[Stage, BfdNode, Peer]) -> None:
    """It is the address that the kernel chooses: the peer sees no difference."""
    stage, kad, peer = meeting
    before = kad.session("peer")
    patient = {"min_rx_us": 300 * MS, "min_tx_us": 300 * MS}
    for source in ("", stage.our_address, ""):
        kad.configure(stage.instance(source_address=source, **patient))
        received = kad.session("peer").counters["packets_received"]
        poll(lambda least=received + 5: kad.session("peer").counters["packets_received"] > least, "packets")  # type: ignore[misc]
        assert peer.is_up()
    after = kad.session("peer")
    assert (before.local_discriminator, before.port) == (after.local_discriminator, after.port)
    assert ups(kad) == 1, kad.log()


@pytest.mark.parametrize("stage", ["IPv4", "IPv6"], indirect=True)
@pytest.mark.parametrize("name", PEERS)
def test_our_address_comes_after_the_start(network: Network, stage: Stage, name: str) -> None:
    """Without source_ip, and with another address to begin with, which the peer does not know."""
    six = ":" in stage.our_address
    family, width, extra = (("-6",), "64", ("nodad",)) if six else ((), "24", ())
    other = "2001:db8:9::1" if six else "203.0.113.1"
    network.pair(stage.ours, network.node("elsewhere"), "eth1")
    stage.ours.ip(*family, "addr", "del", f"{stage.our_address}/{width}", "dev", "eth0")
    stage.ours.ip(*family, "addr", "add", f"{other}/{width}", "dev", "eth1", *extra)
    stage.ours.ip(*family, "route", "add", "default", "dev", "eth1")
    peer = PEERS[name](stage)
    with peer, BfdNode(stage.ours, stage.instance(source_address="")) as kad:
        kad.start()
        remains(lambda: kad.state("peer") == "", "never Up", seconds=1.5)
        stage.ours.ip(*family, "addr", "add", f"{stage.our_address}/{width}", "dev", "eth0", *extra)
        both_up(kad, peer)
        poll(lambda: f"{stage.our_address} now" in kad.log(), "that it took that address")


def test_link_loss_is_seen_by_both_and_mended(meeting: tuple[Stage, BfdNode, Peer]) -> None:
    stage, kad, peer = meeting
    stage.cut()
    kad.becomes("Down", "peer")
    poll(lambda: not peer.is_up(), "the peer Down")
    stage.mend()
    both_up(kad, peer)


def test_the_peer_is_killed_and_started_again(meeting: tuple[Stage, BfdNode, Peer]) -> None:
    _, kad, peer = meeting
    peer.kill()
    kad.becomes("Down", "peer")
    assert kad.session("peer").diagnostic == "DETECTION_TIME_EXPIRED"
    peer.start()
    both_up(kad, peer)


def test_the_peer_goes_admin_down(meeting: tuple[Stage, BfdNode, Peer]) -> None:
    _, kad, peer = meeting
    try:
        peer.go_admin_down()
    except NotImplementedError:
        pytest.skip("it has no word for it")
    kad.becomes("Down", "peer")
    assert "Neighbor Signaled Session Down" in kad.log()
    assert "(peer) the neighbour is administratively down" in kad.log()


@pytest.mark.parametrize("way", ["disabled", "reconfigured"])
def test_bird_ends_without_a_word(stage: Stage, way: str) -> None:
    """BIRD 2 never says AdminDown: a protocol that is disabled, or has lost its neighbour, falls silent."""
    peer = BirdPeer(stage)
    with peer, BfdNode(stage.ours, stage.instance()) as kad:
        kad.start()
        both_up(kad, peer)
        if way == "disabled":
            peer.bird.ask("disable", "b1")
        else:
            peer.bird.configure("router id 192.0.2.2;\nprotocol device {}\nprotocol bfd b1 {}\n")
        kad.becomes("Down", "peer")
        assert kad.session("peer").diagnostic == "DETECTION_TIME_EXPIRED"
        peer.bird.ask("enable", "b1")
        peer.set_interval_ms(50)
        both_up(kad, peer)


def test_our_session_is_removed(meeting: tuple[Stage, BfdNode, Peer]) -> None:
    """AdminDown: the peer does not wait for its detection time."""
    _, kad, peer = meeting
    kad.configure()
    poll(lambda: not peer.is_up(), "the peer no longer Up", seconds=3)


def test_kad_stops(meeting: tuple[Stage, BfdNode, Peer]) -> None:
    _, kad, peer = meeting
    assert kad.stop() == 0
    poll(lambda: not peer.is_up(), "the peer Down", seconds=3)


PAUSE_MS = 100
EXCUSES = 3


def test_kad_is_killed_and_back_in_time(meeting: tuple[Stage, BfdNode, Peer]) -> None:
    """At 300 ms: this process forks slowly. The supervisor is tried at 50 ms in test_bfd_daemon.py.

    A loss while the machine itself stood still is no answer: that blow is struck again, a few times at most.
    """
    stage, kad, peer = meeting
    slow = stage.instance(min_rx_us=300 * MS, min_tx_us=300 * MS)
    kad.configure(slow)
    poll(lambda: not kad.session("peer").polling, "the end of our poll sequence")
    poll(lambda: peer.sees_interval_ms() == 300, "our interval at the peer")
    survived = excused = 0
    with Metronome() as machine:
        while survived < 2:
            before = ups(kad)
            machine.take_worst_ms()
            kad.kill()
            kad.start()
            poll(lambda: kad.session("peer").counters["packets_received"] > 3, "packets")
            if peer.is_up() and ups(kad) == before:
                survived += 1
                continue
            paused_ms, excused = machine.take_worst_ms(), excused + 1
            assert paused_ms > PAUSE_MS and excused <= EXCUSES, f"{paused_ms} ms\n{kad.log()}"
            both_up(kad, peer)
