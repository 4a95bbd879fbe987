"""Rules of one line: comments, words, braces."""

import pytest

from kad.config.lexer import decomment, find_special, first_brace, first_reference, locate_words, split_words


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("  priority 100  ", "priority 100"),
        ("# all", ""),
        ("priority 100 # why", "priority 100"),
        ("priority 100! why", "priority 100"),
        ('script "a # b" # c', 'script "a # b"'),
        ('script "a ! b', 'script "a ! b'),
        (r"auth_pass a\#b # c", "auth_pass a#b"),
        (r"auth_pass a\!b", "auth_pass a!b"),
        (r'script "a\#b"', r'script "a\#b"'),
        (r"regex \d\\#x", "regex \\d\\\\"),
        (r"script \"a # b", r"script \"a"),
        ("$A = b \\", "$A = b\\"),
        ("word \t\\", "word\\"),
        ("'# not protected'", "'"),
        ("\u00a0# no-break space is no blank", "\u00a0"),
    ],
)
def test_decomment(line: str, text: str) -> None:
    assert decomment(line)[0] == text


def test_decomment_tells_the_unpaired_quote_and_unescaping() -> None:
    assert decomment('a "b" c "d') == ('a "b" c "d', False, 8)
    assert decomment('a "b"') == ('a "b"', False, -1)
    assert decomment(r"a \# b") == ("a # b", True, -1)
    assert decomment('a # "') == ("a", False, -1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a  b\tc\fd\x0be", ["a", "b", "c", "d", "e"]),
        ('a "b c" d', ["a", "b c", "d"]),
        ('ab"c d"e', ["ab", "c d", "e"]),
        ('a ""', ["a", ""]),
        ('a "b c', ["a"]),
        ("a 'b c'", ["a", "'b", "c'"]),
        (r'a "b\" c', ["a", "b\\", "c"]),
        ("a\u00a0b\u2028c\x1cd", ["a\u00a0b\u2028c\x1cd"]),
        ("", []),
        ('"', []),
    ],
)
def test_split_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_located_words_know_their_places() -> None:
    assert locate_words('a "b c" de') == [("a", 0, 1, False), ("b c", 2, 5, True), ("de", 8, 2, False)]


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("a { b", 2),
        ("{", 0),
        ("a}", 1),
        ('a "{" b {', 8),
        ('a "{ b {', -1),
        ("a '{' b", 3),
        ("a ${X} {", 7),
        ("a ${X {", 3),
        ("a", -1),
    ],
)
def test_first_brace(text: str, index: int) -> None:
    assert first_brace(text) == index


def test_first_reference_is_outside_quotes() -> None:
    assert first_reference('a "${X}" ${Y 1}') == "Y 1"
    assert first_reference('a "${X}"') is None
    assert first_reference('a "${X}') is None
    assert first_reference("a $X") is None


@pytest.mark.parametrize("character", '#!"{}$@~\\\0\x01\x7f\x1c\u00e9\u2028\udc80')
def test_every_character_with_a_meaning_leaves_the_fast_path(character: str) -> None:
    assert find_special(f"plain words {character} more") is not None


def test_ordinary_lines_take_the_fast_path() -> None:
    assert find_special("\treal_server 10.0.0.1 80 a-b_c/d=e,f;(g)[h]|i:j<k>l?m*n+o%p&q'r`s^t") is None
