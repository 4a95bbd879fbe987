"""Where keepalived would read a file differently from what its braces say.

keepalived reads the body of an unknown block as part of the block around it, and takes its closing brace for
the end of that one, so that everything after it is read a level too high. kad skips unknown blocks whole. Who
comes from keepalived has lines that had no effect until now and have one with kad: they are told, line by
line. The same happens to the braces that are left of an undefined ``${NAME}``.
"""

from __future__ import annotations

import re

from kad.config.schema import Block, Reading
from kad.config.tree import Statement
from kad.errors import ExitStatus

_LEFT_OVER = re.compile(r"\$\{([^{}\"]*)\}")


class Straying:
    """keepalived's way through a tree of statements: which lines it does not know where it stands."""

    def __init__(self, root: Block) -> None:
        self._blocks: list[Block | None] = [root]
        """What it believes to be in, outermost first; None: a block it skips."""
        self.lost: list[Statement] = []
        self.since: Statement | None = None
        """Where it lost its way."""

    def read(self, statements: list[Statement]) -> None:
        for statement in statements:
            self._read_one(statement)

    def _read_one(self, statement: Statement) -> None:
        inside = self._blocks[-1]
        row = inside.table.get(statement.texts[0]) if inside is not None else None
        if inside is not None and row is None and inside.item is None and self.since is not None:
            self.lost.append(statement)
        if statement.block is not None and row is not None and row.kind.block is not None:
            self._blocks.append(row.kind.block)
            self.read(statement.block)
            self._close(statement)
            return
        if "${" in statement.text:
            self._left_over_braces(statement)
        if statement.block is not None:
            self.since = self.since or statement
            self.read(statement.block)
            self._close(statement)

    def _left_over_braces(self, statement: Statement) -> None:
        """``a ${NAME} b``: an opening brace, an unknown keyword NAME, and a brace that closes too much."""
        for _ in _LEFT_OVER.findall(statement.text):
            self.since = self.since or statement
            self._close(statement)

    def _close(self, statement: Statement) -> None:
        if len(self._blocks) > 1:
            self._blocks.pop()


def tell(reading: Reading, statements: list[Statement]) -> None:
    """Report the lines that have an effect with kad and would have had none with keepalived."""
    straying = Straying(reading.root.block)
    straying.read(statements)
    if straying.since is None:
        return
    told = {(each.span.file, each.span.line) for each in reading.diagnostics if each.span is not None}
    line = straying.since.line
    for statement in straying.lost:
        if (statement.file, statement.line) in told:
            continue
        told.add((statement.file, statement.line))
        reading.warning(
            "keepalived-strays",
            f"'{statement.texts[0]}' takes effect; keepalived, astray since line {line}, ignores it",
            None,
            statement,
            0,
            status=ExitStatus.OK,
        )
