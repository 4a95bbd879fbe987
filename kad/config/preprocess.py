"""Conditions, definitions and loops: one line of a file becomes the lines it stands for.

``@id``, ``$NAME=``, ``$NAME``, ``~SEQ`` and ``~LST`` are worked off here, lazily and in the order of the
text, so that a definition counts from where it stands. Every line a loop or a multi-line definition yields
goes through the same steps again. All of it is bounded by :class:`Budget`.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

from kad.config.diagnostics import nearest
from kad.config.encoding import as_bytes, as_text
from kad.config.lexer import BLANKS, decomment, find_special, first_brace, first_reference
from kad.config.loops import BadLoop, Loop, least_cost, read_loop
from kad.config.numbers import is_digits
from kad.errors import Severity

MAX_LINE_BYTES = 1_022
"""Longest line, before and after substitution, without its line end: keepalived's buffer is 1024."""
MAX_STEPS = 4_000_000
"""Lines, substitutions and loop turns of one reading; 65,000 instances of a loop take about a million."""
MAX_STATEMENTS = 1_500_000
"""Statements of one reading."""
MAX_LINE_SUBSTITUTIONS = 512
"""Substitutions in one line; only a definition that contains itself takes more."""
MAX_NESTED_EXPANSIONS = 128
"""Loops and multi-line definitions open within each other."""
_MAX_HINTS = 32
_MAX_HINT_CANDIDATES = 1_000
_FEW_TURNS = 1_000
"""Turns of an inner loop that are not worth an estimate each time it begins."""
_MAX_KNOWN_TEXTS = 1_000
"""Different texts with references remembered in pieces: those of loops come again and again."""
_MAX_ROUNDS = 64
"""Times one line may turn into another that needs work again."""

INCLUDE = re.compile(r"(include[rmwba]?)[ \t\f\r\v\n]+(.*)", re.DOTALL)
_DEFINITION = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)=[ \t]*(.*)", re.DOTALL)
_REFERENCE = re.compile(
    r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)((?:[ \t]+[A-Za-z0-9_]+)*)[ \t]*\}"
    r"|([A-Za-z_][A-Za-z0-9_]*)(?=[ \t,)]|\Z))"
)
_CONDITION = re.compile(r"@(\^?)([^ \t]*)[ \t]+(.*)", re.DOTALL)

Report = Callable[[Severity, str, str, str], None]
"""Called with severity, code, message and remedy of a finding about the current line."""


class BudgetExceeded(Exception):
    """The text expands to more than can be meant; caught by the tree builder, never beyond it."""


class Budget:
    """What may still be spent on one reading."""

    def __init__(self, steps: int = MAX_STEPS, statements: int = MAX_STATEMENTS) -> None:
        self.steps = steps
        self.statements = statements

    def spend_steps(self, count: int) -> None:
        self.steps -= count
        if self.steps < 0:
            raise BudgetExceeded(f"definitions and loops take more than {MAX_STEPS} steps")

    def spend_statements(self, count: int) -> None:
        self.statements -= count
        if self.statements < 0:
            raise BudgetExceeded(f"the configuration has more than {MAX_STATEMENTS} statements")


class Definition(Struct, frozen=True):
    """A ``$NAME`` that is more than text: several lines, or a function of its parameters."""

    first: str = ""
    more: tuple[str, ...] = ()
    function: Callable[[list[str]], str] | None = None
    parameters: tuple[int, int] = (0, 0)
    numeric: bool = False


class Line(Struct, frozen=True):
    """A line to work on. ``start`` is where it begins in the source line, -1 when it was made from it."""

    text: str
    start: int = -1


