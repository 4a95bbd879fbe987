"""A configuration file to everything kad needs of it, in one call that never raises for anything it reads.

``load`` = read the text (files, includes, definitions) → walk the statements along the grammar → resolve and
validate. What is wrong is in ``diagnostics``; what is left is in ``config``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from kad.config import straying, validate
from kad.config.build import read_root
from kad.config.diagnostics import MAX_DIAGNOSTICS, by_place
from kad.config.encoding import in_text
from kad.config.grammar import bfd, check
from kad.config.grammar.root import ROOT
from kad.config.includes import IncludeCheck
from kad.config.machine import Machine
from kad.config.model.config import Config
from kad.config.schema import Reading
from kad.config.services import with_settings
from kad.config.source import Reader
from kad.config.synchronisation import synchronised
from kad.config.text import read_tree
from kad.config.transcript import Transcript
from kad.config.tree import Statement
from kad.errors import Diagnostic, ExitStatus, Severity
from kad.garbage import collector_paused

_RANKS = (
    ExitStatus.OK,
    ExitStatus.CANNOT_RUN,
    ExitStatus.CONFIG_ERRORS,
    ExitStatus.SCRIPT_SECURITY,
    ExitStatus.MISSING_ARGUMENT,
)
"""keepalived's classes, the highest of which is the status of its -t: 4 below 5 below 6, and 2 at once."""


class Loaded(Struct, frozen=True):
    """What came out of a configuration."""

    config: Config
    diagnostics: tuple[Diagnostic, ...]
    """By place in the text; those without a place last."""
    digest: str
    """Of every file read, in order: tells whether the file on disk is what runs."""
    exit_status: int
    """What ``kad -t`` answers."""
    dormant: tuple[Diagnostic, ...] = ()
    """Keywords that are read but do not act yet: one NOTE each, for the start of the daemon."""

    @property
    def findings(self) -> list[Diagnostic]:
        """All that ``kad -t`` tells: diagnostics, and what does not act yet, by place."""
        return by_place((*self.diagnostics, *self.dormant))

    @property
    def runnable(self) -> bool:
        """False: nothing of it may be run (keepalived would not start with it either)."""
        return not any(each.severity is Severity.FATAL for each in self.diagnostics)

    @property
    def error_identities(self) -> tuple[str, ...]:
        """Identities of the errors in the text itself, for :func:`kad.config.diff.new_errors`."""
        return tuple(
            sorted(
                {
                    each.identity
                    for each in self.diagnostics
                    if each.severity in (Severity.FATAL, Severity.ERROR) and not each.machine
                }
            )
        )


def load(
    path: str,
    *,
    machine: Machine | None = None,
    config_id: str | None = None,
    reader: Reader | None = None,
    environment: Mapping[str, str] | None = None,
    seed: int | None = None,
    include_all: bool = False,
    once: bool = False,
    transcript: Transcript | None = None,
) -> Loaded:
    """Read the configuration at ``path``. ``machine`` None judges the text alone (``--offline``).
    ``include_all`` (``-e``): every include must find a readable file. ``once``: the process ends after it,
    and what was made on the way need not be freed.

    The other arguments are those of :func:`kad.config.text.read_tree`. Never raises for what a file holds.
    """
    with collector_paused():
        text = read_tree(
            path,
            config_id=config_id,
            reader=reader,
            environment=environment,
            seed=seed,
            include_check=IncludeCheck.ALL if include_all else IncludeCheck.NOTHING,
            transcript=transcript,
        )
        loaded = build(text.statements, text.diagnostics, text.digest, machine, once=once)
        return in_text(loaded) if text.holds_bytes else loaded


def build(
    statements: list[Statement],
    findings: Iterable[Diagnostic],
    digest: str,
    machine: Machine | None,
    *,
    once: bool = False,
) -> Loaded:
    """Statements to a configuration."""
    reading = Reading(machine)
    root = read_root(reading, ROOT, statements)
    config = Config(
        vrrp=validate.finish(reading, root),
        check=check.finish(reading, root),
        bfd=bfd.finish(reading, root),
        globals=validate.globals_of(reading, root),
    )
    config = synchronised(reading, root, config)
    config = replace(
        config,
        vrrp=validate.with_vrrp_settings(config.vrrp, config.globals),
        check=with_settings(config.check, config.globals),
    )
    findings = tuple(findings)
    if reading.strayed or any(each.code == "definition-missing" for each in findings):
        straying.tell(reading, statements)
    diagnostics = _bounded(by_place((*findings, *reading.diagnostics)))
    if not once:
        reading.end()
    return Loaded(
        config=config,
        diagnostics=diagnostics,
        digest=digest,
        exit_status=worst_status(diagnostics),
        dormant=not_acting(reading),
    )


def worst_status(diagnostics: Iterable[Diagnostic]) -> int:
    """The status of ``kad -t``: that of the highest class among the findings."""
    worst = max((_RANKS.index(ExitStatus(each.exit_status)) for each in diagnostics), default=0)
    return int(_RANKS[worst])


def not_acting(reading: Reading) -> tuple[Diagnostic, ...]:
    """One NOTE for each keyword that was read but does not act yet, at its first place."""
    notes = []
    for (path, keyword), statement in reading.dormant.items():
        where = "" if path == ROOT.path else f" in {path}"
        notes.append(
            Diagnostic(
                severity=Severity.NOTE,
                code="not-acting",
                message=f"'{keyword}'{where} is understood, but kad does not act on it yet",
                span=statement.words[0].span,
                identity=f"not-acting|{path}|{keyword}",
                source_line=statement.source_line,
            )
        )
    return tuple(by_place(notes))


def _bounded(diagnostics: list[Diagnostic]) -> tuple[Diagnostic, ...]:
    """No more findings than a person, or a log, can bear; the fatal ones are never left out."""
    if len(diagnostics) <= MAX_DIAGNOSTICS:
        return tuple(diagnostics)
    kept = diagnostics[:MAX_DIAGNOSTICS]
    rest = diagnostics[MAX_DIAGNOSTICS:]
    kept += [each for each in rest if each.severity is Severity.FATAL][:MAX_DIAGNOSTICS]
    text = f"{len(rest)} more findings are not shown"
    status = worst_status(rest)
    kept.append(Diagnostic(severity=Severity.NOTE, code="findings-dropped", message=text, exit_status=status))
    return tuple(kept)
