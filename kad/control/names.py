"""What must be known of a configuration before the daemon has a name: ``instance`` and its like.

Pid files, the run directory and the identifiers in the log carry these names, so they are needed before there
is a control process. The supervisor itself never reads a configuration: a child of one moment does.
"""

from __future__ import annotations

import os
import re
import select
import signal

import msgspec
from msgspec import Struct

from kad.config.source import DiskReader, Unreadable
from kad.runtime.process import Options

READ_LIMIT_MS = 10_000
"""Then the daemon starts without the names; control will say what is wrong with the files."""
PEEK_LIMIT = 16 * 1024 * 1024
_ANSWER_LIMIT = 64 * 1024

_MAY_NAME = re.compile(rb"\b(?:instance|net_namespace|use_pid_dir)\b|include|[$@~]")
"""Texts without any of these name nothing. (``vrrp_instance`` is one word: no boundary within.)"""


class Names(Struct, frozen=True):
    instance: str = ""
    net_namespace: str = ""
    use_pid_dir: bool = False


def with_configured_names(options: Options) -> Options:
    """The options, with the configuration's names where the command line gives none."""
    if not may_name_anything(options.config_file):
        return options
    names = _read_apart(options)
    return msgspec.structs.replace(
        options,
        instance=options.instance or names.instance,
        net_namespace=options.net_namespace or names.net_namespace,
        use_pid_dir=options.use_pid_dir or names.use_pid_dir,
    )


def may_name_anything(path: str) -> bool:
    """Is it worth reading? Most configurations have none of the words, and need no second reading."""
    content = DiskReader().read(path, PEEK_LIMIT)
    # A pattern for several files, or nothing readable: the one who reads it whole knows.
    return isinstance(content, Unreadable) or _MAY_NAME.search(content) is not None


def _read_apart(options: Options) -> Names:
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        _answer(options, theirs)
    os.close(theirs)
    try:
        return _hear(ours)
    finally:
        os.close(ours)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _answer(options: Options, descriptor: int) -> None:
    """The child's whole life. What goes wrong here goes wrong again in control, and is said there."""
    try:
        os.write(descriptor, msgspec.msgpack.encode(_read(options)))
    finally:
        os._exit(0)


def _read(options: Options) -> Names:
    from kad.control.reading import read_files

    settings = read_files(options).config.globals
    return Names(settings.instance, settings.net_namespace, settings.use_pid_dir)


def _hear(descriptor: int) -> Names:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(READ_LIMIT_MS):
        return Names()
    try:
        return msgspec.msgpack.decode(os.read(descriptor, _ANSWER_LIMIT), type=Names)
    except msgspec.MsgspecError:
        return Names()
