"""What a reader of the FIFOs reads of keepalived, and of kad: one configuration, one life, byte for byte."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.adverts import Sender, advert
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, needs_namespaces, poll

pytestmark = [pytest.mark.root, pytest.mark.interop]

NOBODY = 65534
READER = """#!/bin/sh
echo "$0" "$@" > "{place}/reader"
exec cat "$2" > "{place}/read"
"""


class Reader:
    """Reads a FIFO from the moment it is there, and again whenever it was made anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = b""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
                self._drain(descriptor)
                os.close(descriptor)
            self._stop.wait(0.001)

    def _drain(self, descriptor: int) -> None:
        """Until its writer, once there was one, is gone."""
        seen = False
        while not self._stop.is_set():
            with contextlib.suppress(BlockingIOError):
                data = os.read(descriptor, 65536)
                self.data += data
                if not data and (seen or not self.path.exists()):
                    return
                seen |= bool(data)
            self._stop.wait(0.001)

    def wait_for(self, line: str, times: int = 1) -> None:
        wanted = f"{line}\n".encode()
        poll(lambda: self.data.count(wanted) >= times, lambda: f"{line!r} in {self.data!r}", seconds=15)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@dataclass
class Life:
    """What one daemon told: its own FIFO, the common one, and the reader's argv."""

    own: bytes = b""
    common: bytes = b""
    lived: bytes = b""
    """Before the reload."""
    reloaded: bytes = b""
    identities: list[tuple[int, int, int]] = field(default_factory=list)
    reader: str = ""
    left_behind: list[str] = field(default_factory=list)


def text_of(place: Path, *, priority: int = 150) -> str:
    followed = ["track_file {", "level weight 1", "}"]
    file = f'track_file level {{\nfile "{place}/level"\ninit_file 0 overwrite\n}}\n'
    instances = [
        vrrp_instance("alone", vrid=51, version=3, advert_int=0.1, priority=priority, extra=followed),
        vrrp_instance(
            "first", vrid=52, version=3, advert_int=0.1, priority=200, addresses=["192.0.2.101/24"]
        ),
        vrrp_instance(
            "second",
            interface="eth1",
            vrid=53,
            version=3,
            advert_int=0.1,
            priority=100,
            addresses=["198.51.100.100/24"],
            extra=["notify_deleted"],
        ),
    ]
    group = "vrrp_sync_group pair {\ngroup {\nfirst\nsecond\n}\n}\n"
    settings = [
        "script_user root",
        f"notify_fifo {place}/common",
        f"notify_fifo_script '{place}/script word'",
        f"vrrp_notify_fifo {place}/own nobody",
        "vrrp_notify_priority_changes",
        "fifo_write_vrrp_states_on_reload",
    ]
    return configuration(file, *instances, group, settings=settings)


def life(network: Network, program: type[Daemon], place: Path) -> Life:
    """Start, a priority, a lost link, a reload, a rival, stop."""
    script = place / "script"
    script.write_text(READER.format(place=place))
    script.chmod(0o755)
    lan, other_lan = network.bridge(), network.bridge()
    node, rival = network.node("node"), network.node("rival")
    node.attach(lan, "192.0.2.1/24", name="eth0")
    node.attach(other_lan, "198.51.100.1/24", name="eth1")
    rival.attach(lan, "192.0.2.2/24", name="eth0")
    own = Reader(place / "own")
    result = Life()
    with program(node, text_of(place)) as daemon:
        own.wait_for('INSTANCE "alone" MASTER 150')
        own.wait_for('GROUP "pair" MASTER 0')
        (place / "level").write_text("20\n")
        own.wait_for('INSTANCE "alone" MASTER_PRIORITY 170')
        other_lan.unplug(node, "eth1")
        own.wait_for('GROUP "pair" FAULT 0')
        (place / "level").write_text("10\n")
        own.wait_for('INSTANCE "alone" MASTER_PRIORITY 160')
        other_lan.replug(node, "eth1")
        own.wait_for('GROUP "pair" MASTER 0', times=2)
        with Sender(rival, [("eth0", advert(priority=7))], rate=1):
            own.wait_for('INSTANCE "alone" MASTER_RX_LOWER_PRI 160')
        result.identities = [identity(place / name) for name in ("own", "common")]
        result.reader = poll(lambda: (place / "reader").read_text(), "the reader").strip()
        daemon.configure(text_of(place, priority=120))
        result.lived = before = own.data
        daemon.reload()
        daemon.wait_for("Reload complete" if program is Keepalived else "reload: generation 2 runs")
        (place / "level").write_text("5\n")
        own.wait_for('INSTANCE "alone" MASTER_PRIORITY 125')
        result.reloaded = own.data[len(before) :]
        daemon.stop()
        own.wait_for('GROUP "pair" STOP 0')
        result.common = (place / "read").read_bytes()
    own.close()
    result.own = own.data
    result.left_behind = sorted(each.name for each in place.iterdir())
    return result


