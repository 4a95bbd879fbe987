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
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest

from tests.support.control import status_of
from tests.support.daemon import Kad, processes_in
from tests.support.lvs import Farm, ask, ask_often, connection, ipvsadm, table
from tests.support.namespaces import Network, Node, poll, remains

PATIENCE_S = 180
NAMES = ("one", "two", "three")
VIP, VIP6 = "198.51.100.100", "2001:db8:0:100::100"
"""By NAT."""
DIRECTLY = {
    "DR": "DR",
    "ipip": "TUN",
    "gre": "TUN type gre csum",
    "gue": "TUN type gue port 6080",
}
"""What the servers answer directly, by its own VIPs each."""
CLIENT, CLIENT6 = "192.0.2.9", "2001:db8::9"
DIRECT, DIRECT6 = "192.0.2.8", "2001:db8::8"
"""The client's other addresses: the servers' way there does not pass the director."""


def vips(kind: str) -> tuple[str, ...]:
    """Of one of DIRECTLY."""
    number = 101 + list(DIRECTLY).index(kind)
    return f"198.51.100.{number}", f"2001:db8:0:100::{number}"


GROUP = tuple(f"198.51.100.{last}" for last in (120, 121, 122))
"""By NAT and a mark that nf_tables gives them (nftables_ipvs)."""
ALL_DIRECT = tuple(vip for kind in DIRECTLY for vip in vips(kind))


class Plant:
    """The network, its servers, and the daemon on the director."""

    def __init__(self, network: Network) -> None:
        lan = network.bridge()
        self.farm = Farm()
        self.client = network.node("client")
        self.director = network.node("director")
        self.servers = [network.node(name) for name in NAMES]
        self.client.attach(
            lan, *(f"{own}/24" for own in (CLIENT, DIRECT)), *(f"{own}/64" for own in (CLIENT6, DIRECT6))
        )
        self.director.attach(lan, "192.0.2.1/24", "2001:db8::1/64")
        for number, server in enumerate(self.servers, 11):
            server.attach(lan, f"192.0.2.{number}/24", f"2001:db8::{number}/64")
        self.daemon: Kad | None = None
        """The last that was started."""
        self._prepare()

    def clear(self) -> None:
        """Whatever a test that failed has left on the director."""
        if self.daemon is not None:
            self.daemon.close()
        ipvsadm(self.director, "-C")
        self.farm.hold = False

    def _prepare(self) -> None:
        director, client = self.director, self.client
        every = (VIP, VIP6, *GROUP, *ALL_DIRECT)
        _batch(director, [_held(vip) for vip in every])
        _batch(
            client, [f"route add {vip} via {'2001:db8::1' if ':' in vip else '192.0.2.1'}" for vip in every]
        )
        director.sysctl("net.ipv4.ip_forward", "1")
        director.sysctl("net.ipv6.conf.all.forwarding", "1")
        for kind in ("all", "eth0"):
            director.sysctl(f"net.ipv4.conf.{kind}.send_redirects", "0")
            director.sysctl(f"net.ipv4.conf.{kind}.rp_filter", "0")
        for number, server in enumerate(self.servers, 11):
            self._prepare_server(server, f"192.0.2.{number}", f"2001:db8::{number}")

    @staticmethod
    def _prepare_server(server: Node, own: str, own6: str) -> None:
        # The director would tell it of the direct way to the client; IPv6 has no switch for that there.
        server.sysctl("net.ipv6.conf.eth0.accept_redirects", "0")
        for kind in ("all", "default", "eth0"):
            server.sysctl(f"net.ipv4.conf.{kind}.rp_filter", "0")
            server.sysctl(f"net.ipv4.conf.{kind}.arp_ignore", "1")
            server.sysctl(f"net.ipv4.conf.{kind}.arp_announce", "2")
        commands = [f"route add {CLIENT} via 192.0.2.1", f"route add {CLIENT6} via 2001:db8::1"]
        commands += [_held(vip) for vip in ALL_DIRECT]
        # The ends of tunnels from anywhere.
        commands += [
            f"link add i4 type ipip local {own} remote any",
            f"link add i6 type ip6tnl mode any local {own6} remote any",
            f"link add g4 type gre csum local {own} remote any",
            f"link add g6 type ip6gre csum local {own6} remote any",
            "fou add port 6080 gue",
            *(f"link set {name} up" for name in ("i4", "i6", "g4", "g6")),
        ]
        _batch(server, commands)
        server.ip("-6", "fou", "add", "port", "6080", "gue")

    def serve(self, *, port: int = 80, also: tuple[str, ...] = ()) -> None:
        """Every server at its own addresses, and at ``also``."""
        for number, server in enumerate(self.servers, 11):
            for address in (f"192.0.2.{number}", f"2001:db8::{number}", *also):
                self.farm.serve(server, address, port, NAMES[number - 11])

    def bring_back(self, number: int, *, port: int = 80) -> None:
        for address in (f"192.0.2.{11 + number}", f"2001:db8::{11 + number}"):
            self.farm.serve(self.servers[number], address, port, NAMES[number])

    def stop(self, number: int, *, port: int = 80) -> None:
        """That server refuses: at its own addresses, which are those that are checked."""
        server = self.servers[number]
        for address in (f"192.0.2.{11 + number}", f"2001:db8::{11 + number}"):
            self.farm.stop(server, address, port)


