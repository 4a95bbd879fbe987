"""What takes several requests, each depending on the answers before: reading the table, timeouts, sync
daemons.

A chore is a generator: it yields requests and gets their outcomes, or yields None to let the loop turn. One
runs at a time, and no change of the table is on its way meanwhile.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Container, Generator, Iterable
from itertools import islice

from msgspec.structs import replace

from kad.addresses import packed
from kad.config.model.globals import IpvsTimeouts, SyncDaemon
from kad.kernel.batch import NO_VERDICT, Outcome, Request
from kad.kernel.encoder import MalformedMessage
from kad.kernel.ipvs import (
    Daemon,
    DaemonState,
    ServiceKey,
    Timeouts,
    read_daemon,
    read_destination_entry,
    read_service,
    read_timeouts,
)
from kad.kernel.ipvs_requests import (
    dump_daemons,
    dump_destinations,
    dump_services,
    get_timeouts,
    set_timeouts,
    start_daemon,
    stop_daemon,
)
from kad_check.core.ipvs_plan import Actual, ActualService
from kad_check.io.ipvs_record import OwnServices

Chore = Generator[list[Request] | None, list[Outcome], None]

TURN = 256
"""Answers read in one turn of the loop."""
_DUMPS = 64
_TRIES = 3

Report = Callable[[str], None]


def read_table(
    family: int, ours: Container[ServiceKey], actual: Actual, failed: Callable[[str], None]
) -> Chore:
    """Fill ``actual`` with what the kernel has of ours. ``failed``: why it could not be read."""
    bodies = yield from _read(dump_services(family), failed)
    found: list[ServiceKey] = []
    for number, body in enumerate(bodies):
        entry = read_service(body).entry
        if entry.key in ours:
            actual[entry.key] = ActualService(entry)
            found.append(entry.key)
        if number % TURN == TURN - 1:
            yield None
    yield from read_services(family, found, actual, failed)


def read_services(
    family: int, keys: Iterable[ServiceKey], actual: Actual, failed: Callable[[str], None]
) -> Chore:
    """The destinations of services that are in ``actual``."""
    waiting = iter(keys)
    count = 0
    while some := list(islice(waiting, _DUMPS)):
        outcomes = yield [dump_destinations(family, key) for key in some]
        for key, outcome in zip(some, outcomes, strict=True):
            bodies = outcome.replies
            if outcome.error:
                bodies = yield from _read(dump_destinations(family, key), failed)
            for body in bodies:
                entry = read_destination_entry(body, key.family)
                actual[key].destinations[entry.key] = entry
                count += 1
                if count % TURN == 0:
                    yield None


def _read(
    request: Request, failed: Callable[[str], None]
) -> Generator[list[Request] | None, list[Outcome], tuple[bytes, ...]]:
    """One dump, again if the kernel had no room for it."""
    for _ in range(_TRIES):
        outcome = (yield [request])[0]
        if outcome.error not in NO_VERDICT:
            break
    if outcome.error:
        failed(outcome.reason)
        return ()
    return outcome.replies


# Timeouts ---------------------------------------------------------------------------------------------------


def apply_timeouts(family: int, wanted: IpvsTimeouts, own: OwnServices, report: Report) -> Chore:
    """lvs_timeouts. What is given is set; what no longer is gets the kernel's own value back."""
    ours = Timeouts(wanted.tcp, wanted.tcp_fin, wanted.udp)
    before = own.general.timeouts_before
    if before is None:
        if ours == Timeouts():
            return
        bodies = (yield [get_timeouts(family)])[0].replies
        if not bodies:
            report("IPVS: timeouts cannot be read")
            return
        before = read_timeouts(bodies[0])
        own.set_general(replace(own.general, timeouts_before=before))
    merged = Timeouts(ours.tcp or before.tcp, ours.tcp_fin or before.tcp_fin, ours.udp or before.udp)
    outcome = (yield [set_timeouts(family, merged)])[0]
    if outcome.error:
        report(f"IPVS: timeouts {merged.tcp} {merged.tcp_fin} {merged.udp}: {outcome.reason}")
    elif ours == Timeouts():
        own.set_general(replace(own.general, timeouts_before=None))


# Sync daemons -----------------------------------------------------------------------------------------------


def daemons_of(configured: SyncDaemon | None, master: bool) -> tuple[Daemon, ...]:
    """Those to run. ``master``: the instance that is followed is; without one both run."""
    if configured is None:
        return ()
    states = [DaemonState.MASTER, DaemonState.BACKUP]
    if configured.instance:
        states = [DaemonState.MASTER if master else DaemonState.BACKUP]
    return tuple(
        Daemon(
            state,
            configured.interface,
            configured.sync_id or 0,
            configured.maximum_length,
            packed(configured.group),
            configured.port,
            configured.ttl,
        )
        for state in states
    )


def apply_daemons(family: int, wanted: tuple[Daemon, ...], own: OwnServices, report: Report) -> Chore:
    """Stop what is not wanted, then start what is. Without any wanted, only those we started are stopped."""
    if not wanted and not own.general.daemons:
        return
    running = [read_daemon(body) for body in (yield [dump_daemons(family)])[0].replies]
    kept = {daemon.state for daemon in running if any(_is_as(daemon, each) for each in wanted)}
    started = {daemon.state for daemon in own.general.daemons}
    stopping = [each for each in running if each.state not in kept and (wanted or each.state in started)]
    starting = [daemon for daemon in wanted if daemon.state not in kept]
    own.set_general(replace(own.general, daemons=wanted))
    if not stopping and not starting:
        return
    requests = [stop_daemon(family, each) for each in stopping]
    requests += [start_daemon(family, each) for each in starting]
    outcomes = yield requests
    for daemon, outcome in zip(stopping + starting, outcomes, strict=True):
        if outcome.error and outcome.error != errno.ESRCH:
            report(f"IPVS: sync daemon ({daemon.state.name.lower()}, {daemon.interface}): {outcome.reason}")


def _is_as(running: Daemon, wanted: Daemon) -> bool:
    """What was left to the kernel may be anything."""
    return (
        (running.state, running.interface, running.sync_id)
        == (wanted.state, wanted.interface, wanted.sync_id)
        and wanted.maximum_length in (0, running.maximum_length)
        and wanted.group in (b"", running.group)
        and wanted.port in (0, running.port)
        and wanted.ttl in (0, running.ttl)
    )


def guarded(chore: Chore, failed: Callable[[str], None]) -> Chore:
    """An answer that does not parse ends the chore, and is told."""
    try:
        yield from chore
    except MalformedMessage as error:
        failed(f"an answer does not parse: {error}")
