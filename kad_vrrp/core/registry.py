"""The instances of an engine, found by name, interface, address, or packet. Pure."""

from kad.addresses import INET, INET6
from kad.config.model.vrrp import SyncGroup as GroupConfig
from kad.config.model.vrrp import Tracking, VrrpInstance
from kad.config.needed_interfaces import unweighted_interfaces
from kad_vrrp.core.actions import AddressEntry
from kad_vrrp.core.conditions import source_link, source_of
from kad_vrrp.core.context import Context
from kad_vrrp.core.events import AdvertReceived
from kad_vrrp.core.instance import Instance
from kad_vrrp.core.packet import IPV4_HEADER_LENGTH, PROTOCOL, DropReason, PacketError, virtual_router_id
from kad_vrrp.core.sync_group import SyncGroup
from kad_vrrp.core.trackers import Followed, followed, merged
from kad_vrrp.core.transports import Slot, Transports, transport_for

_VRID_AT = {INET: IPV4_HEADER_LENGTH + 1, INET6: 1}
"""Where a packet has its VRID if its IP header is plain."""


class Registry:
    """Keeps the indexes and gives every instance the sockets its configuration and the links ask for."""

    def __init__(self, context: Context, transports: Transports) -> None:
        self._context = context
        self._transports = transports
        self.instances: list[Instance] = []
        """In the order of the configuration."""
        self.leaving: list[Instance] = []
        """Removed by a reload, until the kernel and their scripts are done."""
        self.groups: dict[str, SyncGroup] = {}
        self.dissolved: dict[str, SyncGroup] = {}
        """Removed by a reload, until their scripts have ended."""
        self.with_routes: list[Instance] = []
        """Those that have routes or rules."""
        self.renamed = False
        """A reload gave an instance another name: answers to what it asked before come under the old one."""
        self._by_name: dict[str, Instance] = {}
        self._by_interface: dict[str, list[Instance]] = {}
        self._by_address: dict[str, list[Instance]] = {}
        self._by_followed: dict[Followed, list[Instance]] = {}
        self._by_route: dict[int, dict[int, list[Instance]]] = {}
        """By transport, then by VRID."""
        self._sole: dict[int, dict[int, Instance]] = {}
        """Those of them that share their VRID with no other."""
        self._by_slot: dict[int, list[Instance]] = {}
        self._families: dict[int, int] = {}
        """Of each transport; its protocol, where that is not VRRP itself."""

    def index(self, instances: list[Instance]) -> None:
        """A new set of instances: everything that is found by configuration."""
        self.instances = instances
        self._by_name = {instance.config.name: instance for instance in instances}
        self._by_interface = {}
        self._by_address = {}
        self._by_followed = {}
        self.with_routes = []
        for instance in instances:
            for what in followed(instance.tracking):
                self._by_followed.setdefault(what, []).append(instance)
            for name in instance.interfaces:
                self._by_interface.setdefault(name, []).append(instance)
            for entry in instance.holdings.entries:
                if isinstance(entry, AddressEntry):
                    self._by_address.setdefault(entry.address, []).append(instance)
                elif not self.with_routes or self.with_routes[-1] is not instance:
                    self.with_routes.append(instance)
        self._context.virtual = frozenset(self._by_address)

    def arrange(self, configs: tuple[GroupConfig, ...], instances: list[Instance]) -> list[Instance]:
        """Who belongs to which group, and follows what because of that. Those for whom it has changed."""
        by_name = {instance.config.name: instance for instance in instances}
        before = [instance.group for instance in instances]
        old, self.groups = self.groups, {}
        affected: set[Instance] = set()
        for config in configs:
            members = [by_name[name] for name in config.members if name in by_name]
            former = old.pop(config.name, None) or self.dissolved.pop(config.name, None)
            group = former or SyncGroup(config, self._context)
            self.groups[config.name] = group
            if (group.config, group.members) != (config, members):
                group.configure(config, members)
                affected.update(members)
        for group in old.values():
            self.dissolve(group)
        for instance, former_group in zip(instances, before, strict=True):
            group_tracking = instance.group.config.tracking if instance.group is not None else Tracking()
            unweighted = unweighted_interfaces(instance.config)
            tracking = merged(instance.config.tracking, group_tracking, unweighted)
            if tracking != instance.tracking or instance.group is not former_group:
                instance.follow(tracking)
                affected.add(instance)
        return [instance for instance in instances if instance in affected]

    def dissolve(self, group: SyncGroup) -> None:
        """A reload has removed it; it stays here for as long as it owes something."""
        if group.dissolve():
            self.dissolved[group.config.name] = group

    def on_group_notified(self, name: str, serial: int) -> None:
        """A script of a sync group has ended."""
        group = self.groups.get(name) or self.dissolved.get(name)
        if group is None:
            return
        group.on_notify_done(serial)
        if name in self.dissolved and not group.notices.owed:
            self.dissolved.pop(name).forget()

    def following(self, what: Followed) -> list[Instance]:
        return self._by_followed.get(what, [])

    def named(self, name: str) -> list[Instance]:
        """Whose answer it is: the living one and those that are leaving; serial numbers tell them apart."""
        living = self._by_name.get(name)
        leaving = [instance for instance in self.leaving if instance.config.name == name]
        return leaving if living is None else [living, *leaving]

    def awaiting_plan(self, name: str, serial: int) -> Instance | None:
        """Whose plan the kernel has answered. It may have had another name when it asked."""
        return next((each for each in self._asked_as(name) if each.holdings.awaits(serial)), None)

    def owing(self, name: str, serial: int) -> Instance | None:
        """Whose notification has ended."""
        return next((each for each in self._asked_as(name) if each.notices.owes(serial)), None)

    def _asked_as(self, name: str) -> list[Instance]:
        return [*self.named(name), *self.instances] if self.renamed else self.named(name)

    def succeed(self, leaving: list[Instance], living: dict[str, Instance]) -> None:
        """Another may have the name of one that is removed: then it has its record too.

        ``living``: those that stay or come, by the name they have from now on.
        """
        for gone in leaving:
            heir = living.get(gone.config.name)
            if heir is not None and gone.successor is None:
                gone.successor, heir.predecessor = heir, gone
                heir.notices.held = True

    def release(self, gone: Instance) -> None:
        """One that was removed is done with: those before and after it are neighbours now."""
        self.leaving.remove(gone)
        heir = gone.successor
        if heir is not None:
            heir.predecessor = gone.predecessor
            if heir.predecessor is None and heir.notices.release():
                heir.remember()
        if gone.predecessor is not None:
            gone.predecessor.successor = gone.successor

    def on_interface(self, name: str) -> list[Instance]:
        return self._by_interface.get(name, [])

    def with_address(self, address: str) -> list[Instance]:
        return self._by_address.get(address, [])

    def on_slot(self, slot: Slot) -> list[Instance]:
        return list(self._by_slot.get(slot.number, ()))

    # Packets -------------------------------------------------------------------------------------------

    def addressee(self, event: AdvertReceived) -> Instance:
        """Whom a packet is for, or PacketError. Several unicast instances may share a VRID if their peers
        differ.
        """
        family = self._families.get(event.transport)
        if family is None:
            raise PacketError(DropReason.NOT_LISTENING, "transport is closed")
        vrid = virtual_router_id(event.data, family)
        candidates = self._by_route[event.transport].get(vrid, ())
        if len(candidates) == 1:
            return candidates[0]
        for instance in candidates:
            if event.source in instance.rules.peers:
                return instance
        raise PacketError(DropReason.UNKNOWN_VRID, f"VRID {vrid}")

    def sole_candidates(self, transport: int) -> tuple[int, dict[int, Instance]]:
        """Whom the packets of a transport are for if it is clear, by one of their bytes; which one, and the
        instances.
        """
        return _VRID_AT.get(self._families.get(transport, 0), 0), self._sole.get(transport, {})

    # Sockets -------------------------------------------------------------------------------------------

    def bind(self, instance: Instance) -> None:
        """Bring sockets and source address of an instance up to date."""
        links, config = self._context.links, instance.config
        source = source_of(config, source_link(config, links), self._context.virtual)
        link = links.get(config.transport_interface)
        old = instance.transmitter.slot
        slot = self._wanted_slot(config, source, old, 0 if link is None else link.index)
        if slot is old and source == instance.transmitter.source:
            return
        instance.bind(slot, source)
        if slot is not old:
            self._enroll(instance, slot)
            self.expel(instance, old)

    def _wanted_slot(self, config: VrrpInstance, source: str, old: Slot | None, index: int) -> Slot | None:
        """``index``: of the interface, 0 when it does not exist."""
        if (config.interface and not index) or (config.unicast and not source):
            return None
        wanted = transport_for(config, source)
        if old is not None and old.spec == wanted and old.link_index == index:
            return old
        return self._transports.acquire(wanted, index)

    def _enroll(self, instance: Instance, slot: Slot | None) -> None:
        if slot is None:
            return
        spec = slot.spec
        self._families[slot.number] = spec.family if spec.protocol == PROTOCOL else spec.protocol
        self._by_slot.setdefault(slot.number, []).append(instance)
        routes = self._by_route.setdefault(slot.number, {})
        routes.setdefault(instance.config.virtual_router_id, []).append(instance)
        self._tell_apart(slot.number, instance.config.virtual_router_id)

    def _tell_apart(self, number: int, vrid: int) -> None:
        """After a change of those who have this VRID."""
        sole, candidates = self._sole.setdefault(number, {}), self._by_route[number].get(vrid, ())
        if len(candidates) == 1:
            sole[vrid] = candidates[0]
        else:
            sole.pop(vrid, None)

    def expel(self, instance: Instance, slot: Slot | None) -> None:
        """The instance does not use these sockets any more."""
        if slot is None:
            return
        routes, vrid = self._by_route[slot.number], instance.config.virtual_router_id
        for index, key in ((self._by_slot, slot.number), (routes, vrid)):
            index[key].remove(instance)
            if not index[key]:
                del index[key]
        self._tell_apart(slot.number, vrid)
        if slot.number not in self._by_slot:
            del self._families[slot.number], self._by_route[slot.number], self._sole[slot.number]
        self._transports.release(slot)
