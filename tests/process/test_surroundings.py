"""The real daemon, running from files that were moved away, and on a full disk: everything goes on."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.control import status_of
from tests.support.daemon import Kad, Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, Node, poll

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("control", "vrrp", "check", "bfd")
VIP = "192.0.2.100"
SECOND_VIP = "192.0.2.101"

LAUNCHER = """
import os, sys
NOTES = sys.argv.pop(1)
def note(file, text):
    descriptor = os.open(f"{NOTES}/{file}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, text.encode())
    os.close(descriptor)
def note_modules(file):
    note(file, " ".join(sorted(sys.modules)) + "\\n")
class Note:
    @staticmethod
    def find_spec(name, path=None, target=None):
        note("imports", f"{os.getpid()} {name}\\n")
sys.meta_path.insert(0, Note)
from kad.cli import main
from kad.runtime.systemd import ServiceManager
tell, leave = ServiceManager.ready, os._exit
def tell_and_note(self, status=""):
    note_modules("modules.ready")
    tell(self, status)
def leave_and_note(status):
    note_modules(f"modules.{os.getpid()}")
    leave(status)
ServiceManager.ready, os._exit = tell_and_note, leave_and_note
status = main()
note_modules(f"modules.{os.getpid()}")
sys.exit(status)
"""
"""kad, with a note of every module that is imported in any of its processes, of all there are when the
service manager is told READY, and of all there are when a process leaves.
"""


class Watched(Kad):
    """kad in a mount namespace of its own, its imports noted; the test is its service manager.

    What the test itself writes and reads lies ``outside`` the directory the daemon writes to.
    """

    def __init__(self, node: Node, outside: Path) -> None:
        self.outside = outside
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(outside / "manager"))
        super().__init__(node, "")
        self.config = outside / "daemon.conf"

    def configure(self, text: str) -> None:
        fresh = self.outside / "fresh.conf"
        fresh.write_text(text)
        fresh.chmod(0o644)
        fresh.rename(self.outside / "daemon.conf")

    def argv(self) -> list[str]:
        launcher = [sys.executable, "-c", LAUNCHER, str(self.outside)]
        environment = ["env", f"NOTIFY_SOCKET={self.outside}/manager"]
        return [
            *("unshare", "--mount", "--propagation", "private"),
            *(*environment, *launcher, *super().argv()[1:]),
        ]

    def close(self) -> None:
        super().close()
        self._manager.close()

    def imports(self) -> list[str]:
        return (self.outside / "imports").read_text().splitlines()

    def wait_until_ready(self) -> None:
        """READY, as the service manager hears it."""
        self._manager.settimeout(30)
        while b"READY=1" not in self._manager.recv(4096).split(b"\n"):
            pass

    def modules(self, of: str | int) -> set[str]:
        """What was imported when it was READY first, or when the process of that number left."""
        return set((self.outside / f"modules.{of}").read_text().splitlines()[0].split())

    def states(self) -> list[str]:
        """What the notify script was told."""
        told = self.outside / "told"
        return told.read_text().split() if told.exists() else []


def text(outside: Path, *addresses: str, alone: bool = False) -> str:
    """``alone``: VRRP and nothing else."""
    script = outside / "notify.sh"
    script.write_text(f'#!/bin/sh\necho "$3" >> {outside}/told\n')
    script.chmod(0o755)
    own = vrrp_instance(
        version=3,
        priority=150,
        advert_int=0.5,
        addresses=[f"{address}/24" for address in addresses],
        extra=[f"notify {script}"],
    )
    if alone:
        return configuration(own)
    server = f"virtual_server {VIP} 80 {{\nreal_server 192.0.2.2 80 {{\nTCP_CHECK {{\n}}\n}}\n}}\n"
    neighbour = "bfd_instance peer {\nneighbor_ip 192.0.2.2\nsource_ip 192.0.2.1\n}\n"
    return configuration(own, server, neighbour)


@pytest.fixture
def pair(network: Network, tmp_path: Path) -> Iterator[tuple[Watched, Keepalived]]:
    needs_keepalived()
    tmp_path.chmod(0o755)
    one, two = network.node("one"), network.node("two")
    lan = network.bridge()
    one.attach(lan, "192.0.2.1/24")
    two.attach(lan, "192.0.2.2/24")
    kad = Watched(one, tmp_path)
    kad.configure(text(tmp_path, VIP))
    peer = vrrp_instance(version=3, priority=100, advert_int=0.5, addresses=[f"{VIP}/24"])
    keepalived = Keepalived(two, configuration(peer))
    yield kad, keepalived
    kad.close()
    keepalived.close()


def all_live(kad: Watched, *, instead_of: dict[str, int] | None = None) -> dict[str, int]:
    """Wait until every role has a process, other than these."""
    old = instead_of or {}

    def found() -> dict[str, int]:
        pids = {role: kad.role(role) for role in ROLES}
        return pids if all(pids[role] and pids[role] != old.get(role) for role in ROLES) else {}

    return poll(found, "a process of every role")


def settle(kad: Watched, keepalived: Keepalived) -> None:
    """Mastery, its notification, and every process at work; then the peer."""
    poll(lambda: kad.node.holds(VIP), "mastery")
    poll(lambda: "MASTER" in kad.states(), "the notification")

    def running() -> bool:
        return {p.role for p in status_of(kad).processes if p.state == "RUNNING"} >= set(ROLES)

    poll(running, "every process RUNNING")
    keepalived.start()
    keepalived.wait_for("Entering BACKUP STATE")


def live_through_it(kad: Watched, keepalived: Keepalived) -> dict[str, int]:
    """kill -9 of each child, fail-over both ways with its notifications, a reload, the stop.

    The processes of the last lives.
    """
    node, peer = kad.node, keepalived.node
    pids = all_live(kad)
    for role in ROLES:
        os.kill(pids[role], signal.SIGKILL)
        all_live(kad, instead_of={role: pids[role]})
        assert node.holds(VIP)
    assert keepalived.count("Entering MASTER STATE") == 0, "a lost child costs no mastership"
    told = len(kad.states())
    node.set_link("eth0", "down")
    poll(lambda: peer.holds(VIP), "the peer to take over")
    node.set_link("eth0", "up")
    poll(lambda: node.holds(VIP) and not peer.holds(VIP), "the address to come back")
    poll(lambda: kad.states()[told:][-1:] == ["MASTER"], "the notifications")
    assert kad.states()[told] == "FAULT"
    kad.configure(text(kad.outside, VIP, SECOND_VIP))
    kad.reload()
    poll(lambda: node.holds(SECOND_VIP), "the address the reload brings")
    last = all_live(kad, instead_of=pids)
    assert kad.stop() == 0
    assert not node.holds(VIP)
    assert not node.holds(SECOND_VIP)
    return last


def cover_up(kad: Watched) -> None:
    """The installation and Python's own library are there no longer."""
    # Not all of lib: with Debian's Python that is where the system's own libraries are, the shell's too.
    library = Path(sysconfig.get_path("stdlib"))
    for covered in (ROOT, library):
        argv = ["nsenter", "-t", str(kad.pid), "-m", "mount", "-t", "tmpfs", "none", str(covered)]
        subprocess.run(argv, check=True)
    assert os.listdir(f"/proc/{kad.pid}/root{library}") == []


def assert_nothing_was_imported(kad: Watched, imports: list[str], *pids: int) -> None:
    """Since READY, in any process; and so these have ended with what there was."""
    assert kad.imports() == imports
    at_ready = kad.modules("ready")
    assert at_ready >= {"kad_vrrp.app", "kad_check.app", "kad_bfd.app", "kad.control.app"}
    for pid in (kad.pid, *pids):
        assert kad.modules(pid) == at_ready


def test_what_only_a_reload_needs_is_there_before(pair: tuple[Watched, Keepalived]) -> None:
    """A start loads what it needs; the rest follows before READY, and later files on disk do not matter."""
    if shutil.which("nsenter") is None:
        pytest.skip("needs nsenter")
    kad, _ = pair
    kad.configure(text(kad.outside, VIP, alone=True))
    kad.start()
    kad.wait_until_ready()
    imports = kad.imports()
    cover_up(kad)
    poll(lambda: kad.node.holds(VIP), "mastery")
    kad.configure(text(kad.outside, VIP))
    kad.reload()
    born = all_live(kad)
    poll(lambda: {p.role for p in status_of(kad).processes if p.state == "RUNNING"} >= set(ROLES), "RUNNING")
    assert kad.stop() == 0
    assert_nothing_was_imported(kad, imports, born["check"], born["bfd"])


def test_running_from_files_that_were_moved_away(pair: tuple[Watched, Keepalived]) -> None:
    """The installation and Python's own library are covered up the moment READY is told."""
    if shutil.which("nsenter") is None:
        pytest.skip("needs nsenter")
    kad, keepalived = pair
    kad.start()
    kad.wait_until_ready()
    imports = kad.imports()
    assert any("kad_vrrp.app" in line for line in imports), "imports are noted"
    cover_up(kad)
    settle(kad, keepalived)
    last = live_through_it(kad, keepalived)
    assert_nothing_was_imported(kad, imports, *last.values())


def test_on_a_full_disk(pair: tuple[Watched, Keepalived]) -> None:
    """No room for the log, for pid files and in the run directory."""
    kad, keepalived = pair
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(kad.directory)], check=True)
    try:
        kad.log.touch()
        kad.start()
        settle(kad, keepalived)
        with (kad.directory / "fill").open("wb", buffering=0) as fill, pytest.raises(OSError, match="space"):
            while True:
                fill.write(b"x" * 4096)
        live_through_it(kad, keepalived)
    finally:
        kad.close()
        subprocess.run(["umount", "-l", str(kad.directory)], check=False)
