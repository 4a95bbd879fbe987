"""What one instance holds, as far as the kernel has told, and the one plan in flight. Pure.

Addresses, and the routes and rules that go with them.
"""

from msgspec import Struct

from kad.units import NEVER
from kad_vrrp.core.actions import AddressEntry, ChangeAddresses, Entry
from kad_vrrp.core.events import AddressFailure, PlanDone
from kad_vrrp.core.resources import Holding, Plan, digest, from_bits, plan, to_bits

DELETION_BACKOFF_US = 10_000_000
"""A deleted object makes a master step down at most this often; in between it is just put back."""
RESTORE_GAP_US = 1_000_000
"""Least gap between two times it is put back."""


class DeletionGuard:
    """What a master does about objects of its own that others delete, and how often."""

    __slots__ = ("_last_us", "_loss", "restore_us", "step_down_us")

    def __init__(self) -> None:
        self._last_us = -NEVER
        self.calm()

    def calm(self) -> None:
        """Nothing is to be done."""
        self._loss = ""
        self.step_down_us = NEVER
        self.restore_us = NEVER

    @property
    def deadline_us(self) -> int:
        return min(self.step_down_us, self.restore_us)

    def deleted(self, loss: str, now_us: int) -> bool:
        """Step down when everything that came with it is known, unless that was done lately. True: it is put
        back instead, after a while, and this is the first of those.

        ``loss`` tells people what was deleted, and by whom.
        """
        if now_us - self._last_us >= DELETION_BACKOFF_US:
            self._loss = loss
            self.step_down_us = now_us
            return False
        return self.restore_later(now_us)

    def restore_later(self, now_us: int) -> bool:
        """Put back what is missing after a while. True: that was not on the way yet."""
        first = self.restore_us == NEVER
        if first:
            self.restore_us = now_us + RESTORE_GAP_US
        return first

    def stepping_down(self, now_us: int) -> str:
        """It is being done; returns what was deleted."""
        loss = self._loss
        self._last_us = now_us
        self.calm()
        return loss


def is_tracked(entry: Entry) -> bool:
    """Whether its loss matters. That of an address always does."""
    return isinstance(entry, AddressEntry) or entry.is_tracked


class PlanOutcome(Struct, frozen=True):
    """What a finished plan brought."""

    added: tuple[Entry, ...]
    """In place now, whoever set them first."""
    refused: tuple[AddressFailure, ...]
    """Told; of additions, only that of an advertised address is an obstacle; others are not asked again."""
    removed: tuple[Entry, ...]
    """A route that needed one of them, or that two instances have, may have gone with it."""


