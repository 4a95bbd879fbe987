"""Statements to values: walks the tree along the grammar's rows. What has no row is reported and skipped."""

from __future__ import annotations

from functools import cache

from kad.config.diagnostics import nearest_known
from kad.config.schema import NOTHING, Block, Frame, Reading, Repeat, Row
from kad.config.tree import Statement
from kad.config.values import ignored_words
from kad.errors import ExitStatus, Severity

MAX_SUGGESTIONS = 200
"""Unknown words that a similar one is looked for: a file of something else altogether has thousands."""


def read_root(reading: Reading, block: Block, statements: list[Statement]) -> Frame:
    """Read a whole file. Rows marked ``early`` are read first: global settings hold wherever they stand."""
    root = Frame(block, None, None)
    reading.root = root
    read_statements(reading, root, _early_first(block, statements))
    return root


def _early_first(block: Block, statements: list[Statement]) -> list[Statement]:
    early: list[Statement] = []
    later: list[Statement] = []
    for statement in statements:
        row = block.table.get(statement.texts[0])
        (early if row is not None and row.early else later).append(statement)
    return early + later


def read_statements(reading: Reading, frame: Frame, statements: list[Statement]) -> None:
    """Read the statements of one block into its frame."""
    block = frame.block
    table, item = block.table, block.item
    fields, places = frame.fields, frame.places
    for statement in statements:
        row = table.get(statement.texts[0])
        if row is None:
            if item is not None:
                _read_item(reading, frame, item, statement)
            else:
                _unknown(reading, frame, statement)
            continue
        if not row.acts and not frame.dormant:
            key = (block.path, row.name)
            if key not in reading.dormant:
                reading.dormant[key] = statement
        if row.deprecated:
            _deprecated(reading, frame, row, statement)
        target = row.field or row.name
        repeat = row.repeat
        if repeat is Repeat.FIRST and target in fields:
            _repeated(reading, frame, statement, "ignored: the first one counts")
            continue
        kind = row.kind
        many = kind.takes is not None and len(statement.texts) > kind.takes + 1
        told = len(reading.diagnostics) if many else 0
        if kind.block is not None:
            value = _enter(reading, frame, row, kind.block, statement)
        else:
            if statement.block is not None:
                _unexpected_block(reading, frame, statement)
            value = kind.read(reading, frame, statement) if kind.read is not None else True
        if many and (value is not NOTHING or len(reading.diagnostics) == told):
            assert kind.takes is not None
            ignored_words(reading, frame, statement, kind.takes)
        if value is NOTHING:
            continue
        if repeat is Repeat.ADD:
            fields.setdefault(target, []).append(value)
        else:
            if repeat is Repeat.LAST_SAID and target in fields:
                _repeated(reading, frame, statement, "replaces the one before")
            fields[target] = value
        places[target] = statement


def _read_item(reading: Reading, frame: Frame, item: Row, statement: Statement) -> None:
    if not item.acts and not frame.dormant:
        reading.dormant.setdefault((frame.block.path, item.name), statement)
    if statement.block is not None:
        _unexpected_block(reading, frame, statement)
    value = item.kind.read(reading, frame, statement) if item.kind.read is not None else statement
    if value is not NOTHING:
        frame.items.append(value)


def _enter(reading: Reading, parent: Frame, row: Row, block: Block, statement: Statement) -> object:
    """Read a nested block: NOTHING when it is not to be stored."""
    frame = Frame(block, statement, parent)
    reading.frames.append(frame)
    frame.dormant = frame.dormant or not row.acts
    if 0 <= block.parameters < len(statement.texts) - 1:
        _extra_words(reading, parent, block, statement)
    if block.open is not None and not block.open(reading, frame):
        return NOTHING
    if statement.block is None:
        reading.error(
            "no-block",
            f"'{statement.texts[0]}' opens a block, but no '{{' follows",
            parent,
            statement,
            0,
            remedy=f"{statement.texts[0]} {{ … }}",
        )
    else:
        inside = _early_first(block, statement.block) if block.has_early else statement.block
        read_statements(reading, frame, inside)
    return block.close(reading, frame) if block.close is not None else frame


