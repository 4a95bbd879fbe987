"""Which filesystem a path lies on, found out without touching it: one that hangs would hold whoever asks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

# fmt: off
UNFIT = frozenset((
    "9p", "afs", "autofs", "bpf", "ceph", "cgroup", "cgroup2", "cifs", "coda", "debugfs", "devpts",
    "efivarfs", "glusterfs", "ncpfs", "nfs", "nfs4", "ocfs2", "pipefs", "proc", "romfs", "selinuxfs",
    "smb3", "smbfs", "sockfs", "sysfs", "sysv", "tracefs",
))
# fmt: on
"""Types of filesystems where reading may block or changes cannot be seen, beside every kind of fuse."""

Mounts = Sequence[tuple[str, str]]
"""Where something is mounted, and its type; of two at one place the later one counts."""


def mounts() -> Mounts:
    """As /proc/self/mountinfo tells; empty where it cannot be read."""
    found: list[tuple[str, str]] = []
    with (
        contextlib.suppress(OSError),
        open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file,
    ):
        for line in file:
            words = line.split(" ")
            found.append((words[4].replace("\\040", " "), words[words.index("-", 6) + 1]))
    return found


def filesystem_of(path: str, among: Mounts | None = None) -> str:
    """The type of the filesystem a path lies on; symbolic links in it are not followed."""
    absolute = os.path.abspath(path)
    best, kind = -1, ""
    for point, its_kind in mounts() if among is None else among:
        inside = point == "/" or absolute == point or absolute.startswith(point + "/")
        if inside and len(point) >= best:
            best, kind = len(point), its_kind
    return kind


def is_unfit(kind: str) -> bool:
    """See :data:`UNFIT`."""
    return kind in UNFIT or kind.startswith("fuse")
