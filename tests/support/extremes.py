"""Every numeric keyword at the ends of its range, as statements of a configuration."""

from __future__ import annotations

from collections.abc import Iterator

from kad.config.diagnostics import Severity
from kad.config.schema import Block, Row
from tests.support.configuration import SECURE, read


def values_of(row: Row) -> list[str]:
    """The ends of its range, and 0 and 1 as far as they lie within; nothing where it takes no number."""
    ends = [text for text in (row.kind.low, row.kind.high) if _is_number(text)]
    return list(dict.fromkeys([*ends, "0", "1"])) if ends and row.kind.block is None else []


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).lstrip("-").isdigit()


def statements_of(block: Block) -> Iterator[str]:
    """``keyword value`` for each numeric row."""
    for row in block.rows:
        for value in values_of(row):
            yield f"{row.name} {value}"


def is_accepted(text: str, global_defs: str = SECURE) -> bool:
    """Without a word but warnings."""
    found = read(text, global_defs).diagnostics
    return all(d.severity not in (Severity.FATAL, Severity.ERROR) for d in found)


# Spellings of numbers that are none, or that a prefix of would be one ------------------------------------

ODD_NUMBERS = (
    *("0" * 22 + "9" * 12, "0" * 9 + "999999", "0" * 21 + "9" * 24, "000000000199", "0000000000000000000001"),
    *("-1", "-0", "+1", "1_1", "0x1_0", "0x", "08", "²", "٣", "1e9", "1 ", "9" * 400, "-9" * 10),
    *("0." + "9" * 300, "." + "0" * 200, "nan", "inf", "/", "1/", "/1", "1/-1", "1/٣", "1-", "-", "1-٣"),
    *("1-" + "0" * 10 + "99999", "-1:0:0:0", "+1:0:0:0", "1_1:0:0:0", "02:-1:00:00:00:01", '""', "mptcp"),
)


def odd_lines(*beginnings: str) -> list[str]:
    """Each beginning with each odd number after it."""
    return [f"{beginning}{number}" for beginning in beginnings for number in map(_quoted, ODD_NUMBERS)]


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word else word
