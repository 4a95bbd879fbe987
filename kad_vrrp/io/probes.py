"""What instances follow outside the network: scripts, files and processes, told to the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from kad.config.model.vrrp import VrrpConfiguration
from kad.kernel.batch import ReceiveBuffer
from kad.runtime.journal import Records
from kad.track.io.files import FileWatch, initialise
from kad.track.io.processes import ProcessWatch
from kad.track.io.scripts import NotRun, ScriptProcesses
from kad.track.process import pattern_of
from kad.track.script import ScriptEnded
from kad_vrrp.core.events import Event, FileRead
from kad_vrrp.core.trackers import in_use

_OBJECT = "\n"
"""Begins the journal's keys of everything but instances. No name in a configuration holds a line's end."""
_RUN = f"{_OBJECT}run "
PIPES = f"{_OBJECT}pipe "
"""Begins the keys of what the FIFOs leave there."""
_SETTING = f"{_OBJECT}sysctl "


def object_key(key: str) -> str:
    """The journal's key for a tracker's or sync group's record."""
    return f"{_OBJECT}{key}"


def objects_of(records: Mapping[str, bytes]) -> dict[str, bytes]:
    """The records of trackers and sync groups among the journal's, by the engine's keys."""
    return {
        key[len(_OBJECT) :]: record
        for key, record in records.items()
        if key.startswith(_OBJECT) and not key.startswith((_RUN, PIPES, _SETTING))
    }


def instances_of(records: Mapping[str, bytes]) -> dict[str, bytes]:
    """The records of instances among the journal's, by name."""
    return {key: record for key, record in records.items() if not key.startswith(_OBJECT)}


def runs_of(records: Mapping[str, bytes]) -> dict[str, bytes]:
    """The records of scripts that a former life has left running, by the script's name."""
    return {key[len(_RUN) :]: record for key, record in records.items() if key.startswith(_RUN)}


def pipes_of(records: Mapping[str, bytes]) -> dict[str, bytes]:
    """What a former life's FIFOs left there, by the journal's keys."""
    return {key: record for key, record in records.items() if key.startswith(PIPES)}


def setting_key(path: str) -> str:
    """The journal's key for what a kernel setting was before."""
    return f"{_SETTING}{path}"


def settings_of(records: Mapping[str, bytes]) -> dict[str, bytes]:
    """Kernel settings that a former life has changed, by path."""
    return {key[len(_SETTING) :]: record for key, record in records.items() if key.startswith(_SETTING)}


class Probes:
    """The three of them, for one engine."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        feed: Callable[[Event], None],
        report: Callable[[str], None],
        environment: Mapping[str, str],
        records: Records,
    ) -> None:
        self._feed = feed
        self._report = report
        self.scripts = ScriptProcesses(
            loop, self._script_ended, report, environment, records, lambda script: f"{_RUN}{script}"
        )
        self.files = FileWatch(loop, self._file_read, report)
        self.processes = ProcessWatch(loop, feed, report)

    def prepare(self, configuration: VrrpConfiguration, *, initialising: bool) -> None:
        """Before the engine gets this configuration: what its files hold is told, processes are counted.

        ``initialising``: the daemon's start, when files with ``init_file`` are made.
        """
        used = in_use(configuration.instances, configuration.sync_groups)
        files = [file for file in configuration.files if ("file", file.name) in used]
        for file in files if initialising else ():
            if file.initial_value is not None:
                problem = initialise(file.path, file.initial_value, overwrite=file.overwrite)
                if problem:
                    self._report(problem)
        settings = configuration.settings
        self.processes.set_receive_buffer(
            ReceiveBuffer(settings.process_monitor_buffer, settings.process_monitor_buffer_force)
        )
        self.files.watch(file.path for file in files)
        processes = [each for each in configuration.processes if ("process", each.name) in used]
        self.processes.watch(pattern_of(process) for process in processes)

    def close(self) -> None:
        self.scripts.close()
        self.files.close()
        self.processes.close()

    def _script_ended(self, script: str, serial: int, status: int | NotRun) -> None:
        if isinstance(status, NotRun):
            self._feed(ScriptEnded(script, serial, None, status.why, status.refused))
        else:
            self._feed(ScriptEnded(script, serial, status))

    def _file_read(self, path: str, value: int) -> None:
        self._feed(FileRead(path, value))
