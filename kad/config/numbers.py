"""Numbers as they are written, judged whole: ASCII digits, perhaps after a plus. Pure, and the one reader.

Python's own ``int`` takes more than any of these languages does: signs, underscores, blanks, other scripts'
digits. What is longer than any number can be is no number; zeros in front do not make it longer.
"""

from __future__ import annotations

import re

_LONGEST = 30
"""Digits, which is beyond every limit there is; ``int`` itself refuses some thousands."""
_C_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]+")


def is_digits(text: str) -> bool:
    """Whether it is one or more of 0 to 9."""
    return text.isascii() and text.isdigit()


def whole_number(text: str, highest: int, lowest: int = 0) -> int | None:
    """A decimal number of [lowest, highest]; None for anything else."""
    text = text.removeprefix("+")
    if not is_digits(text) or len(text.lstrip("0")) > _LONGEST:
        return None
    value = int(text)
    return value if lowest <= value <= highest else None


def c_integer(text: str) -> int | None:
    """A number in C's notation: 0x1f, 017, 15."""
    text = text.removeprefix("+")
    if _C_NUMBER.fullmatch(text) is None or len(text.lstrip("0xX")) > _LONGEST:
        return None
    return int(text, 16 if text[:2] in ("0x", "0X") else 8 if text[0] == "0" else 10)


def hexadecimal(text: str, longest: int) -> int | None:
    """Hexadecimal digits, ``longest`` of them at the most, without 0x."""
    return int(text, 16) if len(text) <= longest and _HEXADECIMAL.fullmatch(text) else None
