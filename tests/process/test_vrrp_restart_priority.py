"""kill -9 of the VRRP process while something it follows is down: the next advert says so, or there is none.

The tracked scripts take longer than a restart, so that no fresh answer can be in the first advert.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.capture import Advert, Capture
from tests.support.daemon import Kad
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Network, Node, poll

pytestmark = [pytest.mark.root, pytest.mark.slow]

VRIDS = {"PLAIN": 20, "WEIGHTED": 21, "STRICT": 22, "FILE": 23, "LINK": 24, "A": 25, "B": 26, "PROCESS": 27}
REDUCED = {20: 100, 21: 70, 23: 60, 24: 50}
"""What each says while everything it follows is down; who is not here says nothing."""


def text(place: Path) -> str:
    def instance(name: str, *extra: str, interface: str = "eth0") -> str:
        return vrrp_instance(
            name,
            interface=interface,
            vrid=VRIDS[name],
            version=3,
            advert_int=0.2,
            addresses=[f"{'192.0.2' if interface == 'eth0' else '198.51.100'}.{100 + VRIDS[name]}/24"],
            extra=extra,
        )

    def script(name: str, *settings: str) -> str:
        lines = [f'script "{place}/check"', "interval 1", "timeout 5", *settings]
        return "\n".join([f"vrrp_script {name} {{", *lines, "}", ""])

    return configuration(
        script("weighted", "weight -30"),
        script("strict"),
        f"track_file value {{\nfile {place}/value\nweight 1\n}}\n",
        "vrrp_track_process nobody {\nprocess no-such-process\nweight 0\n}\n",
        instance("PLAIN"),
        instance("WEIGHTED", "track_script {", "weighted", "}"),
        instance("STRICT", "track_script {", "strict", "}"),
        instance("FILE", "track_file {", "value", "}"),
        instance("LINK", "track_interface {", "eth1 weight -50", "}"),
        instance("PROCESS", "track_process {", "nobody", "}"),
        instance("A"),
        instance("B", interface="eth1"),
        "vrrp_sync_group G {\ngroup {\nA\nB\n}\n}\n",
        settings=["enable_script_security", "script_user root"],
    )


@dataclass
class Stage:
    kad: Kad
    wire: Capture
    node: Node
    place: Path

    def last(self) -> dict[int, int]:
        """The priority each virtual router said last."""
        return {advert.vrid: advert.priority for advert in self.wire.adverts()}

    def kill(self) -> list[Advert]:
        """kill -9; what is sent from then on, until PLAIN has gone on for several adverts."""
        old = self.kad.vrrp_pid()
        os.kill(old, signal.SIGSTOP)
        self.wire.clear()
        os.kill(old, signal.SIGKILL)
        self.kad.new_vrrp_pid(old)
        poll(lambda: len(self.wire.adverts(vrid=20)) > 5, "that it goes on", seconds=10)
        return self.wire.adverts()


@pytest.fixture
def stage(network: Network, tmp_path: Path) -> Iterator[Stage]:
    lans = [network.bridge(), network.bridge("second")]
    node, observer = network.node("node"), network.node("observer")
    for lan, prefix in zip(lans, ("192.0.2", "198.51.100"), strict=True):
        node.attach(lan, f"{prefix}.1/24")
        observer.attach(lan, f"{prefix}.9/24")
    check = tmp_path / "check"
    # Slow to say what is wrong: after a restart nobody has asked it in time.
    check.write_text(f'#!/bin/sh\n[ ! -e "{tmp_path}/broken" ] && exit 0\nsleep 1.5\nexit 1\n')
    check.chmod(0o755)
    (tmp_path / "value").write_text("0\n")
    with Kad(node, text(tmp_path)) as kad, Capture(observer, "eth0") as wire:
        yield Stage(kad, wire, node, tmp_path)


def break_everything(stage: Stage) -> None:
    stage.place.joinpath("broken").touch()
    stage.place.joinpath("value").write_text("-40\n")
    stage.node.set_link("eth1", "down")
    poll(lambda: stage.last() == REDUCED | {22: 0, 25: 0}, lambda: f"reduced: {stage.last()}", seconds=20)


def test_the_first_advert_after_a_kill_is_reduced_or_missing(stage: Stage) -> None:
    whole = dict.fromkeys((20, 21, 22, 24, 25), 100)
    poll(lambda: stage.last() == whole | {23: 100}, lambda: f"all well: {stage.last()}", seconds=20)
    assert 27 not in stage.last(), "no process, no part in it"
    break_everything(stage)
    for number in range(2):  # a third within a minute would be answered by withdrawing everything
        said: dict[int, list[int]] = {}
        for advert in stage.kill():
            said.setdefault(advert.vrid, []).append(advert.priority)
        assert {vrid: set(priorities) for vrid, priorities in said.items()} == {
            vrid: {priority} for vrid, priority in REDUCED.items()
        }, f"kill {number + 1}"


def test_what_recovered_while_it_was_dead_is_learnt_afterwards(stage: Stage) -> None:
    poll(lambda: len(stage.last()) == 6, "all of them", seconds=20)
    break_everything(stage)
    stage.place.joinpath("broken").unlink()
    stage.place.joinpath("value").write_text("0\n")
    stage.kill()
    poll(lambda: stage.last().get(21) == stage.last().get(23) == 100, "full priority", seconds=10)
    poll(lambda: stage.last().get(22) == 100, "that STRICT takes part again", seconds=10)
    stage.node.set_link("eth1", "up")
    poll(lambda: stage.last().get(24) == stage.last().get(25) == 100, "LINK and A", seconds=10)
