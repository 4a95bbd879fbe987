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
    """One packet socket for all interfaces. It receives nothing (protocol 0).

    ``packet_fd`` is one that outlives this process: the last close of a packet socket takes about 10 ms. -1:
    there is none, and one is opened with the first frame.
    """

    def __init__(self, packet_fd: int = -1) -> None:
        self._socket = socket.socket(fileno=packet_fd) if packet_fd >= 0 else None
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

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _send_some(self) -> None:
        waiting = self._waiting
        while waiting and self._share:
            self._share -= 1
            self._send(*waiting.popleft())

    def _send(self, interface: str, frame: bytes) -> None:
        try:
            if self._socket is None:
                kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                self._socket = socket.socket(socket.AF_PACKET, kind, 0)
            self._socket.sendto(frame, (interface, 0))
            self.sent += 1
        except OSError as error:
            self.errors[errno.errorcode.get(error.errno or 0, str(error))] += 1
