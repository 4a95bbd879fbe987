"""What a configuration needs goes away, and then every process is killed: only what needs it suffers."""

from __future__ import annotations

import os
import shutil
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
        poll(lambda: states(daemon)["linkless"] == "FAULT", "the fault", seconds=20)
        daemon.wait_for("Script `tracked` could not be run")
        before = pids_of(daemon)
        for pid in before.values():
            kill(pid)
        poll(lambda: not set(pids_of(daemon).values()) & set(before.values()), "other processes", seconds=20)
        wait_for_generation(daemon, 1)
        expected = {"whole": "MASTER", "linkless": "FAULT", "mute": "MASTER", "blind": "MASTER"}
        assert poll(lambda: states(daemon) == expected, lambda: f"these states, not {states(daemon)}")
        assert node.holds(STAYS)
        for name in ("whole", "blind"):
            assert daemon.count(f"({name}) Entering MASTER STATE") == 1, "it never ceased to be"
        # A reload is not refused for the machine's sake, and says what is missing, each at its line.
        answer = reload(daemon)
        assert answer.accepted, answer
        assert "gone.sh" in answer.diagnostics and "eth1" in answer.diagnostics
        assert node.holds(STAYS)
        # A script that nobody can run is no reason to have no address.
        assert states(daemon)["mute"] == "MASTER"


USER, UID = "kadghost", 54321


def with_user(heard: Path) -> str:
    """``whole`` needs nobody; ``own`` tells as the user; ``blind`` follows a script that runs as the user."""
    common = "interface eth0\nstate MASTER\nadvert_int 1\npriority 200"
    return f"""
global_defs {{
    enable_script_security
    script_user root
}}
vrrp_script tracked {{
    script {heard.parent}/tracked.sh
    interval 1
    user {USER}
}}
vrrp_instance whole {{
    {common}
    virtual_router_id 51
    notify {heard.parent}/notify.sh
    virtual_ipaddress {{
        {STAYS}/24
    }}
}}
vrrp_instance own {{
    {common}
    virtual_router_id 52
    notify {heard.parent}/notify.sh {USER}
    virtual_ipaddress {{
        192.0.2.101/24
    }}
}}
vrrp_instance blind {{
    {common}
    virtual_router_id 53
    track_script {{
        tracked
    }}
    virtual_ipaddress {{
        192.0.2.102/24
    }}
}}
"""


@pytest.fixture
def heard() -> Iterator[Path]:
    """Where scripts of any user write what they are told; the scripts stand beside it."""
    directory = Path("/run") / f"kad-test-heard-{os.getpid()}"
    directory.mkdir(mode=0o755)
    found = directory / "heard"
    found.touch()
    found.chmod(0o666)
    for name, line in (("notify", 'echo "$2 $3"'), ("tracked", "echo tracked")):
        script = directory / f"{name}.sh"
        script.write_text(f'#!/bin/sh\n{line} "$(id -u)" >> {found}\n')
        script.chmod(0o755)
    yield found
    shutil.rmtree(directory)


def test_a_user_vanishes(network: Network, heard: Path, tmp_path: Path) -> None:
    """Who a script runs as is a number once the configuration is read: until a reload nothing is lost.

    The daemon has a passwd of its own, in a mount namespace of its own.
    """
    passwd = tmp_path / "passwd"
    everybody = Path("/etc/passwd").read_text()
    ghost = f"{USER}:x:{UID}:{UID}::/:/bin/sh\n"
    passwd.write_text(everybody + ghost)
    inside = f'mount --bind {passwd} /etc/passwd && exec "$@"'
    node: Node = network.node("one")
    node.attach(network.bridge(), "192.0.2.1/24", name="eth0")
    wrapper = ["unshare", "--mount", "sh", "-c", inside, "sh"]
    masters = dict.fromkeys(("whole", "own", "blind"), "MASTER")
    with Kad(node, with_user(heard), wrapper=wrapper) as daemon:
        daemon.wait_for("Entering MASTER STATE", times=3, seconds=20)
        poll(lambda: f"own MASTER {UID}" in heard.read_text(), "the notification")
        passwd.write_text(everybody)

        # The kernel goes by the number, and so does every life after this one.
        for pid in [each for role, each in pids_of(daemon).items() if role == "vrrp"]:
            heard.write_text("")
            kill(pid)
            poll(lambda before=pid: pids_of(daemon).get("vrrp") not in (None, before), "another life")
        poll(lambda: f"tracked {UID}" in heard.read_text(), "a tracked script after it")
        before = pids_of(daemon)
        for pid in before.values():
            kill(pid)
        poll(lambda: not set(pids_of(daemon).values()) & set(before.values()), "other processes", seconds=20)
        wait_for_generation(daemon, 1)
        poll(lambda: states(daemon) == masters, lambda: f"all masters, not {states(daemon)}")

        # Read anew, what names the user is left out, each at its line, and nothing else.
        answer = reload(daemon)
        assert answer.accepted, answer
        complaints = [
            line for line in answer.diagnostics.splitlines() if USER in line and ": error: " in line
        ]
        assert len(complaints) == 2, answer.diagnostics
        wait_for_generation(daemon, 2)
        poll(lambda: states(daemon) == masters, lambda: f"all masters, not {states(daemon)}")
        heard.write_text("")
        node.set_link("eth0", "down")
        poll(lambda: "whole FAULT 0" in heard.read_text(), "word of the fault")
        node.set_link("eth0", "up")
        poll(lambda: "whole MASTER 0" in heard.read_text(), "word of the end of the fault", seconds=20)
        poll(lambda: states(daemon) == masters, lambda: f"all masters, not {states(daemon)}", seconds=20)
        assert str(UID) not in heard.read_text()

        # Back again, by a reload.
        passwd.write_text(everybody + ghost)
        assert reload(daemon).accepted
        poll(lambda: f"tracked {UID}" in heard.read_text(), "the tracked script")
        for name in masters:
            assert daemon.count(f"({name}) Entering MASTER STATE") == 2, "a master but for the fault"
