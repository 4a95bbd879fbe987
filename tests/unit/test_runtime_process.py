"""A child's first acts and its end, in real forks."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from kad.config.model.globals import ProcessSettings
from kad.ipc.messages import Role, SupervisorSettings
from kad.runtime import process
from kad.runtime.journal import Area, Journal
from kad.runtime.process import ChildContext, Options, adopt, become_child, begin_life, crash_file, die
from kad.runtime.tuning import Tuner
from kad.supervisor import signals
from kad.supervisor.spawn import PREIMPORTS, Mains, _run


@pytest.fixture
def blocked() -> Iterator[None]:
    """As in the supervisor: every signal of the daemon's blocked, every disposition as the kernel has it."""
    handlers = {number: signal.getsignal(number) for number in (*signals.HANDLED, *signals.SPARE)}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    signals.block()
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def context(directory: Path, **more: Any) -> ChildContext:
    given: dict[str, Any] = {
        "role": Role.VRRP,
        "incarnation": 1,
        "options": Options(log_syslog=False),
        "run_directory": str(directory),
        "journal": Journal.create({role: Area(1, 512) for role in Role}),
        "generation": None,
        "supervisor_pid": os.getpid(),
    }
    return ChildContext(**(given | more))


def in_fork(act: Callable[[], object]) -> tuple[int, Any]:
    """The exit code of a child that does ``act``, and what it returned."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.write(writer, json.dumps(act()).encode())
            os._exit(0)
        os._exit(99)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), json.loads(said) if said else None


def status_line(name: str) -> int:
    with open("/proc/self/status") as file:
        [line] = [line for line in file if line.startswith(name + ":")]
    return int(line.split()[1], 16)


def bit(number: int) -> int:
    return 1 << (number - 1)


def test_the_umask_goes_back_where_the_word_is_gone_and_the_command_lines_wins() -> None:
    def act() -> list[int]:
        found = []
        tuner = Tuner("test", Options(umask=0o27).umask_with, print)
        for options in (Options(), Options(umask=0o27)):
            for configured in (0o22, None):
                adopt(SupervisorSettings(umask=configured), options)
                found.append(os.umask(0))
        for configured in (0o22, None):
            tuner.apply(ProcessSettings(umask=configured))
            found.append(os.umask(0))
        return found

    assert in_fork(act) == (0, [0o22, 0o177, 0o27, 0o27, 0o27, 0o27])


def test_child_is_a_process_of_its_own(tmp_path: Path, blocked: None) -> None:
    birth = context(tmp_path)
    left_open = os.open("/dev/null", os.O_RDONLY)
    kept = os.open("/dev/null", os.O_RDONLY)

    def act() -> dict[str, Any]:
        become_child(birth, [kept, *pipe_descriptors()])
        begin_life(birth)
        with open("/proc/self/cmdline", "rb") as file:
            title = file.read().rstrip(b"\0").decode()
        return {
            "group": os.getpgid(0) == os.getpid(),
            "blocked": status_line("SigBlk"),
            "ignored": status_line("SigIgn"),
            "caught": status_line("SigCgt"),
            "comm": Path("/proc/self/comm").read_text().strip(),
            "title": title,
            "kept": os.path.exists(f"/proc/self/fd/{kept}"),
            "left_open": os.path.exists(f"/proc/self/fd/{left_open}"),
            "crash": crash_file(str(tmp_path), Role.VRRP) in map(os.path.realpath, links()),
        }

    code, found = in_fork(act)
    os.close(left_open)
    os.close(kept)
    assert code == 0
    assert found["blocked"] == 0
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        assert found["ignored"] & bit(number)
    for number in (signal.SIGALRM, signal.SIGPROF, 40):
        assert found["ignored"] & bit(number)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        assert not (found["ignored"] | found["caught"]) & bit(number)
    # Passed on to the supervisor.
    for number in (signal.SIGUSR1, signal.SIGUSR2, 36, 63):
        assert found["caught"] & bit(number)
    # faulthandler is on.
    for number in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS):
        assert found["caught"] & bit(number)
    assert (found["group"], found["kept"], found["left_open"], found["crash"]) == (True, True, False, True)
    assert (found["title"], found["comm"]) == ("kad: vrrp", "kad_vrrp")


def links() -> list[str]:
    return [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]


def pipe_descriptors() -> list[int]:
    """The pipe the answer goes through must stay."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("pipe:"):
                found.append(int(name))
    return found


def test_child_of_a_dead_supervisor_leaves(tmp_path: Path, blocked: None) -> None:
    birth = context(tmp_path, supervisor_pid=1)
    code, _ = in_fork(lambda: become_child(birth, pipe_descriptors()))
    assert code == 1


