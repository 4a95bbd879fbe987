"""Virtual routes and rules in a real kernel: mastership, foreign hands, links that come and go, crashes."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from kad.config.model.routing import Route, Rule
from kad.config.model.vrrp import VirtualAddress
from kad.kernel.route_monitor import RouteMonitor
from kad.kernel.routes import RTM_DELROUTE, RTM_NEWROUTE
from kad.kernel.rules import RTM_DELRULE
from kad_vrrp.core.actions import State
from tests.support.configuration import read
from tests.support.namespaces import Network, Node, poll, remains
from tests.support.vrrp_host import instance
from tests.support.vrrp_node import VrrpNode

pytestmark = pytest.mark.root

ROUTES = """
    198.51.100.0/24 via 192.0.2.254 dev eth0 src 192.0.2.100 metric 7
    198.51.101.0/24 dev eth1 table 77 scope link
    2001:db8:9::/48 via 2001:db8::fe dev eth0
    blackhole 203.0.113.0/24
"""
RULES = """
    from 192.0.2.0/24 table 77 preference 500
    inet6 to 2001:db8:7::/48 table 78 preference 501
"""


def routes_of(text: str) -> tuple[Route, ...]:
    return read(f"static_routes {{\n{text}\n}}").config.vrrp.static_routes


def rules_of(text: str) -> tuple[Rule, ...]:
    return read(f"static_rules {{\n{text}\n}}").config.vrrp.static_rules


def routed(routes: str = ROUTES, rules: str = RULES, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "advert_int_us": 100_000,
        "virtual_addresses": (VirtualAddress("192.0.2.100", 24),),
        "virtual_routes": routes_of(routes),
        "virtual_rules": rules_of(rules),
        "notify": instance().notify.__class__(),
    }
    return instance(**(settings | changes))


@pytest.fixture
def node(network: Network) -> Iterator[Node]:
    made = network.node("one")
    lan = network.bridge()
    made.attach(lan, "192.0.2.1/24", "2001:db8::1/64")
    made.attach(lan, "192.0.3.1/24")
    yield made


def ours(node: Node) -> set[str]:
    """Destinations of routes and preferences of rules of our protocol."""
    found = set()
    for family in ("-4", "-6"):
        for each in node.ip_json("-N", family, "route", "show", "table", "all"):
            if str(each.get("protocol")) == "18":
                found.add(each["dst"])
        for each in node.ip_json(family, "rule", "show"):
            if each["priority"] not in (0, 32766, 32767):
                found.add(str(each["priority"]))
    return found


EVERYTHING = {"198.51.100.0/24", "198.51.101.0/24", "2001:db8:9::/48", "203.0.113.0/24", "500", "501"}


def test_a_master_has_them_and_a_stopped_one_has_not(node: Node) -> None:
    with VrrpNode(node, routed()) as kad:
        kad.start()
        kad.becomes("MASTER")
        poll(lambda: ours(node) == EVERYTHING, lambda: f"{ours(node)}; {kad.log()}")
        (route,) = node.ip_json("route", "show", "198.51.100.0/24")
        assert (route["gateway"], route["dev"], route["prefsrc"], route["metric"]) == (
            "192.0.2.254",
            "eth0",
            "192.0.2.100",
            7,
        )
        kad.stop()
        assert ours(node) == set()


@pytest.mark.parametrize(
    "words",
    [
        ("route", "del", "198.51.100.0/24"),
        ("route", "del", "198.51.101.0/24", "table", "77"),
        ("-6", "route", "del", "2001:db8:9::/48"),
        ("rule", "del", "preference", "500"),
        ("-6", "rule", "del", "preference", "501"),
    ],
)
def test_a_deletion_is_noticed_and_made_good(node: Node, words: tuple[str, ...]) -> None:
    with VrrpNode(node, routed()) as kad:
        kad.start()
        kad.becomes("MASTER")
        poll(lambda: ours(node) == EVERYTHING, "all of them")
        node.ip(*words)
        poll(lambda: kad.states() == ["BACKUP", "MASTER", "BACKUP", "MASTER"], kad.log)
        poll(lambda: ours(node) == EVERYTHING, lambda: f"{ours(node)}; {kad.log()}")
        assert "was deleted by" in kad.log()
        # Again within ten seconds: put back, and nobody hears of it.
        node.ip(*words)
        poll(lambda: "again; putting it back" in kad.log(), kad.log)
        poll(lambda: ours(node) == EVERYTHING, lambda: f"{ours(node)}; {kad.log()}")
        assert kad.states() == ["BACKUP", "MASTER", "BACKUP", "MASTER"]


def test_a_replaced_route_is_set_again_and_nobody_steps_down(node: Node) -> None:
    with VrrpNode(node, routed()) as kad:
        kad.start()
        kad.becomes("MASTER")
        poll(lambda: ours(node) == EVERYTHING, "all of them")
        node.ip("route", "replace", "198.51.100.0/24", "via", "192.0.2.253", "metric", "7", "proto", "static")
        assert ours(node) == EVERYTHING - {"198.51.100.0/24"}
        poll(lambda: ours(node) == EVERYTHING, lambda: f"{ours(node)}; {kad.log()}")
        assert len(node.ip_json("route", "show", "198.51.100.0/24")) == 2, "theirs is left alone"
        assert "was replaced by" in kad.log() and "with protocol 4 (static)" in kad.log()
        assert kad.states() == ["BACKUP", "MASTER"]


def test_the_kernel_drops_what_is_of_no_concern(node: Node) -> None:
    heard: list[int] = []
    with node.entered():
        monitor = RouteMonitor(lambda message: heard.append(message.kind), lambda: heard.append(0))
    monitor.watch()
    for protocol in ("static", "18"):
        for verb in ("add", "del"):
            node.ip("route", verb, "198.51.100.0/24", "dev", "eth0", "proto", protocol)
            node.ip("-6", "route", verb, "2001:db8:9::/48", "dev", "eth0", "proto", protocol)
    node.ip("rule", "add", "preference", "5", "table", "5")
    node.ip("rule", "del", "preference", "5")
    node.ip("route", "add", "198.51.100.0/24", "dev", "eth0")
    node.ip("route", "replace", "198.51.100.0/24", "dev", "eth1")
    while monitor.drain():
        pass
    assert heard == [RTM_DELROUTE, RTM_DELROUTE, RTM_DELRULE, RTM_NEWROUTE]
    monitor.close()


def test_other_peoples_routes_and_rules_are_none_of_our_business(node: Node) -> None:
    with VrrpNode(node, routed()) as kad:
        kad.start()
        kad.becomes("MASTER")
        poll(lambda: ours(node) == EVERYTHING, "all of them")
        for verb in ("add", "del"):
            node.ip("route", verb, "198.51.100.0/24", "dev", "eth1", "metric", "9")
            node.ip("route", verb, "198.51.100.0/24", "dev", "eth1", "metric", "7", "proto", "18", "tos", "4")
            node.ip("rule", verb, "from", "192.0.3.0/24", "table", "77", "preference", "500")
        remains(lambda: kad.state() == "MASTER", "mastership", seconds=0.5)
        assert ours(node) == EVERYTHING


def test_untracked_routes_come_back_with_their_link(node: Node) -> None:
    loose = "\n".join(f"{line} no_track" for line in ROUTES.strip().splitlines())
    with VrrpNode(node, routed(loose)) as kad:
        kad.start()
        kad.becomes("MASTER")
        poll(lambda: ours(node) == EVERYTHING, "all of them")
        node.set_link("eth1", "down")
        poll(lambda: "198.51.101.0/24" not in ours(node), "the kernel drops it without a word")
        node.set_link("eth1", "up")
        poll(lambda: ours(node) == EVERYTHING, lambda: f"{ours(node)}; {kad.log()}")
        assert kad.states() == ["BACKUP", "MASTER"]


def test_a_killed_master_goes_on_and_nothing_is_lost(node: Node) -> None:
    with VrrpNode(node, routed()) as kad:
        kad.start()
        kad.becomes("MASTER")
        poll(lambda: ours(node) == EVERYTHING, "all of them")
        kad.signal(signal.SIGKILL)
        kad.wait()
        node.ip("route", "del", "198.51.100.0/24")
        kad.start()
        poll(lambda: ours(node) == EVERYTHING, lambda: f"{ours(node)}; {kad.log()}")
        assert kad.states() == ["BACKUP", "MASTER"]
        assert kad.stop() == 0
        assert ours(node) == set()


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_killed_in_the_middle_of_a_take_over(node: Node, number: int) -> None:
    with VrrpNode(node, routed()) as kad:
        kad.start(dies_at=number, becoming=State.MASTER)
        assert kad.wait() == -signal.SIGKILL
        assert kad.trail() == ["Remember", "StateChanged", "SendAdvert", "ChangeAddresses"][: number - 1]
        kad.start()
        poll(kad.ready, "readiness")
        poll(lambda: ours(node) == EVERYTHING, lambda: f"{ours(node)}; {kad.log()}")
        assert kad.stop() == 0
        assert ours(node) == set()


def test_a_refused_route_is_missed_and_said(node: Node) -> None:
    with VrrpNode(node, routed("198.51.100.0/24 via 10.99.99.99")) as kad:
        kad.start()
        kad.becomes("MASTER")
        poll(lambda: node.holds("192.0.2.100"), "the address")
        poll(lambda: "cannot add route 198.51.100.0/24 via 10.99.99.99" in kad.log(), "the complaint")
        remains(lambda: kad.state("VI_1") == "MASTER", "MASTER", seconds=0.3)


def test_what_another_left_is_removed_at_the_start(node: Node) -> None:
    node.ip("route", "add", "blackhole", "203.0.113.0/24", "proto", "18")
    node.ip("rule", "add", "from", "192.0.2.0/24", "table", "77", "preference", "500", "protocol", "18")
    with VrrpNode(node, routed(advert_int_us=10_000_000)) as kad:
        kad.start()
        kad.becomes("BACKUP")
        poll(lambda: ours(node) == set(), lambda: str(ours(node)))
