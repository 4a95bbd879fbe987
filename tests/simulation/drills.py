"""From perfect calm, one thing happens of which everybody knows what has to follow, and when."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from kad.config.model.vrrp import UnicastPeer
from kad_vrrp.core.advertiser import Adverts
from tests.simulation.judge import Violation, candidates, master_down_us, members, skew_us
from tests.simulation.machine import INTERFACES, Machine, route_key
from tests.simulation.routers import with_other_addresses
from tests.simulation.witness import Account, early_us, is_authenticated
from tests.simulation.world import World, config_of

LATE_US = 3_000
"""How late a machine may be: it wakes late, packets travel, kernels answer."""
SOON_US = 5_000
"""How early: never, but for what is rounded, and for what follows from being awake anyway."""


def drill(world: World) -> None:
    """One of them, drawn."""
    play = world.random.choice(DRILLS)
    world.say(None, play.__name__.replace("_", " "))
    play(world)


def _busiest(world: World) -> Machine:
    """The machine that is master of the most."""
    return max(
        (machine for machine in world.machines if machine.alive),
        key=lambda machine: (list(machine.states.values()).count("MASTER"), machine.number),
    )


def _due_us(world: World, machine: Machine, name: str, left_us: int | None) -> int:
    """When a backup has to take over, by RFC 9568 §6.4.2; ``left_us``: when its master said farewell."""
    due_us = 0
    for each in members(machine, name):
        config = config_of(machine, each)
        assert config is not None
        account = machine.witness.account(each)
        interval_us = account.anyone_interval_us
        if account.anyone_us is None:
            return 0
        mine_us = account.anyone_us + master_down_us(config, account.priority, interval_us)
        if left_us is not None and not _was_overtaken(account, left_us):
            mine_us = min(mine_us, left_us + skew_us(config, account.priority, interval_us))
        due_us = max(due_us, mine_us)
    return due_us


def _was_overtaken(account: Account, left_us: int) -> bool:
    """Whether an advert that was under way arrived after the farewell: then its sender seems to live on."""
    return account.leaving_us is None and account.anyone_us is not None and account.anyone_us >= left_us


def _ruled_by(machine: Machine) -> list[str]:
    return [name for name, state in machine.states.items() if state == "MASTER"]


def _expect_heirs(world: World, gone: Machine, left: list[str], *, farewell: bool = False) -> None:
    """Who waits the least takes over: in [2 adv + skew, 3 adv + skew] of a death, or a farewell's skew."""
    died_us = world.now_us
    world.risen.clear()
    # What was on its way still arrives.
    world.run_for(world.most_delay_us + 1)
    due: dict[str, tuple[int, Machine]] = {}
    for name in left:
        possible = [machine for machine in candidates(world, name) if machine is not gone]
        waits = [
            (_due_us(world, each, name, died_us if farewell else None), each.number) for each in possible
        ]
        if not waits or not all(when_us for when_us, _ in waits):
            continue
        when_us, number = min(waits)
        due[name] = when_us, world.machines[number - 1]
    for name, (when_us, heir) in sorted(due.items(), key=lambda item: item[1][0]):
        _assert_window(world, heir, name, when_us - died_us, farewell=farewell)
        world.run_until(max(world.now_us, when_us + LATE_US * (2 if farewell else 1)))
        risen_us, who = world.risen.get(name, (0, None))
        if who is None:
            raise Violation(f"{name}: nobody took over at {when_us} us, {heir.label} was to")
        if risen_us < when_us - SOON_US:
            raise Violation(f"{name}: {who.label} took over at {risen_us} us, not at {when_us} us")


def _assert_window(world: World, heir: Machine, name: str, waits_us: int, *, farewell: bool) -> None:
    """The prediction itself is what the RFC says, as seen from the death."""
    config = config_of(heir, name)
    assert config is not None
    account = heir.witness.account(name)
    if farewell or len(members(heir, name)) > 1:
        return
    latest_us = master_down_us(config, account.priority, account.anyone_interval_us)
    interval_us = account.anyone_interval_us
    # The last advert may have left early, and the next one was due on the old schedule.
    earliest_us = latest_us - interval_us - early_us(interval_us)
    assert earliest_us - LATE_US <= waits_us <= latest_us + LATE_US, (earliest_us, waits_us, latest_us)


