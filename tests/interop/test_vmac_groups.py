"""VMACs whose instances are in a sync group: kad and keepalived as a pair, both ways round.

The same story is told by keepalived alone, and must be the same story.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.interop.test_triples import has_macvlan
from tests.support.capture import Capture
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, Node, needs_namespaces, poll
from tests.support.neighbours import who_answers
from tests.support.virtual_links import own_links, settings

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow, pytest.mark.pairs]

VIPS = {"INSIDE": "192.0.2.100", "OUTSIDE": "198.51.100.100", "SIX": "2001:db8::100"}
INTERFACES = {"INSIDE": "eth0", "OUTSIDE": "eth1", "SIX": "eth0"}
GROUP = "vrrp_sync_group G {\ngroup {\nINSIDE\nOUTSIDE\nSIX\n}\n}\n"
MACS = {"INSIDE": "00:00:5e:00:01:33", "OUTSIDE": "00:00:5e:00:01:34", "SIX": "00:00:5e:00:02:35"}
MASTERS = {
    "low alone": "low",
    "high joins": "high",
    "a cable is cut": "low",
    "it is mended": "high",
    "high stops": "low",
}
PAIRS: dict[str, tuple[type[Daemon], type[Daemon]]] = {
    "kad over keepalived": (Kad, Keepalived),
    "keepalived over kad": (Keepalived, Kad),
}
DIFFERING = ("vrrp.53.arp_ignore",)
"""2.2.7 leaves an IPv6 VMAC as it is, and that one then answers ARP; 2.4 sets this, and so does kad."""


def text(priorities: tuple[int, int, int]) -> str:
    def block(name: str, vrid: int, priority: int, *addresses: str) -> str:
        return vrrp_instance(
            name,
            interface=INTERFACES[name],
            vrid=vrid,
            version=3,
            advert_int=0.2,
            priority=priority,
            extra=("use_vmac",),
            addresses=addresses,
        )

    inside, outside, six = priorities
    return configuration(
        block("INSIDE", 51, inside, "192.0.2.100/24"),
        block("OUTSIDE", 52, outside, "198.51.100.100/24"),
        block("SIX", 53, six, "fe80::99", "2001:db8::100/64"),
        GROUP,
    )


class Pair:
    """Two routers on two networks, and a client on both."""

    def __init__(self, network: Network, high: type[Daemon], low: type[Daemon]) -> None:
        self.lans = [network.bridge(), network.bridge("second")]
        self.high, self.low = self._node(network, "high", 1), self._node(network, "low", 2)
        if not has_macvlan(self.high):
            pytest.skip("this kernel has no macvlan")
        self.client = self._node(network, "client", 9)
        self.wire = [Capture(self.client, name) for name in ("eth0", "eth1")]
        self.daemons = {
            "high": high(self.high, text((150, 140, 130))),
            "low": low(self.low, text((100, 90, 80))),
        }
        self.told: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, dict[str, set[str]]] = {}
        """chapter -> instance -> MACs that answer for its address"""

    def _node(self, network: Network, label: str, number: int) -> Node:
        node = network.node(label)
        for lan, prefix, six in zip(self.lans, ("192.0.2", "198.51.100"), ("a", "b"), strict=True):
            node.attach(lan, f"{prefix}.{number}/24", f"fe80::{six}{number}/64")
        return node

    def close(self) -> None:
        for daemon in self.daemons.values():
            daemon.close()
        for capture in self.wire:
            capture.close()

    def states(self, label: str) -> dict[str, list[str]]:
        said = self.daemons[label].log.read_text()
        return {name: re.findall(rf"\({name}\) Entering (.*)", said) for name in VIPS}

    def are(self, label: str, state: str) -> bool:
        return all(found[-1:] and found[-1].startswith(state) for found in self.states(label).values())

    def serves(self, node: Node, other: Node) -> bool:
        return all(node.holds(vip) and not other.holds(vip) for vip in VIPS.values())

    def speakers(self) -> set[tuple[int, str, str]]:
        return {(a.vrid, a.source_mac, a.source) for capture in self.wire for a in capture.adverts()}

    def end_chapter(self, name: str, act: Callable[[], object]) -> None:
        """What there is once its master has everything."""
        act()
        master = MASTERS[name]
        node, other = (self.high, self.low) if master == "high" else (self.low, self.high)
        what = f"{name}: {master} serves"
        poll(lambda: self.are(master, "MASTER") and self.serves(node, other), what, seconds=30, every=0.05)
        for capture in self.wire:
            capture.clear()
        poll(lambda: len({vrid for vrid, _, _ in self.speakers()}) == len(VIPS), "adverts of all", seconds=10)
        self.told[name] = {
            "links": {node.label: own_links(node) for node in (self.high, self.low)},
            "speakers": self.speakers(),
        }
        self.answers[name] = {
            each: who_answers(self.client, INTERFACES[each], vip) for each, vip in VIPS.items()
        }

    def live(self) -> None:
        low, high = self.daemons["low"], self.daemons["high"]
        self.end_chapter("low alone", low.start)
        self.end_chapter("high joins", high.start)
        self.told["settings"] = {
            node.label: {
                key: value
                for key, value in settings(node, "eth0", "eth1", *own_links(node)).items()
                if key not in DIFFERING
            }
            for node in (self.high, self.low)
        }
        self.end_chapter("a cable is cut", lambda: self.lans[1].unplug(self.high, "eth1"))
        self.end_chapter("it is mended", lambda: self.lans[1].replug(self.high, "eth1"))
        self.end_chapter("high stops", high.stop)
        self.told["states"] = {label: self.states(label) for label in self.daemons}


def lived(high: type[Daemon], low: type[Daemon]) -> Pair:
    with Network("vmacs") as network:
        pair = Pair(network, high, low)
        try:
            pair.live()
        finally:
            pair.close()
        return pair


@pytest.fixture(scope="module")
def alone() -> Iterator[Pair]:
    needs_namespaces()
    needs_keepalived()
    yield lived(Keepalived, Keepalived)


@pytest.mark.parametrize("programs", PAIRS.values(), ids=PAIRS)
def test_a_group_of_vmacs_is_as_with_keepalived_alone(
    alone: Pair, programs: tuple[type[Daemon], type[Daemon]]
) -> None:
    pair = lived(*programs)
    assert pair.told.keys() == alone.told.keys()
    for chapter, found in pair.told.items():
        assert found == alone.told[chapter], chapter
    by_label = dict(zip(("high", "low"), programs, strict=True))
    for chapter, answers in pair.answers.items():
        for name, mac in MACS.items():
            assert mac in answers[name], (chapter, answers)
        if by_label[MASTERS[chapter]] is Kad:
            assert answers == {name: {mac} for name, mac in MACS.items()}, chapter
