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
    span: Span
    quoted: bool = False


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
            self.located = tuple(self._locate())
        return self.located

    @property
    def span(self) -> Span:
        """The place of the keyword."""
        return self.words[0].span

    @property
    def raw_span(self) -> Span:
        """The place of ``raw``, or of the keyword when there is nothing after it."""
        words = self.words
        if len(words) == 1:
            return self.span
        last, first = words[-1].span, words[1].span
        return Span(self.file, self.line, first.column, max(1, last.column + last.length - first.column))

    @property
    def unpaired_quote(self) -> bool:
        """Whether the ordinary grammar misses a closing quote here, so that words are lost.

        Script values have their own quoting, where ``\\"`` does not count.
        """
        return self.text.count('"') % 2 == 1

    def _locate(self) -> Iterator[Word]:
        searched = 0
        for text, start, length, quoted in locate_words(self.text):
            if self.start >= 0:
                column = self.start + start + 1
            else:
                # made by substitution: where the word was written, if it was written out
                found = self.source_line.find(self.text[start : start + length], searched)
                column = found + 1 if found >= 0 else first_column(self.source_line)
                searched = max(searched, found + length) if found >= 0 else searched
                length = length if found >= 0 else len(self.source_line.strip())
            yield Word(text, Span(self.file, self.line, column, max(1, length)), quoted)


def first_column(line: str) -> int:
    """Column of the first character that is not white space."""
    return len(line) - len(line.lstrip()) + 1
