"""What few configurations say, lived through by keepalived and by kad: the same states, told alike.

Every instance is alone in its virtual router, so that each move has one cause.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from tests.support.capture import Capture
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.fifo import Reader
from tests.support.keepalived import configuration, is_newer, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, needs_namespaces, poll, remains
from tests.support.threads import at_once

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

PREFIXES = ("192.0.2", "198.51.100", "203.0.113")
GROUPS = {4: "224.0.0.77", 6: "ff02::77"}
VRIDS = {
    "DELAYED": 21,
    "REGARDLESS": 22,
    "WITH_ROUTE": 23,
    "PATIENT": 24,
    "PEERLESS": 25,
    "A": 26,
    "B": 27,
    "PACED": 28,
    "SIX": 29,
    "ELSEWHERE": 30,
    "READABLE": 31,
}
PATIENCE = 60
"""Seconds; how long a busy machine may take for a step."""
DELAY_S = 1
GAP_S = 0.2
"""Between announcements of what a garp_group paces."""
PACED = ("203.0.113.201", "203.0.113.202", "203.0.113.203")


def text(place: Path) -> str:
    def instance(
        name: str, *extra: str, link: int = 0, interval: float = 0.2, addresses: tuple[str, ...] = ()
    ) -> str:
        return vrrp_instance(
            name,
            interface=f"eth{link}",
            vrid=VRIDS[name],
            version=3,
            advert_int=interval,
            addresses=addresses or (f"{PREFIXES[link]}.{100 + VRIDS[name]}/24",),
            extra=extra,
        )

    return configuration(
        f"interface_up_down_delays {{\neth1 {DELAY_S} {DELAY_S}\n}}\n",
        f"garp_group {{\ngarp_interval {GAP_S}\ninterface eth2\n}}\n",
        f"track_file value {{\nfile {place}/value\nweight 1\n}}\n",
        instance("DELAYED", link=1, interval=1),
        instance("REGARDLESS", "dont_track_primary", link=2),
        f'vrrp_script readable {{\nscript "<{place}/readable"\ninterval 1\n}}\n',
        instance("READABLE", "track_script {", "readable", "}"),
        instance("WITH_ROUTE"),
        instance("PATIENT", "down_timer_adverts 8"),
        instance("PEERLESS", "unicast_fault_no_peer", "unicast_peer {", "}"),
        instance("A"),
        instance("B"),
        instance("PACED", addresses=tuple(f"{each}/24 dev eth2" for each in PACED)),
        instance("SIX", addresses=("fe80::99", "2001:db8::99/64")),
        instance("ELSEWHERE", "garp_extra_if all 1", link=2, addresses=("192.0.2.230/24 dev eth0",)),
        "track_group followers {\ngroup {\nWITH_ROUTE\n}\n}\n",
        "static_routes {\n10.9.0.0/16 dev eth2 track_group followers\n}\n",
        "vrrp_sync_group G {\ngroup {\nA\nB\n}\ntrack_file {\nvalue\n}\nsync_group_tracking_weight\n}\n",
        settings=[
            *("enable_script_security", "script_user root", f"vrrp_notify_fifo {place}/pipe"),
            *("vrrp_notify_priority_changes", "vrrp_startup_delay 1", "vrrp_garp_master_delay 0"),
            *(f"vrrp_mcast_group{family} {group}" for family, group in GROUPS.items()),
        ],
    )


@dataclass
class Life:
    told: dict[str, list[str]] = field(default_factory=dict)
    destinations: dict[str, set[str]] = field(default_factory=dict)
    priorities: dict[str, list[int]] = field(default_factory=dict)
    """What was advertised, each change once."""
    until_fault_s: float = 0
    """From the cut of a cable whose loss is believed later."""
    until_advert_s: dict[str, float] = field(default_factory=dict)
    """From the start."""
    announced: list[tuple[float, str]] = field(default_factory=list)
    """What is paced: when (seconds), and which address."""
    repeated: int = 0
    """Announcements of an address on another interface."""


class Stage:
    def __init__(self, network: Network, program: type[Daemon], place: Path) -> None:
        self.place = place
        self.lans = [network.bridge(f"lan{number}") for number in range(len(PREFIXES))]
        self.node, observer = network.node("node"), network.node("observer")
        for number, (lan, prefix) in enumerate(zip(self.lans, PREFIXES, strict=True)):
            addresses = (f"{prefix}.1/24", f"2001:db8:{number}::1/64", f"fe80::{number + 1}/64")
            self.node.attach(lan, *addresses, name=f"eth{number}")
            observer.attach(lan, f"{prefix}.9/24", name=f"eth{number}")
        (place / "value").write_text("0\n")
        (place / "readable").touch()
        self.node.run(["mkfifo", f"{place}/pipe"])
        self.pipe = Reader(place / "pipe")
        self.wires = [Capture(observer, f"eth{number}") for number in range(len(PREFIXES))]
        self.daemon = program(self.node, text(place))

    def close(self) -> None:
        self.daemon.close()
        self.pipe.close()
        for wire in self.wires:
            wire.close()

    def told(self, name: str) -> list[str]:
        lines = [line.split(f'"{name}" ') for line in self.pipe.data.decode().splitlines()]
        return [words[1] for words in lines if len(words) == 2]

    def becomes(self, state: str, *names: str) -> None:
        def have() -> bool:
            return all(self.told(name)[-1:] and self.told(name)[-1].split()[0] == state for name in names)

        poll(have, lambda: f"{names} {state}: {self.pipe.data!r} {self.daemon.said()}", seconds=PATIENCE)

    def advertised(self, name: str) -> list[int]:
        return [a.priority for wire in self.wires for a in wire.adverts(vrid=VRIDS[name])]

    def weighs(self, value: int) -> None:
        fresh = self.place / "fresh"
        fresh.write_text(f"{value}\n")
        fresh.rename(self.place / "value")
        for name in ("A", "B"):
            poll(
                lambda n=name: self.advertised(n)[-1] == 100 + value,  # type: ignore[misc]
                f"{name} at {100 + value}",
                seconds=PATIENCE,
            )

    def has_route(self) -> bool:
        return bool(self.node.ip_json("route", "show", "10.9.0.0/16"))

    def carrier(self, interface: str) -> bool:
        return "LOWER_UP" in self.node.ip_json("link", "show", "dev", interface)[0]["flags"]

    def live(self) -> Life:
        life = Life()
        started = time.time()
        self.daemon.start()
        others = [name for name in VRIDS if name != "PEERLESS"]
        self.becomes("MASTER", *others)
        self.becomes("FAULT", "PEERLESS")
        self.cables(life)
        self.node.ip("route", "del", "10.9.0.0/16")
        poll(self.has_route, "the static route again", seconds=PATIENCE)
        self.weighs(-30)
        self.weighs(20)
        self.sources()
        (self.place / "readable").unlink()
        self.becomes("FAULT", "READABLE")
        (self.place / "readable").touch()
        self.becomes("MASTER", "READABLE")
        assert self.daemon.stop() == 0
        self.note(life, started)
        return life

    def cables(self, life: Life) -> None:
        self.lans[2].unplug(self.node, "eth2")
        self.becomes("FAULT", "WITH_ROUTE")
        remains(lambda: self.told("REGARDLESS")[-1] == "MASTER 100", "MASTER without a link", seconds=0.5)
        self.lans[2].replug(self.node, "eth2")
        self.becomes("MASTER", "WITH_ROUTE")
        poll(self.has_route, "the static route with its link", seconds=PATIENCE)
        # Back before it is believed that it went.
        self.lans[1].unplug(self.node, "eth1")
        poll(lambda: not self.carrier("eth1"), "no carrier")
        self.lans[1].replug(self.node, "eth1")
        remains(
            lambda: self.told("DELAYED")[-1] == "MASTER 100",
            "a short loss to be nothing",
            seconds=2 * DELAY_S,
        )
        cut = time.monotonic()
        self.lans[1].unplug(self.node, "eth1")
        self.becomes("FAULT", "DELAYED")
        life.until_fault_s = time.monotonic() - cut
        self.lans[1].replug(self.node, "eth1")
        self.becomes("MASTER", "DELAYED")

    def sources(self) -> None:
        """IPv6 adverts come from a link-local address, of which two are there, or from nowhere."""
        own = [
            each
            for each in self.node.addresses("eth0")
            if each.startswith("fe80:") and "fe80::99/" not in each
        ]
        assert len(own) == 2
        for each in own:
            self.node.ip("-6", "addr", "del", each, "dev", "eth0")
        self.becomes("FAULT", "SIX")
        self.node.ip("-6", "addr", "add", "fe80::1/64", "dev", "eth0", "nodad")
        self.becomes("MASTER", "SIX")

    def note(self, life: Life, started: float) -> None:
        for name, vrid in VRIDS.items():
            adverts = [a for wire in self.wires for a in wire.adverts(vrid=vrid)]
            life.told[name] = self.told(name)
            life.destinations[name] = {a.destination for a in adverts}
            life.priorities[name] = [priority for priority, _ in groupby(a.priority for a in adverts)]
            if adverts:
                life.until_advert_s[name] = adverts[0].time_us / 1_000_000 - started
        life.told["G"] = self.told("G")
        announced = self.wires[2].announcements()
        life.announced = [(a.time_us / 1_000_000, a.address) for a in announced if a.address in PACED]
        life.repeated = len(self.wires[0].announcements("192.0.2.230"))


def lived(program: type[Daemon]) -> Life:
    with tempfile.TemporaryDirectory(prefix="kt-seldom-") as directory, Network("seldom") as network:
        Path(directory).chmod(0o755)
        stage = Stage(network, program, Path(directory))
        try:
            return stage.live()
        finally:
            stage.close()


@pytest.fixture(scope="module")
def lives() -> Iterator[dict[str, Life]]:
    needs_namespaces()
    needs_keepalived()
    theirs, ours = at_once(partial(lived, Keepalived), partial(lived, Kad))
    yield {"Keepalived": theirs, "Kad": ours}


@pytest.mark.parametrize("name", [*VRIDS, "G"])
def test_the_same_is_told_in_the_same_order(lives: dict[str, Life], name: str) -> None:
    assert lives["Kad"].told[name] == lives["Keepalived"].told[name]


def test_the_same_priorities_are_advertised_to_the_same_groups(lives: dict[str, Life]) -> None:
    ours, theirs = lives["Kad"], lives["Keepalived"]
    if is_newer():  # Its farewell leaves from the virtual address when its own has gone.
        assert theirs.priorities["SIX"] == [100, 0, 100, 0]
        theirs.priorities["SIX"] = [100, 0]
    assert ours.priorities == theirs.priorities
    assert ours.destinations == theirs.destinations
    assert ours.destinations["A"] == {GROUPS[4]} and ours.destinations["SIX"] == {GROUPS[6]}


@pytest.mark.parametrize("program", ["Keepalived", "Kad"])
@pytest.mark.parametrize(
    "holds",
    [
        lambda life: life.until_fault_s > 0.9 * DELAY_S,
        # The start-up delay, then three adverts; or eight.
        lambda life: life.until_advert_s["A"] > 1 + 3 * 0.2,
        lambda life: life.until_advert_s["PATIENT"] > 1 + 8 * 0.2,
        lambda life: {address for _, address in life.announced} == set(PACED),
        lambda life: min(b - a for (a, _), (b, _) in pairwise(life.announced)) > GAP_S / 2,
        lambda life: life.repeated > 5,
    ],
    ids=[
        "delay of a link",
        "start-up delay",
        "down timer",
        "all paced are announced",
        "pace",
        "another interface",
    ],
)
def test_times(lives: dict[str, Life], program: str, holds: Callable[[Life], bool]) -> None:
    assert holds(lives[program]), lives[program]
