"""Commands that a configuration asks to run, and as whom they run. Their words: kad.config.script_words."""

from __future__ import annotations

import msgspec

from kad.config.machine import User
from kad.config.model.script import ScriptCommand
from kad.config.schema import NOTHING, Frame, Kind, Reading
from kad.config.script_words import Unbalanced, split_script
from kad.config.tree import Statement
from kad.errors import ExitStatus

DEFAULT_SCRIPT_USER = "keepalived_script"


class Identity:
    """As whom a script runs; ``known`` False: not looked up (``--offline``)."""

    __slots__ = ("groups", "known", "user")

    def __init__(self, user: User, groups: tuple[int, ...], known: bool = True) -> None:
        self.user = user
        self.groups = groups
        self.known = known


_UNKNOWN = Identity(User("", 0, 0), (), known=False)


def identity(reading: Reading, names: list[str]) -> Identity | str:
    """The identity that ``user [[:]group]`` names, or what is wrong with it, for people."""
    if reading.machine is None:
        return _UNKNOWN
    user = reading.machine.user_named(names[0])
    if user is None:
        return f"the user '{names[0]}' does not exist"
    supplementary = bool(reading.globals.get("set_supplementary_groups"))
    group = names[1] if len(names) > 1 else ""
    if group.startswith(":"):
        supplementary, group = True, group[1:]
    groups = reading.machine.groups_of(user) if supplementary else ()
    if group:
        gid = reading.machine.group_named(group)
        if gid is None:
            return f"the group '{group}' does not exist"
        user = User(user.name, user.uid, gid)
    return Identity(user, groups)


def default_identity(reading: Reading, frame: Frame, statement: Statement) -> Identity | None:
    """script_user, else keepalived_script, else (without enable_script_security) the user kad runs as.

    None: there is none, and scripts without a user of their own cannot run; the reason is reported once.
    """
    known = reading.default_identity
    if isinstance(known, Identity):
        return known
    if known == "failed":
        return None
    if reading.machine is None:
        return _UNKNOWN
    found = identity(reading, [DEFAULT_SCRIPT_USER])
    if isinstance(found, str):
        if reading.globals.get("enable_script_security"):
            reading.default_identity = "failed"
            reading.error(
                "no-script-user",
                f"enable_script_security needs the user {DEFAULT_SCRIPT_USER}, which does not exist;"
                " scripts without a user of their own do not run",
                frame,
                statement,
                remedy=f"create {DEFAULT_SCRIPT_USER}, or name a script_user in global_defs",
                machine=True,
            )
            return None
        found = Identity(reading.machine.current_user(), ())
    reading.default_identity = found
    return found


def read_script_user(reading: Reading, frame: Frame, statement: Statement) -> object:
    """``script_user USER [GROUP]`` of global_defs."""
    names = statement.texts[1:]
    if not names:
        reading.error("missing-value", "'script_user' names no user", frame, statement, 0)
        return NOTHING
    found = identity(reading, names)
    if isinstance(found, str):
        reading.default_identity = "failed"
        reading.error(
            "bad-script-user",
            f"'script_user': {found}; scripts without a user of their own do not run",
            frame,
            statement,
            1,
            remedy="create the user, or name another",
            machine=True,
        )
    elif found.known:
        reading.default_identity = found
    return tuple(names)


def script(appended: str = "") -> Kind:
    """A command, and ``[USER [GROUP]]``. ``appended``: arguments added when it runs, for people."""

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        if len(statement.texts) < 2:
            reading.missing(frame, statement, "command")
            return NOTHING
        command = read_command(reading, frame, statement)
        if command is None:
            return NOTHING
        argv, names = command
        if len(names) > 2:
            _words_after(reading, frame, statement, names[2:], "write SCRIPT USER GROUP")
        who = script_identity(reading, frame, statement, names)
        return NOTHING if who is None else command_of(argv, who)

    return Kind("script [user [group]]" + (f" ({appended} appended)" if appended else ""), read)


def command_alone(reading: Reading, frame: Frame, statement: Statement) -> object:
    """Reads a keyword that takes a command and nothing else, as argv. Of none is told when its block ends."""
    if len(statement.texts) < 2:
        return NOTHING
    command = read_command(reading, frame, statement)
    if command is None:
        return NOTHING
    argv, more = command
    if more:
        remedy = f'{statement.texts[0]} "COMMAND ARGUMENT …", in quotes as a whole'
        _words_after(reading, frame, statement, more, remedy)
    return argv


