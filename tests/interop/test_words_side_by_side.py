"""Words that few configurations have, one by one: what each does, beside keepalived where that knows it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.capture import Advert, Capture
from tests.support.control import status_of
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, Node, poll, remains

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

BOTH = pytest.mark.parametrize("kind", [Keepalived, Kad])
VIP = "192.0.2.100"


@dataclass
class Lan:
    one: Node
    two: Node
    wire: Capture

    def adverts(self, source: str) -> list[Advert]:
        return self.wire.adverts(vrid=51, source=source)


@pytest.fixture
def lan(network: Network) -> Iterator[Lan]:
    needs_keepalived()
    bridge = network.bridge()
    nodes = {label: network.node(label) for label in ("one", "two", "observer")}
    for number, node in enumerate(nodes.values(), 1):
        node.attach(bridge, f"192.0.2.{number}/24", f"fe80::{number}/64", name="eth0")
    with Capture(nodes["observer"], "eth0") as wire:
        yield Lan(nodes["one"], nodes["two"], wire)


def block(*extra: str, **fields: object) -> str:
    wanted: dict[str, object] = {"version": 3, "advert_int": 0.2, "addresses": [f"{VIP}/24"]}
    return vrrp_instance(**(wanted | fields), extra=extra)  # type: ignore[arg-type]


def entered(daemon: Daemon) -> list[str]:
    """The states it says it enters, in order."""
    lines = [line for line in daemon.said().splitlines() if "(VI_1) Entering " in line]
    return [line.split("Entering ")[1].split()[0] for line in lines]


def becomes(daemon: Daemon, state: str, times: int = 1) -> None:
    poll(
        lambda: entered(daemon).count(state) >= times and entered(daemon)[-1] == state,
        lambda: f"{state}: {daemon.said()}",
        seconds=20,
    )


# Sources ------------------------------------------------------------------------------------------------


@BOTH
def test_track_src_ip_is_a_fault_at_the_start_of_one_with_peers(lan: Lan, kind: type[Daemon]) -> None:
    text = configuration(block("track_src_ip", source="192.0.2.7", peers=["192.0.2.2"]))
    with kind(lan.one, text) as daemon:
        becomes(daemon, "FAULT")
        assert entered(daemon) == ["FAULT"]


@pytest.mark.parametrize("present", [True, False])
def test_track_src_ip_is_a_fault_whenever_the_address_is_missing(lan: Lan, present: bool) -> None:
    """keepalived 2.2.7 does not mind where the adverts go to a group, nor what is deleted later."""
    if present:
        lan.one.ip("addr", "add", "192.0.2.7/24", "dev", "eth0")
    with Kad(lan.one, configuration(block("mcast_src_ip 192.0.2.7", "track_src_ip"))) as kad:
        if present:
            becomes(kad, "MASTER")
            poll(lambda: lan.adverts("192.0.2.7"), "adverts from there")
            lan.one.ip("addr", "del", "192.0.2.7/24", "dev", "eth0")
        becomes(kad, "FAULT")
        poll(lambda: not lan.one.holds(VIP), "the address to go")
        lan.one.ip("addr", "add", "192.0.2.7/24", "dev", "eth0")
        becomes(kad, "MASTER", times=1 + present)
        assert entered(kad) == [*(["BACKUP", "MASTER"] if present else []), "FAULT", "BACKUP", "MASTER"]


@BOTH
def test_without_it_a_source_may_be_missing(lan: Lan, kind: type[Daemon]) -> None:
    with kind(lan.one, configuration(block("mcast_src_ip 192.0.2.7"))) as daemon:
        becomes(daemon, "MASTER")
        poll(lambda: lan.adverts("192.0.2.7"), "adverts from there all the same")


# Checksums ----------------------------------------------------------------------------------------------


def unicast(node: int, *extra: str, priority: int = 100) -> str:
    return configuration(
        block(*extra, priority=priority, source=f"192.0.2.{node}", peers=[f"192.0.2.{3 - node}"])
    )


def test_the_old_checksum_is_keepaliveds_bit_for_bit(lan: Lan) -> None:
    payloads = {}
    for word in ("", "old_unicast_checksum"):
        for kind in (Keepalived, Kad):
            with Capture(lan.two, "eth0") as wire, kind(lan.one, unicast(1, *filter(None, [word]))):
                payloads[kind, word] = poll(lambda: wire.adverts(vrid=51), "an advert")[-1].payload
    for word in ("", "old_unicast_checksum"):
        assert payloads[Kad, word] == payloads[Keepalived, word]
    assert payloads[Kad, ""] != payloads[Kad, "old_unicast_checksum"]


@pytest.mark.parametrize(("ours", "theirs"), [(Kad, Keepalived), (Keepalived, Kad)])
def test_the_old_checksum_is_recognised_and_answered_alike(
    lan: Lan, ours: type[Daemon], theirs: type[Daemon]
) -> None:
    with theirs(lan.two, unicast(2, "old_unicast_checksum", priority=150)) as old:
        becomes(old, "MASTER")
        with ours(lan.one, unicast(1)) as young:
            becomes(young, "BACKUP")
            poll(lambda: young.count("checksum to old version") == 1, young.said)
            assert old.stop() == 0
            becomes(young, "MASTER")
        with theirs(lan.two, unicast(2, "old_unicast_checksum", priority=50)) as old:
            becomes(old, "MASTER")


def test_never_is_not_to_look_for_it(lan: Lan) -> None:
    with Kad(lan.one, unicast(1, "old_unicast_checksum never")) as kad:
        becomes(kad, "MASTER")
        with Keepalived(lan.two, unicast(2, "old_unicast_checksum", priority=150)) as old:
            becomes(old, "MASTER")

            def dropped() -> bool:
                instance = status_of(kad).reports["vrrp"]["instances"][0]
                return bool(instance.get("drops", {}).get("checksum", 0) > 2)

            poll(dropped, "dropped adverts", every=0.1)
            assert entered(kad)[-1] == "MASTER"


# Words of keepalived after 2.2.7 ------------------------------------------------------------------------


@pytest.mark.parametrize("logged", [True, False])
def test_unknown_virtual_routers_are_logged_where_asked_for(lan: Lan, logged: bool) -> None:
    settings = ["log_unknown_vrids"] if logged else []
    with (
        Kad(lan.one, configuration(block(), settings=settings)) as kad,
        Keepalived(lan.two, configuration(block(vrid=77, addresses=["192.0.2.177/24"]))) as stranger,
    ):
        becomes(kad, "MASTER")
        becomes(stranger, "MASTER")
        lan.wire.clear()
        poll(lambda: len(lan.wire.adverts(vrid=77)) > 5, "the stranger to speak")
        if logged:
            kad.wait_for("VRID 77 received from 192.0.2.2")
        assert kad.count("VRID 77") == (1 if logged else 0)


@pytest.mark.parametrize("asked", [True, False])
def test_one_that_was_late_for_too_long_leaves_it_to_who_took_over(lan: Lan, asked: bool) -> None:
    """timer_expired_backup: a backup of that priority has taken over meanwhile, and is not preempted."""
    words = ["nopreempt", *(["timer_expired_backup 100"] if asked else [])]
    # Not so long that it counts as hung.
    text = configuration(block(*words, priority=150, advert_int=0.1))
    with Kad(lan.one, text) as kad:
        becomes(kad, "MASTER")
        with Keepalived(lan.two, configuration(block(advert_int=0.1))) as peer:
            becomes(peer, "BACKUP")
            sleeps_and_comes_back(lan, kad, peer, yields=asked)


def sleeps_and_comes_back(lan: Lan, kad: Kad, peer: Daemon, *, yields: bool) -> None:
    pid = kad.vrrp_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        becomes(peer, "MASTER")
        lan.wire.clear()
        poll(lambda: len(lan.adverts("192.0.2.2")) > 1, "the other's adverts")
    finally:
        os.kill(pid, signal.SIGCONT)
    if yields:
        becomes(kad, "BACKUP")
        remains(lambda: entered(peer)[-1] == "MASTER", "the other's mastery", seconds=1)
        assert entered(kad)[-1] == "BACKUP"
    else:
        becomes(peer, "BACKUP")
        assert entered(kad)[-1] == "MASTER"
    assert kad.vrrp_pid() == pid, "the same life"


SCRIPT = "#!/bin/sh\nid -G > {place}/groups.new\nmv {place}/groups.new {place}/groups\n"
ANOTHER_GROUP = 4242


@pytest.mark.parametrize("asked", [True, False])
def test_scripts_get_the_other_groups_of_their_user(lan: Lan, tmp_path: Path, asked: bool) -> None:
    place = Path("/tmp", f"kad-words-{os.getpid()}")
    place.mkdir()
    try:
        script, groups, out = place / "notify", place / "etc-group", place / "out"
        out.mkdir()
        out.chmod(0o777)
        script.write_text(SCRIPT.format(place=out))
        script.chmod(0o755)
        groups.write_text(Path("/etc/group").read_text() + f"kad-words:x:{ANOTHER_GROUP}:daemon\n")
        settings = ["enable_script_security", "script_user daemon"]
        settings += ["set_supplementary_groups"] if asked else []
        text = configuration(block(f'notify_master "{script}"'), settings=settings)
        wrapper = [
            *("unshare", "--mount", "sh", "-c"),
            f'mount --bind {groups} /etc/group && exec "$@"',
            "sh",
        ]
        with Kad(lan.one, text, wrapper=wrapper) as kad:
            becomes(kad, "MASTER")
            poll((out / "groups").exists, kad.said)
            shown = (out / "groups").read_text().split()
            assert (str(ANOTHER_GROUP) in shown) is asked
    finally:
        _remove(place)


def _remove(place: Path) -> None:
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    place.rmdir()
