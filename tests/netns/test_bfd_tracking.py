"""What BFD drives, in whole daemons: a loss, a crash and a hang; and what VRRP and the checker do."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from kad_bfd.core.packet import Diagnostic, State, encode
from tests.support.bfd_host import control
from tests.support.capture import Capture, Frame
from tests.support.control import status_of
from tests.support.daemon import Kad
from tests.support.faulty_daemon import FaultyKad
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.metronome import undisturbed
from tests.support.namespaces import Network, Node, poll, remains

pytestmark = pytest.mark.root

OURS, THEIRS = "192.0.2.1", "192.0.2.2"
VIP = "198.51.100.100"
PAUSE_MS = 30
SLACK_US = 100_000
"""For this machine's pauses. How close to the detection time it is otherwise: ``make bench``."""


def bfd(neighbor: str, source: str, interval_ms: int, *more: str, name: str = "peer") -> str:
    lines = (
        f"neighbor_ip {neighbor}",
        f"source_ip {source}",
        f"min_rx {interval_ms}",
        f"min_tx {interval_ms}",
    )
    return "\n".join([f"bfd_instance {name} {{", *lines, "multiplier 3", *more, "}", ""])


def follower(*track: str, priority: int = 200, sessions: str = "") -> str:
    """One instance on the other cable, and what it follows."""
    extra = ("track_bfd {", *track, "}") if track else ()
    instance = vrrp_instance(
        interface="eth1",
        version=3,
        priority=priority,
        advert_int=0.1,
        addresses=[f"{VIP}/24"],
        extra=extra,
    )
    return configuration(sessions, instance)


@dataclass
class Stage:
    """Two nodes with two cables: BFD runs over one, VRRP over the other."""

    ours: Node
    theirs: Node

    def cut(self) -> None:
        self.theirs.set_link("eth0", "down")

    def mend(self) -> None:
        self.theirs.set_link("eth0", "up")


@pytest.fixture
def stage(network: Network) -> Stage:
    ours, theirs = network.node("ours"), network.node("theirs")
    for name in ("eth0", "eth1"):
        network.pair(ours, theirs, name)
    for node, host in ((ours, 1), (theirs, 2)):
        node.ip("addr", "add", f"192.0.2.{host}/24", "dev", "eth0")
        node.ip("addr", "add", f"198.51.100.{host}/24", "dev", "eth1")
    return Stage(ours, theirs)


@contextmanager
def both(stage: Stage, mine: str, interval_ms: int) -> Iterator[tuple[Kad, Kad]]:
    """Ours with that configuration; theirs is the neighbour, and the other router with priority 100."""
    other = follower(priority=100, sessions=bfd(OURS, THEIRS, interval_ms))
    with Kad(stage.theirs, other) as peer, Kad(stage.ours, mine) as kad:
        yield kad, peer


def state(daemon: Kad) -> str:
    """The instance's, as the log has it."""
    entered = [line.split()[-2] for line in daemon.said().splitlines() if "(VI_1) Entering" in line]
    return entered[-1] if entered else ""


def becomes(daemon: Kad, wanted: str, *, seconds: float = 30) -> None:
    poll(lambda: state(daemon) == wanted, lambda: f"{wanted}; it said\n{daemon.said()}", seconds=seconds)


def received(daemon: Kad) -> int:
    """Packets of the session; 0 while the process does not answer."""
    report = status_of(daemon).reports.get("bfd")
    return report["sessions"][0]["counters"]["packets_received"] if report else 0


def detection_time_us(daemon: Kad) -> int:
    """Of the session; 0 while the process does not answer."""
    report = status_of(daemon).reports.get("bfd")
    return report["sessions"][0]["detection_time_us"] if report else 0


