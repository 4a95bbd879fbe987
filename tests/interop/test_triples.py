"""Three routers, one or two of them keepalived: the same masters, states and addresses as with that alone.

The three mixtures live through one story at the same time, in networks that are alike: the lowest starts
first, each is reloaded with another priority, loses a cable, is killed whole, comes back and stops. What is
compared is the order of things, and how they are at the end of each chapter; not how long they take.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, Node, needs_namespaces, poll

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow, pytest.mark.pairs]

PATIENCE = 60
LABELS = ("a", "b", "c")
HIGHEST, LOWEST = 252, 5


@dataclass(frozen=True)
class VirtualRouter:
    name: str
    vrid: int
    version: int = 3
    advert_int: float = 0.1
    priorities: tuple[int, int, int] = (250, 200, 10)
    """Of a, b and c. Far apart: so are the skews, and a busy machine does not change who comes first."""
    interface: str = "eth0"
    ipv6: bool = False
    unicast: bool = False
    auth_type: str = ""
    vmac: bool = False
    group: str = ""
    told_exactly: bool = True
    """Every change is compared; else, because a busy machine makes changes of its own, the settled states."""

    @property
    def vip(self) -> str:
        if self.ipv6:
            return f"2001:db8::{self.vrid}"
        return f"{'192.0.2' if self.interface == 'eth0' else '198.51.100'}.{100 + self.vrid}"

    def block(self, label: str, priority: int | None) -> str:
        number = LABELS.index(label)
        addresses = [f"{self.vip}/24"]
        if self.ipv6:
            addresses = [f"fe80::{self.vrid}/64", f"{self.vip}/64"]
        return vrrp_instance(
            self.name,
            interface=self.interface,
            vrid=self.vrid,
            version=self.version,
            priority=self.priorities[number] if priority is None else priority,
            advert_int=self.advert_int,
            addresses=addresses,
            source=own_address(label),
            peers=[own_address(other) for other in LABELS if other != label] if self.unicast else [],
            password="s3cret" if self.auth_type else "",
            auth_type=self.auth_type,
            extra=["use_vmac"] if self.vmac else [],
        )


def own_address(label: str, prefix: str = "192.0.2") -> str:
    return f"{prefix}.{1 + LABELS.index(label)}"


ROUTERS = [
    VirtualRouter("V2", 1, version=2, advert_int=1),
    VirtualRouter("AH", 2, version=2, advert_int=1, auth_type="AH"),
    VirtualRouter("V3", 3),
    VirtualRouter("FAST", 4, advert_int=0.01, told_exactly=False),
    VirtualRouter("SIX", 5, ipv6=True),
    VirtualRouter("UNICAST", 6, unicast=True),
    # Members with other priorities, in the same order.
    VirtualRouter("ONE", 10, group="SKEWED"),
    VirtualRouter("OTHER", 11, group="SKEWED", interface="eth1", priorities=(245, 180, 30)),
    VirtualRouter("OLD_ONE", 12, version=2, advert_int=1, group="OLD"),
    VirtualRouter(
        "OLD_OTHER", 13, version=2, advert_int=1, group="OLD", interface="eth1", priorities=(245, 180, 30)
    ),
]
VMACS = [
    VirtualRouter("VMAC", 20, vmac=True),
    VirtualRouter("VMAC_ONE", 21, vmac=True, group="VMACS"),
    VirtualRouter("VMAC_OTHER", 22, vmac=True, group="VMACS", interface="eth1", priorities=(245, 180, 30)),
]


def text(routers: Sequence[VirtualRouter], label: str, priority: int | None = None) -> str:
    """``priority``: of every instance, instead of its own."""
    members: dict[str, list[str]] = {}
    for router in routers:
        if router.group:
            members.setdefault(router.group, []).append(router.name)
    groups = [
        "\n".join([f"vrrp_sync_group {name} {{", "group {", *names, "}", "}", ""])
        for name, names in members.items()
    ]
    return configuration(*(router.block(label, priority) for router in routers), *groups)


@dataclass
class Lived:
    """What one mixture lived through."""

    states: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """(node, instance) -> every state it entered, in order."""
    settled: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """chapter -> instance -> the state of each node."""
    held: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """chapter -> instance -> nodes that have its address."""


class Mixture:
    """Three nodes on two networks."""

    def __init__(self, network: Network, programs: Sequence[type[Daemon]]) -> None:
        self.lans = [network.bridge(), network.bridge("second")]
        self.nodes: dict[str, Node] = {}
        for label in LABELS:
            node = self.nodes[label] = network.node(label)
            for lan, prefix, six in zip(
                self.lans, ("192.0.2", "198.51.100"), ("2001:db8::a", "2001:db8:1::a"), strict=True
            ):
                number = 1 + LABELS.index(label)
                node.attach(lan, f"{prefix}.{number}/24", f"{six}{number}/64", f"fe80::a{number}/64")
        self.routers = ROUTERS + (VMACS if has_macvlan(self.nodes["a"]) else [])
        self.daemons = {
            label: program(self.nodes[label], text(self.routers, label))
            for label, program in zip(LABELS, programs, strict=True)
        }
        self.lived = Lived()

    def states(self, label: str, router: VirtualRouter) -> list[str]:
        said = self.daemons[label].log.read_text(errors="replace")
        return re.findall(rf"\({router.name}\) Entering (.*)", said)

    def is_running(self, label: str) -> bool:
        process = self.daemons[label].process
        return process is not None and process.poll() is None

    def settled(self, router: VirtualRouter) -> list[str]:
        return [
            (self.states(label, router) or ["none"])[-1].split()[0] if self.is_running(label) else "absent"
            for label in LABELS
        ]

    def has_come_to(self, master: str, grouped: str) -> bool:
        """Everybody agrees on the master, and only the master has the address."""
        running = [label for label in LABELS if self.is_running(label)]
        found = self.addresses()
        for router in self.routers:
            heir = grouped if router.group else master
            masters = [
                name for name, state in zip(LABELS, self.settled(router), strict=True) if state == "MASTER"
            ]
            if masters != [heir] or [label for label in running if router.vip in found[label]] != [heir]:
                return False
        return True

    def addresses(self) -> dict[str, set[str]]:
        return {
            label: {each.partition("/")[0] for each in node.addresses()} for label, node in self.nodes.items()
        }

    def reload(self, label: str, priority: int | None) -> None:
        self.daemons[label].configure(text(self.routers, label, priority))
        self.daemons[label].reload()

    def end_chapter(self, chapter: str) -> None:
        found = self.addresses()
        self.lived.settled[chapter] = {router.name: self.settled(router) for router in self.routers}
        self.lived.held[chapter] = {
            router.name: [label for label in LABELS if router.vip in found[label]] for router in self.routers
        }

    def finish(self) -> None:
        self.lived.states = {
            (label, router.name): self.states(label, router)
            for label in LABELS
            for router in self.routers
            if router.told_exactly
        }


def has_macvlan(node: Node) -> bool:
    words = ["ip", "link", "add", "link", "eth0", "name", "probe", "type", "macvlan"]
    if node.run(words, check=False).returncode:
        return False
    node.ip("link", "del", "probe")
    return True


Mixtures = Mapping[str, Mixture]


def everywhere(mixtures: Mixtures, act: Callable[[Mixture], object]) -> None:
    for mixture in mixtures.values():
        act(mixture)


def chapter(
    mixtures: Mixtures, name: str, act: Callable[[Mixture], object], master: str, grouped: str = ""
) -> None:
    """``act`` in each mixture; then ``master`` is master of everything, or ``grouped`` of the groups."""
    everywhere(mixtures, act)
    for which, mixture in mixtures.items():
        poll(
            lambda m=mixture: m.has_come_to(master, grouped or master),  # type: ignore[misc]
            lambda w=which, m=mixture: (  # type: ignore[misc]
                f"{name}: {master} master in {w}: { {r.name: m.settled(r) for r in m.routers} }"
            ),
            seconds=PATIENCE,
            every=0.05,
        )
    everywhere(mixtures, lambda m: m.end_chapter(name))


def tell(mixtures: Mixtures) -> None:
    chapter(mixtures, "the lowest alone", lambda m: m.daemons["c"].start(), "c")
    chapter(mixtures, "the middle joins", lambda m: m.daemons["b"].start(), "b")
    chapter(mixtures, "the highest joins", lambda m: m.daemons["a"].start(), "a")
    for label in LABELS:
        given, heir = (LOWEST, "b") if label == "a" else (HIGHEST, label)
        chapter(mixtures, f"{label} is reloaded", lambda m, w=label, p=given: m.reload(w, p), heir)  # type: ignore[misc]
        chapter(mixtures, f"{label} is put right", lambda m, w=label: m.reload(w, None), "a")  # type: ignore[misc]
    chapter(mixtures, "a cable is cut", lambda m: m.lans[1].unplug(m.nodes["a"], "eth1"), "a", "b")
    chapter(mixtures, "it is mended", lambda m: m.lans[1].replug(m.nodes["a"], "eth1"), "a")
    chapter(mixtures, "the highest is killed", lambda m: m.daemons["a"].kill_all(), "b")
    chapter(mixtures, "it comes back", lambda m: m.daemons["a"].start(), "a")
    chapter(mixtures, "it stops", lambda m: m.daemons["a"].stop(), "b")
    chapter(mixtures, "the next stops", lambda m: m.daemons["b"].stop(), "c")
    everywhere(mixtures, Mixture.finish)


PROGRAMS: dict[str, tuple[type[Daemon], type[Daemon], type[Daemon]]] = {
    "keepalived alone": (Keepalived, Keepalived, Keepalived),
    "kad-keepalived-kad": (Kad, Keepalived, Kad),
    "keepalived-kad-keepalived": (Keepalived, Kad, Keepalived),
}
MIXED = [name for name in PROGRAMS if name != "keepalived alone"]


@pytest.fixture(scope="module")
def lives() -> Iterator[dict[str, Lived]]:
    needs_namespaces()
    needs_keepalived()
    with ExitStack() as stack:
        mixtures = {}
        for name, programs in PROGRAMS.items():
            mixture = mixtures[name] = Mixture(stack.enter_context(Network("triples")), programs)
            for daemon in mixture.daemons.values():
                stack.callback(daemon.close)
        tell(mixtures)
        yield {name: mixture.lived for name, mixture in mixtures.items()}


@pytest.mark.parametrize("mixture", MIXED)
def test_every_change_is_that_of_keepalived_alone(lives: dict[str, Lived], mixture: str) -> None:
    assert lives[mixture].states == lives["keepalived alone"].states


@pytest.mark.parametrize("mixture", MIXED)
def test_each_chapter_ends_as_with_keepalived_alone(lives: dict[str, Lived], mixture: str) -> None:
    assert lives[mixture].settled == lives["keepalived alone"].settled


@pytest.mark.parametrize("mixture", MIXED)
def test_addresses_are_where_keepalived_has_them(lives: dict[str, Lived], mixture: str) -> None:
    assert lives[mixture].held == lives["keepalived alone"].held
