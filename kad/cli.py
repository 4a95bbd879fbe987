"""``kad``: the command line's modes, up to the point where the daemon runs.

Nothing heavy is imported before it is clear that the daemon is to run: ``kad -t`` is called from scripts.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, TextIO

from kad import __version__
from kad.command_line import CommandLine, Mode, parse, usage

if TYPE_CHECKING:
    from kad.config.load import Loaded

SIGNALS = {
    "STOP": ("SIGTERM", 0),
    "RELOAD": ("SIGHUP", 0),
    "DATA": ("SIGUSR1", 0),
    "STATS": ("SIGUSR2", 0),
    "STATS_CLEAR": ("SIGRTMAX", -1),
    "JSON": ("SIGRTMIN", 2),
}
"""What --signum knows."""
KEEPALIVED = "keepalived"
MODEL_VERSION = "2.4.3"
"""The keepalived whose configurations are understood."""
DEFAULT_FILE = "/etc/keepalived/keepalived.conf"
FAILURE = 1
DEFECT = 70


class NoNamespaceError(Exception):
    """The network namespace that was asked for cannot be entered."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    _mend_standard_streams()
    line = parse(sys.argv[1:] if arguments is None else arguments, os.environ.get("TMPDIR") or "/tmp")
    for text in (*line.errors, *line.warnings):
        print(text, file=sys.stderr)
    if line.strays:
        print("Unexpected argument(s):", *line.strays)
    if line.errors:
        return FAILURE
    line.values.setdefault("config_id", _node_name())
    match line.mode:
        case Mode.VERSION:
            _print_version(_program())
            return 0
        case Mode.HELP:
            print(usage(_program()))
            return 0
        case Mode.SIGNUM:
            return _print_signal(line.signum)
        case Mode.GENHASH:
            return _be_genhash(sys.argv[1:] if arguments is None else arguments)
        case Mode.TEST:
            status = _test(line)
            if arguments is None:
                _leave_at_once(status)
            return status
        case _:
            return _run(line)


def _node_name() -> str:
    """What ``@NAME`` lines mean by this node where -i says nothing: its host name, without the domain."""
    return os.uname().nodename.partition(".")[0]


def _program() -> str:
    """keepalived, where a link of that name led here: then answers are as its users' programs expect."""
    return KEEPALIVED if os.path.basename(sys.argv[0]) == KEEPALIVED else "kad"


def _print_version(program: str) -> None:
    if program == KEEPALIVED:
        # Exporters take the second word of the first line, and look for --enable-json in the rest.
        print(f"Keepalived v{MODEL_VERSION} (kad {__version__})\n", file=sys.stderr)
        print("Configure options: --enable-json", file=sys.stderr)
    else:
        print(f"kad v{__version__}, for configurations of Keepalived v{MODEL_VERSION}", file=sys.stderr)


def _mend_standard_streams() -> None:
    """Whoever closed one of them must not find a socket or a file of ours under its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the life of the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as above


def _print_signal(name: str) -> int:
    import signal

    if name not in SIGNALS:
        print(f"Unknown sigfunc {name}", file=sys.stderr)
        return FAILURE
    number, offset = SIGNALS[name]
    print(int(getattr(signal, number)) + offset)
    return 0


def _be_genhash(words: Sequence[str]) -> int:
    if words[0] not in ("-T", "--genhash"):
        print("--genhash must be the first option", file=sys.stderr)
        return FAILURE
    from importlib import import_module

    # By name: kad imports no child.
    status: int = import_module("kad_check.genhash").main(words[1:])
    return status


# -t ------------------------------------------------------------------------------------------------------


def _test(line: CommandLine) -> int:
    """Read, say everything that was found, and answer with keepalived's status."""
    for text in line.not_acting:
        print(text, file=sys.stderr)
    try:
        out = _open_log(line.test_log) if line.test_log else sys.stderr
    except OSError as error:
        print(f"Unable to open config-test log file {line.test_log}: {error.strerror}", file=sys.stderr)
        return FAILURE
    try:
        namespace = line.values.get("net_namespace")
        if namespace and not line.offline:
            _enter_namespace(namespace)
        loaded = _load(line, out)
        _print_findings(loaded, out)
        return int(loaded.exit_status)
    except NoNamespaceError as error:
        out.write(f"{error}\n")
        return FAILURE
    except BrokenPipeError:
        return FAILURE
    except Exception as error:  # noqa: BLE001 - the caller gets a sentence and a status, whatever it is
        print(f"kad -t: a defect of kad's own: {error!r}", file=sys.stderr)
        return DEFECT


