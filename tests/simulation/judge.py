"""What must hold once a network is calm: one master, the right one, and everything where it belongs."""

from __future__ import annotations

from kad.addresses import packed
from kad.config.model.vrrp import SyncGroup, TrackedItem, VrrpInstance
from kad_vrrp.core.record import decode
from tests.simulation.machine import Machine, route_key
from tests.simulation.routers import VALUE
from tests.simulation.witness import Violation, master_down_us, skew_us
from tests.simulation.world import World, config_of
from tests.support.vrrp_host import AddressKey, ObjectKey, key_of

__all__ = ["Violation", "assert_at_rest", "candidates", "master_down_us", "priority_of", "skew_us"]


def group_of(machine: Machine, name: str) -> SyncGroup | None:
    return next((group for group in machine.sync_groups if name in group.members), None)


def _state_weight(up: bool, item: TrackedItem) -> int | None:
    """None: it cannot take part. The manual's words, not the core's code."""
    weight = item.weight or 0
    if not weight:
        return None if up is item.reverse else 0
    counts = up if weight > 0 else not up
    sign = -1 if item.reverse else 1
    return sign * weight if counts else 0


def _weights(machine: Machine, config: VrrpInstance) -> list[int | None]:
    group = group_of(machine, config.name)
    trackings = [config.tracking, *([group.tracking] if group is not None else [])]
    found: list[int | None] = []
    for tracking in trackings:
        found += [_state_weight(machine.has_carrier(item.name), item) for item in tracking.interfaces]
        found += [_state_weight(machine.statuses.get(item.name, 0) == 0, item) for item in tracking.scripts]
        found += [_state_weight(machine.counts.get("worker", 0) >= 1, item) for item in tracking.processes]
        found += [_state_weight(machine.bfd_up, item) for item in tracking.bfds]
        for item in tracking.files:
            product = machine.contents.get(VALUE, 0) * (item.weight or 0) * (-1 if item.reverse else 1)
            found.append(None if product <= -254 else min(product, 253))
    return found


def priority_of(machine: Machine, config: VrrpInstance) -> int:
    """The effective priority; 0: it cannot take part."""
    weights = _weights(machine, config)
    if None in weights:
        return 0
    needed = {a.interface for a in config.virtual_addresses + config.excluded_addresses if a.interface}
    if not config.dont_track_primary:
        needed.add(config.interface)
    if not all(map(machine.has_carrier, needed)):
        return 0
    if config.is_owner:
        return 255
    return max(1, min(254, config.priority + sum(weight or 0 for weight in weights)))


def members(machine: Machine, name: str) -> list[str]:
    """The instances that move with this one."""
    group = group_of(machine, name)
    return list(group.members) if group is not None else [name]


def candidates(world: World, name: str) -> dict[Machine, int]:
    """Who could be master, and with which priority."""
    found = {}
    for machine in world.machines:
        configs = [config_of(machine, each) for each in members(machine, name)]
        present = [config for config in configs if config is not None]
        own = config_of(machine, name)
        if machine.responsive and own is not None and all(priority_of(machine, c) for c in present):
            found[machine] = priority_of(machine, own)
    return found


def assert_at_rest(world: World) -> None:
    """See the module."""
    for name in world.names:
        _assert_rightful(world, name)
    for group in {group for machine in world.machines for group in machine.sync_groups}:
        _assert_together(world, group)
    for machine in world.machines:
        if machine.alive:
            _assert_resources(machine)
            _assert_tidy(machine)
            _assert_told(machine)


def _assert_rightful(world: World, name: str) -> None:
    possible = candidates(world, name)
    masters = world.masters(name)
    if not possible:
        if masters:
            raise Violation(f"{name}: {masters[0].label} is MASTER and cannot be")
        return
    if len(masters) != 1 or masters[0] not in possible:
        who = {machine.label: priority for machine, priority in possible.items()}
        raise Violation(f"{name}: masters are {[m.label for m in masters]}, possible were {who}")
    master = masters[0]
    for machine, priority in possible.items():
        if priority <= possible[master] or not _would_preempt(machine, name):
            continue
        raise Violation(
            f"{name}: {master.label} ({possible[master]}) is MASTER, not {machine.label} ({priority})"
        )
    reports = {report.name: report for report in master.engine.report().instances}
    if reports[name].effective_priority != possible[master]:
        told = reports[name].effective_priority
        raise Violation(f"{name}: {master.label} has priority {told}, not {possible[master]}")