# A loss ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval_ms", [10, 50])
def test_a_lost_link_is_a_take_over_within_the_detection_time(stage: Stage, interval_ms: int) -> None:
    mine = follower("peer", sessions=bfd(THEIRS, OURS, interval_ms))

    def attempt() -> None:
        stage.mend()
        with (
            both(stage, mine, interval_ms) as (kad, peer),
            Capture(stage.ours, "eth0") as wire,
            Capture(stage.theirs, "eth1") as adverts,
        ):
            becomes(kad, "MASTER")
            remains(lambda: state(kad) == "MASTER", "MASTER", seconds=0.3)
            adverts.clear()
            wire.clear()
            poll(lambda: len(wire.drain()) > 6, "packets")
            stage.cut()
            left = poll(lambda: next((a for a in adverts.adverts() if a.priority == 0), None), "priority 0")
            last_us = max(f.time_us for f in wire.drain() if not f.outgoing and f.data[23:24] == b"\x11")
            detection_us = 3 * interval_ms * 1000
            assert detection_us <= left.time_us - last_us < detection_us + SLACK_US, kad.said()
            becomes(peer, "MASTER")
            first = poll(
                lambda: next((a for a in adverts.adverts() if a.outgoing), None), "the other's advert"
            )
            assert first.time_us > left.time_us
            poll(lambda: stage.theirs.holds(VIP) and not stage.ours.holds(VIP), "the address moved")
            assert state(kad) == "FAULT"
            stage.mend()
            becomes(kad, "MASTER")

    undisturbed(attempt, PAUSE_MS)


def test_fault_until_the_session_is_up(stage: Stage) -> None:
    stage.cut()
    with both(stage, follower("peer", sessions=bfd(THEIRS, OURS, 50)), 50) as (kad, peer):
        becomes(kad, "FAULT")
        becomes(peer, "MASTER")
        stage.mend()
        becomes(kad, "MASTER")
        becomes(peer, "BACKUP")


def priority(daemon: Kad) -> int:
    return status_of(daemon).instances[0].effective_priority


@pytest.mark.parametrize(
    ("session_weight", "line", "up", "down"),
    [
        ("weight 20", "peer", 220, 200),
        ("weight -20", "peer", 200, 180),
        ("weight 20 reverse", "peer", 180, 200),
        ("", "peer weight -30", 200, 170),
        ("weight 20", "peer weight -30 reverse", 200, 230),
    ],
)
def test_weights(stage: Stage, session_weight: str, line: str, up: int, down: int) -> None:
    session = bfd(THEIRS, OURS, 100, *([session_weight] if session_weight else ()))
    with both(stage, follower(line, sessions=session), 100) as (kad, _):
        kad.wait_for("(peer) Entering Up state")
        poll(lambda: priority(kad) == up, f"{up} while up", seconds=10)
        stage.cut()
        poll(lambda: priority(kad) == down, f"{down} while down")
        assert state(kad) != "FAULT"


def test_a_sync_group_follows(stage: Stage) -> None:
    group = "vrrp_sync_group G {\ngroup {\nVI_1\n}\ntrack_bfd {\npeer\n}\n}\n"
    mine = follower(sessions=bfd(THEIRS, OURS, 50)) + group
    with both(stage, mine, 50) as (kad, peer):
        becomes(kad, "MASTER")
        stage.cut()
        becomes(kad, "FAULT")
        becomes(peer, "MASTER")
        stage.mend()
        becomes(kad, "MASTER")


# AdminDown -------------------------------------------------------------------------------------------------


def followed(priority: int, sessions: str, *track: str) -> str:
    """An instance and a real server that follow the session."""
    return follower(*track, priority=priority, sessions=sessions) + SERVICE


def has_lost(kad: Kad, peer: Kad) -> None:
    """Instance and server have gone, and the other router has taken over."""
    becomes(kad, "FAULT")
    poll(lambda: not is_alive(kad), "the server down")
    becomes(peer, "MASTER")


