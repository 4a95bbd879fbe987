"""Blocks: what a configuration looks like before any keyword has a meaning.

A file is a list of statements; a statement is words, and may own a block of statements. Braces decide the
structure alone, so an unknown keyword's block is skipped whole (keepalived applies its body to the block
around it; see docs/differences.md).
"""

from msgspec import Struct

from kad.errors import Span


class Word(Struct, frozen=True):
    """One word of a statement under the ordinary word grammar (double quotes group, no escapes)."""

    text: str
    span: Span
    quoted: bool = False


class Statement(Struct):
    """A line of configuration after preprocessing. ``words`` has at least one word, the keyword.

    ``raw`` is the statement's text after the keyword, untouched, for values under the script word grammar.
    ``block`` is None for a statement without braces.
    """

    words: tuple[Word, ...]
    raw: str
    source_line: str
    block: "list[Statement] | None" = None
    closing: Span | None = None

    @property
    def keyword(self) -> str:
        return self.words[0].text

    @property
    def span(self) -> Span:
        return self.words[0].span
