"""IPVS services and destinations as values, and their attributes to bytes and back. Pure.

The numbers are those of Linux's ``uapi/linux/ip_vs.h``. Addresses are packed bytes in network order; ports
are plain integers. A netmask is as the kernel keeps it: an IPv4 mask in network order, or an IPv6 prefix
length as a 32-bit integer in the machine's order.

The requests that carry these bodies are made in ``ipvs_requests.py``.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct as Layout

from msgspec import Struct

from kad.addresses import unpacked
from kad.kernel.encoder import (
    MalformedMessage,
    attribute,
    attributes,
    nested,
    read_text,
    read_u32,
    text,
    u8,
    u16,
    u16_big,
    u32,
)
from kad.kernel.links import AF_INET, AF_INET6

FAMILY_NAME = "IPVS"
FAMILY_VERSION = 1
GENERIC_HEADER = 4
"""Bytes of a generic netlink message before its attributes."""


class Command(IntEnum):
    NEW_SERVICE = 1
    SET_SERVICE = 2
    DEL_SERVICE = 3
    GET_SERVICE = 4
    NEW_DEST = 5
    SET_DEST = 6
    DEL_DEST = 7
    GET_DEST = 8
    NEW_DAEMON = 9
    DEL_DAEMON = 10
    GET_DAEMON = 11
    SET_CONFIG = 12
    GET_CONFIG = 13
    SET_INFO = 14
    GET_INFO = 15
    ZERO = 16
    FLUSH = 17


class ServiceFlag(IntFlag):
    PERSISTENT = 0x01
    HASHED = 0x02
    """Set by the kernel itself."""
    ONE_PACKET = 0x04
    SCHEDULER_1 = 0x08
    SCHEDULER_2 = 0x10
    SCHEDULER_3 = 0x20


OUR_FLAGS = 0x3D
"""All but HASHED."""


class Method(IntEnum):
    """How packets get from here to the destination."""

    MASQUERADE = 0
    LOCAL_NODE = 1
    TUNNEL = 2
    DIRECT_ROUTE = 3
    BYPASS = 4


_METHOD_MASK = 0x7


class Tunnel(IntEnum):
    IPIP = 0
    GUE = 1
    GRE = 2


class TunnelFlag(IntFlag):
    NO_CHECKSUM = 0
    CHECKSUM = 1
    REMOTE_CHECKSUM = 2


class DaemonState(IntEnum):
    """What a sync daemon does: send connections, or receive them."""

    MASTER = 1
    BACKUP = 2


_CMD_SERVICE, _CMD_DEST, _CMD_DAEMON, _CMD_TIMEOUT_TCP, _CMD_TIMEOUT_TCP_FIN, _CMD_TIMEOUT_UDP = range(1, 7)
(
    _SVC_AF,
    _SVC_PROTOCOL,
    _SVC_ADDR,
    _SVC_PORT,
    _SVC_FWMARK,
    _SVC_SCHEDULER,
    _SVC_FLAGS,
    _SVC_TIMEOUT,
    _SVC_NETMASK,
    _SVC_STATS,
    _SVC_ENGINE,
    _SVC_STATS64,
) = range(1, 13)
(
    _DEST_ADDR,
    _DEST_PORT,
    _DEST_METHOD,
    _DEST_WEIGHT,
    _DEST_UPPER,
    _DEST_LOWER,
    _DEST_ACTIVE,
    _DEST_INACTIVE,
    _DEST_PERSISTENT,
    _DEST_STATS,
    _DEST_AF,
    _DEST_STATS64,
    _DEST_TUNNEL_TYPE,
    _DEST_TUNNEL_PORT,
    _DEST_TUNNEL_FLAGS,
) = range(1, 16)
(
    _DAEMON_STATE,
    _DAEMON_INTERFACE,
    _DAEMON_SYNC_ID,
    _DAEMON_MAXIMUM_LENGTH,
    _DAEMON_GROUP,
    _DAEMON_GROUP6,
    _DAEMON_PORT,
    _DAEMON_TTL,
) = range(1, 9)
_STATS = ("connections", "in_packets", "out_packets", "in_bytes", "out_bytes")
"""Attributes 1 to 5 of STATS and STATS64, in order."""

_FLAGS = Layout("=II")
_PREFIX_LENGTH = Layout("=I")
_PORT = Layout(">H")
_U16 = Layout("=H")
_U64 = Layout("=Q")

IPV4_HOST_MASK = b"\xff\xff\xff\xff"
IPV6_HOST_MASK = _PREFIX_LENGTH.pack(128)


def ipv6_mask(length: int) -> bytes:
    """The netmask of an IPv6 prefix length, 1 to 128."""
    return _PREFIX_LENGTH.pack(length)


DestinationKey = tuple[bytes, int]
"""Address (4 or 16 bytes) and port: what tells a service's destinations apart."""


