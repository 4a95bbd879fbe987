"""What the command line makes of the daemon."""

from __future__ import annotations

import os
import select
import subprocess
from pathlib import Path

import pytest

from tests.process import test_reload_transaction
from tests.support.control import kill, pids_of, status_of, wait_for_generation
from tests.support.daemon import Kad
from tests.support.namespaces import Network, Node, poll

pytestmark = pytest.mark.root


@pytest.fixture
def node(network: Network) -> Node:
    one = network.node("one")
    one.attach(network.bridge(), "192.0.2.1/24", name="eth0")
    return one


def configuration(priority: int = 100) -> str:
    """An instance and a virtual server, no BFD."""
    whole = test_reload_transaction.configuration(priority)
    return whole[: whole.index("bfd_instance")]


def running(daemon: Kad) -> set[str]:
    return set(pids_of(daemon)) - {"control"}


@pytest.mark.parametrize(
    ("options", "roles"),
    [
        ((), {"vrrp", "check"}),
        (("-P",), {"vrrp"}),
        (("-C",), {"check"}),
        (("--all",), {"vrrp", "check", "bfd"}),
        (("--all", "-P"), {"vrrp", "bfd"}),
    ],
    ids=lambda value: " ".join(sorted(value)) or "none",
)
def test_which_processes_run(node: Node, options: tuple[str, ...], roles: set[str]) -> None:
    with Kad(node, configuration(), *options) as daemon:
        daemon.wait_for("generation 1 is committed")
        wait_for_generation(daemon, 1)
        assert running(daemon) == roles


def test_empty_configuration_runs_nothing_and_waits_for_a_reload(node: Node) -> None:
    with Kad(node, "") as daemon:
        daemon.wait_for("generation 1 is committed")
        wait_for_generation(daemon, 1)
        assert running(daemon) == set()
        daemon.configure(configuration())
        daemon.reload()
        wait_for_generation(daemon, 2)
        assert running(daemon) == {"vrrp", "check"}
        assert daemon.stop() == 0


def test_host_name_and_environment_are_known_to_the_reader(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = os.uname().nodename.partition(".")[0]
    monkeypatch.setenv("WHERE", "around")
    text = configuration() + f"@{here} bogus_here\n@^{here} bogus_elsewhere\nbogus_${{_ENV WHERE}}\n"
    with Kad(node, text) as daemon:
        daemon.wait_for("generation 1 is committed")
        assert daemon.count("'bogus_here'")
        assert daemon.count("'bogus_around'")
        assert not daemon.count("bogus_elsewhere")


def test_what_does_nothing_yet_is_logged_once(node: Node) -> None:
    with Kad(node, configuration(), "-x", "-A", "socket") as daemon:
        daemon.wait_for("generation 1 is committed")
        wait_for_generation(daemon, 1)
        kill(pids_of(daemon)["control"])
        wait_for_generation(daemon, 1)
        logged = [line for line in daemon.said().splitlines() if "Keepalived[" in line]
        assert sum("-x does nothing" in line for line in logged) == 1
        assert sum("-A does nothing" in line for line in logged) == 1


def test_configuration_is_dumped_on_request(node: Node) -> None:
    with Kad(node, configuration(priority=123), "-d") as daemon:
        daemon.wait_for("priority = 123")
        daemon.wait_for("------< bfd >------")


def test_network_namespace_by_option(network: Network, tmp_path: Path) -> None:
    """Started outside, it works inside: the interface is only there."""
    node = network.node("inner")
    node.attach(network.bridge(), "192.0.2.1/24", name="inner0")
    config = tmp_path / "kad.conf"
    config.write_text(configuration().replace("eth0", "inner0"))
    config.chmod(0o644)
    assert subprocess.run([Kad.program, "-t", "-f", config, "-s", node.name], check=False).returncode == 0
    assert subprocess.run([Kad.program, "-t", "-f", config], check=False, stderr=-3).returncode != 0
    named = tmp_path / "named.conf"
    named.write_text(f"{config.read_text()}\nnet_namespace {node.name}\n")
    assert subprocess.run([Kad.program, "-t", "-f", named], check=False).returncode == 0
    names = [f"-{letter}{tmp_path}/{letter}.pid" for letter in "prcb"]
    argv = [Kad.program, "-nlG", "-s", node.name, "--run-dir", f"{tmp_path}/run", "-f", str(config), *names]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, process_group=0)
    try:
        poll(lambda: node.holds("192.0.2.100"), "the address in the namespace", seconds=15)
        inside = os.stat(f"/run/netns/{node.name}").st_ino
        assert os.stat(f"/proc/{process.pid}/ns/net").st_ino == inside
    finally:
        process.terminate()
        assert process.wait(15) == 0
    assert not node.holds("192.0.2.100")


