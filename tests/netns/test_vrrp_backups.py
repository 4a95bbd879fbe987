"""Many backups in one process: it reads adverts together, and acts as if it had read each at once."""

import statistics
import threading

import pytest

from tests.support.adverts import Sender, advert
from tests.support.capture import Advert, Capture
from tests.support.daemon import Kad
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.metronome import undisturbed
from tests.support.namespaces import Network, poll

pytestmark = [pytest.mark.root, pytest.mark.slow]

VRIDS = range(1, 9)
INTERVAL_US = 1_000_000
SKEW_US = 609_375
GATHERED_US = 125_000
"""How long adverts lie at these intervals and priorities."""
PAUSE_MS = 20


def masters_advert(vrid: int, priority: int = 200) -> tuple[str, bytes]:
    vip = f"192.0.2.{100 + vrid}"
    packet = advert(source="192.0.2.2", vip=vip, vrid=vrid, priority=priority, interval_us=INTERVAL_US)
    return "eth0", packet


def texts() -> list[str]:
    return [
        vrrp_instance(f"VI_{vrid}", vrid=vrid, version=3, addresses=[f"192.0.2.{100 + vrid}/32"])
        for vrid in VRIDS
    ]


def last(adverts: list[Advert], vrid: int) -> Advert:
    return [each for each in adverts if each.vrid == vrid][-1]


@pytest.mark.parametrize("farewell", [True, False])
def test_who_reads_adverts_together_takes_over_when_it_should(network: Network, farewell: bool) -> None:
    """The masters leave at different times; each backup's wait begins when the last advert arrived."""

    def attempt() -> None:
        lan = network.bridge()
        node, other = network.node("one"), network.node("two")
        node.attach(lan, "192.0.2.1/24")
        other.attach(lan, "192.0.2.2/24")
        regular = [masters_advert(vrid) for vrid in VRIDS]
        with Capture(node, "eth0") as wire, Kad(node, configuration(*texts())) as kad:
            with Sender(other, regular, len(VRIDS)) as sender:
                poll(lambda: len(kad.said().split("Entering BACKUP STATE")) > len(VRIDS), "all backups")
                # Long enough for the process to have settled in its rhythm.
                poll(lambda: sender.sent >= 4 * len(VRIDS), "four rounds of adverts")
            if farewell:
                pause = threading.Event()
                for vrid in VRIDS:
                    # Within the skew time: whoever is MASTER reads at once.
                    pause.wait(0.05)
                    with Sender(other, [masters_advert(vrid, 0)], 1):
                        pause.wait(0.001)

            def ours() -> dict[int, Advert]:
                return {each.vrid: each for each in reversed(wire.adverts()) if each.outgoing}

            poll(lambda: len(ours()) == len(VRIDS), "every instance's advert", seconds=10)
            heard = [each for each in wire.adverts() if not each.outgoing]
            waits_us = SKEW_US if farewell else 3 * INTERVAL_US + SKEW_US
            late = [ours()[vrid].time_us - last(heard, vrid).time_us - waits_us for vrid in VRIDS]
        # The wall clock of the captures may be slewed meanwhile.
        assert min(late) > -1_000, late
        assert statistics.median(late) < GATHERED_US // 4, late

    undisturbed(attempt, PAUSE_MS)
