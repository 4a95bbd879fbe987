"""What the shell learns from the kernel's refusals."""

import errno

import pytest

from kad.kernel.ipvs import DestinationEntry, Method, ServiceEntry, ServiceKey
from kad.kernel.links import AF_INET
from kad_check.core.ipvs_plan import (
    Actual,
    ActualService,
    PutDestination,
    PutService,
    RemoveDestination,
    RemoveService,
    Step,
    apply,
)
from kad_check.io.ipvs_repair import Repair, repair

KEY = ServiceKey(AF_INET, 6, bytes([192, 0, 2, 1]), 80)
SERVICE = ServiceEntry(KEY, "rr")
SERVER = DestinationEntry(bytes([198, 51, 100, 1]), 80, Method.MASQUERADE, 1)
OTHER = DestinationEntry(bytes([198, 51, 100, 2]), 80, Method.MASQUERADE, 1)


def table(*destinations: DestinationEntry) -> Actual:
    return {KEY: ActualService(SERVICE, {entry.key: entry for entry in destinations})}


def refuse(actual: Actual, step: Step, error: int) -> Repair:
    """As the shell does: taken as carried out when it was sent, then refused."""
    apply(actual, step)
    return repair(actual, step, error)


@pytest.mark.parametrize(
    ("step", "error", "verdict"),
    [
        (PutDestination(KEY, SERVER, new=True), errno.EEXIST, Repair.AGAIN),
        (PutDestination(KEY, SERVER, new=False), errno.ENOENT, Repair.AGAIN),
        (PutDestination(KEY, SERVER, new=True), errno.ERANGE, Repair.REFUSED),
        (PutDestination(KEY, SERVER, new=False), errno.ERANGE, Repair.REFUSED),
        (PutDestination(KEY, SERVER, new=True), errno.ESRCH, Repair.SERVICE_GONE),
        (RemoveDestination(KEY, SERVER.key), errno.ENOENT, Repair.FINE),
        (RemoveDestination(KEY, SERVER.key), errno.ESRCH, Repair.SERVICE_GONE),
        (RemoveDestination(KEY, SERVER.key), errno.EPERM, Repair.REFUSED),
        (PutService(SERVICE, new=True), errno.EEXIST, Repair.READ_SERVICE),
        (PutService(SERVICE, new=False), errno.ESRCH, Repair.SERVICE_GONE),
        (PutService(SERVICE, new=True), errno.ENOENT, Repair.REFUSED),
        (RemoveService(KEY), errno.ESRCH, Repair.FINE),
        (RemoveService(KEY), errno.EPERM, Repair.REFUSED),
    ],
)
def test_verdicts(step: Step, error: int, verdict: Repair) -> None:
    assert refuse(table(SERVER, OTHER), step, error) is verdict


def test_what_was_there_after_all_differs_from_anything_wanted() -> None:
    actual = table()
    refuse(actual, PutDestination(KEY, SERVER, new=True), errno.EEXIST)
    assert SERVER.key in actual[KEY].destinations
    assert actual[KEY].destinations[SERVER.key] != SERVER


def test_what_was_not_there_after_all_is_not() -> None:
    actual = table(SERVER)
    refuse(actual, PutDestination(KEY, SERVER, new=False), errno.ENOENT)
    assert actual[KEY].destinations == {}


def test_a_removal_that_failed_leaves_it_there() -> None:
    actual = table(SERVER)
    refuse(actual, RemoveDestination(KEY, SERVER.key), errno.EPERM)
    assert SERVER.key in actual[KEY].destinations
    refuse(actual, RemoveService(KEY), errno.EPERM)
    assert KEY in actual and actual[KEY].entry != SERVICE


def test_a_refused_service_is_not_there_and_its_destinations_are_no_news() -> None:
    actual: Actual = {}
    first, second = PutService(SERVICE, new=True), PutDestination(KEY, SERVER, new=True)
    apply(actual, first)
    apply(actual, second)
    assert repair(actual, first, errno.ENOENT) is Repair.REFUSED
    assert actual == {}
    assert repair(actual, second, errno.ESRCH) is Repair.FINE