class ServiceKey(Struct, frozen=True, gc=False):
    """What tells services apart: protocol, address and port, or a firewall mark and a family."""

    family: int
    """AF_INET or AF_INET6."""
    protocol: int
    """IPPROTO number; 0 for a mark."""
    address: bytes
    """Empty for a mark."""
    port: int
    fwmark: int = 0

    def __str__(self) -> str:
        if self.fwmark:
            return f"FWM {self.fwmark}" + (" -6" if self.family == AF_INET6 else "")
        name = _PROTOCOL_NAMES.get(self.protocol, str(self.protocol))
        return f"[{unpacked(self.address)}]:{name}:{self.port}"


_PROTOCOL_NAMES = {6: "tcp", 17: "udp", 132: "sctp"}


class ServiceEntry(Struct, frozen=True, gc=False):
    """One service as configured."""

    key: ServiceKey
    scheduler: str
    flags: int = 0
    """Of :class:`ServiceFlag`, without HASHED."""
    timeout: int = 0
    """Seconds of persistence."""
    netmask: bytes = IPV4_HOST_MASK
    engine: str = ""


class DestinationEntry(Struct, frozen=True, gc=False):
    """One destination as configured. The tunnel's three are 0 with other methods."""

    address: bytes
    port: int
    method: int
    weight: int
    upper_threshold: int = 0
    lower_threshold: int = 0
    tunnel_type: int = 0
    tunnel_port: int = 0
    tunnel_flags: int = 0

    @property
    def key(self) -> DestinationKey:
        return self.address, self.port


class Counters(Struct, frozen=True, gc=False):
    """What the kernel has counted; 64 bits where it has them."""

    connections: int = 0
    in_packets: int = 0
    out_packets: int = 0
    in_bytes: int = 0
    out_bytes: int = 0


class ServiceStatus(Struct, frozen=True, gc=False):
    entry: ServiceEntry
    counters: Counters


class DestinationStatus(Struct, frozen=True, gc=False):
    entry: DestinationEntry
    active: int
    inactive: int
    persistent: int
    counters: Counters


class Timeouts(Struct, frozen=True):
    """Seconds. When setting, 0 leaves what is."""

    tcp: int = 0
    tcp_fin: int = 0
    udp: int = 0


class Daemon(Struct, frozen=True):
    """One of the kernel's two sync daemons. 0 or empty where the kernel's own value is to hold."""

    state: DaemonState
    interface: str
    sync_id: int = 0
    maximum_length: int = 0
    group: bytes = b""
    port: int = 0
    ttl: int = 0


# To bytes ---------------------------------------------------------------------------------------------------


def service_key_body(key: ServiceKey) -> bytes:
    """CMD_ATTR_SERVICE that only names a service."""
    return nested(_CMD_SERVICE, _key_attributes(key))


def _key_attributes(key: ServiceKey) -> bytes:
    family = u16(_SVC_AF, key.family)
    if key.fwmark:
        return family + u32(_SVC_FWMARK, key.fwmark)
    return b"".join(
        (
            family,
            u16(_SVC_PROTOCOL, key.protocol),
            attribute(_SVC_ADDR, key.address),
            u16_big(_SVC_PORT, key.port),
        )
    )


def service_body(entry: ServiceEntry) -> bytes:
    """CMD_ATTR_SERVICE with all there is to set."""
    parts = [
        _key_attributes(entry.key),
        text(_SVC_SCHEDULER, entry.scheduler),
        attribute(_SVC_FLAGS, _FLAGS.pack(entry.flags, 0xFFFF_FFFF)),
        u32(_SVC_TIMEOUT, entry.timeout),
        attribute(_SVC_NETMASK, entry.netmask),
    ]
    if entry.engine:
        parts.append(text(_SVC_ENGINE, entry.engine))
    return nested(_CMD_SERVICE, *parts)


