"""Interfaces that come late, go, come back as others, and links that are polled."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kad_vrrp.io.linkbeat import ask
from tests.support.control import status_of, wait_for_generation
from tests.support.daemon import Kad
from tests.support.faulty_daemon import FaultyKad
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Bridge, Network, Node, poll
from tests.support.neighbours import who_answers

pytestmark = [pytest.mark.root, pytest.mark.slow]

VIP = "192.0.2.100"
FAST = vrrp_instance(version=3, advert_int=0.3)


@pytest.fixture
def pair(network: Network) -> Iterator[tuple[Node, Node, Bridge]]:
    lan = network.bridge()
    node, client = network.node("node"), network.node("client")
    client.attach(lan, "192.0.2.9/24")
    yield node, client, lan


def test_links_are_asked_by_what_works(pair: tuple[Node, Node, Bridge]) -> None:
    node, _, lan = pair
    node.attach(lan, "192.0.2.1/24")
    with node.entered():
        assert ask({"eth0": "", "absent": ""}) == {"eth0": (True, "ETHTOOL")}, "a veth has no transceiver"
        assert ask({"eth0": "MII"}) == {"eth0": (True, "ETHTOOL")}
        assert ask({"eth0": "IOCTL"}) == {"eth0": (True, "IOCTL")}
        lan.unplug(node, "eth0")
        assert ask({"eth0": ""}) == {"eth0": (False, "ETHTOOL")}
        assert ask({"eth0": "IOCTL"}) == {"eth0": (False, "IOCTL")}


@pytest.mark.parametrize(
    "words", ["linkbeat_use_polling", "linkbeat_interfaces {\neth0 ETHTOOL\n}"], ids=["all", "listed"]
)
def test_a_polled_link_counts_when_it_has_been_polled(pair: tuple[Node, Node, Bridge], words: str) -> None:
    node, _, lan = pair
    node.attach(lan, "192.0.2.1/24")
    with Kad(node, f"{words}\n{configuration(FAST)}") as kad:
        kad.wait_for("Entering MASTER STATE")
        lan.unplug(node, "eth0")
        kad.wait_for("Linkbeat reports eth0 down")
        kad.wait_for("Entering FAULT STATE")
        lan.replug(node, "eth0")
        kad.wait_for("Entering MASTER STATE", times=2)
        said = kad.said()
        back = said.index("Linkbeat reports eth0 up")
        assert said.index("Entering FAULT STATE") < back < said.rindex("Entering BACKUP STATE")
        kad.configure(configuration(FAST))
        kad.reload()
        lan.unplug(node, "eth0")
        kad.wait_for("Entering FAULT STATE", times=2)
        assert kad.count("Linkbeat reports eth0 down") == 1, "not polled any more"


def test_what_a_killed_child_has_set_is_put_back(pair: tuple[Node, Node, Bridge]) -> None:
    node, _, lan = pair
    node.attach(lan, "192.0.2.1/24")
    path = "/proc/sys/net/ipv4/conf/eth0/promote_secondaries"

    def value() -> str:
        return node.run(["cat", path]).stdout.strip()

    node.sysctl("net.ipv4.conf.eth0.promote_secondaries", "0")
    text = vrrp_instance(version=3, advert_int=0.3, extra=("promote_secondaries",))
    with Kad(node, configuration(text)) as kad:
        kad.wait_for("Entering MASTER STATE")
        poll(lambda: value() == "1", "the setting")
        pid = kad.vrrp_pid()
        os.kill(pid, signal.SIGKILL)
        kad.new_vrrp_pid(pid)
        kad.wait_for("going on as MASTER")
        assert value() == "1"
        assert kad.stop() == 0
    assert value() == "0", "as it was"


@pytest.mark.parametrize("words", ["use_vmac", "no_accept"])
def test_a_process_is_counted_though_interfaces_or_filters_are_made_first(
    pair: tuple[Node, Node, Bridge], words: str
) -> None:
    node, _, lan = pair
    node.attach(lan, "192.0.2.1/24")
    name = f"tracked{os.getpid()}"[:15]
    process = node.start(["sh", "-c", f"printf {name} >/proc/$$/comm; read waits"], stdin=subprocess.PIPE)
    tracked = f"vrrp_track_process tp {{\nprocess {name}\nquorum 1\nweight 20\n}}\n"
    text = vrrp_instance(version=3, advert_int=0.3, extra=(words, "track_process {\ntp\n}"))
    try:
        poll(lambda: Path(f"/proc/{process.pid}/comm").read_text() == f"{name}\n", "its name")
        with Kad(node, tracked + configuration(text)) as kad:
            kad.wait_for("Quorum gained for tracked process tp", seconds=15)
            kad.wait_for("Entering MASTER STATE")
    finally:
        process.kill()
        process.wait()


def test_of_configurations_that_overtake_each_other_the_newest_runs(pair: tuple[Node, Node, Bridge]) -> None:
    """Reloads that meet a child which still makes the interfaces of a former configuration."""
    node, _, lan = pair
    node.attach(lan, "192.0.2.1/24")

    def text(priority: int, *others: str) -> str:
        one = vrrp_instance(version=3, advert_int=0.3, priority=priority, extra=("use_vmac",))
        return configuration(one, *others)

    gone = vrrp_instance("GONE", vrid=52, version=3, addresses=("192.0.2.101/24",), extra=("use_vmac",))
    with FaultyKad(node, text(100, gone)) as kad:
        kad.wait_for("Entering MASTER STATE", times=2)
        old = kad.vrrp_pid()
        kad.plant("links", "pause")
        os.kill(old, signal.SIGKILL)
        kad.met("links")
        for generation, priority in ((2, 110), (3, 120)):
            kad.configure(text(priority))
            kad.reload()
            kad.wait_for(f"generation {generation} is committed")
            # Asked after it was told to become this.
            status_of(kad)
        assert not kad.count("generation 3 runs")
        kad.go_on("links")
        status = wait_for_generation(kad, 3)
        assert [(each.name, each.priority) for each in status.instances] == [("VI_1", 120)]
        assert not node.holds("192.0.2.101")
        poll(lambda: node.holds(VIP), "the address")


def test_an_interface_may_come_late_go_and_come_back_as_another(pair: tuple[Node, Node, Bridge]) -> None:
    node, client, lan = pair
    with Kad(node, configuration(FAST, settings=("dynamic_interfaces",))) as kad:
        kad.wait_for("Entering FAULT STATE")
        node.attach(lan, "192.0.2.1/24", name="eth0")
        kad.wait_for("Entering MASTER STATE")
        poll(lambda: who_answers(client, "eth0", VIP) == {node.mac("eth0")}, "the first eth0 to answer")
        first = node.ip_json("link", "show", "dev", "eth0")[0]["ifindex"]
        node.ip("link", "del", "eth0")
        kad.wait_for("Entering FAULT STATE", times=2)
        node.attach(lan, "192.0.2.1/24", name="eth0")
        assert node.ip_json("link", "show", "dev", "eth0")[0]["ifindex"] != first
        kad.wait_for("Entering MASTER STATE", times=2)
        poll(lambda: who_answers(client, "eth0", VIP) == {node.mac("eth0")}, "the second eth0 to answer")
        node.ip("link", "set", "eth0", "down")
        node.ip("link", "set", "eth0", "name", "other0")
        node.ip("link", "set", "other0", "up")
        kad.wait_for("Entering FAULT STATE", times=3)
        poll(lambda: not node.holds(VIP), "the renamed one without it")
