"""The addresses one instance holds, as far as the kernel has told, and the one plan in flight. Pure."""

from msgspec import Struct

from kad.config.model.vrrp import VrrpInstance
from kad_vrrp.core.actions import AddressEntry, ChangeAddresses
from kad_vrrp.core.context import NEVER
from kad_vrrp.core.events import AddressFailure, PlanDone
from kad_vrrp.core.record import Record
from kad_vrrp.core.resources import Holding, Plan, digest, entries_of, from_bits, plan, to_bits

DELETION_BACKOFF_US = 10_000_000
"""A deleted address makes a master step down at most this often; in between it is just put back."""
RESTORE_GAP_US = 1_000_000
"""Least gap between two times an address is put back."""


class DeletionGuard:
    """What a master does about addresses of its own that others delete, and how often."""

    __slots__ = ("_address", "_last_us", "restore_us", "step_down_us")

    def __init__(self) -> None:
        self._last_us = -NEVER
        self.calm()

    def calm(self) -> None:
        """Nothing is to be done."""
        self._address = ""
        self.step_down_us = NEVER
        self.restore_us = NEVER

    @property
    def deadline_us(self) -> int:
        return min(self.step_down_us, self.restore_us)

    def deleted(self, address: str, now_us: int) -> bool:
        """Step down when everything that came with it is known, unless that was done lately. True: the
        address is put back instead, after a while, and this is the first of those.
        """
        if now_us - self._last_us >= DELETION_BACKOFF_US:
            self._address = address
            self.step_down_us = now_us
            return False
        first = self.restore_us == NEVER
        if first:
            self.restore_us = now_us + RESTORE_GAP_US
        return first

    def stepping_down(self, now_us: int) -> str:
        """It is being done; returns the address that was deleted."""
        address = self._address
        self._last_us = now_us
        self.calm()
        return address


class PlanOutcome(Struct, frozen=True):
    """What a finished plan brought."""

    added: tuple[AddressEntry, ...]
    """In place now, whoever set them first."""
    refused: tuple[AddressFailure, ...]


