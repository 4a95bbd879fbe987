"""What the engine tells about its instances. Pure."""

from kad.ipc.reports import GroupReport, InstanceReport, ObjectReport, VirtualAddressReport
from kad.units import NEVER
from kad_vrrp.core.actions import AddressEntry, State
from kad_vrrp.core.descriptions import describe
from kad_vrrp.core.instance import Instance
from kad_vrrp.core.sync_group import SyncGroup


def report_of(instance: Instance) -> InstanceReport:
    """The whole present state of one instance."""
    config = instance.config
    present = set(instance.holdings.present) if not instance.resuming else set()
    excluded_from = len(config.virtual_addresses)
    addresses = tuple(
        VirtualAddressReport(
            address=entry.address,
            prefix_length=entry.prefix_length,
            interface=entry.interface,
            excluded=number >= excluded_from,
            present=entry in present,
        )
        for number, entry in enumerate(instance.holdings.entries)
        if isinstance(entry, AddressEntry)
    )
    is_master = instance.state is State.MASTER
    return InstanceReport(
        name=config.name,
        state=instance.state.value,
        since_us=instance.since_us,
        priority=config.priority,
        effective_priority=instance.priority,
        interface=config.interface,
        family=config.family,
        version=config.version,
        virtual_router_id=config.virtual_router_id,
        wanted_state=config.wanted_state.value,
        advert_int_us=config.advert_int_us,
        master_adver_us=instance.master_adver_us,
        source_address=instance.transmitter.source,
        master_address="" if is_master else instance.master_address,
        master_priority=0 if is_master else instance.master_priority,
        heard_priority=instance.master_priority,
        reason=instance.reason,
        fault=instance.obstacle,
        error=_error(instance),
        vips_set=is_master and not instance.holdings.in_flight,
        addresses=addresses,
        routes=tuple(
            ObjectReport(describe(entry), entry in present)
            for entry in instance.holdings.entries
            if not isinstance(entry, AddressEntry)
        ),
        owed_notifications=len(instance.notices.owed),
        timer_us=0 if instance.timer_us == NEVER else instance.timer_us,
        master_down_us=instance.intervals.master_down_us,
        weight=instance.weight,
        awaiting=instance.awaiting,
        counters=instance.stats.as_dict(),
        drops={reason.value: count for reason, count in instance.stats.drops.items()},
    )


def group_report(group: SyncGroup) -> GroupReport:
    """The present state of a sync group."""
    return GroupReport(
        name=group.config.name,
        state=group.state.value,
        members=tuple(member.config.name for member in group.members),
        faulty=sum(bool(member.fault) for member in group.members),
        awaiting=sum(member.awaiting for member in group.members),
    )


def _error(instance: Instance) -> str:
    """What a master lacks."""
    missing = instance.holdings.missing if instance.state is State.MASTER else ()
    return f"the kernel refused {', '.join(map(describe, missing))}" if missing else ""
