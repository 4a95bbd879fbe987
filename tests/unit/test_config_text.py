"""A whole reading: files, includes, braces, bounds, what is reported where."""

import gc
import os
from pathlib import Path

import pytest

from kad.config import source, text
from kad.config.diagnostics import render
from kad.config.includes import IncludeCheck, changed_check
from kad.config.preprocess import MAX_LINE_BYTES, Budget
from kad.config.source import TextReader
from kad.config.text import ConfigurationText, read_tree
from kad.config.tree import Statement
from kad.errors import Diagnostic, ExitStatus, Severity
from tests.support.configuration import parse_text


def told(result: ConfigurationText) -> list[tuple[str, int]]:
    """Codes and lines of the findings."""
    return [(d.code, d.span.line if d.span else 0) for d in result.diagnostics]


def words(statements: list[Statement]) -> list[object]:
    """Nested lists of the words."""
    return [[*s.texts, words(s.block)] if s.block is not None else s.texts for s in statements]


def files(contents: dict[str, str], **options: object) -> ConfigurationText:
    return read_tree("k.conf", reader=TextReader(dict(contents)), **options)  # type: ignore[arg-type]


# --- braces -------------------------------------------------------------------------------------------------


def test_a_block_that_is_never_closed_is_told_where_it_begins() -> None:
    result = parse_text("a {\n  b {\n    c\n  }\nd {\n}\n")
    (finding,) = result.diagnostics
    assert (finding.code, finding.severity, finding.exit_status) == (
        "missing-closing-brace",
        Severity.ERROR,
        ExitStatus.CONFIG_ERRORS,
    )
    assert finding.span is not None and (finding.span.line, finding.span.column) == (1, 3)
    assert "before keepalived.conf:5" in finding.remedy
    assert words(result.statements) == [["a", [["b", [["c"]]], ["d", []]]]]


def test_every_block_left_open_is_told() -> None:
    assert told(parse_text("a {\nb\n{\nc {")) == [
        ("missing-closing-brace", 1),
        ("missing-closing-brace", 3),
        ("missing-closing-brace", 4),
    ]


def test_a_closing_brace_too_many_is_told_on_its_line_and_ignored() -> None:
    result = parse_text("a {\n}\n  }\nb {\n}\n")
    assert told(result) == [("extra-closing-brace", 3)]
    assert result.diagnostics[0].span is not None and result.diagnostics[0].span.column == 3
    assert words(result.statements) == [["a", []], ["b", []]]


def test_a_block_without_a_keyword_is_skipped_whole() -> None:
    result = parse_text("a {\n}\n{\n  b {\n c\n }\n}\nd {\n{\ne\n}\n f\n}")
    assert told(result) == [("unexpected-opening-brace", 3), ("unexpected-opening-brace", 9)]
    assert words(result.statements) == [["a", []], ["d", [["f"]]]]


def test_blocks_have_a_greatest_depth() -> None:
    depth = 100_000
    result = parse_text("a {\n" * depth + "}\n" * depth + "b")
    assert {code for code, _ in told(result)} <= {"blocks-too-deep", "findings-dropped"}
    assert [s.texts for s in result.statements] == [["a"], ["b"]]
    reached, block = 0, result.statements
    while block:
        reached, block = reached + 1, block[0].block or []
    assert reached == text.MAX_BLOCK_DEPTH + 1


def test_blocks_too_deep_still_need_their_braces() -> None:
    depth = text.MAX_BLOCK_DEPTH + 2
    result = parse_text("a {\n" * depth + "}\n" * depth + "b {\n}\n}\n")
    assert told(result)[-1] == ("extra-closing-brace", 2 * depth + 3)
    assert words(result.statements)[-1] == ["b", []]


# --- lines --------------------------------------------------------------------------------------------------


def test_line_ends_of_every_kind() -> None:
    result = parse_text(b"a 1\r\nb 2\r\r\nc 3\n\r\nd 4")
    assert words(result.statements) == [["a", "1"], ["b", "2"], ["c", "3"], ["d", "4"]]
    assert [s.line for s in result.statements] == [1, 2, 3, 5]


