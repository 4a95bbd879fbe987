"""No text and no bytes can make the configuration front fail, hang or grow; what is generated comes back."""

import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kad.config import text as front
from kad.config.diagnostics import MAX_DIAGNOSTICS, render
from kad.config.lexer import decomment, find_special, split_words
from kad.config.preprocess import Budget
from kad.config.script_words import Unbalanced, split_quoted, split_script
from kad.config.source import TextReader, expand_braces
from kad.config.text import ConfigurationText, read_tree
from kad.config.tree import Statement
from tests.support.configuration import parse_text

FRAGMENTS = [
    *(
        "vrrp_instance VI_1 {",
        "}",
        "{",
        "virtual_ipaddress {",
        "10.0.0.1/24 dev eth0",
        "priority 100",
        "a",
        " ",
    ),
    *(
        "\t",
        "\n",
        "\n",
        "\n",
        "\r\n",
        "\0",
        "\\",
        "\\\n",
        "#",
        "!",
        '"',
        "'",
        "\\#",
        "\\x41",
        "é",
        "\udc80",
        "\ufeff",
    ),
    *("@id ", "@^id ", "@", "$A=", "$B=", "$A", "${A}", "${B}", "$", "${", "${_RANDOM 1 9}", "${_ENV HOME}"),
    *(
        "${_PWD}",
        "${_HASH}",
        "$A=x $A\n",
        "$M= \\\n",
        "$M\n",
        "~SEQ(i, 3) ",
        "~SEQ(i,1,2,9) ",
        "~SEQx(i,9,11)",
        "~SEQ",
    ),
    *("~LST(i, a, b) ", "~LST({i,j},{1,2},{3}) ", "~LST", "(", ")", ",", "$i", "${i}", "~SEQ(i,99999999999)"),
    *(
        "include a\n",
        "include *.conf\n",
        "includea {a,b}\n",
        "global_defs {\n include_check\n",
        "random_seed 3\n",
    ),
]
configurations = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from(FRAGMENTS), max_size=60).map("".join),
)


@pytest.fixture(autouse=True, scope="module")
def _small_budget() -> object:
    """Evil loops end sooner; the full limits are the same code."""
    patch = pytest.MonkeyPatch()
    patch.setattr(front, "Budget", lambda: Budget(3_000, 1_000))
    yield
    patch.undo()


def walk(statements: list[Statement], visit: Callable[[Statement], None], depth: int = 0) -> None:
    assert depth <= front.MAX_BLOCK_DEPTH
    for statement in statements:
        visit(statement)
        if statement.block is not None:
            walk(statement.block, visit, depth + 1)


def check(result: ConfigurationText) -> None:
    """Whatever was read: everything a consumer may ask for is there and consistent."""

    def visit(statement: Statement) -> None:
        assert [word.text for word in statement.words] == statement.texts
        assert statement.keyword == statement.texts[0]
        assert statement.line >= 1
        assert isinstance(statement.raw, str)
        for span in (statement.span, *(word.span for word in statement.words)):
            assert span.line == statement.line
            assert 1 <= span.column <= len(statement.source_line) + 1
        if statement.start >= 0:
            assert statement.source_line[statement.start :].startswith(statement.text)

    walk(result.statements, visit)
    assert len(result.diagnostics) <= MAX_DIAGNOSTICS + 2
    for diagnostic in result.diagnostics:
        shown = render(diagnostic)
        shown.encode("utf-8")
        assert "\x1b" not in shown and "\0" not in shown


@settings(max_examples=400, deadline=2_000, suppress_health_check=[HealthCheck.too_slow])
@given(configurations)
def test_any_text_is_read(content: str) -> None:
    check(parse_text(content.encode("utf-8", "surrogatepass"), config_id="id", seed=1))


@settings(max_examples=200, deadline=2_000)
@given(st.binary(max_size=400))
def test_any_bytes_are_read(content: bytes) -> None:
    check(parse_text(content, config_id="id", seed=1))


@settings(max_examples=150, deadline=2_000)
@given(st.dictionaries(st.sampled_from(["k.conf", "a", "b"]), configurations, min_size=1))
def test_files_that_include_each_other_are_read(contents: dict[str, str]) -> None:
    reader = TextReader({name: text.encode("utf-8", "surrogatepass") for name, text in contents.items()})
    check(read_tree("k.conf", reader=reader, config_id="id", seed=1))


@settings(max_examples=200, deadline=2_000)
@given(configurations)
def test_reading_is_repeatable(content: str) -> None:
    data = content.encode("utf-8", "surrogatepass")
    first, second = (parse_text(data, config_id="id", seed=1) for _ in range(2))
    assert first == second


@settings(max_examples=150, deadline=2_000)
@given(configurations, st.integers(min_value=0, max_value=200), st.sampled_from(FRAGMENTS))
def test_a_fault_never_hides_what_stands_before_it(content: str, cut: int, fragment: str) -> None:
    """Statements of whole lines before a change stay as they were."""
    before = content.partition("~")[0].rpartition("\n")[0][:cut].rpartition("\n")[0]
    if any(mark in before for mark in "\\\r"):
        return
    clean = parse_text((before + "\n").encode("utf-8", "surrogatepass"), seed=1)
    changed = parse_text((before + "\n\n" + fragment + "\n").encode("utf-8", "surrogatepass"), seed=1)
    lines = before.count("\n") + 1
    seen = [s.texts for s in changed.statements if s.line <= lines]
    assert seen == [s.texts for s in clean.statements]


# --- what is generated comes back ---------------------------------------------------------------------------

