"""The pipes of one process that hear what happens, and the scripts that read them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from msgspec.structs import replace

from kad.config.model.globals import Fifo
from kad.config.model.script import ScriptCommand
from kad.notify.fifo import FifoWriter
from kad.track.io.scripts import Journal, NotRun, ScriptProcesses
from kad.track.script import Ending, EndScript, RunScript

PREFIX = "fifo "
"""Of the journal's keys: pipes that we made."""
READER_PREFIX = "reader "
"""Of the journal's keys: readers that run."""


class Fifos:
    """The common pipe and the one of its own; one path for both is one pipe, as in keepalived.

    ``prefix``: what the process's other records do not begin with.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        report: Callable[[str], None],
        environment: Mapping[str, str],
        journal: Journal,
        recorded: Mapping[str, bytes],
        prefix: str = "",
    ) -> None:
        self._report = report
        self._journal = journal
        self._prefix = prefix + PREFIX
        reader_prefix = prefix + READER_PREFIX
        self._made = {key.removeprefix(self._prefix) for key in recorded if key.startswith(self._prefix)}
        self._writers: dict[Fifo, FifoWriter] = {}
        self._readers: dict[str, tuple[int, ScriptCommand]] = {}
        """Path -> serial and script."""
        self._serial = 0
        self._lost_before = 0
        """By writers that are closed."""
        self._processes = ScriptProcesses(
            loop,
            self._reader_ended,
            report,
            environment,
            journal,
            reader_prefix.__add__,
            title="reader of {}".format,
        )
        for key, record in recorded.items():
            if key.startswith(reader_prefix):
                self._processes.end_leftover(key.removeprefix(reader_prefix), record)

    def configure(self, pipes: Iterable[tuple[Fifo | None, ScriptCommand | None]]) -> None:
        """These pipes, each with its reader, from now on. What stays the same stays open.

        keepalived closes them at every reload and makes them anew, and its readers read an end of file. One
        that somebody took away meanwhile is made again here too.
        """
        wanted: dict[Fifo, ScriptCommand | None] = {}
        for fifo, script in pipes:
            if fifo is not None and all(fifo.path != other.path for other in wanted):
                wanted[fifo] = script
        for fifo, writer in list(self._writers.items()):
            if fifo not in wanted:
                self._drop(fifo)
            elif not writer.is_where_it_was():
                self._report(f"{fifo.path} is gone, or another; opening it again")
                self._drop(fifo)
        for fifo, script in wanted.items():
            if fifo not in self._writers:
                self._open(fifo)
            if fifo in self._writers:
                self._set_reader(fifo.path, script)

    def write(self, line: bytes) -> None:
        """Never waits. A reader that does not keep up loses lines, and that is said once, until it reads."""
        for writer in self._writers.values():
            was_losing = writer.is_losing
            writer.write(line)
            if writer.is_losing and not was_losing:
                self._report(f"{writer.fifo.path} is full: its reader loses what happens from now on")

    def close(self) -> None:
        """The end: readers are told to leave, pipes of ours go."""
        for fifo in list(self._writers):
            self._drop(fifo)

    @property
    def lost(self) -> int:
        """Lines nobody read in time."""
        return self._lost_before + sum(writer.lost for writer in self._writers.values())

    def _open(self, fifo: Fifo) -> None:
        writer = FifoWriter(fifo, is_ours=fifo.path in self._made)
        problem = writer.open()
        if problem:
            self._report(f"notifications cannot be written: {problem}")
            return
        self._writers[fifo] = writer
        if writer.is_ours and not self._journal.write(self._prefix + fifo.path, b""):
            self._report(f"no room in the journal: a crash would leave {fifo.path} behind")

    def _drop(self, fifo: Fifo) -> None:
        self._set_reader(fifo.path, None)
        writer = self._writers.pop(fifo)
        self._lost_before += writer.lost
        writer.close(remove=writer.is_where_it_was())
        self._made.discard(fifo.path)
        self._journal.delete(self._prefix + fifo.path)

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

    def _reader_ended(self, path: str, serial: int, status: int | NotRun) -> None:
        """It is started again by the next reload, as keepalived does."""
        if self._readers.get(path, (0, None))[0] == serial:
            del self._readers[path]
            if isinstance(status, NotRun):
                self._report(f"the reader of {path} could not be run: {status.why}")
            else:
                self._report(f"the reader of {path} has ended" + (f" (status {status})" if status else ""))
