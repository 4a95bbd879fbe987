"""Statements made from the grammar's own rows: whatever stands in a file, reading it ends in findings.

Nothing raises, every finding has a place within the file, and a number beyond its row's limits is told where
it stands.
"""

from __future__ import annotations

import re
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import msgpack

from kad.config.build import blocks
from kad.config.grammar.root import ROOT
from kad.config.load import Loaded, load
from kad.config.model.config import Config
from kad.config.schema import Block, Row
from kad.config.source import TextReader
from kad.errors import ExitStatus
from tests.support.configuration import NAME, InventedMachine

NAMES = {
    "virtual_server": "10.0.0.1 80",
    "real_server": "10.0.0.2 80",
}
"""What follows a keyword that opens a block; others have a name where they take one."""

WORDS = [
    *("0", "1", "2", "7", "50", "100", "255", "256", "65535", "65536", "4294967295", "4294967296"),
    *("99999999999999999999", "-1", "-254", "0.5", "1.0000009", ".5", "5.", "1e3", "0x10", "200-300"),
    *("10.0.0.1", "10.0.0.1/24", "10.0.0.1-9", "10.0.0.300", "::1", "fe80::1", "fe80::1%eth0"),
    *("2001:db8::/32", "224.0.0.18", "eth0", "NAME", "VI_1", "on", "off", "true", "no", "MASTER", "DR"),
    *("NAT", "TUN", "type", "gue", "port", "gre", "csum", "rr", "sh", "TCP", "fwmark", "group", "inet6"),
    *("reverse", "weight", "dev", "via", "table", "scope", "label", "brd", "default", "blackhole", "to"),
    *("from", "1.1", "A", "all", "DROP", "deadbeef", '"two words"', '""', "'", '"', "\\", "{", "}", ";"),
    *("$", "$NAME", "${NAME}", "~SEQ(x,2)", "@id", "!x", "#x", "é", "\x00", "\x7f", "id", "key", "+", "-"),
    *("\udce9", '"\\xe9"'),
]


def opening(row: Row) -> str:
    """The line that opens a block in a way that is accepted."""
    assert row.kind.block is not None
    name = NAMES.get(row.name, "NAME" if row.kind.block.parameters else "")
    return f"{row.name} {name}".rstrip() + " {"


@cache
def nesting(target: Block) -> tuple[Row, ...]:
    """The rows to open, from the outermost, to stand within a block."""
    pending: list[tuple[Block, tuple[Row, ...]]] = [(ROOT, ())]
    for block, rows in pending:
        if block is target:
            return rows
        inner = [(row.kind.block, (*rows, row)) for row in block.rows if row.kind.block is not None]
        pending += inner
    raise AssertionError(f"nothing opens {target.path}")


def within(block: Block, line: str) -> tuple[str, int]:
    """A file in which ``line`` stands in that block, and the number of the line."""
    rows = nesting(block)
    text = "\n".join([*map(opening, rows), line, *("}" for _ in rows)])
    return text + "\n", len(rows) + 1


def load_text(text: str, online: bool = True) -> Loaded:
    machine = InventedMachine() if online else None
    return load(NAME, reader=TextReader({NAME: text}), machine=machine, seed=1)


# Numbers beyond their limits

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
NUMERIC = ("integer", "[integer]", "decimal", "integer [reverse]")
LIMITED = [
    pytest.param(block, row, id=f"{block.path}/{row.name}")
    for block in blocks(ROOT)
    for row in block.rows
    if row.kind.text in NUMERIC and _NUMBER.fullmatch(row.kind.low)
]


def beyond(row: Row) -> list[str]:
    """Numbers just outside a row's limits, as far as they can be written."""
    found = [str(int(float(row.kind.low)) - 1)]
    if _NUMBER.fullmatch(row.kind.high):
        found.append(str(int(float(row.kind.high)) + 1))
    return found


@pytest.mark.parametrize(("block", "row"), LIMITED)
def test_a_number_beyond_its_limits_is_told_on_its_line(block: Block, row: Row) -> None:
    for value in beyond(row):
        text, number = within(block, f"{row.name} {value}")
        told = [d for d in load_text(text).diagnostics if d.span is not None and d.span.line == number]
        assert any(int(d.exit_status) != ExitStatus.OK for d in told), (value, text, told)


@pytest.mark.parametrize(("block", "row"), LIMITED)
def test_what_is_no_number_is_told_on_its_line(block: Block, row: Row) -> None:
    text, number = within(block, f"{row.name} many")
    told = {d.span.line for d in load_text(text).diagnostics if d.span is not None and d.exit_status}
    assert number in told


# Anything at all

word = st.one_of(
    st.sampled_from(WORDS),
    st.integers(-(2**70), 2**70).map(str),
    st.ip_addresses().map(str),
    st.text(max_size=6),
)


@st.composite
def statements(draw: st.DrawFn, block: Block, depth: int = 0) -> list[str]:
    """Lines for a block: mostly its own keywords and blocks with any words, sometimes those of others."""
    lines: list[str] = []
    for _ in range(draw(st.integers(0, 6))):
        rows = draw(st.sampled_from([block, block, block, *_BLOCKS])).rows
        row = draw(st.sampled_from(rows)) if rows else None
        words = draw(st.lists(word, max_size=4))
        if row is None:
            lines.append(" ".join(words))
        elif row.kind.block is None:
            lines.append(" ".join([row.name, *words]))
        else:
            head = opening(row) if draw(st.booleans()) else " ".join([row.name, *words, "{"])
            inner = draw(statements(row.kind.block, depth + 1)) if depth < 4 else []
            lines += [head, *inner, draw(st.sampled_from(["}", "}", "}", "}", "", "} }"]))]
    return lines


_BLOCKS = blocks(ROOT)


@given(lines=statements(ROOT), online=st.booleans())
@settings(max_examples=300, deadline=None)
def test_nothing_raises_and_every_finding_has_its_place(lines: list[str], online: bool) -> None:
    text = "\n".join(lines)
    loaded = load_text(text, online)
    last = text.count("\n") + 1
    for finding in loaded.diagnostics:
        assert finding.span is None or 0 < finding.span.line <= last
        assert finding.exit_status in set(ExitStatus)
    assert msgpack.decode(msgpack.encode(loaded.config), type=Config) == loaded.config


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_words_after_any_keyword_where_it_belongs(data: st.DataObject) -> None:
    block = data.draw(st.sampled_from([each for each in _BLOCKS if each.rows or each.item]))
    names = [row.name for row in block.rows] or [""]
    words = data.draw(st.lists(word, max_size=5))
    text, _ = within(block, " ".join([data.draw(st.sampled_from(names)), *words]))
    loaded = load_text(text)
    assert loaded == load_text(text), "the same text must be read the same way"
