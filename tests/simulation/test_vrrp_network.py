"""What a network of kad routers promises: one master, the right one, and calm when nothing happens."""

import os
import pathlib
import subprocess
import sys

import pytest

from kad.config.model.vrrp import VirtualAddress, VrrpInstance
from tests.simulation.network import CALM_US, Network, Node, master_down_us
from tests.support.vrrp_host import SECOND, instance

VIP = "10.0.0.100"


def router(number: int, priority: int, **changes: object) -> Node:
    changes.setdefault("virtual_addresses", (VirtualAddress(VIP, 24),))
    return Node(number, instance(priority=priority, **changes))


def routers(count: int, **changes: object) -> list[Node]:
    """Priorities 100, 110, … : the last is the one that should be master."""
    return [router(number, 90 + 10 * number, **changes) for number in range(1, count + 1)]


def started(seed: int, nodes: list[Node]) -> Network:
    network = Network(seed, nodes)
    for node in nodes:
        network.start(node)
    network.run_for(CALM_US)
    return network


def config_of(node: Node) -> VrrpInstance:
    return node.configs[0]


def rightful(nodes: list[Node]) -> Node:
    alive = [node for node in nodes if node.alive]
    return max(alive, key=lambda node: (config_of(node).priority, node.number))


def assert_calm(network: Network) -> None:
    """Exactly one master, the rightful one, holding the address alone."""
    heir = rightful(network.nodes)
    assert network.masters == [heir], network.transcript[-10:]
    assert [node.number for node in network.holders(VIP) if node.alive] == [heir.number]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_rightful_router_is_elected_and_stays(count: int) -> None:
    network = started(1, routers(count))
    assert_calm(network)
    so_far = len(network.transcript)
    network.run_for(600 * SECOND)
    assert network.transcript[so_far:] == []


def test_equal_priorities_end_with_the_highest_address() -> None:
    network = started(2, [router(number, 100) for number in range(1, 5)])
    network.run_for(CALM_US)
    assert_calm(network)


