"""Whether an instance takes part: what is in its way, what it weighs, and where it begins. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad.units import NEVER
from kad_vrrp.core.actions import State
from kad_vrrp.core.priority import effective_priority
from kad_vrrp.core.stall import promised

if TYPE_CHECKING:
    from kad_vrrp.core.instance import Instance


def check(instance: Instance, now_us: int) -> None:
    """Compare the present conditions with the state, and move if they do not fit."""
    if instance.ending is not None:
        return
    if instance.transmitter.owes_farewell and instance.transmitter.is_open:
        _say_farewell(instance, now_us)
    if _find_obstacle(instance, now_us) and instance.state is not State.FAULT:
        instance.enter_fault(instance.obstacle, now_us)
    if not instance.config.is_owner:
        # Not before FAULT: what forbids does not weigh, and a master's priority would rise by that.
        instance.set_priority(effective_priority(instance.config.priority, instance.weight), now_us)
    if not instance.obstacle:
        _take_part(instance, now_us)
    if instance.group is not None:
        instance.group.look_again(now_us)


def _take_part(instance: Instance, now_us: int) -> None:
    """Nothing is in the way: begin, if it has not, and can."""
    if not instance.transmitter.is_open:
        instance.running = False
        instance.timer_us = NEVER
        instance.familiar = None
    elif not instance.running and not _is_awaiting(instance):
        instance.running = True
        instance.took_part = True
        _begin(instance, now_us)


def _say_farewell(instance: Instance, now_us: int) -> None:
    """It left MASTER right after a restart. Only while backups wait for it: later that would be untrue."""
    transmitter = instance.transmitter
    transmitter.owes_farewell = False
    fresh = now_us - transmitter.last_sent_us < promised(instance).master_down_us
    if fresh and instance.state is not State.MASTER:
        instance.context.actions.extend(transmitter.farewell(now_us))


def _is_awaiting(instance: Instance) -> bool:
    """keepalived: unweighted scripts of any member have to answer once before any takes part."""
    return instance.awaiting or (instance.group is not None and instance.group.awaiting)


def _find_obstacle(instance: Instance, now_us: int) -> str:
    """Look at everything that can be in the way, or weigh; what is in the way."""
    config, links = instance.config, instance.context.links
    slot, source = instance.transmitter.slot, instance.transmitter.source
    failure = slot.failure if slot is not None else ""
    verdict = instance.context.trackers.verdict(instance.tracking, links)
    instance.fault = instance.conditions.find_fault(config, links, source, failure, now_us) or verdict.fault
    instance.awaiting = verdict.awaiting and not instance.took_part
    instance.weight = verdict.weight
    instance.obstacle = instance.fault
    if instance.group is not None:
        instance.group.report(instance)
        instance.obstacle = instance.obstacle or instance.group.fault_beside(instance)
    return instance.obstacle


def _begin(instance: Instance, now_us: int) -> None:
    """Nothing is in the way (any more): start, or go on where a former life or socket stopped."""
    start_us = max(now_us, instance.deaf_until_us)
    if instance.state is State.MASTER:
        instance.resume_master(now_us)
    elif instance.state is State.BACKUP:
        waits = 0 if instance.ready else instance.intervals.master_down_us
        instance.wait_for_master(waits, "no advertisement heard since the restart", start_us)
        instance.reconcile(now_us)
    elif instance.state is State.FAULT:
        # keepalived: an owner coming back listens for one interval first (RFC 9568 would not).
        waits = (
            instance.config.advert_int_us + instance.intervals.skew_us
            if instance.wants_mastery
            else instance.intervals.master_down_us
        )
        instance.enter_backup("nothing is in the way any more", now_us, waits)
        if instance.config.unicast and instance.deaf_until_us <= now_us:
            # A master that lost us from its neighbour cache would send its next adverts too late.
            instance.announcer.tell_source(instance.config, instance.transmitter.source)
    elif not instance.wants_mastery:
        instance.enter_backup("started", now_us, instance.intervals.master_down_us)
    elif start_us > now_us:
        instance.wait_for_master(0, "address owner, after the start-up delay", start_us)
    else:
        instance.claim("address owner", now_us)