def _would_preempt(machine: Machine, name: str) -> bool:
    configs = [config_of(machine, each) for each in members(machine, name)]
    return not any(config is not None and config.nopreempt for config in configs)


def _assert_together(world: World, group: SyncGroup) -> None:
    for machine in world.machines:
        states = {machine.states[name] for name in group.members if name in machine.states}
        if machine.alive and group in machine.sync_groups and len(states) > 1:
            raise Violation(f"{machine.label}: the members of {group.name} are {states}")


def addresses(config: VrrpInstance) -> set[AddressKey]:
    both = config.virtual_addresses + config.excluded_addresses
    return {(a.interface or config.interface, a.address, a.prefix_length) for a in both}


def entries(config: VrrpInstance) -> set[ObjectKey]:
    return {*addresses(config), *map(key_of, config.virtual_routes), *map(key_of, config.virtual_rules)}


def _assert_resources(machine: Machine) -> None:
    """What the kernel has is what the states say."""
    wanted: set[ObjectKey] = set()
    for config in machine.configs:
        if machine.states[config.name] == "MASTER":
            wanted |= entries(config)
    missing, superfluous = wanted - machine.kernel, machine.kernel - wanted - machine.foreign
    if missing or superfluous:
        raise Violation(f"{machine.label}: lacks {missing}, has {superfluous} too much")


SOON_US = 2_500_000
"""A deleted address is back by then, and whatever a change of state asks of the kernel is done."""


def assert_nothing_is_missing(world: World) -> None:
    """Even in a storm: who has been MASTER for a while has its addresses, and nobody else has."""
    for machine in world.machines:
        quiet_us = world.now_us - max(machine.booted_us, machine.meddled_us)
        if not machine.responsive or machine.leaving or quiet_us < SOON_US or not machine.engine.settled:
            continue
        for config in machine.configs:
            since_us = machine.witness.account(config.name).since_us
            if since_us is None or world.now_us - since_us < SOON_US:
                continue
            present = addresses(config) & machine.kernel
            state = machine.states[config.name]
            wanted = addresses(config) if state == "MASTER" else present & machine.foreign
            if present != wanted:
                raise Violation(f"{machine.label}: {config.name} as {state} has {present}")


def _assert_tidy(machine: Machine) -> None:
    """Nothing is left over: journal, sockets, plans."""
    names = {config.name for config in machine.configs}
    if set(machine.journal) != names:
        raise Violation(f"{machine.label}: the journal has {set(machine.journal) ^ names} too much or little")
    for name, data in machine.journal.items():
        record = decode(data)
        if record is None or record.state.value != machine.states[name]:
            raise Violation(f"{machine.label}: {name} is {machine.states[name]}, its record says {record}")
    used = {route_key(machine, config) for config in machine.configs}
    if len(machine.transports) != len(used):
        raise Violation(f"{machine.label}: {len(machine.transports)} sockets are open, {len(used)} are used")
    if not machine.engine.settled or any(machine.pending.values()):
        raise Violation(f"{machine.label}: the kernel still owes an answer")


def _assert_told(machine: Machine) -> None:
    """Every notification was carried out, and every host was told where the addresses are."""
    if unpaid := machine.witness.unpaid():
        raise Violation(f"{machine.label}: never carried out: {unpaid}")
    for report in machine.engine.report().instances:
        if report.owed_notifications:
            raise Violation(f"{machine.label}: {report.name} still owes {report.owed_notifications}")
        told = machine.witness.notified_state.get(report.name)
        if told not in (report.state, None):
            raise Violation(f"{machine.label}: {report.name} is {report.state}, its script heard of {told}")
        if report.state == "MASTER":
            _assert_announced(machine, report.name)


def _assert_announced(machine: Machine, name: str) -> None:
    config = config_of(machine, name)
    assert config is not None
    account = machine.witness.account(name)
    now_us = machine.world.now_us
    if account.since_us is None:
        return
    for interface, address, _ in sorted(addresses(config)):
        told_us = account.announced_us.get(packed(address), -1)
        due_us = max(account.since_us, account.added_us.get(packed(address), 0))
        second_us = account.since_us + config.garp.master_delay_us
        if machine.booted_us < account.since_us and second_us + 1_000_000 < now_us:
            due_us = max(due_us, second_us)
        if told_us < due_us:
            raise Violation(
                f"{machine.label}: {name} announced {address} on {interface} at {told_us}, due at {due_us}"
            )
