"""Scripts really started, as this user: order, ends, limits, and what a script inherits."""

import asyncio
import errno
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kad.config.model.script import ScriptCommand
from kad.notify import runner
from kad.notify.runner import ScriptRunner, script_environment, shell_line
from tests.support.held_exec import held_exec
from tests.support.limits import no_descriptors

Ended = tuple[str, int, tuple[int | None, ...]]


class Bench:
    """A runner on a running loop, and everything it said."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        self.ended: list[Ended] = []
        self.reports: list[str] = []
        self.runner = ScriptRunner(
            asyncio.get_running_loop(),
            lambda *end: self.ended.append(end),
            self.reports.append,
            os.environ if environment is None else environment,
        )

    async def until_ended(self, count: int) -> None:
        await self.until(lambda: len(self.ended) >= count)

    async def until(self, happened: Callable[[], bool]) -> None:
        limit = time.monotonic() + 20
        while not happened():
            assert time.monotonic() < limit, self.ended
            await asyncio.sleep(0.002)

    async def remains(self, holds: Callable[[], bool], seconds: float) -> None:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            assert holds()
            await asyncio.sleep(0.002)


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(body())  # type: ignore[arg-type]


def ours(*argv: str, executable: str = "") -> ScriptCommand:
    return ScriptCommand(
        argv=argv, executable=executable or argv[0], uid=os.geteuid(), gid=os.getegid(), groups=()
    )


def shell(text: str) -> ScriptCommand:
    return ours("sh", "-c", text, executable="/bin/sh")


def test_statuses_are_exit_status_or_negative_signal_in_the_order_of_the_commands() -> None:
    async def body() -> None:
        bench = Bench()
        bench.runner.submit("V", 7, (shell("sleep 0.1; exit 3"), shell("kill -9 $$"), shell("exit 0")))
        assert bench.ended == []
        await bench.until_ended(1)
        assert bench.ended == [("V", 7, (3, -signal.SIGKILL, 0))]
        assert bench.runner.running == 0

    run(body)


def test_a_missing_file_ends_the_command_and_is_reported() -> None:
    async def body() -> None:
        bench = Bench()
        bench.runner.submit("V", 1, (ours("/nonexistent/script"), shell("exit 4")))
        await bench.until_ended(1)
        assert bench.ended == [("V", 1, (None, 4))]
        assert "/nonexistent/script" in bench.reports[0]

    run(body)


def test_nothing_to_run_ends_at_once_but_not_inside_submit() -> None:
    async def body() -> None:
        bench = Bench()
        bench.runner.submit("V", 1, ())
        assert bench.ended == []
        await bench.until_ended(1)
        assert bench.ended == [("V", 1, ())]

    run(body)


def test_scripts_start_in_the_order_of_submission_and_run_beside_each_other(tmp_path: Path) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"

    async def body() -> None:
        bench = Bench()
        for serial in range(5):
            wait = f"echo {serial} >> {log}; while [ ! -e {gate} ]; do sleep 0.01; done"
            bench.runner.submit("V", serial, (shell(wait),))
        limit = time.monotonic() + 20
        while not (log.exists() and len(log.read_text().split()) == 5):
            assert time.monotonic() < limit
            await asyncio.sleep(0.005)
        assert bench.ended == [] and bench.runner.running == 5
        gate.touch()
        await bench.until_ended(5)

    run(body)
    assert sorted(log.read_text().split()) == ["0", "1", "2", "3", "4"]


def test_start_order_is_the_process_ids_order() -> None:
    async def body() -> None:
        bench = Bench()
        started: list[int] = []
        real = runner.start_process
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runner, "start_process", lambda c, e: started.append(int(c.argv[-1])) or real(c, e))
            for serial in range(40):
                bench.runner.submit(f"V{serial % 3}", serial, (ours("/bin/true", str(serial)),))
            await bench.until_ended(40)
        assert started == list(range(40))

    run(body)


def test_one_instance_with_hung_scripts_does_not_starve_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "RUNNING_LIMIT_EACH", 2)

    async def body() -> None:
        bench = Bench()
        for serial in range(4):
            bench.runner.submit("hung", serial, (shell("exec sleep 60"),))
        bench.runner.submit("fine", 9, (shell("exit 0"),))
        await bench.until_ended(1)
        assert bench.ended == [("fine", 9, (0,))]
        assert (bench.runner.running, bench.runner.waiting) == (2, 2)
        assert bench.reports == ["(hung) 2 notify scripts are running; more wait"]
        killed = children()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        await bench.until_ended(3)
        assert {end[1] for end in bench.ended[1:]} == {0, 1}
        # Those held back are started when others have ended, one in a turn of the loop.
        await bench.until(lambda: bench.runner.waiting == 0)
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        await bench.until_ended(5)
        assert {end[1] for end in bench.ended[3:]} == {2, 3}

    run(body)


def children() -> list[int]:
    """Process ids of this thread's children, oldest first."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def test_running_limit_holds_for_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "RUNNING_LIMIT", 3)

    async def body() -> None:
        bench = Bench()
        most = 0
        for serial in range(12):
            bench.runner.submit(f"V{serial}", serial, (shell("sleep 0.03"),))
        while len(bench.ended) < 12:
            most = max(most, bench.runner.running)
            await asyncio.sleep(0.001)
        assert most == 3

    run(body)


