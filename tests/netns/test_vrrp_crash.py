"""kill -9 at every boundary between two actions of becoming and of leaving MASTER, and of an orderly stop.

Whatever the moment, the next life brings the kernel in line with the state, announces the addresses, and
every notification has been carried out at least once, in order. After a stop the next life is one that
withdraws what is left.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from kad.config.model.script import ScriptCommand
from kad.config.model.vrrp import NotifyScripts, VrrpInstance
from kad_vrrp.core.actions import State
from tests.support.capture import Advert, Capture, decode_advert
from tests.support.namespaces import Bridge, Network, Node, poll
from tests.support.vrrp_node import VrrpNode, instance

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.pairs]

VIPS = ("192.0.2.100", "192.0.2.101", "2001:db8::100")
BECOMING = "Remember StateChanged SendAdvert ChangeAddresses Announce Notify Remember SendAdvert SendAdvert"
"""What a process does when it becomes MASTER, from its record of it into the routine."""
OBEYING = "Remember StateChanged ChangeAddresses Notify Remember Remember"
"""When it becomes BACKUP, to the record that nothing is owed."""
FAILING = "Remember StateChanged SendAdvert ChangeAddresses Notify Remember Remember"
"""And when it becomes FAULT, with a farewell."""
STOPPING = "Remember StateChanged SendAdvert ChangeAddresses Notify Remember Remember Forget Stopped"
"""When it is told to stop."""
HIGH, LOW = 150, 100


def boundaries(actions: str) -> list[pytest.param]:
    """A death before each of these actions: its number from 1, and what was done before it."""
    done = actions.split()
    return [
        pytest.param(number, done[: number - 1], id=f"{number}-{action}")
        for number, action in enumerate(done, 1)
    ]


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


def dies(kad: VrrpNode, done: list[str]) -> None:
    """It is killed, and has done that and no more."""
    assert kad.wait() == -signal.SIGKILL, kad.log()
    assert kad.trail() == done


@pytest.mark.parametrize(("number", "done"), boundaries(BECOMING))
def test_becoming_master(
    nodes: tuple[Node, Node, Bridge], tmp_path: Path, number: int, done: list[str]
) -> None:
    one, two, _ = nodes
    with VrrpNode(one, made(tmp_path)) as kad, Capture(two, "eth0") as wire:
        kad.start(dies_at=number, becoming=State.MASTER)
        dies(kad, done)
        wire.drain()
        known = len(wire.frames)
        kad.start()
        poll(kad.ready, "readiness")

        def adverts() -> list[Advert]:
            return [advert for advert in map(decode_advert, wire.drain()[known:]) if advert is not None]

        # What the first life left is not taken for what the second one does.
        wire.wait_for(lambda: len(adverts()) > 2, "adverts of the next life")
        assert {advert.priority for advert in adverts()} == {HIGH}
        poll(lambda: all(map(one.holds, VIPS)), f"every address; it said\n{kad.log()}")
        for vip in VIPS:
            wire.wait_for(lambda vip=vip: wire.announcements(vip), f"an announcement of {vip}")
        assert kad.stop() == 0
        assert not any(map(one.holds, VIPS))
    assert in_order(["BACKUP", "MASTER", "STOP"], notified(tmp_path)), notified(tmp_path)


def to_be_left(kad: VrrpNode, directory: Path, number: int, state: State) -> None:
    """A MASTER whose notifications have ended, and who will die when it becomes ``state``."""
    kad.start(dies_at=number, becoming=state)
    kad.becomes("MASTER")
    poll(lambda: "MASTER" in notified(directory), "the first notifications")
    poll(lambda: all(map(kad.node.holds, VIPS)), "every address")


@pytest.mark.parametrize(("number", "done"), boundaries(OBEYING))
def test_leaving_master_to_a_better_one(
    nodes: tuple[Node, Node, Bridge], tmp_path: Path, number: int, done: list[str]
) -> None:
    one, two, _ = nodes
    (tmp_path / "other").mkdir()
    with VrrpNode(one, made(tmp_path, LOW)) as kad, VrrpNode(two, made(tmp_path / "other", HIGH)) as other:
        to_be_left(kad, tmp_path, number, State.BACKUP)
        other.start()
        dies(kad, done)
        kad.start()
        other.becomes("MASTER")
        poll(kad.ready, "readiness")
        poll(lambda: not any(map(one.holds, VIPS)), f"no address left; it said\n{kad.log()}")
        poll(lambda: all(map(two.holds, VIPS)), "every address there")
        assert other.states()[-1] == "MASTER"
        # Two scripts at once may write in any order.
        poll(lambda: in_order(["BACKUP", "MASTER", "BACKUP"], notified(tmp_path)), "the notification")
        assert kad.stop() == 0
    assert in_order(["BACKUP", "MASTER", "BACKUP", "STOP"], notified(tmp_path)), notified(tmp_path)


@pytest.mark.parametrize(("number", "done"), boundaries(FAILING))
def test_leaving_master_for_a_lost_link(
    nodes: tuple[Node, Node, Bridge], tmp_path: Path, number: int, done: list[str]
) -> None:
    one, _, lan = nodes
    with VrrpNode(one, made(tmp_path)) as kad:
        to_be_left(kad, tmp_path, number, State.FAULT)
        lan.unplug(one, "eth0")
        dies(kad, done)
        kad.start()
        poll(kad.ready, "readiness")
        poll(lambda: not any(map(one.holds, VIPS)), f"no address left; it said\n{kad.log()}")
        poll(lambda: in_order(["BACKUP", "MASTER", "FAULT"], notified(tmp_path)), "the notification")
        assert kad.stop() == 0
    assert in_order(["BACKUP", "MASTER", "FAULT", "STOP"], notified(tmp_path)), notified(tmp_path)


@pytest.mark.parametrize(("number", "done"), boundaries(STOPPING))
def test_an_orderly_stop(
    nodes: tuple[Node, Node, Bridge], tmp_path: Path, number: int, done: list[str]
) -> None:
    one, two, _ = nodes
    with VrrpNode(one, made(tmp_path)) as kad, Capture(two, "eth0") as wire:
        to_be_left(kad, tmp_path, number, State.INIT)
        wire.wait_for(lambda: wire.adverts(), "adverts")
        kad.signal(signal.SIGTERM)
        dies(kad, done)
        wire.drain()
        said = [advert.priority for advert in wire.adverts()]
        assert 0 not in said[:-1], "its last word, if anything"
        assert (said[-1] == 0) is ("SendAdvert" in done)
        kad.start(withdraw=True)
        assert kad.wait() == 0, kad.log()
        assert not any(map(one.holds, VIPS)), kad.log()
        wire.drain()
        assert {advert.priority for advert in wire.adverts()[len(said) :]} <= {0}
        if not done:
            assert wire.adverts()[-1].priority == 0, "its record says MASTER"
    # Who withdraws starts no scripts, and nobody comes after it. From the record that it was carried out on,
    # the notification cannot be missing.
    told = notified(tmp_path)
    assert in_order(["BACKUP", "MASTER", "STOP"] if "STOP" in told else ["BACKUP", "MASTER"], told), told
    assert "STOP" in told or done.count("Remember") < 2


def test_a_name_of_any_length_goes_on(nodes: tuple[Node, Node, Bridge], tmp_path: Path) -> None:
    one, _, _ = nodes
    name = "é" * 150
    with VrrpNode(one, replace(made(tmp_path), name=name)) as kad:
        kad.start()
        kad.becomes("MASTER", name)
        kad.signal(signal.SIGKILL)
        assert kad.wait() == -signal.SIGKILL
        kad.start()
        poll(lambda: "going on as MASTER" in kad.log(), "the next life as MASTER")
        assert kad.stop() == 0
