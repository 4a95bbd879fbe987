"""FIFOs of a real daemon through a crash of the process that writes them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.daemon import Kad
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Network, poll

pytestmark = pytest.mark.root


def links(pid: int) -> list[str]:
    """What a process has open."""
    return [os.path.realpath(each) for each in Path(f"/proc/{pid}/fd").iterdir()]


def test_a_crash_keeps_the_pipe_and_starts_one_reader_again(network: Network, tmp_path: Path) -> None:
    node = network.node("node")
    node.attach(network.bridge(), "192.0.2.1/24", name="eth0")
    # The readers are told to leave with the last line: these read it first, and leave at the end of the file.
    readers, pipe, read = tmp_path / "readers", tmp_path / "pipe", tmp_path / "read"
    script = tmp_path / "script"
    script.write_text(f'#!/bin/sh\necho $$ >> {readers}\ntrap "" TERM\nexec cat "$1" >> {read}\n')
    script.chmod(0o755)
    tmp_path.chmod(0o755)
    text = configuration(
        vrrp_instance(version=3, advert_int=0.1),
        settings=["script_user root", f"vrrp_notify_fifo {pipe}", f"vrrp_notify_fifo_script {script}"],
    )

    def pids() -> list[int]:
        return [int(word) for word in readers.read_text().split()] if readers.exists() else []

    with Kad(node, text) as kad:
        poll(
            lambda: b"MASTER" in (read.read_bytes() if read.exists() else b""),
            "MASTER to be read",
            seconds=15,
        )
        inode = pipe.stat().st_ino
        old = kad.vrrp_pid()
        os.kill(old, signal.SIGKILL)
        kad.new_vrrp_pid(old)
        poll(lambda: len(pids()) == 2, "another reader", seconds=15)
        poll(lambda: not Path(f"/proc/{pids()[0]}").exists(), "the first one to leave")
        assert pipe.stat().st_ino == inode
        poll(lambda: str(pipe) in links(pids()[1]), "the second reader to open the pipe")
        kad.stop()
        poll(lambda: b"STOP" in read.read_bytes(), "STOP to be read")
        poll(lambda: not Path(f"/proc/{pids()[1]}").exists(), "the second one to leave")
        assert not pipe.exists()
    told = read.read_text().splitlines()
    assert told == [f'INSTANCE "VI_1" {state} 100' for state in ("BACKUP", "MASTER", "STOP")]
