"""Packs once, for nobody, what a configuration will have IPVS asked.

A value that no message has room for is a defect of the reader that let it through. Found here, before the
commit, it refuses a reload; found afterwards the entry it belongs to would be refused for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kad.config.model.check import (
    CheckConfiguration,
    CheckSettings,
    RealServer,
    SorryServer,
    VirtualServer,
    VirtualServerGroup,
)
from kad.config.slices import Known
from kad.ipc.trial import Trial, trial_of
from kad.kernel.ipvs import Timeouts, daemon_body, destination_body, service_body, timeouts_body
from kad_check.core.ipvs_plan import destination_entry, service_entries
from kad_check.core.ipvs_state import Destination, Service, services_of
from kad_check.io.ipvs_chores import daemons_of

Thing = CheckSettings | Service | RealServer | SorryServer
Groups = Mapping[str, VirtualServerGroup]


def trial(configuration: CheckConfiguration, servers: Iterable[VirtualServer]) -> Trial:
    """``servers``, and the settings, a few at a time. Returns which cannot be packed, and why; or nothing."""
    groups = {group.name: group for group in configuration.groups}
    return trial_of(_everything(configuration.settings, servers, groups), _pack, _words)


def changed(known: Known, before: Known) -> Iterator[VirtualServer]:
    """Those that are not what they were ``before``, or whose group is not."""
    fresh = {key for key, (_, value) in known.items() if key not in before or before[key][1] is not value}
    groups = {known[key][1].name for key in fresh if isinstance(known[key][1], VirtualServerGroup)}
    for key, (_, value) in known.items():
        if isinstance(value, VirtualServer) and (key in fresh or value.group in groups):
            yield value


def _everything(
    settings: CheckSettings, servers: Iterable[VirtualServer], groups: Groups
) -> Iterator[tuple[VirtualServer | None, Thing]]:
    yield None, settings
    for server in servers:
        for service in services_of(server, groups.get(server.group) if server.group else None):
            yield server, service
        for each in server.real_servers:
            yield server, each
        if server.sorry_server is not None:
            yield server, server.sorry_server


def _words(server: VirtualServer | None, thing: Thing) -> str:
    if server is None:
        return "lvs_timeouts or lvs_sync_daemon"
    whose = f"virtual server {server.name}"
    if isinstance(thing, RealServer | SorryServer):
        return f"{whose}: server {thing.address} {thing.port}"
    return whose


def _pack(thing: Thing) -> None:
    match thing:
        case CheckSettings():
            timeouts_body(Timeouts(thing.timeouts.tcp, thing.timeouts.tcp_fin, thing.timeouts.udp))
            for daemon in daemons_of(thing.sync_daemon, master=True):
                daemon_body(daemon)
        case Service():
            # Of a range the first: the others differ in their address alone.
            service_body(next(service_entries(thing)))
        case RealServer():
            upper, lower = thing.upper_threshold, thing.lower_threshold
            _pack_destination(
                Destination(thing.address, thing.port, thing.weight, thing.forwarding, upper, lower)
            )
        case SorryServer():
            _pack_destination(Destination(thing.address, thing.port, 1, thing.forwarding))


def _pack_destination(destination: Destination) -> None:
    destination_body(destination_entry(destination))
