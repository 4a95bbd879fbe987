"""A backup in a storm of bad advertisements goes on hearing its master."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.test_bad_adverts import spoilt_frames
from tests.support.capture import Capture
from tests.support.daemon import Kad
from tests.support.flood import Flooder
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Network

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.alone]

RATE, SECONDS = 20_000, 5
"""Bad ones a second wanted, and how long that would last. Slower machines send as many, for longer."""
ADVERTS = 8
LEAST_SHARE = 1_000
"""Bad ones for each of the master's (10,000 at full speed)."""


def test_backup_does_not_take_over(network: Network, tmp_path: Path) -> None:
    flooder, lan = Flooder(tmp_path), network.bridge()
    master, backup, attacker = (network.node(name) for name in ("master", "backup", "attacker"))
    for number, node in enumerate((master, backup, attacker), 1):
        node.attach(lan, f"192.0.2.{number}/24", name="eth0")

    def text(priority: int) -> str:
        return configuration(vrrp_instance(version=3, advert_int=0.5, priority=priority))

    with Kad(master, text(200)) as first, Kad(backup, text(100)) as second:
        first.wait_for("(VI_1) Entering MASTER STATE")
        second.wait_for("(VI_1) Entering BACKUP STATE")
        with Capture(attacker, "eth0") as capture:
            storm = flooder.flood(attacker, "eth0", spoilt_frames(attacker), rate=RATE, seconds=SECONDS)
            heard = len(capture.adverts(source="192.0.2.1"))
        assert heard >= ADVERTS
        print(f"{storm.rate:.0f} a second, {storm.sent / heard:.0f} for each of {heard} adverts")
        assert storm.sent / heard > LEAST_SHARE, "the storm was one"
        assert not second.count("Entering MASTER STATE")
        assert not backup.holds("192.0.2.100")
