"""Bad advertisements for a master's own virtual router neither delay nor suppress its own.

keepalived falls silent at 20 a second while it still says MASTER; so this is held against kad alone.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest

from tests.support.adverts import Sender, advert
from tests.support.capture import Advert, Capture
from tests.support.daemon import Kad
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Network, Node, poll

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.alone]

INTERVAL_US = 100_000

SPOILT = {
    "wrong checksum": advert(spoil=0xFFFF),
    "time to live 64": advert(ttl=64),
    "too short": advert(cut=6),
    "without addresses": advert(cut=4),
    "version 9": advert()[:20] + b"\x91" + advert()[21:],
    "no body": advert(cut=12),
}


def gaps(adverts: list[Advert]) -> list[int]:
    return [b.time_us - a.time_us for a, b in itertools.pairwise(adverts)]


def median(values: list[int]) -> int:
    return sorted(values)[len(values) // 2]


@pytest.fixture
def master(network: Network) -> tuple[Node, Node, Callable[[], Kad]]:
    lan = network.bridge()
    node, attacker = network.node("node"), network.node("attacker")
    node.attach(lan, "192.0.2.1/24", name="eth0")
    attacker.attach(lan, "192.0.2.66/24", name="eth0")
    text = configuration(vrrp_instance(version=3, advert_int=0.1, priority=100))
    return node, attacker, lambda: Kad(node, text)


@pytest.mark.parametrize("rate", [20, 1000, 10_000])
def test_master_goes_on_advertising_in_time(master: tuple[Node, Node, Callable[[], Kad]], rate: int) -> None:
    node, attacker, make = master
    with make() as daemon, Capture(attacker, "eth0") as capture:
        daemon.wait_for("(VI_1) Entering MASTER STATE")
        poll(lambda: len(capture.adverts(source="192.0.2.1")) > 20, "quiet adverts")
        quiet = gaps(capture.adverts(source="192.0.2.1"))
        capture.clear()
        with Sender(attacker, [("eth0", packet) for packet in SPOILT.values()], rate) as sender:
            began = time.monotonic()
            poll(lambda: len(capture.adverts(source="192.0.2.1")) > 40, "adverts in the storm", seconds=20)
            took = time.monotonic() - began
        assert sender.sent > took * rate * 0.3, "the storm was one"
        storm = gaps(capture.adverts(source="192.0.2.1"))
        assert abs(median(storm) - median(quiet)) < INTERVAL_US // 50
        assert max(storm) < 2 * INTERVAL_US, "none was suppressed"
        assert daemon.count("Entering BACKUP STATE") <= 1, "the one at the start"
        assert node.holds("192.0.2.100")


def test_the_same_advert_unspoilt_is_obeyed(master: tuple[Node, Node, Callable[[], Kad]]) -> None:
    """What makes the test above one: the frames differ from this only in how they were spoilt."""
    node, attacker, make = master
    with make() as daemon:
        daemon.wait_for("(VI_1) Entering MASTER STATE")
        before = daemon.count("Entering BACKUP STATE")
        with Sender(attacker, [("eth0", advert())], 20):
            daemon.wait_for("(VI_1) Entering BACKUP STATE", times=before + 1)
            poll(lambda: not node.holds("192.0.2.100"), "the address given up")
