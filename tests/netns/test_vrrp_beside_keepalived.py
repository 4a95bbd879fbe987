"""The VRRP child alone against Debian's keepalived, both ways round."""

from collections.abc import Iterator

import pytest

from tests.support.capture import Capture
from tests.support.daemon import Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, Node, poll
from tests.support.vrrp_node import VrrpNode, instance

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

VIP = "192.0.2.100"


@pytest.fixture
def nodes(network: Network) -> Iterator[tuple[Node, Node]]:
    needs_keepalived()
    lan = network.bridge()
    ours, theirs = network.node("kad"), network.node("ka")
    ours.attach(lan, "192.0.2.1/24")
    theirs.attach(lan, "192.0.2.2/24")
    yield ours, theirs


@pytest.mark.parametrize("version", [2, 3])
def test_the_better_one_of_either_kind_wins(nodes: tuple[Node, Node], version: int) -> None:
    ours, theirs = nodes
    interval = 1.0 if version == 2 else 0.1
    text = configuration(vrrp_instance(version=version, priority=100, advert_int=interval))
    made = instance("VI_1", 51, f"{VIP}/24", version=version, priority=150, advert_int_us=int(interval * 1e6))
    with Keepalived(theirs, text) as keepalived, VrrpNode(ours, made) as kad, Capture(ours, "eth0") as wire:
        keepalived.wait_for("Entering MASTER STATE")
        kad.start()
        kad.becomes("MASTER")
        poll(lambda: ours.holds(VIP) and not theirs.holds(VIP), "the VIP here alone")
        keepalived.wait_for("Entering BACKUP STATE", times=2)
        assert wire.adverts(vrid=51, source="192.0.2.1")[-1].priority == 150
        assert kad.stop() == 0
        keepalived.wait_for("Entering MASTER STATE", times=2)
        poll(lambda: theirs.holds(VIP) and not ours.holds(VIP), "the VIP there alone")
        assert "priority 0" in keepalived.said() or wire.adverts(source="192.0.2.1")[-1].priority == 0


@pytest.mark.parametrize("version", [2, 3])
def test_a_better_keepalived_is_obeyed(nodes: tuple[Node, Node], version: int) -> None:
    ours, theirs = nodes
    interval = 1.0 if version == 2 else 0.1
    text = configuration(vrrp_instance(version=version, priority=150, advert_int=interval))
    made = instance("VI_1", 51, f"{VIP}/24", version=version, priority=100, advert_int_us=int(interval * 1e6))
    with VrrpNode(ours, made) as kad:
        kad.start()
        kad.becomes("MASTER")
        with Keepalived(theirs, text) as keepalived:
            keepalived.wait_for("Entering MASTER STATE")
            kad.becomes("BACKUP")
            poll(lambda: theirs.holds(VIP) and not ours.holds(VIP), "the VIP there alone")
            keepalived.kill_all()
            kad.becomes("MASTER")
            poll(lambda: ours.holds(VIP), "the VIP taken over")
            # The dead keepalived left its address: a living one is not disturbed by ours.
            assert theirs.holds(VIP)
