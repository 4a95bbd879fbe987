"""A pair of directors with LVS-DR and persistence goes over from keepalived to kad, and a client keeps
asking."""

from __future__ import annotations

import threading
from collections import Counter

from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.lvs import Farm, ask, table
from tests.support.namespaces import Network, Node, poll, remains

VIP = "192.0.2.100"
PATIENCE_S = 180
SERVICE = f"""
virtual_server {VIP} 80 {{
    delay_loop 1
    lvs_sched rr
    lvs_method DR
    persistence_timeout 60
    protocol TCP
    real_server 192.0.2.11 80 {{
        TCP_CHECK {{
            connect_timeout 2
        }}
    }}
    real_server 192.0.2.12 80 {{
        TCP_CHECK {{
            connect_timeout 2
        }}
    }}
}}
"""


class Asking(threading.Thread):
    """Connection after connection, each counted by what became of it."""

    def __init__(self, client: Node) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._over = threading.Event()
        self.said: Counter[str] = Counter()

    def run(self) -> None:
        while not self._over.wait(0.1):
            self.said[ask(self._client, VIP, 80).partition(" ")[0]] += 1

    def stop(self) -> Counter[str]:
        self._over.set()
        self.join(10)
        return self.said


def text(priority: int) -> str:
    # In a guest that is emulated on a busy machine a second is short.
    instance = vrrp_instance(priority=priority, advert_int=2, addresses=(f"{VIP}/24",))
    return configuration(instance, settings=("vrrp_garp_master_refresh 1",)) + SERVICE


def start(daemon: Daemon, node: Node) -> None:
    daemon.start()
    poll(lambda: len(table(node)) == 3, "the table", seconds=PATIENCE_S, every=0.2)


def hand_over(old: Daemon, new: Daemon, node: Node) -> None:
    assert old.stop(PATIENCE_S) == 0
    assert table(node) == []
    start(new, node)


def test_one_director_after_the_other(network: Network) -> None:
    lan = network.bridge()
    client, first, second = (network.node(name) for name in ("client", "first", "second"))
    servers = [network.node(name) for name in ("one", "two")]
    client.attach(lan, "192.0.2.9/24")
    farm = Farm()
    for number, server in enumerate(servers, 11):
        server.attach(lan, f"192.0.2.{number}/24")
        for kind in ("all", "eth0"):
            server.sysctl(f"net.ipv4.conf.{kind}.arp_ignore", "1")
            server.sysctl(f"net.ipv4.conf.{kind}.arp_announce", "2")
            server.sysctl(f"net.ipv4.conf.{kind}.rp_filter", "0")
        server.ip("addr", "add", f"{VIP}/32", "dev", "lo")
        for address in (f"192.0.2.{number}", VIP):
            farm.serve(server, address, 80, server.label)
    for number, director in enumerate((first, second), 1):
        director.attach(lan, f"192.0.2.{number}/24")
        director.sysctl("net.ipv4.ip_forward", "1")
        director.sysctl("net.ipv4.conf.all.send_redirects", "0")
    old = Keepalived(first, text(150)), Keepalived(second, text(100))
    new = Kad(first, text(150)), Kad(second, text(100))
    try:
        for daemon, node in zip(old, (first, second), strict=True):
            start(daemon, node)
        poll(lambda: first.holds(VIP), "the first to be master", seconds=PATIENCE_S)
        asking = Asking(client)
        asking.start()
        poll(lambda: asking.said.total() > 5, "answers", seconds=PATIENCE_S)
        assert len(asking.said) == 1, "persistent"
        # The backup first: no client is to notice.
        hand_over(old[1], new[1], second)
        assert not second.holds(VIP)
        # Then the master: its partner, kad already, takes over meanwhile, and gives back.
        assert old[0].stop(PATIENCE_S) == 0
        poll(lambda: second.holds(VIP), "kad to take over", seconds=PATIENCE_S)
        start(new[0], first)
        poll(lambda: first.holds(VIP) and not second.holds(VIP), "kad to be master again", seconds=PATIENCE_S)
        before = asking.said.total()
        poll(lambda: asking.said.total() > before + 5, "more answers", seconds=PATIENCE_S)
        remains(lambda: first.holds(VIP), "the first is master", seconds=3, every=0.2)
        said = asking.stop()
        print(f"the client was told {dict(said)}")
        failed = {what: times for what, times in said.items() if what not in ("one", "two")}
        assert failed == {}, said
    finally:
        for each in (*old, *new):
            each.close()
        farm.close()
