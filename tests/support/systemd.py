"""A systemd of the test's own: process 1 of a process, mount and cgroup namespace, on a node's network.

    with Systemd(node) as manager:
        manager.unit("kad.service", text)
        manager.systemctl("start", "kad")

Everything it runs ends with it. Of the machine it changes nothing: what it would write is mounted read-only.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.support.daemon import children_of
from tests.support.namespaces import Node, poll, reason_not_possible

PROGRAM = "/lib/systemd/systemd"
SCRIPT = """
set -e
echo $$ > {cgroup}/cgroup.procs
exec unshare -C -m -p -u -i -f --kill-child --mount-proc sh -ec '
mount --make-rprivate /
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
for each in fs kernel vm; do mount --bind -o ro /proc/sys/$each /proc/sys/$each; done
mount -t tmpfs none /run
mount --bind {units} /etc/systemd/system
mount --bind {units}/machine-id /etc/machine-id
export container=lxc
exec {program} --system --unit=test.target --log-target=null --default-standard-output=null'
"""


@functools.cache
def reason_no_systemd() -> str:
    """Why none can be run here; "" when one can."""
    if reason := reason_not_possible():
        return reason
    if not os.path.exists(PROGRAM) or shutil.which("nsenter") is None:
        return "needs systemd"
    if not _hierarchy():
        return "needs a writable cgroup2 hierarchy"
    return ""


def _hierarchy() -> str:
    """Where cgroup2 is mounted and can be written; "" for nowhere."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    found = [fields[1] for fields in mounts if fields[2] == "cgroup2"]
    return found[0] if found and not os.statvfs(found[0]).f_flag & os.ST_RDONLY else ""


class Systemd:
    """``directory`` is for the unit's own files."""

    def __init__(self, node: Node) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="kad-systemd-"))
        self._units = self.directory / "units"
        self._units.mkdir()
        (self._units / "machine-id").write_text("0" * 31 + "1\n")
        self.unit("test.target", "[Unit]\nDefaultDependencies=no\n")
        self._cgroup = Path(_hierarchy(), f"kad-{os.getpid()}-{node.label}")
        self._cgroup.mkdir()
        script = SCRIPT.format(cgroup=self._cgroup, units=self._units, program=PROGRAM)
        self._process = node.start(["sh", "-c", script], stdin=subprocess.DEVNULL)
        self._pid = poll(lambda: next(iter(children_of(self._process.pid)), 0), "systemd's process")
        poll(lambda: self.systemctl("is-system-running", check=False) in ("running", "degraded"), "systemd")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)
        poll(self._remove_groups, "the end of everything systemd ran")
        shutil.rmtree(self.directory)

    def unit(self, name: str, text: str) -> None:
        (self._units / name).write_text(text)

    def systemctl(self, *words: str, check: bool = True) -> str:
        argv = ["nsenter", "-t", str(self._pid), "-m", "-p", "-C", "systemctl", *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def show(self, unit: str, *names: str) -> list[str]:
        """Properties of a unit."""
        text = self.systemctl("show", *(word for name in names for word in ("-p", name)), unit)
        found = dict(line.partition("=")[::2] for line in text.splitlines())
        return [found.get(name, "") for name in names]

    def _remove_groups(self) -> bool:
        """Whether all are gone: each can go when its last process has."""
        groups = [Path(path) for path, _, _ in os.walk(self._cgroup, topdown=False)]
        for each in groups:
            with contextlib.suppress(OSError):
                each.rmdir()
        return not self._cgroup.exists()
