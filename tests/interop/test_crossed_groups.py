"""Sync groups whose members disagree about who is better: whoever serves goes on, with kad and keepalived.

On one router the first member has the higher priority, on the other the second one. The pairings live through
one story at the same time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, needs_namespaces, poll, remains

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow, pytest.mark.pairs]

MEMBERS = {"ONE": "eth0", "OTHER": "eth1"}
CROSSED = {"first": (150, 100), "second": (100, 150)}
GROUP = "vrrp_sync_group G {\ngroup {\nONE\nOTHER\n}\n}\n"
CALM_S = 3.0
"""Several times longer than a master may be silent."""


def text(priorities: tuple[int, int]) -> str:
    blocks = [
        vrrp_instance(
            name,
            interface=interface,
            vrid=1 + number,
            version=3,
            advert_int=0.5,
            priority=priorities[number],
            addresses=[f"10.{number}.0.100/24"],
        )
        for number, (name, interface) in enumerate(MEMBERS.items())
    ]
    return configuration(*blocks, GROUP)


class Pair:
    def __init__(self, network: Network, first: type[Daemon], second: type[Daemon]) -> None:
        lans = [network.bridge(label) for label in ("inside", "outside")]
        self.daemons: dict[str, Daemon] = {}
        for number, (label, program) in enumerate((("first", first), ("second", second)), 1):
            node = network.node(label)
            for which, lan in enumerate(lans):
                node.attach(lan, f"10.{which}.0.{number}/24")
            self.daemons[label] = program(node, text(CROSSED[label]))

    def states(self, label: str) -> dict[str, list[str]]:
        said = self.daemons[label].log.read_text(errors="replace")
        return {name: re.findall(rf"\({name}\) Entering (.*)", said) for name in MEMBERS}

    def serves(self, label: str) -> bool:
        """The whole group, and the other router nothing of it."""
        held = {name: daemon.node.addresses() for name, daemon in self.daemons.items()}
        told = {name: [states[-1:] for states in self.states(name).values()] for name in held}
        other = "second" if label == "first" else "first"
        return (
            told[label] == [["MASTER STATE"]] * 2
            and ["MASTER STATE"] not in told[other]
            and {f"10.{number}.0.100/24" for number in range(2)} <= set(held[label])
            and not {f"10.{number}.0.100/24" for number in range(2)} & set(held[other])
        )

    def reload(self, label: str, priorities: tuple[int, int]) -> None:
        self.daemons[label].configure(text(priorities))
        self.daemons[label].reload()


Pairs = dict[str, Pair]
PROGRAMS: dict[str, tuple[type[Daemon], type[Daemon]]] = {
    "keepalived alone": (Keepalived, Keepalived),
    "kad-keepalived": (Kad, Keepalived),
    "keepalived-kad": (Keepalived, Kad),
}


def each(pairs: Pairs, act: Callable[[Pair], object], serving: str) -> None:
    """``act`` in every pair; then ``serving`` has the group, and keeps it."""
    for pair in pairs.values():
        act(pair)
    for name, pair in pairs.items():
        poll(
            lambda p=pair: p.serves(serving),  # type: ignore[misc]
            lambda n=name, p=pair: f"{serving} serves in {n}: { {d: p.states(d) for d in CROSSED} }",  # type: ignore[misc]
            seconds=30,
            every=0.05,
        )
    remains(lambda: all(pair.serves(serving) for pair in pairs.values()), serving, seconds=CALM_S, every=0.1)


def tell(pairs: Pairs) -> None:
    each(pairs, lambda p: p.daemons["first"].start(), "first")
    each(pairs, lambda p: p.daemons["second"].start(), "first")
    each(pairs, lambda p: p.reload("first", (90, 140)), "second")
    each(pairs, lambda p: p.reload("first", CROSSED["first"]), "second")
    each(pairs, lambda p: p.reload("second", (140, 90)), "first")
    each(pairs, lambda p: p.reload("second", CROSSED["second"]), "first")


@pytest.fixture(scope="module")
def lives() -> Iterator[dict[str, dict[str, dict[str, list[str]]]]]:
    needs_namespaces()
    needs_keepalived()
    with ExitStack() as stack:
        pairs = {}
        for name, programs in PROGRAMS.items():
            pairs[name] = Pair(stack.enter_context(Network("crossed")), *programs)
            for daemon in pairs[name].daemons.values():
                stack.callback(daemon.close)
        tell(pairs)
        yield {name: {label: pair.states(label) for label in CROSSED} for name, pair in pairs.items()}


@pytest.mark.parametrize("pair", ["kad-keepalived", "keepalived-kad"])
def test_every_change_is_that_of_keepalived_alone(
    lives: dict[str, dict[str, dict[str, list[str]]]], pair: str
) -> None:
    assert lives[pair] == lives["keepalived alone"]
