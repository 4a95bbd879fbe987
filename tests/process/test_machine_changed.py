"""What a configuration needs goes away, and then every process is killed: only what needs it suffers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.control import kill, pids_of, reload, status_of, wait_for_generation
from tests.support.daemon import Kad
from tests.support.namespaces import Network, Node, poll

pytestmark = pytest.mark.root

STAYS, GOES = "192.0.2.100", "198.51.100.100"


def configuration(directory: Path) -> str:
    return f"""
global_defs {{
    enable_script_security
    script_user root
}}
vrrp_script tracked {{
    script {directory}/gone.sh
    interval 1
}}
""" + "".join(
        f"""
vrrp_instance {name} {{
    interface {interface}
    state MASTER
    virtual_router_id {vrid}
    advert_int 1
    priority 200
    notify {directory}/{script}
    {extra}
    virtual_ipaddress {{
        {vip}/24
    }}
}}
"""
        for name, interface, vrid, script, extra, vip in (
            ("whole", "eth0", 51, "stays.sh", "", STAYS),
            ("linkless", "eth1", 52, "stays.sh", "", GOES),
            ("mute", "eth0", 53, "gone.sh", "", "192.0.2.101"),
            ("blind", "eth0", 54, "stays.sh", "track_script {\ntracked\n}", "192.0.2.102"),
        )
    )


def states(daemon: Kad) -> dict[str, str]:
    return {each.name: each.state for each in status_of(daemon).instances}


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[Path]:
    # Under /tmp others might change a script, and script security would not have it run.
    directory = Path("/run") / f"kad-test-{tmp_path.name}-{os.getpid()}"
    directory.mkdir(mode=0o755)
    for name in ("stays.sh", "gone.sh"):
        (directory / name).write_text(f'#!/bin/sh\n[ $# = 0 ] || echo "$2 $3" >> {tmp_path}/told\n')
        (directory / name).chmod(0o755)
    yield directory
    for each in directory.iterdir():
        each.unlink()
    directory.rmdir()


def test_only_what_needs_it_suffers(network: Network, scripts: Path, tmp_path: Path) -> None:
    node: Node = network.node("one")
    node.attach(network.bridge(), "192.0.2.1/24", name="eth0")
    node.attach(network.bridge(), "198.51.100.1/24", name="eth1")
    with Kad(node, configuration(scripts)) as daemon:
        daemon.wait_for("Entering MASTER STATE", times=4, seconds=20)
        assert set(states(daemon).values()) == {"MASTER"}
        poll(lambda: "mute MASTER" in (tmp_path / "told").read_text(), "the notification")
        (scripts / "gone.sh").unlink()
        node.ip("link", "del", "eth1")
        poll(
            lambda: states(daemon)["linkless"] == states(daemon)["blind"] == "FAULT", "the faults", seconds=20
        )
        before = pids_of(daemon)
        for pid in before.values():
            kill(pid)
        poll(lambda: not set(pids_of(daemon).values()) & set(before.values()), "other processes", seconds=20)
        wait_for_generation(daemon, 1)
        expected = {"whole": "MASTER", "linkless": "FAULT", "mute": "MASTER", "blind": "FAULT"}
        assert poll(lambda: states(daemon) == expected, lambda: f"these states, not {states(daemon)}")
        assert node.holds(STAYS)
        assert daemon.count("(whole) Entering MASTER STATE") == 1, "it never ceased to be"
        # A reload is not refused for the machine's sake, and says what is missing, each at its line.
        answer = reload(daemon)
        assert answer.accepted, answer
        assert "gone.sh" in answer.diagnostics and "eth1" in answer.diagnostics
        assert node.holds(STAYS)
        # A script that nobody can run is no reason to have no address.
        assert states(daemon)["mute"] == "MASTER"
