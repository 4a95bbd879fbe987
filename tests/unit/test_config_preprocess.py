"""Conditions, definitions and loops."""

import re

import pytest

from kad.config.lexer import decomment
from kad.config.loops import parse_list, parse_numbers
from kad.config.preprocess import (
    MAX_LINE_BYTES,
    Budget,
    BudgetExceeded,
    Preprocessor,
    too_long,
)
from kad.errors import Severity


class Bench:
    """A preprocessor with the lines it gives and the codes it reports."""

    def __init__(self, config_id: str | None = "node1") -> None:
        self.codes: list[str] = []
        self.severities: list[Severity] = []
        self.budget = Budget(20_000, 20_000)
        environment = {"HOME": "/root", "HASH": "#"}
        self.pre = Preprocessor(
            self._report, self.budget, config_id=config_id, environment=environment, seed=7
        )
        self.pre.directory = "/etc/keepalived"

    def _report(self, severity: Severity, code: str, message: str, remedy: str) -> None:
        self.severities.append(severity)
        self.codes.append(code)

    def feed(self, *lines: str) -> list[str]:
        result = []
        for line in lines:
            if self.pre.collecting:
                self.pre.collect(line)
                continue
            text = decomment(line)[0]
            if text:
                result += [piece.text for piece in self.pre.lines(text, 0)]
        return result


def expand(*lines: str, config_id: str | None = "node1") -> list[str]:
    bench = Bench(config_id)
    result = bench.feed(*lines)
    assert bench.codes == []
    return result


# --- conditions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("@node1 priority 100", ["priority 100"]),
        ("@node2 priority 100", []),
        ("@node1x priority 100", []),
        ("@node priority 100", []),
        ("@^node2 priority 100", ["priority 100"]),
        ("@^node1 priority 100", []),
        ("@node1\t\tpriority 100", ["priority 100"]),
        ("@node1", []),
        ("@^node2", []),
        ("@ priority", []),
        ("@^ priority", ["priority"]),
        ("@node1 @node1 x", ["@node1 x"]),
        ("a @node2 b", ["a @node2 b"]),
        ("x { @node2 a }", ["x", "{"]),
        ("x { @node1 a }", ["x", "{", "a", "}"]),
        ("@node1 ~SEQ(i, 2) v $i", ["v 1", "v 2"]),
    ],
)
def test_conditions(line: str, kept: list[str]) -> None:
    assert expand(line) == kept


def test_without_a_config_id_no_id_is_equal() -> None:
    assert expand("@node1 a", "@^node1 b", config_id=None) == ["b"]


# --- definitions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "result"),
    [
        ("v $A", "v 1"),
        ("v $A x", "v 1 x"),
        ("v $A,$A)", "v 1,1)"),
        ("v $A\tx", "v 1\tx"),
        ("v $A/24", "v $A/24"),
        ("v ${A}/24", "v 1/24"),
        ("v $AB", "v $AB"),
        ("v ${A}$A", "v 11"),
        ("v $", "v $"),
        ("v $1", "v $1"),
        ("v $$A", "v $1"),
        ('v "${A} $A"', 'v "1 $A"'),
        ("$A", "1"),
        ("~x $A", "~x $A"),
    ],
)
def test_references(reference: str, result: str) -> None:
    assert expand("$A=1", reference) == [result]


def test_definitions_are_put_in_late_and_recursively() -> None:
    assert expand("$A=$B", "$B=1", "v $A", "$B=2", "v $A") == ["v 1", "v 2"]
    assert expand("$A=$", "$B=3", "v ${A}B") == ["v 3"]


def test_values_lose_leading_blanks_only_and_quotes_stay() -> None:
    assert expand('$A= \t "x  y"  # why', "v $A") == ['v "x  y"']
    assert expand("$A=", "v $A x") == ["v  x"]
    assert expand("  $A=x", "v $A") == ["v x"]


@pytest.mark.parametrize("line", ["$A =1", "$1A=1", "$A-B=1", "$=1", "x $A=1"])
def test_what_is_no_definition_stays_a_line(line: str) -> None:
    assert expand(line) == [line]


def test_a_definition_may_contain_blocks_includes_and_conditions() -> None:
    assert expand("$B=unicast_peer { 10.0.0.1 }", "$B") == ["unicast_peer", "{", "10.0.0.1", "}"]
    assert expand("$C=@node2", "$C x", "$D=@node1", "$D x") == ["x"]
    assert expand("$E=include a{b,c}", "$E") == ["include a{b,c}"]


def test_a_comment_by_definition_switches_a_line_off() -> None:
    lines = ["$M=a \\", "b", "$OFF=${_HASH}", "$ON=", "$OFF x", "$OFF $M", "$ON y", "v ${_BANG} z"]
    assert expand(*lines) == ["y", "v"]
    assert expand('v "${_HASH}${_BANG}"') == ['v "#!"']


