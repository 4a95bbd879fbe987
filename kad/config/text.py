"""Reading a configuration whole: files, lines and braces to a tree of statements.

This drives the other parts: lines come from the reader, go through comment removal and the preprocessor
where they contain anything but plain words, and end as statements in blocks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct

from kad.config.diagnostics import Findings
from kad.config.encoding import as_text
from kad.config.includes import INCLUDES, IncludeCheck, changed_check
from kad.config.lexer import BLANKS, decomment, find_special, split_words
from kad.config.numbers import is_digits
from kad.config.preprocess import INCLUDE, MAX_LINE_BYTES, Budget, BudgetExceeded, Preprocessor, too_long
from kad.config.source import (
    MAX_FILES,
    MAX_INCLUDE_DEPTH,
    MAX_TOTAL_BYTES,
    Digest,
    DiskReader,
    Found,
    Reader,
    Unreadable,
)
from kad.config.transcript import Transcript
from kad.config.tree import Statement, first_column, first_outdented
from kad.errors import Diagnostic, ExitStatus, Severity, Span
from kad.garbage import collector_paused

MAX_BLOCK_DEPTH = 32
"""Blocks within blocks; what is deeper is skipped. The deepest block that means anything is at 5."""
MAX_KNOWN_LINES = 10_000
"""Different lines remembered with their words: most lines of a large configuration say the same."""

_ACTED_ON = frozenset((*INCLUDES, "include_check", "random_seed"))


class ConfigurationText(NamedTuple):
    """A configuration read whole: its statements, what is wrong with the text, the digest of all files."""

    statements: list[Statement]
    diagnostics: list[Diagnostic]
    digest: str
    holds_bytes: bool = False
    """Words of it are no text: bytes that are not UTF-8, as surrogate escapes."""


def read_tree(
    path: str,
    *,
    config_id: str | None = None,
    reader: Reader | None = None,
    environment: Mapping[str, str] | None = None,
    seed: int | None = None,
    include_check: IncludeCheck = IncludeCheck.NOTHING,
    transcript: Transcript | None = None,
) -> ConfigurationText:
    """Read a configuration file and all it includes into statements.

    ``path`` may be a pattern; every match is read, one after the other. ``config_id`` is what ``@id`` lines
    are compared with, ``environment`` what ``${_ENV NAME}`` sees, ``seed`` makes ``${_RANDOM}`` repeatable.
    ``transcript`` gets what was read.
    Never raises for anything a file contains: a file that cannot be read is a FATAL diagnostic with exit
    status 4, text that expands without measure ends with a FATAL one.
    """
    builder = _Builder(reader or DiskReader(), config_id, environment, seed, include_check, transcript)
    with collector_paused():
        builder.read_main(path)
        builder.end()
    return ConfigurationText(
        builder.root, builder.findings.result(), builder.digest.hexdigest(), builder.holds_bytes
    )


_Usual = tuple[list[str], str, int]
"""A line's words, their text, and where its brace stands, or -1."""


class _Open(Struct, gc=False):
    """A block whose closing brace is yet to come. ``owner`` is None for braces that belong to nothing."""

    block: list[Statement]
    owner: Statement | None
    file: str
    line: int
    column: int
    source_line: str


