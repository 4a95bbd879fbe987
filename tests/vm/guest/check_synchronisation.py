"""A pair of directors whose kernels tell each other of connections, as their VRRP instance goes to and fro.

A client's connection, by direct routing, outlives the director it was made through.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.lvs import Farm, connection, ipvsadm, table
from tests.support.namespaces import Network, Node, poll, remains

VIP = "192.0.2.100"
PATIENCE_S = 180
SERVICE = f"""
virtual_server {VIP} 80 {{
    delay_loop 2
    lvs_sched rr
    lvs_method DR
    protocol TCP
    real_server 192.0.2.11 80 {{
        TCP_CHECK {{
            connect_timeout 2
        }}
    }}
}}
"""


def text(priority: int, daemon: str = "lvs_sync_daemon eth0 inst VI_1") -> str:
    # In a guest that is emulated on a busy machine a second is short.
    instance = vrrp_instance(priority=priority, advert_int=3, addresses=(f"{VIP}/24",))
    return configuration(instance, settings=(daemon,)) + SERVICE


def running(node: Node) -> list[str]:
    """State and id of the sync daemons, as ipvsadm tells them."""
    lines = ipvsadm(node, "-Ln", "--daemon").splitlines()
    return [
        f"{line.split()[0]} {line.partition('syncid=')[2].partition(',')[0]}"
        for line in lines
        if line.strip()
    ]


def echo(made: socket.socket) -> None:
    """A server's end of a conversation."""
    with made, contextlib.suppress(OSError):
        while said := made.recv(100):
            made.sendall(said)


def says(made: socket.socket, word: bytes) -> bool:
    made.sendall(word)
    return made.recv(100) == word


@pytest.fixture
def pair(network: Network) -> Iterator[tuple[Node, Node, Node]]:
    """The client and both directors; the server is there as well."""
    lan = network.bridge()
    client, first, second, server = (network.node(name) for name in ("client", "first", "second", "server"))
    client.attach(lan, "192.0.2.9/24")
    server.attach(lan, "192.0.2.11/24")
    for kind in ("all", "eth0"):
        server.sysctl(f"net.ipv4.conf.{kind}.arp_ignore", "1")
        server.sysctl(f"net.ipv4.conf.{kind}.arp_announce", "2")
    server.ip("addr", "add", f"{VIP}/32", "dev", "lo")
    farm = Farm()
    for address in ("192.0.2.11", VIP):
        farm.serve(server, address, 80, "server", dialogue=echo)
    for number, director in enumerate((first, second), 1):
        director.attach(lan, f"192.0.2.{number}/24")
        director.sysctl("net.ipv4.ip_forward", "1")
        director.sysctl("net.ipv4.conf.all.send_redirects", "0")
    try:
        yield client, first, second
    finally:
        farm.close()


def test_a_connection_outlives_its_director(pair: tuple[Node, Node, Node]) -> None:
    client, first, second = pair
    with Kad(first, text(150)) as one, Kad(second, text(100)) as other:
        for node in (first, second):
            poll(lambda node=node: len(table(node)) == 2, "the table", seconds=PATIENCE_S, every=0.2)  # type: ignore[misc]
        poll(lambda: running(first) == ["master 51"], "a master", seconds=PATIENCE_S, every=0.2)
        poll(lambda: running(second) == ["backup 51"], "a backup", seconds=PATIENCE_S, every=0.2)
        with connection(client, VIP, 80) as made:
            assert all(says(made, b"%d" % number) for number in range(5))
            known = f"192.0.2.9:{made.getsockname()[1]}"
            poll(
                lambda: known in ipvsadm(second, "-Lnc"),
                "the backup to be told",
                seconds=PATIENCE_S,
                every=0.2,
            )
            # A checker that died goes on with the daemon that runs.
            old = one._pid_of("checkers")
            os.kill(old, signal.SIGKILL)
            poll(lambda: one._pid_of("checkers") != old, "another checker", seconds=PATIENCE_S)
            remains(lambda: running(first) == ["master 51"], "the master", seconds=3, every=0.1)
            old = one.vrrp_pid()
            os.kill(old, signal.SIGKILL)
            one.new_vrrp_pid(old)
            remains(lambda: running(first) == ["master 51"], "the master", seconds=2, every=0.1)
            # The director goes: with it its daemon.
            assert one.stop(PATIENCE_S) == 0
            assert running(first) == []
            poll(
                lambda: running(second) == ["master 51"],
                "the other to be master",
                seconds=PATIENCE_S,
                every=0.2,
            )
            assert says(made, b"still there")
            one.start()
            poll(lambda: running(first) == ["master 51"], "the first again", seconds=PATIENCE_S, every=0.2)
            poll(
                lambda: running(second) == ["backup 51"],
                "the other to be backup",
                seconds=PATIENCE_S,
                every=0.2,
            )
            assert says(made, b"and now")
        # Without an instance both run, and a reload is enough.
        other.configure(text(100, "lvs_sync_daemon eth0 id 7"))
        other.reload_surely(PATIENCE_S)
        poll(
            lambda: sorted(running(second)) == ["backup 7", "master 7"],
            "both daemons",
            seconds=PATIENCE_S,
            every=0.2,
        )
        other.configure(text(100, "lvs_timeouts tcp 800"))
        other.reload_surely(PATIENCE_S)
        poll(lambda: running(second) == [], "no daemon", seconds=PATIENCE_S, every=0.2)
        assert "800 " in ipvsadm(second, "-Ln", "--timeout")


@pytest.mark.parametrize("program", [Keepalived, Kad])
def test_the_instances_own_word_of_old(pair: tuple[Node, Node, Node], program: type[Daemon]) -> None:
    _, first, _ = pair
    instance = vrrp_instance(addresses=(f"{VIP}/24",), extra=("lvs_sync_daemon_interface eth0",))
    with program(first, configuration(instance) + SERVICE) as daemon:
        poll(lambda: running(first) == ["master 0"], daemon.said, seconds=PATIENCE_S, every=0.2)
        assert "mcast=eth0" in ipvsadm(first, "-Ln", "--daemon")
        daemon.stop(PATIENCE_S)
    assert running(first) == []
