"""startup_script and shutdown_script: run once, each for a bounded time, beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping

from kad.config.model.script import ScriptCommand
from kad.errors import in_words
from kad.notify.runner import let_exec_reset_signals, script_environment, start_process
from kad.runtime import logs
from kad.runtime.process_end import ProcessEnd

TERMINATE_S = 2.0
"""From SIGTERM to SIGKILL, and from one SIGKILL to the next, as keepalived waits."""
PATIENCE_S = 3 * TERMINATE_S
"""Beyond its limit: then it is left to itself."""


class BoundedScript:
    """One run. ``done`` is called once, when it has ended or is not waited for any more.

    ``what`` names it in the log. Its result changes nothing, as with keepalived.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        what: str,
        command: ScriptCommand,
        limit_us: int,
        environment: Mapping[str, str],
        done: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._what = what
        self._done = done
        self._timer: asyncio.TimerHandle | None = None
        self._end: ProcessEnd | None = None
        let_exec_reset_signals()
        logs.debug(f"Running {what} {command.argv[0]}")
        try:
            self._pid = start_process(command, script_environment(environment))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            reason = in_words(error) if isinstance(error, OSError) else error
            logs.error(f"{what} {command.argv[0]} could not be started: {reason}")
            loop.call_soon(done)
            return
        self._end = ProcessEnd(loop, self._pid, self._on_end)
        self._timer = loop.call_later(limit_us / 1_000_000, self._press, signal.SIGTERM, 2)

    def abandon(self) -> None:
        """Nobody waits for it any more: it is told to end."""
        if self._end is not None:
            self._signal(signal.SIGTERM)

    def _press(self, number: signal.Signals, kills: int) -> None:
        """It takes too long."""
        logs.warning(f"{self._what} takes too long: {number.name}")
        self._signal(number)
        self._timer = self._loop.call_later(
            TERMINATE_S, *((self._press, signal.SIGKILL, kills - 1) if kills else (self._give_up,))
        )

    def _give_up(self) -> None:
        logs.error(f"{self._what} does not end and is left to itself")
        self._close()
        self._done()

    def _on_end(self, status: int) -> None:
        if status < 0:
            # What it has started goes with it.
            self._signal(signal.SIGKILL)
            logs.warning(f"{self._what} was ended by signal {-status}")
        elif status:
            logs.warning(f"{self._what} failed, status {status}")
        else:
            logs.debug(f"{self._what} succeeded")
        self._close()
        self._done()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._end is not None:
            self._end.close()
            self._end = None