def _words_after(reading: Reading, frame: Frame, statement: Statement, words: list[str], remedy: str) -> None:
    """keepalived says nothing of them."""
    reading.warning(
        "extra-words",
        f"'{statement.texts[0]}': '{' '.join(words)}' after the command is ignored",
        frame,
        statement,
        max(1, len(statement.texts) - len(words)),
        remedy=remedy,
        status=ExitStatus.OK,
    )


def read_command(reading: Reading, frame: Frame, statement: Statement) -> tuple[list[str], list[str]] | None:
    """argv and what follows it (user, group); None after reporting."""
    words = split_script(statement.raw)
    if isinstance(words, Unbalanced):
        reading.error(
            "unmatched-quote", f"'{statement.texts[0]}': {words.what}; ignored", frame, statement, 1
        )
        return None
    if not words.arguments:
        reading.missing(frame, statement, "command")
        return None
    return words.arguments, words.rest


def script_identity(
    reading: Reading, frame: Frame, statement: Statement, names: list[str]
) -> Identity | None:
    """Who runs the script of this line. keepalived only logs a failure here: the status is not changed."""
    if not names:
        who = default_identity(reading, frame, statement)
        reason = "there is no default script user"
    else:
        found = identity(reading, names)
        who, reason = (None, found) if isinstance(found, str) else (found, "")
    if who is None:
        reading.error(
            "script-user",
            f"'{statement.texts[0]}' is ignored: {reason}",
            frame,
            statement,
            0,
            status=ExitStatus.OK,
            machine=True,
        )
    return who


def command_of(argv: list[str], who: Identity) -> ScriptCommand:
    return ScriptCommand(tuple(argv), "", who.user.uid, who.user.gid, who.groups)


Place = tuple[Frame | None, Statement | None]


class Verdict:
    """Whether a command can run, and what is wrong with it."""

    __slots__ = ("command", "only_logged", "problem")

    def __init__(self, command: ScriptCommand | None, problem: str = "", only_logged: bool = False) -> None:
        self.command = command
        """With its executable looked up; None: it must not or cannot run."""
        self.problem = problem
        self.only_logged = only_logged
        """keepalived -t does not change its status for it."""


class Vetting:
    """Judges the scripts of one part of the configuration, and complains once if security is off."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self._first: Place | None = None
        """Where a script stands that can run."""
        self._insecure: tuple[str, Place] | None = None
        self._known: dict[ScriptCommand, Verdict] = {}

    def judge(self, command: ScriptCommand, frame: Frame | None, statement: Statement | None) -> Verdict:
        """Look the command up as the user who runs it, and at who could have changed it.

        ``statement``, in ``frame``, is where it stands.
        """
        known = self._known.get(command)
        if known is None:
            known = self._known[command] = self._judge(command, (frame, statement))
        return known

    def _judge(self, command: ScriptCommand, place: Place) -> Verdict:
        reading = self.reading
        first = command.argv[0]
        if first.startswith("<") and first[1:].lstrip(" \t").startswith("/"):
            # Not a script: can the file be opened?
            return Verdict(msgspec.structs.replace(command, through_shell=True))
        if reading.machine is None:
            self._first = self._first or place
            return Verdict(command)
        found = reading.machine.script(command, keep_links=bool(reading.globals.get("use_symlink_paths")))
        if found.command is None:
            return Verdict(None, found.problem)
        self._first = self._first or place
        if not found.executable:
            return Verdict(None, "it is not executable for its user", only_logged=True)
        if found.insecure:
            self._insecure = self._insecure or (found.insecure, place)
            if reading.globals.get("enable_script_security"):
                return Verdict(None, found.insecure)
        return Verdict(found.command)

    def complain(self, what: str, *, silent: bool = False) -> None:
        """Scripts run, but what others could have changed is not refused: keepalived's status 6."""
        if self._first is None or self.reading.globals.get("enable_script_security"):
            return
        why, (frame, statement) = self._insecure or ("", self._first)
        worse = f" Not only root decides what is run: {why}." if why else ""
        self.reading.warning(
            "script-security",
            f"{what} run, but enable_script_security is not set.{worse}",
            frame,
            statement,
            1,
            remedy="enable_script_security in global_defs",
            status=ExitStatus.OK if silent else ExitStatus.SCRIPT_SECURITY,
        )
