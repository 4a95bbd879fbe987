"""Adds and removes virtual addresses, routes and rules, and notices when somebody else does.

A plan goes to the kernel as one batch, each command with its own answer. While it is under way nothing is
judged; after its last answer everything the kernel said meanwhile is read, and only then the plan is done.

Removing a primary IPv4 address takes its secondaries with it, whoever set them, and the kernel reports those
losses under the number of *our* request: they are put back. Any other loss of an address we hold is an
AddressDeleted. (IPv6 losses carry no request's number; there is no such collateral there.)

The kernel may run out of memory, or out of room for its answers: then nobody knows what was carried out. That
is no verdict. A plan is repeated from its first such command on, the first time at once. An addition without
a verdict is refused in the end, and what may have come of it is removed: a master that cannot have its
addresses leaves them to another. A removal is not given up: the address may be in use there.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from msgspec import Struct

from kad.addresses import packed, unpacked
from kad.config.model.routing import PROTOCOL_MARK
from kad.kernel.batch import NO_VERDICT, Outcome, ReceiveBuffer, Request, RequestQueue
from kad.kernel.encoder import Unpackable
from kad.kernel.links import (
    RTM_NEWADDR,
    Address,
    AddressKey,
    Link,
    LinkTable,
    Loss,
)
from kad.kernel.monitor import LinkMonitor
from kad.kernel.route_monitor import RouteMonitor
from kad.kernel.routes import MissingInterface
from kad_vrrp.core.actions import AddressEntry, ChangeAddresses, Entry
from kad_vrrp.core.descriptions import describe
from kad_vrrp.core.events import (
    AddressDeleted,
    AddressFailure,
    Event,
    LinkChanged,
    LinkRemoved,
    PlanDone,
    RoutesDoubted,
)
from kad_vrrp.io.address_requests import ADDITION_FLAGS, key_of, request
from kad_vrrp.io.culprit import process_at
from kad_vrrp.io.routing import Routing

_ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENXIO})
PAUSES_S = (0.0, 0.01, 0.1, 1.0)
"""Before each repetition of what the kernel had no memory or room for. After the last an addition is refused,
and a removal is repeated with the last pause until there is a verdict."""
_OUR_OWN = -1
"""No serial number of the engine's."""


class _Step(Struct, frozen=True):
    """One command of a plan."""

    entry: Entry
    adding: bool
    request: Request
    key: AddressKey | None = None
    """Of an address."""


class _Plan:
    """A ChangeAddresses on its way."""

    __slots__ = ("action", "failures", "lost", "new", "outcomes", "repetitions", "steps")

    def __init__(self, action: ChangeAddresses) -> None:
        self.action = action
        self.steps: list[_Step] = []
        self.outcomes: list[Outcome] = []
        """One for each step, once the kernel has answered."""
        self.repetitions = 0
        self.failures: list[AddressFailure] = []
        self.new: set[AddressKey] = set()
        """Those it adds that were not there."""
        self.lost = False
        """One of its addresses was seen to go away while it was under way, and not by itself."""