def test_daemons_of_two_namespaces_keep_apart(network: Network, tmp_path: Path) -> None:
    """Named in their files, without a word about pid files: these are where keepalived's are."""
    lan = network.bridge()
    running: list[tuple[Node, subprocess.Popen[bytes], Path]] = []
    try:
        for number in (1, 2):
            node = network.node(f"inner{number}")
            node.attach(lan, f"192.0.2.{number}/24")
            config = tmp_path / f"{number}.conf"
            text = configuration(priority=50 * number)
            config.write_text(f"net_namespace {node.name}\ninstance left\n{text}")
            config.chmod(0o644)
            argv = [Kad.program, "-nlG", "-f", str(config), "--run-dir", f"{tmp_path}/run{number}"]
            process = subprocess.Popen(argv, stdout=-3, stderr=-3, process_group=0)
            running.append((node, process, Path("/run/keepalived", node.name)))
        poll(lambda: running[1][0].holds("192.0.2.100"), "the better one's address", seconds=15)
        for _, process, directory in running:
            assert (directory / "keepalived_left.pid").read_text() == f"{process.pid}\n"
            assert (directory / "vrrp_left.pid").exists()
    finally:
        for _, process, _ in running:
            process.terminate()
            assert process.wait(15) == 0
    assert not any(directory.exists() for _, _, directory in running)


def test_what_the_caller_left_open_is_let_go(node: Node) -> None:
    reader, writer = os.pipe()
    daemon = Kad(node, configuration())
    try:
        argv = [word for word in daemon.argv() if word not in ("-n", "-l")]
        with node.entered():
            started = subprocess.run(argv, pass_fds=[writer], check=False, timeout=30)
        os.close(writer)
        assert started.returncode == 0
        # The end of the file is there although the daemon runs.
        assert select.select([reader], [], [], 10)[0]
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)
        daemon.close()


def test_another_name_of_an_interface_is_told_with_its_own(node: Node, tmp_path: Path) -> None:
    node.ip("link", "property", "add", "dev", "eth0", "altname", "uplink0")
    file = tmp_path / "keepalived.conf"
    file.write_text(configuration().replace("eth0", "uplink0"))
    done = node.run([Kad.program, "-t", "-f", str(file)], check=False)
    assert done.returncode == 5
    assert "the interface 'uplink0' does not exist" in done.stderr
    assert "= write eth0: this is another name of it" in done.stderr


def test_unknown_network_namespace_is_said(tmp_path: Path) -> None:
    argv = [Kad.program, "-n", "-s", "no-such-namespace", f"-p{tmp_path}/pid"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "no-such-namespace" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_respawn_a_childs_death_ends_the_daemon(node: Node) -> None:
    with Kad(node, configuration(), "-R") as daemon:
        daemon.wait_for("vrrp: STARTING → RUNNING")
        kill(status_pid(daemon, "check"))
        assert daemon.process is not None
        assert daemon.process.wait(15) == 0, daemon.said()


def status_pid(daemon: Kad, role: str) -> int:
    (pid,) = [process.pid for process in status_of(daemon).processes if process.role == role]
    return pid


def test_relative_paths_are_the_callers(node: Node) -> None:
    """The daemon changes to the root directory; a reload still finds the file."""
    daemon = Kad(node, configuration())
    try:
        argv = daemon.argv()
        argv[argv.index(str(daemon.config))] = daemon.config.name
        argv[argv.index(f"{daemon.directory}/run")] = "run"
        argv = [word for word in argv if word not in ("-n", "-l")]
        with node.entered():
            started = subprocess.run(argv, cwd=daemon.directory, check=False, timeout=30)
        assert started.returncode == 0
        wait_for_generation(daemon, 1)
        assert daemon.kadctl("reload").returncode == 0
        pid = status_of(daemon).supervisor_pid
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        os.kill(pid, 15)
        poll(lambda: not Path(f"/proc/{pid}").exists(), "the end of the daemon", seconds=15)
    finally:
        daemon.close()