def test_more_than_may_wait_is_refused_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "WAITING_LIMIT", 2)

    async def body() -> None:
        bench = Bench()
        bench.runner.submit("V", 1, (shell("exit 1"), shell("exit 2")))
        bench.runner.submit("V", 2, (shell("exit 3"),))
        await bench.until_ended(2)
        assert sorted(bench.ended) == [("V", 1, (1, 2)), ("V", 2, (None,))]
        assert "not run" in bench.reports[0]

    run(body)


def test_a_command_there_was_no_room_for_is_started_later_and_in_order(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def body() -> None:
        bench = Bench()
        with no_descriptors():  # not even for the pipe that a start needs
            bench.runner.submit("V", 1, (shell(f"echo 1 >> {log}"),))
            await bench.until(lambda: bool(bench.reports))
            bench.runner.submit("V", 2, (shell(f"while [ ! -e {log} ]; do sleep 0.01; done; exit 2"),))
            bench.runner.submit("V", 3, (shell("exit 3"),))
            assert (bench.runner.waiting, bench.ended) == (3, [])
        await bench.until_ended(3)
        assert sorted(bench.ended) == [("V", 1, (0,)), ("V", 2, (2,)), ("V", 3, (3,))]
        (report,) = bench.reports
        assert "waits" in report and "V" in report

    run(body)


def test_an_instance_there_is_no_room_for_does_not_hold_up_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has as many processes as he may has no room; others have."""
    monkeypatch.setattr(runner, "PAUSES_S", (0.01,))
    real, attempts, starts = runner.start_process, [0], []

    def start(command: ScriptCommand, environment: Mapping[str, str]) -> int:
        if command.argv[-1] == "full":
            attempts[0] += 1
            raise BlockingIOError(errno.EAGAIN, "try again")
        starts.append(command.argv[-1])
        return real(command, environment)

    monkeypatch.setattr(runner, "start_process", start)

    async def body() -> None:
        bench = Bench()
        bench.runner.submit("full", 1, (ours("/bin/true", "full"), ours("/bin/true", "after")))
        bench.runner.submit("other", 2, (ours("/bin/true", "other"),))
        await bench.until_ended(2)
        assert bench.ended == [("other", 2, (0,)), ("full", 1, (None, 0))]
        assert starts == ["other", "after"]
        assert attempts == [runner.START_LIMIT]
        bench.runner.submit("full", 3, (ours("/bin/true", "full"),))
        await bench.until(lambda: attempts[0] > runner.START_LIMIT)
        bench.runner.close()
        tried = attempts[0]
        await bench.remains(lambda: attempts[0] == tried, 0.03)

    run(body)


def test_closing_leaves_running_scripts_alone_and_loses_no_descriptor(tmp_path: Path) -> None:
    done = tmp_path / "done"
    before = len(os.listdir("/proc/self/fd"))

    async def body() -> None:
        bench = Bench()
        bench.runner.submit("V", 1, (shell(f"sleep 0.2; echo yes > {done}"),))
        await bench.until(lambda: bench.runner.running > 0)
        bench.runner.close()
        assert bench.runner.running == 0

    run(body)
    assert len(os.listdir("/proc/self/fd")) == before
    for pid in children():
        os.waitpid(pid, 0)
    assert done.read_text() == "yes\n"


OF_THE_C_LIBRARY = 1 << 31 | 1 << 32
"""Signals 32 and 33: no program can set them, and make (by posix_spawn) may have left them ignored."""

LOOK = r"""
cd /proc/self
{ ls -l fd; grep -E 'Sig(Blk|Ign)|Umask' /proc/self/status; cut -d' ' -f1,5 stat; pwd -P; env; } > "$0"
"""


def test_what_a_script_inherits(tmp_path: Path) -> None:
    out = tmp_path / "out"
    stray = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(stray, True)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    environment = {"PATH": "/bin:/usr/bin", "KEPT": "1", "LD_PRELOAD": "/x", "WATCHDOG_PID": "2", "IFS": "z"}

    async def body() -> None:
        bench = Bench(environment)
        bench.runner.submit("V", 1, (ours("/bin/sh", "-c", LOOK, str(out)),))
        await bench.until_ended(1)
        assert bench.ended[0][2] == (0,)

    try:
        run(body)
    finally:
        os.close(stray)
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    lines = out.read_text().splitlines()
    targets = [line.rpartition(" -> ")[2] for line in lines if " -> " in line]
    assert set(targets) == {"/dev/null", str(out)}
    signals = dict(line.split(":\t") for line in lines if line.startswith("Sig"))
    assert signals["SigBlk"] == "0" * 16
    assert int(signals["SigIgn"], 16) & ~OF_THE_C_LIBRARY == 0
    variables = dict(line.partition("=")[::2] for line in lines if "=" in line)
    assert variables["KEPT"] == "1"
    assert not {"LD_PRELOAD", "WATCHDOG_PID", "IFS"} & variables.keys()


def test_process_group_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "out"

    async def body() -> None:
        bench = Bench()
        bench.runner.submit("V", 1, (shell(f"cut -d' ' -f1,5 /proc/$$/stat > {out}"),))
        await bench.until_ended(1)

    run(body)
    pid, group = out.read_text().split()
    assert pid == group != str(os.getpgrp())


def test_a_file_the_kernel_cannot_execute_is_run_by_the_shell(tmp_path: Path) -> None:
    script, out = tmp_path / "it's a script", tmp_path / "out"
    script.write_text(f'printf "[%s]" "$@" > {out}\nexit 5\n')
    script.chmod(0o755)
    words = ("as written", "a b", "it's", "$HOME", "", "`id`", "\\", "-n")
    command = ScriptCommand(
        argv=words, executable=str(script), uid=os.geteuid(), gid=os.getegid(), through_shell=True
    )

    async def body() -> None:
        bench = Bench()
        bench.runner.submit("V", 1, (command,))
        await bench.until_ended(1)
        assert bench.ended[0][2] == (5,)

    run(body)
    assert out.read_text() == "".join(f"[{word}]" for word in words[1:])


STARTS_A_HELD_SCRIPT = """
import os, sys
from kad.config.model.script import ScriptCommand
from kad.notify.runner import start_process
command = ScriptCommand((sys.argv[1], "a b"), sys.argv[1], os.geteuid(), os.getegid(), through_shell=True)
pid = start_process(command, {})
print("started", flush=True)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), pid == int(open(sys.argv[2]).read()))
"""


@pytest.mark.root
def test_an_exec_that_hangs_holds_the_shell_alone(tmp_path: Path) -> None:
    """In a process of its own: whoever is held by an exec is held with the interpreter's lock."""
    script, out = tmp_path / "script", tmp_path / "out"
    script.write_text(f'#!/bin/sh\necho $$ > {out}\n[ "$1" = "a b" ] && exit 3\n')
    script.chmod(0o755)
    argv = [sys.executable, "-c", STARTS_A_HELD_SCRIPT, str(script), str(out)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with held_exec(script):
            assert select.select([process.stdout], [], [], 20)[0], "it waits for the exec"
            assert process.stdout.readline() == "started\n"
            assert not out.exists()
        assert process.stdout.read() == "3 True\n"


def test_what_the_shell_cannot_run_is_reported() -> None:
    command = ScriptCommand(("/nonexistent/script",), uid=os.geteuid(), gid=os.getegid(), through_shell=True)

    async def body() -> None:
        bench = Bench()
        bench.runner.submit("V", 1, (command,))
        await bench.until_ended(1)
        assert bench.ended == [("V", 1, (127,))]
        (report,) = bench.reports
        assert "/nonexistent/script" in report and "127" in report

    run(body)


def test_argv_zero_stays_as_written(tmp_path: Path) -> None:
    out = tmp_path / "out"

    async def body() -> None:
        bench = Bench()
        text = f"tr '\\0' '|' < /proc/$$/cmdline > {out}"
        bench.runner.submit("V", 1, (ours("as-written", "-c", text, "x", executable="/bin/sh"),))
        await bench.until_ended(1)

    run(body)
    assert out.read_text().startswith("as-written|-c|")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",))), max_size=4))
def test_shell_line_is_the_words_again(words: list[str]) -> None:
    import subprocess

    line = "printf '%s\\0' " + shell_line(("", *words))
    out = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True).stdout
    assert out.decode().split("\0")[1:-1] == words


def test_environment_without_what_scripts_may_not_see() -> None:
    seen = script_environment(
        {"A": "1", "IFS": "", "LD_LIBRARY_PATH": "x", "NOTIFY_SOCKET": "y", "WATCHDOG_USEC": "1", "OLD": "2"}
    )
    assert seen == {"A": "1", "OLD": "2"}


def test_locale_that_python_itself_put_there_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_CTYPE_IS_OURS", False)
    assert script_environment({"LC_CTYPE": "C.UTF-8", "A": "1"}) == {"A": "1"}
    assert script_environment({"LC_CTYPE": "de_DE.UTF-8"}) == {"LC_CTYPE": "de_DE.UTF-8"}
    monkeypatch.setattr(runner, "_CTYPE_IS_OURS", True)
    assert script_environment({"LC_CTYPE": "C.UTF-8"}) == {"LC_CTYPE": "C.UTF-8"}
