"""Statements: words with places, raw text, blocks."""

import pytest

from kad.config.tree import Statement
from kad.errors import Span
from tests.support.configuration import parse_text


def only(text: str) -> Statement:
    """The single statement of a text that has no findings."""
    result = parse_text(text)
    assert result.diagnostics == []
    (statement,) = result.statements
    return statement


def places(statement: Statement) -> list[tuple[str, int, int, int]]:
    return [(word.text, word.span.line, word.span.column, word.span.length) for word in statement.words]


def test_words_have_their_places() -> None:
    statement = only('\n\n  notify  "/bin/x a"\troot # why\n')
    assert statement.texts == ["notify", "/bin/x a", "root"]
    assert places(statement) == [("notify", 3, 3, 6), ("/bin/x a", 3, 11, 10), ("root", 3, 22, 4)]
    assert [word.quoted for word in statement.words] == [False, True, False]
    assert statement.keyword == "notify"
    assert statement.span == Span("keepalived.conf", 3, 3, 6)
    assert statement.raw == '"/bin/x a"\troot'
    assert statement.source_line == '  notify  "/bin/x a"\troot # why'


def test_a_bare_keyword_has_no_raw_text() -> None:
    statement = only("  nopreempt  ")
    assert statement.raw == ""
    assert statement.span == Span("keepalived.conf", 1, 3, 9)


@pytest.mark.parametrize(
    "text",
    [
        "x n {\n  a 1\n  b 2\n}\n",
        "x n\n{\n  a 1\n  b 2\n}\n",
        "x n { a 1\n b 2 }\n",
        "x n { a 1\nb 2\n}",
        "x n{a 1\nb 2}",
        "x n # why\n# and\n\n{ # so\n a 1\n b 2 # end\n } # all\n",
        "x n {\ra 1\r\r\nb 2\r\n}\r\n".replace("\ra", "\r\na"),
        "$I=x n\n$B=a 1 \\\nb 2\n$I {\n$B\n}",
    ],
)
def test_every_form_of_a_block(text: str) -> None:
    statement = only(text)
    assert statement.texts == ["x", "n"]
    assert statement.block is not None
    assert [inner.texts for inner in statement.block] == [["a", "1"], ["b", "2"]]
    assert statement.closing is not None


def test_blocks_on_one_line_know_their_columns() -> None:
    statement = only("  x n { a 1 }")
    assert statement.block is not None
    assert places(statement.block[0]) == [("a", 1, 9, 1), ("1", 1, 11, 1)]
    assert statement.raw == "n"
    assert statement.closing == Span("keepalived.conf", 1, 13)


def test_several_blocks_and_statements_on_a_line() -> None:
    result = parse_text("a { b { c } } d e { } f")
    assert result.diagnostics == []
    a, d, f = result.statements
    assert a.block is not None and a.block[0].block is not None
    assert a.block[0].block[0].texts == ["c"]
    assert (d.texts, d.block, f.texts, f.block) == (["d", "e"], [], ["f"], None)


def test_quotes_protect_braces_and_comments() -> None:
    statement = only("script \"awk '{ print $1 } # no comment' ! no\"")
    assert statement.texts == ["script", "awk '{ print $1 } # no comment' ! no"]
    assert statement.block is None


def test_places_of_substituted_words() -> None:
    result = parse_text("$P=150\n$L=a b\n  priority $P extra\n$L c")
    priority, list_ = result.statements
    assert places(priority) == [("priority", 3, 3, 8), ("150", 3, 3, 17), ("extra", 3, 15, 5)]
    assert [word.line for word in list_.words] == [4, 4, 4]
    assert list_.words[2].column == 4


def test_lines_of_loops_and_definitions_have_the_line_that_uses_them() -> None:
    text = "$M=x {\\\na\\\n}\n\n~SEQ(i, 2) v $i\n$M\nlast"
    result = parse_text(text)
    assert [(s.texts[0], s.line) for s in result.statements] == [("v", 5), ("v", 5), ("x", 6), ("last", 7)]
    assert result.statements[2].block is not None
    assert result.statements[2].block[0].line == 6


def test_an_unpaired_quote_under_the_ordinary_grammar() -> None:
    first = parse_text('a \\" b').statements[0]
    assert first.texts == ["a", "\\"]
