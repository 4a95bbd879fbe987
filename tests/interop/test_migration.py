"""A pair of routers goes over from keepalived to kad and back, node by node, under a client that counts.

The same is done with keepalived in kad's place; loss and states must be no worse with kad. All of it happens
twice: on the interface itself, and with a VMAC for each instance.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.metronome import undisturbed
from tests.support.namespaces import Network, needs_namespaces, poll
from tests.support.prober import PROBES_A_SECOND, Prober
from tests.support.virtual_links import needs_macvlan, own_links

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow, pytest.mark.pairs]

VIPS = {
    name: f"192.0.2.{101 + number}" for number, name in enumerate(("V2", "UNICAST", "ONE", "OTHER", "STAYS"))
}
HIGH, LOW = "192.0.2.1", "192.0.2.2"
SLACK = 12
"""Probes: what a busy machine may cost, over six changes of daemons. Waiting for the master-down
interval instead of the skew time, once each way, would cost the fast instances twice that."""
PAUSE_MS = 100
"""Where the machine itself stood still for so long, what was lost says nothing."""


def text(priority: int, *link: str) -> str:
    own, other = (HIGH, LOW) if priority == 150 else (LOW, HIGH)

    def block(number: int, name: str, **more: object) -> str:
        words = [*link, *more.pop("extra", ())]  # type: ignore[misc]
        addresses = [f"{VIPS[name]}/24"]
        settings: dict[str, object] = {"version": 3, "advert_int": 0.2} | more
        return vrrp_instance(
            name, vrid=number, priority=priority, addresses=addresses, extra=words, **settings
        )  # type: ignore[arg-type]

    return configuration(
        block(1, "V2", version=2, advert_int=1),
        block(2, "UNICAST", source=own, peers=[other]),
        block(3, "ONE"),
        block(4, "OTHER"),
        block(5, "STAYS", extra=["nopreempt"]),
        "vrrp_sync_group G {\ngroup {\nONE\nOTHER\n}\n}\n",
    )


@dataclass
class Told:
    lost: dict[str, int]
    states: list[list[str]]
    """Of each daemon, in the order they were started."""


def states(daemon: Daemon) -> list[str]:
    return sorted(re.findall(r"\((\w+)\) Entering (\w+) STATE", daemon.said()))  # type: ignore[arg-type]


def migrate(network: Network, program: type[Daemon], *link: str) -> Told:
    lan = network.bridge()
    nodes = {priority: network.node(f"n{priority}") for priority in (150, 100)}
    for priority, node in nodes.items():
        node.attach(lan, f"{HIGH if priority == 150 else LOW}/24", name="eth0")
    client = network.node("client")
    client.attach(lan, "192.0.2.9/24", name="eth0")
    running: dict[int, Daemon] = {}
    told = Told({}, [])

    def start(priority: int, kind: type[Daemon], state: str) -> None:
        running[priority] = kind(nodes[priority], text(priority, *link))
        running[priority].start()
        for name in VIPS:
            wanted = "BACKUP" if name == "STAYS" and len(running) > 1 else state
            running[priority].wait_for(f"({name}) Entering {wanted} STATE", seconds=30)
        assert len(own_links(nodes[priority])) == len(link) * len(VIPS)

    def stop(priority: int) -> None:
        daemon = running.pop(priority)
        assert daemon.stop() == 0
        told.states.append(states(daemon))
        print(f"--- {daemon.program} of priority {priority}\n{daemon.said()}")
        daemon.close()
        assert own_links(nodes[priority]) == {}, "its VMACs went with it"
        for other in running.values():
            for name in VIPS:
                poll(lambda o=other, n=name: _last(o, n) == "MASTER", f"{name} taken over", seconds=30)  # type: ignore[misc]

    try:
        start(150, Keepalived, "MASTER")
        start(100, Keepalived, "BACKUP")
        with Prober(client, VIPS.values()) as prober:
            for priority, kind in ((100, program), (150, program), (100, Keepalived)):
                stop(priority)
                start(priority, kind, "MASTER" if priority == 150 else "BACKUP")
            stop(150)
        # Of the program nothing is left now: what the last change costs is keepalived's own.
        told.lost = {name: prober.lost()[address] for name, address in VIPS.items()}
        start(150, Keepalived, "MASTER")
    finally:
        for daemon in running.values():
            daemon.close()
    return told


def _last(daemon: Daemon, name: str) -> str:
    found = re.findall(rf"\({name}\) Entering (\w+) STATE", daemon.said())
    return found[-1] if found else ""


@pytest.mark.parametrize("link", [(), ("use_vmac",)], ids=["interface", "VMAC"])
def test_a_pair_goes_over_and_back_no_worse_than_keepalived_restarts(link: tuple[str, ...]) -> None:
    needs_namespaces()
    needs_keepalived()
    if link:
        needs_macvlan()

    def attempt() -> None:
        with Network("migrate") as network:
            control = migrate(network, Keepalived, *link)
        with Network("migrate") as network:
            ours = migrate(network, Kad, *link)
        print(control.lost, ours.lost)
        assert ours.states == control.states
        for name, lost in ours.lost.items():
            assert lost <= control.lost[name] + SLACK, (name, ours.lost, control.lost)

    undisturbed(attempt, PAUSE_MS)


@pytest.mark.parametrize("former", [Kad, Keepalived])
def test_a_vmac_is_reached_soon_after_a_preemption(network: Network, former: type[Daemon]) -> None:
    """A preempted master still answers the first gratuitous ARPs, from the MAC that both have, and misleads
    bridges: with keepalived as its heir for a whole advert interval, or 5 s with unicast.
    """
    needs_macvlan()
    needs_keepalived()
    high, low, client = (network.node(label) for label in ("n150", "n100", "client"))
    lan = network.bridge()
    for node, address in ((high, HIGH), (low, LOW), (client, "192.0.2.9")):
        node.attach(lan, f"{address}/24", name="eth0")
    with former(low, text(100, "use_vmac")) as preempted, Prober(client, VIPS.values()) as prober:
        for name in VIPS:
            preempted.wait_for(f"({name}) Entering MASTER STATE", seconds=30)
        with Kad(high, text(150, "use_vmac")) as kad:
            for name in ("V2", "UNICAST", "ONE", "OTHER"):
                kad.wait_for(f"({name}) Entering MASTER STATE", seconds=30)
            begun = prober.sent
            poll(lambda: prober.sent > begun + 3 * PROBES_A_SECOND, "further probes", seconds=30)
            # The last second may be on its way.
            asked = set(range(begun, begun + 2 * PROBES_A_SECOND))
            lost = {name: len(asked - prober.answered[VIPS[name]]) for name in VIPS}
    assert lost["UNICAST"] < PROBES_A_SECOND, lost
    assert lost["V2"] < PROBES_A_SECOND * 3 // 4, lost
