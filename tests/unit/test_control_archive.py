"""config_save_dir: names, numbers, and nobody who waits for the disk."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from kad.config.load import load
from kad.config.source import TextReader
from kad.config.transcript import Transcript
from kad.control import archive
from kad.control.archive import Archive
from kad.control.candidate import Candidate, judge
from kad.ipc.messages import Generation, ProcessInfo, Role
from kad.runtime.process import Options

Text = Callable[[], str]
PROCESSES = {
    Role.VRRP: ProcessInfo(Role.VRRP, 20, 1, "RUNNING", 0, 0),
    Role.CHECK: ProcessInfo(Role.CHECK, 0, 0, "STOPPED", 0, 0),
}


def candidate_of(directory: Path, more: str = "") -> Candidate:
    transcript = Transcript()
    text = f"global_defs {{\nconfig_save_dir {directory}\n{more}}}\n"
    loaded = load("/main", reader=TextReader({"/main": text}), transcript=transcript)
    made = judge(loaded, Options(), None)
    where = loaded.config.globals.reloading.config_save_dir
    return msgspec.structs.replace(made, transcript=transcript, save_directory=where)


class Life:
    """One life of control, as far as it keeps what it read."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.archive = Archive(self.loop, 10, self._ask)

    def _ask(self, role: Role, take: Callable[[Text], None]) -> None:
        take(lambda: f"state of {role.value}\n")

    def reading(self, candidate: Candidate, running: Generation | None) -> None:
        self.archive.begin(running, PROCESSES)
        self.archive.read(candidate, running)
        if running is not None:
            self.archive.end(candidate.generation or running, PROCESSES)

    def settle(self) -> None:
        async def idle() -> None:
            async with asyncio.timeout(10):
                while self.archive._busy:
                    await asyncio.sleep(0.001)

        self.loop.run_until_complete(idle())


@pytest.fixture
def life() -> Life:
    return Life()


def test_the_directory_is_made_and_everything_kept_under_its_number(life: Life, tmp_path: Path) -> None:
    directory = tmp_path / "kept"
    before = os.umask(0o177)
    try:
        candidate = candidate_of(directory)
        life.reading(candidate, None)
        for _ in range(2):
            life.reading(candidate, candidate.generation)
        life.settle()
    finally:
        os.umask(before)
    assert sorted(os.listdir(directory)) == [
        "keepalived.conf.10.0",
        "keepalived.conf.10.1",
        "keepalived.conf.10.2",
        "keepalived_vrrp.20.1.post",
        "keepalived_vrrp.20.1.pre",
        "keepalived_vrrp.20.2.post",
        "keepalived_vrrp.20.2.pre",
    ]
    assert directory.stat().st_mode & 0o777 == 0o700
    kept = directory / "keepalived.conf.10.0"
    assert f"config_save_dir {directory}\n" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert (directory / "keepalived_vrrp.20.1.pre").read_text() == "state of vrrp\n"


def test_who_is_born_anew_numbers_on(life: Life, tmp_path: Path) -> None:
    candidate = candidate_of(tmp_path)
    for name in (
        "keepalived.conf.10.3",
        "keepalived_vrrp.20.5.pre",
        "keepalived.conf.11.9",
        "keepalived.conf.10.x",
    ):
        (tmp_path / name).write_text("of old")
    life.reading(candidate, candidate.generation)
    life.settle()
    assert (tmp_path / "keepalived_vrrp.20.6.pre").exists() and (tmp_path / "keepalived.conf.10.6").exists()
    assert (tmp_path / "keepalived_vrrp.20.5.pre").read_text() == "of old"


def test_what_is_refused_is_kept_too_and_what_asks_no_longer(life: Life, tmp_path: Path) -> None:
    running = candidate_of(tmp_path).generation
    transcript = Transcript()
    load("/main", reader=TextReader({"/main": ""}), transcript=transcript)
    life.reading(Candidate(None, "refused", transcript=transcript), running)
    life.settle()
    assert (tmp_path / "keepalived.conf.10.1").read_text() == "# /main\n!\n"


def test_a_directory_that_cannot_be_made_is_said(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(archive.logs, "warning", said.append)
    life.reading(candidate_of(tmp_path / "no" / "parent"), None)
    life.settle()
    assert said == [f"config_save_dir: {tmp_path}/no/parent: No such file or directory"]


def test_a_directory_that_hangs_holds_one_thread_and_few_files(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(archive.logs, "warning", said.append)
    gate = threading.Event()

    def hanging(_directory: str) -> None:
        assert gate.wait(10)

    monkeypatch.setattr(archive, "_make", hanging)
    candidate = candidate_of(tmp_path)
    for _ in range(archive.JOBS_LIMIT):
        life.reading(candidate, candidate.generation)
    assert sum(thread.name == "archive" for thread in threading.enumerate()) == 1
    assert len(said) == 2 * archive.JOBS_LIMIT - 1
    gate.set()
    life.settle()
    assert len(os.listdir(tmp_path)) == archive.JOBS_LIMIT + 1
