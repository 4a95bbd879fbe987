"""Weights turned round, and those of a group's trackers: keepalived's priorities, step by step."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.capture import Capture
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, needs_namespaces, poll
from tests.support.threads import at_once

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

BASE = 100
CASES = {
    # What it is called: words of the instance, words of its group.
    "file": (("track_file {", "value weight 2", "}"), ()),
    "file reversed": (("track_file {", "value weight 2 reverse", "}"), ()),
    "script": (("track_script {", "check weight 5", "}"), ()),
    "script reversed": (("track_script {", "check weight 5 reverse", "}"), ()),
    "script below": (("track_script {", "check weight -6", "}"), ()),
    "script below reversed": (("track_script {", "check weight -6 reverse", "}"), ()),
    "link": (("track_interface {", "eth1 weight 7", "}"), ()),
    "link reversed": (("track_interface {", "eth1 weight 7 reverse", "}"), ()),
    "link below reversed": (("track_interface {", "eth1 weight -8 reverse", "}"), ()),
    "of a group": ((), ("track_script {", "check weight -9", "}", "track_interface {", "eth1 weight 4", "}")),
    "of both": (
        ("track_script {", "check weight -6", "}"),
        ("track_file {", "value weight 1", "}", "sync_group_tracking_weight"),
    ),
}
STEPS = ("start", "value", "script", "link", "all again")


def text(place: Path) -> str:
    blocks = [
        f"track_file value {{\nfile {place}/value\nweight 1\n}}\n",
        f'vrrp_script check {{\nscript "{place}/check"\ninterval 1\nfall 1\nrise 1\n}}\n',
    ]
    for number, (own, of_group) in enumerate(CASES.values(), 1):
        blocks.append(
            vrrp_instance(
                f"VI_{number}",
                vrid=number,
                version=3,
                advert_int=0.2,
                priority=BASE,
                addresses=[f"192.0.2.{100 + number}/24"],
                extra=own,
            )
        )
        if of_group:
            words = "\n".join(of_group)
            blocks.append(f"vrrp_sync_group G_{number} {{\ngroup {{\nVI_{number}\n}}\n{words}\n}}\n")
    return configuration(*blocks, settings=["enable_script_security", "script_user root"])


def live(kind: type[Daemon], place: Path) -> list[list[int]]:
    """What each advertised after each step, once it no longer changed."""
    (place / "value").write_text("3\n")
    check = place / "check"
    check.write_text(f"#!/bin/sh\ntest -e {place}/well\n")
    check.chmod(0o755)
    (place / "well").touch()
    with Network("weights") as network:
        lan, other = network.bridge(), network.bridge("other")
        node, observer = network.node("node"), network.node("observer")
        node.attach(lan, "192.0.2.1/24", name="eth0")
        node.attach(other, "198.51.100.1/24", name="eth1")
        observer.attach(lan, "192.0.2.9/24", name="eth0")
        with Capture(observer, "eth0") as wire, kind(node, text(place)) as daemon:
            daemon.wait_for("Entering MASTER STATE", times=len(CASES))
            found = [settled(wire)]
            write(place / "value", "10\n")
            found.append(settled(wire))
            (place / "well").unlink()
            found.append(settled(wire))
            other.unplug(node, "eth1")
            found.append(settled(wire))
            write(place / "value", "3\n")
            (place / "well").touch()
            other.replug(node, "eth1")
            found.append(settled(wire))
            assert daemon.count("Entering FAULT STATE") == 0
    return found


def write(file: Path, content: str) -> None:
    fresh = file.with_name("fresh")
    fresh.write_text(content)
    fresh.rename(file)


def settled(wire: Capture) -> list[int]:
    """Two seconds without a change: the script runs every second."""
    begun, before = time.monotonic(), [0]

    def last() -> list[int]:
        adverts = wire.adverts()
        return [next(a.priority for a in reversed(adverts) if a.vrid == n) for n in range(1, len(CASES) + 1)]

    def rests() -> bool:
        nonlocal begun, before
        now = last()
        if now != before:
            begun, before = time.monotonic(), now
        return time.monotonic() - begun > 2.5

    poll(rests, "priorities that stay", seconds=30, every=0.1)
    return before


def lived(kind: type[Daemon]) -> list[list[int]]:
    with tempfile.TemporaryDirectory(prefix="kt-weights-") as directory:
        Path(directory).chmod(0o755)
        return live(kind, Path(directory))


@pytest.fixture(scope="module")
def lives() -> Iterator[dict[str, list[list[int]]]]:
    needs_namespaces()
    needs_keepalived()
    theirs, ours = at_once(partial(lived, Keepalived), partial(lived, Kad))
    yield {"Keepalived": theirs, "Kad": ours}


@pytest.mark.parametrize("name", CASES)
def test_the_same_priorities_after_each_step(lives: dict[str, list[list[int]]], name: str) -> None:
    number = list(CASES).index(name)
    ours, theirs = (
        dict(zip(STEPS, (step[number] for step in lives[kind]), strict=True))
        for kind in ("Kad", "Keepalived")
    )
    assert ours == theirs
    assert len(set(ours.values())) > 1, "nothing was weighed"
    assert ours["start"] == ours["all again"]
