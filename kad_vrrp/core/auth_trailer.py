"""auth_hmac: the signed trailer behind an advert of any version and family, as keepalived has it. Pure.

The format is that of keepalived 2.4.2 and later. 28 bytes follow the VRRP part: scheme (1), key id, two zero
bytes, the sequence (seconds, 1/65536 seconds, counter), and HMAC-SHA256 cut to 16 bytes, which covers family,
version, VRID, source address, the VRRP part with its checksum zero, and the trailer with its own value zero.
"""

import hmac
from collections.abc import Callable
from struct import Struct as Layout

from msgspec import Struct
from msgspec.structs import replace

from kad.addresses import INET, packed
from kad.config.model.vrrp import AuthHmac, VrrpInstance
from kad.units import US_PER_SECOND
from kad_vrrp.core.actions import SendAdvert
from kad_vrrp.core.context import Context
from kad_vrrp.core.packet import (
    IPV4_HEADER_LENGTH,
    TRAILER_LENGTH,
    DropReason,
    PacketError,
)

MULTICAST_SENDERS = 4
"""Senders of which a multicast instance knows the last sequence; the one longest silent makes room."""

_SCHEME = 1
_PREFIX = Layout("!BBHQ")
_VALUE_LENGTH = 16
_CHECKSUM = slice(6, 8)
_WORD = 0xFFFF_FFFF
_SEQUENCE = 0xFFFF_FFFF_FFFF_FFFF
_FRACTIONS = 1 << 16