def test_nul_bytes_and_long_lines_are_told_and_dropped() -> None:
    good = b"x" * MAX_LINE_BYTES
    bad = b"y " * (MAX_LINE_BYTES // 2) + b"y"
    result = parse_text(b"a\nb\0c\n" + good + b"\n" + bad + b"\nd\n")
    assert told(result) == [("embedded-nul", 2), ("line-too-long", 4)]
    assert [s.texts[0] for s in result.statements] == ["a", "x" * MAX_LINE_BYTES, "d"]


def test_bytes_that_are_not_utf_8_are_kept_and_told_unless_in_comments() -> None:
    result = parse_text(b"name \xff\xfe{\n a # \xe9\n}\n\xc3\xa9 \xc2\xa0")
    assert told(result) == [("not-utf-8", 1)] and result.holds_bytes
    assert result.statements[0].texts[1].encode("utf-8", "surrogateescape") == b"\xff\xfe"
    assert result.statements[1].texts == ["é", "\u00a0"]


def test_a_byte_order_mark_is_told_and_removed() -> None:
    result = parse_text(b"\xef\xbb\xbfglobal_defs {\n}\n")
    assert told(result) == [("byte-order-mark", 1)]
    assert result.statements[0].keyword == "global_defs"


def test_an_unpaired_quote_is_told_and_hides_the_rest_of_its_line() -> None:
    result = parse_text('a "b { c\nd')
    assert told(result) == [("unpaired-quote", 1)]
    assert result.diagnostics[0].span is not None and result.diagnostics[0].span.column == 3
    assert words(result.statements) == [["a"], ["d"]]


def test_a_backslash_outside_a_definition_is_told() -> None:
    result = parse_text("a 1 \\\nb 2\n$M=c \\\nd \\\ne\n$M")
    assert told(result) == [("backslash", 1)]
    assert words(result.statements) == [["a", "1\\"], ["b", "2"], ["c"], ["d"], ["e"]]
    assert result.statements[0].words[0].column == 1


def test_an_empty_text_has_no_statements() -> None:
    for content in ("", "\n\n", "# only\n", " \t\n", "\r\n"):
        assert parse_text(content) == ConfigurationText([], [], parse_text(content).digest)


# --- files --------------------------------------------------------------------------------------------------


def test_a_missing_file_is_fatal_with_exit_status_4(tmp_path: Path) -> None:
    result = read_tree(str(tmp_path / "none.conf"))
    assert result.statements == []
    (finding,) = result.diagnostics
    assert (finding.severity, finding.exit_status) == (Severity.FATAL, 4)
    assert render(finding).startswith(f"{tmp_path}/none.conf: fatal: ")


@pytest.mark.parametrize("kind", ["directory", "executable", "fifo"])
def test_a_main_file_that_must_not_be_read_is_fatal(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "k.conf"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_text("a")
        path.chmod(0o755)
    (finding,) = read_tree(str(path)).diagnostics
    assert (finding.code, finding.exit_status) == ("configuration-unreadable", 4)


def test_a_main_pattern_reads_all_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "2.conf").write_text("b {\n}\n$X=3\n")
    (tmp_path / "10.conf").write_text("a {\n")
    (tmp_path / "3.conf").write_text("}\nc $X\n")
    result = read_tree(str(tmp_path / "*.conf"))
    assert told(result) == [("several-configurations", 0)]
    assert result.diagnostics[0].severity is Severity.WARNING
    assert words(result.statements) == [["a", [["b", []]]], ["c", "3"]]


def test_includes_are_relative_to_the_file_that_has_them(tmp_path: Path) -> None:
    sub = tmp_path / "sub"
    sub.mkdir()
    (tmp_path / "k.conf").write_text("a\ninclude sub/*.conf\nz ${_PWD}\n")
    (sub / "b.conf").write_text("b ${_PWD}\ninclude c.txt\n")
    (sub / "c.txt").write_text("c\n")
    result = read_tree(str(tmp_path / "k.conf"))
    assert result.diagnostics == []
    assert words(result.statements) == [["a"], ["b", str(sub)], ["c"], ["z", str(tmp_path)]]
    assert [(os.path.basename(s.file), s.line) for s in result.statements] == [
        ("k.conf", 1),
        ("b.conf", 1),
        ("c.txt", 1),
        ("k.conf", 3),
    ]


def test_include_works_wherever_a_line_may_stand() -> None:
    contents = {
        "k.conf": "x {\n  include a\n}\n@me include a\n@you include a\n$I=include a\n$I\n"
        "~SEQ(i, 2) include ${i}.c\n",
        "a": "inner $D\n$D=2",
        "1.c": "one",
        "2.c": "two",
    }
    result = files(contents, config_id="me")
    assert result.diagnostics == []
    assert words(result.statements) == [
        ["x", [["inner", "$D"]]],
        ["inner", "2"],
        ["inner", "2"],
        ["one"],
        ["two"],
    ]


def test_include_takes_its_whole_line_braces_too(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.c").write_text(name)
    (tmp_path / "k.conf").write_text("include {a,b}.c\n")
    assert words(read_tree(str(tmp_path / "k.conf")).statements) == [["a"], ["b"]]


def test_blocks_may_span_files() -> None:
    result = files({"k.conf": "a {\ninclude b\nc\n", "b": "x\n}\n"})
    assert result.diagnostics == []
    assert words(result.statements) == [["a", [["x"]]], ["c"]]
    assert told(files({"k.conf": "include b\n}", "b": "a {"})) == []
    (finding,) = files({"k.conf": "a\ninclude b\n", "b": "\nc {"}).diagnostics
    assert finding.span is not None and (finding.span.file, finding.span.line) == ("b", 2)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("include none", False),
        ("includer none", False),
        ("includem none", True),
        ("includew none", True),
        ("includeb none", False),
        ("includea none", True),
        ("includer x.sh", True),
        ("include x.sh", False),
        ("includem n*.conf", False),
        ("includew n*.conf", True),
        ("includeb {a,none}.c", True),
        ("includer {a,none}.c", False),
        ("includem dir/*.conf", True),
        ("include dir", False),
    ],
)
def test_kinds_of_include_decide_what_is_an_error(tmp_path: Path, line: str, error: bool) -> None:
    (tmp_path / "k.conf").write_text(f"{line}\nlast\n")
    (tmp_path / "a.c").write_text("a")
    (tmp_path / "x.sh").write_text("x")
    (tmp_path / "x.sh").chmod(0o755)
    result = read_tree(str(tmp_path / "k.conf"))
    (finding,) = result.diagnostics
    assert (finding.severity is Severity.ERROR) is error
    assert finding.exit_status == (ExitStatus.CANNOT_RUN if error else ExitStatus.OK)
    assert finding.span is not None and finding.span.line == 1
    assert result.statements[-1].texts == ["last"]


