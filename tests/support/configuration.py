"""Configurations for tests: read in memory on an invented machine, with expectations as comments in the text.

A line that ends in ``# code`` (or ``# code/status``, several separated by blanks) expects these findings and
no others; without a status, 5 is meant, keepalived's answer to most errors.
"""

from __future__ import annotations

import re

from kad.config.load import Loaded, load
from kad.config.machine import FoundScript, LocalMachine, SslProblem, User
from kad.config.model.check import SslContext
from kad.config.model.script import ScriptCommand
from kad.config.source import TextReader
from kad.config.text import ConfigurationText, read_tree

NAME = "keepalived.conf"
SECURE = "script_user root\nenable_script_security"
_EXPECTED = re.compile(r"#((?: [a-z0-9-]+(?:/\d)?)+)$")
_USERS = {"root": User("root", 0, 0), "alice": User("alice", 1000, 1000)}

Finding = tuple[int, str, int]
"""Line (0: none), code, exit status."""


def parse_text(
    text: str | bytes, name: str = NAME, *, config_id: str | None = None, seed: int | None = None
) -> ConfigurationText:
    """The statements of one text in memory."""
    return read_tree(name, config_id=config_id, reader=TextReader({name: text}), seed=seed)


class InventedMachine(LocalMachine):
    """Has every interface but those called ``absent…``, the users root and alice, the group staff; is root.

    Every script can be run but those whose path has ``absent``, and others may write to those with ``open``.
    """

    def has_interface(self, name: str) -> bool:
        return not name.startswith("absent")

    def user_named(self, name: str) -> User | None:
        return _USERS.get(name)

    def group_named(self, name: str) -> int | None:
        return {"root": 0, "staff": 50}.get(name)

    def groups_of(self, user: User) -> tuple[int, ...]:
        return (user.gid,)

    def current_user(self) -> User:
        return _USERS["root"]

    def ssl_problem(self, settings: SslContext) -> SslProblem | None:
        used = settings.ca_file + settings.certificate_file + settings.key_file
        return SslProblem("it is absent", usable=False) if "absent" in used else None

    def script(self, command: ScriptCommand, *, keep_links: bool) -> FoundScript:
        path = command.argv[0]
        if "absent" in path:
            return FoundScript(None, "it is absent")
        return FoundScript(command, insecure="others may write to it" if "open" in path else "")


def read(text: str, global_defs: str = SECURE) -> Loaded:
    """Read a configuration; the lines of ``global_defs`` are put below it, where they hold as well."""
    whole = f"{text}\nglobal_defs {{\n{global_defs}\n}}\n"
    return load(NAME, reader=TextReader({NAME: whole}), machine=InventedMachine())


def findings(loaded: Loaded) -> set[Finding]:
    return {(d.span.line if d.span else 0, d.code, int(d.exit_status)) for d in loaded.diagnostics}


def expected(text: str) -> set[Finding]:
    """The findings that the comments of a text name."""
    found = set()
    for number, line in enumerate(text.split("\n"), 1):
        match = _EXPECTED.search(line)
        for each in match[1].split() if match else ():
            code, _, status = each.partition("/")
            found.add((number, code, int(status or 5)))
    return found


def assert_as_annotated(text: str, global_defs: str = SECURE) -> Loaded:
    """The findings are those of the comments, neither more nor fewer."""
    loaded = read(text, global_defs)
    told = [(d.span.line if d.span else 0, d.code, d.message) for d in loaded.diagnostics]
    assert findings(loaded) == expected(text), told
    return loaded