class Preprocessor:
    """The state of one reading: definitions, the configuration id, the random numbers."""

    def __init__(
        self,
        report: Report,
        budget: Budget,
        *,
        config_id: str | None = None,
        environment: Mapping[str, str] | None = None,
        seed: int | None = None,
    ) -> None:
        self.directory = "/"
        self._report = report
        self._budget = budget
        self._config_id = config_id
        self._environment = environment or {}
        self._random = random.Random(seed)
        self._collecting: tuple[str, list[str]] | None = None
        self._ended_by_comment = False
        """Has a newer keepalived ended the definition before?"""
        self._hints: dict[str, str] = {}
        self._pieces: dict[str, tuple[list[str], list[str]]] = {}
        """Text with references -> what stands around them, and their names."""
        self._texts = {"_HASH": "#", "_BANG": "!"}
        self._definitions = {
            "_PWD": Definition(function=lambda _: self.directory),
            "_INSTANCE": Definition(function=lambda _: self._config_id or ""),
            "_RANDOM": Definition(function=self._random_number, parameters=(0, 2), numeric=True),
            "_ENV": Definition(function=self._environment_value, parameters=(1, 1)),
        }

    def end(self) -> None:
        """Nothing more is read: its functions lead back to it no longer."""
        self._definitions.clear()

    def reseed(self, seed: int) -> None:
        """``random_seed``: what ``${_RANDOM}`` gives from here on is repeatable."""
        self._random.seed(seed)

    @property
    def collecting(self) -> bool:
        """Whether the next lines of the file belong to a multi-line definition."""
        return self._collecting is not None

    def collect(self, line: str) -> None:
        """Take a physical line into the multi-line definition that is open; one without a backslash ends it.

        A backslash at the end of a comment counts, as up to keepalived 2.3; 2.4 overlooks it.
        """
        assert self._collecting is not None
        name, lines = self._collecting
        text, _, _ = decomment(line)
        if self._ended_by_comment and text:
            what = "this line belongs to the definition; for keepalived 2.4 that ended with the comment above"
            self._report(Severity.NOTE, "outside-definition", what, "")
        if text.endswith("\\"):
            text = text[:-1].rstrip(BLANKS)
        elif line.rstrip(BLANKS).endswith("\\"):
            self._ended_by_comment = True
            self._report(
                Severity.WARNING,
                "continued-by-comment",
                "the backslash in this comment continues the definition; keepalived 2.4 ends it here",
                "end the line with the backslash alone, and put the comment outside the definition",
            )
        else:
            self._collecting = None
        if not lines and self._collecting is None:
            self._texts[name] = text  # a single line is an ordinary definition, wherever it is written
            return
        if text:
            lines.append(text)
        self._set_lines(name, lines)

    def lines(self, text: str, start: int) -> Iterator[Line]:
        """The lines and braces that one decommented line stands for, in order; braces stand alone."""
        stack: list[Iterator[Line]] = [iter((Line(text, start),))]
        rest: Line | None = None
        while rest is not None or stack:
            if rest is not None:
                line, rest = rest, None
            elif (following := next(stack[-1], None)) is not None:
                line = following
            else:
                stack.pop()
                continue
            self._budget.steps -= 1
            if self._budget.steps < 0:
                self._budget.spend_steps(0)
            if line.text == "}" or _is_plain(line.text):
                yield line
                continue
            ready = self._work_off(line, stack)
            if ready is None or not ready.text:
                continue
            if ready.text.startswith("include") and INCLUDE.fullmatch(ready.text) is not None:
                yield ready  # whole: its braces are alternatives of file names
                continue
            piece, rest = _split_at_brace(ready)
            if (missing := first_reference(piece.text)) is not None:
                self._missing(missing)
            if piece.text:
                yield piece

    def _error(self, code: str, message: str, remedy: str = "") -> None:
        self._report(Severity.ERROR, code, message, remedy)

    def _work_off(self, line: Line, stack: list[Iterator[Line]]) -> Line | None:
        """One line through condition, definition, loop and substitution; None when nothing is left of it."""
        for _ in range(_MAX_ROUNDS):
            first = line.text[:1]
            if first == "@":
                kept = self._condition(line)
                if kept is None:
                    return None
                line, first = kept, kept.text[:1]
            if first == "$" and self._define(line.text):
                return None
            if first == "~":
                turns = self._loop(line, len(stack) == 1)
                if turns is None:
                    return line
                _push(stack, turns)
                return None
            if "$" not in line.text:
                return line
            replaced = self._substitute(line.text, stack)
            if replaced is None:
                return line
            line = Line(replaced)
            if not line.text:
                return None
        self._error("definition-loop", "the line turns into another one without end; it is ignored")
        return None

    def _missing(self, reference: str) -> None:
        words = reference.split()
        name = words[0] if words else ""
        if name in self._definitions and not self._definitions[name].function:
            why = "has several lines, so it is put in only at the end of a line"
        elif name in self._definitions or name in self._texts:
            why = "does not take these parameters"
        else:
            why = "is not defined"
        remedy = self._hint(name)
        self._error("definition-missing", f"${{{reference}}} {why}; it stays as it is", remedy)

    def _hint(self, name: str) -> str:
        """What might be meant by an unknown name; looked for a bounded number of times."""
        if (
            name not in self._hints
            and len(self._hints) < _MAX_HINTS
            and len(self._texts) <= _MAX_HINT_CANDIDATES
        ):
            similar = nearest(name, tuple(sorted({*self._definitions, *self._texts})))
            self._hints.setdefault(name, "" if similar is None or similar == name else similar)
        meant = self._hints.get(name)
        return f"is ${{{meant}}} meant?" if meant else f"${name}=… defines it, further up"

    def _condition(self, line: Line) -> Line | None:
        match = _CONDITION.fullmatch(line.text)
        if match is None:
            return None
        equal = match[2] == self._config_id
        if equal == (match[1] == "^"):
            return None
        return Line(match[3], line.start + match.start(3) if line.start >= 0 else -1)

    def _define(self, text: str) -> bool:
        match = _DEFINITION.fullmatch(text)
        if match is None:
            return False
        name, value = match[1], match[2]
        if value.endswith("\\"):
            value = value[:-1].rstrip(BLANKS)
            lines = [value] if value else []
            self._collecting = (name, lines)
            self._ended_by_comment = False
            self._set_lines(name, lines)
        else:
            self._texts[name] = value
        return True

    def _set_lines(self, name: str, lines: list[str]) -> None:
        if lines:
            self._definitions[name] = Definition(lines[0], tuple(lines[1:]))
            self._texts.pop(name, None)
        else:
            self._texts[name] = ""

    def _substitute(self, text: str, stack: list[Iterator[Line]]) -> str | None:
        """The line with its definitions put in, late and recursively; None when there is none to put in."""
        plain = self._put_in_plain(text)
        if plain is not None:
            return plain
        position = count = 0
        while (match := _REFERENCE.search(text, position)) is not None:
            position = match.start()
            braced, parameters, bare = match.groups()
            value = self._texts.get(braced or bare) if not parameters else None
            if value is None:
                value = self._value(braced or bare, parameters or "", match.end() == len(text), stack)
            if value is None:
                position += 1
                continue
            count += 1
            text = text[:position] + value + text[match.end() :]
            if "#" in value or "!" in value:
                # a definition may begin a comment: ${_HASH} before a keyword switches its line off. What
                # follows is not text any more, so a multi-line definition there is not put in (keepalived
                # puts in all of its lines but the first).
                text, position = decomment(text)[0], 0
            if count > MAX_LINE_SUBSTITUTIONS:
                self._error("definition-loop", "a definition contains itself; the line is ignored")
                return ""
            if too_long(text):
                what = f"with its definitions the line is longer than {MAX_LINE_BYTES} bytes; it is ignored"
                self._error("line-too-long", what)
                return ""
            if value.lstrip(BLANKS).startswith("~") and text.lstrip(BLANKS).startswith("~"):
                break  # its loop sets further definitions, which must be put in later
        self._budget.spend_steps(count)
        return text.strip(BLANKS) if count else None

    def _put_in_plain(self, text: str) -> str | None:
        """The line where all that is put in is letters and digits, as loops do; None: it takes more care."""
        pieces = self._pieces.get(text)
        if pieces is None:
            # a literal, then name in braces, its parameters, name without and a literal for each reference
            split = _REFERENCE.split(text)
            simple = not any(split[2::4]) and not text.startswith("~")
            pieces = ([split[0]], []) if simple else ([], [])
            for index in range(1, len(split) if simple else 0, 4):
                pieces[1].append(split[index] or split[index + 2])
                pieces[0].append(split[index + 3])
            if len(self._pieces) < _MAX_KNOWN_TEXTS:
                self._pieces[text] = pieces
        literals, names = pieces
        if not names:
            return None
        result = [literals[0]]
        for name, literal in zip(names, literals[1:], strict=True):
            value = self._texts.get(name)
            if value is None or not value.isalnum():
                return None
            result += (value, literal)
        line = "".join(result)
        if too_long(line):
            return None
        self._budget.spend_steps(len(names))
        return line.strip(BLANKS)

    def _value(self, name: str, words: str, at_end: bool, stack: list[Iterator[Line]]) -> str | None:
        """The value of a definition that is more than text; None when the reference stays as it is."""
        definition = self._definitions.get(name)
        if definition is None:
            return None
        if definition.function is not None:
            parameters = words.split()
            return (
                definition.function(parameters)
                if self._parameters_fit(name, definition, parameters)
                else None
            )
        if words or not at_end:
            return None  # a multi-line definition only at the end of a line
        if definition.more:
            _push(stack, map(Line, definition.more))
        return definition.first

    def _parameters_fit(self, name: str, definition: Definition, parameters: list[str]) -> bool:
        low, high = definition.parameters
        if not parameters:
            return True  # ${_ENV} alone is empty, ${_RANDOM} has its defaults
        if not high:
            return False
        if definition.numeric and not all(map(is_digits, parameters)):
            self._error("definition-parameters", f"${{{name}}} takes numbers only", f"${{{name} 0 9}}")
            return False
        if not low <= len(parameters) <= high:
            self._error("definition-parameters", f"${{{name}}} takes {low} to {high} parameters")
            return False
        return True

    def _random_number(self, parameters: list[str]) -> str:
        low = int(parameters[0]) if parameters else 0
        high = int(parameters[1]) if len(parameters) > 1 else 32_767
        if low > high:
            self._error("random-bounds", f"the minimum {low} is above the maximum {high}; {low} is used")
            high = low
        return str(self._random.randint(low, high))

    def _environment_value(self, parameters: list[str]) -> str:
        return as_text(self._environment.get(parameters[0], "")) if parameters else ""

    def _loop(self, line: Line, outermost: bool) -> Iterator[Line] | None:
        """The turns of a loop; None when the line is none. A loop that is not well formed has no turns."""
        loop = read_loop(line.text, self._numbers)
        if loop is None:
            return None
        if isinstance(loop, BadLoop):
            self._error("loop-invalid", f"{loop.why}; the line is ignored", loop.remedy)
            return iter(())
        if outermost or loop.turns > _FEW_TURNS:
            self._refuse_endless(loop)
        return self._turns(loop)

    def _numbers(self, text: str) -> str:
        return self._substitute(text, []) or text

    def _refuse_endless(self, loop: Loop) -> None:
        """Told by arithmetic what cannot fit, before any of it is expanded."""
        steps, statements = least_cost(loop, self._expansion)
        if steps > self._budget.steps or statements > self._budget.statements:
            raise BudgetExceeded(f"the loop makes {statements or loop.turns} lines, more than can be meant")

    def _expansion(self, name: str) -> tuple[str, ...]:
        """The lines that a reference to ``name`` alone stands for; none when that is not sure."""
        text = self._texts.get(name)
        if text is not None:
            return (text,)
        definition = self._definitions.get(name)
        if definition is None or definition.function is not None:
            return ()
        return (definition.first, *definition.more)

    def _turns(self, loop: Loop) -> Iterator[Line]:
        names, texts = loop.names, self._texts
        line = Line(loop.text)
        for turn in loop.values:
            self._budget.spend_steps(1)
            for name, value in zip(names, turn, strict=True):
                texts[name] = value
            yield line


def _is_plain(text: str) -> bool:
    """Whether the line, of words alone, is ready as it is."""
    return find_special(text) is None and text != "" and not text.startswith("include")


def _push(stack: list[Iterator[Line]], lines: Iterator[Line]) -> None:
    if len(stack) >= MAX_NESTED_EXPANSIONS:
        raise BudgetExceeded(
            f"loops and definitions contain each other more than {MAX_NESTED_EXPANSIONS} deep"
        )
    stack.append(lines)


def _split_at_brace(line: Line) -> tuple[Line, Line | None]:
    """The part of a line up to its first brace, or the brace it begins with, and what follows."""
    text, start = line.text, line.start
    brace = first_brace(text) if "{" in text or "}" in text else -1
    if brace < 0:
        return line, None
    cut = after = brace if brace > 0 else 1
    while after < len(text) and text[after] in BLANKS:
        after += 1
    rest = Line(text[after:], start + after if start >= 0 else -1) if after < len(text) else None
    return Line(text[:cut].rstrip(BLANKS), start), rest


def too_long(text: str) -> bool:
    """Whether a line has more bytes than a line may have."""
    if len(text) * 4 <= MAX_LINE_BYTES:
        return False
    return len(as_bytes(text)) > MAX_LINE_BYTES
