"""What a new configuration has that the running one has not: the rule by which reloads are refused."""

from __future__ import annotations

from collections.abc import Iterable

from kad.config.load import Loaded
from kad.errors import Diagnostic, Severity


def new_errors(loaded: Loaded, accepted: Iterable[str]) -> list[Diagnostic]:
    """Errors in the text that the running configuration does not have; any of them refuses a reload.

    ``accepted``: the identities of the running one's (``Loaded.error_identities``). Findings about this
    machine never refuse: they make their object FAULT or inactive, as at start. What cannot be run does.
    """
    known = frozenset(accepted)
    return [
        each
        for each in loaded.diagnostics
        if not each.machine
        and (
            each.severity is Severity.FATAL
            or (each.severity is Severity.ERROR and each.identity not in known)
        )
    ]