def _extra_words(reading: Reading, parent: Frame, block: Block, statement: Statement) -> None:
    """More words than the head of a block takes. keepalived speaks of them where a block is a list."""
    extra = " ".join(statement.texts[block.parameters + 1 :])
    reading.report(
        Severity.WARNING if block.item is None else Severity.ERROR,
        "extra-words",
        f"'{statement.texts[0]}' takes no '{extra}' here; it is ignored",
        parent,
        statement,
        block.parameters + 1,
        remedy="remove it, or put it into the block",
        status=ExitStatus.OK if block.item is None else ExitStatus.CONFIG_ERRORS,
    )


def _unknown(reading: Reading, frame: Frame, statement: Statement) -> None:
    word = statement.texts[0]
    what = "block" if statement.block is not None else "keyword"
    where = f"in {frame.block.path}" if frame.block.path != "(root)" else "outside every block"
    tail = "; it is skipped whole" if statement.block else ""
    reading.error(
        "unknown-keyword",
        f"unknown {what} '{word}' {where}{tail}",
        frame,
        statement,
        0,
        remedy=_suggestion(reading, frame.block, word),
    )
    if statement.block is not None:
        reading.strayed = True
        _skip(reading, frame, statement.block, word, statement.span.line)


def _skip(reading: Reading, frame: Frame, statements: list[Statement], word: str, line: int) -> None:
    """Say of each line of an unknown block that it has no effect (keepalived applies some of them)."""
    for statement in statements:
        reading.error(
            "skipped",
            f"'{statement.texts[0]}' has no effect: it stands within '{word}' of line {line}, skipped",
            frame,
            statement,
            0,
        )
        if statement.block:
            _skip(reading, frame, statement.block, word, line)


def _suggestion(reading: Reading, block: Block, word: str) -> str:
    """What may have been meant: a name close by in this block, or the same name elsewhere."""
    everywhere = _places(reading.root.block)
    places = everywhere.get(word)
    if places:
        return f"'{word}' stands in {' or '.join(places[:3])}"
    if reading.suggestions == MAX_SUGGESTIONS:
        return ""
    reading.suggestions += 1
    near = nearest_known(word, _keywords(block))
    if near:
        return f"did you mean '{near}'?"
    near = nearest_known(word, _all_keywords(reading.root.block))
    if near:
        return f"did you mean '{near}', which stands in {' or '.join(everywhere[near][:3])}?"
    return ""


@cache
def _keywords(block: Block) -> tuple[str, ...]:
    """One tuple a block: it stays in memory beside every word that was looked for."""
    return tuple(block.table)


@cache
def _all_keywords(root: Block) -> tuple[str, ...]:
    return tuple(_places(root))


@cache
def _places(root: Block) -> dict[str, list[str]]:
    """Keyword -> paths of the blocks it may stand in."""
    found: dict[str, list[str]] = {}
    for block in blocks(root):
        for row in block.rows:
            found.setdefault(row.name, []).append(
                "the top level of the file" if block is root else block.path
            )
    return found


def blocks(root: Block) -> list[Block]:
    """Every block of the grammar, once, outermost first."""
    found = [root]
    for block in found:
        for row in block.rows:
            inner = row.kind.block
            if inner is not None and inner not in found:
                found.append(inner)
    return found


def _deprecated(reading: Reading, frame: Frame, row: Row, statement: Statement) -> None:
    instead = row.deprecated
    reading.warning(
        "deprecated",
        f"'{row.name}' is deprecated",
        frame,
        statement,
        0,
        remedy=instead if " " in instead else f"write '{instead}' instead",
        status=row.deprecated_status,
    )


def _repeated(reading: Reading, frame: Frame, statement: Statement, what: str) -> None:
    reading.error(
        "repeated", f"'{statement.texts[0]}' stands here a second time; {what}", frame, statement, 0
    )


def _unexpected_block(reading: Reading, frame: Frame, statement: Statement) -> None:
    reading.strayed = True
    reading.report(
        Severity.ERROR,
        "unexpected-block",
        f"'{statement.texts[0]}' opens no block; what stands in its braces is skipped",
        frame,
        statement,
        0,
        status=ExitStatus.CONFIG_ERRORS,
    )
    _skip(reading, frame, statement.block or [], statement.texts[0], statement.span.line)
