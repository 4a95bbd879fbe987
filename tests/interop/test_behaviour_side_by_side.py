"""The same scenarios led by keepalived and by kad, at the same time, in networks that are alike.

Compared for each: the states it says it enters, its adverts byte for byte, what it announces, what its script
is told, and what the kernel has, while it is master, after the reload, and at the end.
"""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.interop.behaviours import OURS, SCENARIOS, Scenario, addresses, names, numbers, text, timeline
from tests.support.capture import Capture
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import needs_keepalived
from tests.support.namespaces import Network, needs_namespaces, poll

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

PATIENCE = 60
NOTIFY = """#!/bin/sh
echo "$@" >> "{place}/told"
"""


@dataclass
class Seen:
    """Of one scenario."""

    states: list[str] = field(default_factory=list)
    adverts: list[tuple[str, str, int, bytes]] = field(default_factory=list)
    announced: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)
    kernel: dict[str, list[Any]] = field(default_factory=dict)


class Stage:
    def __init__(self, network: Network, program: type[Daemon], place: Path) -> None:
        self.place = place
        self.lans = [network.bridge(f"lan{number}") for number in range(3)]
        self.node, self.observer = network.node("node"), network.node("observer")
        prefixes = ("192.0.2", "198.51.100", "203.0.113")
        for number, (lan, prefix) in enumerate(zip(self.lans, prefixes, strict=True)):
            extra = ["2001:db8::10/64"] if not number else []
            self.node.attach(
                lan, f"{prefix}.10/24", *extra, name=f"eth{number}", mac=f"02:00:00:00:0{number}:10"
            )
            self.observer.attach(lan, f"{prefix}.66/24", name=f"eth{number}")
        # Nobody routes here: rules and routes are looked at, not used.
        notify = place / "notify"
        notify.write_text(NOTIFY.format(place=place))
        notify.chmod(0o755)
        (place / "told").touch()
        self.daemon = program(self.node, text(str(place)))
        self.capture = Capture(self.observer, "eth0")
        self.kernel: dict[str, dict[str, list[Any]]] = {}

    # Steps ---------------------------------------------------------------------------------------------

    def speak(self, started: float) -> None:
        """What the peer says, when it is due."""
        with self.observer.entered():
            speaker = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            speaker.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
        pause = threading.Event()
        with speaker:
            for seconds, destination, data in timeline():
                ahead = started + seconds - time.monotonic()
                if ahead > 0:
                    pause.wait(ahead)
                speaker.sendto(data, (destination, 0))

    def states(self, name: str) -> list[str]:
        mark = f"({name}) Entering "
        return [line.split(mark)[1] for line in self.daemon.said().splitlines() if mark in line]

    def all_are(self, state: str, but: tuple[str, ...] = ()) -> bool:
        every = [name for scenario in SCENARIOS for name in names(scenario) if name not in but]
        return all(self.states(name)[-1:] == [f"{state} STATE"] for name in every)

    def note(self, moment: str) -> None:
        self.kernel[moment] = {
            "addresses": [
                _shown(entry, ("local", "prefixlen", "broadcast", "scope", "label", "secondary"))
                for link in self.node.ip_json("addr", "show")
                for entry in link["addr_info"]
            ],
            "routes": [_shown(each, ROUTE) for each in self.node.ip_json("route", "show", "table", "all")],
            "rules": [_shown(each, RULE) for each in self.node.ip_json("rule", "show")],
        }

    def advertised(self, scenario: Scenario) -> list[int]:
        return [a.priority for a in self.capture.adverts(vrid=numbers(scenario)[0], source=OURS)]

    def seen(self, scenario: Scenario) -> Seen:
        own = [a.partition("/")[0] for a in addresses(scenario)]
        own += [a.partition("/")[0] for a in scenario.reloaded.get("addresses", ())]  # type: ignore[attr-defined]
        adverts = [
            (a.source, a.destination, a.hop_limit, a.payload)
            for vrid in numbers(scenario)
            for a in self.capture.adverts(vrid=vrid)
            if a.source_mac.startswith("02:00:00:00:00")
        ]
        told = [
            line
            for line in (self.place / "told").read_text().splitlines()
            if line.split()[1] in names(scenario)
        ]
        return Seen(
            states=[state for name in names(scenario) for state in self.states(name)],
            adverts=[advert for advert, _ in groupby(adverts)],
            announced={a.address for a in self.capture.announcements()} & set(own),
            told=sorted(told, key=lambda line: line.split()[1]),
            kernel={
                moment: [entry for entry in found["addresses"] if entry.get("local") in own]
                for moment, found in self.kernel.items()
            },
        )


ROUTE = ("dst", "gateway", "dev", "protocol", "scope", "metric", "table", "type", "prefsrc")
RULE = ("priority", "src", "srclen", "dst", "table", "action", "protocol")


def _shown(entry: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: entry[key] for key in keys if key in entry}


@dataclass
class Both:
    theirs: Stage
    ours: Stage

    def each(self) -> tuple[Stage, Stage]:
        return self.theirs, self.ours

    def wait(self, condition: Callable[[Stage], bool], what: str) -> None:
        for stage in self.each():
            poll(
                lambda s=stage: condition(s),  # type: ignore[misc]
                lambda s=stage: f"{what} of {s.daemon.program}: {s.daemon.said()[-3000:]}",  # type: ignore[misc]
                seconds=PATIENCE,
                every=0.05,
            )