class Addresses:
    """The one writer of virtual addresses, and the teller of links.

    ``feed`` takes the events for the engine, ``log`` lines for people. ``on_synced`` is called once, when
    the first dump is whole and every link has been told. ``later`` calls after so many seconds.
    """

    def __init__(
        self,
        feed: Callable[[Event], None],
        log: Callable[[str], None],
        on_synced: Callable[[], None],
        later: Callable[[float, Callable[[], None]], object],
        *,
        receive_buffer: ReceiveBuffer | None = None,
        log_changes: bool = False,
    ) -> None:
        self._feed = feed
        self._log_changes = log_changes
        self._logged: dict[str, tuple[str, ...]] = {}
        self._log = log
        self._on_synced: Callable[[], None] | None = on_synced
        self._later = later
        self._closed = False
        self._plans: list[_Plan] = []
        self._held: dict[AddressKey, AddressEntry] = {}
        """What plans have added and not removed, in order."""
        self._foreign: set[AddressKey] = set()
        """Those of ``_held`` that somebody else had set before us."""
        self._static: set[tuple[str, bytes, int]] = set()
        """Interface, address and prefix length of the static ones."""
        self._dubious: dict[AddressKey, AddressEntry] = {}
        """Refused for want of an answer, and there for all that, perhaps."""
        self._removing: dict[AddressKey, int] = {}
        self._adding: dict[AddressKey, int] = {}
        self.table = LinkTable(self._is_virtual)
        self.monitor = LinkMonitor(self.table, self._on_news, receive_buffer=receive_buffer)
        self.requests = RequestQueue()
        self.routing = Routing(self.table, self.requests.port_id, feed, process_at)
        self.route_monitor = RouteMonitor(self.routing.judge, lambda: feed(RoutesDoubted()))
        self.put_back = 0
        """Addresses restored after a removal of ours took them along."""

    def expect_statics(self, entries: Iterable[Entry]) -> None:
        """Static addresses are the machine's own: adverts may come from them."""
        self._static = {
            (entry.interface, packed(entry.address), entry.prefix_length)
            for entry in entries
            if isinstance(entry, AddressEntry)
        }
        self.table.touch_all()

    def start(self) -> None:
        """Subscribe, then dump: the links are told when the dump is whole, most often within this call."""
        self.monitor.synchronise()

    @property
    def busy(self) -> bool:
        """A plan is under way."""
        return bool(self._plans) or self.requests.busy

    def link(self, name: str) -> LinkChanged | None:
        """The interface as last told."""
        link = self.table.link(name)
        return None if link is None else _link_changed(link)

    def close(self) -> None:
        self._closed = True
        self.monitor.close()
        self.route_monitor.close()
        self.requests.close()

    def drain_routes(self) -> bool:
        """Read about routes, after everything about the links that may have been the reason."""
        self.monitor.catch_up()
        return self.route_monitor.drain()

    # Plans -----------------------------------------------------------------------------------------------

    def change(self, action: ChangeAddresses) -> None:
        """Carry out a plan; PlanDone follows, possibly from within this call."""
        plan = _Plan(action)
        for entry in action.remove:
            self._add_step(plan, entry, adding=False)
        for entry in action.add:
            self._add_step(plan, entry, adding=True)
        self._plans.append(plan)
        self._send(plan, range(len(plan.steps)))

    def _send(self, plan: _Plan, places: Sequence[int]) -> None:
        requests = [plan.steps[place].request for place in places]
        self.requests.submit(requests, partial(self._answered, plan, places))

    def _answered(self, plan: _Plan, places: Sequence[int], outcomes: list[Outcome]) -> None:
        if not plan.outcomes:
            plan.outcomes = outcomes
        else:
            for place, outcome in zip(places, outcomes, strict=True):
                plan.outcomes[place] = self._in_view_of_the_last(plan, place, outcome)
        unknown = [at for at, outcome in enumerate(plan.outcomes) if outcome.error in NO_VERDICT]
        if plan.repetitions < len(PAUSES_S):
            pause_s = PAUSES_S[plan.repetitions]
        else:
            pause_s = PAUSES_S[-1]
            unknown = [at for at in unknown if not plan.steps[at].adding]
            if unknown and plan.repetitions == len(PAUSES_S):
                self._log(_unanswered(plan, unknown))
        if unknown:
            self._later(pause_s, partial(self._repeat, plan, unknown[0]))
        else:
            self._finish(plan, plan.outcomes)

    def _repeat(self, plan: _Plan, first: int) -> None:
        """Everything from there on: what came later may have failed, or been undone, on its account."""
        if self._closed:
            return
        plan.repetitions += 1
        places = []
        for place in range(first, len(plan.steps)):
            step = plan.steps[place]
            if self._is_overtaken(plan, step):
                plan.outcomes[place] = Outcome(step.request, 0)
            else:
                places.append(place)
        self._send(plan, places)

    def _is_overtaken(self, plan: _Plan, step: _Step) -> bool:
        """A removal of what another plan has added since must not come after that."""
        if step.adding or step.key not in self._held:
            return False
        return not any(own.adding and own.key == step.key for own in plan.steps)

    def _in_view_of_the_last(self, plan: _Plan, place: int, outcome: Outcome) -> Outcome:
        """What a repeated addition finds there is its own, unless it was known before to be another's.

        Taken for ours it is removed in the end: better an address too few than one on two nodes.
        """
        step, last = plan.steps[place], plan.outcomes[place].error
        if not step.adding or outcome.error != errno.EEXIST:
            return outcome
        if step.key in self._foreign or not (last == 0 or last in NO_VERDICT):
            return outcome
        return Outcome(step.request, 0)

    def _add_step(self, plan: _Plan, entry: Entry, *, adding: bool) -> None:
        try:
            if isinstance(entry, AddressEntry):
                self._add_address_step(plan, entry, adding=adding)
                return
            if entry.is_tracked:
                self.route_monitor.watch()
            plan.steps.append(_Step(entry, adding, self.routing.request(entry, adding=adding)))
        except (MissingInterface, Unpackable) as error:
            if adding:
                plan.failures.append(AddressFailure(entry, True, str(error)))
            elif isinstance(error, Unpackable):
                # What was never asked for was never set: everything else is removed.
                self._log(f"{describe(entry)}: not removed, {error}")

    def _add_address_step(self, plan: _Plan, entry: AddressEntry, *, adding: bool) -> None:
        index = self.table.index_of(entry.interface)
        if index is None:
            # Without its interface an address is as good as removed.
            if adding:
                plan.failures.append(AddressFailure(entry, True, f"no interface {entry.interface}"))
            return
        key = key_of(entry, index)
        plan.steps.append(_Step(entry, adding, request(key, entry, adding=adding), key))
        if adding:
            self._adding[key] = self._adding.get(key, 0) + 1
            self._held[key] = entry
            present = self.table.address(key)
            if present is None:
                plan.new.add(key)
            elif present.protocol != PROTOCOL_MARK:
                self._foreign.add(key)
        else:
            self._removing[key] = self._removing.get(key, 0) + 1
            self._let_go(key)

    def _finish(self, plan: _Plan, outcomes: list[Outcome]) -> None:
        # The kernel's words about our own commands lie before us: read them while they count as ours.
        if outcomes:
            self.monitor.catch_up()
        existed: list[Entry] = []
        for step, outcome in zip(plan.steps, outcomes, strict=True):
            if isinstance(step.entry, AddressEntry):
                self._weigh(plan, step, step.entry, outcome, existed)
            elif not self.routing.is_success(outcome, adding=step.adding):
                plan.failures.append(AddressFailure(step.entry, step.adding, outcome.reason))
            elif step.adding and self.routing.was_foreign(step.entry, outcome):
                existed.append(step.entry)
        for step in plan.steps:
            if step.key is not None:
                _decrease(self._adding if step.adding else self._removing, step.key)
        self._plans.remove(plan)
        action = plan.action
        if action.serial != _OUR_OWN:
            self._feed(PlanDone(action.instance, action.serial, tuple(existed), tuple(plan.failures)))
        for step, outcome in zip(plan.steps, outcomes, strict=True):
            if step.adding and not isinstance(step.entry, AddressEntry):
                added = self.routing.is_success(outcome, adding=True)
                self.routing.settle(step.entry, step.request, added=added)
        if plan.lost:
            # By whom, and whether before or after we set it, only the kernel's present state can tell.
            self.monitor.resync()
        if self._dubious:
            self._remove_dubious()

    def _remove_dubious(self) -> None:
        """Unless somebody has been told to add it meanwhile."""
        dubious, self._dubious = self._dubious, {}
        entries = tuple(entry for key, entry in dubious.items() if key not in self._held)
        if entries:
            self.change(ChangeAddresses("", _OUR_OWN, entries, ()))

    def _weigh(
        self, plan: _Plan, step: _Step, entry: AddressEntry, outcome: Outcome, existed: list[Entry]
    ) -> None:
        error, key = outcome.error, step.key
        assert key is not None
        if error == 0 or (not step.adding and error in _ABSENT):
            return
        if step.adding and error == errno.EEXIST:
            present = self.table.address(key)
            if present is None or present.protocol != PROTOCOL_MARK:
                self._foreign.add(key)
                existed.append(entry)
            return
        plan.failures.append(AddressFailure(entry, step.adding, _reason(entry, outcome)))
        if step.adding and self._held.get(key) is entry:
            self._let_go(key)
            if error in NO_VERDICT and key in plan.new and plan.action.instance:
                self._dubious[key] = entry

    def _let_go(self, key: AddressKey) -> None:
        self._held.pop(key, None)
        self._foreign.discard(key)

    def _is_virtual(self, address: Address) -> bool:
        """Not a source address for us. One that was there before us is: an address owner's own."""
        key = address.key
        if (self.table.name_of(key.index), key.data, key.prefix_length) in self._static:
            return False
        return address.protocol == PROTOCOL_MARK or (key in self._held and key not in self._foreign)

    # News ------------------------------------------------------------------------------------------------

    def _on_news(self, resynced: bool) -> None:
        gone, changed = self.table.changes()
        for name in gone:
            self._logged.pop(name, None)
            self._feed(LinkRemoved(name))
        if gone:
            for key in [key for key in self._held if not self.table.name_of(key.index)]:
                self._let_go(key)
        for link in changed:
            if self._log_changes:
                self._log_addresses(link)
            self._feed(_link_changed(link))
        for loss in self.table.losses():
            self._judge(loss)
        if resynced:
            self._compare()

    def _log_addresses(self, link: Link) -> None:
        """-a, in keepalived's words. Virtual addresses are not among them."""
        before = self._logged.get(link.name, ())
        for address in link.addresses:
            if address not in before:
                self._log(f"Assigned address {address} for interface {link.name}")
        for address in before:
            if address not in link.addresses:
                self._log(f"Deassigned address {address} from interface {link.name}")
        self._logged[link.name] = link.addresses

    def _judge(self, loss: Loss) -> None:
        key = loss.address.key
        if self.table.address(key) is not None:
            return  # there again
        if loss.port_id == self.requests.port_id:
            if key not in self._removing:
                self._restore(loss)
        elif key in self._adding:
            for plan in self._plans:
                plan.lost |= any(step.adding and step.key == key for step in plan.steps)
        elif key in self._held:
            # IPv6 losses carry nobody's port.
            self._tell_deleted(key, process_at(loss.port_id) if loss.port_id else "")

    def _compare(self) -> None:
        """After a whole dump: what we hold must be there."""
        for key in [key for key in self._held if self.table.address(key) is None]:
            if key not in self._adding:
                self._tell_deleted(key)
        if self._on_synced is not None:
            on_synced, self._on_synced = self._on_synced, None
            on_synced()

    def _tell_deleted(self, key: AddressKey, culprit: str = "") -> None:
        entry = self._held[key]
        self._let_go(key)
        self._feed(AddressDeleted(entry.interface, entry.address, entry.prefix_length, culprit))

    def _restore(self, loss: Loss) -> None:
        """The kernel's own description of what it removed is a request to set it again."""
        self.put_back += 1
        self._ask_back(loss, 0)

    def _ask_back(self, loss: Loss, repetitions: int) -> None:
        if not self._closed:
            weigh = partial(self._weigh_restoration, loss, repetitions)
            self.requests.submit([Request(RTM_NEWADDR, ADDITION_FLAGS, loss.address.body)], weigh)

    def _weigh_restoration(self, loss: Loss, repetitions: int, outcomes: list[Outcome]) -> None:
        outcome, key = outcomes[0], loss.address.key
        if outcome.error in (0, errno.EEXIST):
            return
        if outcome.error in NO_VERDICT and repetitions < len(PAUSES_S):
            self._later(PAUSES_S[repetitions], partial(self._ask_back, loss, repetitions + 1))
            return
        name = self.table.name_of(key.index)
        self._log(f"{name}: cannot restore {unpacked(key.data)}/{key.prefix_length}: {outcome.reason}")
        if key in self._held:
            self._tell_deleted(key)


