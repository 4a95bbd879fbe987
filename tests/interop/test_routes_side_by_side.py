"""Routes, rules and addresses: the same text under keepalived and kad has to make the same kernel state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import is_newer, needs_keepalived
from tests.support.namespaces import Network, Node, poll
from tests.support.spellings import ADDRESSES, ROUTES, RULES

pytestmark = pytest.mark.root

KERNELS_OWN = {"2", "kernel"}


def block(name: str, lines: Iterable[str]) -> str:
    return "\n".join([f"{name} {{", *lines, "}", ""])


HEAD = "global_defs {\nrouter_id test\n}\n"


def instance(*blocks: str, addresses: Iterable[str] = ("192.0.2.100/24",)) -> str:
    return HEAD + block(
        "vrrp_instance VI_1",
        (
            "interface eth0",
            "virtual_router_id 51",
            "version 3",
            "advert_int 0.2",
            "priority 254",
            block("virtual_ipaddress", ("192.0.2.100/24",)),
            block("virtual_ipaddress_excluded", addresses) if addresses else "",
            *blocks,
        ),
    )


@pytest.fixture
def nodes(network: Network) -> Iterator[tuple[Node, Node]]:
    needs_keepalived()
    made = []
    for label in ("keepalived", "kad"):
        node = network.node(label)
        lan = network.bridge()
        node.attach(lan, "192.0.2.1/24", "2001:db8::1/64")
        node.attach(lan, "192.0.3.1/24", "2001:db8:1::1/64")
        made.append(node)
    yield made[0], made[1]


def state_of(node: Node) -> list[str]:
    """Every address, route and rule that is not the kernel's own doing, in full, in the kernel's order."""
    found: list[Any] = []
    for link in node.ip_json("-N", "-d", "addr", "show"):
        found += [[link["ifname"], each] for each in link["addr_info"]]
    for family in ("-4", "-6"):
        routes = node.ip_json("-N", "-d", family, "route", "show", "table", "all")
        found += [each for each in routes if each.get("protocol") not in KERNELS_OWN]
        found += node.ip_json("-N", "-d", family, "rule", "show")
    return [json.dumps(_steady(each), sort_keys=True) for each in found]


def _steady(found: Any) -> Any:
    """Without what depends on the moment: lifetimes that run down, to 10 s."""
    if isinstance(found, list) and "preferred_life_time" in found[1]:
        left = found[1]["preferred_life_time"]
        return [found[0], {**found[1], "preferred_life_time": left if left > 10**6 else round(left, -2)}]
    return found


def settled(node: Node, daemon: Daemon, done: Callable[[], bool]) -> list[str]:
    """The state once ``done``, and twice the same."""
    poll(done, daemon.said, seconds=60)
    last: list[str] = []

    def same() -> bool:
        nonlocal last
        before, last = last, state_of(node)
        return last == before

    poll(same, "a state that lasts", seconds=20, every=0.2)
    return last


def side_by_side(
    nodes: tuple[Node, Node], text: str, done: Callable[[Node, Daemon], bool]
) -> tuple[list[str], list[str]]:
    """What keepalived and what kad make of it, beyond what was there before; and nothing is left behind."""
    results = []
    for node, daemon in zip(nodes, (Keepalived(nodes[0], text), Kad(nodes[1], text)), strict=True):
        before = set(state_of(node))
        with daemon:
            after = settled(node, daemon, lambda node=node, daemon=daemon: done(node, daemon))
            results.append([each for each in after if each not in before])
            daemon.stop(60)
        left = set(state_of(node)) - before
        assert all(node is nodes[0] and is_left_by_keepalived(each) for each in left), daemon.program
    return results[0], results[1]


def is_left_by_keepalived(item: str) -> bool:
    """It names the peer to remove an address that has one, and the kernel finds none; 2.3.3 leaves routes."""
    return '"local": "10.11' in item or (is_newer() and '"dst": ' in item and '"action"' not in item)


def has(node: Node, *words: str) -> bool:
    return bool(node.ip(*words).strip())


def test_static_items_of_every_spelling(nodes: tuple[Node, Node]) -> None:
    addresses = [line if " dev " in line else f"{line} dev eth0" for line in ADDRESSES]
    text = HEAD + block("static_ipaddress", addresses)
    text += block("static_routes", ROUTES) + block("static_rules", RULES)
    # Something keepalived's VRRP process runs for.
    text += instance(addresses=()).removeprefix(HEAD)
    theirs, ours = side_by_side(
        nodes,
        text,
        lambda node, daemon: (
            has(node, "-6", "rule", "show", "preference", "207") and node.holds("192.0.2.100")
        ),
    )
    assert len(ours) == len(ADDRESSES) + 1 + len(ROUTES) + len(RULES)
    assert sorted(ours) == sorted(theirs)


def test_virtual_items_of_every_spelling(nodes: tuple[Node, Node]) -> None:
    text = instance(block("virtual_routes", ROUTES), block("virtual_rules", RULES), addresses=ADDRESSES)
    theirs, ours = side_by_side(
        nodes,
        text,
        lambda node, daemon: has(node, "-6", "rule", "show", "preference", "207"),
    )
    assert len(ours) == len(ADDRESSES) + 1 + len(ROUTES) + len(RULES)
    assert ours == theirs, "in the same order, too"


AS_TO = ("10.70.0.0/24 as to 100 via 192.0.2.254 dev eth0", "10.71.0.0/24 as 100 via 192.0.2.254 dev eth0")


@pytest.mark.parametrize("name", ["virtual_routes", "static_routes"])
def test_a_translated_label_is_ignored_and_the_route_is_set(nodes: tuple[Node, Node], name: str) -> None:
    routes = block(name, AS_TO)
    text = instance(routes, addresses=()) if name == "virtual_routes" else instance(addresses=()) + routes
    theirs, ours = side_by_side(nodes, text, lambda node, daemon: node.holds("192.0.2.100"))
    assert [route for route in ours if "10.7" in route] and sorted(ours) == sorted(theirs)


class Watch:
    """``ip monitor`` in a node: which kinds of objects changed, in order."""

    def __init__(self, node: Node) -> None:
        words = ["ip", "-o", "monitor", "address", "route", "rule", "label"]
        self._process = node.start(words, stdout=subprocess.PIPE)
        self._node = node
        # A rule of ours says that it listens, and where to cut.
        self._mark("1")

    def _mark(self, preference: str) -> None:
        self._node.ip("rule", "add", "preference", preference, "table", "99")
        self._node.ip("rule", "del", "preference", preference)

    def kinds(self) -> list[str]:
        """Runs of equal changes: "+addr", "-route" …"""
        self._mark("2")
        assert self._process.stdout is not None
        lines: list[str] = []
        for line in self._process.stdout:
            lines.append(line)
            if "Deleted" in line and "2:\t" in line:
                break
        self._process.kill()
        found: list[str] = []
        for line in lines:
            if "lookup 99" in line or "proto kernel" in line or "proto 2 " in line:
                continue
            kind = line.partition("]")[0].strip("[").lower()
            change = ("-" if "Deleted" in line else "+") + kind
            if kind in ("addr", "route", "rule") and found[-1:] != [change]:
                found.append(change)
        return found


ORDERED = instance(
    block(
        "virtual_routes",
        ("10.1.0.0/24 via 192.0.2.254 dev eth0 src 192.0.2.100", "2001:db8:a1::/48 dev eth0 metric 7"),
    ),
    block("virtual_rules", ("from 10.1.0.0/24 table 5 preference 50",)),
    addresses=("192.0.3.100/24 dev eth1",),
)


def test_the_order_of_coming_and_going(nodes: tuple[Node, Node]) -> None:
    heard = []
    for node, daemon in zip(nodes, (Keepalived(nodes[0], ORDERED), Kad(nodes[1], ORDERED)), strict=True):
        watch = Watch(node)
        with daemon:
            poll(lambda node=node: has(node, "rule", "show", "preference", "50"), daemon.said, seconds=60)
            daemon.stop(60)
        heard.append(watch.kinds())
    assert heard[0] == heard[1]
    assert heard[1] == ["+addr", "+route", "+rule", "-rule", "-route", "-addr"]


@pytest.mark.parametrize(
    "words",
    [
        ("route", "del", "10.1.0.0/24"),
        ("-6", "route", "del", "2001:db8:a1::/48"),
        ("rule", "del", "preference", "50"),
        ("addr", "del", "192.0.3.100/24", "dev", "eth1"),
    ],
)
def test_what_is_deleted_is_taken_up_again(nodes: tuple[Node, Node], words: tuple[str, ...]) -> None:
    states = []
    for node, daemon in zip(nodes, (Keepalived(nodes[0], ORDERED), Kad(nodes[1], ORDERED)), strict=True):
        with daemon:
            poll(lambda node=node: has(node, "rule", "show", "preference", "50"), daemon.said, seconds=60)
            before = settled(node, daemon, lambda: True)
            node.ip(*words)
            daemon.wait_for("Entering MASTER STATE", times=2)
            assert sorted(settled(node, daemon, lambda: True)) == sorted(before)
            entered = [
                line.split("Entering ")[1] for line in daemon.said().splitlines() if "Entering" in line
            ]
            states.append(entered)
    assert states[0] == states[1]


def test_a_peer_hears_nothing_of_reloads_and_crashes(network: Network) -> None:
    needs_keepalived()
    lan, far = network.bridge(), network.bridge("far")
    one, other = network.node("kad"), network.node("keepalived")
    for node, last in ((one, 1), (other, 2)):
        node.attach(lan, f"192.0.2.{last}/24", f"2001:db8::{last}/64")
        node.attach(far, f"192.0.3.{last}/24")
    with Kad(one, ORDERED) as kad, Keepalived(other, ORDERED.replace("priority 254", "priority 50")) as peer:
        poll(lambda: has(one, "rule", "show", "preference", "50"), kad.said, seconds=60)
        peer.wait_for("Entering BACKUP STATE")
        mastered = peer.count("Entering MASTER STATE")
        kad.configure(ORDERED.replace("table 5", "table 6").replace("10.1.0.0/24 via", "10.2.0.0/24 via"))
        kad.reload()
        poll(lambda: has(one, "rule", "show", "table", "6"), kad.said, seconds=60)
        poll(lambda: has(one, "route", "show", "10.2.0.0/24"), kad.said, seconds=60)
        assert not has(one, "route", "show", "10.1.0.0/24")
        before = sorted(settled(one, kad, lambda: True))
        old = kad.vrrp_pid()
        os.kill(old, signal.SIGKILL)
        kad.new_vrrp_pid(old)
        kad.wait_for("going on as MASTER")
        assert sorted(settled(one, kad, lambda: True)) == before
        assert kad.count("Entering MASTER STATE") == 1
        assert peer.count("Entering MASTER STATE") == mastered
        assert state_of(other) and not has(other, "rule", "show", "preference", "50")
        kad.stop(60)
        poll(lambda: has(other, "rule", "show", "preference", "50"), peer.said, seconds=60)
