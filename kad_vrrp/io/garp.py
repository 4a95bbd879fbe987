"""Sends whole Ethernet frames: gratuitous ARPs and unsolicited neighbour advertisements."""

from __future__ import annotations

import errno
import socket
from collections import Counter, deque
from collections.abc import Iterable

FRAMES_A_TURN = 256
"""As many go out before the timers get their turn: 1000 instances with a burst of 5 each would hold the
adverts up for tens of milliseconds."""

QUEUE_LIMIT = 100_000
"""Frames waiting, at most; beyond it they are dropped and counted."""

Frame = tuple[str, bytes]


class Announcer:
    """One packet socket an interface, opened with the first frame. It receives nothing (protocol 0)."""

    def __init__(self) -> None:
        self._sockets: dict[str, socket.socket] = {}
        self._waiting: deque[Frame] = deque()
        self._share = FRAMES_A_TURN
        self.errors: Counter[str] = Counter()
        self.sent = 0

    def announce(self, frames: Iterable[Frame]) -> None:
        """Send in order; what is beyond a turn's share waits for :meth:`next_turn`."""
        waiting = self._waiting
        for frame in frames:
            if len(waiting) < QUEUE_LIMIT:
                waiting.append(frame)
            else:
                self.errors["queue full"] += 1
        self._send_some()

    def next_turn(self) -> bool:
        """A new share; True when more are waiting after it."""
        self._share = FRAMES_A_TURN
        self._send_some()
        return bool(self._waiting)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def forget(self, interface: str) -> None:
        """The interface is gone, or another one has its name."""
        found = self._sockets.pop(interface, None)
        if found is not None:
            found.close()

    def close(self) -> None:
        for interface in list(self._sockets):
            self.forget(interface)

    def _send_some(self) -> None:
        waiting = self._waiting
        while waiting and self._share:
            self._share -= 1
            self._send(*waiting.popleft())

    def _send(self, interface: str, frame: bytes) -> None:
        try:
            self._socket(interface).send(frame)
            self.sent += 1
        except OSError as error:
            self.errors[errno.errorcode.get(error.errno or 0, str(error))] += 1
            if error.errno in (errno.ENXIO, errno.ENODEV):
                self.forget(interface)

    def _socket(self, interface: str) -> socket.socket:
        found = self._sockets.get(interface)
        if found is not None:
            return found
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        made = socket.socket(socket.AF_PACKET, kind, 0)
        try:
            made.bind((interface, 0))
        except OSError:
            made.close()
            raise
        self._sockets[interface] = made
        return made
