"""The words of the command line: which options there are, and what a line of them asks for. Pure.

Letters and long names are keepalived 2.4.3's, those included that depend on how it was built; the syntax is
that of getopt_long (options and arguments in any order, long names may be shortened).
"""

from __future__ import annotations

import posixpath
from collections.abc import Generator, Iterator, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

from kad.config.numbers import c_integer


class Mode(Enum):
    RUN = auto()
    TEST = auto()
    VERSION = auto()
    HELP = auto()
    SIGNUM = auto()
    GENHASH = auto()
    FAIL = auto()


class Takes(Enum):
    NOTHING = auto()
    VALUE = auto()
    MAYBE = auto()
    """A value only when it is attached: ``-tLOG``, ``--config-test=LOG``."""


class Option(NamedTuple):
    """One option. ``letter`` "": it has only its long name."""

    letter: str
    name: str
    takes: Takes
    group: str
    value: str
    help: str
    sets: tuple[tuple[str, Any], ...] = ()
    """Fields of Options and what becomes of them; without: :func:`_special` knows."""
    field: str = ""
    """The field of Options that gets the value."""
    is_path: bool = False
    not_acting: str = ""
    """What asking for it does not do yet."""


_NO, _VALUE, _MAYBE = Takes.NOTHING, Takes.VALUE, Takes.MAYBE
_CONFIG, _WHAT, _LOG, _STOP = "Configuration", "What runs", "Logging", "Addresses and servers"
_PROCESS, _FILES, _LATER = "Processes", "Files", "Accepted, without effect so far"
_OTHER = "Other"

