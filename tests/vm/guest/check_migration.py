"""A pair of directors with LVS-DR and persistence goes over from keepalived to kad; a client keeps asking.

kad costs it nothing in any phase. keepalived may, while it stops as master: its processes leave side by side,
so now and then the services are gone while the address is still there, and the director itself refuses. What
it refuses is told by who sent the reset, and when: no kad has ever run on that director by then.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter

from tests.support.capture import Capture, Frame
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


REFUSALS = ("ConnectionRefusedError", "ConnectionResetError", "BrokenPipeError")
"""What a reset is to a client, by how far its connection was."""
UNTIL_KEEPALIVED_HAS_LEFT = ("the backup goes over", "keepalived stops as master")
"""A connection is counted for the phase in which it began."""
TAKE_OVERS = ("kad takes over", "kad gives back to kad", "kad stops as master")
CUTS = ("ConnectionResetError", "BrokenPipeError")
"""Of a connection under way when a director takes over that does not know it, there being no synchronisation.
The client has one at a time: one for each take-over. Never a refusal: an address without its service."""


class Asking(threading.Thread):
    """Connection after connection, each counted by what became of it, for the phase it began in."""

    def __init__(self, client: Node) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._over = threading.Event()
        self.phase = ""
        self.pause_s = 0.1
        self.said: Counter[tuple[str, str]] = Counter()

    def run(self) -> None:
        while not self._over.wait(self.pause_s):
            phase = self.phase
            # As patient as clients are: what is asked between two masters is asked again.
            answer = ask(self._client, VIP, 80, seconds=15)
            self.said[phase, answer.partition(" ")[0]] += 1

    def more(self) -> None:
        """Returns when some connections more have ended."""
        before = self.said.total()
        poll(lambda: self.said.total() > before + 5, "more answers", seconds=PATIENCE_S)

    def stop(self) -> Counter[tuple[str, str]]:
        self._over.set()
        self.join(30)
        assert not self.is_alive()
        return self.said


def text(priority: int) -> str:
    # In a guest that is emulated on a busy machine a second is short.
    instance = vrrp_instance(priority=priority, advert_int=2, addresses=(f"{VIP}/24",))
    return configuration(instance, settings=("vrrp_garp_master_refresh 1",)) + SERVICE


def start(daemon: Daemon, node: Node) -> None:
    daemon.start()
    poll(lambda: len(table(node)) == 3, "the table", seconds=PATIENCE_S, every=0.2)


def refused_port(frame: Frame) -> int:
    """The client's port, of a reset that somebody sent for the VIP; 0: it is none."""
    data = frame.data
    if (frame.ethertype, data[23], data[26:30]) != (0x0800, socket.IPPROTO_TCP, socket.inet_aton(VIP)):
        return 0
    tcp = data[14 + (data[14] & 15) * 4 :]
    return int.from_bytes(tcp[2:4], "big") if tcp[13] & 4 else 0


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
    asking, capture = Asking(client), Capture(client, "eth0")
    try:
        for daemon, node in zip(old, (first, second), strict=True):
            start(daemon, node)
        poll(lambda: first.holds(VIP), "the first to be master", seconds=PATIENCE_S)
        asking.start()
        asking.more()
        assert len(asking.said) == 1, "persistent"
        asking.phase = "the backup goes over"
        assert old[1].stop(PATIENCE_S) == 0
        assert table(second) == []
        start(new[1], second)
        assert not second.holds(VIP)
        asking.phase = "keepalived stops as master"
        stop_us = now_us()
        assert old[0].stop(PATIENCE_S) == 0
        stopped_us = now_us()
        asking.phase = "kad takes over"
        poll(lambda: second.holds(VIP), "kad to take over", seconds=PATIENCE_S)
        asking.more()
        asking.phase = "kad gives back to kad"
        start(new[0], first)
        poll(lambda: first.holds(VIP) and not second.holds(VIP), "kad to be master again", seconds=PATIENCE_S)
        asking.more()
        remains(lambda: first.holds(VIP), "the first is master", seconds=3, every=0.2)
        asking.phase, asking.pause_s = "kad stops as master", 0.01
        assert new[0].stop(PATIENCE_S) == 0
        assert table(first) == []
        poll(lambda: second.holds(VIP), "the second to take over", seconds=PATIENCE_S)
        asking.more()
        said = asking.stop()
        mac = first.mac("eth0")
        refused = [(frame.source_mac, frame.time_us, refused_port(frame)) for frame in capture.drain()]
        by_keepalived = {
            port for by, at_us, port in refused if port and by == mac and stop_us <= at_us <= stopped_us
        }
        wrong = [key for key in said.elements() if key[1] not in ("one", "two")]
        cut = {key[0]: key for key in wrong if key[0] in TAKE_OVERS and key[1] in CUTS}
        for key in cut.values():
            wrong.remove(key)
        late = [key for key in wrong if key[0] not in UNTIL_KEEPALIVED_HAS_LEFT or key[1] not in REFUSALS]
        seen = (said, [each for each in refused if each[2]], mac, stop_us, stopped_us)
        print(f"refused: {seen}")
        assert late == [] and len(wrong) <= len(by_keepalived), seen
        print(f"cut by a take-over: {list(cut)}; refused by keepalived: {len(wrong)} of {dict(said)}")
    finally:
        capture.close()
        for each in (*old, *new):
            each.close()
        farm.close()


def now_us() -> int:
    """On the clock of what is captured."""
    return time.time_ns() // 1000