def tell(both: Both) -> None:
    """The story that all of them live through."""
    for stage in both.each():
        stage.daemon.start()
    both.wait(lambda s: s.all_are("MASTER"), "everybody MASTER")
    for stage in both.each():
        stage.note("master")
    started = time.monotonic() + 0.5
    speakers = [threading.Thread(target=stage.speak, args=(started,)) for stage in both.each()]
    for speaker in speakers:
        speaker.start()
    for speaker in speakers:
        speaker.join()
    both.wait(lambda s: s.all_are("MASTER"), "everybody MASTER again")
    follow(both)
    for stage in both.each():
        stage.node.ip("addr", "del", addresses(_scenario("address_deleted"))[0], "dev", "eth0")
    both.wait(lambda s: len(s.states("address_deleted")) >= 4, "a deletion answered")
    both.wait(lambda s: s.all_are("MASTER"), "everybody MASTER after a deletion")
    for stage in both.each():
        stage.daemon.configure(text(str(stage.place), reloaded=True))
        stage.daemon.reload()
    both.wait(lambda s: s.advertised(_scenario("reloaded_priority"))[-1] == 120, "another priority")
    both.wait(lambda s: s.node.holds("192.0.2.244"), "another address")
    for stage in both.each():
        stage.note("reloaded")
        assert stage.daemon.stop() == 0
        stage.note("stopped")


def _scenario(name: str) -> Scenario:
    return next(scenario for scenario in SCENARIOS if scenario.name == name)


def follow(both: Both) -> None:
    """A file and a link that are followed."""
    for value, priority in ((20, 120), (-60, 40)):
        for stage in both.each():
            (stage.place / "value").write_text(f"{value}\n")
        both.wait(
            lambda s, p=priority: s.advertised(_scenario("file_weighs"))[-1] == p, f"priority {priority}"
        )  # type: ignore[misc]
    for stage in both.each():
        (stage.place / "value").write_text("13\n")
    both.wait(lambda s: s.states("file_forbids")[-1] == "FAULT STATE", "FAULT by a file")
    both.wait(lambda s: s.advertised(_scenario("file_weighs"))[-1] == 113, "priority 113")
    for stage in both.each():
        (stage.place / "value").unlink()
    both.wait(lambda s: s.all_are("MASTER"), "everybody MASTER without the file")
    fault = ("link_forbids", "group_forbidden", "group_forbidden_partner")
    for stage in both.each():
        stage.lans[2].unplug(stage.node, "eth2")
    both.wait(lambda s: all(s.states(name)[-1] == "FAULT STATE" for name in fault), "FAULT by a link")
    for name, priority in (("link_weighs", 70), ("link_weighs_and_carries", 100)):
        both.wait(lambda s, n=name, p=priority: s.advertised(_scenario(n))[-1] == p, "a lighter priority")  # type: ignore[misc]
    for stage in both.each():
        stage.lans[2].replug(stage.node, "eth2")
    both.wait(lambda s: s.all_are("MASTER"), "everybody MASTER with the link")
    for name, priority in (("link_weighs", 100), ("link_weighs_and_carries", 103)):
        both.wait(lambda s, n=name, p=priority: s.advertised(_scenario(n))[-1] == p, "the whole priority")  # type: ignore[misc]


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    needs_namespaces()
    needs_keepalived()
    with tempfile.TemporaryDirectory(prefix="kt-side-") as directory, Network("side") as network:
        Path(directory).chmod(0o755)
        stages = []
        for label, program in (("keepalived", Keepalived), ("kad", Kad)):
            place = Path(directory, label)
            place.mkdir()
            place.chmod(0o755)
            stages.append(Stage(network, program, place))
        both = Both(*stages)
        try:
            tell(both)
            yield both
        finally:
            for stage in stages:
                stage.capture.close()
                stage.daemon.close()


@pytest.fixture(params=SCENARIOS, ids=lambda scenario: scenario.name)
def scenario(request: pytest.FixtureRequest) -> Scenario:
    assert isinstance(request.param, Scenario)
    return request.param


def test_there_are_thirty_and_more() -> None:
    assert len(SCENARIOS) >= 30


def compare(scenario: Scenario, what: str, ours: object, theirs: object) -> None:
    """The same, or different where that is known: a difference that has gone is to be struck off."""
    assert (ours != theirs) is (what in scenario.differs), (ours, theirs)


def test_the_same_states_in_the_same_order(both: Both, scenario: Scenario) -> None:
    states = both.ours.seen(scenario).states
    compare(scenario, "states", states, both.theirs.seen(scenario).states)
    assert "MASTER STATE" in states


def test_the_same_adverts_byte_for_byte(both: Both, scenario: Scenario) -> None:
    ours, theirs = both.ours.seen(scenario).adverts, both.theirs.seen(scenario).adverts
    assert ours == theirs
    assert ours


def test_the_same_is_announced_and_told(both: Both, scenario: Scenario) -> None:
    ours, theirs = both.ours.seen(scenario), both.theirs.seen(scenario)
    assert ours.announced == theirs.announced
    compare(scenario, "told", ours.told, theirs.told)
    assert ours.told


def test_the_kernel_has_the_same_addresses(both: Both, scenario: Scenario) -> None:
    ours, theirs = both.ours.seen(scenario).kernel, both.theirs.seen(scenario).kernel
    assert ours == theirs
    assert ours["master"] and not ours["stopped"]


@pytest.mark.parametrize("moment", ["master", "reloaded", "stopped"])
def test_the_kernel_has_the_same_routes_and_rules(both: Both, moment: str) -> None:
    ours, theirs = both.ours.kernel[moment], both.theirs.kernel[moment]

    def ordered(found: list[Any]) -> list[str]:
        return sorted(map(repr, found))

    assert ordered(ours["routes"]) == ordered(theirs["routes"])
    assert ordered(ours["rules"]) == ordered(theirs["rules"])
