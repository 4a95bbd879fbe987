"""Which instance of a new configuration is which of the old one, and how it becomes the new one. Pure."""

from collections.abc import Sequence

from kad.config.model.vrrp import VrrpInstance
from kad.units import NEVER
from kad_vrrp.core.actions import State
from kad_vrrp.core.instance import Instance
from kad_vrrp.core.priority import effective_priority
from kad_vrrp.core.resources import entries_of
from kad_vrrp.core.timers import VERSION_3

Identity = tuple[int, int, str, bool]


def identity(config: VrrpInstance) -> Identity:
    """What makes an instance the same over a reload, as with keepalived: never its name."""
    return config.virtual_router_id, config.family, config.interface, config.unicast


def match(old: Sequence[VrrpInstance], new: Sequence[VrrpInstance]) -> list[int | None]:
    """For each new instance the index of the old one that it is, or None.

    Where several share an identity (multicast groups or unicast peers differ), the one with the same group
    and source address is meant, then the one of the same name, then any that is left.
    """
    candidates: dict[Identity, list[int]] = {}
    for index, config in enumerate(old):
        candidates.setdefault(identity(config), []).append(index)
    result: list[int | None] = []
    for config in new:
        left = candidates.get(identity(config), [])
        best = min(left, key=lambda index: _distance(old[index], config), default=None)
        if best is not None:
            left.remove(best)
        result.append(best)
    return result


def _distance(old: VrrpInstance, new: VrrpInstance) -> tuple[bool, bool, bool]:
    return (
        old.multicast_group != new.multicast_group,
        old.source_address != new.source_address,
        old.name != new.name,
    )


def configure(instance: Instance, config: VrrpInstance, now_us: int) -> None:
    """A reload changed it. Addresses to remove go now; :func:`complete` does the rest."""
    old = instance.config
    before = instance.transmitter.built(instance.priority)
    old_down_us = instance.intervals.master_down_us
    instance.config = config
    if config.priority != old.priority:
        instance.priority = effective_priority(config.priority, instance.weight)
        instance.tell_priority()
    own_interval_counts = config.advert_int_us != old.advert_int_us and not _goes_by_its_master(instance)
    if config.version != old.version or own_interval_counts:
        instance.master_adver_us = config.advert_int_us
    if config.old_unicast_checksum != old.old_unicast_checksum:
        instance.transmitter.old_checksum = False
    if instance.preempt_at_us and config.preempt_delay_us != old.preempt_delay_us:
        instance.preempt_at_us = _moved_preemption(instance.preempt_at_us, old, config)
    instance.derive()
    instance.transmitter.rebuild(config)
    _configure_addresses(instance, old, now_us)
    instance.remember()
    if instance.state is State.BACKUP and instance.timer_us != NEVER:
        instance.timer_us = max(now_us, instance.timer_us + instance.intervals.master_down_us - old_down_us)
    instance.has_news = instance.transmitter.built(instance.priority) != before
    instance.reconcile(now_us, removals_only=True)


def _configure_addresses(instance: Instance, old: VrrpInstance, now_us: int) -> None:
    """What it is to hold, and to announce, from now on."""
    is_master = instance.state is State.MASTER
    former, entries = instance.holdings.entries, entries_of(instance.config)
    instance.conditions.configure(instance.holdings.vital)
    instance.holdings.configure(entries, holding=is_master)
    instance.announcer.configure(old, instance.config, now_us, is_master=is_master)
    instance.announcer.drop(set(former).difference(entries))


def _moved_preemption(preempt_at_us: int, old: VrrpInstance, new: VrrpInstance) -> int:
    """The delay counts from the first lower advert on; keepalived begins it anew. 0: there is none."""
    return preempt_at_us + new.preempt_delay_us - old.preempt_delay_us if new.preempt_delay_us else 0


def _goes_by_its_master(instance: Instance) -> bool:
    """A backup that has learnt its master's interval (RFC 9568 §6.1) waits by that, whatever its own becomes.

    keepalived takes its own until the next advert, and with a shorter one takes over from a living master.
    """
    return (
        instance.state is State.BACKUP
        and bool(instance.master_address)
        and instance.config.version == VERSION_3
    )


def complete(instance: Instance, now_us: int) -> None:
    """Every instance has given up what it no longer has, and the sockets are the right ones."""
    if instance.has_news and instance.state is State.MASTER and instance.running:
        # Backups learn the new interval and priority at once, as with keepalived.
        instance.transmit(now_us)
    instance.has_news = False
    if instance.state is not State.INIT:
        instance.reconcile(now_us)
