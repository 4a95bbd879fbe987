"""Bytes written in hexadecimal: payloads, replies with wildcards, digests."""

from __future__ import annotations

WILDCARDS = "xX"
_DIGITS = "0123456789abcdefABCDEF"


def read_hex(text: str, *, wildcards: bool = False) -> tuple[bytes, bytes] | None:
    """The bytes and their mask (a bit that is 1 was a wildcard); None when it is not hexadecimal or empty.

    Blanks separate bytes, and one digit alone between blanks is a byte: ``1 2f 3`` is 01 2f 03.
    """
    values = bytearray()
    masks = bytearray()
    for group in text.split():
        for start in range(0, len(group), 2):
            value = mask = 0
            for digit in group[start : start + 2]:
                value, mask = value << 4, mask << 4
                if wildcards and digit in WILDCARDS:
                    mask |= 0xF
                elif digit in _DIGITS:
                    value |= int(digit, 16)
                else:
                    return None
            values.append(value)
            masks.append(mask)
    if not values:
        return None
    return bytes(values), bytes(masks) if any(masks) else b""
