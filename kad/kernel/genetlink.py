"""Generic netlink: numbers of families, and word of families that come and go.

A family (IPVS) has a number only while its module is in the kernel. ``nlctrl`` tells it, and multicasts every
registration and removal: nobody needs to ask again and again whether a module has been loaded.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable

from kad.kernel.batch import Outcome, Request, force_receive_buffer
from kad.kernel.encoder import MalformedMessage, attributes, messages, read_text, text

PROTOCOL = 16  # NETLINK_GENERIC
CONTROLLER = 0x10
"""The family number of ``nlctrl``; its multicast group ``notify`` has the same."""

_CMD_NEW_FAMILY = 1
_CMD_DELETE_FAMILY = 2
_CMD_GET_FAMILY = 3
_FAMILY_ID = 1
_FAMILY_NAME = 2
_CONTROLLER_VERSION = 2
_HEADER_SIZE = 4
_READS = 64
_READ_SIZE = 1 << 16
_RECEIVE_BUFFER = 1 << 18


def header(command: int, version: int) -> bytes:
    """What stands between the netlink header and the attributes."""
    return bytes((command, version, 0, 0))


def family_request(name: str) -> Request:
    """Asks for a family's number; :func:`family_number` reads the answer. ENOENT: there is none."""
    return Request(CONTROLLER, 0, header(_CMD_GET_FAMILY, _CONTROLLER_VERSION) + text(_FAMILY_NAME, name))


def family_number(outcome: Outcome) -> int:
    """The number, or 0 when there is no such family."""
    for body in outcome.replies:
        number = _number(attributes(body, _HEADER_SIZE))
        if number:
            return number
    return 0


def _number(found: dict[int, bytes]) -> int:
    return int.from_bytes(found.get(_FAMILY_ID, b"")[:2], sys.byteorder)


class FamilyMonitor:
    """Tells when the family ``name`` appears (its number) or goes away (0). Readable: :meth:`drain`.

    ``on_lost``: messages were lost, so that anything may have happened; ask.
    """

    def __init__(self, name: str, on_number: Callable[[int], None], on_lost: Callable[[], None]) -> None:
        self._name = name
        self._on_number = on_number
        self._on_lost = on_lost
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, PROTOCOL)
        force_receive_buffer(self._socket, _RECEIVE_BUFFER)
        self._socket.bind((0, 1 << (CONTROLLER - 1)))
        self._overrun = False
        self.malformed = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def drain(self) -> bool:
        """Read what was said; True when there may be more."""
        for _ in range(_READS):
            try:
                data, sender = self._socket.recvfrom(_READ_SIZE)
            except BlockingIOError:
                if self._overrun:
                    # Not before the queue is empty: until then more may be lost, without another word.
                    self._overrun = False
                    self._on_lost()
                return False
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._overrun = True
                continue
            if sender[0] == 0:
                self._read(data)
        return True

    def _read(self, data: bytes) -> None:
        try:
            for heard in messages(data):
                if heard.kind != CONTROLLER or len(heard.body) < _HEADER_SIZE:
                    continue
                found = attributes(heard.body, _HEADER_SIZE)
                if read_text(found.get(_FAMILY_NAME, b"")) != self._name:
                    continue
                command = heard.body[0]
                if command == _CMD_NEW_FAMILY:
                    self._on_number(_number(found))
                elif command == _CMD_DELETE_FAMILY:
                    self._on_number(0)
        except MalformedMessage:
            self.malformed += 1
