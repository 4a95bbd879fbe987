"""What was read, as one text: it can be read again, and says the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kad.config.source import TextReader
from kad.config.text import read_tree
from kad.config.transcript import Transcript
from kad.config.tree import Statement
from tests.support.configuration import parse_text


def words(statements: list[Statement]) -> list[object]:
    return [(each.texts, words(each.block) if each.block is not None else None) for each in statements]


LINES = st.lists(
    st.sampled_from(
        [
            "",
            "# x",
            "word $A",
            "$A=2",
            "block {",
            "}",
            '"# no comment" y',
            "! z",
            "w \\# v",
            "a # b",
            "INCLUDE",
        ]
    ),
    max_size=12,
)


@given(st.lists(LINES, min_size=3, max_size=3), st.booleans())
def test_read_again_it_says_the_same(parts: list[list[str]], ended: bool) -> None:
    names = ["/main", "/f1", "/f2"]
    files: dict[str, str | bytes] = {}
    for number, lines in enumerate(parts):
        include = f" include /f{number + 1} " if number < 2 else "# no more"
        files[names[number]] = (
            "\n".join(include if line == "INCLUDE" else line for line in lines) + "\n" * ended
        )
    transcript = Transcript()
    first = read_tree("/main", reader=TextReader(files), transcript=transcript)
    assert words(parse_text(transcript.text()).statements) == words(first.statements)
