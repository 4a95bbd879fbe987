"""Everything that can go wrong with a machine, its network and its surroundings: one function a kind.

Each returns whether there was anything to go wrong.
"""

from __future__ import annotations

from collections.abc import Callable

from kad.track.process import Cause
from kad_vrrp.core.engine import EngineSettings
from tests.simulation.judge import addresses
from tests.simulation.machine import INTERFACES, Machine
from tests.simulation.routers import SECOND, VALUE, configurations, harmful, harmless
from tests.simulation.world import World
from tests.support.vrrp_host import HANGS, ORDINARY

Fault = Callable[[World, Machine], bool]

RESTART_US = 5_000
"""How soon the supervisor has another process in the place of one that died."""


def restart(world: World, machine: Machine, after_us: int, settings: EngineSettings = ORDINARY) -> None:
    def begin() -> None:
        if not machine.alive and not machine.off:
            machine.start(settings)

    world.after(after_us, begin)


def _restart_some_time(world: World, machine: Machine) -> None:
    random = world.random
    after_us = random.choice((RESTART_US, RESTART_US, SECOND, random.randrange(10 * world.plan.unit_us)))
    restart(world, machine, after_us)


# Processes and machines ------------------------------------------------------------------------------------


def process_killed(world: World, machine: Machine) -> bool:
    if not machine.alive:
        return False
    machine.die()
    _restart_some_time(world, machine)
    return True


def process_killed_at_work(world: World, machine: Machine) -> bool:
    """Between two actions."""
    if not machine.alive:
        return False
    machine.kill_after = world.random.randrange(12)
    world.after(3 * world.plan.unit_us, lambda: _restart_some_time(world, machine))
    return True


def process_killed_at_its_start(world: World, machine: Machine) -> bool:
    if machine.alive or machine.off:
        return False
    machine.doom = world.random.randrange(40)
    machine.start()
    _restart_some_time(world, machine)
    return True


def crashed_repeatedly(world: World, machine: Machine) -> bool:
    """It does not preempt for a while."""
    if not machine.alive:
        return False
    machine.die()
    hold_us = 5 * world.plan.unit_us
    machine.start(EngineSettings(no_preempt_until_us=world.now_us + machine.offset_us + hold_us))
    return True


def daemon_killed(world: World, machine: Machine) -> bool:
    """kill -9 of all of it: there is no journal any more, and the kernel keeps what it has."""
    if machine.off:
        return False
    machine.die()
    machine.lose_journal()
    _restart_some_time(world, machine)
    return True


def withdrawn(world: World, machine: Machine) -> bool:
    """The process is dead, and one that only cleans up takes its place."""
    if machine.off:
        return False
    machine.die()
    machine.start(EngineSettings(withdraw=True))
    restart(world, machine, world.plan.unit_us * 3 + 3 * SECOND)
    return True


def power_lost(world: World, machine: Machine) -> bool:
    machine.lose_power()
    machine.off = True
    return True


def power_back(world: World, machine: Machine) -> bool:
    if not machine.off:
        return False
    machine.off = False
    delay_us = world.random.choice((0, 0, world.plan.unit_us * 2))
    machine.start(EngineSettings(startup_delay_us=delay_us))
    return True


def stopped(world: World, machine: Machine) -> bool:
    if not machine.responsive:
        return False
    machine.stop()
    restart(world, machine, 4 * SECOND + world.random.randrange(4 * world.plan.unit_us))
    return True


def paused(world: World, machine: Machine) -> bool:
    if not machine.responsive:
        return False
    machine.pause()
    lives = machine.lives
    span_us = world.random.choice(
        (20_000, world.plan.unit_us, 12 * world.plan.unit_us, 40 * world.plan.unit_us)
    )

    def go_on() -> None:
        if machine.lives == lives and machine.paused and not machine.suspended:
            machine.resume()

    world.after(span_us, go_on)
    return True


def suspended(world: World, machine: Machine) -> bool:
    """The machine sleeps: its clock stands still, and it hears nothing."""
    if not machine.responsive:
        return False
    machine.suspend()
    lives, span_us = machine.lives, world.random.randrange(20 * world.plan.unit_us)

    def wake_up() -> None:
        if machine.lives == lives and machine.suspended:
            machine.resume()

    world.after(span_us, wake_up)
    return True


