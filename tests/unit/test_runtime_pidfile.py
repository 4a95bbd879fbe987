"""Pid files: where they are, how they are locked, what is refused and what is stale."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kad.ipc.messages import Role
from kad.runtime.pidfile import PidFile, PidFileInUse, is_daemon, pid_file_path, process_name
from kad.runtime.process import Options
from tests.support.namespaces import poll

ALL = (None, Role.VRRP, Role.CHECK, Role.BFD)


def paths(**options: object) -> list[str]:
    return [pid_file_path(Options(**options), role) for role in ALL]  # type: ignore[arg-type]


def test_paths_are_keepalived_s() -> None:
    assert paths() == ["/run/keepalived.pid", "/run/vrrp.pid", "/run/checkers.pid", "/run/bfd.pid"]
    in_directory = [
        "/run/keepalived/keepalived.pid",
        "/run/keepalived/vrrp.pid",
        "/run/keepalived/checkers.pid",
        "/run/keepalived/bfd.pid",
    ]
    assert paths(use_pid_dir=True) == in_directory
    assert paths(net_namespace="blue")[:2] == [
        "/run/keepalived/blue/keepalived.pid",
        "/run/keepalived/blue/vrrp.pid",
    ]
    assert paths(instance="left")[0] == "/run/keepalived/keepalived_left.pid"
    assert paths(instance="left", net_namespace="blue", use_pid_dir=True)[:2] == [
        "/run/keepalived/blue/keepalived_left.pid",
        "/run/keepalived/blue/vrrp_left.pid",
    ]
    given = {
        "pid_file": "/a",
        "vrrp_pid_file": "/b",
        "checkers_pid_file": "/c",
        "bfd_pid_file": "/d",
        "instance": "left",
    }
    assert paths(**given) == ["/a", "/b", "/c", "/d"]


def test_write_replace_remove(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    file = PidFile.acquire(str(path))
    file.write(1234567)
    assert path.read_text() == "1234567\n"
    file.write(12)
    assert path.read_text() == "12\n"
    assert path.stat().st_mode & 0o777 == 0o644
    file.remove()
    assert not path.exists()


def test_made_again_when_somebody_removed_it(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    file = PidFile.acquire(str(path))
    file.write(12)
    path.unlink()
    file.write(13)
    assert path.read_text() == "13\n"
    with pytest.raises(PidFileInUse):
        PidFile.acquire(str(path))


def test_not_removed_when_it_is_somebody_elses(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    file = PidFile.acquire(str(path))
    path.unlink()
    path.write_text("77\n")
    file.remove()
    assert path.read_text() == "77\n"


def test_second_acquire_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    path = str(tmp_path / "x.pid")
    first = PidFile.acquire(path)
    first.write(os.getpid())
    with pytest.raises(PidFileInUse, match=rf"process {os.getpid()}.*locked"):
        PidFile.acquire(path)
    os.close(first.descriptor)
    PidFile.acquire(path).remove()


@pytest.mark.parametrize(
    "content", ["", "\n", "garbage", "99999999\n", "1\n", "-5\n", "0", "1e9", "\0" * 40, "{own}\n"]
)
def test_stale_file_never_blocks(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.pid"
    path.write_text(content.replace("{own}", str(os.getpid())))
    file = PidFile.acquire(str(path))
    file.write(5)
    assert path.read_text() == "5\n"


def test_number_that_something_else_has_by_now_is_stale(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            path = tmp_path / "x.pid"
            path.write_text(f"{other.pid}\n")
            PidFile.acquire(str(path)).remove()
        finally:
            other.kill()


def test_zombie_is_stale() -> None:
    with subprocess.Popen(["true"]) as ended:
        poll(lambda: process_name(ended.pid) == "", "a zombie has no name", seconds=10)
        assert not is_daemon(ended.pid)


def test_number_that_kerberos_has_by_now_is_stale(tmp_path: Path) -> None:
    program = tmp_path / "kadmind"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([str(program), "60"]) as other:
        try:
            poll(lambda: process_name(other.pid) == "kadmind", "its name", seconds=10)
            assert not is_daemon(other.pid)
        finally:
            other.kill()


@pytest.mark.parametrize("name", ["kad", "keepalived", "kad_vrrp", "keepalived_vrrp"])
def test_living_daemon_that_does_not_lock_is_refused(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    shutil.copy("/bin/sleep", program)
    path = tmp_path / "x.pid"
    with subprocess.Popen([program, "60"]) as daemon:
        try:
            path.write_text(f"{daemon.pid}\n")
            with pytest.raises(PidFileInUse, match=f"{name} is running as process {daemon.pid}"):
                PidFile.acquire(str(path))
            assert path.read_text() == f"{daemon.pid}\n"
        finally:
            daemon.kill()


def test_lock_is_the_one_newer_keepalived_takes(tmp_path: Path) -> None:
    """An open-file-description write lock: of another descriptor in the same process too, unlike POSIX's."""
    path = tmp_path / "x.pid"
    PidFile.acquire(str(path))
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    with path.open("r+") as theirs, pytest.raises(BlockingIOError):
        fcntl.fcntl(theirs, fcntl.F_OFD_SETLK, lock)


