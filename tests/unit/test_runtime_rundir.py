"""The run directory: its name, its rights, its lock, and waiting for an old family."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kad.runtime.process import Options
from kad.runtime.rundir import RunDirectory, RunDirectoryInUse, run_directory_path


def options(path: Path) -> Options:
    return Options(run_directory=str(path))


def test_names() -> None:
    assert run_directory_path(Options()) == "/run/kad/default"
    assert run_directory_path(Options(net_namespace="blue")) == "/run/kad/blue"
    assert run_directory_path(Options(net_namespace="blue", instance="left")) == "/run/kad/left"
    assert run_directory_path(Options(instance="left", run_directory="/x/y/")) == "/x/y"
    for name in ("../up", "a/b", ".", ".."):
        with pytest.raises(RunDirectoryInUse):
            run_directory_path(Options(instance=name))


def test_made_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o177)
    try:
        directory = RunDirectory.acquire(options(tmp_path / "deep" / "run"))
    finally:
        os.umask(before)
    assert os.stat(directory.path).st_mode & 0o777 == 0o700
    assert (tmp_path / "deep" / "run" / "lock").read_text() == f"{os.getpid()}\n"


def test_rights_are_put_right(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o777)
    RunDirectory.acquire(options(tmp_path / "run"))
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700


def test_links_and_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(RunDirectoryInUse):
            RunDirectory.acquire(options(tmp_path / name))


HOLDER = """
import os, signal, sys, threading
from kad.runtime.process import Options, set_title
from kad.runtime.rundir import RunDirectory
set_title("kad", sys.argv[2])
held = RunDirectory.acquire(Options(run_directory=sys.argv[1]))
if len(sys.argv) > 3:
    if os.fork():
        os._exit(0)       # the supervisor is gone, its child holds the lock a little longer
    threading.Event().wait(float(sys.argv[3]))
    os._exit(0)
print("held", flush=True)
signal.alarm(60)
signal.pause()
"""


def test_living_supervisor_is_refused_at_once(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HOLDER, str(tmp_path / "run"), "kad"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            begin = time.monotonic()
            with pytest.raises(RunDirectoryInUse, match=f"process {holder.pid}"):
                RunDirectory.acquire(options(tmp_path / "run"), wait_us=30_000_000)
            assert time.monotonic() - begin < 10
        finally:
            holder.kill()


def test_old_family_is_waited_for(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HOLDER, str(tmp_path / "run"), "kad", "0.4"]
    subprocess.run(argv, check=True)
    begin = time.monotonic()
    with pytest.raises(RunDirectoryInUse, match="earlier kad"):
        RunDirectory.acquire(options(tmp_path / "run"), wait_us=1_000)
    RunDirectory.acquire(options(tmp_path / "run"), wait_us=30_000_000)
    assert time.monotonic() - begin > 0.1


def test_removed_directory_is_made_again(tmp_path: Path) -> None:
    held = RunDirectory.acquire(options(tmp_path / "run"))
    assert held.held() == held.lock
    shutil.rmtree(tmp_path / "run")
    os.fstat(held.held())
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    with pytest.raises(RunDirectoryInUse):
        RunDirectory.acquire(options(tmp_path / "run"), wait_us=0)


def test_directory_that_another_took_meanwhile_is_theirs(tmp_path: Path) -> None:
    held = RunDirectory.acquire(options(tmp_path / "run"))
    shutil.rmtree(tmp_path / "run")
    other = RunDirectory.acquire(options(tmp_path / "run"), wait_us=0)
    before = held.lock
    assert held.held() == before
    os.close(other.lock)


def test_free_after_the_end(tmp_path: Path) -> None:
    first = RunDirectory.acquire(options(tmp_path / "run"))
    with pytest.raises(RunDirectoryInUse):
        RunDirectory.acquire(options(tmp_path / "run"), wait_us=0)
    os.close(first.lock)
    RunDirectory.acquire(options(tmp_path / "run"), wait_us=0)