def _held(address: str) -> str:
    return f"addr add {address}/128 dev lo nodad" if ":" in address else f"addr add {address}/32 dev lo"


def _batch(node: Node, commands: list[str]) -> None:
    """Many ``ip`` commands at the price of one."""
    with node.entered():
        subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


@pytest.fixture(scope="module")
def plant() -> Iterator[Plant]:
    subprocess.run(["modprobe", "-a", "ipip", "ip6_tunnel", "ip_gre", "ip6_gre", "fou", "fou6"], check=True)
    with Network() as network:
        made = Plant(network)
        try:
            yield made
        finally:
            made.farm.close()


def service(vip: str, settings: str, *, per_server: str = "", port: int = 80) -> str:
    """One virtual server with all three, checked every second."""
    six = ":" in vip
    lines = [f"virtual_server {vip} {port} {{" if vip[0].isdigit() else f"virtual_server {vip} {{"]
    lines += ["delay_loop 1", settings]
    if not vip.startswith("fwmark"):
        lines.append("protocol TCP")
    for number in (11, 12, 13):
        address = f"2001:db8::{number}" if six else f"192.0.2.{number}"
        shown = "" if vip.startswith("fwmark") else f" {port}"
        check = "TCP_CHECK {\nconnect_timeout 2\nretry 1\ndelay_before_retry 1\nconnect_port 80\n}"
        lines.append(f"real_server {address}{shown} {{\n{per_server}\n{check}\n}}")
    return "\n".join([*lines, "}", ""])


def whole(services: str) -> str:
    """The file: what cannot change by a reload stands in front."""
    return "global_defs {\nrouter_id test\nnftables_ipvs\n}\n" + services


@contextlib.contextmanager
def balanced(plant: Plant, text: str, *, lines: int, foreign: str = "") -> Iterator[Kad]:
    """kad on the director, its table filled. ``foreign``: somebody else's service, there before."""
    plant.clear()
    if foreign:
        ipvsadm(plant.director, *foreign.split())
    with Kad(plant.director, whole(text)) as daemon:
        plant.daemon = daemon
        poll(lambda: len(table(plant.director)) == lines, f"{lines} lines", seconds=PATIENCE_S, every=0.2)
        yield daemon


def everyone(plant: Plant, vip: str, times: int = 6, *, directly: bool = False) -> Counter[str]:
    sources = (DIRECT, DIRECT6) if directly else (CLIENT, CLIENT6)
    return ask_often(plant.client, vip, 80, times, source=sources[":" in vip])


def gone(plant: Plant, number: int) -> bool:
    words = (f"192.0.2.{11 + number}:80", f"2001:db8::{11 + number}]:80")
    live = [line for line in table(plant.director) if line.startswith("-a")]
    return not any(word in line for line in live for word in words)


