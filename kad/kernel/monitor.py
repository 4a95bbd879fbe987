"""Listens to the kernel about links and addresses: subscribe, then dump, on one socket.

Dump and notifications come through the same queue, so the table is never older than the last word read. A
lost notification (ENOBUFS) makes everything unknown: dump again.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

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
from kad.kernel.multicast import SHARE, read_share

_GROUPS = 0x1 | 0x10 | 0x100 | 1 << 24
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR; RTNLGRP_IPV6_NETCONF, the 25th."""
_READ_SIZE = 1 << 16
_REPEATS = 20
_RECEIVE_BUFFER = 4 << 20
_LEAST_CHARGE = 512
"""Bytes of its buffer that a socket is charged for a message, at the least."""
_DUMPS = ((RTM_GETLINK, LINK_REQUEST), (RTM_GETADDR, ADDRESS_REQUEST))


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
        self._socket.bind((0, 0))
        self._port_id: int = self._socket.getsockname()[0]
        self._buffer = memoryview(bytearray(_READ_SIZE))
        self._sequence = 0
        self._step: int | None = None
        """Which of the dumps is under way."""
        self._again = False
        self._repeats = 0
        self._overrun = False
        self.synced = False
        self.resyncs = 0
        """Dumps begun, the first included."""
        self.incomplete = 0
        """Dumps given up as interrupted again and again; they removed nothing from the table."""
        self.malformed = 0

    def set_receive_buffer(self, wanted: ReceiveBuffer) -> None:
        """What a configuration says, or takes back."""
        set_receive_buffer(self._socket, wanted, _RECEIVE_BUFFER)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def resync(self) -> None:
        """Dump everything; when a dump is under way, once more after it. The first time, subscribe before."""
        if self._step is not None:
            self._again = True
            return
        if not self.resyncs:
            self._socket.bind((self._port_id, _GROUPS))
        self.resyncs += 1
        self.table.begin_dump()
        self._request(0)

    def drain(self) -> bool:
        """Read what the kernel said; True when there may be more."""
        share = read_share(self._socket, self._buffer)
        self._overrun |= share.overrun
        ended = False
        for data in share.parts:
            ended |= self._read(data)
        if self._overrun and not share.more:
            # Not before the queue is empty: a dump cannot begin in a full one.
            self._overrun = False
            self.resync()
        if share.parts and self.synced:
            self._on_news(ended)
        return share.more

    def synchronise(self) -> None:
        """Begin to listen, and read the whole dump: what the kernel is asked for it answers at once. What is
        not there by then comes in with :meth:`drain`.
        """
        self.resync()
        for _ in range(len(_DUMPS)):
            self.catch_up()

    def catch_up(self) -> None:
        """Read everything that has been said by now, and no more than the socket can hold: whoever goes on
        changing links and addresses would be listened to for ever.
        """
        size = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        for _ in range(size // (_LEAST_CHARGE * SHARE) + 1):
            if not self.drain():
                return

    def _read(self, data: bytes) -> bool:
        """True when the last dump has ended."""
        ended = False
        try:
            for heard in messages(data):
                if heard.port_id == self._port_id and heard.sequence == self._sequence:
                    ended |= self._read_dump(heard)
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
