"""What the engine tells about its instances. Pure."""

from kad.ipc.reports import InstanceReport, ObjectReport, VirtualAddressReport
from kad_vrrp.core.actions import AddressEntry, State
from kad_vrrp.core.descriptions import describe
from kad_vrrp.core.instance import Instance


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
        reason=instance.reason,
        fault=instance.obstacle,
        vips_set=is_master and not instance.holdings.in_flight,
        addresses=addresses,
        routes=tuple(
            ObjectReport(describe(entry), entry in present)
            for entry in instance.holdings.entries
            if not isinstance(entry, AddressEntry)
        ),
        owed_notifications=len(instance.notices.owed),
        counters=instance.stats.as_dict(),
        drops={reason.value: count for reason, count in instance.stats.drops.items()},
    )