@pytest.fixture(scope="module")
def daemon(plant: Plant) -> Iterator[Kad]:
    """kad with everything the first tests need."""
    node = plant.director
    chain = "add chain t c { type filter hook prerouting priority -150; }"
    rules = f"add table t; {chain}; add rule t c tcp dport 8080 mark set 7"
    with node.entered():
        subprocess.run(["nft", rules], check=True)
    plant.serve(also=ALL_DIRECT)
    for number, server in enumerate(plant.servers, 11):
        for port in (81, 82, 8080):
            plant.farm.serve(server, f"192.0.2.{number}", port, NAMES[number - 11])
    blocks = [service(VIP, "lvs_sched rr\nlvs_method NAT"), service(VIP6, "lvs_sched rr\nlvs_method NAT")]
    for kind, method in DIRECTLY.items():
        blocks += [service(vip, f"lvs_sched rr\nlvs_method {method}") for vip in vips(kind)]
    blocks += [
        service("fwmark 7", "lvs_sched rr\nlvs_method NAT"),
        service(VIP, "lvs_sched rr\nlvs_method NAT\npersistence_timeout 100", port=81),
        service(VIP, "lvs_sched rr\nlvs_method NAT", per_server="uthreshold 1", port=82),
        service("group G", "lvs_sched rr\nlvs_method NAT"),
        f"virtual_server_group G {{\n{GROUP[0]}-{GROUP[-1].rpartition('.')[2]} 80\n}}\n",
    ]
    with balanced(plant, "".join(blocks), lines=4 * (len(blocks) - 1)) as made:
        yield made


def test_nat(plant: Plant, daemon: Kad) -> None:
    for vip in (VIP, VIP6):
        assert everyone(plant, vip) == {"one": 2, "two": 2, "three": 2}
    assert ask(plant.client, VIP, 80, source=CLIENT).split()[1] == CLIENT, "the server sees the client"


@pytest.mark.parametrize("kind", DIRECTLY)
def test_direct_routing_and_tunnels(plant: Plant, daemon: Kad, kind: str) -> None:
    for vip in vips(kind):
        assert everyone(plant, vip, directly=True) == {"one": 2, "two": 2, "three": 2}, vip


def test_a_group_that_is_one_mark(plant: Plant, daemon: Kad) -> None:
    assert "-A -f 1000 -s rr" in table(plant.director)
    for vip in GROUP:
        assert everyone(plant, vip) == {"one": 2, "two": 2, "three": 2}, vip


def test_persistence_marks_and_thresholds(plant: Plant, daemon: Kad) -> None:
    same = ask_often(plant.client, VIP, 81, 6, source=CLIENT)
    assert list(same.values()) == [6], "always the same server"
    assert ask_often(plant.client, VIP, 8080, 6, source=CLIENT) == {"one": 2, "two": 2, "three": 2}
    plant.farm.hold = True
    with contextlib.ExitStack() as held:
        said = []
        for _ in range(3):
            made = held.enter_context(connection(plant.client, VIP, 82, source=CLIENT))
            said.append(made.recv(100).split()[0].decode())
        assert sorted(said) == sorted(NAMES)
        full = ask(plant.client, VIP, 82, source=CLIENT, seconds=1)
        assert full in ("TimeoutError", "ConnectionRefusedError"), "all three are full"
    plant.farm.hold = False


