"""Pipes that hear what happens: nobody is waited for, what is lost is counted and said once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kad.config.model.globals import Fifo
from kad.config.model.script import ScriptCommand
from kad.notify.pipes import Fifos

LINE = b'INSTANCE "name" MASTER 150\n'


class Records(dict[str, bytes]):
    def write(self, key: str, value: bytes) -> bool:
        self[key] = value
        return True

    def delete(self, key: str) -> None:
        self.pop(key, None)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


class Stage:
    def __init__(self, loop: asyncio.AbstractEventLoop, path: Path, journal: Records | None = None) -> None:
        self.path = path
        self.said: list[str] = []
        self.journal = Records() if journal is None else journal
        self.fifos = Fifos(loop, self.said.append, {}, self.journal, dict(self.journal), prefix="x ")
        self.configure()

    def configure(self) -> None:
        self.fifos.configure([(Fifo(str(self.path), os.geteuid(), os.getegid()), None)])

    def read(self, size: int) -> bytes:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return os.read(descriptor, size)
        finally:
            os.close(descriptor)


def test_who_never_reads_costs_nobody_time_and_lines_are_whole(
    loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    stage = Stage(loop, tmp_path / "pipe")
    for _ in range(5000):
        stage.fifos.write(LINE)
    assert stage.fifos.lost > 0
    assert stage.said == [f"{stage.path} is full: its reader loses what happens from now on"]
    held = stage.read(1 << 20)
    assert held == LINE * (5000 - stage.fifos.lost)
    stage.fifos.write(LINE)
    assert stage.read(100) == LINE
    for _ in range(5000):
        stage.fifos.write(LINE)
    assert len(stage.said) == 2


def test_a_pipe_of_ours_goes_in_the_end_and_another_stays(
    loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    stage = Stage(loop, tmp_path / "ours")
    assert list(stage.journal) == [f"x fifo {stage.path}"]
    stage.fifos.close()
    assert not stage.path.exists() and not stage.journal
    os.mkfifo(tmp_path / "theirs")
    other = Stage(loop, tmp_path / "theirs")
    other.fifos.close()
    assert other.path.exists()


def test_the_next_life_knows_what_it_made(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> None:
    first = Stage(loop, tmp_path / "pipe")
    inode = first.path.stat().st_ino
    second = Stage(loop, tmp_path / "pipe", first.journal)
    assert second.path.stat().st_ino == inode
    second.fifos.close()
    assert not second.path.exists()


class FullRecords(Records):
    def write(self, key: str, value: bytes) -> bool:
        return False


def test_a_pipe_that_the_journal_has_no_room_for_is_told_of(
    loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    stage = Stage(loop, tmp_path / "pipe", FullRecords())
    assert stage.said == [f"no room in the journal: a crash would leave {stage.path} behind"]
    stage.fifos.close()


def test_one_that_was_taken_away_is_made_again_at_a_reload(
    loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    stage = Stage(loop, tmp_path / "pipe")
    stage.path.unlink()
    stage.configure()
    stage.fifos.write(LINE)
    assert stage.read(100) == LINE


def test_what_is_no_pipe_is_not_written_to(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    stage = Stage(loop, tmp_path / "file")
    stage.fifos.write(LINE)
    stage.fifos.close()
    assert (tmp_path / "file").read_text() == "precious"
    assert len(stage.said) == 1


def test_a_reader_that_ended_is_started_again_by_a_reload(
    loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    stage = Stage(loop, tmp_path / "pipe")
    runs = tmp_path / "runs"
    pipes = [
        (
            Fifo(str(stage.path), os.geteuid(), os.getegid()),
            ScriptCommand(("sh", "-c", f"echo run >>{runs}; exit 3"), "/bin/sh", os.geteuid(), os.getegid()),
        )
    ]

    async def ended(times: int) -> None:
        while len(stage.said) < times:
            await asyncio.sleep(0.001)

    for number in (1, 2):
        stage.fifos.configure(pipes)
        stage.fifos.configure(pipes)
        loop.run_until_complete(asyncio.wait_for(ended(number), 15))
        assert stage.said[-1] == f"the reader of {stage.path} has ended (status 3)"
        assert runs.read_text().count("run") == number, "only one at a time"
    stage.fifos.close()


def test_a_reader_that_cannot_be_executed_is_said_to_be_none(
    loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    stage = Stage(loop, tmp_path / "pipe")
    fifo = Fifo(str(stage.path), os.geteuid(), os.getegid())
    stage.fifos.configure([(fifo, ScriptCommand(("/none",), "/none", os.geteuid(), os.getegid()))])

    async def said() -> None:
        while not stage.said:
            await asyncio.sleep(0.001)

    loop.run_until_complete(asyncio.wait_for(said(), 15))
    (line,) = stage.said
    assert line.startswith(f"the reader of {stage.path} could not be run: ") and "/none" in line
    stage.fifos.close()


def test_a_pipe_that_cannot_be_opened_has_no_reader(
    loop: asyncio.AbstractEventLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(loop, tmp_path / "pipe")
    stage.said.clear()
    path = tmp_path / "no directory" / "pipe"
    reader = ScriptCommand(("sh", "-c", "sleep 60"), "/bin/sh", os.geteuid(), os.getegid())
    stage.fifos.configure([(Fifo(str(path), os.geteuid(), os.getegid()), reader)])
    loop.run_until_complete(asyncio.sleep(0))
    assert stage.said
    assert not [key for key in stage.journal if "reader" in key]
    path.parent.mkdir()
    stage.fifos.configure([(Fifo(str(path), os.geteuid(), os.getegid()), reader)])
    loop.run_until_complete(asyncio.sleep(0))
    assert [key for key in stage.journal if "reader" in key]
    stage.fifos.close()