def test_predefined_names() -> None:
    assert expand("v ${_PWD}/x ${_INSTANCE} ${_ENV HOME}${_ENV NONE}") == ["v /etc/keepalived/x node1 /root"]
    assert expand("v ${_INSTANCE}x", config_id=None) == ["v x"]
    assert expand("$_PWD=here", "v $_PWD") == ["v here"]


def test_random_numbers_are_in_range_and_repeatable() -> None:
    lines = ["v ${_RANDOM} ${_RANDOM 5} ${_RANDOM 5 7} ${_RANDOM 9 9}"] * 200
    first, second = expand(*lines), expand(*lines)
    assert first == second
    numbers = [[int(word) for word in line.split()[1:]] for line in first]
    assert all(0 <= a <= 32_767 and 5 <= b <= 32_767 and 5 <= c <= 7 and d == 9 for a, b, c, d in numbers)
    assert {c for _, _, c, _ in numbers} == {5, 6, 7}
    bench = Bench()
    bench.pre.reseed(1)
    again = bench.feed(lines[0])
    bench.pre.reseed(1)
    assert bench.feed(lines[0]) == again


@pytest.mark.parametrize(
    ("line", "result", "code"),
    [
        ("v ${_RANDOM 9 3}", "v 9", "random-bounds"),
        ("v ${_RANDOM x}", "v ${_RANDOM x}", "definition-parameters"),
        ("v ${_RANDOM 1 2 3}", "v ${_RANDOM 1 2 3}", "definition-parameters"),
        ("v ${_ENV A B}", "v ${_ENV A B}", "definition-parameters"),
        ("v ${_PWD x}", "v ${_PWD x}", "definition-missing"),
        ("v ${NONE}", "v ${NONE}", "definition-missing"),
        ("v ${ A}", "v ${ A}", "definition-missing"),
    ],
)
def test_references_that_cannot_be_put_in_are_told_and_stay(line: str, result: str, code: str) -> None:
    bench = Bench()
    assert bench.feed(line) == [result]
    assert code in bench.codes


def test_unknown_names_within_quotes_are_the_script_s_own() -> None:
    assert expand("script \"sh -c 'echo ${HOME} $HOME'\"") == ["script \"sh -c 'echo ${HOME} $HOME'\""]


def test_a_definition_that_contains_itself_is_told() -> None:
    for lines in (["$A=$A", "v $A"], ["$A=x $B", "$B=y $A", "v $A"]):
        bench = Bench()
        assert bench.feed(*lines) == []
        assert bench.codes in (["definition-loop"], ["line-too-long"])


