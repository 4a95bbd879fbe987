"""Control and the children under kill -9: what runs goes on running, whatever is on disk by then."""

from __future__ import annotations

import contextlib
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kad.ipc.client import NoAnswer, NoDaemon
from tests.process.test_reload_transaction import BROKEN, configuration
from tests.support.control import kill, pids_of, reload, status_of, wait_for_generation
from tests.support.daemon import Kad
from tests.support.keepalived import configuration as written
from tests.support.keepalived import vrrp_instance
from tests.support.namespaces import Network, Node, poll, remains

pytestmark = pytest.mark.root


@pytest.fixture
def node(network: Network) -> Node:
    one = network.node("one")
    one.attach(network.bridge(), "192.0.2.1/24", name="eth0")
    return one


@pytest.fixture
def daemon(node: Node) -> Iterator[Kad]:
    with Kad(node, configuration()) as kad:
        kad.wait_for("vrrp: STARTING → RUNNING")
        wait_for_generation(kad, 1)
        yield kad


def test_death_of_control_is_noticed_by_nobody(daemon: Kad) -> None:
    before = pids_of(daemon)
    kill(before["control"])
    after = wait_for_generation(daemon, 1)
    pids = {process.role: process.pid for process in after.processes if process.pid}
    assert pids.pop("control") != before.pop("control")
    assert pids == before
    assert [process.restarts for process in after.processes if process.role == "control"] == [1]


@pytest.mark.parametrize("what", ["broken", "gone"])
@pytest.mark.parametrize("role", ["control", "vrrp", "check", "bfd"])
def test_killed_process_comes_back_on_the_committed_generation(daemon: Kad, role: str, what: str) -> None:
    daemon.configure(configuration(priority=150))
    assert reload(daemon).accepted
    if what == "broken":
        daemon.configure(BROKEN)
    else:
        daemon.config.unlink()
    old = pids_of(daemon)[role]
    kill(old)
    poll(lambda: pids_of(daemon).get(role, old) != old, f"another {role}", seconds=10)
    status = wait_for_generation(daemon, 2)
    assert [instance.priority for instance in status.instances] == [150]
    assert status.file_is_what_runs is False


def test_hung_control_is_replaced(daemon: Kad) -> None:
    before = pids_of(daemon)
    kill(before["control"], signal.SIGSTOP)
    after = wait_for_generation(daemon, 1)
    assert {process.pid for process in after.processes if process.role == "control"} != {before["control"]}


def test_a_hup_that_a_hung_control_never_read_is_the_next_ones(daemon: Kad) -> None:
    kill(pids_of(daemon)["control"], signal.SIGSTOP)
    daemon.configure(configuration(priority=150))
    daemon.reload()
    assert [each.priority for each in wait_for_generation(daemon, 2).instances] == [150]


def wake_ups(pid: int) -> int:
    found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1])


def test_a_backup_with_nothing_to_do_sleeps_and_is_replaced_when_it_is_stopped_in_its_sleep(
    node: Node,
) -> None:
    text = written(vrrp_instance(version=3, priority=100, advert_int=30))
    with Kad(node, text) as kad:
        kad.wait_for("(VI_1) Entering BACKUP STATE")
        wait_for_generation(kad, 1)
        pid = kad.vrrp_pid()
        before = wake_ups(pid)
        # Far longer than anybody may stand still who is not asleep.
        remains(lambda: kad.vrrp_pid() == pid, "the same process", seconds=4)
        assert wake_ups(pid) - before < 12
        kill(pid, signal.SIGSTOP)
        poll(lambda: kad.vrrp_pid() not in (0, pid), "another process", seconds=10)
        assert kad.count("hangs (stopped)") == 1


