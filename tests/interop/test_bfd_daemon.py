"""The whole daemon's BFD: crashes under the supervisor, stop, and what the peers' clients do about it."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from kad_bfd.core.packet import Diagnostic, State
from tests.support.capture import Capture, Frame, decode_advert
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import needs_keepalived, vrrp_instance
from tests.support.metronome import Metronome, undisturbed
from tests.support.namespaces import Network, Node, kill_group, poll, remains
from tests.support.routers import Bird, Frr, needs

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow, pytest.mark.alone]

OURS, THEIRS = "192.0.2.1", "192.0.2.2"
KILLS = 20
KILLS_A_DAEMON = 2
"""Fewer than the restarts that come at once: a fourth within a minute waits a second."""


def bfd_instance(neighbor: str, source: str, interval_ms: int = 50) -> str:
    return (
        f"bfd_instance peer {{\nneighbor_ip {neighbor}\nsource_ip {source}\nmin_rx {interval_ms}\n"
        f"min_tx {interval_ms}\nmultiplier 3\n}}\n"
    )


@pytest.fixture
def nodes(network: Network) -> tuple[Node, Node]:
    ours, theirs = network.node("ours"), network.node("theirs")
    network.pair(ours, theirs)
    ours.ip("addr", "add", f"{OURS}/24", "dev", "eth0")
    theirs.ip("addr", "add", f"{THEIRS}/24", "dev", "eth0")
    return ours, theirs


@contextlib.contextmanager
def kad_up(node: Node) -> Iterator[Kad]:
    with Kad(node, bfd_instance(THEIRS, OURS)) as kad:
        kad.wait_for("(peer) Entering Up state")
        yield kad


def bfd_pid(kad: Kad) -> int:
    return kad._pid_of("bfd")


def test_a_crash_of_the_bfd_process_is_nothing_to_the_peer(nodes: tuple[Node, Node]) -> None:
    """kill -9 at 50 ms three times, with Debian's keepalived as the witness: it stays Up, twenty times.

    A loss while the machine itself stood still, or had no processor for us, is no answer: that blow is struck
    again, a few times at most.
    """
    needs_keepalived()
    ours, theirs = nodes
    silences: list[int] = []
    excused = 0
    with (
        Keepalived(theirs, bfd_instance(OURS, THEIRS), "-D") as peer,
        Capture(theirs, "eth0") as wire,
        Metronome() as machine,
    ):
        while len(silences) < KILLS:
            with kad_up(ours) as kad:
                poll(lambda: is_up(peer), "the peer Up", seconds=10)
                for _ in range(KILLS_A_DAEMON):
                    machine.take_worst_ms()
                    losses = peer.count("(peer) Entering Down state")
                    waited_ms = waited_for_processor_ms(kad.pid)
                    silence = crash(kad, wire)
                    lost = peer.count("(peer) Entering Down state") > losses
                    waited_ms = waited_for_processor_ms(kad.pid) - waited_ms
                    waited_ms += waited_for_processor_ms(bfd_pid(kad))
                    if lost and max(machine.take_worst_ms(), waited_ms) > PAUSE_MS and excused < EXCUSES:
                        excused += 1
                        break
                    waits = f"{waited_ms} ms of them for a processor"
                    assert not lost, f"silent for {silence} us, {waits}\n{peer.said()}\n{kad.said()}"
                    assert kad.count("(peer) Entering Down") == 0, kad.said()
                    silences.append(silence)
                kad.stop()
            poll(lambda: not is_up(peer), "the stop seen")
    in_ms = sorted(round(silence / 1000, 1) for silence in silences)
    print(f"longest silence after kill -9, ms: {in_ms}; {excused} excused")


PAUSE_MS = 30
EXCUSES = 6


def waited_for_processor_ms(pid: int) -> float:
    """How long the process was ready to run, in all its life, and others ran."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e6


def is_up(peer: Keepalived) -> bool:
    entered = [line for line in peer.said().splitlines() if "(peer) Entering" in line]
    return bool(entered) and "Entering Up" in entered[-1]


def crash(kad: Kad, wire: Capture) -> int:
    """Kill the BFD process; the longest silence on the wire until it sends in rhythm again, µs."""
    old = bfd_pid(kad)
    lives = kad.count("(peer) resumed in")
    wire.clear()
    os.kill(old, signal.SIGKILL)
    kad.wait_for("(peer) resumed in", times=lives + 1)
    poll(lambda: len(ours_on(wire)) > 8, "its packets")
    poll(lambda: bfd_pid(kad) != old, "its process id")
    times = ours_on(wire)
    return max(b - a for a, b in itertools.pairwise(times))


