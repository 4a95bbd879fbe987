"""The number in a track_file. Pure."""

import re

READ_LIMIT = 127
"""Bytes of a file that are looked at."""
LOWEST, HIGHEST = -(1 << 31), 1 << 31
"""keepalived's limits: the upper one is one more than 32 bits hold, and is taken."""

_NUMBER = re.compile(rb"[ \t\n\v\f\r]*([+-]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))")


class OutOfRange(ValueError):
    """A number beyond every limit; the value before it stays."""


def parse_value(data: bytes) -> int:
    """What C's ``strtol`` with base 0 makes of the beginning of a file: 0x for hexadecimal, 0 for octal.

    What follows the number does not matter; no number at all is 0. Raises OutOfRange.
    """
    match = _NUMBER.match(data[:READ_LIMIT].partition(b"\0")[0])
    if match is None:
        return 0
    sign, hexadecimal, octal, decimal = match.groups()
    if hexadecimal is not None:
        value = int(hexadecimal, 16)
    elif octal is not None:
        value = int(octal, 8)
    else:
        value = int(decimal)
    if sign == b"-":
        value = -value
    if not LOWEST <= value <= HIGHEST:
        raise OutOfRange(f"{match.group().decode().strip()} is out of range")
    return value
