"""How an instance is told to speak and to listen: real packets, beside keepalived where it knows that."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from kad.errors import KadError
from tests.support.capture import Capture
from tests.support.control import reload, status_of
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, Node, poll, remains
from tests.support.neighbours import who_answers

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

VIP = "192.0.2.100"
SOURCES = {"one": "192.0.2.1", "two": "192.0.2.2", "three": "192.0.2.3"}


@dataclass
class Stage:
    nodes: dict[str, Node]
    client: Node
    daemons: dict[str, Daemon]

    def start(self, label: str, kind: type[Daemon], *blocks: str, settings: tuple[str, ...] = ()) -> Daemon:
        daemon = self.daemons[label] = kind(self.nodes[label], configuration(*blocks, settings=settings))
        daemon.start()
        return daemon

    def holders(self, vip: str = VIP) -> set[str]:
        names = {node.mac("eth0"): label for label, node in self.nodes.items()}
        return {names[mac] for mac in who_answers(self.client, "eth0", vip, seconds=0.15)}

    def alone(self, label: str, vip: str = VIP) -> Callable[[], bool]:
        return lambda: self.holders(vip) == {label}


@pytest.fixture
def stage(network: Network) -> Iterator[Stage]:
    needs_keepalived()
    lan = network.bridge()
    nodes = {label: network.node(label) for label in SOURCES}
    for label, source in SOURCES.items():
        nodes[label].attach(lan, f"{source}/24", name="eth0")
    client = network.node("client")
    client.attach(lan, "192.0.2.9/24", name="eth0")
    made = Stage(nodes, client, {})
    try:
        yield made
    finally:
        for label, daemon in made.daemons.items():
            print(f"--- {label}\n{daemon.log.read_text()}")
            daemon.close()


def block(name: str = "VI_1", **settings: object) -> str:
    fields: dict[str, object] = {"version": 3, "advert_int": 0.2, "addresses": [f"{VIP}/24"]}
    return vrrp_instance(name, **(fields | settings))  # type: ignore[arg-type]


def in_state(daemon: Daemon, state: str, name: str = "VI_1") -> Callable[[], bool]:
    def last() -> bool:
        entered = [line for line in daemon.said().splitlines() if f"({name}) Entering" in line]
        return bool(entered) and f"Entering {state}" in entered[-1]

    return last


def drops(daemon: Daemon, name: str = "VI_1") -> dict[str, int]:
    """Packets not believed, by reason."""
    assert isinstance(daemon, Kad)
    try:
        instances = status_of(daemon).reports["vrrp"]["instances"]
    except KadError:
        return {}  # too busy to answer: whoever waits asks again
    found: dict[str, int] = next(each for each in instances if each["name"] == name).get("drops", {})
    return found


# Address owners -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kinds", [(Kad, Kad), (Kad, Keepalived), (Keepalived, Kad)], ids=lambda k: "-".join(x.__name__ for x in k)
)
def test_of_two_owners_one_remains(stage: Stage, kinds: tuple[type[Daemon], type[Daemon]]) -> None:
    """Both have priority 255: whatever each does about it, in the end one alone holds the address."""
    text = block(priority=255, state="MASTER")
    stage.start("one", kinds[0], text)
    poll(stage.alone("one"), "the first one", seconds=10)
    stage.start("two", kinds[1], text)
    poll(lambda: stage.holders() == {"two"}, "the higher address", seconds=10)
    remains(stage.alone("two"), "its mastery", seconds=1.5)
    assert in_state(stage.daemons["one"], "BACKUP")()


# Strict mode --------------------------------------------------------------------------------------------


def test_strict_routers_elect_and_take_no_packets_for_their_address(stage: Stage) -> None:
    """RFC 9568 §6.1: without Accept_Mode only the owner takes packets to the address."""
    strict = ["strict_mode on"]
    stage.start("one", Kad, block(priority=100, extra=strict))
    poll(stage.alone("one"), "the first one", seconds=10)
    assert not takes_packets(stage.client), "not by default"
    # keepalived's own needs its firewall for the same; what it says on the wire is what counts here.
    stage.start("two", Keepalived, block(priority=150, extra=[*strict, "accept"]))
    poll(stage.alone("two"), "the better one", seconds=10)
    assert stage.daemons["two"].stop() == 0
    poll(stage.alone("one"), "the first one again", seconds=5)
    stage.daemons["one"].configure(configuration(block(priority=100, extra=[*strict, "accept"])))
    assert isinstance(stage.daemons["one"], Kad) and reload(stage.daemons["one"]).accepted
    poll(lambda: takes_packets(stage.client), "that accept lets them in", seconds=5)


def takes_packets(client: Node) -> bool:
    """Whether a datagram to the address comes back as "port unreachable", which says that it was let in."""
    with client.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.5)
        asking.connect((VIP, 9))
        try:
            asking.send(b"")
            asking.recv(1)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
    return False


def test_a_strict_owner_hears_nobody(stage: Stage) -> None:
    stage.start("one", Kad, block(priority=255, state="MASTER", extra=["strict_mode on"]))
    poll(stage.alone("one"), "the owner", seconds=10)
    stage.start("two", Keepalived, block(priority=254))
    poll(in_state(stage.daemons["two"], "BACKUP"), "that the other waits", seconds=10)
    stage.daemons["two"].stop()
    # One that claims more than it may: its adverts are dropped, and counted.
    stage.start("three", Kad, block(priority=255, state="MASTER"))
    poll(lambda: drops(stage.daemons["one"]).get("owner", 0) > 0, "a dropped advert", seconds=10)
    assert in_state(stage.daemons["one"], "MASTER")()


# Versions -----------------------------------------------------------------------------------------------


def test_versions_do_not_understand_each_other_and_say_so(stage: Stage) -> None:
    stage.start("one", Kad, block(version=3, advert_int=1, priority=100))
    poll(stage.alone("one"), "the first one", seconds=10)
    stage.start("two", Keepalived, block(version=2, advert_int=1, priority=150))
    poll(in_state(stage.daemons["two"], "MASTER"), "two masters", seconds=10)
    # keepalived 2.2.7 starts its own interval anew with each advert it does not understand: it says one.
    poll(lambda: drops(stage.daemons["one"]).get("version", 0) > 0, "a dropped advert", seconds=5)
    stage.daemons["one"].configure(configuration(block(version=2, advert_int=1, priority=100)))
    assert isinstance(stage.daemons["one"], Kad)
    assert reload(stage.daemons["one"]).accepted
    poll(stage.alone("two"), "one master after a reload to the other's version", seconds=10)


def test_the_checksum_of_version_3_as_that_of_2(stage: Stage) -> None:
    """Without pseudo header. Who demands it does not believe such adverts; who is told so believes both."""
    odd = ["v3_checksum_as_v2 on"]
    with Capture(stage.client, "eth0") as wire:
        stage.start("one", Kad, block(priority=100, extra=odd))
        poll(stage.alone("one"), "the first one", seconds=10)
        payload = wire.adverts(vrid=51)[-1].payload
        total = sum(int.from_bytes(payload[at : at + 2], "big") for at in range(0, len(payload), 2))
        assert total % 0xFFFF == 0, "the payload alone sums up"
    stage.start("two", Kad, block(priority=150))
    poll(stage.alone("two"), "the better one, believed though its checksum is the usual one", seconds=10)
    assert in_state(stage.daemons["one"], "BACKUP")()
    assert drops(stage.daemons["two"]).get("checksum", 0) > 0


# Unicast ------------------------------------------------------------------------------------------------


def unicast(
    label: str, peers: list[str], priority: int, *extra: str, vrid: int = 51, name: str = "VI_1"
) -> str:
    return block(name, vrid=vrid, priority=priority, source=SOURCES[label], peers=peers, extra=extra)


@pytest.mark.parametrize("peer", [Kad, Keepalived])
def test_a_peer_s_ttl_has_to_be_in_range(stage: Stage, peer: type[Daemon]) -> None:
    low = stage.start("one", Kad, unicast("one", [f"{SOURCES['two']} min_ttl 20 max_ttl 60"], 100))
    poll(in_state(low, "MASTER"), "the first one", seconds=10)
    stage.start("two", peer, unicast("two", [SOURCES["one"]], 150, "unicast_ttl 61"))
    poll(lambda: drops(low).get("unicast_ttl", 0) > 2, "adverts that come from too far", seconds=10)
    assert in_state(low, "MASTER")()
    low.configure(configuration(unicast("one", [f"{SOURCES['two']} min_ttl 20 max_ttl 61"], 100)))
    assert isinstance(low, Kad) and reload(low).accepted
    poll(in_state(low, "BACKUP"), "that it gives way", seconds=5)
    poll(stage.alone("two"), "the better one", seconds=5)


@pytest.mark.parametrize("checked", [True, False])
def test_who_is_no_peer(stage: Stage, checked: bool) -> None:
    """With check_unicast_src its adverts count for nothing; without, keepalived and kad believe anybody."""
    extra = ["check_unicast_src"] if checked else []
    low = stage.start("one", Kad, unicast("one", [SOURCES["two"]], 100, *extra))
    poll(in_state(low, "MASTER"), "the first one", seconds=10)
    stage.start("three", Keepalived, unicast("three", [SOURCES["one"]], 150))
    if checked:
        poll(lambda: drops(low).get("unicast_source", 0) > 3, "dropped adverts", seconds=10)
        assert in_state(low, "MASTER")()
    else:
        poll(in_state(low, "BACKUP"), "that it gives way", seconds=10)


def test_one_number_for_two_sets_of_peers(stage: Stage) -> None:
    """As keepalived allows it where no peer is in both: they share their sockets and not their state."""
    second = "192.0.2.101"
    hub = stage.start(
        "one",
        Kad,
        unicast("one", [SOURCES["two"]], 100, name="LEFT"),
        unicast("one", [SOURCES["three"]], 100, name="RIGHT").replace(VIP, second),
    )
    for name in ("LEFT", "RIGHT"):
        poll(in_state(hub, "MASTER", name), name, seconds=10)
    stage.start("two", Keepalived, unicast("two", [SOURCES["one"]], 150, name="LEFT"))
    poll(in_state(hub, "BACKUP", "LEFT"), "that LEFT gives way", seconds=10)
    poll(stage.alone("two"), "the better one of LEFT", seconds=5)
    remains(in_state(hub, "MASTER", "RIGHT"), "RIGHT's mastery", seconds=1)
    assert stage.holders(second) == {"one"}


# Multicast ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", [Kad, Keepalived])
def test_one_number_in_two_groups(stage: Stage, peer: type[Daemon]) -> None:
    """The same VRID on one link, told apart by where it is sent; a global group is what others start from."""
    second, settings = "192.0.2.101", ("vrrp_mcast_group4 224.0.0.77",)
    here, there = block("HERE"), block("THERE", extra=["mcast_dst_ip 224.0.0.78"]).replace(VIP, second)
    one = stage.start("one", Kad, here, there, settings=settings)
    with Capture(stage.client, "eth0") as wire:
        for name in ("HERE", "THERE"):
            poll(in_state(one, "MASTER", name), name, seconds=10)
        wire.clear()
        poll(lambda: len({a.destination for a in wire.adverts(vrid=51)}) == 2, "both groups", seconds=5)
        assert {(a.destination, a.addresses) for a in wire.adverts(vrid=51)} == {
            ("224.0.0.77", (VIP,)),
            ("224.0.0.78", (second,)),
        }
    stage.start(
        "two", peer, block("THERE", priority=150, extra=["mcast_dst_ip 224.0.0.78"]).replace(VIP, second)
    )
    poll(in_state(one, "BACKUP", "THERE"), "that THERE gives way", seconds=10)
    poll(stage.alone("two", second), "the better one of THERE", seconds=5)
    remains(in_state(one, "MASTER", "HERE"), "HERE's mastery", seconds=1)


def test_a_number_twice_on_one_link_is_refused(stage: Stage) -> None:
    kad = stage.start("one", Kad, block())
    assert isinstance(kad, Kad)
    poll(in_state(kad, "MASTER"), "mastery", seconds=10)
    kad.configure(configuration(block(), block("AGAIN", addresses=["192.0.2.101/24"])))
    answer = reload(kad)
    assert not answer.accepted
    assert "AGAIN" in answer.diagnostics and "VRID 51" in answer.diagnostics
    assert in_state(kad, "MASTER")() and kad.count("AGAIN) Entering") == 0
    # Of another family it is another number (RFC 9568 §1.6).
    six = block("SIX", addresses=["fe80::99/64"])
    kad.configure(configuration(block(), six))
    assert reload(kad).accepted
    poll(in_state(kad, "MASTER", "SIX"), "the same number over IPv6", seconds=10)