OPTIONS: tuple[Option, ...] = (
    Option(
        "f", "use-file", _VALUE, _CONFIG, "FILE",
        "read this configuration (default /etc/keepalived/keepalived.conf)",
        field="config_file", is_path=True,
    ),
    Option(
        "t", "config-test", _MAYBE, _CONFIG, "LOG",
        "test the configuration and exit: 0 good, 2 an argument is missing, 4 cannot run, 5 "
        "errors, 6 scripts without script security; "
        "messages go to stderr or are appended to LOG",
    ),
    Option("", "offline", _NO, _CONFIG, "", "with -t: judge the text alone, not this machine"),
    Option(
        "i", "config-id", _VALUE, _CONFIG, "ID",
        "which lines beginning with @ID or @^ID are for this node "
        "(default: its host name, without the domain)",
        field="config_id",
    ),
    Option(
        "e", "all-config", _NO, _CONFIG, "", "every include must find a file",
        sets=(("include_all", True),),
    ),
    Option(
        "d", "dump-conf", _NO, _CONFIG, "", "log the configuration as it was understood",
        sets=(("dump_configuration", True),),
    ),
    Option("P", "vrrp", _NO, _WHAT, "", "no health checker", sets=(("run_check", False),)),
    Option("C", "check", _NO, _WHAT, "", "no VRRP", sets=(("run_vrrp", False),)),
    Option("B", "no_bfd", _NO, _WHAT, "", "no BFD", sets=(("run_bfd", False),)),
    Option(
        "", "all", _NO, _WHAT, "", "run every process, whether it is configured or not",
        sets=(("run_all", True), ("run_vrrp", True), ("run_check", True), ("run_bfd", True)),
    ),
    Option(
        "s", "namespace", _VALUE, _WHAT, "NAME",
        "run in this network namespace (before net_namespace in the configuration)",
        field="net_namespace",
    ),
    Option("l", "log-console", _NO, _LOG, "", "log to the terminal too", sets=(("log_console", True),)),
    Option("D", "log-detail", _NO, _LOG, "", "log in detail; twice: more"),
    Option(
        "S", "log-facility", _VALUE, _LOG, "FACILITY",
        "syslog facility: 0-7, local0-local7, user or daemon (default)",
    ),
    Option("g", "log-file", _MAYBE, _LOG, "FILE", "log to FILE too (default /tmp/keepalived.log)"),
    Option("", "flush-log-file", _NO, _LOG, "", "write each line at once (it always does)", sets=()),
    Option("G", "no-syslog", _NO, _LOG, "", "do not log to syslog", sets=(("log_syslog", False),)),
    Option(
        "a", "address-monitoring", _NO, _LOG, "", "log every address that comes or goes",
        sets=(("log_address_changes", True),),
    ),
    Option(
        "X", "release-vips", _NO, _STOP, "",
        "remove virtual addresses on becoming BACKUP even if they were there before",
        sets=(("release_vips", True),),
    ),
    Option(
        "V", "dont-release-vrrp", _NO, _STOP, "", "leave addresses and routes in place at stop",
        sets=(("keep_vips_at_stop", True),),
    ),
    Option(
        "I", "dont-release-ipvs", _NO, _STOP, "", "leave virtual servers in place at stop",
        sets=(("keep_ipvs_at_stop", True),),
    ),
    Option(
        "", "put-back-ipvs", _NO, _STOP, "",
        "put back every ten seconds what others change among kad's virtual servers (default: only log it)",
        sets=(("put_back_ipvs", True),),
    ),
    Option("n", "dont-fork", _NO, _PROCESS, "", "stay in the foreground", sets=(("foreground", True),)),
    Option(
        "R", "dont-respawn", _NO, _PROCESS, "", "stop when a child process dies",
        sets=(("respawn", False),),
    ),
    Option(
        "", "ignore-sigint", _NO, _PROCESS, "", "do not stop on SIGINT",
        sets=(("ignore_sigint", True),),
    ),
    Option("u", "umask", _VALUE, _PROCESS, "MASK", "umask for files, as a number"),
    Option(
        "", "run-dir", _VALUE, _FILES, "DIR", "run directory (default /run/kad/NAME)",
        field="run_directory", is_path=True,
    ),
    Option(
        "p", "pid", _VALUE, _FILES, "FILE", "pid file of the daemon", field="pid_file", is_path=True
    ),
    Option(
        "r", "vrrp_pid", _VALUE, _FILES, "FILE", "pid file of the VRRP process",
        field="vrrp_pid_file", is_path=True,
    ),
    Option(
        "c", "checkers_pid", _VALUE, _FILES, "FILE", "pid file of the health checker",
        field="checkers_pid_file", is_path=True,
    ),
    Option(
        "b", "bfd_pid", _VALUE, _FILES, "FILE", "pid file of the BFD process",
        field="bfd_pid_file", is_path=True,
    ),
    Option("x", "snmp", _NO, _LATER, "", "SNMP", not_acting="there is no SNMP agent yet"),
    Option(
        "A", "snmp-agent-socket", _VALUE, _LATER, "FILE", "where the SNMP master agent listens",
        not_acting="there is no SNMP agent yet",
    ),
    Option("m", "core-dump", _NO, _LATER, "", "core dumps", not_acting="core dumps are left as they are"),
    Option(
        "M", "core-dump-pattern", _MAYBE, _LATER, "PATTERN", "where core dumps go",
        not_acting="core dumps are left as they are",
    ),
    Option(
        "", "perf", _MAYBE, _LATER, "WHEN", "performance data", not_acting="no performance data is taken"
    ),
    Option(
        "", "debug", _MAYBE, _LATER, "WHAT", "debugging output of keepalived's own parts",
        not_acting="kad has no such parts",
    ),
    Option(
        "", "no-mem-check", _NO, _LATER, "", "memory checks off", not_acting="kad has no memory checks"
    ),
    Option(
        "L", "mem-check-log", _NO, _LATER, "", "log memory checks", not_acting="kad has no memory checks"
    ),
    Option(
        "O", "openssl-mem-check", _NO, _LATER, "", "memory checks of OpenSSL",
        not_acting="kad has no memory checks",
    ),
    Option(
        "", "config-fd", _VALUE, _LATER, "NUMBER", "keepalived's own, for its reload test",
        not_acting="kad hands no configuration over like that",
    ),
    Option(
        "", "signum", _VALUE, _OTHER, "NAME",
        "print the number of a signal: STOP, RELOAD, DATA, STATS, STATS_CLEAR, JSON",
    ),
    Option(
        "T", "genhash", _NO, _OTHER, "",
        "be genhash: print the digest of a page (first option; --genhash -h tells more)",
    ),
    Option("v", "version", _NO, _OTHER, "", "print the version"),
    Option("h", "help", _NO, _OTHER, "", "print this"),
)  # fmt: skip

_BY_LETTER = {option.letter: option for option in OPTIONS if option.letter}
_BY_NAME = {option.name: option for option in OPTIONS}

FACILITIES = frozenset(["user", "daemon", *map(str, range(8)), *(f"local{number}" for number in range(8))])
UMASK_LIMIT = 0o777


class CommandLine:
    """What a command line asks for."""

    def __init__(self) -> None:
        self.mode = Mode.RUN
        self.values: dict[str, Any] = {}
        """Fields of :class:`kad.runtime.process.Options`."""
        self.paths: set[str] = set()
        """Those fields that are paths as the caller's directory sees them."""
        self.test_log = ""
        self.offline = False
        self.signum = ""
        self.errors: list[str] = []
        """With one of these nothing is done."""
        self.warnings: list[str] = []
        self.strays: list[str] = []
        """Arguments that are no option's: said, and otherwise let be, as keepalived does."""
        self.not_acting: list[str] = []


class _Given(NamedTuple):
    option: Option
    shown: str
    value: str | None