# What has to follow: the heirs -----------------------------------------------------------------------------


def the_power_of_the_busiest_fails(world: World) -> None:
    gone = _busiest(world)
    left = _ruled_by(gone)
    gone.lose_power()
    gone.off = True
    _expect_heirs(world, gone, left)


def the_busiest_is_cut_off(world: World) -> None:
    gone = _busiest(world)
    for other in world.machines:
        for interface in INTERFACES:
            world.cut |= {(interface, gone.number, other.number), (interface, other.number, gone.number)}
    _expect_heirs(world, gone, _ruled_by(gone))


def the_busiest_stops_in_order(world: World) -> None:
    gone = _busiest(world)
    left = _ruled_by(gone)
    gone.stop()
    _expect_heirs(world, gone, left, farewell=True)


def the_busiest_stands_still(world: World) -> None:
    gone = _busiest(world)
    gone.pause()
    _expect_heirs(world, gone, _ruled_by(gone))


# What has to follow: nothing -------------------------------------------------------------------------------


def _nothing_happens(world: World, span_us: int) -> None:
    world.still_since_us = world.now_us + span_us
    world.run_for(span_us)
    world.still_since_us = None


def processes_are_killed_one_by_one(world: World) -> None:
    """Each is back in milliseconds, and nobody notices."""
    for machine in world.machines:
        held = machine.kernel - machine.foreign
        machine.die()
        _nothing_happens(world, SOON_US)
        machine.start()
        _nothing_happens(world, world.plan.longest_interval_us * 2)
        if held - machine.kernel:
            raise Violation(f"{machine.label}: lost {held - machine.kernel} because its process was killed")


def addresses_are_reloaded(world: World) -> None:
    for machine in world.machines:
        index = world.random.randrange(len(machine.configs))
        configs = machine.configs
        changed = with_other_addresses(world.random, configs[index])
        machine.set_configuration((*configs[:index], changed, *configs[index + 1 :]))
        _nothing_happens(world, world.plan.unit_us * 2)


def a_few_packets_are_lost(world: World) -> None:
    """One of each master at most: where least is waited for, two are."""
    world.loss = 1.0
    shortest_us = min(config.advert_int_us for machine in world.machines for config in machine.configs)
    _nothing_happens(world, shortest_us * 9 // 10)
    world.loss = 0.0
    _nothing_happens(world, world.plan.longest_interval_us * 2)


def backups_stand_still(world: World) -> None:
    """What arrived meanwhile is read before anybody is taken for dead."""
    for machine in world.machines:
        if "MASTER" not in machine.states.values():
            machine.pause()
    _nothing_happens(world, 9 * world.plan.longest_interval_us)
    for machine in world.machines:
        if machine.paused:
            machine.resume()
    _nothing_happens(world, 2 * world.plan.longest_interval_us)


def a_stranger_shouts(world: World) -> None:
    """Adverts of the lowest priority, at whatever rate, change nothing. The witness counts the answers."""
    machine = _busiest(world)
    for config in machine.configs:
        if machine.states[config.name] != "MASTER" or config.family == 6 or is_authenticated(config):
            continue
        stranger = f"10.0.{config.interface[3:]}.99"
        to = f"10.0.{config.interface[3:]}.{machine.number}"
        sender = replace(config, unicast_peers=(UnicastPeer(to),)) if config.unicast else config
        (advert,) = Adverts(sender, stranger, 1, old_checksum=False).of(1)
        for number in range(50):
            key = route_key(machine, config)
            world.after(number * 100, lambda k=key, a=advert: machine.receive(k, a.data, a.source))  # type: ignore[misc]
    world.run_for(2 * world.plan.longest_interval_us)


DRILLS: tuple[Callable[[World], None], ...] = (
    the_power_of_the_busiest_fails,
    the_busiest_is_cut_off,
    the_busiest_stops_in_order,
    the_busiest_stands_still,
    processes_are_killed_one_by_one,
    addresses_are_reloaded,
    a_few_packets_are_lost,
    backups_stand_still,
    a_stranger_shouts,
)