def slow(world: World, machine: Machine) -> bool:
    """It wakes late, and the kernel takes its time."""
    machine.late_us = world.random.choice((0, 2_000, 30_000))
    machine.slow_kernel_us = world.random.choice((0, 50_000, world.plan.unit_us))
    return True


# The network -----------------------------------------------------------------------------------------------


def _other(world: World, machine: Machine) -> Machine:
    return world.random.choice([each for each in world.machines if each is not machine])


def pair_parted(world: World, machine: Machine) -> bool:
    other, interface = _other(world, machine), world.random.choice(INTERFACES[:2])
    world.cut |= {(interface, machine.number, other.number), (interface, other.number, machine.number)}
    return True


def one_way(world: World, machine: Machine) -> bool:
    interface = world.random.choice(INTERFACES[:2])
    world.cut.add((interface, machine.number, _other(world, machine).number))
    return True


def network_split(world: World, machine: Machine) -> bool:
    here = {each.number for each in world.machines if world.random.random() < 0.5}
    for one in world.machines:
        for other in world.machines:
            if (one.number in here) is not (other.number in here):
                world.cut |= {(interface, one.number, other.number) for interface in INTERFACES[:2]}
    return True


def network_healed(world: World, machine: Machine) -> bool:
    if not world.cut:
        return False
    world.cut.clear()
    return True


def packets_lost(world: World, machine: Machine) -> bool:
    world.loss = world.random.choice((0.0, 0.05, 0.3, 0.9))
    return True


def packets_duplicated(world: World, machine: Machine) -> bool:
    world.duplication = world.random.choice((0.0, 0.2, 1.0))
    return True


def packets_disordered(world: World, machine: Machine) -> bool:
    world.disorder = world.random.choice((0.0, 0.1, 0.5))
    return True


def packets_delayed(world: World, machine: Machine) -> bool:
    world.most_delay_us = world.random.choice((500, 20_000, world.plan.unit_us))
    return True


def cable_pulled(world: World, machine: Machine) -> bool:
    machine.set_carrier(world.random.choice(INTERFACES), False)
    return True


def cable_plugged(world: World, machine: Machine) -> bool:
    machine.set_carrier(world.random.choice(INTERFACES), True)
    return True


def interface_removed(world: World, machine: Machine) -> bool:
    machine.remove_interface(world.random.choice(INTERFACES))
    return True


def interface_added(world: World, machine: Machine) -> bool:
    missing = set(INTERFACES) - {each.name for each in machine.links}
    for interface in sorted(missing):
        machine.add_interface(interface)
    return bool(missing)


# What the kernel does --------------------------------------------------------------------------------------


def addresses_refused(world: World, machine: Machine) -> bool:
    config = world.random.choice(configurations(world.plan, machine.number))
    machine.refuses.add(world.random.choice(config.virtual_addresses).address)
    return True


def addresses_accepted(world: World, machine: Machine) -> bool:
    if not machine.refuses:
        return False
    machine.refuses.clear()
    return True


def address_deleted(world: World, machine: Machine) -> bool:
    present = sorted(key for key in machine.kernel if isinstance(key, tuple))
    if not present:
        return False
    machine.delete_address(world.random.choice(present))
    return True


def route_deleted(world: World, machine: Machine) -> bool:
    return machine.lose_routes(told=True)


def routes_lost_without_a_word(world: World, machine: Machine) -> bool:
    return machine.lose_routes(told=False)


def clock_set(world: World, machine: Machine) -> bool:
    """The wall clock, which nobody's timers run on."""
    machine.set_wall_clock(world.random.choice((0, 1_000_000, -1_000_000, 3600 * SECOND, -3600 * SECOND)))
    return True


def address_set_by_another(world: World, machine: Machine) -> bool:
    """One of ours, before us."""
    config = world.random.choice(machine.configs)
    key = world.random.choice(sorted(addresses(config)))
    if key in machine.kernel or not machine.has_carrier(key[0]) or not machine.may_be_foreign(config.name):
        return False
    machine.kernel.add(key)
    machine.foreign.add(key)
    return True


