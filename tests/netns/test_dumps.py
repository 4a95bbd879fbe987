"""Dumps of a real daemon: whole at every moment, wherever they are asked to be, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.daemon import Kad
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Network, Node, poll

pytestmark = pytest.mark.root

SIGJSON = 36


@pytest.fixture
def node(network: Network) -> Node:
    made = network.node("node")
    made.attach(network.bridge(), "192.0.2.1/24", name="eth0")
    return made


def kad(node: Node, out: Path, *, count: int = 1, settings: Sequence[str] = (), before: str = "") -> Kad:
    instances = [
        vrrp_instance(
            f"VI_{number}", vrid=number, version=3, advert_int=0.1, addresses=[f"192.0.2.{100 + number}/32"]
        )
        for number in range(1, count + 1)
    ]
    text = configuration(before, *instances, settings=["script_user root", *settings])
    return Kad(node, text, wrapper=["env", f"TMPDIR={out}"])


def dump(daemon: Kad, path: Path, number: int) -> str:
    before = path.stat().st_mtime_ns if path.exists() else 0
    os.kill(daemon.pid, number)
    poll(lambda: path.exists() and path.stat().st_mtime_ns != before, f"{path.name} to be made")
    return path.read_text()


def test_nobody_ever_reads_half_a_dump_and_nothing_is_left_over(node: Node, tmp_path: Path) -> None:
    path = tmp_path / "keepalived.json"
    stop = threading.Event()
    wrong: list[str] = []
    read = [0]

    def reader() -> None:
        while not stop.wait(0.001):
            if path.exists():
                read[0] += 1
                try:
                    assert len(json.loads(path.read_text())) == 40
                except (ValueError, AssertionError) as error:
                    wrong.append(repr(error))

    with kad(node, tmp_path, count=40) as daemon:
        daemon.wait_for("Entering MASTER STATE", times=40)
        dump(daemon, path, SIGJSON)
        thread = threading.Thread(target=reader)
        thread.start()
        for _ in range(50):
            dump(daemon, path, SIGJSON)
        stop.set()
        thread.join()
        assert read[0] > 20 and not wrong
        assert daemon.count("late, but") == 0 and daemon.count("Entering BACKUP") == 40
        assert [each.name for each in tmp_path.iterdir() if each.name != path.name] == []


def test_a_storm_of_requests_is_answered_by_few_dumps_and_then_one_more(node: Node, tmp_path: Path) -> None:
    path = tmp_path / "keepalived.json"
    with kad(node, tmp_path) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        for _ in range(2000):
            os.kill(daemon.pid, SIGJSON)
        poll(path.exists, "a dump")
        vrrp = daemon.vrrp_pid()
        before = json.loads(dump(daemon, path, SIGJSON))[0]["stats"]["advert_sent"]
        poll(lambda: json.loads(dump(daemon, path, SIGJSON))[0]["stats"]["advert_sent"] > before, "adverts")
        assert daemon.vrrp_pid() == vrrp


def test_names_and_places_are_the_configurations(node: Node, tmp_path: Path) -> None:
    settings = [
        "data_use_instance",
        "json_version 2",
        f"state_dump_file {tmp_path}/states/",
        "stats_dump_file numbers",
        f"json_dump_file {tmp_path}/other.json",
    ]
    process = "vrrp_track_process shell {\nprocess nobody-runs-this\nquorum 2\nweight 7\n}\ninstance one\n"
    (tmp_path / "states").mkdir()
    daemon = kad(node, tmp_path, settings=settings, before=process)
    daemon.configure(
        daemon.config.read_text().replace("version 3\n", "version 3\ntrack_process {\nshell\n}\n")
    )
    with daemon:
        daemon.wait_for("Entering MASTER STATE")
        found = json.loads(dump(daemon, tmp_path / "other.json", SIGJSON))
        assert list(found) == ["vrrp", "track_process"]
        (shown,) = found["track_process"]
        assert (shown["min_processes"], shown["current_processes"], shown["have_quorum"]) == (2, 0, False)
        assert found["vrrp"][0]["data"]["track_process"] == ["shell"]
        assert "auth_ext_missing" in found["vrrp"][0]["stats"]
        dump(daemon, tmp_path / "numbers", signal.SIGUSR2)
        dump(daemon, tmp_path / "states/keepalived.one.data", signal.SIGUSR1)
        poll(lambda: (tmp_path / "states/keepalived_parent.one.data").exists(), "the parent's")


def test_a_dump_asked_for_while_nobody_can_answer_comes_later(node: Node, tmp_path: Path) -> None:
    path = tmp_path / "keepalived.stats"
    with kad(node, tmp_path) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        vrrp = daemon.vrrp_pid()
        (control,) = [
            pid for pid in daemon.children() if Path(f"/proc/{pid}/comm").read_text() == "kad_control\n"
        ]
        os.kill(control, signal.SIGKILL)
        os.kill(daemon.pid, signal.SIGUSR2)
        poll(path.exists, "the dump of the next control")
        assert daemon.vrrp_pid() == vrrp


class Linked(Kad):
    """kad by a link that is called keepalived."""

    def argv(self) -> list[str]:
        link = self.directory / "keepalived"
        link.unlink(missing_ok=True)
        link.symlink_to(self.program)
        return [str(link), *super().argv()[1:]]


def test_called_as_keepalived_it_is_found_and_answers_as_exporters_expect(node: Node, tmp_path: Path) -> None:
    text = configuration(vrrp_instance(version=3, advert_int=0.1), settings=["script_user root"])
    with Linked(node, text, wrapper=["env", f"TMPDIR={tmp_path}"]) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        link = str(daemon.directory / "keepalived")
        said = subprocess.run([link, "-v"], capture_output=True, text=True, check=True)
        first, rest = said.stderr.split("\n", 1)
        assert re.fullmatch(r"v\d+\.\d+\.\d+", first.split(" ")[1]) and said.stdout == ""
        assert "--enable-json" in rest
        number = subprocess.run([link, "--signum=JSON"], capture_output=True, text=True, check=True)
        assert int(number.stdout) == SIGJSON
        # The first process whose command line begins with the word, whatever its directory.
        shown = subprocess.run(["ps", "-axwwo", "pid,args"], capture_output=True, text=True, check=True)
        pids = [
            int(words[0])
            for line in shown.stdout.splitlines()[1:]
            if len(words := line.split()) > 1 and Path(words[1]).name == "keepalived"
        ]
        assert daemon.pid in pids and not set(daemon.children()) & set(pids)
        assert Path(f"/proc/{daemon.pid}/comm").read_text() == "keepalived\n"
        assert len(json.loads(dump(daemon, tmp_path / "keepalived.json", int(number.stdout)))) == 1