@pytest.mark.parametrize("interval_us", [SECOND, SECOND // 10, SECOND // 100])
def test_the_heir_takes_over_in_its_own_master_down_interval(interval_us: int) -> None:
    for seed in range(20):
        network = started(seed, routers(3, advert_int_us=interval_us))
        network.run_for(seed * 12_345)
        heir, master = network.nodes[1], network.nodes[2]
        network.crash(master)
        died_us = network.now_us
        network.run_for(2 * master_down_us(config_of(heir)))
        when_us = heir.transitions[-1][0] - died_us
        limit_us = master_down_us(config_of(heir))
        # The last advert left at most one interval before the death.
        assert limit_us - interval_us <= when_us <= limit_us + network.most_delay_us
        assert network.masters == [heir]


def test_a_farewell_hands_over_in_the_skew_time() -> None:
    from kad_vrrp.core.events import StopRequested

    network = started(3, routers(3))
    heir, master = network.nodes[1], network.nodes[2]
    master.tell(StopRequested())
    left_us = network.now_us
    master.alive = False
    network.run_for(SECOND)
    assert network.masters == [heir]
    assert heir.transitions[-1][0] - left_us <= SECOND * (256 - 110) // 256 + network.most_delay_us
    assert network.holders(VIP) == [heir]


def test_the_rightful_router_preempts_on_its_return() -> None:
    network = started(4, routers(3))
    master = network.nodes[2]
    network.crash(master, whole_machine=True)
    network.run_for(CALM_US)
    network.start(master)
    network.run_for(CALM_US)
    assert_calm(network)


def test_without_preemption_the_returned_router_stays_backup() -> None:
    network = started(5, routers(2, nopreempt=True))
    first = network.masters[0]
    other = next(node for node in network.nodes if node is not first)
    network.crash(first, whole_machine=True)
    network.run_for(CALM_US)
    assert network.masters == [other]
    network.start(first)
    network.run_for(4 * CALM_US)
    assert network.masters == [other]


def test_a_child_killed_and_back_at_once_keeps_its_mastership() -> None:
    """The peers never notice, at any interval down to 10 ms with a restart of 5 ms."""
    for interval_us in (SECOND, SECOND // 10, SECOND // 100):
        network = started(6, routers(2, advert_int_us=interval_us))
        heir, master = network.nodes
        seen = len(heir.transitions)
        for _ in range(50):
            network.crash(master)
            network.run_for(5_000)
            assert VIP in master.addresses
            network.start(master)
            network.run_for(3 * interval_us)
            assert network.masters == [master]
        assert heir.transitions[seen:] == []


def test_a_child_back_too_late_finds_the_heir_and_preempts_in_order() -> None:
    network = started(7, routers(2))
    heir, master = network.nodes
    network.crash(master)
    network.run_for(4 * SECOND)
    assert network.masters == [heir]
    network.start(master)
    assert master.addresses == []
    network.run_for(CALM_US)
    assert_calm(network)


def test_a_stalled_master_yields_and_takes_back_without_two_masters_for_long() -> None:
    network = started(8, routers(2))
    heir, master = network.nodes
    network.stall(master, 10 * SECOND)
    network.run_for(6 * SECOND)
    assert heir.is_master
    network.run_for(4 * SECOND + 2_000)
    # Its first advert after the stall settles it.
    assert network.masters == [master]
    woken_us = network.now_us - 2_000
    network.run_for(2 * SECOND)
    assert_calm(network)
    # At once, since the other was heard, and again after one interval of listening.
    told = [when - woken_us for when, _ in master.announced if when >= woken_us]
    assert told[0] == 0
    assert SECOND in told


def test_after_a_partition_there_is_one_master_again_within_one_interval() -> None:
    network = started(9, routers(2))
    heir, master = network.nodes
    network.partition(heir, master)
    network.run_for(10 * SECOND)
    assert network.masters == [heir, master]
    network.heal()
    network.run_for(SECOND + 1_000)
    assert_calm(network)
    # The hosts that had believed the other one are told.
    assert any(when >= network.now_us - SECOND - 1_000 for when, _ in master.announced)


def test_loss_below_two_adverts_in_a_row_changes_nothing() -> None:
    network = started(10, routers(2))
    seen = len(network.transcript)
    for _ in range(100):
        network.loss = 1.0
        network.run_for(1_900_000)
        network.loss = 0.0
        network.run_for(1_100_000)
    assert network.transcript[seen:] == []


# Chaos -----------------------------------------------------------------------------------------------------


def disturb(network: Network) -> None:
    """One thing goes wrong."""
    node = network.random.choice(network.nodes)
    other = network.random.choice([each for each in network.nodes if each is not node])
    match network.random.randrange(7):
        case 0:
            network.crash(node)
        case 1:
            network.crash(node, whole_machine=True)
        case 2:
            network.stall(node, network.random.randint(10_000, 8 * SECOND))
        case 3:
            network.partition(node, other)
        case 4:
            network.loss = network.random.choice([0.1, 0.5, 0.9])
        case 5:
            network.heal()
        case _:
            if not node.alive:
                network.start(node)


def chaos(seed: int, rounds: int, count: int) -> Network:
    network = started(seed, routers(count))
    for _ in range(rounds):
        for _ in range(network.random.randint(1, 6)):
            disturb(network)
            network.run_for(network.random.randint(1_000, 3 * SECOND))
        network.heal()
        for node in network.nodes:
            node.stalled_until_us = min(node.stalled_until_us, network.now_us)
            if not node.alive:
                network.start(node)
        network.run_for(2 * CALM_US)
        assert_calm(network)
        so_far = len(network.transcript)
        network.run_for(CALM_US)
        assert network.transcript[so_far:] == []
    return network


@pytest.mark.parametrize("seed", range(12))
def test_after_any_disturbance_calm_returns(seed: int) -> None:
    network = chaos(seed, rounds=12, count=2 + seed % 4)
    assert network.now_us > 180 * SECOND


def test_history_does_not_depend_on_how_python_hashes() -> None:
    program = (
        "from tests.simulation.test_vrrp_network import chaos\n"
        "print('\\n'.join(chaos(5, rounds=3, count=4).transcript))"
    )
    histories = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=pathlib.Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in ("0", "1", "4711")
    }
    assert len(histories) == 1
    assert len(histories.pop().splitlines()) > 10


def test_the_same_seed_is_the_same_history() -> None:
    first, second, third = (chaos(seed, rounds=4, count=3) for seed in (77, 77, 78))
    assert first.transcript == second.transcript
    assert len(first.transcript) > 10
    assert first.transcript != third.transcript
