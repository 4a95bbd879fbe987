"""Gratuitous ARP and unsolicited neighbour advertisements: frames, schedule, pacing. Pure."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from struct import Struct as Layout
from typing import Protocol

from kad.addresses import INET6, family_of, packed
from kad.config.model.vrrp import GarpGroup, GarpSettings
from kad.units import NEVER
from kad.wire import MAC_LENGTH, internet_checksum, ipv6_pseudo_header
from kad_vrrp.core.actions import AddressEntry
from kad_vrrp.core.events import LinkChanged

_BROADCAST = b"\xff" * MAC_LENGTH
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_ALL_NODES = packed("ff02::1")
_ETHERTYPE_ARP = b"\x08\x06"
_ETHERTYPE_IPV6 = b"\x86\xdd"
_ARP_HEADER = Layout("!HHBBH").pack(1, 0x0800, MAC_LENGTH, 4, 1)
"""Ethernet, IPv4, request."""
_ICMPV6 = 58
_NEIGHBOR_DISCOVERY_HOP_LIMIT = 255
_NA_ROUTER = 0x80
_NA_OVERRIDE = 0x20
_AFTER_ANSWERS_US = 100_000
"""By then the former master has taken the address away and answers no more requests for it."""


def gratuitous_arp(mac: bytes, address: bytes) -> bytes:
    """An Ethernet frame with an ARP request for our own address (RFC 5227 §3).

    The request form, with the broadcast address as target hardware address, as keepalived sends it.
    """
    arp = _ARP_HEADER + mac + address + _BROADCAST + address
    return _BROADCAST + mac + _ETHERTYPE_ARP + arp


def unsolicited_advertisement(mac: bytes, address: bytes, *, router: bool) -> bytes:
    """An Ethernet frame with a neighbour advertisement to all nodes (RFC 4861 §4.4, §7.2.6)."""
    flags = _NA_OVERRIDE | (_NA_ROUTER if router else 0)
    target_option = b"\x02\x01" + mac
    body = bytes((136, 0, 0, 0, flags, 0, 0, 0)) + address + target_option
    checksum = internet_checksum(ipv6_pseudo_header(address, _ALL_NODES, _ICMPV6, len(body)) + body)
    body = body[:2] + checksum.to_bytes(2, "big") + body[4:]
    header = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes((_ICMPV6, _NEIGHBOR_DISCOVERY_HOP_LIMIT))
    return _ALL_NODES_MAC + mac + _ETHERTYPE_IPV6 + header + address + _ALL_NODES + body


def frame_for(entry: AddressEntry, link: LinkChanged | None) -> bytes | None:
    """The announcement of an address on its interface; None where none can be made.

    Interfaces without ARP get none, nor do those whose hardware address is not Ethernet's.
    """
    if link is None or not link.arp or len(link.mac) != MAC_LENGTH:
        return None
    address = packed(entry.address)
    if family_of(entry.address) == INET6:
        return unsolicited_advertisement(link.mac, address, router=link.forwarding)
    return gratuitous_arp(link.mac, address)


class AnnouncementSchedule:
    """When an instance that is MASTER announces its addresses again. Times are absolute; NEVER is off."""

    __slots__ = ("again_us", "extra_us", "full_us", "lower_priority_us", "refresh_us", "second_us")

    def __init__(self) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Not MASTER any more."""
        self.second_us = NEVER
        self.lower_priority_us = NEVER
        self.refresh_us = NEVER
        self.extra_us = NEVER
        self.full_us = NEVER
        self.again_us = NEVER

    @property
    def deadline_us(self) -> int:
        return min(
            self.second_us,
            self.lower_priority_us,
            self.refresh_us,
            self.extra_us,
            self.full_us,
            self.again_us,
        )

    def begin(self, settings: GarpSettings, now_us: int, *, on_vmac: bool) -> None:
        """The first burst leaves now; what follows it.

        ``on_vmac``: a former master that still has the address answers the first burst, from the same MAC.
        Bridges believe it until the VMAC's next frame: with keepalived an advert, or the burst of
        master_delay where it sends none. kad sends one announcement before.
        """
        self.full_us = NEVER
        if settings.master_delay_us:
            self.second_us = now_us + settings.master_delay_us
        if settings.master_refresh_us:
            self.refresh_us = now_us + settings.master_delay_us + settings.master_refresh_us
        if settings.extra_if_us:
            self.extra_us = now_us + settings.master_delay_us + settings.extra_if_us
        if on_vmac:
            self.again_us = now_us + _AFTER_ANSWERS_US

    def configure(self, old: GarpSettings, new: GarpSettings, now_us: int) -> None:
        """A reload while MASTER: a period that it changes begins now, and one that it takes away ends."""
        if new.master_refresh_us != old.master_refresh_us:
            self.refresh_us = now_us + new.master_refresh_us if new.master_refresh_us else NEVER
        if new.extra_if_us != old.extra_if_us:
            self.extra_us = now_us + new.extra_if_us if new.extra_if_us else NEVER

    def heard_lower_priority(self, settings: GarpSettings, now_us: int) -> None:
        """Another master made itself heard; a second burst follows the immediate one."""
        if settings.lower_prio_repeat and settings.lower_prio_delay_us:
            self.lower_priority_us = now_us + settings.lower_prio_delay_us

    def due(self, settings: GarpSettings, now_us: int) -> int:
        """How often to announce every address now (0: not at all); moves the schedule on.

        Bursts due together are one, of the longest repetition.
        """
        repeat = 0
        if self.second_us <= now_us:
            self.second_us = NEVER
            repeat = max(repeat, settings.master_repeat)
        if self.lower_priority_us <= now_us:
            self.lower_priority_us = NEVER
            repeat = max(repeat, settings.lower_prio_repeat)
        if self.refresh_us <= now_us:
            # A stall skips refreshes instead of making up for them.
            self.refresh_us = max(self.refresh_us + settings.master_refresh_us, now_us + 1)
            repeat = max(repeat, settings.master_refresh_repeat)
        return repeat

    def extra_due(self, settings: GarpSettings, now_us: int) -> bool:
        """Whether one announcement on each other interface is due; moves the schedule on."""
        if self.extra_us > now_us:
            return False
        self.extra_us = max(self.extra_us + settings.extra_if_us, now_us + 1)
        return True