class Holdings:
    """What is, what should be, and never more than one plan between them.

    While a plan is in flight nothing is judged: its answer tells which additions existed already.
    """

    def __init__(self, config: VrrpInstance) -> None:
        self.entries = entries_of(config)
        self.held: dict[AddressEntry, Holding] = {}
        self._digest = digest(self.entries)
        self._in_flight: ChangeAddresses | None = None
        self.last_serial = 0
        """Of the latest plan."""
        self._again: set[AddressEntry] = set()
        """Held according to a record, to be added once more to be sure."""
        self._stuck: set[AddressEntry] = set()
        """The kernel would not remove them; not asked again before the next change of state."""

    @property
    def in_flight(self) -> bool:
        return self._in_flight is not None

    @property
    def present(self) -> tuple[AddressEntry, ...]:
        """Configured addresses in place, in configuration order."""
        return tuple(entry for entry in self.entries if entry in self.held and entry not in self._again)

    def assume_all(self) -> None:
        """Nothing is known: every configured address may be there; a plan removes it, or adds it again."""
        for entry in self.entries:
            self.held.setdefault(entry, Holding.OURS)
        self._again = set(self.held)

    def disown_none(self) -> None:
        """Foreign addresses are ours from now on (-X: they go when we leave MASTER)."""
        self.held = dict.fromkeys(self.held, Holding.OURS)

    def doubt(self) -> None:
        """What is held may have vanished unnoticed (an interface made anew): add it once more, to be sure."""
        self._again = set(self.held)

    def forgive(self) -> None:
        """A change of state: removals the kernel refused are worth another try."""
        self._stuck.clear()

    def configure(self, config: VrrpInstance, *, holding: bool) -> bool:
        """Take a new list of addresses. True when it differs.

        Not ``holding`` (anything but MASTER): a newly configured address that is there is to be removed.
        """
        entries = entries_of(config)
        if entries == self.entries:
            return False
        if not holding:
            known = set(self.entries)
            self.held.update((entry, Holding.OURS) for entry in entries if entry not in known)
        self.entries = entries
        self._digest = digest(entries)
        return True

    def next_plan(self, desired: tuple[AddressEntry, ...], *, removals_only: bool = False) -> Plan | None:
        """The way to ``desired``; None while one is in flight or when there is nothing to do."""
        if self._in_flight is not None:
            return None
        to_repeat = self._again.intersection(desired)
        wanted = plan(desired, {e: whose for e, whose in self.held.items() if e not in to_repeat})
        removable = tuple(entry for entry in wanted.remove if entry not in self._stuck)
        wanted = Plan(removable, () if removals_only else wanted.add)
        return wanted if wanted else None

    def begin(self, action: ChangeAddresses) -> None:
        """The plan is on its way to the kernel."""
        assert self._in_flight is None
        self._in_flight = action
        self.last_serial = action.serial

    def finish(self, done: PlanDone) -> PlanOutcome | None:
        """The kernel's answer; None when it is not about the plan in flight."""
        action = self._in_flight
        if action is None or action.serial != done.serial:
            return None
        self._in_flight = None
        failed = {(failure.entry, failure.adding) for failure in done.failures}
        existed = set(done.existed)
        for entry in action.remove:
            if (entry, False) in failed:
                self._stuck.add(entry)
            else:
                self.held.pop(entry, None)
        added = []
        for entry in action.add:
            self._again.discard(entry)
            if (entry, True) in failed:
                self.held.pop(entry, None)
                continue
            added.append(entry)
            if entry in existed:
                # Held by the record's word: ours or foreign as before. Otherwise someone was before us.
                self.held.setdefault(entry, Holding.FOREIGN)
            else:
                self.held[entry] = Holding.OURS
        return PlanOutcome(tuple(added), done.failures)

    def find(self, interface: str, address: str, prefix_length: int) -> AddressEntry | None:
        """The held entry of this name, if any."""
        for entry in self.held:
            if (entry.address, entry.prefix_length, entry.interface) == (address, prefix_length, interface):
                return entry
        return None

    def lose(self, entry: AddressEntry) -> None:
        """Someone else deleted it."""
        self.held.pop(entry, None)
        self._again.discard(entry)

    def drop_unconfigured(self) -> None:
        """Foreign addresses that are not configured any more are none of our business."""
        configured = set(self.entries)
        self.held = {e: w for e, w in self.held.items() if e in configured or w is Holding.OURS}

    # The journal ---------------------------------------------------------------------------------------

    def recorded(self) -> tuple[bytes, bytes, bytes]:
        """(digest of the list, bits of ours, bits of foreign). A plan's additions in flight count as ours."""
        adding = self._in_flight.add if self._in_flight is not None else ()
        ours = {entry for entry, whose in self.held.items() if whose is Holding.OURS}
        foreign = {entry for entry, whose in self.held.items() if whose is Holding.FOREIGN}
        return (
            self._digest,
            to_bits(self.entries, ours | (set(adding) - foreign)),
            to_bits(self.entries, foreign),
        )

    def restore(self, record: Record, previous: VrrpInstance | None) -> None:
        """Take over what a record says is held, which may be about the list of the generation before.

        Addresses only the former list has may be there or not, whichever list the record is about: they are
        taken for ours, so that the next plan removes them.
        """
        self.held.clear()
        old_entries = entries_of(previous) if previous is not None else ()
        if record.addresses_digest == self._digest:
            self._hold(self.entries, record)
        elif old_entries and record.addresses_digest == digest(old_entries):
            self._hold(old_entries, record)
        else:
            self.assume_all()
        known = set(self.entries)
        for entry in old_entries:
            if entry not in known:
                self.held.setdefault(entry, Holding.OURS)
        # The record says what should be, not what is.
        self.doubt()

    def _hold(self, entries: tuple[AddressEntry, ...], record: Record) -> None:
        ours = entries if record.ours is None else from_bits(entries, record.ours)
        self.held.update(dict.fromkeys(ours, Holding.OURS))
        self.held.update(dict.fromkeys(from_bits(entries, record.foreign), Holding.FOREIGN))
