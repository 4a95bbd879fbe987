"""Reading configuration files beside the event loop: in a thread, so that the heart goes on beating."""

from __future__ import annotations

import os
import traceback

from msgspec.structs import replace

from kad.config.diagnostics import render
from kad.config.includes import IncludeCheck
from kad.config.load import Loaded, load
from kad.config.machine import LocalMachine
from kad.config.text import read_tree
from kad.config.transcript import Transcript
from kad.control.candidate import Candidate, globals_of, judge
from kad.errors import ExitStatus
from kad.garbage import collector_paused
from kad.ipc.messages import Generation
from kad.runtime import logs
from kad.runtime.process import Options


def read_candidate(options: Options, running: Generation | None, *, force: bool) -> Candidate:
    """Read what is on disk and judge it against what runs. Never raises.

    A defect of the reader's own is one more way in which a configuration cannot be run: what runs, runs on.
    """
    transcript = Transcript()
    try:
        with collector_paused():
            loaded = read_files(options, transcript)
            log = globals_of(running).reloading.check_config
            if log:
                _log_findings(log, loaded)
            candidate = judge(loaded, options, running, force=force)
            directory = loaded.config.globals.reloading.config_save_dir
            return replace(candidate, transcript=transcript, save_directory=directory)
    except Exception as error:  # noqa: BLE001 - the reason is above
        _log_defect(error)
        text = f"reading it met a defect of kad's ({error!r}); the log has the details"
        return Candidate(None, text, ExitStatus.SOFTWARE, transcript=transcript)


def read_digest(options: Options) -> str | None:
    """The digest of what is on disk; None for a defect of the reader's. Never raises."""
    try:
        return read_tree(
            options.config_file,
            config_id=options.config_id or None,
            environment=os.environ,
            include_check=_include_check(options),
        ).digest
    except Exception as error:  # noqa: BLE001 - as above
        _log_defect(error)
        return None


def read_files(options: Options, transcript: Transcript | None = None) -> Loaded:
    return load(
        options.config_file,
        machine=LocalMachine(),
        config_id=options.config_id or None,
        environment=os.environ,
        include_all=options.include_all,
        transcript=transcript,
    )


def _include_check(options: Options) -> IncludeCheck:
    return IncludeCheck.ALL if options.include_all else IncludeCheck.NOTHING


def _log_findings(path: str, loaded: Loaded) -> None:
    """reload_check_config: what a test of the configuration says, appended there."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        with open(os.open(path, flags, 0o644), "w", encoding="utf-8", errors="backslashreplace") as log:
            log.writelines(f"{render(finding)}\n" for finding in loaded.findings)
    except OSError as error:
        logs.warning(f"reload_check_config {path}: {error.strerror}")


def _log_defect(error: Exception) -> None:
    for line in traceback.format_exception(error):
        logs.error(line.rstrip())
