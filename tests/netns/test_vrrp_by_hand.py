"""What people do to a running machine by hand, and what the daemon leaves when it goes."""

from pathlib import Path

import pytest

from tests.support.capture import Capture
from tests.support.daemon import Kad
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Network, Node, poll

pytestmark = [pytest.mark.root, pytest.mark.slow]

VIP = "192.0.2.100"


def promotes(node: Node) -> str:
    with node.entered():
        return Path("/proc/sys/net/ipv4/conf/eth0/promote_secondaries").read_text().strip()


@pytest.mark.parametrize("former", ["0", "1"])
def test_promote_secondaries_is_put_back_as_it_was(network: Network, former: str) -> None:
    node = network.node("one")
    node.attach(network.bridge(), "192.0.2.1/24")
    node.sysctl("net.ipv4.conf.eth0.promote_secondaries", former)
    plain = vrrp_instance(version=3, advert_int=0.1)
    asking = plain.replace("{", "{\n    promote_secondaries", 1)
    with Kad(node, configuration(asking)) as kad:
        kad.wait_for("Entering MASTER STATE")
        assert promotes(node) == "1"
        kad.configure(configuration(plain))
        kad.reload()
        kad.wait_for("generation 2 runs")
        poll(lambda: promotes(node) == former, "the former value after the reload")
        kad.configure(configuration(asking))
        kad.reload()
        kad.wait_for("generation 3 runs")
        poll(lambda: promotes(node) == "1", "promotion again")
        assert kad.stop() == 0
        assert promotes(node) == former


def test_losing_the_source_address_the_others_are_told(network: Network) -> None:
    lan = network.bridge()
    node, other = network.node("one"), network.node("two")
    node.attach(lan, "192.0.2.1/24")
    other.attach(lan, "192.0.2.2/24")
    text = configuration(vrrp_instance(version=3, advert_int=0.1))
    with Kad(node, text) as kad, Capture(other, "eth0") as wire:
        kad.wait_for("Entering MASTER STATE")
        poll(lambda: node.holds(VIP), "the VIP")
        node.ip("addr", "del", "192.0.2.1/24", "dev", "eth0")
        kad.wait_for("Entering FAULT STATE")
        farewells = wire.wait_for(
            lambda: [a for a in wire.adverts(vrid=51) if a.priority == 0], "an advert of priority 0"
        )
        assert {a.source for a in farewells} == {"192.0.2.1"}
        assert not node.holds(VIP)
