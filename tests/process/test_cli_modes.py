"""The modes of the command line that end by themselves, as a script sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

KAD = str(Path(sys.executable).parent / "kad")

GOOD = """
vrrp_instance VI_1 {
    interface eth0
    virtual_router_id 51
    virtual_ipaddress {
        192.0.2.100
    }
}
"""
UNKNOWN = GOOD.replace("virtual_router_id", "bogus 3\n    virtual_router_id")
NO_ARGUMENT = GOOD.replace("virtual_router_id 51", "virtual_router_id")
SCRIPT = GOOD + "vrrp_script s {\n    script /bin/true\n}\n"


def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([KAD, *words], capture_output=True, text=True, timeout=30, check=False, **options)


def test(tmp_path: Path, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "kad.conf"
    file.write_text(text)
    file.chmod(0o644)
    return run("-t", "--offline", "-f", str(file), *words)


test.__test__ = False  # type: ignore[attr-defined]


def test_good_configuration_says_nothing(tmp_path: Path) -> None:
    done = test(tmp_path, GOOD)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("text", "status", "line"),
    [(UNKNOWN, 5, "kad.conf:4:5: error:"), (NO_ARGUMENT, 2, "kad.conf:4:")],
    ids=["unknown keyword", "no argument"],
)
def test_findings_are_shown_with_their_place(tmp_path: Path, text: str, status: int, line: str) -> None:
    done = test(tmp_path, text)
    assert done.returncode == status, done.stderr
    assert line in done.stderr
    assert "^" in done.stderr
    assert done.stdout == ""


def test_the_environment_is_read(tmp_path: Path) -> None:
    file = tmp_path / "kad.conf"
    file.write_text(GOOD.replace("virtual_router_id 51", "virtual_router_id ${_ENV ROUTER}"))
    file.chmod(0o644)
    assert run("-t", "--offline", "-f", str(file), env={"ROUTER": "51"}).returncode == 0
    assert run("-t", "--offline", "-f", str(file), env={}).returncode != 0


def test_missing_file_is_four(tmp_path: Path) -> None:
    done = run("-t", "-f", str(tmp_path / "none.conf"))
    assert done.returncode == 4
    assert "none.conf" in done.stderr


def test_directory_is_four(tmp_path: Path) -> None:
    assert run("-t", "-f", str(tmp_path)).returncode == 4


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", b"{" * 10_000, b"}" * 10_000, b"\x00" * 1000])
def test_rubbish_gives_no_traceback(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "kad.conf"
    file.write_bytes(content)
    done = run("-t", "--offline", "-f", str(file))
    assert done.returncode in (4, 5)
    assert "Traceback" not in done.stderr


def test_log_is_appended_to_and_stderr_stays_silent(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    done = test(tmp_path, UNKNOWN, f"--config-test={log}")
    assert (done.returncode, done.stderr) == (5, "")
    assert log.read_text().startswith("before\n")
    assert "bogus" in log.read_text()


def test_new_log_is_readable_by_all_and_writable_by_its_owner(tmp_path: Path) -> None:
    log = tmp_path / "log"
    file = tmp_path / "kad.conf"
    file.write_text(UNKNOWN)
    done = run(f"-t{log}", "--offline", "-f", str(file), umask=0o022)
    assert done.returncode == 5
    assert log.stat().st_mode & 0o777 == 0o644


def test_log_is_no_symbolic_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("")
    link.symlink_to(target)
    done = test(tmp_path, UNKNOWN, f"--config-test={link}")
    assert done.returncode == 1
    assert "Unable to open config-test log file" in done.stderr
    assert target.read_text() == ""


def test_closed_stderr_is_no_defect(tmp_path: Path) -> None:
    file = tmp_path / "kad.conf"
    file.write_text(UNKNOWN)
    command = f"exec {KAD} -t --offline -f {file} 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False, timeout=30).returncode == 5


@pytest.mark.parametrize(
    ("name", "number"),
    [("STOP", 15), ("RELOAD", 1), ("DATA", 10), ("STATS", 12), ("STATS_CLEAR", 63), ("JSON", 36)],
)
def test_signal_numbers_are_keepalived_s(name: str, number: int) -> None:
    done = run(f"--signum={name}")
    assert (done.returncode, done.stdout) == (0, f"{number}\n")


def test_unknown_signal(tmp_path: Path) -> None:
    done = run("--signum", "stop")
    assert (done.returncode, done.stderr) == (1, "Unknown sigfunc stop\n")


def test_version_and_help() -> None:
    assert run("-v").returncode == 0
    assert run("-v").stderr.startswith("kad v")
    done = run("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: kad")


def test_unknown_option_starts_nothing(tmp_path: Path) -> None:
    done = run("-n", "-q", "--run-dir", str(tmp_path / "run"), "-p", str(tmp_path / "pid"))
    assert (done.returncode, done.stderr) == (1, "Unknown option -q\n")
    assert list(tmp_path.iterdir()) == []


def test_stray_arguments_are_said_and_let_be(tmp_path: Path) -> None:
    done = test(tmp_path, GOOD, "more", "words")
    assert (done.returncode, done.stdout) == (0, "Unexpected argument(s): more words\n")


def test_run_directory_too_long_for_sockets_is_said(tmp_path: Path) -> None:
    directory = "/tmp/" + "x" * 120
    done = run("-n", "--run-dir", directory, "-p", str(tmp_path / "pid"))
    assert done.returncode == 1
    assert "too long" in done.stderr
    assert not os.path.exists(directory)


@pytest.mark.parametrize("words", [("-f", "kad.conf"), ("-f", "/x", "-p", "pid")])
def test_vanished_directory_of_the_caller_is_said(tmp_path: Path, words: tuple[str, ...]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"cd {gone} && rmdir {gone} && exec {KAD} -n {' '.join(words)}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert done.stderr.startswith("kad: ")
    assert "the current directory is gone" in done.stderr


def test_configuration_test_loads_little() -> None:
    """It is called from scripts: no event loop, no ZeroMQ, no netlink library."""
    program = (
        "import sys; from kad.cli import main; status = main(['-t', '-f', '/nonexistent']);"
        "print(status, *sorted({'asyncio', 'zmq', 'pyroute2', 'psutil', 'ssl'} & set(sys.modules)))"
    )
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "4\n"


def test_network_namespace_that_is_not_there(tmp_path: Path) -> None:
    """Asked for on the command line it is a failure; the configuration's is said, and the text judged."""
    file = tmp_path / "kad.conf"
    file.write_text(GOOD)
    done = run("-t", "-s", "no-such-place", "-f", str(file))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "network namespace no-such-place" in done.stderr
    file.write_text(f"net_namespace no-such-place\n{UNKNOWN}")
    done = run("-t", "-f", str(file))
    assert done.returncode == 5
    assert "network namespace no-such-place" in done.stderr
    assert "bogus" in done.stderr
    assert "eth0" not in done.stderr