def identity(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


@pytest.fixture(scope="module")
def both() -> Iterator[dict[str, Life]]:
    needs_namespaces()
    needs_keepalived()
    place = Path(tempfile.mkdtemp(prefix="kf-"))
    place.chmod(0o755)
    lives = {}
    try:
        for label, program in (("keepalived", Keepalived), ("kad", Kad)):
            (place / label).mkdir()
            with Network("fifo") as network:
                lives[label] = life(network, program, place / label)
        yield lives
    finally:
        shutil.rmtree(place)


def after_the_start(lines: bytes) -> list[bytes]:
    """Without the four lines of the start: keepalived tells groups first then, and their members later."""
    return lines.splitlines(True)[4:]


def test_same_lines_in_the_same_order(both: dict[str, Life]) -> None:
    ours, theirs = both["kad"], both["keepalived"]
    assert after_the_start(ours.lived) == after_the_start(theirs.lived)
    assert sorted(ours.lived.splitlines()[:4]) == sorted(theirs.lived.splitlines()[:4])
    assert ours.own.splitlines()[-4:] == theirs.own.splitlines()[-4:]
    assert ours.own.endswith(b'INSTANCE "second" STOP 100\nGROUP "pair" STOP 0\n')
    assert b'INSTANCE "alone" MASTER_RX_LOWER_PRI 160\n' in ours.lived


def test_a_reload_tells_every_state_again(both: dict[str, Life]) -> None:
    """keepalived 2.2.7 leaves out whoever is MASTER, and tells a wrong priority in between."""
    wanted = b"""GROUP "pair" MASTER 0
INSTANCE "alone" MASTER 130
INSTANCE "first" MASTER 200
INSTANCE "second" MASTER 100
"""
    changed = b'INSTANCE "alone" MASTER_PRIORITY 130\n'
    later = b'INSTANCE "alone" MASTER_PRIORITY 125\n'
    assert both["kad"].reloaded == changed + wanted + later
    assert set(both["keepalived"].reloaded.splitlines()) & set(wanted.splitlines()) == {
        b'GROUP "pair" MASTER 0'
    }


def test_the_common_pipe_reads_the_same_and_its_script_knows_it(both: dict[str, Life]) -> None:
    assert both["kad"].common == both["kad"].own
    for label, found in both.items():
        script, word, path = found.reader.split()
        assert (Path(script).name, word, Path(path).name) == ("script", "word", "common"), label


def test_same_mode_and_owner_and_nothing_is_left(both: dict[str, Life]) -> None:
    assert both["kad"].identities == both["keepalived"].identities
    assert both["kad"].identities == [(0o600, NOBODY, NOBODY), (0o600, 0, 0)]
    assert both["kad"].left_behind == both["keepalived"].left_behind == ["level", "read", "reader", "script"]