def test_file_locked_by_newer_keepalived_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    with path.open("w") as theirs:
        fcntl.fcntl(theirs, fcntl.F_OFD_SETLK, lock)
        with pytest.raises(PidFileInUse):
            PidFile.acquire(str(path))


def test_symbolic_link_and_other_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        PidFile.acquire(str(tmp_path / "link"))
    assert not (tmp_path / "target").exists()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises((PidFileInUse, OSError)):
        PidFile.acquire(str(tmp_path / "fifo"))


def test_race_of_many_has_one_winner(tmp_path: Path) -> None:
    path = str(tmp_path / "x.pid")
    code = (
        "import signal, sys\n"
        "from kad.runtime.pidfile import PidFile, PidFileInUse\n"
        "try:\n"
        f"    PidFile.acquire({path!r})\n"
        "except PidFileInUse:\n"
        "    sys.exit(3)\n"
        "print('won', flush=True)\n"
        "signal.alarm(60)\n"
        "signal.pause()\n"
    )
    racers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL) for _ in range(5)]
    try:
        poll(lambda: sum(racer.poll() is None for racer in racers) == 1, "one is left", seconds=20)
        assert sorted(str(racer.poll()) for racer in racers) == ["3"] * 4 + ["None"]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()


# Debian's keepalived, which does not lock -----------------------------------------------------------------


@contextlib.contextmanager
def keepalived(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """In a network namespace of its own, with nothing to do."""
    if shutil.which("keepalived") is None or os.geteuid() != 0:
        pytest.skip("needs keepalived and root")
    (tmp_path / "empty.conf").write_text("global_defs {\n}\n")
    names = {"-p": "x.pid", "-r": "v.pid", "-c": "c.pid", "-b": "b.pid"}
    words = [word for flag, name in names.items() for word in (flag, str(tmp_path / name))]
    argv = ["unshare", "-n", "keepalived", "-n", "-G", "-l", "-f", str(tmp_path / "empty.conf"), *words]
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


@pytest.mark.root
@pytest.mark.interop
def test_running_keepalived_is_refused_and_a_killed_one_is_stale(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    with keepalived(tmp_path) as daemon:
        poll(lambda: path.exists() and path.read_text().strip(), "keepalived's pid is there", seconds=10)
        with pytest.raises(PidFileInUse, match="keepalived is running"):
            PidFile.acquire(str(path))
        daemon.kill()
        daemon.wait()
        assert path.exists()
        PidFile.acquire(str(path)).remove()


@pytest.mark.root
@pytest.mark.interop
def test_keepalived_refuses_the_pid_file_of_a_running_kad(tmp_path: Path) -> None:
    file = PidFile.acquire(str(tmp_path / "x.pid"))
    file.write(os.getpid())
    with keepalived(tmp_path) as daemon:
        assert daemon.wait(10) == 0
        assert daemon.stderr is not None
        assert b"already running" in daemon.stderr.read()