def socket_broken(world: World, machine: Machine) -> bool:
    numbers = sorted(set(machine.transports) - machine.broken)
    if not machine.alive or not numbers:
        return False
    machine.break_socket(world.random.choice(numbers))
    return True


def sockets_refused(world: World, machine: Machine) -> bool:
    machine.refuses_sockets = True
    return True


def sockets_accepted(world: World, machine: Machine) -> bool:
    if not machine.refuses_sockets:
        return False
    machine.refuses_sockets = False
    return True


# What is followed ------------------------------------------------------------------------------------------


def script_flaps(world: World, machine: Machine) -> bool:
    status = world.random.choice((0, 0, 1, 2, HANGS, None))
    machine.statuses[world.random.choice(("probe", "gate"))] = status
    return True


def file_written(world: World, machine: Machine) -> bool:
    value = world.random.choice((0, 0, 10, -30, 120, -254))
    machine.contents[VALUE] = value
    machine.hear_of_file(VALUE)
    return True


def process_counted(world: World, machine: Machine) -> bool:
    machine.counts["worker"] = world.random.choice((0, 1, 1, 2))
    machine.hear_of_process(world.random.choice((Cause.FORKED, Cause.TERMINATED, Cause.RENAMED)))
    return True


def bfd_flaps(world: World, machine: Machine) -> bool:
    machine.bfd_up = world.random.random() < 0.5
    machine.hear_of_bfd()
    return True


# Configurations --------------------------------------------------------------------------------------------


def reloaded(world: World, machine: Machine) -> bool:
    change = world.random.choice((harmless, harmless, harmful))
    if machine.paused:
        return False
    configs = change(world.random, configurations(world.plan, machine.number))
    if world.random.random() < 0.1:
        machine.sync_groups = ()
    elif not machine.sync_groups:
        machine.sync_groups = (world.plan.group,)
    machine.set_configuration(configs)
    return True


def reload_interrupted(world: World, machine: Machine) -> bool:
    """The process dies while it takes the configuration in."""
    if not machine.responsive:
        return False
    machine.kill_after = world.random.randrange(20)
    machine.set_configuration(harmless(world.random, configurations(world.plan, machine.number)))
    machine.kill_after = None
    if not machine.alive:
        restart(world, machine, RESTART_US)
    return True


FAULTS: dict[Fault, int] = {
    process_killed: 4,
    process_killed_at_work: 4,
    process_killed_at_its_start: 3,
    crashed_repeatedly: 1,
    daemon_killed: 3,
    withdrawn: 1,
    power_lost: 2,
    power_back: 6,
    stopped: 2,
    paused: 4,
    suspended: 2,
    slow: 2,
    pair_parted: 3,
    one_way: 3,
    network_split: 2,
    network_healed: 5,
    packets_lost: 3,
    packets_duplicated: 2,
    packets_disordered: 2,
    packets_delayed: 2,
    cable_pulled: 3,
    cable_plugged: 5,
    interface_removed: 2,
    interface_added: 6,
    addresses_refused: 2,
    addresses_accepted: 3,
    address_deleted: 3,
    address_set_by_another: 2,
    route_deleted: 2,
    routes_lost_without_a_word: 2,
    clock_set: 2,
    socket_broken: 3,
    sockets_refused: 1,
    sockets_accepted: 4,
    script_flaps: 5,
    file_written: 4,
    process_counted: 3,
    bfd_flaps: 4,
    reloaded: 5,
    reload_interrupted: 2,
}
"""How often each happens, compared with the others."""

_KINDS, _WEIGHTS = list(FAULTS), list(FAULTS.values())


def inject(world: World) -> None:
    """One thing goes wrong."""
    while True:
        fault = world.random.choices(_KINDS, _WEIGHTS)[0]
        machine = world.random.choice(world.machines)
        if fault(world, machine):
            world.injected[fault.__name__] += 1
            world.say(machine, fault.__name__.replace("_", " "))
            return
