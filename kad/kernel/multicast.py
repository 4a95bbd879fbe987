"""What the kernel says unasked, read a share at a time."""

from __future__ import annotations

import errno
import socket

from msgspec import Struct

SHARE = 64
"""Datagrams."""


class Share(Struct):
    """What one turn takes out of a netlink socket."""

    parts: list[bytes]
    """Datagrams of the kernel's own, in order."""
    overrun: bool
    """The socket was full: something was lost before what comes next."""
    more: bool
    """There may be more to read."""


def read_share(made: socket.socket, buffer: memoryview) -> Share:
    """At most :data:`SHARE` datagrams; what other processes send is left out. Raises OSError."""
    share = Share([], overrun=False, more=True)
    for _ in range(SHARE):
        try:
            length, sender = made.recvfrom_into(buffer)
        except BlockingIOError:
            share.more = False
            break
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            share.overrun = True
            continue
        if sender[0] == 0:
            share.parts.append(bytes(buffer[:length]))
    return share
