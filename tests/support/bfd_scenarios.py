"""Scenarios for the BFD simulation, each from a seed alone."""

from __future__ import annotations

import random

from kad.config.model.bfd import BfdInstance
from tests.support.bfd_host import MS, SECOND
from tests.support.bfd_world import World

INTERVALS_MS = (10, 20, 50, 100, 300)
EXTREMES_MS = (10, 300)
HANDSHAKE_US = 4 * SECOND
CALM_US = 14 * SECOND
"""More than the longest detection time of a session that is not Up (5 x 2 s), and a handshake."""


LONGER_THAN_ANY_DETECTION_US = 1900 * MS


def address(index: int) -> str:
    return f"10.0.0.{index + 1}"


def config(
    chance: random.Random,
    neighbor: int,
    *,
    passive: bool = False,
    least_mult: int = 1,
    multihop: bool = False,
) -> BfdInstance:
    intervals_ms = chance.choice((INTERVALS_MS, EXTREMES_MS, EXTREMES_MS))
    return BfdInstance(
        name=f"to {neighbor}",
        neighbor_address=address(neighbor),
        min_tx_us=chance.choice(intervals_ms) * MS,
        min_rx_us=chance.choice(intervals_ms) * MS,
        idle_tx_us=chance.choice((1000, 1000, 2000)) * MS,
        multiplier=chance.choice((least_mult, least_mult + 1, chance.randint(least_mult, 5))),
        passive=passive,
        multihop=multihop,
    )


def mesh(world: World, size: int, *, least_mult: int = 1) -> None:
    """Everybody with everybody; of two neighbours one at most is passive. Some worlds are across routers."""
    chance = world.random
    multihop = chance.random() < 0.3
    for here in range(size):
        configs = [
            config(
                chance,
                there,
                passive=here < there and chance.random() < 0.2,
                least_mult=least_mult,
                multihop=multihop,
            )
            for there in range(size)
            if there != here
        ]
        world.add(str(here), address(here), *configs)
    for here in range(size):
        world.at(world.now_us + chance.randrange(SECOND), lambda name=str(here): world.boot(name))  # type: ignore[misc]


def retimed(world: World, name: str, *, least_mult: int = 1) -> list[BfdInstance]:
    """The machine's sessions with other timers."""
    fresh = []
    for old in world.machines[name].host.configs:
        index = int(old.name.split()[1])
        changed = config(
            world.random, index, passive=old.passive, least_mult=least_mult, multihop=old.multihop
        )
        fresh.append(changed if world.random.random() < 0.85 else old)
    return fresh


def calm(seed: int) -> World:
    """Nothing is lost; timers change, processes die and are back in time, stand still, clocks are set.

    No session may ever be lost.
    """
    world = World(seed)
    chance = world.random
    mesh(world, chance.choice((2, 2, 3)), least_mult=2)
    world.run(HANDSHAKE_US)
    world.forbid_losses = True
    for _ in range(16):
        name = chance.choice(list(world.machines))
        match chance.randrange(8):
            case 0 | 6:
                world.reload(name, *retimed(world, name, least_mult=2))
            case 1 | 7:
                if chance.random() < 0.8:
                    # In the middle of a poll sequence, or before its first packet.
                    world.reload(name, *retimed(world, name, least_mult=2))
                    world.run(chance.randrange(1, chance.choice((2, 20, 100)) * MS))
                world.kill(name)
                world.run(chance.randrange(1, 5 * MS))
                world.boot(name)
            case 2:
                world.freeze(name, chance.randrange(1, 4 * MS))
                world.set_clock(name)
            case 3:
                world.freeze_all(LONGER_THAN_ANY_DETECTION_US)
                world.run(chance.randrange(LONGER_THAN_ANY_DETECTION_US))
                world.set_clock(name)
                world.run(LONGER_THAN_ANY_DETECTION_US)
            case _:
                for _ in range(20):
                    world.forge(name)
        world.run(chance.randrange(1, 700 * MS))
    world.run(3 * SECOND)
    world.assert_settled()
    return world


def rough(seed: int) -> World:
    """Everything goes wrong; then nothing more does, and all sessions come up and agree."""
    world = World(seed)
    chance = world.random
    mesh(world, chance.choice((2, 2, 3, 4)))
    world.run(chance.randrange(HANDSHAKE_US))
    for _ in range(14):
        trouble(world)
        world.run(chance.randrange(1, 900 * MS))
    for link in world.links.values():
        link.up, link.loss = True, 0.0
    for name, machine in world.machines.items():
        if not machine.alive or machine.stopping:
            world.kill(name)
            world.boot(name)
    world.run(CALM_US)
    world.assert_settled()
    return world


def trouble(world: World) -> None:
    """One thing more that goes wrong, or ends going wrong."""
    chance = world.random
    name = chance.choice(list(world.machines))
    link = world.links[chance.choice(list(world.links))]
    machine = world.machines[name]
    match chance.randrange(12):
        case 0:
            link.up = not link.up
        case 9 | 10 | 11:
            blackout(world)
        case 1:
            link.loss = chance.choice((0.0, 0.1, 0.3, 0.6))
        case 2 | 3 if machine.alive and not machine.stopping:
            world.reload(name, *retimed(world, name))
        case 4 if machine.alive:
            world.kill(name)
        case 5 if not machine.alive or machine.stopping:
            world.kill(name)
            world.boot(name)
        case 6 if machine.alive:
            world.freeze(name, chance.randrange(1, 800 * MS))
            if chance.random() < 0.5:
                world.run(chance.randrange(1, 400 * MS))
                world.set_clock(name)
        case 7 if machine.alive and not machine.stopping:
            world.stop(name)
        case 8 if machine.alive and not machine.stopping:
            world.forge(name)
        case _:
            world.run(chance.randrange(2 * SECOND))


def blackout(world: World) -> None:
    """A cable is pulled; one direction works again before the other."""
    chance = world.random
    one, two = chance.choice(list(world.links))
    first, second = world.links[one, two], world.links[two, one]
    first.up = second.up = False
    world.run(chance.randrange(1, 600 * MS))
    first.up = True
    world.run(chance.randrange(1, chance.choice((300 * MS, 2 * SECOND))))
    second.up = True
