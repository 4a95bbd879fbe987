"""The pipes that hear of servers going up and down, and the scripts that read them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from kad.config.model.check import CheckSettings
from kad.config.model.globals import Fifo
from kad.config.model.script import ScriptCommand
from kad.notify.fifo import FifoWriter
from kad.track.io.scripts import Journal, ScriptProcesses
from kad.track.script import Ending, EndScript, RunScript

PREFIX = "fifo "
"""Of the journal's keys: pipes that we made."""
READER_PREFIX = "reader "
"""Of the journal's keys: readers that run."""


class Fifos:
    """The common pipe and the one of its own; one path for both is one pipe, as in keepalived."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        report: Callable[[str], None],
        environment: Mapping[str, str],
        journal: Journal,
        recorded: Mapping[str, bytes],
    ) -> None:
        self._report = report
        self._journal = journal
        self._made = {key.removeprefix(PREFIX) for key in recorded if key.startswith(PREFIX)}
        self._writers: dict[Fifo, FifoWriter] = {}
        self._readers: dict[str, tuple[int, ScriptCommand]] = {}
        """Path -> serial and script."""
        self._serial = 0
        self._processes = ScriptProcesses(
            loop, self._reader_ended, report, environment, journal, READER_PREFIX.__add__
        )
        for key, record in recorded.items():
            if key.startswith(READER_PREFIX):
                self._processes.end_leftover(key.removeprefix(READER_PREFIX), record)

    @property
    def lost(self) -> int:
        return sum(writer.lost for writer in self._writers.values())

    def configure(self, settings: CheckSettings) -> None:
        """These pipes and readers from now on. What stays the same stays open."""
        wanted: dict[Fifo, ScriptCommand | None] = {}
        for fifo, script in (
            (settings.notify_fifo, settings.notify_fifo_script),
            (settings.lvs_notify_fifo, settings.lvs_notify_fifo_script),
        ):
            if fifo is not None and all(fifo.path != other.path for other in wanted):
                wanted[fifo] = script
        for fifo in [fifo for fifo in self._writers if fifo not in wanted]:
            self._drop(fifo)
        for fifo, script in wanted.items():
            if fifo not in self._writers:
                self._open(fifo)
            self._set_reader(fifo.path, script)

    def write(self, line: bytes) -> None:
        for writer in self._writers.values():
            writer.write(line)

    def close(self) -> None:
        """The end: readers are told to leave, pipes of ours go."""
        for fifo in list(self._writers):
            self._drop(fifo)

    def _open(self, fifo: Fifo) -> None:
        writer = FifoWriter(fifo, is_ours=fifo.path in self._made)
        problem = writer.open()
        if problem:
            self._report(f"notifications cannot be written: {problem}")
            return
        self._writers[fifo] = writer
        if writer.is_ours:
            self._journal.write(PREFIX + fifo.path, b"")

    def _drop(self, fifo: Fifo) -> None:
        self._set_reader(fifo.path, None)
        self._writers.pop(fifo).close()
        self._journal.delete(PREFIX + fifo.path)

    def _set_reader(self, path: str, script: ScriptCommand | None) -> None:
        serial, running = self._readers.get(path, (0, None))
        if running == script:
            return
        if running is not None:
            del self._readers[path]
            self._processes.end(EndScript(path, serial, Ending.TERMINATE))
        if script is not None:
            self._serial += 1
            self._readers[path] = self._serial, script
            command = replace(script, argv=(*script.argv, path))
            self._processes.run(RunScript(path, self._serial, command))

    def _reader_ended(self, path: str, serial: int, status: int | None) -> None:
        """It is not started again: keepalived does not either."""
        if self._readers.get(path, (0, None))[0] == serial:
            self._report(f"the reader of {path} has ended" + (f" (status {status})" if status else ""))