class Owner(Protocol):
    """Who announces. A reload may give its instance another name."""

    name: str


class _Queue:
    __slots__ = ("interval_us", "next_us", "waiting")

    def __init__(self) -> None:
        self.next_us = 0
        self.interval_us = 0
        self.waiting: OrderedDict[tuple[Owner, AddressEntry], tuple[bytes, int]] = OrderedDict()
        """The frame of each, as last asked for, and how often it is still to be sent."""


class Pacer:
    """Least gaps between announcements on one interface (garp_interval, gna_interval).

    Frames that must wait queue in order; those of one address merge, so the queue is never longer than
    the addresses are many.
    """

    def __init__(self) -> None:
        self._queues: dict[tuple[str, int], _Queue] = {}
        self._groups: dict[str, tuple[str, GarpGroup]] = {}

    def configure(self, groups: tuple[GarpGroup, ...], bases: Mapping[str, str]) -> None:
        """garp_group: interfaces that are paced as one. The first interface of a group gives it its name.

        ``bases``: a VMAC is paced as the interface it is on top of.
        """
        self._groups = {
            interface: (group.interfaces[0], group) for group in groups for interface in group.interfaces
        }
        on_top = {name: self._groups[base] for name, base in bases.items() if base in self._groups}
        self._groups = on_top | self._groups

    def gap_us(self, interface: str, family: int, settings: GarpSettings) -> int:
        """The least gap there: the group's of the interface, else the instance's own; 0: none."""
        _, group = self._groups.get(interface, ("", None))
        if family == INET6:
            return (group.gna_interval_us if group else 0) or settings.gna_interval_us
        return (group.garp_interval_us if group else 0) or settings.interval_us

    @property
    def deadline_us(self) -> int:
        deadline_us = NEVER
        for queue in self._queues.values():
            if queue.waiting and queue.next_us < deadline_us:
                deadline_us = queue.next_us
        return deadline_us

    def submit(self, owner: Owner, entry: AddressEntry, frame: bytes, repeat: int, interval_us: int) -> None:
        """Queue a frame ``repeat`` times; :meth:`due` hands it out."""
        pace, _ = self._groups.get(entry.interface, (entry.interface, None))
        queue = self._queues.setdefault((pace, family_of(entry.address)), _Queue())
        queue.interval_us = interval_us
        _, left = queue.waiting.get((owner, entry), (frame, 0))
        queue.waiting[owner, entry] = (frame, max(left, repeat))

    def due(self, now_us: int) -> list[tuple[str, str, bytes]]:
        """(instance, interface, frame) that may leave now: at most one per interface and family."""
        ready = []
        for queue in self._queues.values():
            if not queue.waiting or queue.next_us > now_us:
                continue
            key, (frame, left) = queue.waiting.popitem(last=False)
            if left > 1:
                queue.waiting[key] = (frame, left - 1)
            queue.next_us = now_us + queue.interval_us
            ready.append((key[0].name, key[1].interface, frame))
        return ready

    def drop(self, owner: Owner, entries: Iterable[AddressEntry]) -> None:
        """It has lost these: they are not announced any more."""
        for entry in entries:
            for queue in self._queues.values():
                queue.waiting.pop((owner, entry), None)

    def cancel(self, owner: Owner) -> None:
        """It left MASTER: nothing of it leaves any more."""
        for queue in self._queues.values():
            for key in [key for key in queue.waiting if key[0] is owner]:
                del queue.waiting[key]