def test_a_line_that_grows_too_long_is_told() -> None:
    bench = Bench()
    assert bench.feed(f"$A={'x' * 600}", "v $A", "v $A $A") == ["v " + "x" * 600]
    assert bench.codes == ["line-too-long"]
    assert not too_long("é" * (MAX_LINE_BYTES // 2))
    assert too_long("é" * (MAX_LINE_BYTES // 2) + "x")


# --- multi-line definitions ---------------------------------------------------------------------------------


def test_a_multi_line_definition_stands_for_its_lines() -> None:
    lines = ["$M= \\", "  a 1 \\", "  b 2\\", "  c 3", "pre $M", "end"]
    assert expand(*lines) == ["pre a 1", "b 2", "c 3", "end"]
    assert expand("$M=a 1 \\", "b 2", "${M}") == ["a 1", "b 2"]


def test_its_lines_go_through_everything_again() -> None:
    lines = [
        "$P=100",
        "$M=vrrp_instance VI_$N { \\",
        "@node1 priority $P \\",
        "@node2 priority 50 \\",
        "~SEQ(i, 2) address 10.0.${N}.$i \\",
        "}",
        "$N=4",
        "$M",
    ]
    assert expand(*lines) == [
        "vrrp_instance VI_4",
        "{",
        "priority 100",
        "address 10.0.4.1",
        "address 10.0.4.2",
        "}",
    ]


def test_multi_line_definitions_nest() -> None:
    inner = ["$IN=a \\", "b"]
    assert expand(*inner, "$OUT=c \\", "$IN \\", "d $IN \\", "e", "$OUT") == ["c", "a", "b", "d a", "b", "e"]
    assert expand(*inner, "~SEQ(i, 2) $IN $i") == ["$IN 1", "$IN 2"]
    assert expand(*inner, "~SEQ(i, 3, 4) $IN") == ["a", "b", "a", "b"]
    assert expand(*inner, "$L=~SEQ(i, 2) x$i \\", "y \\", "~SEQ(i, 2) $IN", "$L") == [
        *("x1", "x2", "y"),
        *("a", "b", "a", "b"),
    ]


def test_it_is_put_in_at_the_end_of_a_line_only() -> None:
    bench = Bench()
    assert bench.feed("$M=a \\", "b", "v ${M} x", "v $M x", 'w "$M"') == ["v ${M} x", "v $M x", 'w "$M"']
    assert bench.codes == ["definition-missing"]


def test_blank_lines_and_backslashes_alone_do_not_count() -> None:
    assert expand("$M= \\", "\\", " a \\", "  \\", "b", "$M") == ["a", "b"]
    assert expand("$M=a \\", "", "b", "$M") == ["b", "a"]
    assert expand("$M= \\", "", "v $M x") == ["v  x"]


def test_a_single_line_of_it_is_an_ordinary_definition() -> None:
    assert expand("$M= \\", "a", "v ${M} x") == ["v a x"]


def test_a_backslash_in_a_comment_continues_with_a_warning() -> None:
    bench = Bench()
    assert bench.feed("$M=a \\", "# b \\", "c # d \\", "e", "$M") == ["a", "c", "e"]
    continued, outside = "continued-by-comment", "outside-definition"
    assert bench.codes == [continued, outside, continued, outside]
    assert bench.severities == [Severity.WARNING, Severity.NOTE] * 2
    bench.feed("$M=a \\", "b \\", "c")
    assert len(bench.codes) == 4


def test_a_comment_without_backslash_ends_it() -> None:
    assert expand("$M=a \\", "# b", "c", "$M") == ["c", "a"]


# --- loops --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loop", "values"),
    [
        ("~SEQ(i, 3)", "1 2 3"),
        ("~SEQ(i, -2)", "-1 -2"),
        ("~SEQ(i, 0)", "1 0"),
        ("~SEQ(i, 3, 5)", "3 4 5"),
        ("~SEQ(i, 2, -1)", "2 1 0 -1"),
        ("~SEQ(i, 4, 4)", "4"),
        ("~SEQ(i, 1, 2, 6)", "1 3 5"),
        ("~SEQ(i, 5, -2, 0)", "5 3 1"),
        ("~SEQ ( i ,0x0a, 0XC )", "10 11 12"),
        ("~SEQ(i,010)", "1 2 3 4 5 6 7 8"),
        ("~SEQ(i,$N)", "1 2"),
        ("~SEQ(i,${N},$N)", "2"),
        ("~SEQx(i, 9, 11)", "9 a b"),
        ("~SEQx(i, 0xfe, 0x100)", "fe ff 100"),
        ("~LST(i, x, y-1, 10.0.0.1)", "x y-1 10.0.0.1"),
        ("~LST ( i ,{x}, {y} )", "x y"),
        ("~LST({i}, x)", "x"),
        ("~LST(i,x,,y)", "x  y"),
    ],
)
def test_loops(loop: str, values: str) -> None:
    assert expand("$N=2", f"{loop} v=${{i}};") == [f"v={value};" for value in values.split(" ")]


def test_tuples_and_missing_members() -> None:
    assert expand("~LST({a,b}, {1,2}, {3}, 4) v ${a}-${b}.") == ["v 1-2.", "v 3-.", "v 4-."]
    assert expand("~LST({a, b ,c},{1 , 2,3}) v ${a}${b}${c}") == ["v 123"]


def test_loops_are_chained_the_first_is_outermost() -> None:
    assert expand("~SEQ(i, 2) ~LST(j, a, b) ~SEQx(k, 15, 16) v $i $j $k") == [
        f"v {i} {j} {k}" for i in "12" for j in "ab" for k in ("f", "10")
    ]
    assert expand("~SEQ(i, 2) ~SEQ(j, $i) v $i$j ${i}${j}") == ["v $i1 11", "v $i1 21", "v $i2 22"]


def test_a_loop_s_text_is_a_line_like_any_other() -> None:
    assert expand("~SEQ(i, 2) x$i { a ${i} }") == ["x1", "{", "a 1", "}", "x2", "{", "a 2", "}"]
    assert expand("~SEQ(i, 2) $D=$i", "v $D $i") == ["v 2 2"]
    assert expand("$L=~SEQ(i, 2) v $i", "$L") == ["v 1", "v 2"]
    assert expand("~LST(i, $A, $B) v $i", "$A=1") == ["v $A", "v $B"]
    assert expand("$A=1", "~LST(i, $A) v $i") == ["v 1"]


@pytest.mark.parametrize(
    "loop",
    [
        "~SEQ",
        "~SEQ v",
        "~SEQ()",
        "~SEQ(i)",
        "~SEQ(i,",
        "~SEQ(,3)",
        "~SEQ({i},3)",
        "~SEQ(i,1,2,3,4)",
        "~SEQ(i,x)",
        "~SEQ(i,1,0,5)",
        "~SEQ(i,1,-1,5)",
        "~SEQ(i,5,1,1)",
        "~SEQ(i,09)",
        "~SEQ(i,$NONE)",
        "~SEQx(i,-2)",
        "~SEQX(i,2)",
        "~LST",
        "~LST()",
        "~LST(i)",
        "~LST(i,a",
        "~LST(i,{a)",
        "~LST(i,a b)",
        "~LST(i,{a,b})",
        "~LST({i,j},{a,b,c})",
        "~LST(i,a}b)",
    ],
)
def test_loops_that_are_not_well_formed_are_told_and_dropped(loop: str) -> None:
    bench = Bench()
    assert bench.feed(f"{loop} v", "next") == ["next"]
    assert bench.codes == ["loop-invalid"]


def test_other_tildes_are_words() -> None:
    assert expand("~foo $A") == ["~foo $A"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1, 2 ,3", [1, 2, 3]),
        (" -5 ", [-5]),
        ("+5", [5]),
        ("", [0]),
        ("0", [0]),
        ("-0x1F", [-31]),
        ("010", [8]),
        ("9" * 30, [2**63 - 1]),
        ("1x", None),
        ("1 2", None),
        ("0x", None),
        ("08", None),
    ],
)
def test_numbers_in_c_notation(text: str, numbers: list[int] | None) -> None:
    assert parse_numbers(text) == numbers


def test_parse_list_gives_the_rest_of_the_line() -> None:
    assert parse_list("~LST(a,1,2)  x {y}") == (["a"], [("1",), ("2",)], "x {y}")


# --- bounds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        ["~SEQ(i, 1, 9999999999) v"],
        ["~SEQ(i, 1, 9999999999)"],
        ["~SEQ(i, 300) ~SEQ(j, 300) ~SEQ(k, 300) v"],
        ["$M=a \\", "$M", "$M"],
        ["$M=a \\", "$M \\", "$M", "$M"],
        ["$A=~SEQ(i, 2) $A", "$A"],
        ["$X=~SEQ(a,1) $X", "~SEQ(a,1)" * 90 + "$X"],
    ],
)
def test_evil_expansions_end(lines: list[str]) -> None:
    bench = Bench()
    with pytest.raises(BudgetExceeded):
        bench.feed(*lines)