def test_include_check_asks_for_more_and_ends_with_its_file() -> None:
    contents = {
        "k.conf": "include none\ninclude b\ninclude none\n",
        "b": "global_defs {\n include_check\n}\ninclude none\n",
    }
    result = files(contents)
    assert [(d.span.file, d.severity) for d in result.diagnostics if d.span] == [
        ("b", Severity.ERROR),
        ("k.conf", Severity.WARNING),
        ("k.conf", Severity.WARNING),
    ]
    assert [
        d.severity for d in files({"k.conf": "include x"}, include_check=IncludeCheck.ALL).diagnostics
    ] == [Severity.ERROR]
    elsewhere = files({"k.conf": "x {\n include_check\n}\ninclude none"})
    assert elsewhere.diagnostics[0].severity is Severity.WARNING


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ("", IncludeCheck.ALL),
        ("read", IncludeCheck.READ),
        ("match", IncludeCheck.READ | IncludeCheck.MATCH),
        ("match +wildcard_match", IncludeCheck.READ | IncludeCheck.MATCH | IncludeCheck.WILDCARD_MATCH),
        ("+brace_match", IncludeCheck.MATCH | IncludeCheck.BRACE_MATCH),
        ("-match", IncludeCheck.NOTHING),
        ("+read match", IncludeCheck.READ | IncludeCheck.MATCH),
        ("+none -none", IncludeCheck.MATCH),
        ("none", IncludeCheck.NOTHING),
    ],
)
def test_include_check_words(given: str, result: IncludeCheck) -> None:
    assert changed_check(IncludeCheck.MATCH, given.split()) == result


def test_random_seed_makes_numbers_repeatable() -> None:
    content = "global_defs {\n random_seed 42\n}\nv ${_RANDOM} ${_RANDOM}\n"
    first = parse_text(content, seed=1)
    second = parse_text(content, seed=2)
    assert words(first.statements)[1] == words(second.statements)[1]
    assert words(parse_text("v ${_RANDOM}${_RANDOM}", seed=1).statements) != words(
        parse_text("v ${_RANDOM}${_RANDOM}", seed=2).statements
    )


def test_the_environment_is_given() -> None:
    result = files({"k.conf": "v ${_ENV WHO}"}, environment={"WHO": "me"})
    assert words(result.statements) == [["v", "me"]]


