"""Listens for routes and rules that go: deleted, or replaced by somebody else's.

On a socket of its own: a router may hear of a hundred thousand routes in a second, and what is lost in such a
flood must not be news of links. The kernel drops most of it before it wakes us.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable
from struct import Struct as Layout

from kad.config.model.routing import PROTOCOL_MARK
from kad.kernel.batch import force_receive_buffer
from kad.kernel.encoder import NLM_F_REPLACE, MalformedMessage, Message, messages
from kad.kernel.multicast import read_share
from kad.kernel.routes import RTM_DELROUTE, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE
from kad.kernel.rules import RTM_DELRULE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_SO_ATTACH_FILTER = 26
_GROUPS = (RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE)
_RECEIVE_BUFFER = 1 << 20
_READ_SIZE = 1 << 16

_STEP = Layout("=HBBI")
_PROGRAM = Layout("HP")
_LOAD_HALF, _LOAD_BYTE, _JUMP_EQUAL, _JUMP_BITS, _RETURN = 0x28, 0x30, 0x15, 0x45, 0x06
_KIND_AT, _FLAGS_AT, _ROUTE_PROTOCOL_AT = 4, 6, 21
_WHOLE = 0xFFFF_FFFF


def _filter() -> bytes:
    """Classic BPF: deleted rules, deleted routes of our protocol, routes that replace another, nothing else.

    Halves are loaded in network order.
    """
    steps = (
        (_LOAD_HALF, 0, 0, _KIND_AT),
        (_JUMP_EQUAL, 5, 0, socket.htons(RTM_DELRULE)),
        (_JUMP_EQUAL, 2, 0, socket.htons(RTM_DELROUTE)),
        (_LOAD_HALF, 0, 0, _FLAGS_AT),
        (_JUMP_BITS, 2, 3, socket.htons(NLM_F_REPLACE)),
        (_LOAD_BYTE, 0, 0, _ROUTE_PROTOCOL_AT),
        (_JUMP_EQUAL, 0, 1, PROTOCOL_MARK),
        (_RETURN, 0, 0, _WHOLE),
        (_RETURN, 0, 0, 0),
    )
    return b"".join(_STEP.pack(*step) for step in steps)


class RouteMonitor:
    """Silent until :meth:`watch`. Readable: :meth:`drain`.

    ``on_heard`` gets each RTM_DELROUTE, RTM_DELRULE and replacing RTM_NEWROUTE; ``on_overrun`` is called when
    some were lost.
    """

    def __init__(self, on_heard: Callable[[Message], None], on_overrun: Callable[[], None]) -> None:
        self._on_heard = on_heard
        self._on_overrun = on_overrun
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._buffer = memoryview(bytearray(_READ_SIZE))
        self._watches = False
        self.malformed = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def watch(self) -> None:
        """There is something to watch over."""
        if self._watches:
            return
        self._watches = True
        # One without a number of its own is passed over: 0 is the kernel's.
        self._socket.bind((0, 0))
        force_receive_buffer(self._socket, _RECEIVE_BUFFER)
        program = _filter()
        steps = ctypes.create_string_buffer(program, len(program))
        length = len(program) // _STEP.size
        attached = _PROGRAM.pack(length, ctypes.addressof(steps))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attached)
        for group in _GROUPS:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def drain(self) -> bool:
        """Read what the kernel said; True when there may be more."""
        share = read_share(self._socket, self._buffer)
        for data in share.parts:
            self._read(data)
        if share.overrun:
            self._on_overrun()
        return share.more

    def _read(self, data: bytes) -> None:
        try:
            for heard in messages(data):
                self._on_heard(heard)
        except MalformedMessage:
            self.malformed += 1
