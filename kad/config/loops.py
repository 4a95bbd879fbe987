"""Loops of a configuration: ``~SEQ`` counts, ``~LST`` goes through a list; what a loop costs at least."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kad.config.lexer import BLANKS

MAX_ESTIMATED_DEPTH = 8
"""Loops and definitions within each other that an estimate looks into."""
_SEQUENCE = re.compile(r"~SEQ(x?)[ \t]*\([ \t]*([^ \t,){][^ \t,)]*)[ \t]*,([^)]*)\)[ \t]*(.*)", re.DOTALL)
_NUMBER = re.compile(r"\s*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)?[ \t]*")
_LONG_MAX = 2**63 - 1
_REFERENCE_ALONE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")


class Loop(NamedTuple):
    """A loop that is well formed."""

    names: list[str]
    values: Iterator[tuple[str, ...]]
    turns: int
    text: str
    """What is repeated."""


class BadLoop(NamedTuple):
    """What is wrong with a loop, and how to write one."""

    why: str
    remedy: str


def read_loop(text: str, substitute: Callable[[str], str]) -> Loop | BadLoop | None:
    """The loop that ``text`` begins with; None when it begins with none.

    ``substitute`` puts definitions into its numbers.
    """
    if text.startswith("~SEQ"):
        return _sequence(text, substitute)
    if text.startswith("~LST"):
        return _list(text)
    return None


def _sequence(text: str, substitute: Callable[[str], str]) -> Loop | BadLoop:
    remedy = "~SEQ(name, [start, [step,]] end) text, or ~SEQx for hexadecimal"
    match = _SEQUENCE.fullmatch(text)
    if match is None:
        return BadLoop("this is not a loop", remedy)
    numbers = parse_numbers(substitute(match[3]))
    if numbers is None or not 1 <= len(numbers) <= 3:
        return BadLoop(f"the loop's numbers '{match[3].strip()}' are not valid", remedy)
    start, step, end = _bounds(numbers)
    if step == 0 or (end - start) * step < 0:
        return BadLoop(f"a step of {step} never gets from {start} to {end}", remedy)
    if match[1] and min(start, end) < 0:
        return BadLoop("~SEQx takes no negative numbers", remedy)
    base = "x" if match[1] else "d"
    values = ((format(n, base),) for n in range(start, end + (1 if step > 0 else -1), step))
    return Loop([match[2]], values, (end - start) // step + 1, match[4])


def _list(text: str) -> Loop | BadLoop:
    parsed = parse_list(text)
    if isinstance(parsed, str):
        return BadLoop(parsed, "~LST(name, value, …) text, or ~LST({a,b}, {1,2}, …) text")
    names, values, rest = parsed
    return Loop(names, iter(values), len(values), rest)


def least_cost(
    loop: Loop,
    expansion: Callable[[str], tuple[str, ...]],
    hidden: frozenset[str] = frozenset(),
    depth: int = 0,
) -> tuple[int, int]:
    """Steps and statements that the loop takes at least. Less is counted where it is not sure, never more.

    ``expansion`` gives the lines of a definition, ``hidden`` names that loops around it set.
    """
    hidden = hidden.union(loop.names)
    steps, statements = _least_cost_of_line(loop.text, expansion, hidden, depth + 1)
    return loop.turns * (1 + steps), loop.turns * statements


def _least_cost_of_line(
    text: str, expansion: Callable[[str], tuple[str, ...]], hidden: frozenset[str], depth: int
) -> tuple[int, int]:
    first = text[:1]
    if first.isalpha():
        return 1, 0 if text.startswith("include") else 1
    if depth > MAX_ESTIMATED_DEPTH:
        return 1, 0
    if first == "~":
        inner = read_loop(text, str)
        if isinstance(inner, Loop):
            steps, statements = least_cost(inner, expansion, hidden, depth)
            return 1 + steps, statements
    reference = _REFERENCE_ALONE.fullmatch(text)
    if reference is None or (name := reference[1] or reference[2]) in hidden:
        return 1, 0
    lines = expansion(name)
    if len(lines) > 1:
        # One of its lines may define what another one uses, so only what is plain counts.
        return len(lines), sum(line[:1].isalpha() and not line.startswith("include") for line in lines)
    return _least_cost_of_line(lines[0], expansion, hidden, depth + 1) if lines else (1, 0)


def _bounds(numbers: list[int]) -> tuple[int, int, int]:
    """start, step, end of a ~SEQ from its one to three numbers."""
    if len(numbers) == 1:
        end = numbers[0]
        return (-1 if end < 0 else 1), (-1 if end < 1 else 1), end
    if len(numbers) == 2:
        return numbers[0], (1 if numbers[0] <= numbers[1] else -1), numbers[1]
    return numbers[0], numbers[1], numbers[2]


def parse_numbers(text: str) -> list[int] | None:
    """Numbers in C notation between commas; an empty one is 0. None when there is anything else."""
    numbers = []
    for part in text.split(","):
        match = _NUMBER.fullmatch(part)
        if match is None:
            return None
        digits = match[2] or "0"
        base = 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10
        value = min(int(digits, base), _LONG_MAX)
        numbers.append(-value if match[1] == "-" else value)
    return numbers


_LIST_BEGIN = re.compile(r"~LST[ \t]*\([ \t]*")
_LIST_GROUP = re.compile(r"\{([^})]*)\}[ \t]*|([^ \t,{})]*)[ \t]*")
_LIST_NEXT = re.compile(r",[ \t]*")
_LIST_END = re.compile(r"\)[ \t]*")


def parse_list(text: str) -> tuple[list[str], list[tuple[str, ...]], str] | str:
    """Names, tuples of values (filled up with "") and the text of a ``~LST``; or what is wrong with it."""
    begin = _LIST_BEGIN.match(text)
    if begin is None:
        return "this is not a loop"
    position = begin.end()
    groups: list[list[str]] = []
    while True:
        match = _LIST_GROUP.match(text, position)
        assert match is not None
        groups.append(_members(match))
        position = match.end()
        comma = _LIST_NEXT.match(text, position)
        if comma is None:
            break
        position = comma.end()
    end = _LIST_END.match(text, position)
    if end is None:
        return "the list of the loop is not well formed"
    if len(groups) < 2:
        return "the loop has no values"
    names = groups[0]
    if any(" " in member or "\t" in member for group in groups for member in group):
        return "a name or value of the loop contains a blank"
    if any(len(group) > len(names) for group in groups):
        return f"there are more values than names ({len(names)}) in the loop"
    values = [tuple(group + [""] * (len(names) - len(group))) for group in groups[1:]]
    return names, values, text[end.end() :]


def _members(match: re.Match[str]) -> list[str]:
    if match[1] is not None:
        return [member.strip(BLANKS) for member in match[1].split(",")]
    return [match[2]]