def test_the_death_of_a_server_and_what_was_counted(plant: Plant, daemon: Kad) -> None:
    plant.stop(1)
    poll(lambda: gone(plant, 1), "the dead server to go", seconds=PATIENCE_S, every=0.2)
    for vip in (VIP, VIP6):
        assert everyone(plant, vip, 4) == {"one": 2, "three": 2}
    # Eleven connections of IPv4 in all, and none of the checks; the kernel adds up every two seconds.
    eleven = re.compile(rf"TCP  {re.escape(VIP)}:80 +11 ")
    words = ("-Ln", "--stats", "-t", f"{VIP}:80")
    poll(lambda: eleven.search(ipvsadm(plant.director, *words)), "eleven", seconds=PATIENCE_S, every=0.3)
    counted = poll(
        lambda: (seen := by_ipvsadm(plant)) == by_kad(daemon) and seen,
        lambda: f"ipvsadm: {by_ipvsadm(plant)}\nkad: {by_kad(daemon)}",
        seconds=PATIENCE_S,
        every=0.5,
    )
    assert counted["TCP", f"{VIP}:80"][0] == [11, *counted["TCP", f"{VIP}:80"][0][1:]]
    assert len(counted) == 2 + len(ALL_DIRECT) + 4
    shown = daemon.kadctl("status").stdout
    assert re.search(rf"\[{re.escape(VIP)}\]:tcp:80 +UP .* rr +[0-9]+ +11\b", shown), shown
    assert daemon.count("Removing service") == 2 + len(ALL_DIRECT) + 4
    plant.bring_back(1)
    poll(lambda: not gone(plant, 1), "the server to come back", seconds=PATIENCE_S, every=0.2)
    assert daemon.stop(PATIENCE_S) == 0
    assert table(plant.director) == []


Counted = dict[tuple[str, str], list[list[int]]]
"""Of each service by protocol and place: its own five counters, then each destination's, with its open and
closing connections."""


def by_ipvsadm(plant: Plant) -> Counted:
    found: Counted = {}
    live = iter(ipvsadm(plant.director, "-Ln").splitlines()[3:])
    for line, other in zip(
        ipvsadm(plant.director, "-Ln", "--stats", "--exact").splitlines()[3:], live, strict=True
    ):
        words = line.split()
        if words[0] != "->":
            found[words[0], words[1]] = [list(map(int, words[-5:]))]
            last = found[words[0], words[1]]
        else:
            last.append([*map(int, words[2:]), *map(int, other.split()[-2:])])
    return {key: [value[0], *sorted(value[1:])] for key, value in found.items()}


def by_kad(daemon: Kad) -> Counted:
    found: Counted = {}
    for server in msgspec.to_builtins(status_of(daemon))["virtual_servers"]:
        for each in server["services"]:
            protocol, _, mark = each["name"].rpartition("FWM ")
            if not mark.isdigit():
                address, protocol, port = each["name"].rsplit(":", 2)
                protocol, place = protocol.upper(), f"{address}:{port}"
                place = place if place.count(":") > 1 else place.replace("[", "").replace("]", "")
            else:
                protocol, place = "FWM", mark
            destinations = [
                [*each["traffic"].values(), each["active"], each["inactive"]] for each in each["destinations"]
            ]
            found[protocol, place] = [list(each["traffic"].values()), *sorted(destinations)]
    return found


def test_a_checker_killed_with_a_third_of_its_servers_down(plant: Plant) -> None:
    """None comes back that is dead, none goes that lives, no connection is dropped, and no client notices;
    nor by a reload. Somebody else's service stays."""
    director = plant.director
    text = service(VIP, "lvs_sched rr\nlvs_method NAT") + service(VIP6, "lvs_sched rr\nlvs_method NAT")
    with (
        balanced(plant, text, lines=9, foreign="-A -t 203.0.113.9:9 -s lc") as daemon,
        contextlib.ExitStack() as held,
    ):
        plant.farm.hold = True
        plant.stop(2)
        held.callback(plant.bring_back, 2)
        poll(lambda: gone(plant, 2), "the dead server to go", seconds=PATIENCE_S, every=0.2)
        wanted = table(director)
        assert "-A -t 203.0.113.9:9 -s lc" in wanted and len(wanted) == 7
        open_ones = [held.enter_context(_held_open(plant, vip)) for vip in (VIP, VIP6) * 2]
        for made in open_ones:
            made.recv(100)
        plant.farm.hold = False
        errors: list[str] = []
        over = threading.Event()
        asking = threading.Thread(target=_keep_asking, args=(plant, over, errors))
        held.callback(asking.join, 10)
        held.callback(over.set)
        asking.start()
        for _ in range(2):
            old = daemon._pid_of("checkers")
            os.kill(old, signal.SIGKILL)
            poll(lambda old=old: daemon._pid_of("checkers") != old, "another checker", seconds=PATIENCE_S)  # type: ignore[misc]
            remains(lambda: table(director) == wanted, "the table", seconds=4, every=0.1)
        # Not another scheduler: the kernel itself refuses clients while it changes one.
        daemon.configure(whole(re.sub(r"(real_server \S+ 80 {\n)", r"\1weight 2\n", text)))
        daemon.reload_surely(PATIENCE_S)
        wanted = sorted(line.replace("-w 1", "-w 2") for line in wanted)
        poll(
            lambda: table(director) == wanted,
            lambda: "\n".join(["the reload", *table(director), daemon.said()[-5000:]]),
            seconds=PATIENCE_S,
            every=0.2,
        )
        over.set()
        asking.join(10)
        assert errors == []
        for made in open_ones:
            made.settimeout(0.1)
            with pytest.raises(TimeoutError):
                made.recv(1)
        daemon.stop(PATIENCE_S)
        assert table(director) == ["-A -t 203.0.113.9:9 -s lc"]