def _leave_at_once(status: int) -> NoReturn:
    """Freeing a large configuration piece by piece takes a quarter of the time of reading it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _open_log(path: str) -> TextIO:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return open(os.open(path, flags, 0o644), "w", encoding="utf-8", errors="backslashreplace")


def _load(line: CommandLine, out: TextIO) -> Loaded:
    # The process lives for one reading, and the reader bounds its memory.
    gc.disable()
    from kad.config.load import load
    from kad.config.machine import LocalMachine

    def read(machine: LocalMachine | None) -> Loaded:
        return load(
            line.values.get("config_file", DEFAULT_FILE),
            machine=machine,
            config_id=line.values["config_id"],
            environment=os.environ,
            include_all=line.values.get("include_all", False),
            once=True,
        )

    loaded = read(None if line.offline else LocalMachine())
    namespace = loaded.config.globals.net_namespace
    if line.offline or line.values.get("net_namespace") or not namespace:
        return loaded
    # The interfaces are over there, wherever in the text the word stands: once more, from there.
    try:
        _enter_namespace(namespace)
    except NoNamespaceError as error:
        out.write(f"{error}; its interfaces are not looked at\n")
        return read(LocalMachine(sees_interfaces=False))
    return read(LocalMachine())


def _print_findings(loaded: Loaded, out: TextIO) -> None:
    from kad.config.diagnostics import render

    counts: dict[str, int] = {}
    for finding in loaded.findings:
        out.write(render(finding) + "\n")
        counts[finding.severity.value] = counts.get(finding.severity.value, 0) + 1
    if counts:
        said = ", ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items())
        out.write(f"{said}\n")
    out.flush()


# The daemon ----------------------------------------------------------------------------------------------


def _run(line: CommandLine) -> int:
    # First of all: a signal that comes from here on waits for the supervisor.
    from kad.supervisor import signals

    signals.block()
    # What is imported stays: a fifth of the time of importing would go into looking for garbage among it.
    gc.disable()
    from kad.runtime.readahead import fetch_modules

    fetch_modules()
    from kad.control.names import with_configured_names
    from kad.errors import in_words
    from kad.runtime.process import Options, close_descriptors_except
    from kad.runtime.rundir import RunDirectoryInUse, run_directory_path

    # A pipe somebody forgot to close would stay open for as long as the daemon runs.
    close_descriptors_except(())
    for text in line.not_acting:
        print(text, file=sys.stderr)
    try:
        for field in line.paths:
            line.values[field] = _absolute(line.values[field])
        options = with_configured_names(
            Options(**line.values, program=_program(), not_acting=tuple(line.not_acting))
        )
        _check_length(run_directory_path(options))
        if options.net_namespace:
            _enter_namespace(options.net_namespace)
    except (OSError, ValueError, RunDirectoryInUse, NoNamespaceError) as error:
        print(f"kad: {in_words(error)}", file=sys.stderr)
        return FAILURE
    from kad.supervisor.loop import run

    return run(options)


def _absolute(path: str) -> str:
    """A daemon changes to the root directory."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: the current directory is gone; name the file from / on") from None


def _check_length(directory: str) -> None:
    """Sockets live there, and the kernel takes 107 bytes for the name of one."""
    longest = os.path.join(directory, "control.ipc")
    if len(os.fsencode(longest)) > 107:
        raise ValueError(
            f"the run directory's name is too long for sockets in it (--run-dir names another): {directory}"
        )


def _enter_namespace(name: str) -> None:
    from kad.runtime.namespace import enter_network_namespace

    try:
        enter_network_namespace(name)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise NoNamespaceError(f"network namespace {name}: {reason} (ip netns lists them)") from None
