"""kad stands still beside a keepalived that does not: nothing is worked off, and nothing stale believed.

The VRRP process alone is stopped for less than the supervisor puts up with; or the whole daemon is frozen,
as when its machine is paused.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from kad.control.status import DaemonStatus
from tests.support.capture import Advert, Capture
from tests.support.control import status_of
from tests.support.daemon import Daemon, Kad, Keepalived, descendants
from tests.support.freezer import frozen
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, Node, needs_namespaces, poll, stand_still
from tests.support.neighbours import who_answers

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow, pytest.mark.alone]

VIP = "192.0.2.100"
ADVERT_US = 100_000
HIGH, LOW = 150, 100
DOWN_US = 4 * ADVERT_US
"""At most: 3 adverts and a skew."""
SLACK_US = 120_000
"""What a busy machine may add. Whoever waits for a whole master-down interval is 80 ms later still."""


def text(priority: int, *extra: str) -> str:
    return configuration(
        vrrp_instance(
            version=3, priority=priority, advert_int=ADVERT_US / 1e6, addresses=[f"{VIP}/24"], extra=extra
        )
    )


@dataclass
class Stage:
    kad: Kad
    keepalived: Keepalived
    client: Node
    wire: Capture
    names: dict[str, str]

    def holders(self) -> set[str]:
        return {self.names[mac] for mac in who_answers(self.client, "eth0", VIP, seconds=0.15)}

    def adverts_of(self, name: str, since_us: int = 0) -> list[Advert]:
        source = "192.0.2.1" if name == "kad" else "192.0.2.2"
        return [advert for advert in self.wire.adverts(source=source) if advert.time_us >= since_us]

    def settled(self, name: str) -> None:
        """Only this one has advertised for a master-down interval, and alone answers."""

        def only() -> bool:
            since_us = time.time_ns() // 1000 - DOWN_US
            other = "keepalived" if name == "kad" else "kad"
            return len(self.adverts_of(name, since_us)) > 2 and not self.adverts_of(other, since_us)

        poll(only, f"{name} to be master alone", seconds=10)
        assert self.holders() == {name}

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """kad's VRRP process, by SIGSTOP."""
        pid = self.kad.vrrp_pid()
        os.kill(pid, signal.SIGSTOP)
        yield
        os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """All of kad."""
        with frozen([self.kad.pid, *descendants(self.kad.pid)]):
            yield


@pytest.fixture
def stage(network: Network) -> Iterator[Stage]:
    needs_namespaces()
    needs_keepalived()
    lan = network.bridge()
    one, two, client = network.node("one"), network.node("two"), network.node("client")
    for node, address in ((one, "192.0.2.1/24"), (two, "192.0.2.2/24"), (client, "192.0.2.9/24")):
        node.attach(lan, address, name="eth0")
    names = {one.mac("eth0"): "kad", two.mac("eth0"): "keepalived"}
    kad, keepalived = Kad(one, ""), Keepalived(two, "")
    with Capture(client, "eth0") as wire:
        try:
            yield Stage(kad, keepalived, client, wire, names)
        finally:
            print(kad.log.read_text(), "\n---\n", keepalived.log.read_text())
            kad.close()
            keepalived.close()


def begin(stage: Stage, *, master: str) -> None:
    first: Daemon = stage.kad if master == "kad" else stage.keepalived
    second: Daemon = stage.keepalived if master == "kad" else stage.kad
    first.configure(text(HIGH))
    second.configure(text(LOW))
    first.start()
    stage.settled(master)
    second.start()
    second.wait_for("Entering BACKUP STATE")
    sleep_us(DOWN_US)
    stage.settled(master)


def sleep_us(microseconds: int) -> int:
    """The time a stall lasts. Returns the moment afterwards, CLOCK_REALTIME microseconds."""
    stand_still(microseconds / 1e6)
    return time.time_ns() // 1000


