"""The adverts of one instance, built once and sent again as the same objects. Pure."""

from kad.addresses import INET, INET6, family_of, packed
from kad.config.model.vrrp import AuthType, VrrpInstance
from kad_vrrp.core.actions import SendAdvert
from kad_vrrp.core.auth import Authenticator, authentication_data
from kad_vrrp.core.auth_header import blank_header
from kad_vrrp.core.packet import (
    AH_PROTOCOL,
    PROTOCOL,
    ReceiveRules,
    build_payload,
    group_bytes,
    ipv4_packet,
    with_checksum,
)
from kad_vrrp.core.priority import STOPPING
from kad_vrrp.core.stats import Statistics
from kad_vrrp.core.timers import VERSION_2, VERSION_3, skew_time_us
from kad_vrrp.core.transports import Slot


def advertised_addresses(config: VrrpInstance) -> tuple[bytes, ...]:
    """What an advert carries: virtual_ipaddress of the instance's own family."""
    return tuple(
        packed(address.address)
        for address in config.virtual_addresses
        if family_of(address.address) == config.family
    )


def auth_data_of(config: VrrpInstance) -> bytes:
    """The trailer of version 2 over IPv4; nothing has one otherwise."""
    if config.version != VERSION_2 or config.family != INET:
        return b""
    return authentication_data(config.auth_type, config.auth_pass)


def receive_rules(config: VrrpInstance) -> ReceiveRules:
    """What this configuration demands of a received packet."""
    version_2 = config.version == VERSION_2
    return ReceiveRules(
        family=config.family,
        version=config.version,
        auth_type=config.auth_type if version_2 else AuthType.NONE,
        auth_data=auth_data_of(config),
        trailer=config.auth_hmac is not None,
        advert_int_us=config.advert_int_us,
        unicast=config.unicast,
        group=group_bytes(config.multicast_group),
        v3_checksum_as_v2=config.v3_checksum_as_v2,
        old_unicast_checksum=config.old_unicast_checksum,
        peers={peer.address: peer for peer in config.unicast_peers},
        check_unicast_src=config.check_unicast_src,
    )


class Transmitter:
    """Where and from which address an instance sends, and when it last did."""

    def __init__(self, config: VrrpInstance, stats: Statistics, now_us: int) -> None:
        self._config = config
        self._stats = stats
        self.slot: Slot | None = None
        self.source = ""
        self.authenticator: Authenticator | None = None
        self.old_checksum = False
        """A peer was found to compute version 3 checksums over the multicast group."""
        self.last_sent_us = now_us
        self.told_interval_us = config.advert_int_us
        """What that advert said: backups wait by it, though a reload may have changed it since."""
        self.owes_farewell = False
        """A master has left, and could not say so: its sockets are being opened."""
        self._adverts = Adverts(config, "", 0, old_checksum=False)

    @property
    def is_open(self) -> bool:
        return self.slot is not None and self.slot.is_open

    def rebuild(self, config: VrrpInstance) -> None:
        """Anything the adverts depend on has changed."""
        self._config = config
        number = self.slot.number if self.slot is not None else 0
        self._adverts = Adverts(config, self.source, number, old_checksum=self.old_checksum)

    def built(self, priority: int) -> tuple[SendAdvert, ...]:
        """The adverts of this priority, not sealed, without any being sent."""
        return self._adverts.of(priority)

    def send(self, priority: int, now_us: int) -> tuple[SendAdvert, ...]:
        """The adverts of this priority, counted as sent; none while the sockets are closed."""
        slot = self.slot
        if slot is None or not slot.is_open:
            return ()
        self._stats.advert_sent += 1
        if priority == STOPPING:
            self._stats.pri_zero_sent += 1
        self.last_sent_us = now_us
        self.told_interval_us = self._config.advert_int_us
        if self.authenticator is not None:
            return self.authenticator.seal(self._adverts.of(priority), now_us)
        return self._adverts.of(priority)

    def farewell(self, now_us: int) -> tuple[SendAdvert, ...]:
        """The adverts of a master that leaves, now or when the sockets are there."""
        slot = self.slot
        self.owes_farewell = slot is not None and not slot.is_open and not slot.failure
        return self.send(STOPPING, now_us)

    def is_past_mastery(self, now_us: int) -> bool:
        """timer_expired_backup: a backup of that priority has taken over, and will not be preempted."""
        config = self._config
        if not config.timer_expired_backup:
            return False
        skew_us = skew_time_us(config.version, config.timer_expired_backup, config.advert_int_us)
        return now_us >= self.last_sent_us + 3 * config.advert_int_us + skew_us


class Adverts:
    """Adverts by priority, for one configuration, source address and transport."""

    def __init__(self, config: VrrpInstance, source: str, transport: int, *, old_checksum: bool) -> None:
        self._config = config
        self._source = source
        self._transport = transport
        self._old_checksum = old_checksum or config.old_unicast_checksum == "on"
        self._addresses = advertised_addresses(config)
        self._built: dict[int, tuple[SendAdvert, ...]] = {}

    def of(self, priority: int) -> tuple[SendAdvert, ...]:
        """One advert a destination: the multicast group, or each unicast peer. None without a source."""
        built = self._built.get(priority)
        if built is None:
            built = self._built[priority] = self._build(priority) if self._source else ()
        return built

    def _build(self, priority: int) -> tuple[SendAdvert, ...]:
        config = self._config
        payload = build_payload(
            version=config.version,
            virtual_router_id=config.virtual_router_id,
            priority=priority,
            addresses=self._addresses,
            advert_int_us=config.advert_int_us,
            auth_type=config.auth_type,
            auth_data=auth_data_of(config),
        )
        if config.unicast:
            destinations = tuple(peer.address for peer in config.unicast_peers)
        else:
            destinations = (config.multicast_group,)
        return tuple(
            SendAdvert(self._transport, config.name, self._complete(payload, to), to, self._source)
            for to in destinations
        )

    def _complete(self, payload: bytes, destination: str) -> bytes:
        config = self._config
        if config.family == INET6:
            return payload
        source, target = packed(self._source), packed(destination)
        pseudo_header = b""
        if config.version == VERSION_3 and not config.v3_checksum_as_v2:
            # RFC 9568 §5.2.8 leaves the pseudo header out over IPv4; keepalived, and RFC 5798 read
            # literally, put it in.
            covered = target
            if config.unicast and self._old_checksum:
                covered = group_bytes(config.multicast_group)
            pseudo_header = source + covered + bytes((0, PROTOCOL)) + len(payload).to_bytes(2, "big")
        ttl = config.unicast_ttl if config.unicast else 255
        if config.auth_type is AuthType.AH:
            behind = blank_header(source) + with_checksum(payload, pseudo_header)
            return ipv4_packet(behind, source, target, ttl, AH_PROTOCOL)
        return ipv4_packet(with_checksum(payload, pseudo_header), source, target, ttl)
