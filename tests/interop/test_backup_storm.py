"""A backup in a storm of bad advertisements goes on hearing its master."""

from __future__ import annotations

from functools import partial

import pytest

from tests.interop.test_bad_adverts import SPOILT
from tests.support.adverts import Sender
from tests.support.capture import Capture
from tests.support.daemon import Kad
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Network, poll

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.alone]

ADVERTS = 8
RATE = 20_000


def test_backup_does_not_take_over(network: Network) -> None:
    lan = network.bridge()
    master, backup, attacker = (network.node(name) for name in ("master", "backup", "attacker"))
    for number, node in enumerate((master, backup, attacker), 1):
        node.attach(lan, f"192.0.2.{number}/24", name="eth0")

    def text(priority: int) -> str:
        return configuration(vrrp_instance(version=3, advert_int=0.5, priority=priority))

    with Kad(master, text(200)) as first, Kad(backup, text(100)) as second:
        first.wait_for("(VI_1) Entering MASTER STATE")
        second.wait_for("(VI_1) Entering BACKUP STATE")
        packets = [("eth0", packet) for packet in SPOILT.values()]
        with Capture(attacker, "eth0") as capture, Sender(attacker, packets, RATE) as sender:
            heard = partial(capture.adverts, source="192.0.2.1")
            poll(lambda: len(heard()) > ADVERTS, "adverts in the storm", seconds=30)
        assert sender.sent > ADVERTS * RATE // 10, "the storm was one"
        assert not second.count("Entering MASTER STATE")
        assert not backup.holds("192.0.2.100")
