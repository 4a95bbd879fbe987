"""A real daemon's own children, master beside a real keepalived: stopped, in an endless loop, or in error.

Whatever befalls one of them: it alone is replaced, at once or within 1.5 s; the peer never becomes master,
the address never leaves. What makes them loop and fail is in ``tests/support/planted_faults.py``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kad.errors import ExitStatus
from tests.process.test_supervisor_hang import cgroup, traced
from tests.support import planted_faults
from tests.support.address_news import AddressNews
from tests.support.capture import Capture
from tests.support.control import status_of
from tests.support.daemon import Keepalived
from tests.support.faulty_daemon import FaultyKad
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.metronome import undisturbed
from tests.support.namespaces import Network, poll
from tests.support.servers import TcpServer

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.pairs]

ROLES = ("control", "vrrp", "check", "bfd")
OURS, THEIRS, VIP = "192.0.2.1", "192.0.2.2", "192.0.2.100"
ADVERT_US = 1_000_000
REPLACED_WITHIN_US = {"stopped": 1_500_000, "loop": 1_500_000, "error": 500_000}
PAUSE_MS = 100
"""A replacement later than that while the machine itself stood still for so long is tried again."""


@dataclass
class Stage:
    kad: FaultyKad
    keepalived: Keepalived
    wire: Capture
    news: AddressNews
    server: TcpServer
    told: Path
    """What the notify script was told."""


def session(neighbor: str, source: str) -> str:
    """Two and a half seconds of silence are no loss."""
    return (
        f"bfd_instance peer {{\nneighbor_ip {neighbor}\nsource_ip {source}\nmin_rx 500\nmin_tx 500\n"
        "multiplier 5\n}\n"
    )


def text(port: int, script: Path) -> str:
    own = vrrp_instance(version=3, priority=150, addresses=[f"{VIP}/24"], extra=[f"notify {script}"])
    service = (
        f"virtual_server {VIP} 80 {{\ndelay_loop 1\nlvs_sched rr\nlvs_method NAT\nprotocol TCP\n"
        f"real_server 127.0.0.1 {port} {{\nTCP_CHECK {{\nconnect_timeout 1\nwarmup 0\n}}\n}}\n}}\n"
    )
    return configuration(own, service, session(THEIRS, OURS))


@pytest.fixture
def stage(network: Network, tmp_path: Path) -> Iterator[Stage]:
    """Both run, kad is MASTER, its server is up and its BFD session too."""
    needs_keepalived()
    lan = network.bridge()
    one, two = network.node("one"), network.node("two")
    one.attach(lan, f"{OURS}/24", name="eth0")
    two.attach(lan, f"{THEIRS}/24", name="eth0")
    script = tmp_path / "notify.sh"
    script.write_text(f'#!/bin/sh\necho "$3" >> {tmp_path}/told\n')
    script.chmod(0o755)
    with contextlib.ExitStack() as stack:
        with one.entered():
            server = stack.enter_context(TcpServer(lambda visit: None))
        kad = stack.enter_context(FaultyKad(one, text(server.port, script)))
        kad.wait_for("(VI_1) Entering MASTER STATE")
        peer = vrrp_instance(version=3, priority=100, addresses=[f"{VIP}/24"])
        keepalived = stack.enter_context(Keepalived(two, configuration(peer, session(OURS, THEIRS)), "-D"))
        keepalived.wait_for("(VI_1) Entering BACKUP STATE")
        keepalived.wait_for("(peer) Entering Up state")
        poll(lambda: server.connections > 1, "checks")
        poll(lambda: (tmp_path / "told").read_text().split() == ["BACKUP", "MASTER"], "the notifications")
        wire = stack.enter_context(Capture(two, "eth0"))
        news = stack.enter_context(AddressNews(one))
        yield Stage(kad, keepalived, wire, news, server, tmp_path / "told")
        print(kad.said(), "\n---\n", keepalived.said())


def now_us() -> int:
    return time.monotonic_ns() // 1000


def meets(kad: FaultyKad, role: str, kind: str) -> int:
    """Have it meet a fault; when it did."""
    kad.plant(role, kind)
    if role == "control":
        # It acts when it is asked. Who asks is answered, by the life after that if need be.
        threading.Thread(target=status_of, args=(kad,)).start()
    return kad.met(role)


def strike(kad: FaultyKad, role: str, kind: str) -> int:
    """How long after its fault a process is replaced, µs."""
    old = kad.role(role)
    if kind == "stopped":
        begin_us = now_us()
        os.kill(old, signal.SIGSTOP)
    else:
        begin_us = meets(kad, role, kind)
    poll(lambda: kad.role(role) not in (0, old), f"another {role}", every=0.002)
    return now_us() - begin_us


LET_BE_US = 2_500_000
"""In the end it did not act for so long: still less than makes the peer master."""
SAID = {
    "stopped": "signal SIGKILL (hung, stopped)",
    "loop": "signal SIGABRT (hung, running)",
    "error": f"exit status {int(ExitStatus.SOFTWARE)}",
}
LAST_WORDS = {"stopped": "", "loop": "in spin", "error": f"RuntimeError: {planted_faults.ERROR}"}


@pytest.mark.parametrize("kind", SAID)
def test_a_child_is_replaced_and_nobody_else_notices(stage: Stage, kind: str) -> None:
    kad = stage.kad
    for role in ROLES:

        def attempt(role: str = role) -> None:
            before = {each: kad.role(each) for each in ROLES}
            lives = kad.count(f"{role}: STARTING → RUNNING")
            took_us = strike(kad, role, kind)
            print(f"{kind}: another {role} after {took_us / 1000:.0f} ms")
            kad.wait_for(f"{role}: STARTING → RUNNING", times=lives + 1)
            after = {each: kad.role(each) for each in ROLES}
            assert {each for each in ROLES if after[each] != before[each]} == {role}
            assert took_us <= REPLACED_WITHIN_US[kind]

        undisturbed(attempt, PAUSE_MS)
        assert f"{role}: RUNNING → BACKOFF: {SAID[kind]}" in kad.said()
        assert LAST_WORDS[kind] in kad.last_words(role)
    all_goes_on(stage, ADVERT_US + REPLACED_WITHIN_US[kind])


def all_goes_on(stage: Stage, longest_gap_us: int) -> None:
    """As if nothing had been: adverts, address, session, checks and what status says."""
    checks = stage.server.connections
    said = len(stage.wire.adverts(source=OURS))
    poll(lambda: len(stage.wire.adverts(source=OURS)) > said + 2, "adverts")
    poll(lambda: stage.server.connections > checks + 1, "checks")
    adverts = stage.wire.adverts()
    assert {advert.source for advert in adverts} == {OURS}
    gaps = [b.time_us - a.time_us for a, b in itertools.pairwise(adverts)]
    print(f"longest time between two adverts: {max(gaps) / 1000:.0f} ms")
    assert max(gaps) < longest_gap_us
    assert all(advert.priority == 150 for advert in adverts)
    assert stage.news.removed() == []
    assert stage.kad.node.holds(VIP)
    assert stage.told.read_text().split() == ["BACKUP", "MASTER"], "it was MASTER all the time"
    assert stage.keepalived.count("(VI_1) Entering MASTER STATE") == 0
    assert stage.keepalived.count("(peer) Entering Down state") == 0
    status = status_of(stage.kad)
    assert [instance.state for instance in status.instances] == ["MASTER"]
    assert [server.alive for each in status.virtual_servers for server in each.real_servers] == [True]
    assert [each.state for each in status.bfd_sessions] == ["UP"]
    assert stage.kad.stop() == 0


# Stillness that is no fault of the process's --------------------------------------------------------------


def let_be(kad: FaultyKad, role: str, pid: int, condition: str) -> None:
    """It is late, which is logged; and it is not killed for it."""
    kad.wait_for(f"{role}: process {pid} is late, but {condition}: it is let be")
    assert kad.role(role) == pid


def test_a_process_under_a_debugger_is_let_be(stage: Stage) -> None:
    kad = stage.kad
    pids = {role: kad.role(role) for role in ROLES}
    for role, pid in pids.items():
        with traced(pid):
            let_be(kad, role, pid, "traced")
    all_goes_on(stage, ADVERT_US + LET_BE_US)
    assert kad.count("→ BACKOFF") == 0


def test_a_process_throttled_by_its_control_group_is_let_be(stage: Stage) -> None:
    """One hundredth of a processor, where it has work for a tenth of a second."""
    kad = stage.kad
    for role in ROLES:
        pid = kad.role(role)
        with cgroup(role) as group:
            (group / "cpu.cfs_period_us").write_text("100000")
            (group / "cpu.cfs_quota_us").write_text("1000")
            meets(kad, role, "burn")
            (group / "tasks").write_text(str(pid))
            let_be(kad, role, pid, "starved")
    all_goes_on(stage, ADVERT_US + LET_BE_US)
    assert kad.count("→ BACKOFF") == 0


@pytest.mark.alone
def test_a_process_starved_by_a_real_time_hog_is_let_be(stage: Stage) -> None:
    """The kernel leaves ordinary processes a twentieth."""
    kad = stage.kad
    pid, processor = kad.role("vrrp"), max(os.sched_getaffinity(0))
    os.sched_setaffinity(pid, {processor})
    burn = ["chrt", "-f", "50", "taskset", "-c", str(processor), "sh", "-c", "while :; do :; done"]
    meets(kad, "vrrp", "burn")
    hog = subprocess.Popen(burn, stderr=subprocess.DEVNULL)
    try:
        poll(
            lambda: hog.poll() is not None or kad.count("starved: it is let be"),
            "the hog at work",
            every=0.05,
        )
        if hog.poll() is not None:
            pytest.skip("real-time scheduling is not allowed here")
        let_be(kad, "vrrp", pid, "starved")
    finally:
        hog.kill()
        hog.wait()
    all_goes_on(stage, ADVERT_US + LET_BE_US)
    assert kad.count("→ BACKOFF") == 0