def ours_on(wire: Capture) -> list[int]:
    return [
        f.time_us for f in wire.drain() if f.ethertype == 0x0800 and f.data[26:30] == bytes((192, 0, 2, 1))
    ]


# kad stops: the peer's clients act at once -----------------------------------------------------------------

INTERVAL_US = 50_000
"""What its clients may take from our first packet that says Down. Without it the detection time is three."""

Moment = Callable[[list[Frame]], int | None]
"""When a client acted, going by the frames at the peer's interface."""


def acts_within_an_interval(kad: Kad, wire: Capture, acted: Moment) -> None:
    wire.clear()
    os.kill(kad.pid, signal.SIGTERM)
    moment_us = poll(lambda: acted(wire.drain()), "the peer's client to act", seconds=10)
    told_us = min(frame.time_us for frame in wire.drain() if says_path_down(frame))
    assert 0 <= moment_us - told_us <= INTERVAL_US, f"{moment_us - told_us} us"


def says_path_down(frame: Frame) -> bool:
    """Of ours: state Down, diagnostic 5."""
    data = frame.data
    is_ours = frame.ethertype == 0x0800 and data[26:30] == bytes((192, 0, 2, 1))
    if not is_ours or data[23] != socket.IPPROTO_UDP or data[36:38] != (3784).to_bytes(2, "big"):
        return False
    return (data[43] >> 6, data[42] & 0x1F) == (State.DOWN, Diagnostic.PATH_DOWN)


def farewell_of_vrrp(frames: list[Frame]) -> int | None:
    adverts = filter(None, map(decode_advert, frames))
    return next((a.time_us for a in adverts if a.outgoing and a.priority == 0), None)


def test_stop_keepalived_s_vrrp_acts(nodes: tuple[Node, Node]) -> None:
    needs_keepalived()
    ours, theirs = nodes
    text = bfd_instance(OURS, THEIRS) + vrrp_instance(extra=("track_bfd {", "peer", "}"), priority=200)

    def attempt() -> None:
        with (
            Keepalived(theirs, text, "-D") as peer,
            Capture(theirs, "eth0") as wire,
            kad_up(ours) as kad,
        ):
            peer.wait_for("(VI_1) Entering MASTER STATE", seconds=20)
            acts_within_an_interval(kad, wire, farewell_of_vrrp)
            assert "(VI_1) Entering FAULT STATE" in peer.said()
            assert "Remote diagnostic - Path Down" in peer.said()

    undisturbed(attempt, PAUSE_MS)


def test_stop_birds_static_route_goes(nodes: tuple[Node, Node]) -> None:
    needs("bird")
    ours, theirs = nodes
    text = f"""
router id {THEIRS};
protocol device {{}}
protocol kernel {{ ipv4 {{ export all; }}; }}
protocol bfd {{ interface "eth0" {{ min rx interval 50 ms; min tx interval 50 ms; multiplier 3; }}; }}
protocol static {{ ipv4; route 10.99.0.0/24 via {OURS} bfd; }}
"""

    def attempt() -> None:
        with Bird(theirs, text), Capture(theirs, "eth0") as wire, kad_up(ours) as kad, routes(theirs) as told:
            poll(lambda: "10.99.0.0/24" in theirs.ip("route"), "the route")
            acts_within_an_interval(kad, wire, lambda _: removal_of_the_route(told.read_text()))

    undisturbed(attempt, PAUSE_MS)


@contextlib.contextmanager
def routes(node: Node) -> Iterator[Path]:
    """What the kernel says about routes, a line each, with the time."""
    with tempfile.NamedTemporaryFile("w") as file:
        monitor = node.start(["ip", "-ts", "monitor", "route"], stdout=file)
        try:
            yield Path(file.name)
        finally:
            kill_group(monitor)


def removal_of_the_route(said: str) -> int | None:
    found = re.search(r"\[(\S+)\] Deleted 10\.99\.0\.0/24", said)
    return round(datetime.fromisoformat(found[1]).timestamp() * 1e6) if found else None


BGP_NOTIFICATION = 3