@pytest.mark.parametrize("rest", ["another session stays", "no session is left"])
def test_a_session_that_the_neighbours_reload_removes_is_a_loss(stage: Stage, rest: str) -> None:
    """kad says AdminDown, at once and three times; who hears it does not wait for the detection time."""
    patient = {"interval_ms": 500}
    mine = followed(200, bfd(THEIRS, OURS, **patient), "peer")
    with both(stage, mine, **patient) as (kad, peer), Capture(stage.ours, "eth0") as wire:
        becomes(kad, "MASTER")
        poll(lambda: is_alive(kad), "the server up")
        wire.clear()
        left = bfd("192.0.2.77", THEIRS, 500, name="other") if rest == "another session stays" else ""
        peer.configure(follower(priority=100, sessions=left))
        assert peer.kadctl("reload").returncode == 0
        has_lost(kad, peer)
        assert "(peer) the neighbour is administratively down" in kad.said()
        poll(lambda: len(farewells(wire)) >= 3, lambda: f"three farewells: {farewells(wire)}")
        assert farewells(wire) == [(State.ADMIN_DOWN, Diagnostic.ADMINISTRATIVELY_DOWN)] * 3
        peer.configure(follower(priority=100, sessions=bfd(OURS, THEIRS, **patient)))
        assert peer.kadctl("reload").returncode == 0
        becomes(kad, "MASTER")
        poll(lambda: is_alive(kad), "the server up again")


def farewells(wire: Capture) -> list[tuple[int, int]]:
    """State and diagnostic of what the neighbour said that was not Up."""
    heard = [f.data for f in wire.drain() if is_bfd(f) and not f.outgoing]
    said = [(data[43] >> 6, data[42] & 0x1F) for data in heard]
    return [each for each in said if each[0] != State.UP]


def is_bfd(frame: Frame) -> bool:
    return frame.ethertype == 0x0800 and frame.data[23] == 17 and frame.data[36:38] == b"\x0e\xc8"


def test_one_admin_down_packet_is_a_loss(stage: Stage) -> None:
    """Made by hand, while the neighbour says nothing: nothing but it can be the reason."""
    patient = {"interval_ms": 1000}
    mine = followed(200, bfd(THEIRS, OURS, **patient), "peer")
    with both(stage, mine, **patient) as (kad, peer):
        becomes(kad, "MASTER")
        poll(lambda: is_alive(kad), "the server up")
        session = status_of(kad).reports["bfd"]["sessions"][0]
        packet = control(
            State.ADMIN_DOWN,
            my_discriminator=session["remote_discriminator"],
            your_discriminator=session["local_discriminator"],
            diagnostic=Diagnostic.ADMINISTRATIVELY_DOWN,
        )
        os.kill(peer._pid_of("bfd"), signal.SIGSTOP)
        with stage.theirs.entered():
            hand = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with hand:
            hand.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
            hand.sendto(encode(packet), (OURS, 3784))
        has_lost(kad, peer)
        report = status_of(kad).reports["bfd"]["sessions"][0]
        assert report["counters"]["detections"] == 0
        assert "(peer) the neighbour is administratively down" in kad.said()


# A reload --------------------------------------------------------------------------------------------------


def test_a_reload_follows_and_no_longer_follows_without_a_failover(stage: Stage) -> None:
    session = bfd(THEIRS, OURS, 100)
    with both(stage, follower(sessions=session), 100) as (kad, _):
        becomes(kad, "MASTER")
        kad.wait_for("(peer) Entering Up state")
        for text in (
            follower("peer", sessions=session),
            follower("peer", sessions=session + bfd("192.0.2.77", OURS, 100, name="other")),
            follower("peer weight -20", sessions=session),
            follower("peer", sessions=session),
        ):
            kad.configure(text)
            assert kad.kadctl("reload").returncode == 0
        assert kad.said().count("(VI_1) Entering FAULT") == 0, kad.said()
        stage.cut()
        becomes(kad, "FAULT")
        kad.configure(follower(sessions=session))
        assert kad.kadctl("reload").returncode == 0
        becomes(kad, "MASTER")
        kad.configure(follower("peer", sessions=session))
        assert kad.kadctl("reload").returncode == 0
        becomes(kad, "FAULT")


# The BFD process -------------------------------------------------------------------------------------------


