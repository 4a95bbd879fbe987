"""PCRE2 patterns in Python's spelling: what they match, and what is refused."""

from __future__ import annotations

import pytest

from kad.config.pattern import compile_pattern


@pytest.mark.parametrize(
    ("pattern", "subject", "matches"),
    [
        ("^ok$", b"ok\n", True),
        (r"ok\z", b"ok\n", False),
        (r"ok\z", b"ok", True),
        (r"ok\Z", b"ok\n", True),
        (r"ok\Z", b"ok\n\n", False),
        (r"a\hb", b"a\tb", True),
        (r"a\hb", b"a\nb", False),
        (r"a\Rb", b"a\r\nb", True),
        (r"[[:digit:]]+x", b"12x", True),
        (r"[[:digit:]]+x", b"abx", False),
        (r"[a[:digit:]z]+$", b"a1z", True),
        (r"[^[:space:]]+$", b"a b", True),
        (r"[]a]+$", b"]a]", True),
        (r"[[a]", b"[", True),
        (r"\Qa.b\E", b"a.b", True),
        (r"\Qa.b\E", b"axb", False),
        (r"(?<n>a|b)\k<n>", b"aa", True),
        (r"(?<n>a|b)\k{n}", b"ab", False),
        (r"(?'n'a)\k'n'", b"aa", True),
        (r"(?<=a)b", b"ab", True),
        (r"(?<!a)b", b"ab", False),
        (r"a++b", b"aaab", True),
        (r"(?>a+)ab", b"aaab", False),
        (r"\x{41}\x42", b"AB", True),
        (r"[$]", b"$", True),
        (r"a\]", b"a]", True),
        (r"[\]x]", b"]", True),
        ("é", "é".encode(), True),
    ],
)
def test_what_matches_in_bytes(pattern: str, subject: bytes, matches: bool) -> None:
    assert bool(compile_pattern(pattern, ()).search(subject)) is matches


@pytest.mark.parametrize(
    ("pattern", "options", "subject", "matches"),
    [
        ("OK", ("caseless",), b"ok", True),
        ("a.b", (), b"a\nb", False),
        ("a.b", ("dotall",), b"a\nb", True),
        ("^b", ("multiline",), b"a\nb", True),
        ("a b # and so on", ("extended",), b"ab", True),
        ("a$", ("dollar_endonly",), b"a\n", False),
        ("a$", ("dollar_endonly", "multiline"), b"a\n", True),
        ("^.$", ("utf",), "é", True),
        (r"^\w$", ("utf",), "é", False),
        (r"^\w$", ("utf", "ucp"), "é", True),
        ("a+", ("ungreedy", "no_auto_possess", "never_utf"), b"a", True),
    ],
)
def test_options(pattern: str, options: tuple[str, ...], subject: bytes | str, matches: bool) -> None:
    assert bool(compile_pattern(pattern, options).search(subject)) is matches


@pytest.mark.parametrize(
    "pattern",
    [
        "(?R)",
        "(a(?1))",
        r"a\Kb",
        "(*UTF8)a",
        "(?|a|b)",
        r"\X",
        r"\p{L}",
        "(",
        "[a",
        "a{2,1}",
        "[[:^alpha:]]",
        "(?C1)",
        "a(?i)b",
        "(?-i)a",
        "(?U)a",
        "(?<=a|bc)d",
        r"\cA",
        r"\o{101}",
        r"\V",
    ],
)
def test_what_python_cannot_do_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="the pattern cannot be used"):
        compile_pattern(pattern, ())


def test_nothing_is_said_of_patterns_that_may_mean_something_else_some_day(
    recwarn: pytest.WarningsRecorder,
) -> None:
    assert compile_pattern("[+--]", ()).search(b"-")
    assert not recwarn.list
