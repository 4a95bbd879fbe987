"""Blocks: what a configuration looks like before any keyword has a meaning.

A file is a list of statements; a statement is words, and may own a block of statements. Braces decide the
structure alone, so an unknown keyword's block is skipped whole (keepalived applies its body to the block
around it; see docs/differences.md).
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from kad.config.lexer import BLANKS, locate_words
from kad.errors import Span


class Word(Struct, frozen=True, gc=False):
    """One word of a statement under the ordinary word grammar (double quotes group, no escapes)."""

    text: str
    file: str
    line: int
    column: int
    length: int
    quoted: bool = False

    @property
    def span(self) -> Span:
        return Span(self.file, self.line, self.column, self.length)


class Statement(Struct, gc=False):
    """A line of configuration after preprocessing, split at braces. It has at least one word, the keyword.

    ``texts`` are the words as plain strings: what to use where speed matters. ``words`` has them with their
    places and is made when first asked for. ``text`` is the statement's line; ``start`` is where it begins
    in ``source_line``, the physical line of the file, or -1 when substitution made it.
    ``block`` is None for a statement without braces.
    """

    texts: list[str]
    file: str
    line: int
    source_line: str
    text: str
    start: int = 0
    block: list[Statement] | None = None
    closing: Span | None = None
    located: tuple[Word, ...] | None = None

    @property
    def keyword(self) -> str:
        return self.texts[0]

    @property
    def raw(self) -> str:
        """The text after the keyword, untouched, for values under the script word grammar."""
        _, start, length, _ = locate_words(self.text)[0]
        return self.text[start + length :].strip(BLANKS)

    @property
    def words(self) -> tuple[Word, ...]:
        if self.located is None:
            if self.start >= 0:
                file, line, offset = self.file, self.line, self.start + 1
                self.located = tuple(
                    [Word(t, file, line, offset + start, n, q) for t, start, n, q in locate_words(self.text)]
                )
            else:
                self.located = tuple(self._search_words())
        return self.located

    @property
    def span(self) -> Span:
        """The place of the keyword."""
        return self.words[0].span

    def _search_words(self) -> Iterator[Word]:
        """Words made by substitution have the place where they were written, if they were written out."""
        searched = 0
        indent = first_column(self.source_line)
        for text, start, length, quoted in locate_words(self.text):
            found = self.source_line.find(self.text[start : start + length], searched)
            if found >= 0:
                searched = found + length
                yield Word(text, self.file, self.line, found + 1, max(1, length), quoted)
            else:
                whole = max(1, len(self.source_line.strip()))
                yield Word(text, self.file, self.line, indent, whole, quoted)


def first_column(line: str) -> int:
    """Column of the first character that is not white space."""
    return len(line) - len(line.lstrip()) + 1


def first_outdented(block: list[Statement], line: int, source_line: str) -> Span | None:
    """The first statement or closing brace, however deep, that stands left of where its block puts it.

    Somewhere before it a closing brace was forgotten, if the text is indented at all. The block itself
    begins on ``source_line``.
    """
    column = first_column(source_line)
    indented = False
    for statement in block:
        own_column = first_column(statement.source_line)
        if statement.line > line:
            if own_column > column:
                indented = True
            elif indented:
                return statement.span
        if statement.block:
            found = first_outdented(statement.block, statement.line, statement.source_line)
            if found is not None:
                return found
        closing = statement.closing
        if closing is not None and closing.line > statement.line and closing.column < own_column:
            return closing
    return None