def test_a_bfd_process_reborn_in_time_is_nothing_to_vrrp(stage: Stage) -> None:
    mine = follower("peer", sessions=bfd(THEIRS, OURS, 50))

    def attempt() -> None:
        with both(stage, mine, 50) as (kad, peer):
            becomes(kad, "MASTER")
            faults = kad.count("(VI_1) Entering FAULT")
            for lives in (1, 2):
                os.kill(kad._pid_of("bfd"), signal.SIGKILL)
                kad.wait_for("(peer) resumed in UP", times=lives)
                poll(lambda: received(kad) > 5, "packets")
            assert kad.count("(VI_1) Entering FAULT") == faults, kad.said()
            assert (peer.count("(peer) Entering Down"), state(kad)) == (0, "MASTER")
            # And it still drives: nothing is believed out of habit.
            stage.cut()
            becomes(kad, "FAULT")
        stage.mend()

    undisturbed(attempt, PAUSE_MS)


def test_a_bfd_process_killed_on_the_eve_of_a_loss_leaves_vrrp_all_its_processors(stage: Stage) -> None:
    """It forbids vrrp one for as long as it takes to wake it, and cannot allow it again."""
    usual = os.sched_getaffinity(0)
    if len(usual) < 2:
        pytest.skip("there is one processor only")
    patient = {"interval_ms": 300}
    other = follower(priority=100, sessions=bfd(OURS, THEIRS, **patient))
    mine = follower("peer", sessions=bfd(THEIRS, OURS, **patient))
    with Kad(stage.theirs, other), FaultyKad(stage.ours, mine) as kad:
        becomes(kad, "MASTER")
        remains(lambda: state(kad) == "MASTER", "MASTER", seconds=0.3)
        # Until the intervals are agreed upon there is news of them, which is told without an eve.
        poll(lambda: detection_time_us(kad) == 900_000, "the intervals of both")
        vrrp = kad.role("vrrp")
        assert os.sched_getaffinity(vrrp) == usual
        kad.plant("near", "pause")
        stage.cut()
        kad.met("near")
        assert len(os.sched_getaffinity(vrrp)) == len(usual) - 1, "it was killed elsewhere"
        os.kill(kad.role("bfd"), signal.SIGKILL)
        poll(lambda: os.sched_getaffinity(vrrp) == usual, "all its processors")
        assert kad.role("vrrp") == vrrp
        becomes(kad, "FAULT")


def test_a_hung_bfd_process_is_a_loss_within_the_detection_time(stage: Stage) -> None:
    mine = follower("peer", sessions=bfd(THEIRS, OURS, 50))

    def attempt() -> None:
        with both(stage, mine, 50) as (kad, peer), Capture(stage.theirs, "eth1") as adverts:
            becomes(kad, "MASTER")
            remains(lambda: state(kad) == "MASTER", "MASTER", seconds=0.3)
            adverts.clear()
            stopped_us = realtime_us()
            os.kill(kad._pid_of("bfd"), signal.SIGSTOP)
            left = poll(lambda: next((a for a in adverts.adverts() if a.priority == 0), None), "priority 0")
            assert left.time_us - stopped_us < 150_000 + SLACK_US
            becomes(peer, "MASTER")
            # The supervisor has it replaced, and what the successor says counts.
            becomes(kad, "MASTER", seconds=20)

    undisturbed(attempt, PAUSE_MS)


def realtime_us() -> int:
    return time.time_ns() // 1000


def test_a_vrrp_process_reborn_while_nobody_tells_it_anything_does_not_believe_its_journal(
    stage: Stage,
) -> None:
    with both(stage, follower("peer", sessions=bfd(THEIRS, OURS, 100)), 100) as (kad, peer):
        becomes(kad, "MASTER")
        bfd_pid, vrrp_pid = kad._pid_of("bfd"), kad.vrrp_pid()
        os.kill(bfd_pid, signal.SIGSTOP)
        os.kill(vrrp_pid, signal.SIGKILL)
        becomes(kad, "FAULT", seconds=3)
        becomes(peer, "MASTER")
        becomes(kad, "MASTER", seconds=20)


# The checker -----------------------------------------------------------------------------------------------


SERVER = "real_server 192.0.2.2 80 {\nBFD_CHECK {\nname peer\n}\n}"
SERVICE = f"virtual_server 198.51.100.200 80 {{\nlvs_sched rr\nprotocol TCP\n{SERVER}\n}}\n"


