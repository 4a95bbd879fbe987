"""Tracked scripts, files and processes of a real machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from kad.config.model.script import ScriptCommand
from kad.config.model.track import TrackProcess
from kad.track.io import files
from kad.track.io import processes as process_io
from kad.track.io.files import FileWatch
from kad.track.io.processes import ProcessWatch
from kad.track.io.scripts import NotRun, RunRecord, ScriptProcesses, start_time
from kad.track.process import Cause, ProcessesCounted, pattern_of
from kad.track.script import Ending, EndScript, RunScript
from tests.support.daemon import children_of


class Loop:
    """An event loop run until something holds."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.reports: list[str] = []

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
        async def wait() -> bool:
            limit = self.loop.time() + seconds
            while not condition():
                if self.loop.time() > limit:
                    return False
                await asyncio.sleep(0.002)
            return True

        assert self.loop.run_until_complete(wait()), f"{what}; reported: {self.reports}"

    def turn(self, times: int = 5) -> None:
        async def wait() -> None:
            for _ in range(times):
                await asyncio.sleep(0)

        self.loop.run_until_complete(wait())


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.loop.close()


class Journal(dict[str, bytes]):
    def write(self, key: str, value: bytes) -> bool:
        self[key] = value
        return True

    def delete(self, key: str) -> None:
        self.pop(key, None)


# Scripts ---------------------------------------------------------------------------------------------------


class Scripts:
    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.journal = Journal()
        self.ended: list[tuple[str, int, int | NotRun]] = []
        self.runner = ScriptProcesses(
            loop.loop,
            lambda *end: self.ended.append(end),
            loop.reports.append,
            os.environ,
            self.journal,
            lambda script: f"run {script}",
        )

    def run(self, serial: int, *argv: str, script: str = "s") -> None:
        program = shutil.which(argv[0]) or argv[0]
        command = ScriptCommand(argv=(program, *argv[1:]), uid=os.geteuid(), gid=os.getegid())
        self.runner.run(RunScript(script, serial, command))

    def wait(self, count: int) -> None:
        self.loop.until(lambda: len(self.ended) >= count, f"{count} ends, seen {self.ended}")

    def pid(self, script: str = "s") -> int:
        self.loop.until(lambda: f"run {script}" in self.journal, "a start")
        return msgspec.msgpack.decode(self.journal[f"run {script}"], type=RunRecord).pid


@pytest.fixture
def scripts(loop: Loop) -> Iterator[Scripts]:
    made = Scripts(loop)
    yield made
    made.runner.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_statuses(scripts: Scripts, tmp_path: Path) -> None:
    refused = tmp_path / "refused"
    refused.write_text("#!/bin/sh\n")
    scripts.run(1, "sh", "-c", "exit 0")
    scripts.run(2, "sh", "-c", "exit 42")
    scripts.run(3, "sh", "-c", "kill -KILL $$")
    scripts.run(4, "/nonexistent/script")
    scripts.run(5, str(refused))
    scripts.wait(5)
    statuses = {serial: status for _, serial, status in scripts.ended}
    assert [statuses[serial] for serial in (1, 2, 3)] == [0, 42, -9]
    for serial, why in ((4, "No such file"), (5, "Permission denied")):
        status = statuses[serial]
        assert isinstance(status, NotRun) and status.refused and why in status.why
    assert scripts.journal == {}