class Holdings:
    """What is, what should be, and never more than one plan between them.

    While a plan is in flight nothing is judged: its answer tells which additions existed already.
    """

    def __init__(self, entries: tuple[Entry, ...]) -> None:
        self.entries = entries
        self.held: dict[Entry, Holding] = {}
        self._digest = digest(self.entries)
        self._in_flight: ChangeAddresses | None = None
        self.last_serial = 0
        """Of the latest plan."""
        self._again: set[Entry] = set()
        """Held according to a record, to be added once more to be sure."""
        self._doubted: set[Entry] = set()
        """Doubted while the plan that adds them is in flight: its answer may be older than the doubt."""
        self._stuck: set[Entry] = set()
        """The kernel would not remove them; not asked again before the next change of state."""
        self._given_up: set[Entry] = set()
        """The kernel would not add them, and mastery does not hang on it; not asked again before that."""
        self.vital: frozenset[Entry] = frozenset()
        """Without these there is no mastery."""

    @property
    def in_flight(self) -> bool:
        return self._in_flight is not None

    @property
    def _adding(self) -> tuple[Entry, ...]:
        """What the plan in flight adds."""
        return self._in_flight.add if self._in_flight is not None else ()

    def awaits(self, serial: int) -> bool:
        """Whether the plan of this number is in flight."""
        return self._in_flight is not None and self._in_flight.serial == serial

    @property
    def present(self) -> tuple[Entry, ...]:
        """What is configured and in place, in configuration order."""
        unsure = self._again | self._given_up
        return tuple(entry for entry in self.entries if entry in self.held and entry not in unsure)

    @property
    def addresses(self) -> tuple[AddressEntry, ...]:
        """The addresses among :attr:`present`."""
        return tuple(entry for entry in self.present if isinstance(entry, AddressEntry))

    @property
    def missing(self) -> tuple[Entry, ...]:
        """What the kernel would not add."""
        return tuple(entry for entry in self.entries if entry in self._given_up)

    def assume_all(self) -> None:
        """Nothing is known: every configured object may be there; a plan removes it, or adds it again."""
        for entry in self.entries:
            self.held.setdefault(entry, Holding.OURS)
        self._again = set(self.held)

    def disown_none(self) -> None:
        """Foreign objects are ours from now on (-X: they go when we leave MASTER)."""
        self.held = dict.fromkeys(self.held, Holding.OURS)

    def doubt(self) -> None:
        """What is held may have vanished unnoticed (an interface made anew): add it once more, to be sure."""
        self._again = set(self.held)
        self._doubted.update(self._adding)

    def doubt_routes(self, *, heard: bool) -> None:
        """Routes go without a word when their interface or the address they need does.

        ``heard``: the kernel says so, perhaps of after it carried out what is in flight.
        """
        self._again.update(entry for entry in self.held if not isinstance(entry, AddressEntry))
        if heard:
            self._doubted.update(entry for entry in self._adding if not isinstance(entry, AddressEntry))
        self._given_up.clear()

    def doubt_foreign(self) -> None:
        """What another had set before us may have gone while we had no need of it."""
        self._again |= {entry for entry, whose in self.held.items() if whose is Holding.FOREIGN}

    def give_up(self, entry: Entry) -> None:
        """The kernel refused to add it, and nobody is worse off for that."""
        self._given_up.add(entry)

    def forgive(self) -> None:
        """A change of state: what the kernel refused is worth another try."""
        self._stuck.clear()
        self._given_up.clear()

    def configure(self, entries: tuple[Entry, ...], *, holding: bool) -> bool:
        """Take a new list. True when it differs.

        Not ``holding`` (anything but MASTER): what is newly configured and there is to be removed.
        """
        if entries == self.entries:
            return False
        if not holding:
            known = set(self.entries)
            self.held.update((entry, Holding.OURS) for entry in entries if entry not in known)
        self.entries = entries
        self._digest = digest(entries)
        return True

    def next_plan(self, desired: tuple[Entry, ...], *, removals_only: bool = False) -> Plan | None:
        """The way to ``desired``; None while one is in flight or when there is nothing to do."""
        if self._in_flight is not None:
            return None
        to_repeat = self._again.intersection(desired)
        wanted = plan(desired, {e: whose for e, whose in self.held.items() if e not in to_repeat})
        removable = tuple(entry for entry in wanted.remove if entry not in self._stuck)
        addable = tuple(entry for entry in wanted.add if entry not in self._given_up)
        wanted = Plan(removable, () if removals_only else addable)
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
            if (entry, True) in failed:
                # One that was held may be there still: it stays held, in doubt, and is removed.
                if entry not in self.vital and entry not in self._doubted:
                    self._given_up.add(entry)
                continue
            self._again.discard(entry)
            added.append(entry)
            if entry in existed:
                # Held by the record's word: ours or foreign as before. Otherwise someone was before us.
                self.held.setdefault(entry, Holding.FOREIGN)
            else:
                self.held[entry] = Holding.OURS
        self._again |= self._doubted.intersection(added)
        self._doubted.clear()
        return PlanOutcome(tuple(added), done.failures, action.remove)

    def find(self, interface: str, address: str, prefix_length: int) -> AddressEntry | None:
        """The held entry of this name, if any."""
        wanted = (address, prefix_length, interface)
        for entry in self.held:
            if not isinstance(entry, AddressEntry):
                continue
            if (entry.address, entry.prefix_length, entry.interface) == wanted:
                return entry
        return None

    def lose(self, entry: Entry) -> None:
        """Someone else deleted it."""
        self.held.pop(entry, None)
        self._again.discard(entry)

    def drop_unconfigured(self) -> None:
        """Foreign objects that are not configured any more are none of our business."""
        configured = set(self.entries)
        self.held = {e: w for e, w in self.held.items() if e in configured or w is Holding.OURS}

    # The journal ---------------------------------------------------------------------------------------

    def recorded(self) -> tuple[bytes, bytes, bytes]:
        """(digest of the list, bits of ours, bits of foreign). A plan's additions in flight count as ours.

        Of what was another's too: it may have gone meanwhile, and a life that is killed now cannot know
        whether it was we who added it. Better an address too few than one on two nodes.
        """
        adding = set(self._adding)
        ours = {entry for entry, whose in self.held.items() if whose is Holding.OURS}
        foreign = {entry for entry, whose in self.held.items() if whose is Holding.FOREIGN}
        return self._digest, to_bits(self.entries, ours | adding), to_bits(self.entries, foreign - adding)

    def restore(self, named: bytes, ours: bytes | None, foreign: bytes, former: tuple[Entry, ...]) -> None:
        """Take over what a record says is held, which may be about the list of the generation before.

        ``named``: the digest of the list that the bits are about; ``former``: the list before. What only the
        former list has may be there or not, whichever list the record is about: it is taken for ours, so that
        the next plan removes it.
        """
        self.held.clear()
        if named == self._digest:
            self._hold(self.entries, ours, foreign)
        elif former and named == digest(former):
            self._hold(former, ours, foreign)
        else:
            self.assume_all()
        self.inherit(former)
        # The record says what should be, not what is.
        self.doubt()

    def inherit(self, entries: tuple[Entry, ...]) -> None:
        """What another has left, as far as it is not configured here: the next plan removes it."""
        known = set(self.entries)
        for entry in entries:
            if entry not in known:
                self.held.setdefault(entry, Holding.OURS)

    def _hold(self, entries: tuple[Entry, ...], ours: bytes | None, foreign: bytes) -> None:
        mine = entries if ours is None else from_bits(entries, ours)
        self.held.update(dict.fromkeys(mine, Holding.OURS))
        self.held.update(dict.fromkeys(from_bits(entries, foreign), Holding.FOREIGN))