def test_children_die_with_their_supervisor(tmp_path: Path, blocked: None) -> None:
    """A grandchild gets TERM when its parent is killed."""
    reader, writer = os.pipe()
    supervisor = os.fork()
    if supervisor == 0:
        birth = context(tmp_path)
        if os.fork() == 0:
            become_child(birth, [writer])
            os.write(writer, b"%d\n" % os.getpid())
        # Both come through here; the alarm ends what the test leaves behind.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        signal.pause()
    os.close(writer)
    assert int(os.read(reader, 100)) > 0
    begin = time.monotonic()
    os.kill(supervisor, signal.SIGKILL)
    os.waitpid(supervisor, 0)
    # The pipe closes when its last holder is gone.
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert time.monotonic() - begin < 30, "it did not sleep to its end"


def life(act: Callable[[ChildContext], int], birth: ChildContext) -> int:
    pid = os.fork()
    if pid == 0:
        _run(act, birth, [])
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_ends_of_a_child(tmp_path: Path, blocked: None) -> None:
    birth = context(tmp_path)

    def raises(_: ChildContext) -> int:
        raise ValueError("planted é \udcff")

    def exits(_: ChildContext) -> NoReturn:
        raise SystemExit(3)

    def exits_with_text(_: ChildContext) -> NoReturn:
        raise SystemExit("text")

    def aborts(_: ChildContext) -> int:
        os.abort()

    assert life(lambda _: 0, birth) == 0
    assert life(lambda _: 4, birth) == 4
    assert life(exits, birth) == 3
    assert life(exits_with_text, birth) == 1
    words = Path(crash_file(str(tmp_path), Role.VRRP))
    assert words.read_text() == ""
    assert life(raises, birth) == 70
    assert "ValueError: planted" in words.read_text()
    assert life(aborts, birth) == -signal.SIGABRT
    assert "in aborts" in words.read_text()


def test_crash_file_begins_anew_when_it_is_long(tmp_path: Path, blocked: None) -> None:
    words = Path(crash_file(str(tmp_path), Role.VRRP))
    words.write_text("x" * (process.CRASH_FILE_LIMIT + 1))
    life(lambda _: 0, context(tmp_path))
    assert words.read_text() == ""


def test_without_a_run_directory_the_child_lives_and_dies_all_the_same(
    tmp_path: Path, blocked: None, capfd: pytest.CaptureFixture[str]
) -> None:
    def raises(_: ChildContext) -> int:
        raise ValueError("planted")

    birth = context(tmp_path / "missing")
    assert life(lambda _: 0, birth) == 0
    assert life(raises, birth) == 70
    assert "ValueError: planted" in capfd.readouterr().err


def test_die_runs_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    def act() -> None:
        try:
            die(RuntimeError("last"))
        finally:
            os.write(1, b"not reached")

    assert in_fork(act)[0] == 70
    captured = capfd.readouterr()
    assert "RuntimeError: last" in captured.err
    assert captured.out == ""


def test_nofile_limit_is_raised_and_the_inherited_one_is_known() -> None:
    def act() -> list[int]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, process.inherited_nofile[1]))
        process.raise_nofile_limit()
        return [*resource.getrlimit(resource.RLIMIT_NOFILE), *process.inherited_nofile]

    code, (soft, hard, inherited_soft, inherited_hard) = in_fork(act)
    assert code == 0
    wanted = process.NOFILE_LIMIT if hard == resource.RLIM_INFINITY else min(process.NOFILE_LIMIT, hard)
    assert soft == wanted
    assert (inherited_soft, inherited_hard) == resource.getrlimit(resource.RLIMIT_NOFILE)


def test_roles_are_loaded_when_they_are_needed_or_there_is_time() -> None:
    entries = {Role.CONTROL: "colorsys:rgb_to_yiq", Role.VRRP: "quopri:encode", Role.CHECK: "wave:open"}
    names = ("encodings.idna", "colorsys", "quopri", "wave")

    def act() -> list[list[bool]]:
        for name in names:
            sys.modules.pop(name, None)
        mains = Mains(entries)
        found = []
        for step in (lambda: None, lambda: mains[Role.VRRP], mains.complete, mains.complete, mains.complete):
            step()
            found.append([name in sys.modules for name in names])
        assert mains[Role.VRRP].__module__ == "quopri"
        return found

    needed = [True, False, True, False]
    one_more, all_of_them = [True, True, True, False], [True] * 4
    loaded = [[True, False, False, False], needed, one_more, all_of_them, all_of_them]
    assert in_fork(act) == (0, loaded)
    assert "encodings.idna" in PREIMPORTS


def test_signals_wait_in_the_kernel(blocked: None) -> None:
    # In a process of one thread, as the supervisor is: another one would take them.
    def act() -> list[list[int]]:
        queue = signals.SignalQueue()

        def numbers() -> list[int]:
            return sorted(info.number for info in queue.read())

        found = [numbers()]
        for number in (signal.SIGHUP, signal.SIGTERM, 36, 63):
            os.kill(os.getpid(), number)
        found += [numbers(), numbers()]
        with subprocess.Popen(["true"]):
            pass
        return [*found, numbers()]

    assert in_fork(act) == (0, [[], [1, 15, 36, 63], [], [signal.SIGCHLD]])
