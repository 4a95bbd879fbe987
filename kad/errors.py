"""What can go wrong, as values: diagnostics of a configuration, exit statuses, and kad's own exceptions.

A configuration problem is never an exception: it is a :class:`Diagnostic`, collected with all the others.
"""

from enum import IntEnum, StrEnum

from msgspec import Struct


class KadError(Exception):
    """Base of every error kad raises on purpose."""


def in_words(error: Exception) -> str:
    """An error for people: of the system's, which file it is about and what is wrong with it."""
    if isinstance(error, OSError) and error.strerror:
        name = error.filename
        if isinstance(name, bytes):
            name = name.decode("utf-8", "surrogateescape")
        shown = name if isinstance(name, str) else ""
        return f"{shown}: {error.strerror}" if shown else error.strerror
    return str(error)


class ExitStatus(IntEnum):
    """Exit statuses of the daemon and of ``kad -t``, with keepalived 2.4.3's numbers."""

    OK = 0
    FATAL = 1
    USAGE = 1
    MISSING_ARGUMENT = 2
    """A keyword lacks its argument (``kad -t``), or the configuration cannot be run (daemon)."""
    CANNOT_RUN = 4
    """The configuration cannot be run at all: file missing, no usable interface (``kad -t``)."""
    CONFIG_ERRORS = 5
    """Errors in the text, but the rest would run (``kad -t``)."""
    SCRIPT_SECURITY = 6
    """Scripts without enable_script_security, or insecure scripts (``kad -t``)."""
    SOFTWARE = 70
    """An uncaught exception: a defect of kad's own."""


class Severity(StrEnum):
    """How bad a finding is; apart from the exit status, which is keepalived's."""

    FATAL = "fatal"
    """The configuration cannot be run."""
    ERROR = "error"
    """Something written that will not take effect or cannot be right."""
    WARNING = "warning"
    NOTE = "note"


class Span(Struct, frozen=True):
    """A place in a configuration file. Lines and columns count from 1; column 0 means the whole line."""

    file: str
    line: int
    column: int = 0
    length: int = 1


class Diagnostic(Struct, frozen=True):
    """One finding about a configuration.

    ``identity`` is what makes two findings of two readings the same one: code, block path by name, keyword
    and value, never a line number. ``machine`` marks findings about this machine (an interface, a script, a
    user) rather than the text: they never refuse a reload. ``exit_status`` is what ``kad -t`` answers for it
    (OK when keepalived would not change its status for it).
    """

    severity: Severity
    code: str
    message: str
    span: Span | None = None
    remedy: str = ""
    identity: str = ""
    machine: bool = False
    exit_status: int = ExitStatus.OK
    source_line: str = ""