def notification_of_bgp(frames: list[Frame]) -> int | None:
    marker = bytes([0xFF] * 16)
    for frame in frames:
        at = frame.data.find(marker, 54)
        if frame.outgoing and at >= 0 and frame.data[at + 18 : at + 19] == bytes((BGP_NOTIFICATION,)):
            return frame.time_us
    return None


def test_stop_frr_s_bgp_acts(nodes: tuple[Node, Node]) -> None:
    """A BGP speaker of its own runs beside kad, and goes on: only BFD says that the path is down."""
    needs("bgpd")
    ours, theirs = nodes

    def attempt() -> None:
        with (
            Capture(theirs, "eth0") as wire,
            Frr(theirs, "bgpd") as far,
            Frr(ours, "bgpd") as near,
            kad_after(ours, far, near) as kad,
        ):
            poll(lambda: "Established" in far.ask(f"show bgp neighbors {OURS}"), "BGP", seconds=30)
            acts_within_an_interval(kad, wire, notification_of_bgp)
            assert "Cease/BFD Down" in far.ask(f"show bgp neighbors {OURS}")

    undisturbed(attempt, PAUSE_MS)


@contextlib.contextmanager
def kad_after(node: Node, far: Frr, near: Frr) -> Iterator[Kad]:
    """kad, once both speak BGP; the near one's bfdd leaves the port to it."""
    near.kill("bfdd")
    common = ("no bgp ebgp-requires-policy", "timers bgp 10 30")
    near.configure("router bgp 65001", *common, f"neighbor {THEIRS} remote-as 65002")
    far.configure(
        "router bgp 65002", *common, f"neighbor {OURS} remote-as 65001", f"neighbor {OURS} bfd 3 50 50"
    )
    with Kad(node, bfd_instance(THEIRS, OURS)) as kad:
        kad.wait_for("(peer) Entering Up state", seconds=30)
        yield kad


# The daemon's own surface ----------------------------------------------------------------------------------


def test_status_shows_the_sessions(nodes: tuple[Node, Node]) -> None:
    needs_keepalived()
    ours, theirs = nodes
    with Keepalived(theirs, bfd_instance(OURS, THEIRS)), kad_up(ours) as kad:
        said = kad.kadctl("status", "--json").stdout
        assert '"neighbor": "192.0.2.2"' in said
        assert '"detection_time_us"' in said


def test_a_reload_of_other_things_is_not_felt(nodes: tuple[Node, Node]) -> None:
    needs_keepalived()
    ours, theirs = nodes
    with Keepalived(theirs, bfd_instance(OURS, THEIRS), "-D") as peer, kad_up(ours) as kad:
        peer.wait_for("(peer) Entering Up state")
        kad.configure(bfd_instance(THEIRS, OURS) + vrrp_instance(priority=100))
        assert kad.kadctl("reload").returncode == 0
        kad.configure(bfd_instance(THEIRS, OURS, 100) + vrrp_instance(priority=100))
        assert kad.kadctl("reload").returncode == 0
        poll(lambda: re.search(r"remote +100000 ", peer.said()), "the new interval at the peer")
        assert (peer.count("Entering Up"), kad.count("(peer) Entering Up")) == (1, 1)


@pytest.mark.parametrize("program", [Kad, Keepalived])
def test_a_reload_that_adds_the_source_in_use_is_not_felt(
    nodes: tuple[Node, Node], program: type[Daemon]
) -> None:
    """Neither by the neighbour nor by an instance that follows the session, with either program."""
    needs_keepalived()
    ours, theirs = nodes
    follows = vrrp_instance(extra=("track_bfd {", "peer", "}"), priority=200)
    with_source = bfd_instance(THEIRS, OURS, 200)
    without = with_source.replace(f"source_ip {OURS}\n", "")
    options = () if program is Kad else ("-D",)
    with (
        Keepalived(theirs, bfd_instance(OURS, THEIRS, 200), "-D") as peer,
        program(ours, without + follows, *options) as daemon,
    ):
        daemon.wait_for("(VI_1) Entering MASTER STATE", seconds=20)
        poll(lambda: is_up(peer), "the peer Up")
        for text in (with_source, without):
            entered = daemon.said().count("Entering")
            daemon.configure(text + follows)
            daemon.reload()
            remains(lambda: is_up(peer), "the peer Up", seconds=1.5)
            assert daemon.said().count("Entering") == entered, daemon.said()
        assert peer.count("(peer) Entering Up") == 1
