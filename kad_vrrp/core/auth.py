"""VRRPv2 authentication (RFC 2338 §5.3.6; gone from the standard since RFC 3768, used everywhere). Pure."""

import hmac

from kad.config.model.vrrp import AuthType

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
