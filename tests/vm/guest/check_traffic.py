"""kad balances real connections: NAT, DR and tunnels, both families, through what happens to servers and to
kad.

    client ── lan ── director (the VIPs) ── the same lan ── one, two, three (real servers)

Servers reached by NAT have the director as their gateway; those reached by DR or a tunnel hold the VIP
themselves, without answering ARP for it, and answer the client directly.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.daemon import Kad, processes_in
from tests.support.lvs import Farm, ask, ask_often, connection, ipvsadm, table
from tests.support.namespaces import Network, poll, remains

PATIENCE_S = 60
NAMES = ("one", "two", "three")
VIP, VIP6 = "198.51.100.100", "2001:db8:0:100::100"


class Plant:
    """The network, its servers, and the daemon on the director."""

    def __init__(self, network: Network) -> None:
        lan = network.bridge()
        self.farm = Farm()
        self.client = network.node("client")
        self.director = network.node("director")
        self.servers = [network.node(name) for name in NAMES]
        self.client.attach(lan, "192.0.2.9/24", "2001:db8::9/64")
        self.director.attach(lan, "192.0.2.1/24", "2001:db8::1/64")
        for number, server in enumerate(self.servers, 11):
            server.attach(lan, f"192.0.2.{number}/24", f"2001:db8::{number}/64")
        self._prepare()

    def _prepare(self) -> None:
        director, client = self.director, self.client
        for vip in (VIP, VIP6):
            director.ip(*_host(vip))
        director.sysctl("net.ipv4.ip_forward", "1")
        director.sysctl("net.ipv6.conf.all.forwarding", "1")
        for kind in ("all", "eth0"):
            director.sysctl(f"net.ipv4.conf.{kind}.send_redirects", "0")
            director.sysctl(f"net.ipv4.conf.{kind}.rp_filter", "0")
        client.ip("route", "add", f"{VIP}/32", "via", "192.0.2.1")
        client.ip("-6", "route", "add", f"{VIP6}/128", "via", "2001:db8::1")
        for server in self.servers:
            # The director would tell them of the direct way to the client; IPv6 has no switch for it there.
            server.sysctl("net.ipv6.conf.eth0.accept_redirects", "0")
            for kind in ("all", "default", "eth0"):
                server.sysctl(f"net.ipv4.conf.{kind}.rp_filter", "0")
            # By NAT the answers must pass the director: to the client only through it.
            server.ip("route", "add", "192.0.2.9/32", "via", "192.0.2.1")
            server.ip("-6", "route", "add", "2001:db8::9/128", "via", "2001:db8::1")

    def answer_directly(self) -> None:
        """For DR and tunnels: the servers hold the VIPs and answer the client themselves."""
        for server in self.servers:
            server.ip("route", "del", "192.0.2.9/32", "via", "192.0.2.1")
            server.ip("-6", "route", "del", "2001:db8::9/128", "via", "2001:db8::1")
            for kind in ("all", "eth0"):
                server.sysctl(f"net.ipv4.conf.{kind}.arp_ignore", "1")
                server.sysctl(f"net.ipv4.conf.{kind}.arp_announce", "2")
            for vip in (VIP, VIP6):
                server.ip(*_host(vip))

    def end_tunnels(self, kind: str) -> None:
        """The servers' ends of tunnels from anywhere."""
        for number, server in enumerate(self.servers, 11):
            own, own6 = f"192.0.2.{number}", f"2001:db8::{number}"
            if kind == "ipip":
                server.ip("link", "add", "t4", "type", "ipip", "local", own, "remote", "any")
                server.ip(
                    "link", "add", "t6", "type", "ip6tnl", "mode", "any", "local", own6, "remote", "any"
                )
            elif kind == "gre":
                server.ip("link", "add", "t4", "type", "gre", "local", own, "remote", "any")
                server.ip("link", "add", "t6", "type", "ip6gre", "local", own6, "remote", "any")
            else:
                server.ip("link", "add", "t4", "type", "ipip", "local", own, "remote", "any")
                server.ip("fou", "add", "port", "6080", "gue")
            for name in ("t4", "t6"):
                if name == "t6" and kind == "gue":
                    continue
                server.ip("link", "set", name, "up")
                server.sysctl(f"net.ipv4.conf.{name}.rp_filter", "0")

    def serve(self, *, port: int = 80, also: tuple[str, ...] = ()) -> None:
        """Every server at its own addresses, and at ``also``."""
        for number, server in enumerate(self.servers, 11):
            for address in (f"192.0.2.{number}", f"2001:db8::{number}", *also):
                self.farm.serve(server, address, port, NAMES[number - 11])

    def stop(self, number: int, *, port: int = 80) -> None:
        """That server refuses: at its own addresses, which are those that are checked."""
        server = self.servers[number]
        for address in (f"192.0.2.{11 + number}", f"2001:db8::{11 + number}"):
            self.farm.stop(server, address, port)


