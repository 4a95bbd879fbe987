"""Static addresses, routes and rules in a real kernel, under the whole daemon."""

import signal
from collections.abc import Iterator
from os import kill
from pathlib import Path

import pytest

from tests.support.daemon import Kad
from tests.support.namespaces import Network, Node, poll

pytestmark = pytest.mark.root

STATICS = """
static_ipaddress {
    10.9.0.1/24 dev eth1
    2001:db8:9::1/64 dev eth1
}
static_routes {
    198.51.100.0/24 via 10.9.0.254 dev eth1 src 10.9.0.1
    2001:db8:77::/48 via 2001:db8:9::fe dev eth1
}
static_rules {
    from 10.9.0.0/24 table 77 preference 500
    inet6 to 2001:db8:7::/48 table 78 preference 501
}
"""
EVERYTHING = {
    "10.9.0.1/24",
    "2001:db8:9::1/64",
    "198.51.100.0/24",
    "2001:db8:77::/48",
    "500",
    "501",
}


@pytest.fixture
def node(network: Network) -> Iterator[Node]:
    made = network.node("one")
    lan = network.bridge()
    made.attach(lan, "192.0.2.1/24", "2001:db8::1/64")
    made.attach(lan)
    yield made


def ours(node: Node) -> set[str]:
    """Addresses on eth1, routes of our protocol, rules."""
    found = {each for each in node.addresses("eth1") if not each.startswith("fe80")}
    for family in ("-4", "-6"):
        for each in node.ip_json("-N", family, "route", "show", "table", "all"):
            if str(each.get("protocol")) == "18":
                found.add(each["dst"])
        rules = node.ip_json(family, "rule", "show")
        found |= {str(each["priority"]) for each in rules if each["priority"] not in (0, 32766, 32767)}
    return found


def listens(pid: int) -> bool:
    """This process has joined groups of netlink."""
    lines = [line.split() for line in Path(f"/proc/{pid}/net/netlink").read_text().splitlines()[1:]]
    return any(int(line[2]) == pid and int(line[3], 16) for line in lines)


def complete(node: Node, daemon: Kad) -> None:
    poll(lambda: ours(node) == EVERYTHING, lambda: f"{ours(node)}\n{daemon.said()}", seconds=15)


def test_there_from_start_to_stop_and_put_back(node: Node) -> None:
    with Kad(node, STATICS) as daemon:
        complete(node, daemon)
        for words in (
            ("addr", "del", "2001:db8:9::1/64", "dev", "eth1"),
            ("route", "del", "198.51.100.0/24"),
            ("-6", "route", "del", "2001:db8:77::/48"),
            ("rule", "del", "preference", "500"),
            ("-6", "rule", "del", "preference", "501"),
            ("addr", "del", "10.9.0.1/24", "dev", "eth1"),
        ):
            node.ip(*words)
            complete(node, daemon)
        # What the kernel drops without a word, and what goes with its link.
        node.set_link("eth1", "down")
        poll(lambda: ours(node) == {"10.9.0.1/24", "500", "501"}, lambda: str(ours(node)))
        node.set_link("eth1", "up")
        complete(node, daemon)
        assert "cannot" not in daemon.said()
        status = daemon.kadctl("status").stdout
        assert "route 198.51.100.0/24 via 10.9.0.254 dev eth1" in status, status
        daemon.stop()
        assert ours(node) == set()


def test_a_reload_changes_only_what_changed_and_a_crash_nothing(node: Node) -> None:
    with Kad(node, STATICS) as daemon:
        complete(node, daemon)
        monitor = node.start(["ip", "monitor", "route", "rule", "address"], stdout=-1)
        poll(lambda: listens(monitor.pid), "the monitor")
        daemon.configure(STATICS.replace("preference 500", "preference 502"))
        daemon.reload()
        wanted = EVERYTHING - {"500"} | {"502"}
        poll(lambda: ours(node) == wanted, lambda: f"{ours(node)}\n{daemon.said()}")
        monitor.terminate()
        heard = monitor.communicate(timeout=5)[0].splitlines()
        assert len(heard) == 2 and all("lookup 77" in line for line in heard), heard
        old = daemon.vrrp_pid()
        kill(old, signal.SIGKILL)
        daemon.new_vrrp_pid(old)
        poll(lambda: ours(node) == wanted, lambda: f"{ours(node)}\n{daemon.said()}")
        daemon.configure("static_rules {\nfrom 10.9.0.0/24 table 77 preference 502\n}\n")
        daemon.reload()
        poll(lambda: ours(node) == {"502"}, lambda: f"{ours(node)}\n{daemon.said()}")
        daemon.stop()
        assert ours(node) == set()


def test_what_was_there_before_stays(node: Node) -> None:
    node.ip("addr", "add", "10.9.0.1/24", "dev", "eth1")
    with Kad(node, STATICS) as daemon:
        complete(node, daemon)
        daemon.stop()
        assert ours(node) == {"10.9.0.1/24"}


VRRP = """
vrrp_instance VI_1 {
    interface eth1
    virtual_router_id 51
    advert_int 0.1
    version 3
    virtual_ipaddress {
        10.9.0.100/24
    }
}
"""


def test_adverts_may_come_from_a_static_address(node: Node) -> None:
    with Kad(node, STATICS + VRRP) as daemon:
        daemon.wait_for("(VI_1) Entering MASTER STATE")
        old = daemon.vrrp_pid()
        kill(old, signal.SIGKILL)
        daemon.new_vrrp_pid(old)
        daemon.wait_for("going on as MASTER")
        poll(lambda: '"MASTER"' in daemon.kadctl("status", "--json").stdout, daemon.said)
        assert daemon.count("Entering FAULT STATE") <= 1, daemon.said()
        assert daemon.count("Entering MASTER STATE") == 1, daemon.said()