def parse(arguments: Sequence[str], temporary_directory: str = "/tmp") -> CommandLine:
    """The command line without the program's name. Never raises; see :attr:`CommandLine.errors`."""
    line = CommandLine()
    for given in _split(list(arguments), line):
        option = given.option
        if option.takes is Takes.VALUE and not given.value:
            line.errors.append(f"Missing parameter for option {given.shown}")
            continue
        for field, value in option.sets:
            line.values[field] = value
        if option.field:
            line.values[option.field] = given.value
        if option.is_path:
            line.paths.add(option.field)
        if option.not_acting:
            line.not_acting.append(f"{given.shown} does nothing: {option.not_acting}")
        _special(line, given, temporary_directory)
        if line.mode in (Mode.VERSION, Mode.HELP, Mode.SIGNUM, Mode.GENHASH):
            # As keepalived: it acts at once, whatever follows.
            break
    return line


def _special(line: CommandLine, given: _Given, temporary_directory: str) -> None:
    """Options that are more than a value for a field."""
    value = given.value or ""
    match given.option.name:
        case "config-test":
            line.mode, line.test_log = Mode.TEST, value
        case "offline":
            line.offline = True
        case "log-detail":
            line.values["log_detail"] = line.values.get("log_detail", 0) + 1
        case "log-facility" if value in FACILITIES:
            line.values["log_facility"] = value
        case "log-facility":
            line.warnings.append(f"Invalid log facility '{value}'")
        case "log-file":
            line.values["log_file"] = posixpath.join(temporary_directory, value or "keepalived.log")
        case "umask":
            _set_umask(line, value)
        case "signum":
            line.mode, line.signum = Mode.SIGNUM, value
        case "version":
            line.mode = Mode.VERSION
        case "help":
            line.mode = Mode.HELP
        case "genhash":
            line.mode = Mode.GENHASH


def _set_umask(line: CommandLine, text: str) -> None:
    """A number as C writes it: octal after 0, hexadecimal after 0x."""
    value = c_integer(text)
    if value is not None and value <= UMASK_LIMIT:
        line.values["umask"] = value
    else:
        line.warnings.append(f"Invalid umask '{text}'")


def _split(words: list[str], line: CommandLine) -> Iterator[_Given]:
    """The options in their order; what is none goes into ``line``."""
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            line.strays += words[position:]
            return
        if word.startswith("--"):
            name, equals, attached = word[2:].partition("=")
            option = _find_long(name)
            if option is None or (equals and option.takes is Takes.NOTHING):
                line.errors.append(f"Unknown option {word}")
                continue
            value = attached if equals else None
            if option.takes is Takes.VALUE and not equals and position < len(words):
                value = words[position]
                position += 1
            yield _Given(option, f"--{option.name}", value)
        elif word.startswith("-") and len(word) > 1:
            following = words[position] if position < len(words) else None
            used = yield from _split_letters(word, following, line)
            position += used
        else:
            line.strays.append(word)


def _split_letters(word: str, following: str | None, line: CommandLine) -> Generator[_Given, None, int]:
    """A cluster of letters; returns how many of the following words it used."""
    for index, letter in enumerate(word[1:], 1):
        option = _BY_LETTER.get(letter)
        if option is None:
            line.errors.append(f"Unknown option -{letter}")
            continue
        if option.takes is Takes.NOTHING:
            yield _Given(option, f"-{letter}", None)
            continue
        rest = word[index + 1 :]
        if rest or option.takes is Takes.MAYBE:
            yield _Given(option, f"-{letter}", rest or None)
            return 0
        yield _Given(option, f"-{letter}", following)
        return 1
    return 0


def _find_long(name: str) -> Option | None:
    """By the whole name, or a beginning that only one name has."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    found = [option for option in OPTIONS if name and option.name.startswith(name)]
    return found[0] if len(found) == 1 else None


def usage(program: str) -> str:
    """The text of --help, by groups."""
    lines = [f"Usage: {program} [OPTION...]"]
    group = ""
    for option in OPTIONS:
        if option.group != group:
            group = option.group
            lines += ["", f"{group}:"]
        lines += _usage_lines(option)
    return "\n".join(lines)


_HELP_COLUMN = 34
_WIDTH = 100


def _usage_lines(option: Option) -> list[str]:
    letter = f"-{option.letter}, " if option.letter else "    "
    value = {_NO: "", _VALUE: f"={option.value}", _MAYBE: f"[={option.value}]"}[option.takes]
    head = f"  {letter}--{option.name}{value}"
    lines: list[str] = []
    text = ""
    for word in option.help.split():
        if text and _HELP_COLUMN + len(text) + 1 + len(word) > _WIDTH:
            lines.append(text)
            text = word
        else:
            text = f"{text} {word}".strip()
    lines.append(text)
    padded = [line if number == 0 else "  " + line for number, line in enumerate(lines)]
    return [f"{head if number == 0 else '':<{_HELP_COLUMN - 1}} {line}" for number, line in enumerate(padded)]
