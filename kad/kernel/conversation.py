"""rtnetlink with waiting for the answer: for threads of their own, never for a loop.

Making an interface takes a tenth of a millisecond, taking one away makes the kernel wait for every processor:
15 to 20 ms, which no process that sends adverts can spare.
"""

from __future__ import annotations

import errno
import os
import socket
from struct import Struct as Layout
from types import TracebackType

from msgspec import Struct

from kad.kernel.encoder import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLMSG_DONE,
    NLMSG_ERROR,
    Message,
    answer,
    attributes,
    message,
    messages,
    read_text,
    read_u32,
    text,
)
from kad.kernel.links import IFLA_ADDRESS, IFLA_IFNAME, IFLA_MASTER, RTM_GETLINK

IFLA_LINK, IFLA_LINKINFO, IFLA_AF_SPEC, IFLA_GROUP = 5, 18, 26, 27
INFO_KIND, INFO_DATA = 1, 2

_LINK = Layout("=BxHiII")
_PATIENCE_S = 10.0
_READ_SIZE = 1 << 16


class LinkFacts(Struct, frozen=True):
    """What the kernel says about one interface."""

    index: int
    name: str
    hardware: int
    """ARPHRD_*; 1 is Ethernet."""
    flags: int
    mac: bytes = b""
    below: int = 0
    """Index of the interface it is on top of."""
    master: int = 0
    group: int = 0
    kind: str = ""
    mode: bytes = b""
    """macvlan and ipvlan: the first attribute of its own, in the machine's byte order."""


def link_body(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """What link requests begin with. Index 0: the name says which."""
    return _LINK.pack(0, 0, index, flags, change)


class Conversation:
    """One socket; a request is answered before the next is sent. Raises OSError with the kernel's words."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, 0))
        self._socket.settimeout(_PATIENCE_S)
        self._sequence = 0

    def __enter__(self) -> Conversation:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def request(self, kind: int, flags: int, body: bytes) -> list[Message]:
        """What came before the acknowledgement."""
        self._sequence += 1
        self._socket.sendto(message(kind, flags | NLM_F_ACK, self._sequence, body), (0, 0))
        replies: list[Message] = []
        while True:
            for reply in messages(self._socket.recv(_READ_SIZE)):
                if reply.sequence != self._sequence:
                    continue
                if reply.kind in (NLMSG_ERROR, NLMSG_DONE):
                    verdict = answer(reply)
                    if verdict.error:
                        raise OSError(verdict.error, verdict.text or os.strerror(verdict.error))
                    return replies
                replies.append(reply)

    def dump(self, kind: int, body: bytes) -> list[Message]:
        return self.request(kind, NLM_F_DUMP, body)

    def link(self, name: str) -> LinkFacts | None:
        """The interface of that name; None when there is none."""
        return self._link(link_body() + text(IFLA_IFNAME, name))

    def link_at(self, index: int) -> LinkFacts | None:
        return self._link(link_body(index)) if index else None

    def links(self) -> list[LinkFacts]:
        """Every interface."""
        return [_facts(reply) for reply in self.dump(RTM_GETLINK, link_body())]

    def _link(self, body: bytes) -> LinkFacts | None:
        try:
            replies = self.request(RTM_GETLINK, 0, body)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return _facts(replies[0]) if replies else None


def _facts(reply: Message) -> LinkFacts:
    _, hardware, index, flags, _ = _LINK.unpack_from(reply.body)
    found = attributes(reply.body, _LINK.size)
    info = attributes(found.get(IFLA_LINKINFO, b""))
    return LinkFacts(
        index=index,
        name=read_text(found.get(IFLA_IFNAME, b"")),
        hardware=hardware,
        flags=flags,
        mac=found.get(IFLA_ADDRESS, b""),
        below=read_u32(found.get(IFLA_LINK, b"")),
        master=read_u32(found.get(IFLA_MASTER, b"")),
        group=read_u32(found.get(IFLA_GROUP, b"")),
        kind=read_text(info.get(INFO_KIND, b"")),
        mode=attributes(info.get(INFO_DATA, b"")).get(1, b""),
    )
