"""Reading configuration files beside the event loop: in a thread, so that the heart goes on beating."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Callable
from typing import TypeVar

from kad.config.includes import IncludeCheck
from kad.config.load import Loaded, load
from kad.config.machine import LocalMachine
from kad.config.text import read_tree
from kad.control.candidate import Candidate, judge
from kad.errors import ExitStatus
from kad.ipc.messages import Generation
from kad.runtime import logs
from kad.runtime.process import Options

T = TypeVar("T")


def read_candidate(options: Options, running: Generation | None, *, force: bool) -> Candidate:
    """Read what is on disk and judge it against what runs. Never raises.

    A defect of the reader's own is one more way in which a configuration cannot be run: what runs, runs on.
    """
    try:
        return judge(read_files(options), options, running, force=force)
    except Exception as error:  # noqa: BLE001 - the reason is above
        _log_defect(error)
        text = f"reading it met a defect of kad's ({error!r}); the log has the details"
        return Candidate(None, text, ExitStatus.SOFTWARE)


def read_digest(options: Options) -> str | None:
    """The digest of what is on disk; None for a defect of the reader's. Never raises."""
    try:
        return read_tree(
            options.config_file,
            config_id=options.config_id or None,
            include_check=_include_check(options),
        ).digest
    except Exception as error:  # noqa: BLE001 - as above
        _log_defect(error)
        return None


def read_files(options: Options) -> Loaded:
    return load(
        options.config_file,
        machine=LocalMachine(),
        config_id=options.config_id or None,
        include_all=options.include_all,
    )


def _include_check(options: Options) -> IncludeCheck:
    return IncludeCheck.ALL if options.include_all else IncludeCheck.NOTHING


def in_thread(loop: asyncio.AbstractEventLoop, work: Callable[[], T], done: Callable[[T], None]) -> None:
    """Run ``work``, which must not raise, in a thread of its own; ``done`` gets its result in the loop."""

    def run() -> None:
        result = work()
        try:
            loop.call_soon_threadsafe(done, result)
        except RuntimeError:
            # The loop was closed meanwhile: the process is leaving.
            return

    threading.Thread(target=run, name="reading", daemon=True).start()


def _log_defect(error: Exception) -> None:
    for line in traceback.format_exception(error):
        logs.error(line.rstrip())
