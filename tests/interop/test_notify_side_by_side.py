"""What a notify script finds when keepalived starts it, and when kad does: one configuration, one life.

The script copies what the kernel says about it. Known differences are named here, one by one; anything else
that differs fails.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, needs_namespaces, poll

pytestmark = [pytest.mark.root, pytest.mark.interop]

RECORDER = """#!/bin/sh
p=/proc/$$
for fd in $p/fd/*; do echo "${{fd##*/}} $(readlink $fd)" >> "{out}/$$.fds"; done
for file in cmdline environ stat limits; do cat $p/$file > "{out}/$$.$file"; done
cat /proc/self/status > "{out}/$$.status"
readlink $p/cwd > "{out}/$$.cwd"
: > "{out}/$$.done"
"""
"""The status is that of ``cat``, which inherits it: the shell's own shows what it blocks to start ``cat``."""

INSTANCE_SCRIPTS = [
    "notify_master \"{script} master 'two words' \\x41 $HOME\"",
    'notify_backup "{script} backup" nobody',
    'notify_fault "{script} fault" daemon games',
    'notify_stop "{script} stop"',
    'notify "{script} any"',
]

STATES = ["BACKUP", "MASTER", "FAULT", "BACKUP", "MASTER", "STOP"]
"""The life that both are led through: start, a link lost and found, stop."""

DAEMON_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/root",
    "SITE": "kept as it is",
    "EMPTY": "",
    "LD_PRELOAD": "",
    "LD_LIBRARY_PATH": "/nonexistent",
    "NOTIFY_SOCKET": "/nonexistent/notify",
    "WATCHDOG_USEC": "99000000",
    "WATCHDOG_PID": "1",
}
# keepalived 2.2.7 hides none of these, later versions the loader's
HIDDEN_BY_KAD = {"LD_PRELOAD", "LD_LIBRARY_PATH", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}


@dataclass
class Record:
    """One run of the script."""

    argv: list[str]
    environment: dict[str, str]
    status: dict[str, str]
    cwd: str
    descriptors: dict[int, str]
    limits: dict[str, str]
    leads_its_group: bool
    nice: int
    policy: int
    order: tuple[int, int]

    @classmethod
    def read(cls, directory: Path, pid: str) -> Record:
        def text(kind: str) -> str:
            return (directory / f"{pid}.{kind}").read_text()

        stat = text("stat").rpartition(")")[2].split()
        variables = (word.partition("=") for word in text("environ").split("\0") if word)
        numbered = (line.partition(" ") for line in text("fds").splitlines())
        return cls(
            argv=text("cmdline").split("\0")[:-1],
            environment={name: value for name, _, value in variables},
            status=dict(line.split(":\t", 1) for line in text("status").splitlines() if ":\t" in line),
            cwd=text("cwd").strip(),
            # from 10 upwards are the shell's own: the script that it reads
            descriptors={int(fd): target for fd, _, target in numbered if int(fd) < 10 and target},
            limits={line[:26].strip(): line[26:68] for line in text("limits").splitlines()[1:]},
            leads_its_group=stat[2] == pid,
            nice=int(stat[16]),
            policy=int(stat[38]),
            order=(int(stat[19]), int(pid)),
        )


def life(network: Network, program: type[Daemon], place: Path) -> list[Record]:
    """Lead a daemon through STATES; its scripts' records in the order they were started in."""
    out = place / "out"
    out.mkdir()
    out.chmod(0o777)
    script = place / "record"
    script.write_text(RECORDER.format(out=out))
    script.chmod(0o755)
    lan = network.bridge()
    node = network.node("node")
    node.attach(lan, "192.0.2.1/24", name="eth0")
    extra = [line.format(script=script) for line in INSTANCE_SCRIPTS]
    text = configuration(
        vrrp_instance("VI 1".replace(" ", "_"), version=3, advert_int=0.1, priority=120, extra=extra),
        settings=["enable_script_security", "script_user root"],
    )
    environment = [f"{name}={value}" for name, value in DAEMON_ENVIRONMENT.items()]
    with program(node, text, wrapper=["env", "-i", *environment]) as daemon:
        daemon.wait_for("(VI_1) Entering MASTER STATE")
        lan.unplug(node, "eth0")
        daemon.wait_for("(VI_1) Entering FAULT STATE")
        lan.replug(node, "eth0")
        daemon.wait_for("(VI_1) Entering MASTER STATE", times=2)
        poll(lambda: len(list(out.glob("*.done"))) >= 10, "the scripts of five states")
        daemon.stop()
    poll(lambda: len(list(out.glob("*.done"))) >= 12, "the scripts of stopping")
    records = [Record.read(out, file.stem) for file in out.glob("*.done")]
    return sorted(records, key=lambda record: record.order)


