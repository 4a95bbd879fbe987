"""The IP Authentication Header in front of version 2 adverts over IPv4, as keepalived has it. Pure.

RFC 2402 with HMAC-MD5-96 (RFC 2403), keyed with the password. There is no security association: the SPI is
the sender's address, and one sequence counter serves all routers. Who becomes master goes on counting from
the last advert it heard, so each router follows the counter while it listens (and must listen first).
"""

import hmac
from struct import Struct as Layout

from msgspec import Struct
from msgspec.structs import replace

from kad.config.model.vrrp import VrrpInstance
from kad_vrrp.core.actions import SendAdvert
from kad_vrrp.core.context import Context
from kad_vrrp.core.packet import (
    AH_LENGTH,
    AH_PROTOCOL,
    IPV4_HEADER_LENGTH,
    PROTOCOL,
    DropReason,
    PacketError,
)

LAST_SEQUENCE = 0xFFFF_FFFD
"""keepalived counts no further. At an advert a second that is after 136 years."""

_FIXED = Layout("!BBHI")
"""Next header, length in 32-bit words less 2, reserved, SPI; then sequence number and check value."""
_WORDS = AH_LENGTH // 4 - 2
_SEQUENCE_AT = _FIXED.size
_VALUE_AT = _SEQUENCE_AT + 4
_VALUE_LENGTH = AH_LENGTH - _VALUE_AT
_ADDRESS = slice(12, 16)


def blank_header(source: bytes) -> bytes:
    """A header with neither sequence number nor check value, for a sender with this address."""
    return _FIXED.pack(PROTOCOL, _WORDS, 0, int.from_bytes(source, "big")) + bytes(AH_LENGTH - _FIXED.size)


def check_value(packet: bytes, header_length: int, key: bytes, *, unicast: bool) -> bytes:
    """HMAC-MD5-96 over the packet with everything zero that may change on the way (RFC 2402 §3.3.3.1).

    keepalived leaves the TTL of multicast packets in: no router may touch it.
    """
    head = bytearray(packet[:header_length])
    head[1] = 0
    head[6:8] = head[10:12] = b"\0\0"
    if unicast:
        head[8] = 0
    value_at = header_length + _VALUE_AT
    covered = bytes(head) + packet[header_length:value_at] + bytes(_VALUE_LENGTH)
    digest = hmac.digest(key, covered + packet[value_at + _VALUE_LENGTH :], "md5")
    return digest[:_VALUE_LENGTH]


def sealed(packet: bytes, sequence: int, key: bytes, *, unicast: bool) -> bytes:
    """A packet with a blank header, made complete."""
    # Covered by the check value, so it cannot be left to the kernel, which replaces only 0.
    identification = ((sequence - 1) % 0xFFFF + 1).to_bytes(2, "big")
    sequence_at = IPV4_HEADER_LENGTH + _SEQUENCE_AT
    value_at = IPV4_HEADER_LENGTH + _VALUE_AT
    numbered = packet[:4] + identification + packet[6:sequence_at] + sequence.to_bytes(4, "big")
    numbered += packet[value_at:]
    value = check_value(numbered, IPV4_HEADER_LENGTH, key, unicast=unicast)
    return numbered[:value_at] + value + numbered[value_at + _VALUE_LENGTH :]


class _Counted(Struct, frozen=True, array_like=True):
    """The journal record."""

    sequence: int


class AuthenticationHeader:
    """One instance's side of it (see :class:`kad_vrrp.core.auth.Authenticator`)."""

    def __init__(self, config: VrrpInstance, context: Context) -> None:
        self._records = context.records
        self._name = config.name
        self._key = config.auth_pass
        self._unicast = config.unicast
        self.sequence = 0
        """The highest sent or heard."""
        self._own: tuple[int, bytes] = (0, b"")
        """The last one sent and from which address, until another's of that number was heard."""

    def configure(self, config: VrrpInstance) -> None:
        if config.name != self._name:
            self.forget()
            self._name = config.name
            self._remember()
        self._key = config.auth_pass
        self._unicast = config.unicast

    def recall(self, name: str) -> bool:
        found = self._records.recall(_record_key(name), _Counted)
        if found is None:
            return False
        self.sequence = found.sequence
        return True

    def forget(self) -> None:
        self._records.forget(_record_key(self._name))

    def seal(self, adverts: tuple[SendAdvert, ...], now_us: int) -> tuple[SendAdvert, ...]:
        # keepalived repeats the last number until a new reign begins anew.
        self.sequence = self.sequence + 1 if self.sequence < LAST_SEQUENCE else 1
        self._own = (self.sequence, adverts[0].data[_ADDRESS] if adverts else b"")
        self._remember()
        return tuple(
            replace(each, data=sealed(each.data, self.sequence, self._key, unicast=self._unicast))
            for each in adverts
        )

    def check(self, data: bytes, offset: int, length: int, source: str, now_us: int) -> None:
        if data[9] != AH_PROTOCOL:
            raise PacketError(DropReason.AH_HEADER, "AH header expected")
        at = offset - AH_LENGTH
        value_at = at + _VALUE_AT
        value = check_value(data, at, self._key, unicast=self._unicast)
        if not hmac.compare_digest(value, data[value_at : value_at + _VALUE_LENGTH]):
            raise PacketError(DropReason.AUTH_FAILURE, "wrong AH check value: another password, or altered")
        if data[at + 4 : at + _SEQUENCE_AT] != data[_ADDRESS]:
            raise PacketError(DropReason.AUTH_FAILURE, "the AH's SPI is not its sender's address")
        sequence = int.from_bytes(data[at + _SEQUENCE_AT : value_at], "big")
        # Two masters that always speak at the same moment use the same numbers: what was ours alone is new
        # from another. keepalived: neither ever hears the other.
        tied = sequence == self.sequence == self._own[0] and data[_ADDRESS] != self._own[1]
        if sequence <= self.sequence < LAST_SEQUENCE and not tied:
            text = f"AH sequence number {sequence} after {self.sequence}: seen before"
            raise PacketError(DropReason.AUTH_FAILURE, text)
        self.sequence = sequence
        self._own = (0, b"")
        self._remember()

    def _remember(self) -> None:
        self._records.remember(_record_key(self._name), _Counted(self.sequence))


def _record_key(name: str) -> str:
    return f"auth {name}"
