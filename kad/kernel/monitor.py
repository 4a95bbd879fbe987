"""Listens to the kernel about links and addresses: subscribe, then dump, on one socket.

Dump and notifications come through the same queue, so the table is never older than the last word read. A
lost notification (ENOBUFS) makes everything unknown: dump again.
"""

from __future__ import annotations

import ctypes
import errno
import socket
from collections.abc import Callable
from struct import Struct as Layout

from kad.config.model.routing import PROTOCOL_MARK
from kad.kernel.batch import ReceiveBuffer, set_receive_buffer
from kad.kernel.encoder import (
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    MalformedMessage,
    Message,
    answer,
    message,
    messages,
)
from kad.kernel.links import ADDRESS_REQUEST, LINK_REQUEST, RTM_GETADDR, RTM_GETLINK, LinkTable
from kad.kernel.routes import RTM_DELROUTE, RTM_NEWROUTE, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE
from kad.kernel.rules import RTM_DELRULE, RTM_NEWRULE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE

_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_READ_SIZE = 1 << 16
_READS = 64
_REPEATS = 20
_RECEIVE_BUFFER = 4 << 20
_DUMPS = ((RTM_GETLINK, LINK_REQUEST), (RTM_GETADDR, ADDRESS_REQUEST))


_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_SO_ATTACH_FILTER = 26
_ROUTE_GROUPS = (RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE)
_FILTER_STEP = Layout("=HBBI")
_FILTER_PROGRAM = Layout("HP")
_LOAD_HALF, _LOAD_BYTE, _JUMP_EQUAL, _RETURN = 0x28, 0x30, 0x15, 0x06
_KIND_AT, _ROUTE_PROTOCOL_AT = 4, 21
_WHOLE = 0xFFFF_FFFF


def _route_filter() -> bytes:
    """Classic BPF: all but new routes and rules, and routes of others. A full table of the Internet's routes
    comes and goes without waking us. Halves are loaded in network order.
    """
    new_route, new_rule, gone = (socket.htons(kind) for kind in (RTM_NEWROUTE, RTM_NEWRULE, RTM_DELROUTE))
    steps = (
        (_LOAD_HALF, 0, 0, _KIND_AT),
        (_JUMP_EQUAL, 5, 0, new_route),
        (_JUMP_EQUAL, 4, 0, new_rule),
        (_JUMP_EQUAL, 0, 2, gone),
        (_LOAD_BYTE, 0, 0, _ROUTE_PROTOCOL_AT),
        (_JUMP_EQUAL, 0, 1, PROTOCOL_MARK),
        (_RETURN, 0, 0, _WHOLE),
        (_RETURN, 0, 0, 0),
    )
    return b"".join(_FILTER_STEP.pack(*step) for step in steps)


_ROUTE_FILTER = _route_filter()


def _attach(listener: socket.socket, program: bytes) -> None:
    """Let the kernel drop what ``program`` returns 0 for."""
    steps = ctypes.create_string_buffer(program, len(program))
    listener.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_FILTER,
        _FILTER_PROGRAM.pack(len(program) // _FILTER_STEP.size, ctypes.addressof(steps)),
    )


class LinkMonitor:
    """Keeps a :class:`LinkTable` true. Readable: :meth:`drain`.

    ``on_news`` is called after every drain in which something was applied, once the first dump is whole;
    ``resynced`` in it is True when a dump has just ended.
    """

    def __init__(
        self,
        table: LinkTable,
        on_news: Callable[[bool], None],
        *,
        receive_buffer: ReceiveBuffer | None = None,
    ) -> None:
        self.table = table
        self._on_news = on_news
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self.set_receive_buffer(receive_buffer or ReceiveBuffer())
        self._socket.bind((0, _GROUPS))
        self._port_id: int = self._socket.getsockname()[0]
        self._buffer = memoryview(bytearray(_READ_SIZE))
        self._sequence = 0
        self._step: int | None = None
        """Which of the dumps is under way."""
        self._again = False
        self._repeats = 0
        self._overrun = False
        self._watches_routes = False
        self._route_losses: list[Message] = []
        self.synced = False
        self.resyncs = 0
        """Dumps begun, the first included."""
        self.incomplete = 0
        """Dumps given up as interrupted again and again; they removed nothing from the table."""
        self.malformed = 0

    def set_receive_buffer(self, wanted: ReceiveBuffer) -> None:
        """What a configuration says, or takes back."""
        set_receive_buffer(self._socket, wanted, _RECEIVE_BUFFER)

    def watch_routes(self) -> None:
        """From now on tell of deleted routes of our protocol, and of deleted rules."""
        if self._watches_routes:
            return
        self._watches_routes = True
        _attach(self._socket, _ROUTE_FILTER)
        for group in _ROUTE_GROUPS:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    @property
    def watches_routes(self) -> bool:
        return self._watches_routes

    def route_losses(self) -> list[Message]:
        """RTM_DELROUTE and RTM_DELRULE heard since the last call, in order."""
        losses, self._route_losses = self._route_losses, []
        return losses

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def resync(self) -> None:
        """Dump everything; when a dump is under way, once more after it."""
        if self._step is not None:
            self._again = True
            return
        self.resyncs += 1
        self.table.begin_dump()
        self._request(0)

    def drain(self) -> bool:
        """Read what the kernel said; True when there may be more."""
        heard = ended = False
        more = True
        for _ in range(_READS):
            try:
                length, sender = self._socket.recvfrom_into(self._buffer)
            except BlockingIOError:
                more = False
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._overrun = True
                continue
            if sender[0] == 0:
                heard = True
                ended |= self._read(bytes(self._buffer[:length]))
        if self._overrun and not more:
            # Not before the queue is empty: a dump cannot begin in a full one.
            self._overrun = False
            self.resync()
        if heard and self.synced:
            self._on_news(ended)
        return more

    def _read(self, data: bytes) -> bool:
        """True when the last dump has ended."""
        ended = False
        try:
            for heard in messages(data):
                if heard.port_id == self._port_id and heard.sequence == self._sequence:
                    ended |= self._read_dump(heard)
                if heard.kind in (RTM_DELROUTE, RTM_DELRULE):
                    self._route_losses.append(heard)
                self.table.apply(heard)
        except MalformedMessage:
            self.malformed += 1
        return ended

    def _read_dump(self, heard: Message) -> bool:
        if heard.flags & NLM_F_DUMP_INTR:
            self._again = True
        if self._step is None or heard.kind not in (NLMSG_DONE, NLMSG_ERROR):
            return False
        if answer(heard).error:
            self._again = True
        if self._step + 1 < len(_DUMPS):
            self._request(self._step + 1)
            return False
        self._step = None
        return self._end_dump()

    def _end_dump(self) -> bool:
        """True when the table may be believed now."""
        if self._again and self._repeats < _REPEATS:
            # Changed under the kernel's hands: what it did not mention may be there all the same.
            self._again = False
            self._repeats += 1
            self.resync()
            return False
        if self._again:
            self.incomplete += 1
            self.table.abandon_dump()
        else:
            self.table.end_dump()
        self._again = False
        self._repeats = 0
        self.synced = True
        return True

    def _request(self, step: int) -> None:
        self._step = step
        self._sequence = self._sequence % 0xFFFF_FFFF + 1
        kind, body = _DUMPS[step]
        self._socket.sendto(message(kind, NLM_F_DUMP, self._sequence, body), (0, 0))
