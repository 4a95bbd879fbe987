"""kill -9 at every boundary between two actions of becoming and of leaving MASTER.

Whatever the moment, the next life brings the kernel in line with the state, announces the addresses, and
every notification has been carried out at least once, in order.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kad.config.model.script import ScriptCommand
from kad.config.model.vrrp import NotifyScripts, VrrpInstance
from kad_vrrp.core.actions import State
from tests.support.capture import Capture
from tests.support.namespaces import Bridge, Network, Node, poll
from tests.support.vrrp_node import VrrpNode, instance

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.alone]

VIPS = ("192.0.2.100", "192.0.2.101", "2001:db8::100")
BOUNDARIES = range(1, 12)
"""From the news of the change, over adverts, addresses, announcements and notifications, into the routine."""


@pytest.fixture
def nodes(network: Network) -> Iterator[tuple[Node, Node, Bridge]]:
    lan = network.bridge()
    one, two = network.node("one"), network.node("two")
    one.attach(lan, "192.0.2.1/24", "2001:db8::1/64")
    two.attach(lan, "192.0.2.2/24", "2001:db8::2/64")
    yield one, two, lan


def notified(directory: Path) -> list[str]:
    path = directory / "states"
    return path.read_text().split() if path.exists() else []


def made(directory: Path, priority: int = 150) -> VrrpInstance:
    script = directory / "notify.sh"
    if not script.exists():
        script.write_text(f'#!/bin/sh\necho "$3" >> {directory}/states\n')
        script.chmod(0o755)
    return instance(
        "VI_1",
        51,
        *(f"{vip}/{64 if ':' in vip else 24}" for vip in VIPS),
        version=3,
        priority=priority,
        advert_int_us=100_000,
        notify=NotifyScripts(any_state=ScriptCommand((str(script),), executable=str(script))),
    )


def in_order(wanted: list[str], seen: list[str]) -> bool:
    """Whether ``seen`` is ``wanted``, but for repetitions."""
    once = [state for number, state in enumerate(seen) if number == 0 or seen[number - 1] != state]
    return once == wanted


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_becoming_master(nodes: tuple[Node, Node, Bridge], tmp_path: Path, boundary: int) -> None:
    one, two, _ = nodes
    with VrrpNode(one, made(tmp_path)) as kad, Capture(two, "eth0") as wire:
        kad.start(dies_at=boundary, after=State.MASTER)
        # So many adverts are so many actions: by then it has died if it ever will.
        poll(lambda: kad.has_ended() or len(wire.adverts(vrid=51)) > boundary, "the death, or none")
        if kad.has_ended():
            assert kad.wait() == -signal.SIGKILL
            kad.start()
        poll(lambda: all(map(one.holds, VIPS)), f"every address; it said\n{kad.log()}")
        for vip in VIPS:
            wire.wait_for(lambda vip=vip: wire.announcements(vip), f"an announcement of {vip}")
        poll(lambda: in_order(["BACKUP", "MASTER"], notified(tmp_path)), "the notifications")
        poll(lambda: kad.ready(), "readiness")
        sent = len(wire.adverts(vrid=51))
        wire.wait_for(lambda: len(wire.adverts(vrid=51)) > sent + 2, "adverts")


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_leaving_master(nodes: tuple[Node, Node, Bridge], tmp_path: Path, boundary: int) -> None:
    one, two, _ = nodes
    (tmp_path / "other").mkdir()
    with VrrpNode(one, made(tmp_path, 100)) as kad, VrrpNode(two, made(tmp_path / "other", 150)) as other:
        kad.start()
        kad.becomes("MASTER")
        poll(lambda: "MASTER" in notified(tmp_path), "the first notifications")
        kad.signal(signal.SIGKILL)
        kad.wait()
        # Counted from the BACKUP that the better router will force on this life.
        kad.start(dies_at=boundary, after=State.BACKUP)
        poll(kad.ready, "readiness")
        other.start()
        other.becomes("MASTER")
        poll(lambda: kad.has_ended() or notified(tmp_path)[-1] == "BACKUP", "the death, or the last act")
        if kad.has_ended():
            assert kad.wait() == -signal.SIGKILL
            kad.start()
        poll(lambda: not any(map(one.holds, VIPS)), f"no address left; it said\n{kad.log()}")
        poll(lambda: all(map(two.holds, VIPS)), "every address there")
        poll(
            lambda: in_order(["BACKUP", "MASTER", "BACKUP"], notified(tmp_path)),
            f"the notifications, not {notified(tmp_path)}; it said\n{kad.log()}",
        )
