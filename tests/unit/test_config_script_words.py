"""The word grammar of script values and regular expressions."""

import pytest

from kad.config.script_words import ScriptWords, Unbalanced, split_quoted, split_regex, split_script


@pytest.mark.parametrize(
    ("raw", "arguments", "rest"),
    [
        ("/bin/x", ["/bin/x"], []),
        ("/bin/x root staff", ["/bin/x"], ["root", "staff"]),
        ('"/bin/x a b" root', ["/bin/x", "a", "b"], ["root"]),
        ("\"/bin/x 'a b' c\"", ["/bin/x", "a b", "c"], []),
        ("'/bin/x \"a b\" c' user", ["/bin/x", "a b", "c"], ["user"]),
        ('"/bin/x \\"a b\\""', ["/bin/x", '"a', 'b"'], []),
        ("/bin/x\\ y", ["/bin/x y"], []),
        ("\"/bin/x 'a'\\''b'\"", ["/bin/x", "a'b"], []),
        ('/bin/"x y" z', ["/bin/x", "y"], ["z"]),
        ('"/bin/x a\\tb"', ["/bin/x", "a\tb"], []),
        ("", [], []),
        ('""', [], []),
        ("'' root", [], ["root"]),
        ('"/bin/sh -c \'echo \\"$1\\" ; exit 1\'"', ["/bin/sh", "-c", 'echo "$1" ; exit 1'], []),
    ],
)
def test_split_script(raw: str, arguments: list[str], rest: list[str]) -> None:
    assert split_script(raw) == ScriptWords(arguments, rest)


@pytest.mark.parametrize(
    ("raw", "character"),
    [
        (r"\a", "\a"),
        (r"\b", "\b"),
        (r"\E", "\x1b"),
        (r"\f", "\f"),
        (r"\n", "\n"),
        (r"\r", "\r"),
        (r"\t", "\t"),
        (r"\v", "\v"),
        (r"\z", "z"),
        (r"\\", "\\"),
        (r"\"", '"'),
        (r"\101", "A"),
        (r"\1018", "A8"),
        (r"\7", "\x07"),
        (r"\x41", "A"),
        (r"\x412", "A2"),
        (r"\x4g", "\x04g"),
        (r"\xg", "xg"),
        (r"\cA", "\x01"),
        (r"\c[", "\x1b"),
        (r"\xff", r"\xff"),
        (r"\777", r"\xff"),
        (r"a\000b", "a"),
    ],
)
@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_escapes_within_any_quotes(raw: str, character: str, quote: str) -> None:
    assert split_regex(f"{quote}{raw}{quote}") == [character]


def test_bytes_come_back_as_they_were_written() -> None:
    words = split_regex(r'"\xc3\xa9"')
    assert isinstance(words, list)
    assert words == ["é"]
    found = split_script(r'"/bin/x \xc3\xa9 \xe9"')
    assert isinstance(found, ScriptWords) and found.arguments == ["/bin/x", "é", "é"]


def test_without_escapes_a_backslash_hides_a_quote_and_stays() -> None:
    assert split_quoted(r'"a\"b" c\ d', escapes=False) == [r"a\"b", r"c\ d"]


@pytest.mark.parametrize(
    ("raw", "position"),
    [('"/bin/x', 0), ("/bin/x 'a", 7), ("/bin/x \\", 7), ('a "b\\', 4)],
)
def test_what_is_not_closed_is_told_with_its_place(raw: str, position: int) -> None:
    result = split_script(raw)
    assert isinstance(result, Unbalanced)
    assert result.position == position


def test_an_open_quote_within_the_value_is_told() -> None:
    result = split_script('"/bin/x \'a"')
    assert isinstance(result, Unbalanced)
    assert "'" in result.what
