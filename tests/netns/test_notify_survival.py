"""Notify scripts of a real daemon: they outlive what started them, and hold up nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.capture import Capture
from tests.support.daemon import Kad, children_of
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Network, Node, poll, remains

pytestmark = pytest.mark.root


def script(place: Path, name: str, body: str) -> Path:
    file = place / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return file


def daemon(node: Node, *extra: str, advert_int: float = 0.1) -> Kad:
    instance = vrrp_instance(version=3, advert_int=advert_int, extra=extra)
    return Kad(node, configuration(instance, settings=["script_user root"]))


@pytest.fixture
def node(network: Network) -> Node:
    made = network.node("node")
    made.attach(network.bridge(), "192.0.2.1/24", name="eth0")
    return made


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def test_a_script_outlives_the_process_that_started_it_and_is_reaped(node: Node, tmp_path: Path) -> None:
    began, ended, gate = tmp_path / "began", tmp_path / "ended", tmp_path / "gate"
    slow = script(
        tmp_path, "slow", f"echo $$ >> {began}\nuntil [ -e {gate} ]; do sleep 0.02; done\necho $$ >> {ended}"
    )
    with daemon(node, f"notify_master {slow}") as kad:
        poll(lambda: lines(began), "the script to start", seconds=10)
        first = lines(began)[0]
        old = kad.vrrp_pid()
        os.kill(old, signal.SIGKILL)
        kad.new_vrrp_pid(old)
        kad.wait_for("going on as MASTER")
        poll(lambda: len(lines(began)) > 1, "what was owed to be started again")
        assert Path(f"/proc/{first}").exists(), "the death of its parent did not end it"
        gate.touch()
        poll(lambda: first in lines(ended), "the first one to finish")
        poll(lambda: set(lines(began)) == set(lines(ended)), "all to finish")
        poll(lambda: int(first) not in children_of(kad.pid), "the supervisor to reap it")


def test_what_has_finished_is_not_run_again_by_a_successor(node: Node, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    quick = script(tmp_path, "quick", f"echo $4 >> {ran}")
    # On a busy machine a successor begins late: it is not to have been silent for so long that it steps down.
    with daemon(node, f'notify "{quick} x"', advert_int=0.5) as kad:
        poll(lambda: lines(ran) == ["BACKUP", "MASTER"], "both transitions told", seconds=10)
        poll(lambda: kad.vrrp_pid() and len(children_of(kad.vrrp_pid())) == 0, "the scripts to be reaped")
        old = kad.vrrp_pid()
        os.kill(old, signal.SIGKILL)
        kad.new_vrrp_pid(old)
        kad.wait_for("going on as MASTER")
        remains(lambda: lines(ran) == ["BACKUP", "MASTER"], "nothing told twice", seconds=0.5)


def test_hung_scripts_hold_up_neither_adverts_nor_transitions(network: Network, tmp_path: Path) -> None:
    lan = network.bridge()
    node, peer = network.node("node"), network.node("peer")
    node.attach(lan, "192.0.2.1/24", name="eth0")
    peer.attach(lan, "192.0.2.2/24", name="eth0")
    ran = tmp_path / "ran"
    hung = script(tmp_path, "hung", f"echo $4 >> {ran}\nexec sleep 600")
    with daemon(node, f'notify "{hung} x"') as kad, Capture(peer, "eth0") as capture:
        kad.wait_for("(VI_1) Entering MASTER STATE")
        poll(lambda: len(capture.adverts(vrid=51)) > 5, "adverts")
        lan.unplug(node, "eth0")
        kad.wait_for("(VI_1) Entering FAULT STATE")
        lan.replug(node, "eth0")
        kad.wait_for("(VI_1) Entering MASTER STATE", times=2)
        poll(lambda: len(lines(ran)) == 5, "every transition told, though none has finished")
        assert lines(ran) == ["BACKUP", "MASTER", "FAULT", "BACKUP", "MASTER"]
        assert kad.stop() == 0
        assert not node.holds("192.0.2.100")


def test_the_script_of_stopping_finishes(node: Node, tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    slow = script(tmp_path, "slow", f"sleep 0.3\necho $0 $* >> {ended}")
    with daemon(node, f'notify_stop "{slow} bye"') as kad:
        kad.wait_for("(VI_1) Entering MASTER STATE")
        assert kad.stop() == 0
        poll(lambda: lines(ended) == [f"{slow} bye"], "the script to finish")