def _host(address: str) -> list[str]:
    words = ["-6", "addr", "add", f"{address}/128", "dev", "lo", "nodad"]
    return words if ":" in address else ["addr", "add", f"{address}/32", "dev", "lo"]


@pytest.fixture
def plant(network: Network) -> Iterator[Plant]:
    made = Plant(network)
    try:
        yield made
    finally:
        made.farm.close()


def service(vip: str, settings: str, *, six: bool = False, per_server: str = "", port: int = 80) -> str:
    """One virtual server with all three, checked every second."""
    lines = [
        f"virtual_server {vip} {port} {{" if not vip.startswith("fwmark") else f"virtual_server {vip} {{"
    ]
    lines += ["delay_loop 1", settings]
    if not vip.startswith("fwmark"):
        lines.append("protocol TCP")
    for number in (11, 12, 13):
        address = f"2001:db8::{number}" if six else f"192.0.2.{number}"
        shown = "" if vip.startswith("fwmark") else f" {port}"
        check = "TCP_CHECK {\nconnect_timeout 2\nretry 1\ndelay_before_retry 1\nconnect_port 80\n}"
        lines.append(f"real_server {address}{shown} {{\n{per_server}\n{check}\n}}")
    return "\n".join([*lines, "}", ""])


@contextlib.contextmanager
def balanced(plant: Plant, text: str, *, lines: int) -> Iterator[Kad]:
    """kad on the director, its table filled."""
    with Kad(plant.director, "global_defs {\nrouter_id test\n}\n" + text) as daemon:
        poll(lambda: len(table(plant.director)) == lines, f"{lines} lines", seconds=PATIENCE_S, every=0.2)
        yield daemon


def everyone(plant: Plant, vip: str, times: int = 6) -> Counter[str]:
    return ask_often(plant.client, vip, 80, times)


def gone(plant: Plant, number: int) -> bool:
    words = (f"192.0.2.{11 + number}:80", f"2001:db8::{11 + number}]:80")
    live = [line for line in table(plant.director) if line.startswith("-a")]
    return not any(word in line for line in live for word in words)


def test_nat_of_both_families_and_the_death_of_a_server(plant: Plant) -> None:
    plant.serve()
    text = service(VIP, "lvs_sched rr\nlvs_method NAT") + service(
        VIP6, "lvs_sched rr\nlvs_method NAT", six=True
    )
    with balanced(plant, text, lines=8) as daemon:
        for vip in (VIP, VIP6):
            assert everyone(plant, vip) == {"one": 2, "two": 2, "three": 2}
        assert ask(plant.client, VIP, 80).split()[1] == "192.0.2.9", "the server sees the client"
        plant.stop(1)
        poll(lambda: gone(plant, 1), "the dead server to go", seconds=PATIENCE_S, every=0.2)
        for vip in (VIP, VIP6):
            assert everyone(plant, vip, 4) == {"one": 2, "three": 2}
        # Eleven connections of IPv4, and none of the checks; the kernel adds up every two seconds.
        eleven = re.compile(rf"TCP  {re.escape(VIP)}:80 +11 ")
        words = ("-Ln", "--stats", "-t", f"{VIP}:80")
        poll(lambda: eleven.search(ipvsadm(plant.director, *words)), "eleven", seconds=10, every=0.3)
        assert daemon.count("Removing service") == 2


def test_direct_routing_of_both_families(plant: Plant) -> None:
    plant.answer_directly()
    plant.serve(also=(VIP, VIP6))
    text = service(VIP, "lvs_sched rr\nlvs_method DR") + service(
        VIP6, "lvs_sched rr\nlvs_method DR", six=True
    )
    with balanced(plant, text, lines=8):
        for vip in (VIP, VIP6):
            assert everyone(plant, vip) == {"one": 2, "two": 2, "three": 2}


@pytest.mark.parametrize("kind", ["ipip", "gre", "gue"])
def test_tunnels(plant: Plant, kind: str) -> None:
    """Both families by ipip and gre, and each family in a tunnel of the other by ipip; gue in IPv4."""
    subprocess.run("modprobe -a ipip ip6_tunnel ip_gre ip6_gre fou", shell=True, check=True)
    plant.answer_directly()
    plant.end_tunnels(kind)
    plant.serve(also=(VIP, VIP6))
    how = {"ipip": "TUN", "gre": "TUN type gre", "gue": "TUN type gue port 6080"}[kind]
    text = service(VIP, f"lvs_sched rr\nlvs_method {how}")
    vips = [VIP]
    if kind != "gue":
        text += service(VIP6, f"lvs_sched rr\nlvs_method {how}", six=True)
        vips.append(VIP6)
    with balanced(plant, text, lines=4 * len(vips)):
        for vip in vips:
            assert everyone(plant, vip) == {"one": 2, "two": 2, "three": 2}, vip


