"""The real daemon, running from files that were moved away, and on a full disk: everything goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
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
class Note:
    @staticmethod
    def find_spec(name, path=None, target=None):
        descriptor = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{os.getpid()} {name}\\n".encode())
        os.close(descriptor)
sys.meta_path.insert(0, Note)
from kad.cli import main
sys.exit(main())
"""
"""kad, with a note of every module that is imported in any of its processes."""


class Watched(Kad):
    """kad in a mount namespace of its own, its imports noted.

    What the test itself writes and reads lies ``outside`` the directory the daemon writes to.
    """

    def __init__(self, node: Node, outside: Path) -> None:
        self.outside = outside
        self._imported = 0
        super().__init__(node, "")
        self.config = outside / "daemon.conf"

    def configure(self, text: str) -> None:
        fresh = self.outside / "fresh.conf"
        fresh.write_text(text)
        fresh.chmod(0o644)
        fresh.rename(self.outside / "daemon.conf")

    def argv(self) -> list[str]:
        launcher = [sys.executable, "-c", LAUNCHER, str(self.outside / "imports")]
        return ["unshare", "--mount", "--propagation", "private", *launcher, *super().argv()[1:]]

    def imports(self) -> list[str]:
        return (self.outside / "imports").read_text().splitlines()

    def settled(self) -> bool:
        """Has nothing been imported since it was last asked?"""
        before, self._imported = self._imported, len(self.imports())
        return self._imported == before

    def role(self, role: str) -> int:
        """The process of that role, found by its name: files may not tell it."""
        for pid in self.children():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == f"kad_{role}":
                    return pid
        return 0

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


def start(kad: Watched, keepalived: Keepalived) -> None:
    """Every process READY, and the notification given; then the peer."""
    kad.start()
    poll(lambda: kad.node.holds(VIP), "mastery")
    poll(lambda: "MASTER" in kad.states(), "the notification")

    def running() -> bool:
        return {p.role for p in status_of(kad).processes if p.state == "RUNNING"} >= set(ROLES)

    poll(running, "every process RUNNING")
    keepalived.start()
    keepalived.wait_for("Entering BACKUP STATE")


def live_through_it(kad: Watched, keepalived: Keepalived) -> None:
    """kill -9 of each child, fail-over both ways with its notifications, a reload, the stop."""
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
    assert kad.stop() == 0
    assert not node.holds(VIP)
    assert not node.holds(SECOND_VIP)


def cover_up(kad: Watched) -> None:
    """The installation and Python's own library are there no longer."""
    # Not all of lib: with Debian's Python that is where the system's own libraries are, the shell's too.
    library = Path(sysconfig.get_path("stdlib"))
    for covered in (ROOT, library):
        argv = ["nsenter", "-t", str(kad.pid), "-m", "mount", "-t", "tmpfs", "none", str(covered)]
        subprocess.run(argv, check=True)
    assert os.listdir(f"/proc/{kad.pid}/root{library}") == []


def test_what_only_a_reload_needs_is_there_before(pair: tuple[Watched, Keepalived]) -> None:
    """A start loads what it needs; the rest follows at once, and later files on disk do not matter."""
    if shutil.which("nsenter") is None:
        pytest.skip("needs nsenter")
    kad, _ = pair
    kad.configure(text(kad.outside, VIP, alone=True))
    kad.start()
    poll(lambda: kad.node.holds(VIP), "mastery")

    def loaded() -> bool:
        names = {line.split()[1] for line in kad.imports()}
        return names >= {"kad_check.app", "kad_bfd.app"}

    poll(loaded, "the other roles")
    poll(kad.settled, "the end of the imports", every=0.3)
    before = kad.imports()
    cover_up(kad)
    kad.configure(text(kad.outside, VIP))
    kad.reload()
    all_live(kad)
    poll(lambda: {p.role for p in status_of(kad).processes if p.state == "RUNNING"} >= set(ROLES), "RUNNING")
    assert kad.stop() == 0
    assert kad.imports() == before


def test_running_from_files_that_were_moved_away(pair: tuple[Watched, Keepalived]) -> None:
    """The installation and Python's own library are covered up; nothing is imported after READY."""
    if shutil.which("nsenter") is None:
        pytest.skip("needs nsenter")
    kad, keepalived = pair
    start(kad, keepalived)
    before = kad.imports()
    assert any("kad_vrrp.app" in line for line in before), "imports are noted"
    cover_up(kad)
    live_through_it(kad, keepalived)
    assert kad.imports() == before, "nothing was imported after READY"


def test_on_a_full_disk(pair: tuple[Watched, Keepalived]) -> None:
    """No room for the log, for pid files and in the run directory."""
    kad, keepalived = pair
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(kad.directory)], check=True)
    try:
        kad.log.touch()
        start(kad, keepalived)
        with (kad.directory / "fill").open("wb", buffering=0) as fill, pytest.raises(OSError, match="space"):
            while True:
                fill.write(b"x" * 4096)
        live_through_it(kad, keepalived)
    finally:
        kad.close()
        subprocess.run(["umount", "-l", str(kad.directory)], check=False)