def test_control_that_starts_over_says_why_in_its_last_words(daemon: Kad) -> None:
    """A stopped supervisor takes no commit. What it finds when it goes on counts as committed."""
    daemon.configure(configuration(priority=150))
    old = pids_of(daemon)["control"]
    with contextlib.ExitStack() as stopped:
        kill(daemon.pid, signal.SIGSTOP)
        stopped.callback(kill, daemon.pid, signal.SIGCONT)
        with pytest.raises((NoAnswer, NoDaemon)):
            reload(daemon)
        words = poll(lambda: (daemon.directory / "run/crash.control").read_text(), "last words", seconds=10)
    assert "control starts over: the supervisor does not answer a commit" in words
    daemon.wait_for(f"the last words of process {old} are in")
    assert [each.priority for each in wait_for_generation(daemon, 2).instances] == [150]


def test_child_that_does_not_answer_is_shown_as_such_in_time(daemon: Kad) -> None:
    pids = pids_of(daemon)
    kill(pids["vrrp"], signal.SIGSTOP)
    begin = time.monotonic()
    status = status_of(daemon)
    took = time.monotonic() - begin
    kill(pids["vrrp"], signal.SIGCONT)
    answered = {process.role: process.answered for process in status.processes}
    assert answered["vrrp"] is False
    assert answered["check"] is True
    # What it said before is shown on.
    assert [instance.name for instance in status.instances] == ["VI_1"]
    assert took < 2


def test_sockets_are_for_their_owner_alone(daemon: Kad) -> None:
    directory = Path(f"{daemon.directory}/run")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    sockets = [path for path in directory.iterdir() if stat.S_ISSOCK(path.stat().st_mode)]
    assert {path.name for path in sockets} == {"control.ipc", "ctl.ipc", "bfd.ipc"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} == {0o600}


def test_kadctl_says_at_once_that_nothing_runs(daemon: Kad, tmp_path: Path) -> None:
    daemon.stop()
    begin = time.monotonic()
    for directory in (f"{daemon.directory}/run", str(tmp_path), "/nonexistent"):
        done = daemon.kadctl("--run-dir", directory, "status")
        assert done.returncode == 1
        assert done.stderr.startswith("kadctl: no kad answers in")
        assert done.stdout == ""
    assert time.monotonic() - begin < 5


def test_status_for_people_and_for_programs(daemon: Kad) -> None:
    text = daemon.kadctl("status").stdout
    lines = text.splitlines()
    assert lines[2].endswith("is what runs")
    (header,) = [line for line in lines if line.startswith("INSTANCE")]
    (row,) = [line for line in lines if line.startswith("VI_1")]
    assert row[header.index("STATE") :].split()[0] in ("BACKUP", "MASTER")
    assert "192.0.2.100/24" in row
    parsed = msgspec.json.decode(daemon.kadctl("status", "--json").stdout)
    assert parsed["generation"] == 1
    assert parsed["instances"][0]["name"] == "VI_1"
    assert {process["role"] for process in parsed["processes"]} >= {"control", "vrrp", "check"}


def test_kadctl_is_quiet_when_nobody_reads_it(daemon: Kad) -> None:
    program = f"{daemon.program}ctl --run-dir {daemon.directory}/run status"
    for command in (f"{program} --json | true", f"{program} >&-", f"{program} --json >&-"):
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=30)
        assert done.stderr == "", command
    full = f"{program} > /dev/full"
    done = subprocess.run(["sh", "-c", full], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (1, "kadctl: No space left on device\n")


# How a start ends that cannot be ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "status"),
    [(None, 6), ("vrrp_instance VI_1 {\n interface eth0\n virtual_router_id\n}\n", 2)],
    ids=["no file", "a keyword without its argument"],
)
def test_start_that_cannot_run_exits_like_keepalived(node: Node, text: str | None, status: int) -> None:
    kad = Kad(node, text or "")
    try:
        if text is None:
            kad.config.unlink()
        kad.start()
        assert kad.process is not None
        assert kad.process.wait(15) == status, kad.said()
    finally:
        kad.close()


def test_start_tolerates_errors_in_the_text_and_logs_them(node: Node) -> None:
    with Kad(node, BROKEN) as kad:
        kad.wait_for("vrrp: STARTING → RUNNING")
        kad.wait_for("virtual_routr_id")
        wait_for_generation(kad, 1)