def test_persistence_marks_and_thresholds(plant: Plant) -> None:
    plant.serve()
    plant.farm.hold = True
    node = plant.director
    chain = "add chain t c { type filter hook prerouting priority -150; }"
    rules = f"add table t; {chain}; add rule t c tcp dport 8080 mark set 7"
    with node.entered():
        subprocess.run(["nft", rules], check=True)
    text = service(VIP, "lvs_sched rr\nlvs_method NAT\npersistence_timeout 100")
    text += service("fwmark 7", "lvs_sched rr\nlvs_method NAT")
    text += service(VIP, "lvs_sched rr\nlvs_method NAT", per_server="uthreshold 1", port=81)
    for number, server in enumerate(plant.servers, 11):
        plant.farm.serve(server, f"192.0.2.{number}", 8080, NAMES[number - 11])
        plant.farm.serve(server, f"192.0.2.{number}", 81, NAMES[number - 11])
    with balanced(plant, text, lines=12), contextlib.ExitStack() as held:
        assert set(everyone(plant, VIP).values()) == {6}, "always the same server"
        assert ask_often(plant.client, VIP, 8080, 6) == {"one": 2, "two": 2, "three": 2}
        said = []
        for _ in range(3):
            made = held.enter_context(connection(plant.client, VIP, 81))
            said.append(made.recv(100).split()[0].decode())
        assert sorted(said) == sorted(NAMES)
        assert ask(plant.client, VIP, 81, seconds=1) in ("TimeoutError", "ConnectionRefusedError"), "all full"


def test_a_checker_killed_with_a_third_of_its_servers_down(plant: Plant) -> None:
    """None comes back that is dead, none goes that lives, no connection is dropped, and no client notices."""
    plant.serve()
    plant.farm.hold = True
    director = plant.director
    ipvsadm(director, *["-A", "-t", "203.0.113.9:9", "-s", "lc"])
    text = service(VIP, "lvs_sched rr\nlvs_method NAT") + service(
        VIP6, "lvs_sched rr\nlvs_method NAT", six=True
    )
    with balanced(plant, text, lines=9) as daemon, contextlib.ExitStack() as held:
        plant.stop(2)
        poll(lambda: gone(plant, 2), "the dead server to go", seconds=PATIENCE_S, every=0.2)
        wanted = table(director)
        assert "-A -t 203.0.113.9:9 -s lc" in wanted and len(wanted) == 7
        open_ones = [held.enter_context(connection(plant.client, vip, 80)) for vip in (VIP, VIP6) * 2]
        for made in open_ones:
            made.recv(100)
        errors: list[str] = []
        over = threading.Event()
        asking = threading.Thread(target=_keep_asking, args=(plant, over, errors))
        asking.start()
        for _ in range(2):
            old = daemon._pid_of("checkers")
            os.kill(old, signal.SIGKILL)
            poll(lambda old=old: daemon._pid_of("checkers") != old, "another checker", seconds=PATIENCE_S)  # type: ignore[misc]
            remains(lambda: table(director) == wanted, "the table", seconds=4, every=0.1)
        over.set()
        asking.join(10)
        assert errors == []
        for made in open_ones:
            made.settimeout(0.1)
            with pytest.raises(TimeoutError):
                made.recv(1)
        daemon.stop(PATIENCE_S)
        assert table(director) == ["-A -t 203.0.113.9:9 -s lc"]


def _keep_asking(plant: Plant, over: threading.Event, errors: list[str]) -> None:
    while not over.is_set():
        for vip in (VIP, VIP6):
            said = ask(plant.client, vip, 80)
            if said.partition(" ")[0] not in NAMES:
                errors.append(f"{vip}: {said}")


def test_a_server_removed_from_the_file_while_nothing_ran(plant: Plant) -> None:
    plant.serve()
    text = service(VIP, "lvs_sched rr\nlvs_method NAT")
    with balanced(plant, text, lines=4) as daemon:
        daemon.kill_all()
        assert len(table(plant.director)) == 4, "what was balanced stays so"
        cut = re.sub(r"real_server 192\.0\.2\.13 80 \{.*?\}\n\}", "", text, flags=re.DOTALL)
        daemon.configure(cut)
        daemon.start()
        poll(lambda: gone(plant, 2), "the removed server to go", seconds=PATIENCE_S, every=0.2)
        assert everyone(plant, VIP, 4) == {"one": 2, "two": 2}
        # Nothing of kad's is left behind in the namespace when it stops.
        daemon.stop(PATIENCE_S)
        assert table(plant.director) == []
        assert processes_in(plant.director) == []
