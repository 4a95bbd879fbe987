"""MISC_CHECK: scripts with a time limit, never two of one checker at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from kad.config.model.check import MiscCheck
from kad.track.io.scripts import Journal, NotRun, ScriptProcesses
from kad.track.script import Ending, EndScript, RunScript
from kad_check.core.checker import DYNAMIC_LIMIT
from kad_check.core.events import CheckDone, Verdict
from kad_check.core.texts import TIMED_OUT
from kad_check.io.expiry import Expiry

PREFIX = "misc "
"""Of the journal's keys: what runs, so that the next life ends it."""
TERM_PATIENCE_US = 2_000_000
"""From SIGTERM to SIGKILL, and from one SIGKILL to the next."""


class _Run:
    __slots__ = ("check", "deadline_us", "is_late", "number", "serial")

    def __init__(self, number: int, serial: int, check: MiscCheck) -> None:
        self.number = number
        self.serial = serial
        self.check = check
        self.deadline_us = 0
        self.is_late = False
        """Its checker has had its answer."""


class ScriptChecks:
    """``done`` gets the answer to every :meth:`start`, once, unless it was broken off."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        done: Callable[[CheckDone], None],
        report: Callable[[str], None],
        environment: Mapping[str, str],
        journal: Journal,
    ) -> None:
        self._done = done
        self._processes = ScriptProcesses(
            loop, self._ended, report, environment, journal, PREFIX.__add__, title=_title
        )
        self._expiry: Expiry[_Run] = Expiry(loop, self._expired)
        self._runs: dict[int, _Run] = {}
        """By the checker's number, until the script has really ended."""
        self._serial = 0

    @property
    def running(self) -> int:
        return self._processes.running

    def end_leftovers(self, recorded: Mapping[str, bytes]) -> None:
        """End what a former life has left; before the first start."""
        for key, record in recorded.items():
            if key.startswith(PREFIX):
                self._processes.end_leftover(key.removeprefix(PREFIX), record)

    def start(self, number: int, check: MiscCheck) -> None:
        if number in self._runs:
            self._done(CheckDone(number, Verdict.FAILURE, "the run before it does not end"))
            return
        self._serial += 1
        run = self._runs[number] = _Run(number, self._serial, check)
        self._processes.run(RunScript(self._name(run), run.serial, check.script))
        self._expiry.limit(run, check.timeout_us)

    def stop(self, number: int) -> None:
        """Nobody wants to know any more: end it."""
        run = self._runs.get(number)
        if run is not None and not run.is_late:
            self._end(run)

    def close(self) -> None:
        self._expiry.close()
        self._processes.close()

    def _name(self, run: _Run) -> str:
        return f"{run.number} {run.check.script.argv[0]}"[:150]

    def _expired(self, run: _Run) -> None:
        if run.is_late:
            # SIGTERM was not enough; it may be that one SIGKILL is not either.
            self._processes.end(EndScript(self._name(run), run.serial, Ending.KILL))
            self._expiry.limit(run, TERM_PATIENCE_US)
            return
        self._end(run)
        self._done(CheckDone(run.number, Verdict.FAILURE, TIMED_OUT))

    def _end(self, run: _Run) -> None:
        run.is_late = True
        self._processes.end(EndScript(self._name(run), run.serial, Ending.TERMINATE))
        self._expiry.limit(run, TERM_PATIENCE_US)

    def _ended(self, _name: str, serial: int, status: int | NotRun) -> None:
        run = next((run for run in self._runs.values() if run.serial == serial), None)
        if run is None:
            return
        del self._runs[run.number]
        run.deadline_us = 0
        if not run.is_late:
            self._done(answer(run.number, run.check.dynamic, status))


def _title(name: str) -> str:
    """What people call a run of this name, which begins with the checker's number."""
    return f"MISC_CHECK {name.partition(' ')[2]}"


def answer(number: int, dynamic: bool, status: int | NotRun) -> CheckDone:
    """What an exit status says; negative: the signal that killed the script.

    One that cannot be executed says nothing of its server; keepalived takes it for a success.
    """
    if isinstance(status, NotRun):
        return CheckDone(number, Verdict.NOT_RUN, status.why)
    if status == 0:
        return CheckDone(number, Verdict.SUCCESS)
    if dynamic and status >= 2:
        return CheckDone(number, Verdict.SUCCESS, "", min(status - 2, DYNAMIC_LIMIT))
    detail = f"exited with status {status}" if status > 0 else f"due to signal {-status}"
    return CheckDone(number, Verdict.FAILURE, detail)