def test_a_run_and_what_it_started_are_ended(scripts: Scripts, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    # The child ignores SIGTERM; it goes with SIGKILL once its parent has obeyed.
    script = f"(trap '' TERM; echo $$ > {note}.sh; exec sleep 1000) & echo $! > {note}; wait"
    scripts.run(1, "sh", "-c", script)
    scripts.loop.until(lambda: note.exists() and note.read_text().strip() != "", "the child")
    child = int(note.read_text())
    scripts.loop.until(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n", "its program")
    scripts.runner.end(EndScript("s", 1, Ending.TERMINATE))
    scripts.wait(1)
    assert scripts.ended == [("s", 1, -signal.SIGTERM)]
    scripts.loop.until(lambda: not alive(child), "the end of the child")


def test_one_that_ignores_sigterm_is_killed(scripts: Scripts) -> None:
    scripts.run(1, "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    pid = scripts.pid()
    scripts.loop.until(lambda: "sleep" in subprocess.getoutput(f"ps -o comm= --ppid {pid}"), "it runs")
    scripts.runner.end(EndScript("s", 1, Ending.TERMINATE))
    scripts.loop.turn()
    assert alive(pid)
    scripts.runner.end(EndScript("s", 1, Ending.KILL))
    scripts.wait(1)
    assert scripts.ended == [("s", 1, -signal.SIGKILL)]


def test_one_ended_before_it_started_never_starts(scripts: Scripts, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    scripts.run(1, "sleep", "1000", script="first")
    scripts.run(2, "touch", str(mark), script="second")
    scripts.runner.end(EndScript("second", 2, Ending.TERMINATE))
    scripts.wait(1)
    scripts.loop.turn(20)
    assert scripts.ended == [("second", 2, -signal.SIGTERM)]
    assert not mark.exists()


def test_no_run_outlives_the_runner(loop: Loop) -> None:
    scripts = Scripts(loop)
    scripts.run(1, "sleep", "1000")
    pid = scripts.pid()
    scripts.runner.close()
    os.waitpid(pid, 0)
    assert scripts.journal == {}
    assert scripts.ended == []


def test_the_next_life_ends_what_a_former_one_left(scripts: Scripts) -> None:
    left = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 1000 & wait; wait"], process_group=0)
    other = subprocess.Popen(["sleep", "1000"], process_group=0)
    try:
        begun = start_time(left.pid)
        assert begun
        scripts.loop.until(lambda: bool(children_of(left.pid)), "its trap to be set")
        scripts.runner.end_leftover("s", msgspec.msgpack.encode(RunRecord(left.pid, begun)))
        # The same id, but not the same process: it is let be.
        scripts.runner.end_leftover("t", msgspec.msgpack.encode(RunRecord(other.pid, begun - 1)))
        scripts.runner.end_leftover("u", b"damaged")
        scripts.loop.until(lambda: left.poll() is not None, "the end of what was left")
        assert left.returncode == -signal.SIGKILL
        assert other.poll() is None
        assert len(scripts.loop.reports) == 1
    finally:
        for process in (left, other):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_run_that_the_journal_has_no_room_for_is_told_of_once(
    scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts.journal, "write", lambda _key, _value: False)
    for serial in (1, 2):
        scripts.run(serial, "true")
        scripts.wait(serial)
    said = "track script s: no room in the journal: a crash would leave it running"
    assert scripts.loop.reports == [said]


# Files -----------------------------------------------------------------------------------------------------


class Files:
    def __init__(self, loop: Loop, path: Path) -> None:
        self.loop = loop
        self.path = path
        self.told: list[tuple[str, int]] = []
        self.watch = FileWatch(loop.loop, lambda *value: self.told.append(value), loop.reports.append)

    def begin(self) -> None:
        self.watch.watch([str(self.path)])

    @property
    def values(self) -> list[int]:
        return [value for path, value in self.told if path == str(self.path)]

    def becomes(self, *values: int) -> None:
        self.loop.until(lambda: self.values == list(values), f"{values}, told {self.values}")


@pytest.fixture
def tracked(loop: Loop, tmp_path: Path) -> Iterator[Files]:
    made = Files(loop, tmp_path / "file")
    yield made
    made.watch.close()


def test_a_file_is_read_at_first_and_when_written(tracked: Files) -> None:
    tracked.path.write_text("7\n")
    tracked.begin()
    assert tracked.values == [7]
    tracked.path.write_text("0x10\n")
    tracked.becomes(7, 16)
    tracked.path.write_text("16\n")
    tracked.path.write_text("-3\n")
    tracked.becomes(7, 16, -3)


def test_a_missing_file_is_0_and_so_is_a_deleted_or_moved_one(tracked: Files) -> None:
    tracked.begin()
    assert tracked.values == [0]
    tracked.path.write_text("5")
    tracked.becomes(0, 5)
    tracked.path.unlink()
    tracked.becomes(0, 5, 0)
    fresh = tracked.path.with_name("fresh")
    fresh.write_text("9")
    fresh.rename(tracked.path)
    tracked.becomes(0, 5, 0, 9)
    tracked.path.rename(fresh)
    tracked.becomes(0, 5, 0, 9, 0)


def test_replaced_in_one_step_it_is_never_0(tracked: Files) -> None:
    tracked.path.write_text("1")
    tracked.begin()
    for value in range(2, 20):
        fresh = tracked.path.with_name("fresh")
        fresh.write_text(str(value))
        fresh.replace(tracked.path)
        tracked.becomes(*range(1, value + 1))


def test_a_symbolic_link_is_followed_at_both_ends(tracked: Files, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = tmp_path / "a" / "value", tmp_path / "b" / "value"
    one.write_text("1")
    two.write_text("2")
    tracked.path.symlink_to(one)
    tracked.begin()
    one.write_text("11")
    tracked.becomes(1, 11)
    link = tmp_path / "link"
    link.symlink_to(two)
    link.replace(tracked.path)
    tracked.becomes(1, 11, 2)
    two.write_text("22")
    tracked.becomes(1, 11, 2, 22)
    one.write_text("111")
    tracked.loop.turn(50)
    assert tracked.values == [1, 11, 2, 22]


def test_a_directory_that_vanishes_and_returns(tracked: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "RETRY_S", 0.02)
    tracked.path = tracked.path.parent / "directory" / "file"
    tracked.begin()
    assert tracked.values == [0]
    tracked.path.parent.mkdir()
    tracked.path.write_text("4")
    tracked.becomes(0, 4)
    shutil.rmtree(tracked.path.parent)
    tracked.becomes(0, 4, 0)
    tracked.path.parent.mkdir()
    tracked.path.write_text("6")
    tracked.becomes(0, 4, 0, 6)


def test_a_number_out_of_range_changes_nothing(tracked: Files) -> None:
    tracked.path.write_text("3")
    tracked.begin()
    tracked.path.write_text("99999999999")
    tracked.loop.until(lambda: bool(tracked.loop.reports), "a complaint")
    tracked.path.write_text("4")
    tracked.becomes(3, 4)


def test_what_is_no_plain_file_is_0_and_holds_nothing_up(tracked: Files) -> None:
    os.mkfifo(tracked.path)
    tracked.begin()
    assert tracked.values == [0]
    other = Files(tracked.loop, tracked.path.parent)
    other.begin()
    assert other.values == [0]
    other.watch.close()


def test_a_filesystem_that_cannot_be_followed_is_said_and_counts_as_0(tracked: Files) -> None:
    tracked.path = Path("/proc/sys/kernel/pid_max")
    tracked.begin()
    assert tracked.values == [0]
    assert "(proc)" in tracked.loop.reports[0]


def test_a_burst_of_changes_beyond_the_queue_ends_with_the_last_value(tracked: Files) -> None:
    tracked.begin()
    other = tracked.path.with_name("other")
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 20_000:
        pytest.skip(f"the queue holds {limit} events")
    for number in range(limit // 2 + 100):
        other.write_text(str(number))
        other.unlink()
    tracked.path.write_text("8")
    tracked.becomes(0, 8)


@pytest.fixture
def two_names(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """One directory under two names, as bind mounts make it in a container."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    subprocess.run(["mount", "--bind", str(one), str(other)], check=True)
    yield one, other
    subprocess.run(["umount", "--lazy", str(other)], check=True)


@pytest.mark.root
def test_files_in_a_directory_of_two_names(loop: Loop, two_names: tuple[Path, Path]) -> None:
    one, other = (str(directory / "file") for directory in two_names)
    told: dict[str, int] = {}
    watch = FileWatch(loop.loop, told.__setitem__, loop.reports.append)
    watch.watch([one, other])
    Path(one).write_text("7")
    loop.until(lambda: told == {one: 7, other: 7}, f"both are told, {told}")
    watch.watch([one])
    Path(other).write_text("8")
    loop.until(lambda: told[one] == 8, "the name that is left is told")
    assert told[other] == 7
    watch.close()


def test_initial_values(tmp_path: Path) -> None:
    path = tmp_path / "new"
    assert files.initialise(str(path), 5, overwrite=False) == ""
    assert path.read_text() == "5\n"
    assert stat.S_ISREG(path.stat().st_mode)
    assert files.initialise(str(path), 6, overwrite=False) == ""
    assert path.read_text() == "5\n"
    assert files.initialise(str(path), -7, overwrite=True) == ""
    assert path.read_text() == "-7\n"
    link = tmp_path / "link"
    link.symlink_to(path)
    assert "cannot initialise" in files.initialise(str(link), 1, overwrite=True)
    assert path.read_text() == "-7\n"
    assert "cannot initialise" in files.initialise(str(tmp_path / "no" / "file"), 1, overwrite=False)


# Processes -------------------------------------------------------------------------------------------------


class Processes:
    def __init__(self, loop: Loop, tmp_path: Path) -> None:
        self.loop = loop
        self.program = tmp_path / f"kt{os.getpid()}"
        shutil.copy(shutil.which("sleep") or "/bin/sleep", self.program)
        self.told: list[ProcessesCounted] = []
        self.watch = ProcessWatch(loop.loop, self.told.append, loop.reports.append)
        self.pattern = pattern_of(TrackProcess("t", self.program.name))
        self.running: list[subprocess.Popen[bytes]] = []

    def begin(self) -> None:
        self.watch.watch([self.pattern])

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        self.running.append(subprocess.Popen(argv or (str(self.program), "1000")))
        return self.running[-1]

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        self.running.remove(process)

    @property
    def counts(self) -> list[tuple[int, Cause]]:
        return [(each.count, each.cause) for each in self.told]

    def becomes(self, count: int) -> None:
        self.loop.until(lambda: bool(self.told) and self.told[-1].count == count, f"{count}, {self.counts}")


@pytest.fixture
def processes(loop: Loop, tmp_path: Path) -> Iterator[Processes]:
    made = Processes(loop, tmp_path)
    yield made
    for process in list(made.running):
        made.stop(process)
    made.watch.close()


def has_events() -> bool:
    """Whether the kernel tells this process of processes."""
    loop = Loop()
    watch = ProcessWatch(loop.loop, lambda counted: None, loop.reports.append)
    watch.watch([pattern_of(TrackProcess("t", "x"))])
    loop.until(lambda: watch._answered or bool(loop.reports), "an answer", 3)
    watch.close()
    loop.loop.close()
    return not loop.reports


@pytest.mark.root
def test_counted_by_the_kernels_events(processes: Processes) -> None:
    if not has_events():
        pytest.skip("no process events here")
    one = processes.start()
    processes.begin()
    processes.becomes(1)
    two = processes.start()
    processes.becomes(2)
    assert processes.counts[-1] == (2, Cause.RENAMED)
    processes.stop(one)
    processes.becomes(1)
    assert processes.counts[-1] == (1, Cause.TERMINATED)
    processes.stop(two)
    processes.becomes(0)
    assert processes.loop.reports == []


@pytest.mark.root
def test_forks_count_at_once_and_threads_never(processes: Processes, tmp_path: Path) -> None:
    if not has_events():
        pytest.skip("no process events here")
    shell = tmp_path / f"ks{os.getpid()}"
    shutil.copy("/bin/sh", shell)
    processes.pattern = pattern_of(TrackProcess("t", shell.name))
    processes.begin()
    processes.becomes(0)
    started = processes.start(str(shell), "-c", "(read x < /dev/zero) & wait")
    processes.becomes(2)
    assert processes.counts[-1] == (2, Cause.FORKED)
    subprocess.run(["pkill", "-P", str(started.pid)], check=True)
    processes.becomes(0)


def test_counted_by_looking(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_receive_buffer: object) -> None:
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr(process_io, "_subscribed", refuse)
    monkeypatch.setattr(process_io, "POLL_S", 0.05)
    processes.begin()
    processes.becomes(0)
    assert "looking at all processes" in processes.loop.reports[0]
    one = processes.start()
    processes.becomes(1)
    assert processes.counts[-1] == (1, Cause.FORKED)
    one.kill()
    # Not reaped: it does not count any more.
    processes.becomes(0)
    assert processes.counts[-1] == (0, Cause.TERMINATED)
    processes.stop(one)


def test_parameters_are_compared(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_io, "POLL_S", 0.05)
    config = TrackProcess("t", str(processes.program), ("1001",), param_match="exact", full_command=True)
    processes.pattern = pattern_of(config)
    processes.start(str(processes.program), "1000")
    processes.start(str(processes.program), "1001")
    processes.begin()
    processes.becomes(1)


def test_another_pattern_is_told_its_own_count_only(processes: Processes) -> None:
    processes.start()
    processes.begin()
    processes.becomes(1)
    other = pattern_of(TrackProcess("t", "no such"))
    processes.watch.watch([processes.pattern, other])
    processes.becomes(0)
    assert [each.pattern for each in processes.told] == [processes.pattern, other]
