"""What instances follow, and each other: one life led by keepalived and by kad, the same states and adverts.

Every instance is alone in its virtual router, so that each move has one cause.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path

import pytest

from tests.support.capture import Capture
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, needs_namespaces, poll
from tests.support.threads import at_once

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

VRIDS = {"SCRIPT": 21, "STRICT": 22, "FILE": 23, "LINK": 24, "A": 25, "B": 26}
NOBODY_KNOWS = 40
"""Seconds; how long this machine may take for a step."""


def text(place: Path) -> str:
    def instance(name: str, interface: str = "eth0", *extra: str) -> str:
        return vrrp_instance(
            name,
            interface=interface,
            vrid=VRIDS[name],
            version=3,
            advert_int=0.2,
            addresses=[f"{'192.0.2' if interface == 'eth0' else '198.51.100'}.{100 + VRIDS[name]}/24"],
            extra=extra,
        )

    return configuration(
        f'vrrp_script chk {{\nscript "{place}/check"\ninterval 1\nweight -30\n}}\n',
        f'vrrp_script strict {{\nscript "{place}/check"\ninterval 1\nrise 2\nfall 2\n}}\n',
        f"track_file value {{\nfile {place}/value\nweight 1\n}}\n",
        instance("SCRIPT", "eth0", "track_script {", "chk", "}"),
        instance("STRICT", "eth0", "track_script {", "strict", "}"),
        instance("FILE", "eth0", "track_file {", "value", "}"),
        instance("LINK", "eth0", "track_interface {", "eth1 weight -50", "}"),
        instance("A"),
        instance("B", "eth1"),
        "vrrp_sync_group G {\ngroup {\nA\nB\n}\n}\n",
        settings=["enable_script_security", "script_user root"],
    )


@dataclass
class Life:
    states: dict[str, list[str]] = field(default_factory=dict)
    priorities: dict[str, list[int]] = field(default_factory=dict)
    """What was advertised, each change once."""


class Stage:
    def __init__(self, network: Network, program: type[Daemon], place: Path) -> None:
        self.place = place
        self.lans = [network.bridge(), network.bridge("second")]
        self.node, self.observer = network.node("node"), network.node("observer")
        for lan, prefix in zip(self.lans, ("192.0.2", "198.51.100"), strict=True):
            self.node.attach(lan, f"{prefix}.1/24")
            self.observer.attach(lan, f"{prefix}.9/24")
        check = place / "check"
        check.write_text(f'#!/bin/sh\n[ ! -e "{place}/broken" ]\n')
        check.chmod(0o755)
        self.daemon = program(self.node, text(place))

    def states(self, name: str) -> list[str]:
        entered = f"({name}) Entering "
        return [
            line.split(entered)[1].split()[0] for line in self.daemon.said().splitlines() if entered in line
        ]

    def becomes(self, state: str, *names: str) -> None:
        for name in names:
            poll(
                lambda n=name: self.states(n)[-1:] == [state],
                lambda n=name: f"{n} {state}: {self.daemon.said()}",
                seconds=NOBODY_KNOWS,
            )  # type: ignore[misc]

    def advertises(self, name: str, priority: int, wires: list[Capture]) -> None:
        def seen() -> bool:
            adverts = [a for wire in wires for a in wire.adverts(vrid=VRIDS[name])]
            return bool(adverts) and adverts[-1].priority == priority

        poll(seen, f"({name}) advertises {priority}: {self.daemon.said()}", seconds=NOBODY_KNOWS)

    def live(self) -> Life:
        with (
            Capture(self.observer, "eth0") as one,
            Capture(self.observer, "eth1") as two,
            self.daemon as daemon,
        ):
            wires = [one, two]
            self.becomes("MASTER", *VRIDS)
            (self.place / "broken").touch()
            self.advertises("SCRIPT", 70, wires)
            self.becomes("FAULT", "STRICT")
            (self.place / "broken").unlink()
            self.advertises("SCRIPT", 100, wires)
            self.becomes("MASTER", "STRICT")
            for value, priority in ((20, 120), (-60, 40), (500, 254)):
                (self.place / "value").write_text(f"{value}\n")
                self.advertises("FILE", priority, wires)
            (self.place / "value").write_text("-254\n")
            self.becomes("FAULT", "FILE")
            (self.place / "value").unlink()
            self.becomes("MASTER", "FILE")
            self.lans[1].unplug(self.node, "eth1")
            self.advertises("LINK", 50, wires)
            self.becomes("FAULT", "A", "B")
            self.lans[1].replug(self.node, "eth1")
            self.advertises("LINK", 100, wires)
            self.becomes("MASTER", "A", "B")
            self.advertises("B", 100, wires)
            daemon.stop()
            life = Life()
            for name, vrid in VRIDS.items():
                life.states[name] = self.states(name)
                adverts = [a.priority for wire in wires for a in wire.adverts(vrid=vrid)]
                life.priorities[name] = [priority for priority, _ in groupby(adverts)]
            return life


def lived(program: type[Daemon]) -> Life:
    with tempfile.TemporaryDirectory(prefix="kt-track-") as directory, Network("track") as network:
        Path(directory).chmod(0o755)
        return Stage(network, program, Path(directory)).live()


@pytest.fixture(scope="module")
def lives() -> Iterator[tuple[Life, Life]]:
    needs_namespaces()
    needs_keepalived()
    theirs, ours = at_once(partial(lived, Keepalived), partial(lived, Kad))
    yield theirs, ours


@pytest.mark.parametrize("name", VRIDS)
def test_the_same_states_in_the_same_order(lives: tuple[Life, Life], name: str) -> None:
    theirs, ours = lives
    assert ours.states[name] == theirs.states[name]
    assert ours.states[name][:2] == ["BACKUP", "MASTER"]


@pytest.mark.parametrize("name", VRIDS)
def test_the_same_priorities_are_advertised(lives: tuple[Life, Life], name: str) -> None:
    theirs, ours = lives
    assert ours.priorities[name] == theirs.priorities[name]


def vrrp_child_is_another(daemon: Daemon, old: int) -> Callable[[], bool]:
    def check() -> bool:
        with contextlib.suppress(OSError, ValueError):
            return int((daemon.directory / "vrrp.pid").read_text()) != old
        return False

    return check


def test_killed_while_its_script_is_down_it_goes_on_with_the_reduced_priority() -> None:
    needs_namespaces()
    with tempfile.TemporaryDirectory(prefix="kt-track-") as directory, Network("track") as network:
        place = Path(directory)
        place.chmod(0o755)
        stage = Stage(network, Kad, place)
        with Capture(stage.observer, "eth0") as wire, stage.daemon as daemon:
            stage.becomes("MASTER", *VRIDS)
            (place / "broken").touch()
            stage.advertises("SCRIPT", 70, [wire])
            stage.becomes("FAULT", "STRICT")
            stage.lans[1].unplug(stage.node, "eth1")
            stage.becomes("FAULT", "A", "B")
            for _ in range(2):  # after the third the node withdraws
                before = {name: len(wire.adverts(vrid=vrid)) for name, vrid in VRIDS.items()}
                old = daemon.vrrp_pid()
                os.kill(old, signal.SIGKILL)
                poll(vrrp_child_is_another(daemon, old), "the next life")
                poll(
                    lambda b=before: len(wire.adverts(vrid=VRIDS["SCRIPT"])) > b["SCRIPT"] + 2,  # type: ignore[misc]
                    "adverts going on",
                    seconds=NOBODY_KNOWS,
                )
                fresh = wire.adverts(vrid=VRIDS["SCRIPT"])[before["SCRIPT"] :]
                assert {advert.priority for advert in fresh} == {70}
                for name in ("STRICT", "A"):
                    assert len(wire.adverts(vrid=VRIDS[name])) == before[name]