def destination_key_body(key: DestinationKey) -> bytes:
    """CMD_ATTR_DEST that only names a destination."""
    address, port = key
    return nested(_CMD_DEST, _destination_key(address, port))


def _destination_key(address: bytes, port: int) -> bytes:
    family = AF_INET if len(address) == 4 else AF_INET6
    return u16(_DEST_AF, family) + attribute(_DEST_ADDR, address) + u16_big(_DEST_PORT, port)


def destination_body(entry: DestinationEntry) -> bytes:
    """CMD_ATTR_DEST with all there is to set."""
    parts = [
        _destination_key(entry.address, entry.port),
        u32(_DEST_METHOD, entry.method),
        u32(_DEST_WEIGHT, entry.weight),
        u32(_DEST_UPPER, entry.upper_threshold),
        u32(_DEST_LOWER, entry.lower_threshold),
    ]
    if entry.method == Method.TUNNEL:
        parts += [
            u8(_DEST_TUNNEL_TYPE, entry.tunnel_type),
            u16_big(_DEST_TUNNEL_PORT, entry.tunnel_port),
            u16(_DEST_TUNNEL_FLAGS, entry.tunnel_flags),
        ]
    return nested(_CMD_DEST, *parts)


def timeouts_body(timeouts: Timeouts) -> bytes:
    """The attributes of SET_CONFIG."""
    pairs = (
        (_CMD_TIMEOUT_TCP, timeouts.tcp),
        (_CMD_TIMEOUT_TCP_FIN, timeouts.tcp_fin),
        (_CMD_TIMEOUT_UDP, timeouts.udp),
    )
    return b"".join(u32(kind, value) for kind, value in pairs if value)


def daemon_body(daemon: Daemon) -> bytes:
    """CMD_ATTR_DAEMON."""
    parts = [
        u32(_DAEMON_STATE, daemon.state),
        text(_DAEMON_INTERFACE, daemon.interface),
        u32(_DAEMON_SYNC_ID, daemon.sync_id),
    ]
    if daemon.maximum_length:
        parts.append(u16(_DAEMON_MAXIMUM_LENGTH, daemon.maximum_length))
    if daemon.group:
        kind = _DAEMON_GROUP if len(daemon.group) == 4 else _DAEMON_GROUP6
        parts.append(attribute(kind, daemon.group))
    if daemon.port:
        parts.append(u16(_DAEMON_PORT, daemon.port))
    if daemon.ttl:
        parts.append(u8(_DAEMON_TTL, daemon.ttl))
    return nested(_CMD_DAEMON, *parts)


# And back ---------------------------------------------------------------------------------------------------


def read_service(body: bytes) -> ServiceStatus:
    """One answer to GET_SERVICE. Raises MalformedMessage."""
    found = _nested(body, _CMD_SERVICE)
    family = _u16(found, _SVC_AF)
    mark = read_u32(found.get(_SVC_FWMARK, b""))
    if mark:
        key = ServiceKey(family, 0, b"", 0, mark)
    else:
        address = _address(found, _SVC_ADDR, family)
        key = ServiceKey(family, _u16(found, _SVC_PROTOCOL), address, _port(found, _SVC_PORT))
    entry = ServiceEntry(
        key,
        scheduler=read_text(found.get(_SVC_SCHEDULER, b"")),
        flags=read_u32(found.get(_SVC_FLAGS, b"")) & OUR_FLAGS,
        timeout=read_u32(found.get(_SVC_TIMEOUT, b"")),
        netmask=found.get(_SVC_NETMASK, b""),
        engine=read_text(found.get(_SVC_ENGINE, b"")),
    )
    return ServiceStatus(entry, _counters(found, _SVC_STATS, _SVC_STATS64))


def read_destination(body: bytes, service_family: int) -> DestinationStatus:
    """One answer to GET_DEST. Raises MalformedMessage."""
    found = _nested(body, _CMD_DEST)
    return DestinationStatus(
        _destination(found, service_family),
        read_u32(found.get(_DEST_ACTIVE, b"")),
        read_u32(found.get(_DEST_INACTIVE, b"")),
        read_u32(found.get(_DEST_PERSISTENT, b"")),
        _counters(found, _DEST_STATS, _DEST_STATS64),
    )


def read_destination_entry(body: bytes, service_family: int) -> DestinationEntry:
    """The same without what was counted: in half the time. Raises MalformedMessage."""
    return _destination(_nested(body, _CMD_DEST), service_family)


