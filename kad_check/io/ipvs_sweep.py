"""Looks through our part of the kernel's table: what others did to it, and what it has counted."""

from __future__ import annotations

from collections.abc import Callable, Generator

from msgspec import Struct

from kad.kernel.batch import Outcome, Request
from kad.kernel.ipvs import (
    DestinationEntry,
    DestinationKey,
    DestinationStatus,
    ServiceEntry,
    ServiceKey,
    ServiceStatus,
    read_destination,
    read_destination_entry,
    read_service,
)
from kad.kernel.ipvs_requests import dump_destinations, dump_services
from kad_check.core.ipvs_plan import Actual, ActualService, describe
from kad_check.io.ipvs_chores import TURN, Chore
from kad_check.io.ipvs_repair import is_unknown

_NOTED_LIMIT = 10_000

Place = tuple[ServiceKey, DestinationKey | None]
Seen = ServiceEntry | DestinationEntry | None


class ServiceCount(Struct, frozen=True):
    """One service of ours and what the kernel has counted for it."""

    service: ServiceStatus
    destinations: tuple[DestinationStatus, ...]


Statistics = tuple[ServiceCount, ...]


class Sweep:
    """``log`` gets one line for each thing that others made different, once.

    ``put_back``: called with each service that differs, after the table says how it really is; None: leave
    it.
    """

    def __init__(
        self, log: Callable[[str], None], put_back: Callable[[ServiceKey], None] | None = None
    ) -> None:
        self._actual: Actual = {}
        self._log = log
        self._put_back = put_back
        self._noted: dict[Place, Seen] = {}
        self.statistics: Statistics = ()
        self.differences = 0
        """Seen in the last sweep."""

    def run(self, family: int, actual: Actual, *, collect: bool) -> Chore:
        """One sweep; ``actual`` is what we believe. Errors end it; the next one comes.

        Changes of ours may go out between two of its requests, never between an answer and its comparison.
        """
        self._actual = actual
        self._different: dict[Place, Seen] = {}
        outcome = (yield [dump_services(family)])[0]
        if outcome.error:
            return
        present: dict[ServiceKey, ServiceStatus] = {}
        for number, body in enumerate(outcome.replies):
            status = read_service(body)
            if status.entry.key in self._actual:
                present[status.entry.key] = status
            if number % TURN == TURN - 1:
                yield None
        self._compare_services(present)
        counted: list[ServiceCount] = []
        for status in present.values():
            bodies = yield from self._look_at(family, status.entry.key)
            if bodies is None:
                return
            if collect:
                read = [read_destination(body, status.entry.key.family) for body in bodies]
                counted.append(ServiceCount(status, tuple(read)))
        if collect:
            self.statistics = tuple(counted)
        self._end()

    def _compare_services(self, present: dict[ServiceKey, ServiceStatus]) -> None:
        for key, believed in list(self._actual.items()):
            seen = present[key].entry if key in present else None
            if seen is not None and is_unknown(believed.entry):
                believed.entry = seen
            if seen == believed.entry:
                continue
            self._differs((key, None), seen)
            if self._put_back is not None and seen is None:
                del self._actual[key]
            elif self._put_back is not None and seen is not None:
                believed.entry = seen

    def _look_at(
        self, family: int, key: ServiceKey
    ) -> Generator[list[Request] | None, list[Outcome], tuple[bytes, ...] | None]:
        """The kernel's answers about a service's destinations, compared; None: it would not say."""
        outcome = (yield [dump_destinations(family, key)])[0]
        if outcome.error:
            return None
        found: dict[DestinationKey, DestinationEntry] = {}
        for body in outcome.replies:
            entry = read_destination_entry(body, key.family)
            found[entry.key] = entry
            if len(found) % TURN == 0:
                yield None
        believed = self._actual.get(key)
        if believed is not None:
            self._compare(key, believed, found)
        return outcome.replies

    def _compare(
        self, key: ServiceKey, believed: ActualService, found: dict[DestinationKey, DestinationEntry]
    ) -> None:
        if believed.destinations == found:
            return
        for at in believed.destinations.keys() | found.keys():
            if is_unknown(believed.destinations.get(at)):
                _learn(believed, at, found.get(at))
            elif believed.destinations.get(at) != found.get(at):
                self._differs((key, at), found.get(at))
        if self._put_back is not None:
            believed.destinations = found

    def _differs(self, place: Place, seen: Seen) -> None:
        self._different[place] = seen
        if len(self._noted) < _NOTED_LIMIT and self._noted.get(place, _NEVER) != seen:
            self._log(self._words(place, seen))

    def _words(self, place: Place, seen: Seen) -> str:
        key, at = place
        left = "put back" if self._put_back else "left until its next change"
        if at is None:
            what = "removed" if seen is None else "changed"
            return f"IPVS: somebody else {what} service {key}: {left}"
        believed = self._actual[key].destinations.get(at) if key in self._actual else None
        if believed is None:
            return f"IPVS: somebody else added {describe(at)} to service {key}: {left}"
        if seen is None:
            return f"IPVS: somebody else removed {describe(at)} from service {key}: {left}"
        return f"IPVS: somebody else changed {describe(at)} of service {key}: {left}"

    def _end(self) -> None:
        self._noted = self._different
        self.differences = len(self._different)
        if self._put_back is not None:
            for key in dict.fromkeys(key for key, _ in self._different):
                self._put_back(key)


def _learn(believed: ActualService, at: DestinationKey, seen: DestinationEntry | None) -> None:
    """The kernel refused to change it, which nobody else is to blame for."""
    if seen is None:
        del believed.destinations[at]
    else:
        believed.destinations[at] = seen


class _Never:
    pass


_NEVER = _Never()
