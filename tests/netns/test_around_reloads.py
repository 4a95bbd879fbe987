"""Scripts before the start and after the end; files around a reload."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.support.control import pids_of
from tests.support.daemon import Kad
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Network, Node, poll

pytestmark = pytest.mark.root


@pytest.fixture
def node(network: Network) -> Node:
    made = network.node("node")
    made.attach(network.bridge(), "192.0.2.1/24", name="eth0")
    return made


def text_of(*settings: str, **fields: object) -> str:
    instance = vrrp_instance(version=3, advert_int=0.1, **fields)  # type: ignore[arg-type]
    return configuration(instance, settings=["script_user root", *settings])


def script(place: Path, name: str, body: str) -> Path:
    place.chmod(0o755)
    file = place / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return file


def addresses(node: Node) -> str:
    return json.dumps(json.loads(node.run(["ip", "-j", "addr"]).stdout))


def test_scripts_run_before_everything_and_after_it(node: Node, tmp_path: Path) -> None:
    gate, order = tmp_path / "gate", tmp_path / "order"
    start = script(
        tmp_path, "start", f"echo start >> {order}\nuntil [ -e {gate} ]; do sleep 0.02; done; exit 3"
    )
    stop = script(
        tmp_path, "stop", f"ip -o addr show dev eth0 | grep -c 192.0.2.100 >> {order}; echo stop >> {order}"
    )
    with Kad(node, text_of(f"startup_script {start}", f"shutdown_script {stop}")) as daemon:
        poll(order.exists, "the startup script")
        assert daemon.count("STATE") == 0 and len(daemon.children()) == 1, "control, whose child it is"
        gate.touch()
        daemon.wait_for("startup script failed, status 3")
        daemon.wait_for("Entering MASTER STATE")
        assert daemon.stop() == 0
    assert order.read_text().split() == ["start", "0", "stop"]


def test_a_script_that_takes_too_long_is_not_waited_for(node: Node, tmp_path: Path) -> None:
    stubborn = script(tmp_path, "stubborn", "trap '' TERM\nwhile :; do sleep 1; done")
    settings = [f"startup_script {stubborn}", "startup_script_timeout 1"]
    with Kad(node, text_of(*settings)) as daemon:
        daemon.wait_for("startup script takes too long: SIGTERM")
        daemon.wait_for("startup script takes too long: SIGKILL")
        daemon.wait_for("Entering MASTER STATE")
        assert (
            subprocess.run(["pgrep", "-f", str(stubborn)], check=False, stdout=subprocess.DEVNULL).returncode
            == 1
        )


def test_a_stop_during_the_startup_script_is_a_stop(node: Node, tmp_path: Path) -> None:
    slow = script(tmp_path, "slow", f"touch {tmp_path}/began; sleep 60")
    with Kad(node, text_of(f"startup_script {slow}", "startup_script_timeout 50")) as daemon:
        poll((tmp_path / "began").exists, "the script")
        assert daemon.stop() == 0
        assert (
            subprocess.run(["pgrep", "-f", str(slow)], check=False, stdout=subprocess.DEVNULL).returncode == 1
        )


def test_the_reload_file_is_there_while_files_are_read(node: Node, tmp_path: Path) -> None:
    marker, include = tmp_path / "marker", tmp_path / "many.conf"
    include.write_text("".join(f"# line {number}\n" for number in range(400_000)))
    include.chmod(0o644)
    marker.touch()
    text = text_of(f"reload_file {marker}")
    with Kad(node, text) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        assert not marker.exists(), "what was left of another life is removed"
        daemon.configure(f"{text}include {include}\n")
        daemon.reload()
        poll(marker.exists, "the file", every=0.001)
        poll(lambda: marker.stat().st_mode & 0o777 == 0o644, "its mode, which is set next", every=0.001)
        daemon.wait_for("reload: generation 2 runs")
        assert not marker.exists()


def test_a_reload_comes_at_its_time(node: Node, tmp_path: Path) -> None:
    when = tmp_path / "when"
    with Kad(node, text_of(f"reload_time_file {when}")) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        when.write_text("never\n")
        daemon.wait_for("is ignored")
        when.write_text((datetime.now() + timedelta(seconds=3)).strftime("%Y-%m-%d %H:%M:%S\n"))
        daemon.wait_for("Scheduling reload for")
        daemon.wait_for("reload: generation 2 runs")
        assert not when.exists()
        assert daemon.count("Entering") == 2


def test_reload_check_config_refuses_whatever_a_test_complains_of(node: Node, tmp_path: Path) -> None:
    log = tmp_path / "test.log"
    text = text_of(f"reload_check_config {log}", "enable_script_security")
    with Kad(node, text) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        daemon.configure(text.replace("priority 100", "priority 90\nnopreempt\nthread_timer_expired 200"))
        daemon.reload()
        daemon.wait_for("reload refused")
        daemon.wait_for("reload_check_config is set")
        assert "thread_timer_expired" in log.read_text()
        poll(lambda: daemon.count("is not what runs") == 1, "the word that the file is another")
        assert daemon.kadctl("reload", "--force").returncode == 0
        # What is refused now is what runs, and nobody is told otherwise.
        assert daemon.kadctl("reload").returncode != 0
        poll(lambda: daemon.count("reload refused") == 2, "the second refusal")
        assert daemon.count("is not what runs") == 1


def test_config_save_dir_has_what_was_read_and_the_state_before_and_after(node: Node, tmp_path: Path) -> None:
    directory = tmp_path / "kept"
    text = text_of(f"config_save_dir {directory}")
    with Kad(node, text) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        pid = daemon.vrrp_pid()

        def kept(name: str, line: str) -> None:
            file = directory / name
            poll(lambda: file.exists() and line in file.read_text(), name)

        kept(f"keepalived.conf.{daemon.pid}.0", "priority 100\n")
        # Whoever counts dies between the two.
        for number, before, after in ((1, 100, 90), (2, 90, 80)):
            daemon.configure(text.replace("priority 100", f"priority {after}"))
            daemon.reload_surely()
            kept(f"keepalived_vrrp.{pid}.{number}.pre", f"   Effective priority = {before}\n")
            kept(f"keepalived.conf.{daemon.pid}.{number}", f"priority {after}\n")
            kept(f"keepalived_vrrp.{pid}.{number}.post", f"   Effective priority = {after}\n")
            os.kill(pids_of(daemon)["control"], signal.SIGKILL)
            daemon.wait_for("control: STARTING → RUNNING: ready", times=number + 1)
        assert daemon.count("config_save_dir") == daemon.count("no dump") == 0


def test_script_security_holds_for_them_too(node: Node, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    settings = ["enable_script_security"]
    names = ("startup_script", "shutdown_script", "notify_fifo_script")
    for name in names:
        loose = script(tmp_path, name, f"echo {name} >> {ran}")
        loose.chmod(0o777)
        settings.append(f"{name} {loose}")
    settings.append(f"notify_fifo {tmp_path}/pipe")
    with Kad(node, text_of(*settings)) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        for name in names:
            assert daemon.count(f"'{name}' will not run") == 1
        assert daemon.stop() == 0
    assert not ran.exists()


def test_a_shutdown_script_that_nobody_is_left_to_run_is_told(node: Node, tmp_path: Path) -> None:
    with Kad(node, text_of(f"shutdown_script {script(tmp_path, 'stop', 'true')}")) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        for _ in range(4):
            pid = poll(lambda: daemon.role("control"), "control", seconds=30)
            os.kill(pid, signal.SIGKILL)
            poll(lambda pid=pid: daemon.role("control") != pid, "its death")  # type: ignore[misc]
        assert daemon.stop() == 0
        assert daemon.count("shutdown_script is not run") == 1


def test_a_shutdown_script_that_takes_too_long_is_not_waited_for(node: Node, tmp_path: Path) -> None:
    stubborn = script(tmp_path, "stubborn", "trap '' TERM\nwhile :; do sleep 1; done")
    settings = [f"shutdown_script {stubborn}", "shutdown_script_timeout 1"]
    with Kad(node, text_of(*settings)) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        assert daemon.stop(60) == 0
        assert daemon.count("shutdown script takes too long: SIGKILL") == 1
        found = subprocess.run(["pgrep", "-f", str(stubborn)], check=False, stdout=subprocess.DEVNULL)
        assert found.returncode == 1


@pytest.mark.parametrize("kept", [True, False])
def test_a_time_of_day_comes_again_where_the_file_is_kept(node: Node, tmp_path: Path, kept: bool) -> None:
    when = tmp_path / "when"
    settings = [f"reload_time_file {when}", *(["reload_repeat"] if kept else [])]
    with Kad(node, text_of(*settings)) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        when.write_text((datetime.now() + timedelta(seconds=3)).strftime("%H:%M:%S\n"))
        daemon.wait_for("reload: generation 2 runs")
        if kept:
            daemon.wait_for("Scheduling reload for", times=2)
        assert when.exists() is kept
