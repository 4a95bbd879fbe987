"""kad in the place of keepalived on one node: what the one left, the other clears up."""

from __future__ import annotations

import pytest

from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, poll, remains

pytestmark = [pytest.mark.root, pytest.mark.interop]

ADDRESSES = ("192.0.2.100/24", "192.0.2.101/32")
ADDRESSES6 = ("fe80::51/64", "2001:db8::100/64")


def blocks(priority: int) -> str:
    return configuration(
        vrrp_instance("VI_4", version=3, advert_int=0.1, priority=priority, addresses=ADDRESSES),
        vrrp_instance("VI_6", vrid=52, version=3, advert_int=0.1, priority=priority, addresses=ADDRESSES6),
    )


@pytest.mark.parametrize(
    ("first", "then"), [(Keepalived, Kad), (Kad, Keepalived), (Kad, Kad)], ids=lambda c: c.__name__
)
def test_addresses_of_a_killed_master_go_while_its_successor_is_backup(
    network: Network, first: type[Daemon], then: type[Daemon]
) -> None:
    needs_keepalived()
    lan = network.bridge()
    node, peer = network.node("node"), network.node("peer")
    node.attach(lan, "192.0.2.1/24", "2001:db8::1/64", name="eth0")
    peer.attach(lan, "192.0.2.2/24", "2001:db8::2/64", name="eth0")
    vips = [a.partition("/")[0] for a in (*ADDRESSES, *ADDRESSES6)]

    def held() -> list[str]:
        here = {entry.partition("/")[0] for entry in node.addresses("eth0")}
        return [vip for vip in vips if vip in here]

    with first(node, blocks(100)) as daemon:
        for name in ("VI_4", "VI_6"):
            daemon.wait_for(f"({name}) Entering MASTER STATE")
        poll(lambda: held() == vips, "all addresses set")
        daemon.kill_all()
    assert held() == vips, "kill -9 leaves them"
    with Keepalived(peer, blocks(150)) as better:
        better.wait_for("(VI_4) Entering MASTER STATE")
        better.wait_for("(VI_6) Entering MASTER STATE")
        with then(node, blocks(100)) as successor:
            for name in ("VI_4", "VI_6"):
                successor.wait_for(f"({name}) Entering BACKUP STATE")
            poll(lambda: held() == [], "what was left is removed")
            remains(lambda: held() == [], "no address while BACKUP", seconds=0.5)
            assert successor.count("Entering MASTER STATE") == 0
            better.kill_all()
            for name in ("VI_4", "VI_6"):
                successor.wait_for(f"({name}) Entering MASTER STATE")
            poll(lambda: held() == vips, "set again when MASTER")
            assert successor.stop() == 0
            assert held() == []