def _decrease(counter: dict[AddressKey, int], key: AddressKey) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


def _link_changed(link: Link) -> LinkChanged:
    return LinkChanged(
        name=link.name,
        index=link.index,
        up=link.up,
        mac=link.mac,
        mtu=link.mtu,
        arp=link.arp,
        multicast=link.multicast,
        addresses=link.addresses,
        master=link.master,
        forwarding=link.forwarding,
    )


def _unanswered(plan: _Plan, places: Sequence[int]) -> str:
    """That the removal of something goes on, for people."""
    first = plan.steps[places[0]].entry
    what = f"{first.address}/{first.prefix_length}" if isinstance(first, AddressEntry) else "a route or rule"
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    reason = plan.outcomes[places[0]].reason
    return f"no answer about the removal of {what}{more} ({reason}): the kernel is asked till it answers"


def _reason(entry: AddressEntry, outcome: Outcome) -> str:
    """With what can be done about it, where that is known."""
    if outcome.error == errno.EACCES and ":" in entry.address:
        # IPv6 is disabled there, as newer kernels say themselves.
        return f"{outcome.reason} (sysctl -w net.ipv6.conf.{entry.interface}.disable_ipv6=0)"
    if outcome.error == errno.EPERM:
        return f"{outcome.reason}: CAP_NET_ADMIN is needed"
    return outcome.reason