def is_alive(daemon: Kad) -> bool:
    services = status_of(daemon).virtual_servers
    return bool(services) and services[0].real_servers[0].alive


def test_bfd_check_waits_a_while_for_a_session_that_was_never_up(stage: Stage) -> None:
    stage.cut()
    with both(stage, bfd(THEIRS, OURS, 50) + SERVICE, 50) as (kad, _):
        kad.wait_for("bfd: STARTING → RUNNING")
        poll(lambda: is_alive(kad), "the server held for up")
        remains(lambda: is_alive(kad), "up", seconds=1, every=0.1)
        poll(lambda: not is_alive(kad), "the server down", seconds=15)
        stage.mend()
        poll(lambda: is_alive(kad), "the server up", seconds=10)


NO_CHECK = SERVICE.replace("BFD_CHECK {\nname peer\n}\n", "")


@pytest.mark.parametrize("past", ["the first life", "a crash", "no services"])
def test_bfd_check_waits_a_while_for_a_session_that_a_reload_adds(stage: Stage, past: str) -> None:
    """In any life of the checker process."""
    with both(stage, NO_CHECK, 50) as (kad, _):
        kad.wait_for("check: STARTING → RUNNING")
        poll(lambda: is_alive(kad), "the server")
        if past == "a crash":
            old = kad._pid_of("checkers")
            os.kill(old, signal.SIGKILL)
            poll(lambda: kad._pid_of("checkers") != old and is_alive(kad), "the next life")
        elif past == "no services":
            kad.configure(follower())
            assert kad.kadctl("reload").returncode == 0
            poll(lambda: not status_of(kad).virtual_servers, "no services")
            kad.configure(NO_CHECK)
            assert kad.kadctl("reload").returncode == 0
        stage.cut()
        kad.configure(bfd(THEIRS, OURS, 50) + SERVICE)
        assert kad.kadctl("reload").returncode == 0
        remains(lambda: is_alive(kad), lambda: f"up\n{kad.said()}", seconds=1.5, every=0.1)
        stage.mend()
        kad.wait_for("(peer) Entering Up state")
        assert kad.count("is DOWN") == 0, kad.said()
        remains(lambda: is_alive(kad), "up", seconds=0.5, every=0.1)
        stage.cut()
        poll(lambda: not is_alive(kad), "the server down")


def test_a_checker_process_reborn_does_not_wait_for_what_the_former_life_followed(stage: Stage) -> None:
    """Its journal says that the server is up."""
    with both(stage, bfd(THEIRS, OURS, 50) + SERVICE, 50) as (kad, _):
        kad.wait_for("(peer) Entering Up state")
        poll(lambda: is_alive(kad), "the server up")
        checker = kad._pid_of("checkers")
        os.kill(checker, signal.SIGSTOP)
        stage.cut()
        kad.wait_for("(peer) Entering Down state")
        os.kill(checker, signal.SIGKILL)
        kad.wait_for("is DOWN", seconds=3)
        assert not is_alive(kad)


def test_bfd_check_follows_its_session(stage: Stage) -> None:
    mine = follower(sessions=bfd(THEIRS, OURS, 50)) + SERVICE

    with both(stage, mine, 50) as (kad, _):
        kad.wait_for("(peer) Entering Up state")
        poll(lambda: is_alive(kad), "the server up")
        stage.cut()
        poll(lambda: not is_alive(kad), "the server down")
        stage.mend()
        poll(lambda: is_alive(kad), "the server up again")
        losses = kad.count("is DOWN")
        os.kill(kad._pid_of("bfd"), signal.SIGSTOP)
        kad.wait_for("is DOWN", times=losses + 1, seconds=3)
        poll(lambda: is_alive(kad), "the server up, by the successor's word", seconds=20)
        # A check that a reload brings in is told at once of a session long known to others.
        kad.configure(mine.replace("name peer", "name peer\nalpha"))
        assert kad.kadctl("reload").returncode == 0
        poll(lambda: is_alive(kad), "the server up after the reload")