@dataclass
class Both:
    keepalived: list[Record]
    kad: list[Record]
    keepalived_directory: str = ""


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    needs_namespaces()
    needs_keepalived()
    place = Path(tempfile.mkdtemp(prefix="kn-"))
    place.chmod(0o755)
    try:
        with Network("notify") as network:
            lives = []
            for label, program in (("keepalived", Keepalived), ("kad", Kad)):
                (place / label).mkdir()
                lives.append(life(network, program, place / label))
        yield Both(*lives)
    finally:
        shutil.rmtree(place)


def words(records: list[Record]) -> list[list[str]]:
    """argv of each, without the interpreter and with the script's directory taken out."""
    return [[Path(record.argv[1]).name, *record.argv[2:]] for record in records]


def test_same_commands_with_the_same_arguments_in_the_same_order(both: Both) -> None:
    assert words(both.kad) == words(both.keepalived)
    told = [line[4] for line in words(both.kad) if line[1] == "any"]
    assert told == STATES
    assert ["record", "any", "INSTANCE", "VI_1", "MASTER", "120"] in words(both.kad)


def pairs(both: Both) -> list[tuple[Record, Record]]:
    assert len(both.kad) == len(both.keepalived) >= 12
    return list(zip(both.kad, both.keepalived, strict=True))


OF_THE_C_LIBRARY = 1 << 31 | 1 << 32
"""Signals 32 and 33: no program can set them, and make (by posix_spawn) may have left them ignored."""


def test_same_user_groups_and_umask(both: Both) -> None:
    for ours, theirs in pairs(both):
        for key in ("Uid", "Gid", "Umask"):
            assert ours.status[key] == theirs.status[key], (key, ours.argv)
        if ours.status["Uid"].split()[0] != "0":
            # 2.2.7 lists the group itself as a supplementary one, later versions do not
            group = {ours.status["Gid"].split()[0]}
            assert {*ours.status["Groups"].split()} | group == {*theirs.status["Groups"].split()} | group


def test_default_signals_and_nothing_blocked(both: Both) -> None:
    for ours, theirs in pairs(both):
        ignored = [int(each.status["SigIgn"], 16) & ~OF_THE_C_LIBRARY for each in (ours, theirs)]
        assert ignored == [0, 0]
        assert ours.status["SigBlk"] == theirs.status["SigBlk"] == "0" * 16


def test_standard_descriptors_are_null_and_there_are_no_others(both: Both) -> None:
    for ours, theirs in pairs(both):
        standard = {0: "/dev/null", 1: "/dev/null", 2: "/dev/null"}
        assert {fd: ours.descriptors.get(fd) for fd in standard} == standard
        assert {fd: theirs.descriptors.get(fd) for fd in standard} == standard
        assert set(ours.descriptors) <= set(theirs.descriptors)


def test_environment_is_the_daemons_but_for_what_scripts_may_not_see(both: Both) -> None:
    for ours, theirs in pairs(both):
        expected = {k: v for k, v in theirs.environment.items() if k not in HIDDEN_BY_KAD}
        assert ours.environment == expected
        assert ours.environment["SITE"] == "kept as it is"
        assert ours.environment["EMPTY"] == ""


def test_working_directory_process_group_and_scheduling(both: Both) -> None:
    for ours, theirs in pairs(both):
        assert Path(ours.cwd).name.startswith("kd-") and Path(theirs.cwd).name.startswith("kd-")
        assert ours.leads_its_group and theirs.leads_its_group
        assert (
            (ours.nice, ours.policy)
            == (theirs.nice, theirs.policy)
            == (os.getpriority(os.PRIO_PROCESS, 0), 0)
        )
        assert ours.limits == theirs.limits
