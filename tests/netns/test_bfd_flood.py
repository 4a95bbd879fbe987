"""A flood on every port of the BFD child's: 100,000 a second at best, of strangers and of neighbours."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kad.config.model.bfd import BfdInstance
from kad.ipc.reports import BfdReport
from kad_bfd.core.context import TAG_BITS
from kad_bfd.core.packet import State, encode
from tests.support.bfd_host import control
from tests.support.bfd_node import BfdNode, session
from tests.support.flood import Flood, Flooder, udp_frame
from tests.support.metronome import undisturbed
from tests.support.namespaces import Network, Node, poll

pytestmark = [pytest.mark.root, pytest.mark.alone]

RATE = 105_000
"""Asked for. A slow machine, or one that others use, takes longer for as many."""
SECONDS = 1.5
FRAMES = 600
PATIENT = {"multiplier": 10}
"""Half a second: longer than the pauses of a busy machine, of which the flood is not guilty."""
NEIGHBORS_INTERVAL_US = 50_000
SINGLE_HOP, MULTIHOP = 3784, 4784


@dataclass(frozen=True)
class Door:
    """One pair of sockets: a port, a family, an interface or any; and whose session uses it."""

    name: str
    interface: str
    ours: str
    theirs: str
    stranger: str
    port: int = SINGLE_HOP
    is_bound: bool = False

    @property
    def multihop(self) -> bool:
        return self.port == MULTIHOP

    def session(self, neighbor: str) -> BfdInstance:
        interface = self.interface if self.is_bound else ""
        return session(self.name, neighbor, multihop=self.multihop, interface=interface, **PATIENT)


FOUR, SIX = ("192.0.2.1", "192.0.2.2", "192.0.2.{}"), ("2001:db8::1", "2001:db8::2", "2001:db8::{}")
DOORS = (
    Door("four", "eth0", *FOUR),
    Door("six", "eth0", *SIX),
    Door("far-four", "eth0", *FOUR, port=MULTIHOP),
    Door("far-six", "eth0", *SIX, port=MULTIHOP),
    Door("bound-four", "eth1", "198.51.100.1", "198.51.100.2", "198.51.100.{}", is_bound=True),
    Door("bound-six", "eth1", "fe80::1", "fe80::2", "fe80::{}", is_bound=True),
)
OVERFLOWS = ("overflow strangers", "overflow neighbours")


LEAST_SHARE = 1_000
"""Packets of the flood for each of the neighbour's: less would be none. (At full speed 5,000.)"""
PAUSE_MS = 100
MEMORY = 1 << 20
"""What the process may grow by in a flood, bytes."""


@dataclass
class Stage:
    """Both ends with a session through every door."""

    near: Node
    far: Node
    ours: BfdNode
    theirs: BfdNode
    flooder: Flooder

    def frames(self, door: Door, sources: list[str], payloads: list[bytes]) -> list[bytes]:
        macs = self.far.mac(door.interface), self.near.mac(door.interface)
        return [
            udp_frame(macs, sources[n % len(sources)], door.ours, door.port, payloads[n % len(payloads)])
            for n in range(FRAMES)
        ]

    def ups(self, *doors: Door) -> list[int]:
        """How often each of these sessions came up, at both ends."""
        return [node.states(door.name).count("Up") for node in (self.ours, self.theirs) for door in doors]

    def flooded(self, door: Door, frames: list[bytes]) -> tuple[Flood, BfdReport]:
        """What became of a flood: it is counted to the last packet, and has left nothing behind."""
        memory, before = resident(self.ours.pid), counted(self.ours.report())
        done = self.flooder.flood(self.far, door.interface, frames, rate=RATE, seconds=SECONDS)
        assert done.sent == round(RATE * SECONDS)
        share = done.sent / (done.took_us / NEIGHBORS_INTERVAL_US)
        assert share >= LEAST_SHARE, f"the machine could not send a flood: {done}"
        poll(
            lambda: counted(self.ours.report()) - before >= done.sent - done.lost,
            lambda: f"{counted(self.ours.report()) - before} counted of {done}",
        )
        assert resident(self.ours.pid) - memory < MEMORY
        return done, self.ours.report()