def _destination(found: dict[int, bytes], service_family: int) -> DestinationEntry:
    # Kernels before 3.18 know destinations of the service's own family only, and do not say so.
    family = _u16(found, _DEST_AF) if _DEST_AF in found else service_family
    method = read_u32(found.get(_DEST_METHOD, b"")) & _METHOD_MASK
    return DestinationEntry(
        _address(found, _DEST_ADDR, family),
        _port(found, _DEST_PORT),
        method,
        read_u32(found.get(_DEST_WEIGHT, b"")),
        read_u32(found.get(_DEST_UPPER, b"")),
        read_u32(found.get(_DEST_LOWER, b"")),
        *(_tunnel(found) if method == Method.TUNNEL else ()),
    )


def _tunnel(found: dict[int, bytes]) -> tuple[int, int, int]:
    """Kernels before 5.2 know IPIP only, and say nothing of it."""
    return (
        (found.get(_DEST_TUNNEL_TYPE) or b"\0")[0],
        _port(found, _DEST_TUNNEL_PORT) if _DEST_TUNNEL_PORT in found else 0,
        _u16(found, _DEST_TUNNEL_FLAGS) if _DEST_TUNNEL_FLAGS in found else 0,
    )


def read_timeouts(body: bytes) -> Timeouts:
    """The answer to GET_CONFIG. Raises MalformedMessage."""
    found = attributes(body, GENERIC_HEADER)
    kinds = (_CMD_TIMEOUT_TCP, _CMD_TIMEOUT_TCP_FIN, _CMD_TIMEOUT_UDP)
    return Timeouts(*(read_u32(found.get(kind, b"")) for kind in kinds))


def read_daemon(body: bytes) -> Daemon:
    """One answer to GET_DAEMON. Raises MalformedMessage."""
    found = _nested(body, _CMD_DAEMON)
    state = read_u32(found.get(_DAEMON_STATE, b""))
    if state not in (DaemonState.MASTER, DaemonState.BACKUP):
        raise MalformedMessage(f"a sync daemon in state {state}")
    return Daemon(
        DaemonState(state),
        read_text(found.get(_DAEMON_INTERFACE, b"")),
        read_u32(found.get(_DAEMON_SYNC_ID, b"")),
        _u16(found, _DAEMON_MAXIMUM_LENGTH) if _DAEMON_MAXIMUM_LENGTH in found else 0,
        found.get(_DAEMON_GROUP) or found.get(_DAEMON_GROUP6) or b"",
        _u16(found, _DAEMON_PORT) if _DAEMON_PORT in found else 0,
        (found.get(_DAEMON_TTL) or b"\0")[0],
    )


def _nested(body: bytes, kind: int) -> dict[int, bytes]:
    inner = attributes(body, GENERIC_HEADER).get(kind)
    if inner is None:
        raise MalformedMessage(f"an answer without attribute {kind}")
    return attributes(inner)


def _u16(found: dict[int, bytes], kind: int) -> int:
    data = found.get(kind, b"")
    if len(data) < 2:
        raise MalformedMessage(f"attribute {kind} has {len(data)} bytes")
    return int(_U16.unpack_from(data)[0])


def _port(found: dict[int, bytes], kind: int) -> int:
    data = found.get(kind, b"")
    if len(data) < 2:
        raise MalformedMessage(f"attribute {kind} has {len(data)} bytes")
    return int(_PORT.unpack_from(data)[0])


def _address(found: dict[int, bytes], kind: int, family: int) -> bytes:
    """The kernel sends 16 bytes whatever the family."""
    if family not in (AF_INET, AF_INET6):
        raise MalformedMessage(f"family {family}")
    length = 4 if family == AF_INET else 16
    data = found.get(kind, b"")
    if len(data) < length:
        raise MalformedMessage(f"an address of {len(data)} bytes")
    return data[:length]


def _counters(found: dict[int, bytes], narrow: int, wide: int) -> Counters:
    """STATS64 (Linux 4.1) where it is there; else connections and packets have 32 bits."""
    inner = attributes(found.get(wide) or found.get(narrow) or b"")
    return Counters(*(_number(inner.get(kind, b"")) for kind in range(1, len(_STATS) + 1)))


def _number(data: bytes) -> int:
    return int(_U64.unpack_from(data)[0]) if len(data) >= _U64.size else read_u32(data)