@pytest.mark.parametrize(
    "lines",
    [
        ["~SEQ(i, 300) v $i"],
        ["~SEQ(i, 10, -7, -300) @^node1 v"],
        ["~SEQ(i, 300)"],
        ["~SEQ(i, 30) ~LST({a,b}, {1,2}, {3,4}) ~SEQx(j, 7) v { w }"],
        ["~SEQ(i, 30) ~SEQ(j, 1, ${i}) v"],
        ["$M=a \\", "b $i \\", "$N=x \\", "@other c", "~SEQ(i, 50) ~SEQ(j, 2) $M"],
        ["$M=a \\", "b", "~SEQ(M, 50) ${M}"],
        ["$IN=~SEQ(j, 5) v", "~SEQ(i, 5) $IN"],
        ["$IN=~SEQ(j, 1000000000) v", "~LST(IN, ~x, y) $IN"],
        ["$IN=", "~SEQ(i, 2) $IN"],
    ],
)
def test_no_loop_is_refused_that_fits(lines: list[str]) -> None:
    """Just what it costs is enough: the estimate is never above that."""
    expected, before = Bench(), Bench()
    pieces = expected.feed(*lines)
    before.feed(*lines[:-1])
    steps = before.budget.steps - expected.budget.steps
    exact = Bench()
    exact.feed(*lines[:-1])
    exact.budget.steps = steps
    exact.budget.statements = sum(piece not in "{}" for piece in pieces)
    assert exact.feed(lines[-1]) == pieces
    with pytest.raises(BudgetExceeded):
        exact.budget.steps = steps - 1
        exact.feed(lines[-1])


def test_many_chained_loops_on_one_line_are_fine() -> None:
    assert expand("~SEQ(a,1)" * 100 + "v") == ["v"]


def test_pieces_know_where_they_stand() -> None:
    bench = Bench()
    line = "  x {  a b } c"
    pieces = [(piece.text, piece.start) for piece in bench.pre.lines(line.strip(), 2)]
    assert pieces == [("x", 2), ("{", 4), ("a b", 7), ("}", 11), ("c", 13)]
    assert all(re.match(re.escape(text), line[start:]) for text, start in pieces)
    assert [(p.text, p.start) for p in bench.pre.lines("@node1 x { a", 0)] == [("x", 7), ("{", 9), ("a", 11)]
    assert [p.start for p in bench.pre.lines("v ${_HASH}", 0)] == [-1]
