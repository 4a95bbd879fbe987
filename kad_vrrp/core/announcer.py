"""When and how one instance tells the hosts of its network where its addresses are. Pure."""

from collections.abc import Iterable

from kad.addresses import INET6, family_of
from kad.config.model.vrrp import VrrpInstance
from kad.units import NEVER
from kad_vrrp.core.actions import AddressEntry, Announce, Entry
from kad_vrrp.core.context import Context
from kad_vrrp.core.garp import AnnouncementSchedule, frame_for

_Entries = tuple[AddressEntry, ...]


class Announcer:
    """Builds the frames, sends them in bursts, and keeps the schedule of further ones."""

    def __init__(self, name: str, context: Context) -> None:
        self.name = name
        """The instance's."""
        self._context = context
        self._schedule = AnnouncementSchedule()
        self._owed_at_us = NEVER
        self._frames: dict[AddressEntry, tuple[object, bytes | None]] = {}
        """Each frame beside the link it was built for."""

    @property
    def deadline_us(self) -> int:
        return self._schedule.deadline_us

    def cancel(self) -> None:
        """Not MASTER any more: nothing more leaves, not even what waits for its turn."""
        self._schedule.cancel()
        self._owed_at_us = NEVER
        self._context.pacer.cancel(self)
        self._frames.clear()

    def configure(self, old: VrrpInstance, new: VrrpInstance, now_us: int, *, is_master: bool) -> None:
        """A reload changed it."""
        self.name = new.name
        if is_master:
            self._schedule.configure(old.garp, new.garp, now_us)

    def drop(self, entries: Iterable[Entry]) -> None:
        """They have gone, or are about to: what waits of them for its turn is not sent."""
        self._context.pacer.drop(self, [entry for entry in entries if isinstance(entry, AddressEntry)])

    def owe(self, at_us: int) -> None:
        """Every address is to be announced at that instant, once the kernel has it."""
        self._owed_at_us = at_us

    def settle(self, config: VrrpInstance, entries: _Entries, now_us: int) -> None:
        """The kernel has every address: what is owed leaves now, or when its time comes."""
        if self._owed_at_us == NEVER:
            return
        if self._owed_at_us > now_us:
            self._schedule.full_us = self._owed_at_us
        else:
            self._begin(config, entries, now_us)
        self._owed_at_us = NEVER

    def added(self, config: VrrpInstance, entries: _Entries, now_us: int) -> None:
        """The kernel got more addresses while we were MASTER: a reload, or they were put back."""
        if self._owed_at_us == NEVER and self._schedule.full_us == NEVER:
            self._begin(config, entries, now_us)

    def _begin(self, config: VrrpInstance, entries: _Entries, now_us: int) -> None:
        self._burst(config, entries, config.garp.master_repeat, now_us)
        on_vmac = bool(self._one_per_vmac(entries))
        self._schedule.begin(config.garp, now_us, on_vmac=on_vmac)

    def heard_lower_priority(self, config: VrrpInstance, entries: _Entries, now_us: int) -> None:
        """Another master below us was heard: hosts may have believed it."""
        self._burst(config, entries, config.garp.lower_prio_repeat, now_us)
        self._schedule.heard_lower_priority(config.garp, now_us)

    def tell_source(self, config: VrrpInstance, source: str) -> None:
        """One announcement of the address we send from."""
        frame = self._frame(AddressEntry(config.interface, source, 0))
        if frame is not None:
            self._context.emit(Announce(config.name, ((config.interface, frame),)))

    def on_time(self, config: VrrpInstance, entries: _Entries, now_us: int) -> None:
        """Whatever is due."""
        if self._schedule.full_us <= now_us:
            self._begin(config, entries, now_us)
        if self._schedule.again_us <= now_us:
            self._schedule.again_us = NEVER
            self._burst(config, self._one_per_vmac(entries), 1, now_us)
        if self._schedule.extra_due(config.garp, now_us):
            self._burst(config, self._one_per_other_interface(config, entries), 1, now_us)
        repeat = self._schedule.due(config.garp, now_us)
        if repeat:
            self._burst(config, entries, repeat, now_us)

    def _burst(self, config: VrrpInstance, entries: Iterable[AddressEntry], repeat: int, now_us: int) -> None:
        """``repeat`` times over all addresses, back to back, but for those that are paced."""
        if not repeat:
            return
        at_once: list[tuple[str, bytes]] = []
        paced = False
        for entry in entries:
            frame = self._frame(entry)
            if frame is None:
                continue
            gap_us = self._context.pacer.gap_us(entry.interface, family_of(entry.address), config.garp)
            if gap_us:
                paced = True
                self._context.pacer.submit(self, entry, frame, repeat, gap_us)
            else:
                at_once.append((entry.interface, frame))
        if at_once:
            self._context.emit(Announce(config.name, tuple(at_once * repeat)))
        if paced:
            self._context.send_paced(now_us)

    def _frame(self, entry: AddressEntry) -> bytes | None:
        link = self._context.links.get(entry.interface)
        known = self._frames.get(entry)
        if known is not None and known[0] is link:
            return known[1]
        frame = frame_for(entry, link)
        self._frames[entry] = (link, frame)
        return frame

    def _one_per_other_interface(self, config: VrrpInstance, entries: _Entries) -> _Entries:
        """garp_extra_if: the first address on each VMAC that sends no adverts; with ``all`` on every other
        interface.
        """
        bases = self._context.bases
        return _first_of_each(
            entry
            for entry in entries
            if entry.interface != config.transport_interface
            and (config.garp.extra_if_all or entry.interface in bases)
        )

    def _one_per_vmac(self, entries: _Entries) -> _Entries:
        """IPv4: who has an IPv6 address does not answer its announcement."""
        bases = self._context.bases
        return _first_of_each(e for e in entries if e.interface in bases and family_of(e.address) != INET6)


def _first_of_each(entries: Iterable[AddressEntry]) -> _Entries:
    """The first address of every interface."""
    first: dict[str, AddressEntry] = {}
    for entry in entries:
        first.setdefault(entry.interface, entry)
    return tuple(first.values())
