"""Between an instance and its journal record. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad.config.model.vrrp import VrrpInstance
from kad_vrrp.core.actions import State
from kad_vrrp.core.priority import REDUCED_OWNER
from kad_vrrp.core.record import OWED_LIMIT, RECORD_VERSION, OwedNotice, Record
from kad_vrrp.core.resources import entries_of

if TYPE_CHECKING:
    from kad_vrrp.core.instance import Instance


def record_of(instance: Instance) -> Record:
    """The record of what the instance intends and owes at this moment."""
    addresses_digest, ours, foreign = instance.holdings.recorded()
    # The next life of a master judges its silence by what backups know.
    told_us = instance.transmitter.told_interval_us
    return Record(
        version=RECORD_VERSION,
        generation=instance.context.generation,
        state=instance.state,
        since_us=instance.since_us,
        effective_priority=instance.priority,
        master_adver_us=told_us if instance.state is State.MASTER else instance.master_adver_us,
        master_address=instance.master_address,
        master_priority=instance.master_priority,
        preempt_at_us=instance.preempt_at_us,
        old_checksum=instance.transmitter.old_checksum,
        addresses_digest=addresses_digest,
        ours=ours,
        foreign=foreign,
        serial=instance.holdings.last_serial,
        notified=instance.notices.notified,
        owed=_owed(instance),
    )


def _owed(instance: Instance) -> tuple[OwedNotice, ...]:
    """What is owed under its name, to those that had it before first."""
    owed = list(instance.notices.owed)
    former = instance.predecessor
    while former is not None:
        owed[:0] = former.notices.owed
        former = former.predecessor
    return tuple(owed[-OWED_LIMIT:])


def restore(
    instance: Instance, record: Record, silent_for_us: int, previous: VrrpInstance | None, now_us: int
) -> None:
    """Go on where a former life stopped. The delays of a start do not apply.

    ``previous``: the instance in the generation before, if a reload was being carried out.
    """
    config = instance.config
    instance.state = record.state
    instance.since_us = record.since_us
    instance.transmitter.last_sent_us = now_us - silent_for_us
    instance.master_address = record.master_address
    instance.master_priority = record.master_priority
    if record.state is State.BACKUP and record.master_adver_us > 0:
        instance.master_adver_us = record.master_adver_us
    elif record.state is State.MASTER and record.master_adver_us > 0:
        instance.transmitter.told_interval_us = record.master_adver_us
    if config.is_owner and record.effective_priority == REDUCED_OWNER:
        instance.priority = REDUCED_OWNER
    instance.preempt_at_us = record.preempt_at_us
    instance.transmitter.old_checksum = record.old_checksum and not config.old_unicast_checksum
    former = entries_of(previous) if previous is not None else ()
    instance.holdings.restore(record.addresses_digest, record.ours, record.foreign, former)
    if record.state is not State.MASTER:
        instance.holdings.assume_all()
    authenticator = instance.transmitter.authenticator
    if authenticator is not None and not authenticator.recall(config.name) and previous is not None:
        authenticator.recall(previous.name)
    instance.notices.restore(record.owed, record.notified)
    instance.recalled = True
    instance.took_part = record.state in (State.MASTER, State.BACKUP)
    instance.resuming = record.state is State.MASTER
    instance.deaf_until_us = now_us
    instance.derive_intervals()
