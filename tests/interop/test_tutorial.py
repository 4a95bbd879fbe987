"""The configuration that tutorials show, with its mistakes, starts as it is but for the interface's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.capture import Capture
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import needs_keepalived
from tests.support.namespaces import Network, poll
from tests.support.neighbours import who_answers

pytestmark = [pytest.mark.root, pytest.mark.interop]

TUTORIAL = Path(__file__).with_name("tutorial.conf")
VIPS = ["192.168.200.16", "192.168.200.17", "192.168.200.18"]


@pytest.mark.parametrize("program", [Kad, Keepalived], ids=lambda c: c.__name__)
def test_tutorial_configuration_serves_its_addresses(network: Network, program: type[Daemon]) -> None:
    needs_keepalived()
    lan = network.bridge()
    node, client = network.node("node"), network.node("client")
    node.attach(lan, "192.168.200.2/24", name="lan0")
    client.attach(lan, "192.168.200.9/24", name="lan0")
    text = TUTORIAL.read_text().replace("interface eth0", "interface lan0")
    options = (
        ("-P",) if program is Keepalived else ()
    )  # this kernel may lack IPVS: keepalived would not start
    with Capture(client, "lan0") as capture, program(node, text, *options) as daemon:
        daemon.wait_for("(VI_1) Entering MASTER STATE")
        assert all(poll(lambda vip=vip: node.holds(vip), vip) for vip in VIPS)
        advert = poll(lambda: capture.adverts(vrid=51), "an advertisement")[0]
        assert (advert.version, advert.priority, sorted(advert.addresses)) == (2, 100, VIPS)
        # vrrp_strict takes the password away (RFC 3768 knows no authentication): seen in keepalived as well
        assert advert.payload[4] == 0
        assert {vip: who_answers(client, "lan0", vip) for vip in VIPS} == {
            vip: {node.mac("lan0")} for vip in VIPS
        }
        if program is Kad:
            # Either this kernel balances the load, or it is said that it cannot, and the rest goes on.
            balanced = Path("/proc/net/ip_vs").exists()
            assert balanced or poll(lambda: "IPVS is not available" in daemon.said(), "word of IPVS")
        assert daemon.stop() == 0
    assert not any(node.holds(vip) for vip in VIPS)