class _Builder:
    """One reading: files to statements."""

    def __init__(
        self,
        reader: Reader,
        config_id: str | None,
        environment: Mapping[str, str] | None,
        seed: int | None,
        include_check: IncludeCheck,
        transcript: Transcript | None,
    ) -> None:
        self.root: list[Statement] = []
        self.findings = Findings()
        self.digest = Digest()
        self.holds_bytes = False
        self._reader = reader
        self._include_check = include_check
        self._transcript = transcript or Transcript()
        self._budget = Budget()
        self._pre = Preprocessor(
            self._finding, self._budget, config_id=config_id, environment=environment, seed=seed
        )
        self._bytes_left = MAX_TOTAL_BYTES
        self._files_left = MAX_FILES
        self._being_read: list[str] = []
        self._open: list[_Open] = []
        self._known_lines: dict[str, _Usual] = {}
        self._block = self.root
        self._last: Statement | None = None  # the statement a '{' would belong to
        self._too_deep = 0
        # the physical line being worked on
        self._file = ""
        self._line = 0
        self._source_line = ""

    # --- files -------------------------------------------------------------------------------------------

    def read_main(self, path: str) -> None:
        found = self._reader.find(path, "")
        if not found.paths:
            self._fatal("configuration-missing", f"the configuration file {path} does not exist", path)
            return
        if len(found.paths) > 1:
            self.findings.add(
                Severity.WARNING,
                "several-configurations",
                f"{path} stands for {len(found.paths)} files; they are read one after the other, "
                f"{found.paths[0]} first",
                Span(path, 0),
                exit_status=ExitStatus.CONFIG_ERRORS,
            )
        try:
            for name in found.paths:
                data = self._reader.read(name, self._bytes_left)
                if isinstance(data, Unreadable):
                    self._fatal(
                        "configuration-unreadable", f"the configuration file {name} {data.reason}", name
                    )
                    return
                self._read_file(name, data)
        except BudgetExceeded as error:
            self._fatal_here("too-much", f"{error}; the rest is not read")
        self._report_open_blocks()

    def result(self) -> ConfigurationText:
        return ConfigurationText(self.root, self.findings.result(), self.digest.hexdigest(), self.holds_bytes)

    def end(self) -> None:
        """This and the preprocessor hold each other no longer: no search for garbage has to find them."""
        self._pre.end()
        del self._pre

    def _read_file(self, name: str, data: bytes) -> None:
        if len(data) > self._bytes_left:
            raise BudgetExceeded(f"the configuration has more than {MAX_TOTAL_BYTES} bytes")
        self._files_left -= 1
        if self._files_left < 0:
            raise BudgetExceeded(f"the configuration has more than {MAX_FILES} files")
        self._bytes_left -= len(data)
        self.digest.add(name, data)
        self._transcript.begin(name, data)
        outer = (self._file, self._line, self._source_line, self._pre.directory, self._include_check)
        self._file, self._line, self._source_line = name, 0, ""
        self._pre.directory = self._reader.directory(name)
        self._being_read.append(name)
        self._read_lines(self._split_lines(data))
        self._being_read.pop()
        self._transcript.end()
        self._file, self._line, self._source_line, self._pre.directory, self._include_check = outer

    def _split_lines(self, data: bytes) -> list[str]:
        text = data.decode("utf-8", "surrogateescape")
        if text.startswith("\ufeff"):
            text = text[1:]
            self._line, self._source_line = 1, text.partition("\n")[0]
            what = "the file begins with a byte order mark"
            self._report("byte-order-mark", what, "save it as UTF-8 without one")
        self._budget.spend_statements(text.count("\n") + 1)  # before there is a string for each
        lines = text.split("\n")
        if "\r" in text:
            lines = [line.rstrip("\r") for line in lines]
        if "\0" in text or too_long(max(lines, key=len)) or not text.isascii():
            self._drop_bad_lines(lines)
        return lines

    def _drop_bad_lines(self, lines: list[str]) -> None:
        for index, line in enumerate(lines):
            has_nul = "\0" in line
            if not has_nul and not too_long(line):
                self._look_for_bytes(index + 1, line)
                continue
            self._line, self._source_line = index + 1, line[:MAX_LINE_BYTES]
            if has_nul:
                self._report("embedded-nul", "the line contains a NUL byte; it is ignored")
            else:
                what = f"the line is longer than {MAX_LINE_BYTES} bytes; it is ignored"
                self._report("line-too-long", what, "put the parts on lines of their own")
            lines[index] = ""

    def _look_for_bytes(self, number: int, line: str) -> None:
        if line.isascii() or (words := decomment(line)[0]) == as_text(words):
            return
        self.holds_bytes, self._line, self._source_line = True, number, line
        what = "bytes that are not UTF-8 are read as ISO 8859-1 (but in passwords and keys)"
        self._finding(Severity.WARNING, "not-utf-8", what, "save the file as UTF-8")

    def _read_lines(self, lines: list[str]) -> None:
        file = self._file
        known = self._known_lines
        numbered = enumerate(lines, 1)
        for number, line in numbered:
            found = known.get(line)
            if found is None:
                found = _usual(line)
                if found is not None and len(known) < MAX_KNOWN_LINES:
                    known[line] = found
            if found is not None:
                texts, text, brace = found
                if texts:
                    self._last = statement = Statement(texts, file, number, line, text)
                    self._block.append(statement)
                if brace >= 0:
                    self._line, self._source_line = number, line
                    (self._open_block if line[brace] == "{" else self._close_block)(brace)
                continue
            self._line, self._source_line = number, line
            self._read_special(line)
            while self._pre.collecting and (following := next(numbered, None)) is not None:
                self._line, self._source_line = following
                self._pre.collect(following[1])

    # --- lines -------------------------------------------------------------------------------------------

    def _read_special(self, line: str) -> None:
        text, unescaped, quote = decomment(line)
        if quote >= 0:
            self._unpaired_quote(line, text, quote)
        if not text:
            return
        start = -1 if unescaped else len(line) - len(line.lstrip(BLANKS))
        for piece in self._pre.lines(text, start):
            self._take(piece.text, piece.start)
        if text.endswith("\\") and not self._pre.collecting:
            self._finding(
                Severity.WARNING,
                "backslash",
                "a backslash continues a line only within a definition ($NAME=); here it belongs to the word",
                "remove it",
                exit_status=ExitStatus.OK,
            )

    def _take(self, text: str, start: int) -> None:
        """A statement, a brace or an include; ``start`` as in :class:`Statement`."""
        if text == "{":
            self._open_block(start)
        elif text == "}":
            self._close_block(start)
        elif text.startswith("include") and (include := INCLUDE.fullmatch(text)) is not None:
            self._include(include[1], include[2])
        else:
            self._budget.spend_statements(1)
            texts = split_words(text)
            if not texts:
                return
            self._last = Statement(texts, self._file, self._line, self._source_line, text, start)
            self._block.append(self._last)
            if texts[0] in _ACTED_ON:
                self._act(texts)

    def _act(self, texts: list[str]) -> None:
        """The two global settings that change how the rest of the text is read."""
        if (
            len(self._open) != 1
            or self._open[0].owner is None
            or self._open[0].owner.keyword != "global_defs"
        ):
            return
        if texts[0] == "include_check":
            self._include_check = changed_check(self._include_check, texts[1:])
        elif texts[0] == "random_seed" and len(texts) > 1 and is_digits(texts[1]):
            self._pre.reseed(int(texts[1]) % 2**32)

    # --- braces ------------------------------------------------------------------------------------------

    def _open_block(self, start: int) -> None:
        owner = self._last
        self._last = None
        if len(self._open) >= MAX_BLOCK_DEPTH:
            self._too_deep += 1
            what = f"blocks are more than {MAX_BLOCK_DEPTH} deep here; this one is skipped"
            self._report("blocks-too-deep", what, "", self._span_at(start))
            self._block = []
            return
        block: list[Statement] = []
        self._block = block
        if owner is None:
            self._report(
                "unexpected-opening-brace",
                "this '{' belongs to no keyword; its block is skipped",
                "put the keyword before it, or remove it with its '}'",
                self._span_at(start),
            )
        else:
            owner.block = block
        self._open.append(_Open(block, owner, self._file, self._line, start + 1, self._source_line))

    def _close_block(self, start: int) -> None:
        self._last = None
        if self._too_deep:
            self._too_deep -= 1
            if not self._too_deep:
                self._block = self._open[-1].block
            return
        if not self._open:
            self._report(
                "extra-closing-brace",
                "this '}' closes nothing; it is ignored",
                "remove it, or look for a '}' too many or a missing '{' above",
                self._span_at(start),
            )
            return
        closed = self._open.pop()
        if closed.owner is not None:
            closed.owner.closing = self._span_at(start)
        self._block = self._open[-1].block if self._open else self.root

    def _span_at(self, start: int) -> Span:
        return Span(self._file, self._line, start + 1 if start >= 0 else first_column(self._source_line))

    def _report_open_blocks(self) -> None:
        """At the end of everything: each block still open is told, with a guess where its '}' is missing."""
        for opened in self._open:
            name = " ".join(opened.owner.texts[:2]) if opened.owner is not None else "{"
            before = first_outdented(opened.block, opened.line, opened.source_line)
            where = f"before {before.file}:{before.line}" if before is not None else "at the end"
            self.findings.add(
                Severity.ERROR,
                "missing-closing-brace",
                f"the block '{name}' is never closed",
                Span(opened.file, opened.line, max(0, opened.column)),
                source_line=opened.source_line,
                remedy=f"add '}}', probably {where}",
                identity=name,
            )

    # --- includes ----------------------------------------------------------------------------------------

    def _include(self, keyword: str, pattern: str) -> None:
        checks = self._include_check | INCLUDES[keyword]
        self._last = None
        if len(self._being_read) >= MAX_INCLUDE_DEPTH:
            raise BudgetExceeded(f"files include files more than {MAX_INCLUDE_DEPTH} deep")
        found = self._reader.find(pattern, os.path.dirname(self._file))
        if not self._matches_are_fine(pattern, found, checks):
            return
        self._transcript.include(self._line)
        for name in found.paths:
            if name in self._being_read:
                # keepalived reads it again and again until it has no descriptor left.
                self._report("include-loop", f"{name} is being read here already; it is not included again")
                continue
            data = self._reader.read(name, self._bytes_left)
            if isinstance(data, Unreadable):
                self._include_finding(
                    "include-unreadable", f"{name} {data.reason}", checks & IncludeCheck.READ
                )
            else:
                self._read_file(name, data)

    def _matches_are_fine(self, pattern: str, found: Found, checks: IncludeCheck) -> bool:
        if not found.paths:
            if found.missing:
                check = IncludeCheck.BRACE_MATCH if found.braces else IncludeCheck.MATCH
                what = " and ".join(found.missing[:3])
                self._include_finding("include-missing", f"{what} does not exist", checks & check)
            else:
                self._include_finding(
                    "include-unmatched",
                    f"no file matches {pattern}",
                    checks & IncludeCheck.WILDCARD_MATCH,
                    Severity.NOTE,
                )
            return False
        if found.missing:
            what = " and ".join(found.missing[:3])
            self._include_finding(
                "include-missing", f"{what} does not exist", checks & IncludeCheck.BRACE_MATCH
            )
            return not checks & IncludeCheck.BRACE_MATCH
        return True

    def _include_finding(
        self, code: str, what: str, checked: IncludeCheck, otherwise: Severity = Severity.WARNING
    ) -> None:
        """keepalived only logs what include_check and the kind of include do not ask to be checked."""
        self.findings.add(
            Severity.ERROR if checked else otherwise,
            code,
            f"{what}; nothing is included",
            Span(self._file, self._line, first_column(self._source_line), len(self._source_line.strip())),
            source_line=self._source_line,
            exit_status=ExitStatus.CANNOT_RUN if checked else ExitStatus.OK,
        )

    # --- findings ----------------------------------------------------------------------------------------

    def _unpaired_quote(self, line: str, text: str, quote: int) -> None:
        column = line.find(text[:8]) + quote + 1
        self._report(
            "unpaired-quote",
            "this double quote has no partner on the line",
            "close it on the same line; '\\\"' is a quote within a script's words",
            Span(self._file, self._line, column),
        )

    def _report(self, code: str, message: str, remedy: str = "", span: Span | None = None) -> None:
        """An error about the line being worked on."""
        self._finding(Severity.ERROR, code, message, remedy, span)

    def _finding(
        self,
        severity: Severity,
        code: str,
        message: str,
        remedy: str = "",
        span: Span | None = None,
        exit_status: ExitStatus = ExitStatus.CONFIG_ERRORS,
    ) -> None:
        """Something about the line being worked on."""
        line = self._source_line
        self.findings.add(
            severity,
            code,
            message,
            span or Span(self._file, self._line, first_column(line), max(1, len(line.strip()))),
            source_line=line,
            remedy=remedy,
            identity=line.strip(),
            exit_status=exit_status,
        )

    def _fatal(self, code: str, message: str, path: str) -> None:
        self.findings.add(Severity.FATAL, code, message, Span(path, 0), exit_status=ExitStatus.CANNOT_RUN)

    def _fatal_here(self, code: str, message: str) -> None:
        self.findings.add(
            Severity.FATAL,
            code,
            message,
            Span(self._file, self._line),
            source_line=self._source_line,
            exit_status=ExitStatus.CANNOT_RUN,
        )


def _usual(line: str) -> _Usual | None:
    """A line of plain words, of ``words {`` or of ``}`` alone; None for one that needs a closer look."""
    special = find_special(line)
    if special is None:
        texts = line.split()
        return None if texts and texts[0] in _ACTED_ON else (texts, line, -1)
    brace = special.start()
    if len(line.rstrip(BLANKS)) != brace + 1:
        return None
    text = line[:brace].rstrip(BLANKS)
    if line[brace] == "{":
        return text.split(), text, brace
    return ([], "", brace) if line[brace] == "}" and not text.strip(BLANKS) else None
