"""What proves where adverts come from: nothing, a password, a header, or a trailer. Pure.

Passwords and the Authentication Header are RFC 2338 §5.3.6 (gone from the standard since RFC 3768, used
everywhere); the trailer is keepalived's (2.4.2 and later).
"""

import hmac
from typing import Protocol

from kad.config.model.vrrp import AuthType, VrrpInstance
from kad_vrrp.core.actions import SendAdvert

PASS_LENGTH = 8
"""Bytes of the authentication data field, sent whatever the type."""

WIRE_TYPES: dict[AuthType, int] = {AuthType.NONE: 0, AuthType.PASS: 1, AuthType.AH: 2}


def authentication_data(auth_type: AuthType, password: bytes) -> bytes:
    """The 8 bytes behind the addresses of a version 2 packet: the password padded with zeros."""
    if auth_type is not AuthType.PASS:
        return bytes(PASS_LENGTH)
    return password[:PASS_LENGTH].ljust(PASS_LENGTH, b"\0")


def password_matches(expected: bytes, received: bytes) -> bool:
    """Compares in constant time, so that an answer's delay tells nothing about the password."""
    return hmac.compare_digest(expected, received)


class Authenticator(Protocol):
    """Seals one instance's adverts and judges those it hears; remembers what must not come twice.

    Its numbers are in the journal before an advert that bears one leaves, or one heard has an effect: a
    restart neither repeats one nor takes one again.
    """

    def configure(self, config: VrrpInstance) -> None:
        """A reload: other keys or another name; the numbers go on."""

    def recall(self, name: str) -> bool:
        """Go on with the numbers of a former life that had this name; False: it left none."""

    def forget(self) -> None:
        """The instance is gone, and its numbers with it."""

    def seal(self, adverts: tuple[SendAdvert, ...], now_us: int) -> tuple[SendAdvert, ...]:
        """Ready to leave: one advertisement's packets, one a destination."""

    def check(self, data: bytes, offset: int, length: int, source: str, now_us: int) -> None:
        """PacketError unless genuine and new. The VRRP part has ``length`` bytes at ``offset``."""
