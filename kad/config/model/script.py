"""A command that a configuration asks kad to run."""

from msgspec import Struct


class ScriptCommand(Struct, frozen=True, gc=False, omit_defaults=True):
    """argv as keepalived would pass it, and as whom.

    ``executable`` is the path that is really executed (symbolic links resolved, argv[0] kept as written) once
    the script was found; empty while it has not been looked up (``--offline``).
    """

    argv: tuple[str, ...]
    executable: str = ""
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    through_shell: bool = False
    """Run by /bin/sh with every argument quoted: the file is not executable by itself, or its execution may
    hang (it lies on a network's filesystem), or there is only a file to be opened (``</path``)."""
