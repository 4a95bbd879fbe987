"""Where dumps go, and how they get there: written aside, then renamed, so that nobody reads half of one."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Mapping

from kad.config.model.globals import Globals
from kad.ipc.messages import Role

STATISTICS = "keepalived.stats"
JSON = "keepalived.json"
STATE = "keepalived"
_PARTS: dict[Role, str] = {Role.CONTROL: "_parent", Role.VRRP: "", Role.CHECK: "_check", Role.BFD: "_bfd"}
MODE = 0o666
"""Less the umask, which leaves them to the daemon's user alone unless it was changed."""


def temporary_directory(environment: Mapping[str, str]) -> str:
    """TMPDIR if it is the absolute path of a directory, else /tmp."""
    path = environment.get("TMPDIR", "")
    return path if posixpath.isabs(path) and os.path.isdir(path) else "/tmp"


def statistics_file(settings: Globals, directory: str) -> str:
    return posixpath.join(directory, settings.stats_dump_file or STATISTICS)


def json_file(settings: Globals, directory: str) -> str:
    return posixpath.join(directory, settings.json_dump_file or JSON)


def state_file(settings: Globals, role: Role, directory: str) -> str:
    """``NAME[_parent|_check|_bfd][.NETNS[_INSTANCE]].data``; control's is the parent's.

    state_dump_file: a name, or a directory where it ends in a slash; a relative one is under ``directory``.
    """
    place, name = posixpath.split(settings.state_dump_file)
    name = (name or STATE) + _PARTS[role]
    if settings.data_use_instance:
        words = [word for word in (settings.net_namespace, settings.instance) if word]
        name += f".{'_'.join(words)}" if words else ""
    return posixpath.join(directory, place, f"{name}.data")


def replace_file(path: str, text: str, mode: int = MODE) -> None:
    """Make it hold exactly this, in one step. Raises OSError; then it is as it was."""
    directory, name = posixpath.split(path)
    # Not NAME.SOMETHING: exporters take such for leftovers of keepalived, and remove them.
    aside = posixpath.join(directory, f".{name}.{os.urandom(6).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(aside, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode(errors="surrogateescape"))
        os.rename(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
