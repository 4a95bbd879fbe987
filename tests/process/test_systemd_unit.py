"""The unit file under a real systemd: its start, its stop, and a supervisor that dies."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.capture import Capture
from tests.support.namespaces import Network, Node, poll
from tests.support.systemd import Systemd, reason_no_systemd

pytestmark = [pytest.mark.root, pytest.mark.slow]

UNIT = Path(__file__).parents[2] / "conf/kad.service"
BIN = Path(sys.executable).parent
VIP = "192.0.2.100"
CONFIGURATION = f"""
vrrp_instance VI_1 {{
    state MASTER
    interface eth0
    virtual_router_id 51
    priority 150
    advert_int 0.2
    version 3
    virtual_ipaddress {{
        {VIP}/24
    }}
}}
"""


@pytest.fixture
def node(network: Network) -> Node:
    if reason := reason_no_systemd():
        pytest.skip(reason)
    node = network.node("one")
    node.attach(network.bridge(), "192.0.2.1/24")
    return node


@pytest.fixture
def systemd(node: Node) -> Iterator[Systemd]:
    with Systemd(node) as manager:
        where = manager.directory
        (where / "kad.conf").write_text(CONFIGURATION)
        files = " ".join(f"-{flag} {where}/{flag}.pid" for flag in "prcb")
        run = f"--run-dir {where}/run"
        text = UNIT.read_text().replace("/opt/kad/bin/kadctl", f"{BIN}/kadctl {run}")
        text = text.replace("/opt/kad/bin/kad", f"{BIN}/kad -l -f {where}/kad.conf {run} {files}")
        log = f"DefaultDependencies=no\n[Service]\nStandardError=append:{where}/log"
        text = text.replace("[Service]", log)
        manager.unit("kad.service", text)
        manager.systemctl("daemon-reload")
        manager.systemctl("start", "kad")
        poll(lambda: node.holds(VIP), lambda: (where / "log").read_text())
        yield manager


def test_start_reload_and_stop(systemd: Systemd, node: Node) -> None:
    assert systemd.show("kad", "ActiveState", "StatusText") == ["active", "generation 1"]
    systemd.systemctl("reload", "kad")
    begin = time.monotonic()
    systemd.systemctl("stop", "kad")
    assert not node.holds(VIP)
    assert time.monotonic() - begin < 10
    assert systemd.show("kad", "ActiveState", "Result") == ["inactive", "success"]


def test_a_dead_supervisor_s_children_say_goodbye_before_anybody_ends_them(
    systemd: Systemd, node: Node
) -> None:
    with Capture(node, "eth0") as wire:
        systemd.systemctl("kill", "-s", "KILL", "--kill-whom=main", "kad")
        poll(lambda: [each for each in wire.adverts() if each.priority == 0], "a farewell")
        # On its own systemd starts it again.
        poll(lambda: systemd.show("kad", "NRestarts", "ActiveState") == ["1", "active"], "a restart")
        poll(lambda: node.holds(VIP), "the address is back")


def test_what_a_script_left_behind_does_not_hold_up_a_stop(systemd: Systemd, node: Node) -> None:
    script = systemd.directory / "notify.sh"
    script.write_text("#!/bin/sh\nsetsid sleep 300 &\n")
    script.chmod(0o755)
    settings = "global_defs {\n script_user root\n enable_script_security\n}\n"
    text = settings + CONFIGURATION.replace("state MASTER", f"state MASTER\n notify {script}")
    (systemd.directory / "kad.conf").write_text(text)
    systemd.systemctl("restart", "kad")
    poll(lambda: "sleep 300" in systemd.systemctl("status", "kad"), "the script")
    begin = time.monotonic()
    systemd.systemctl("stop", "kad")
    assert time.monotonic() - begin < 10
    assert not node.holds(VIP)
    assert systemd.show("kad", "ActiveState", "Result") == ["inactive", "success"]


def test_kad_starts_when_keepalived_has_stopped(systemd: Systemd) -> None:
    unit = "[Service]\nExecStart=/bin/sleep 1000\nExecStopPost=/bin/sleep 0.5\n"
    systemd.unit("keepalived.service", f"[Unit]\nDefaultDependencies=no\n{unit}")
    systemd.systemctl("daemon-reload")
    systemd.systemctl("start", "keepalived")
    assert systemd.show("kad", "ActiveState") == ["inactive"], "one at a time"
    systemd.systemctl("start", "kad")
    [stopped] = systemd.show("keepalived", "InactiveEnterTimestampMonotonic")
    [started] = systemd.show("kad", "ExecMainStartTimestampMonotonic")
    assert int(stopped) <= int(started)
