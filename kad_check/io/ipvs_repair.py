"""What to make of the kernel's refusals: what we believed was wrong, somebody else was there, or it is an
error."""

from __future__ import annotations

import errno
from enum import Enum, auto
from typing import assert_never

from kad.kernel.batch import Request
from kad.kernel.ipvs import DestinationEntry, ServiceEntry, ServiceKey
from kad.kernel.ipvs_requests import delete_destination, delete_service, put_destination, put_service
from kad_check.core.ipvs_plan import (
    Actual,
    ActualService,
    PutDestination,
    PutService,
    RemoveDestination,
    RemoveService,
    Step,
)


class Repair(Enum):
    FINE = auto()
    """What was wanted is so."""
    AGAIN = auto()
    """Our knowledge was wrong; now it is right, and the same change takes another command."""
    READ_SERVICE = auto()
    """The service was there before us: what it holds must be read."""
    SERVICE_GONE = auto()
    """Somebody removed the whole service."""
    REFUSED = auto()


def request_of(family: int, wanted: Step) -> Request:
    match wanted:
        case PutDestination():
            return put_destination(family, wanted.service, wanted.entry, new=wanted.new)
        case RemoveDestination():
            return delete_destination(family, wanted.service, wanted.key)
        case PutService():
            return put_service(family, wanted.entry, new=wanted.new)
        case RemoveService():
            return delete_service(family, wanted.key)
        case _:
            assert_never(wanted)


def repair(actual: Actual, refused: Step, error: int) -> Repair:
    """Put right what the table says after ``refused``, which it took as carried out."""
    match refused:
        case PutService():
            return _service(actual, refused, error)
        case RemoveService():
            if error == errno.ESRCH:
                return Repair.FINE
            actual[refused.key] = ActualService(unknown_service(refused.key))
            return Repair.REFUSED
        case PutDestination() | RemoveDestination():
            return _destination(actual, refused, error)
        case _:
            assert_never(refused)


def _service(actual: Actual, refused: PutService, error: int) -> Repair:
    key = refused.entry.key
    if refused.new and error == errno.EEXIST:
        return Repair.READ_SERVICE
    if not refused.new and error == errno.ESRCH:
        actual.pop(key, None)
        return Repair.SERVICE_GONE
    if refused.new:
        actual.pop(key, None)
    elif key in actual:
        actual[key].entry = unknown_service(key)
    return Repair.REFUSED


def _destination(actual: Actual, refused: PutDestination | RemoveDestination, error: int) -> Repair:
    there = actual.get(refused.service)
    if there is None:
        # Its service is being dealt with, and this destination with it.
        return Repair.FINE
    if error == errno.ESRCH:
        del actual[refused.service]
        return Repair.SERVICE_GONE
    if isinstance(refused, RemoveDestination):
        if error == errno.ENOENT:
            return Repair.FINE
        there.destinations[refused.key] = unknown_destination(*refused.key)
        return Repair.REFUSED
    key = refused.entry.key
    if not refused.new and error == errno.ENOENT:
        there.destinations.pop(key, None)
        return Repair.AGAIN
    if refused.new and error != errno.EEXIST:
        there.destinations.pop(key, None)
        return Repair.REFUSED
    there.destinations[key] = unknown_destination(*key)
    return Repair.AGAIN if refused.new else Repair.REFUSED


def unknown_service(key: ServiceKey) -> ServiceEntry:
    """There, but not as anybody would want it: whatever is desired differs."""
    return ServiceEntry(key, scheduler="")


def is_unknown(entry: ServiceEntry | DestinationEntry | None) -> bool:
    """Whether a refusal has left us without knowledge of it."""
    if isinstance(entry, ServiceEntry):
        return not entry.scheduler
    return entry is not None and entry.method == -1


def unknown_destination(address: bytes, port: int) -> DestinationEntry:
    return DestinationEntry(address, port, method=-1, weight=-1)