@pytest.fixture
def stage(network: Network, tmp_path: Path) -> Iterator[Stage]:
    flooder = Flooder(tmp_path)
    near, far = network.node("near"), network.node("far")
    for interface in ("eth0", "eth1"):
        network.pair(near, far, interface)
    for interface, *pair in {(door.interface, door.ours, door.theirs) for door in DOORS}:
        for node, address in zip((near, far), pair, strict=True):
            width, extra = ("64", ("nodad",)) if ":" in address else ("24", ())
            node.ip("addr", "add", f"{address}/{width}", "dev", interface, *extra)
    ours = BfdNode(near, *(door.session(door.theirs) for door in DOORS))
    theirs = BfdNode(far, *(door.session(door.ours) for door in DOORS))
    with ours, theirs:
        ours.start()
        theirs.start()
        for node in (ours, theirs):
            for door in DOORS:
                node.becomes("Up", door.name)
        yield Stage(near, far, ours, theirs, flooder)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_a_flood_of_strangers_shakes_nothing(stage: Stage, door: Door) -> None:
    def attempt() -> None:
        ups, before = stage.ups(*DOORS), stage.ours.report()
        sources = [door.stranger.format(host) for host in range(3, 60)]
        done, report = stage.flooded(door, stage.frames(door, sources, strange()))
        assert stage.ups(*DOORS) == ups, stage.ours.log()
        assert {"your_discriminator", "payload", "version"} <= set(report.drops)
        assert overflow(report, "overflow strangers") > overflow(before, "overflow strangers")
        assert overflow(report, "overflow neighbours") == 0, "where neighbours are there was room"
        new = counted(report) - counted(before)
        assert done.sent - done.lost <= new <= done.sent, "each once, and nothing else"

    undisturbed(attempt, PAUSE_MS)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_a_flood_in_the_neighbours_name_shakes_nothing(stage: Stage, door: Door) -> None:
    """It would end the session, but for the discriminator, which has to be guessed."""

    def attempt() -> None:
        ups, before = stage.ups(*DOORS), stage.ours.report()
        discriminator = stage.ours.session(door.name).local_discriminator
        done, report = stage.flooded(door, stage.frames(door, [door.theirs], wrong(discriminator, 32)))
        assert stage.ups(*DOORS) == ups, stage.ours.log()
        reason = "your_discriminator"
        looked_at = report.drops.get(reason, 0) - before.drops.get(reason, 0)
        overflown = overflow(report, *OVERFLOWS) - overflow(before, *OVERFLOWS)
        assert looked_at > 100
        assert done.sent - done.lost <= looked_at + overflown <= done.sent

    undisturbed(attempt, PAUSE_MS)


@pytest.mark.parametrize("door", DOORS[:2], ids=lambda door: door.name)
def test_a_flood_of_somebody_who_hears_us_touches_nobody_elses_sessions(stage: Stage, door: Door) -> None:
    """What reflects the beginning of our discriminators lies among the neighbours' packets: who knows that
    can end that neighbour's sessions without a flood. All others have sockets of their own."""

    def attempt() -> None:
        others = [other for other in DOORS if other.port != door.port or other.is_bound]
        ups = stage.ups(*others)
        discriminator = stage.ours.session(door.name).local_discriminator
        stage.flooded(door, stage.frames(door, [door.theirs], wrong(discriminator, 32 - TAG_BITS)))
        assert stage.ups(*others) == ups, stage.ours.log()
        stage.ours.becomes("Up", door.name)

    undisturbed(attempt, PAUSE_MS)


def strange() -> list[bytes]:
    """Right to the last byte but for the discriminator; too short, empty, garbage, too long."""
    chance = random.Random(5881)
    unknown = [
        encode(control(State.DOWN, your_discriminator=chance.randrange(1, 1 << 32))) for _ in range(100)
    ]
    good = unknown[0]
    return [*unknown, good[:10], b"", os.urandom(24), bytes((0x20,)) + os.urandom(60), os.urandom(400)]


def wrong(discriminator: int, bits: int) -> list[bytes]:
    """Down, in the name of a neighbour, but of no session: up to ``bits`` of the discriminator are wrong."""
    chance = random.Random(5882)
    return [
        encode(control(State.DOWN, your_discriminator=discriminator ^ chance.randrange(1, 1 << bits)))
        for _ in range(100)
    ]


def counted(report: BfdReport) -> int:
    """Whatever was not believed: by reason, or that there was no room for."""
    assert report.process is not None
    sessions = sum(sum(each.drops.values()) for each in report.sessions)
    return sum(report.drops.values()) + sessions + overflow(report, *OVERFLOWS)


def overflow(report: BfdReport, *which: str) -> int:
    assert report.process is not None
    return sum(report.process.counters[name] for name in which)


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