def sequence_at(realtime_us: int) -> int:
    """The sequence of the moment: seconds in the upper half, then 1/65536 seconds, then a counter of 0."""
    seconds, rest_us = divmod(realtime_us, US_PER_SECOND)
    return (seconds & _WORD) << 32 | (rest_us * _FRACTIONS // US_PER_SECOND) << 16


def follows(one: int, other: int) -> bool:
    """Whether ``one`` comes after ``other`` (serial number arithmetic, RFC 1982 §3.2)."""
    return 0 < (one - other) & _SEQUENCE < 1 << 63


def seconds_ahead(one: int, other: int) -> int:
    """By how many seconds the first sequence is ahead of the second, over a wrap too."""
    difference = ((one >> 32) - (other >> 32)) & _WORD
    return difference - (1 << 32) if difference >> 31 else difference


def signature(key: bytes, family: int, source: bytes, payload: bytes, prefix: bytes) -> bytes:
    """The 16 bytes over a VRRP part and the trailer's prefix."""
    pseudo = bytes((family, payload[0] >> 4, payload[1], 0)) + source.ljust(16, b"\0")
    covered = pseudo + payload[: _CHECKSUM.start] + b"\0\0" + payload[_CHECKSUM.stop :] + prefix
    return hmac.digest(key, covered + bytes(_VALUE_LENGTH), "sha256")[:_VALUE_LENGTH]


def trailer(key_id: int, key: bytes, sequence: int, *, family: int, source: bytes, payload: bytes) -> bytes:
    """What follows ``payload`` on the wire."""
    prefix = _PREFIX.pack(_SCHEME, key_id, 0, sequence)
    return prefix + signature(key, family, source, payload, prefix)


class _Marks(Struct, frozen=True, array_like=True):
    """The journal record."""

    sent: int
    heard: tuple[tuple[str, int], ...]


class SignedTrailer:
    """One instance's side of it (see :class:`kad_vrrp.core.auth.Authenticator`).

    ``complain`` says something once, by its kind.
    """

    def __init__(self, config: VrrpInstance, context: Context, complain: Callable[[str, str], None]) -> None:
        self._context = context
        self._complain = complain
        self.sent = 0
        self.heard: dict[str, int] = {}
        """The last sequence of each sender, the one longest silent first."""
        self._adopt(config)

    def _adopt(self, config: VrrpInstance) -> None:
        assert config.auth_hmac is not None
        settings: AuthHmac = config.auth_hmac
        self._name = config.name
        self._family = config.family
        self._mode = settings.mode
        self._keys = {key.key_id: key.value for key in settings.keys}
        self._active = settings.active_key
        self._window_s = settings.time_window_us // US_PER_SECOND
        self._by_time = settings.anti_replay == "time"
        self._peers = {peer.address for peer in config.unicast_peers} if config.unicast else None

    def configure(self, config: VrrpInstance) -> None:
        renamed = config.name != self._name
        if renamed:
            self.forget()
        self._adopt(config)
        if self._peers is not None:
            self.heard = {source: mark for source, mark in self.heard.items() if source in self._peers}
        if renamed:
            self._remember()

    def recall(self, name: str) -> bool:
        found = self._context.records.recall(_record_key(name), _Marks)
        if found is None:
            return False
        self.sent, self.heard = found.sent, dict(found.heard)
        return True

    def forget(self) -> None:
        self._context.records.forget(_record_key(self._name))

    # Sending ---------------------------------------------------------------------------------------------

    def seal(self, adverts: tuple[SendAdvert, ...], now_us: int) -> tuple[SendAdvert, ...]:
        """keepalived: one trailer for all peers, since it does not cover the destination."""
        if self._mode == "receive-only" or not adverts:
            return adverts
        self.sent = self._next_sequence(now_us)
        self._remember()
        first = adverts[0]
        offset = IPV4_HEADER_LENGTH if self._family == INET else 0
        signed = trailer(
            self._active,
            self._keys[self._active],
            self.sent,
            family=self._family,
            source=packed(first.source),
            payload=first.data[offset:],
        )
        return tuple(replace(each, data=self._with_trailer(each.data, signed)) for each in adverts)

    def _next_sequence(self, now_us: int) -> int:
        """The clock's, if that is after the last one; a clock set back far starts anew from what it says."""
        clock = sequence_at(now_us + self._context.realtime_ahead_us)
        lost = self._by_time and seconds_ahead(self.sent, clock) > self._window_s
        if not self.sent or lost or follows(clock, self.sent):
            return clock
        return (self.sent + 1) & _SEQUENCE

    def _with_trailer(self, data: bytes, signed: bytes) -> bytes:
        if self._family != INET:
            return data + signed
        return data[:2] + (len(data) + TRAILER_LENGTH).to_bytes(2, "big") + data[4:] + signed

    # Receiving -------------------------------------------------------------------------------------------

    def check(self, data: bytes, offset: int, length: int, source: str, now_us: int) -> None:
        end = offset + length
        if len(data) != end + TRAILER_LENGTH:
            if self._mode == "enforce":
                raise PacketError(DropReason.AUTH_EXT_MISSING, "no authentication trailer")
            return
        if self._peers is not None and source not in self._peers:
            raise PacketError(DropReason.UNICAST_SOURCE, "source is not a unicast peer")
        prefix = data[end : end + _PREFIX.size]
        scheme, key_id, reserved, sequence = _PREFIX.unpack(prefix)
        if scheme != _SCHEME or reserved:
            raise PacketError(DropReason.AUTH_EXT_MALFORMED, f"authentication trailer of type {scheme}")
        clock = sequence_at(now_us + self._context.realtime_ahead_us)
        late_s = seconds_ahead(clock, sequence)
        if self._by_time and abs(late_s) > self._window_s:
            # Before the signature: a flood of old packets costs no digest each.
            text = f"stale authentication trailer: {late_s} s, window {self._window_s} s"
            raise PacketError(DropReason.AUTH_EXT_STALE, text)
        key = self._keys.get(key_id)
        if key is None:
            raise PacketError(DropReason.AUTH_EXT_UNKNOWN_KEY, f"unknown authentication key {key_id}")
        expected = signature(key, self._family, packed(source), data[offset:end], prefix)
        if not hmac.compare_digest(expected, data[end + _PREFIX.size :]):
            raise PacketError(DropReason.AUTH_EXT_INVALID_HMAC, "wrong authentication HMAC")
        self._take(source, sequence, clock)
        if self._by_time and abs(late_s) > self._window_s // 2:
            text = f"clock of {source} differs by {late_s} s, near the limit of {self._window_s} s"
            self._complain("clock_skew", text)

    def _take(self, source: str, sequence: int, clock: int) -> None:
        """Only what is genuine gets here: forged senders cannot push a known one out."""
        mark = self.heard.pop(source, None)
        if mark is not None and self._by_time and abs(seconds_ahead(clock, mark)) > self._window_s:
            # What it would refuse the window refuses already; a sender whose clock was set can go on.
            mark = None
        if mark is not None and not follows(sequence, mark):
            self.heard[source] = mark
            raise PacketError(DropReason.AUTH_EXT_REPLAY, "authentication trailer seen before")
        self.heard[source] = sequence
        if self._peers is None and len(self.heard) > MULTICAST_SENDERS:
            del self.heard[next(iter(self.heard))]
        self._remember()

    def _remember(self) -> None:
        self._context.records.remember(_record_key(self._name), _Marks(self.sent, tuple(self.heard.items())))


def _record_key(name: str) -> str:
    return f"auth {name}"