def _held_open(plant: Plant, vip: str) -> contextlib.AbstractContextManager[socket.socket]:
    return connection(plant.client, vip, 80, source=CLIENT6 if ":" in vip else CLIENT)


def _keep_asking(plant: Plant, over: threading.Event, errors: list[str]) -> None:
    while not over.is_set():
        for vip in (VIP, VIP6):
            said = ask(plant.client, vip, 80, source=CLIENT6 if ":" in vip else CLIENT)
            if said.partition(" ")[0] not in NAMES:
                errors.append(f"{vip}: {said}")


def test_weights_a_quorum_and_its_sorry_server(plant: Plant) -> None:
    """The third server has half of the weight: without it there is no quorum, and all go to the sorry server
    until it is back. A reload changes the weights."""
    settings = "lvs_sched wrr\nlvs_method NAT\nquorum 4\nsorry_server 192.0.2.11 90"
    weights = iter((1, 2, 3))
    text = re.sub(
        r"(real_server [0-9.]+ 80 {\n)", lambda m: f"{m[1]}weight {next(weights)}\n", service(VIP, settings)
    )
    plant.farm.serve(plant.servers[0], "192.0.2.11", 90, "sorry")
    with balanced(plant, text, lines=4) as daemon:
        assert everyone(plant, VIP) == {"one": 1, "two": 2, "three": 3}
        plant.stop(2)
        poll(lambda: len(table(plant.director)) == 2, "the sorry server", seconds=PATIENCE_S, every=0.2)
        assert everyone(plant, VIP, 3) == {"sorry": 3}
        plant.bring_back(2)
        poll(lambda: len(table(plant.director)) == 4, "the servers", seconds=PATIENCE_S, every=0.2)
        assert everyone(plant, VIP) == {"one": 1, "two": 2, "three": 3}
        daemon.configure(whole(text.replace("weight 3", "weight 1").replace("weight 2", "weight 4")))
        daemon.reload_surely(PATIENCE_S)
        live = f"-a -t {VIP}:80 -r 192.0.2.12:80 -m -w 4"
        poll(lambda: live in table(plant.director), "the reload", seconds=PATIENCE_S, every=0.2)
        assert everyone(plant, VIP) == {"one": 1, "two": 4, "three": 1}
        daemon.stop(PATIENCE_S)
    plant.farm.stop(plant.servers[0], "192.0.2.11", 90)


def test_a_server_removed_from_the_file_while_nothing_ran(plant: Plant) -> None:
    text = service(VIP, "lvs_sched rr\nlvs_method NAT")
    with balanced(plant, text, lines=4) as daemon:
        daemon.kill_all()
        assert len(table(plant.director)) == 4, "what was balanced stays so"
        cut = re.sub(r"real_server 192\.0\.2\.13 80 \{.*?\}\n\}", "", text, flags=re.DOTALL)
        daemon.configure(whole(cut))
        daemon.start()
        poll(lambda: gone(plant, 2), "the removed server to go", seconds=PATIENCE_S, every=0.2)
        assert everyone(plant, VIP, 4) == {"one": 2, "two": 2}
        # Nothing of kad's is left behind in the namespace when it stops.
        daemon.stop(PATIENCE_S)
        assert table(plant.director) == []
        assert processes_in(plant.director) == []
