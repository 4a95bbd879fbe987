"""Requests to IPVS, ready for :class:`kad.kernel.batch.RequestQueue`. ``family`` is IPVS's number of the
day."""

from __future__ import annotations

from kad.kernel.batch import Request
from kad.kernel.encoder import NLM_F_DUMP
from kad.kernel.genetlink import header
from kad.kernel.ipvs import (
    FAMILY_VERSION,
    Command,
    Daemon,
    DestinationEntry,
    DestinationKey,
    ServiceEntry,
    ServiceKey,
    Timeouts,
    daemon_body,
    destination_body,
    destination_key_body,
    service_body,
    service_key_body,
    timeouts_body,
)

_HEADERS = {command: header(command, FAMILY_VERSION) for command in Command}


def _request(family: int, command: Command, body: bytes = b"", flags: int = 0) -> Request:
    return Request(family, flags, _HEADERS[command] + body)


def put_service(family: int, entry: ServiceEntry, *, new: bool) -> Request:
    """Errors: EEXIST when new, ESRCH when not; ENOENT without the scheduler's or engine's module."""
    return _request(family, Command.NEW_SERVICE if new else Command.SET_SERVICE, service_body(entry))


def delete_service(family: int, key: ServiceKey) -> Request:
    """Its destinations go with it. ESRCH: there is none."""
    return _request(family, Command.DEL_SERVICE, service_key_body(key))


def put_destination(family: int, service: ServiceKey, entry: DestinationEntry, *, new: bool) -> Request:
    """Errors: EEXIST when new, ENOENT when not; ESRCH without the service."""
    command = Command.NEW_DEST if new else Command.SET_DEST
    return _request(family, command, service_key_body(service) + destination_body(entry))


def delete_destination(family: int, service: ServiceKey, key: DestinationKey) -> Request:
    """ENOENT: there is none; ESRCH: not even the service."""
    return _request(family, Command.DEL_DEST, service_key_body(service) + destination_key_body(key))


def dump_services(family: int) -> Request:
    return _request(family, Command.GET_SERVICE, flags=NLM_F_DUMP)


def dump_destinations(family: int, service: ServiceKey) -> Request:
    """Empty for a service that is not there."""
    return _request(family, Command.GET_DEST, service_key_body(service), NLM_F_DUMP)


def flush(family: int) -> Request:
    """Every service, whoever set it."""
    return _request(family, Command.FLUSH)


def zero(family: int, service: ServiceKey | None = None) -> Request:
    """Counters of one service and its destinations, or of all."""
    return _request(family, Command.ZERO, service_key_body(service) if service else b"")


def get_timeouts(family: int) -> Request:
    return _request(family, Command.GET_CONFIG)


def set_timeouts(family: int, timeouts: Timeouts) -> Request:
    return _request(family, Command.SET_CONFIG, timeouts_body(timeouts))


def dump_daemons(family: int) -> Request:
    return _request(family, Command.GET_DAEMON, flags=NLM_F_DUMP)


def start_daemon(family: int, daemon: Daemon) -> Request:
    """EEXIST: it runs already. EINVAL while some service has destinations of another family."""
    return _request(family, Command.NEW_DAEMON, daemon_body(daemon))


def stop_daemon(family: int, daemon: Daemon) -> Request:
    """ESRCH: it does not run."""
    return _request(family, Command.DEL_DAEMON, daemon_body(daemon))