def test_the_digest_tells_any_change_of_any_file() -> None:
    def digest(main: str, other: str) -> str:
        return files({"k.conf": main, "o": other}).digest

    assert digest("include o", "a") == digest("include o", "a")
    assert (
        len({digest("include o", "a"), digest("include o", "b"), digest("include o\n", "a"), digest("", "a")})
        == 4
    )


# --- bounds -------------------------------------------------------------------------------------------------


def fatal(result: ConfigurationText) -> Diagnostic:
    (finding,) = [d for d in result.diagnostics if d.severity is Severity.FATAL]
    assert finding.exit_status == ExitStatus.CANNOT_RUN
    return finding


def test_a_file_that_includes_itself_ends() -> None:
    result = files({"k.conf": "a\ninclude other\nb\n", "other": "include k.conf\nc\n"})
    (finding,) = result.diagnostics
    assert (finding.severity, finding.code) == (Severity.ERROR, "include-loop")
    assert finding.span is not None and (finding.span.file, finding.span.line) == ("other", 1)
    assert [statement.keyword for statement in result.statements] == ["a", "c", "b"]


def test_files_including_ever_other_files_end() -> None:
    deep = {f"{number}.conf": f"include {number + 1}.conf\n" for number in range(40)}
    finding = fatal(files({"k.conf": "include 0.conf\n", **deep}))
    assert "deep" in finding.message


def test_files_bytes_and_statements_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {"k.conf": "include a\n" * 4, "a": "include b\n" * 4, "b": "x {\n}\n" * 4}
    monkeypatch.setattr(text, "MAX_FILES", 10)
    assert "10 files" in fatal(files(many)).message
    monkeypatch.setattr(text, "MAX_FILES", source.MAX_FILES)
    monkeypatch.setattr(text, "MAX_TOTAL_BYTES", 100)
    assert "bytes" in fatal(files(many)).message
    assert "bytes" in fatal(files({"k.conf": "#" * 101})).message
    assert files({"k.conf": "#" * 100}).diagnostics == []


def test_loops_without_measure_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "Budget", lambda: Budget(10_000, 10_000))
    result = parse_text("first\n~SEQ(i, 1, 4000000000) @^x a { b { c $i } }\nlast", config_id="x")
    finding = fatal(result)
    assert finding.span is not None and finding.span.line == 2
    assert result.statements[0].texts == ["first"]


@pytest.mark.parametrize(
    "lines",
    [
        "~SEQ(i, 1, 1000000000) a { b $i }",
        "~SEQx(i, 0xffffffffffffffffffff) a",
        "~SEQ(i, 1000) ~SEQ(j, -1000) ~LST(k, x, y) a",
        "$M= \\\n a \\\n b \\\n c \n~SEQ(i, 1000000) $M",
        "$IN=~SEQ(j, 1, 1000000) a\n~SEQ(i, 1, 2) $IN",
    ],
)
def test_loops_without_measure_are_refused_by_arithmetic(lines: str) -> None:
    """Not a turn of them is taken."""
    result = parse_text(f"first\n{lines}\nlast")
    assert "the loop makes" in fatal(result).message
    assert [each.texts for each in result.statements] == [["first"]]


def test_a_huge_line_is_not_kept_in_its_finding() -> None:
    for content in (b"\0" * 3_000_000, b"x" * 3_000_000):
        (finding,) = parse_text(content).diagnostics
        assert len(finding.source_line) <= MAX_LINE_BYTES
        assert len(render(finding)) < 1_000


def test_plain_lines_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "Budget", lambda: Budget(10_000, 100))
    assert "statements" in fatal(parse_text("a\n" * 101)).message
    assert "statements" in fatal(parse_text("a {}" * 101)).message
    assert parse_text("a {}\n" * 49).diagnostics == []


def test_a_loop_of_65000_instances_is_fine() -> None:
    result = parse_text("~SEQ(a, 1, 255) ~SEQ(b, 0, 254) vrrp_instance VI_${a}_$b { virtual_router_id $b }\n")
    assert result.diagnostics == []
    assert len(result.statements) == 255 * 255
    assert words(result.statements[-1:]) == [["vrrp_instance", "VI_255_254", [["virtual_router_id", "254"]]]]


def test_the_collector_is_left_as_it_was() -> None:
    assert gc.isenabled()
    parse_text("a")
    assert gc.isenabled()
    gc.disable()
    try:
        parse_text("a")
        assert not gc.isenabled()
    finally:
        gc.enable()
