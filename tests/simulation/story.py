"""The life of one simulated network: storms, and after each the calm in which everything has to be right.

``tell(seed)`` plays it; the same seed is the same story to the last microsecond.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.simulation.drills import drill
from tests.simulation.faults import inject
from tests.simulation.judge import Violation, assert_at_rest, assert_nothing_is_missing
from tests.simulation.machine import INTERFACES, Machine
from tests.simulation.routers import configurations, harmless
from tests.simulation.world import World

BACKOFF_US = 11_000_000
"""How long a router stays in FAULT after the kernel refused an address; sockets are retried sooner."""
LINES = 40
"""Of the transcript, shown of a story that ended badly."""


@dataclass
class Account:
    """What a story was made of."""

    injected: Counter[str] = field(default_factory=Counter)
    packets: Counter[str] = field(default_factory=Counter)
    seen: set[tuple[str, str]] = field(default_factory=set)
    """(state, event)"""
    virtual_us: int = 0
    history: int = 0

    def add(self, world: World) -> None:
        self.injected += world.injected
        self.packets += world.packets
        self.virtual_us += world.now_us
        self.history = (self.history * 31 + world.history) % (1 << 61)
        for machine in world.machines:
            self.seen |= {(state, event.__name__) for state, event in machine.seen}

    def merge(self, other: Account) -> None:
        self.injected += other.injected
        self.packets += other.packets
        self.seen |= other.seen
        self.virtual_us += other.virtual_us
        self.history = (self.history * 31 + other.history) % (1 << 61)


def tell(seed: int, *, count: int = 0, episodes: int = 4) -> Account:
    """Violation, with how to play it again, when anything is not as it must be."""
    account = Account()
    world = World(seed, count)
    try:
        begin(world)
        for _ in range(episodes):
            storm(world)
            mend(world)
            rest(world)
            drill(world)
            mend(world)
            rest(world)
    except AssertionError as error:
        told = "\n".join(list(world.transcript)[-LINES:])
        nodes = f" NODES={count}" if count else ""
        raise Violation(f"{told}\n{error!r}\nreplay: make sim SEED={seed}{nodes}") from error
    finally:
        account.add(world)
    return account


def begin(world: World) -> None:
    for machine in world.machines:
        world.after(world.random.randrange(world.plan.unit_us * 3), lambda m=machine: m.start())  # type: ignore[misc]
    world.run_for(world.plan.settle_us + 3 * world.plan.unit_us)
    assert_at_rest(world)


def storm(world: World) -> None:
    random = world.random
    for _ in range(random.randint(10, 40)):
        inject(world)
        assert_nothing_is_missing(world)
        world.run_for(
            random.choice((1_000, world.plan.unit_us // 4, random.randrange(4 * world.plan.unit_us)))
        )
        # Before the next one: a fault excuses what is missing just then.
        assert_nothing_is_missing(world)


def mend(world: World) -> None:
    """Everything works again. What is followed stays as it is: not everybody can be master."""
    world.say(None, "mended")
    world.cut.clear()
    world.loss = world.duplication = world.disorder = 0.0
    world.least_delay_us, world.most_delay_us = 50, 500
    for machine in world.machines:
        mend_machine(world, machine)


def mend_machine(world: World, machine: Machine) -> None:
    machine.refuses.clear()
    machine.refuses_sockets = machine.off = False
    machine.late_us = machine.slow_kernel_us = 0
    machine.kill_after = None
    machine.set_wall_clock(0)
    if machine.paused:
        machine.resume()
    for interface in INTERFACES:
        machine.add_interface(interface)
    for interface in INTERFACES[:2]:
        machine.set_carrier(interface, True)
    machine.end_hanging_scripts()
    configs = configurations(world.plan, machine.number)
    if world.random.random() < 0.3:
        configs = harmless(world.random, configs)

    def again() -> None:
        if not machine.alive:
            machine.start()
        if machine.configs != configs or machine.sync_groups != (world.plan.group,):
            machine.sync_groups = (world.plan.group,)
            machine.set_configuration(configs)

    # After what is still on its way out, or being restarted.
    for after_us in (0, 100_000, 5_000_000):
        world.after(after_us, again)


def rest(world: World) -> None:
    """Let everything find its place, look at it, and see that it stays so."""
    plan = world.plan
    world.run_for(5_500_000 + plan.master_down_us)
    world.calm_since_us = world.now_us
    world.run_for(plan.settle_us + BACKOFF_US)
    assert_at_rest(world)
    world.still_since_us = world.now_us
    world.run_for(3 * plan.longest_interval_us)
    assert_at_rest(world)
    world.still_since_us = world.calm_since_us = None
