"""Configurations for tests: read in memory on an invented machine, with expectations as comments in the text.

A line that ends in ``# code`` (or ``# code/status``, several separated by blanks) expects these findings and
no others; without a status, 5 is meant, keepalived's answer to most errors.
"""

from __future__ import annotations

import re
from typing import Any

from kad.config.build import read_root
from kad.config.grammar import bfd, check
from kad.config.machine import LocalMachine, Machine, User
from kad.config.model.bfd import BfdConfiguration
from kad.config.model.check import CheckConfiguration
from kad.config.schema import NOTHING, Block, Frame, Kind, Reading, Row
from kad.config.text import parse_text
from kad.config.tree import Statement
from kad.errors import Diagnostic

_EXPECTED = re.compile(r"#((?: [a-z-]+(?:/\d)?)+)$")


class InventedMachine(LocalMachine):
    """Has every interface, the users root and alice, and the group staff; runs as root."""

    def has_interface(self, name: str) -> bool:
        return True

    def user_named(self, name: str) -> User | None:
        return {"root": User("root", 0, 0), "alice": User("alice", 1000, 1000)}.get(name)

    def group_named(self, name: str) -> int | None:
        return {"root": 0, "staff": 50}.get(name)

    def groups_of(self, user: User) -> tuple[int, ...]:
        return (user.gid,)

    def current_user(self) -> User:
        return User("root", 0, 0)


class Read:
    """What came of reading a text."""

    def __init__(
        self, diagnostics: list[Diagnostic], check: CheckConfiguration, bfd: BfdConfiguration
    ) -> None:
        self.diagnostics = diagnostics
        self.check = check
        self.bfd = bfd

    @property
    def findings(self) -> set[tuple[int, str, int]]:
        """(line, code, exit status) of each."""
        return {(d.span.line if d.span else 0, d.code, int(d.exit_status)) for d in self.diagnostics}


def _define_file(reading: Reading, frame: Frame, statement: Statement) -> object:
    reading.define("track_file", statement.texts[1], object())
    return NOTHING


_ROOT = Block(
    "(root)",
    (
        Row("track_file", Kind("name", _define_file), "A file, for the tests of FILE_CHECK."),
        *check.ROOT_ROWS,
        *bfd.ROOT_ROWS,
    ),
)


def read(text: str, machine: Machine | None = None, **settings: Any) -> Read:
    """Read a configuration's load-balancing and BFD parts; ``settings`` are fields of global_defs."""
    parsed = parse_text(text)
    reading = Reading(machine or InventedMachine())
    reading.globals.update(settings)
    root = read_root(reading, _ROOT, parsed.statements)
    services = check.finish(reading, root)
    sessions = bfd.finish(reading, root)
    return Read([*parsed.diagnostics, *reading.diagnostics], services, sessions)


def expected(text: str) -> set[tuple[int, str, int]]:
    """The findings that the comments of a text name."""
    found = set()
    for number, line in enumerate(text.split("\n"), 1):
        match = _EXPECTED.search(line)
        for each in match[1].split() if match else ():
            code, _, status = each.partition("/")
            found.add((number, code, int(status or 5)))
    return found


def assert_as_annotated(text: str, **settings: Any) -> Read:
    """The findings are those of the comments, neither more nor fewer."""
    found = read(text, **settings)
    wanted = expected(text)
    told = {(d.span.line if d.span else 0, d.code): d.message for d in found.diagnostics}
    assert found.findings == wanted, told
    return found