@pytest.mark.parametrize("how", ["stopped", "paused"])
def test_a_backup_that_stood_still_lets_its_master_be(stage: Stage, how: str) -> None:
    begin(stage, master="keepalived")
    with getattr(stage, how)():
        woke_us = sleep_us(450_000 if how == "stopped" else 2_500_000)
    sleep_us(6 * ADVERT_US)
    assert stage.adverts_of("kad") == []
    assert stage.kad.count("Entering MASTER") == 0
    assert stage.keepalived.count("Entering BACKUP") == 1, "only at its start"
    assert len(stage.adverts_of("keepalived", woke_us)) >= 4
    if how == "paused":
        assert drops(stage)["stale"] >= 10
        assert "late" in stage.kad.kadctl("status").stdout
        vrrp = next(each for each in status_of(stage.kad).processes if each.role == "vrrp")
        assert vrrp.late >= 1 and vrrp.worst_late_us > 1_000_000
    assert stage.kad.count("RUNNING → BACKOFF") == 0, "nobody took it for hung"


def drops(stage: Stage) -> dict[str, int]:
    status: DaemonStatus = status_of(stage.kad)
    found: dict[str, int] = status.reports["vrrp"]["instances"][0].get("drops", {})
    return found


@pytest.mark.parametrize("how", ["stopped", "paused"])
def test_a_backup_whose_master_died_meanwhile(stage: Stage, how: str) -> None:
    """Not the adverts that lay there, and not the moment of waking, make it wait for a whole new interval."""
    begin(stage, master="keepalived")
    with getattr(stage, how)():
        sleep_us(100_000)
        stage.keepalived.kill_all()
        woke_us = sleep_us(300_000 if how == "stopped" else 2_500_000)
    poll(lambda: stage.adverts_of("kad"), "the take-over", seconds=5)
    stage.kad.wait_for("Entering MASTER")
    first = stage.adverts_of("kad")[0]
    # One advert and a skew of listening once more.
    assert first.time_us - woke_us <= 2 * ADVERT_US + SLACK_US
    assert stage.kad.count("Entering MASTER") == 1


@pytest.mark.parametrize("how", ["stopped", "paused"])
def test_a_master_that_stood_still_says_it_once(stage: Stage, how: str) -> None:
    begin(stage, master="kad")
    with getattr(stage, how)():
        woke_us = sleep_us(480_000 if how == "stopped" else 2_500_000)
        assert stage.keepalived.count("Entering MASTER") == 1
    stage.settled("kad")
    said = [advert.time_us for advert in stage.adverts_of("kad", woke_us)]
    # The one that was due, and one in answer to the lower master it hears; then the schedule, no burst.
    assert len([at for at in said if at < said[0] + ADVERT_US // 2]) <= 2
    window = [at for at in said if said[0] <= at < said[0] + 5 * ADVERT_US]
    assert len(window) <= 7
    assert stage.keepalived.count("Entering BACKUP") == 2
    assert stage.kad.count("Entering MASTER") == 1


def test_a_higher_master_that_has_gone_again_is_not_believed(stage: Stage) -> None:
    """Its adverts lie in kad's socket, seconds old: kad stays MASTER, at once."""
    begin(stage, master="kad")
    with stage.paused():
        stage.keepalived.configure(text(HIGH + 50))
        stage.keepalived.reload()
        poll(lambda: stage.keepalived.count("Entering MASTER") == 1, "the other's reign", seconds=5)
        sleep_us(500_000)
        stage.keepalived.kill_all()
        woke_us = sleep_us(2 * DOWN_US)
    poll(lambda: len(stage.adverts_of("kad", woke_us)) > 5, "adverts", seconds=5)
    assert stage.adverts_of("kad", woke_us)[0].time_us - woke_us < ADVERT_US + SLACK_US
    assert stage.kad.count("Entering BACKUP") == 1, "only at its start"
    assert drops(stage)["stale"] >= 3