plain_words = st.text(
    alphabet=string.ascii_letters + string.digits + "._:/-+,%'é", min_size=1, max_size=8
).filter(lambda word: not word.startswith("include"))
quoted_words = st.text(alphabet=string.ascii_letters + " {}#!'$\t", max_size=8)
statement_words = st.tuples(
    plain_words, st.lists(st.tuples(st.booleans(), plain_words, quoted_words), max_size=3)
)
trees = st.recursive(
    st.lists(st.tuples(statement_words, st.none()), max_size=4),
    lambda inner: st.lists(st.tuples(statement_words, st.one_of(st.none(), inner)), max_size=4),
    max_leaves=20,
)


def written(statements: list[Any], choose: Callable[[list[str]], str], indent: str) -> str:
    """A tree as text, with blanks, line ends, comments and forms of blocks as they may come."""
    lines = []
    for (keyword, rest), block in statements:
        words = [keyword, *(f'"{quoted}"' if is_quoted else plain for is_quoted, plain, quoted in rest)]
        line = indent + choose([" ", "\t", "  "]).join(words)
        if block is not None:
            line += choose([" {", "{", "\n{", " # so\n \n{", " { ! so"])
            inner = written(block, choose, indent + choose(["", "  ", "\t"]))
            end = indent + "}" + choose(["\n", " # end\n", " \r\n"])
            lines.append(f"{line}\n{inner}{end}")
        else:
            lines.append(line + choose(["\n", "  \n", " # why {\n", "\r\n", "\n\n", ' ! no "\n']))
    return "".join(lines)


def meant(statements: list[Any]) -> list[Any]:
    return [
        (
            [keyword, *(quoted if is_quoted else plain for is_quoted, plain, quoted in rest)],
            None if block is None else meant(block),
        )
        for (keyword, rest), block in statements
    ]


def understood(statements: list[Statement]) -> list[Any]:
    return [(s.texts, None if s.block is None else understood(s.block)) for s in statements]


@settings(max_examples=300, deadline=2_000, suppress_health_check=[HealthCheck.too_slow])
@given(trees, st.data())
def test_a_tree_written_in_any_form_comes_back(tree: list[Any], data: st.DataObject) -> None:
    content = written(tree, lambda choices: data.draw(st.sampled_from(choices)), "")
    result = parse_text(content)
    assert result.diagnostics == []
    assert understood(result.statements) == meant(tree)


@settings(max_examples=200, deadline=2_000)
@given(trees, st.data())
def test_one_brace_less_or_more_is_always_told(tree: list[Any], data: st.DataObject) -> None:
    content = written(tree, lambda choices: choices[0], "")
    braces = [i for i, c in enumerate(content) if c in "{}" and content[:i].count('"') % 2 == 0]
    braces = [i for i in braces if content[i:].split("\n")[0].strip() in ("{", "}")]
    if not braces:
        return
    at = data.draw(st.sampled_from(braces))
    doubled = data.draw(st.booleans())
    changed = content[:at] + (content[at] + "\n") * 2 * doubled + content[at + 1 :]
    assert [d for d in parse_text(changed).diagnostics if "brace" in d.code]


@settings(max_examples=200, deadline=2_000)
@given(st.lists(st.tuples(plain_words, st.sampled_from(string.ascii_uppercase[:4])), min_size=1, max_size=6))
def test_a_definition_is_its_value(parts: list[tuple[str, str]]) -> None:
    values = {name: value for value, name in parts}
    define = "".join(f"${name}={value}\n" for name, value in values.items())
    use = "kw " + " ".join(f"${name} x${{{name}}}y" for _, name in parts)
    expected = ["kw"] + [word for _, name in parts for word in (values[name], f"x{values[name]}y")]
    result = parse_text(define + use)
    assert [s.texts for s in result.statements] == [expected]


@settings(max_examples=100, deadline=2_000)
@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(-4, 4))
def test_a_sequence_counts_as_said(start: int, end: int, step: int) -> None:
    result = parse_text(f"~SEQ(i, {start}, {step}, {end}) v $i")
    if step == 0 or (end - start) * step < 0:
        assert [d.code for d in result.diagnostics] == ["loop-invalid"]
    else:
        expected = [str(i) for i in range(start, end + (1 if step > 0 else -1), step)]
        assert [s.texts[1] for s in result.statements] == expected


# --- single lines -------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.text(alphabet=st.characters(exclude_characters="\n"), max_size=60))
def test_the_fast_path_agrees_with_the_slow_one(line: str) -> None:
    if find_special(line) is None:
        assert line.split() == split_words(decomment(line)[0])


@settings(max_examples=300)
@given(st.text(max_size=60), st.booleans())
def test_any_value_is_split_or_told(raw: str, escapes: bool) -> None:
    result = split_quoted(raw, escapes=escapes)
    if isinstance(result, Unbalanced):
        assert 0 <= result.position <= len(raw)
    else:
        assert all("\0" not in word for word in result) or "\0" in raw
    split_script(raw)


@settings(max_examples=200)
@given(
    st.lists(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1)
)
def test_quoted_arguments_come_back(arguments: list[str]) -> None:
    def quote(text: str) -> str:
        return "'" + "".join(f"\\{c}" if c in "\\'\"" else c for c in text) + "'"

    value = " ".join(map(quote, arguments))
    assert split_quoted(value, escapes=True) == arguments
    script = split_script("'" + "".join(f"\\{c}" if c in "\\'" else c for c in '"x"') + "' user")
    assert not isinstance(script, Unbalanced)


@settings(max_examples=200, deadline=2_000)
@given(st.text(alphabet="ab{},", max_size=60))
def test_brace_patterns_are_bounded(pattern: str) -> None:
    assert 1 <= len(expand_braces(pattern)) <= 2_048
