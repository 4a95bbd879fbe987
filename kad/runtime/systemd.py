"""What the service manager is told (sd_notify), without its library.

Only the supervisor speaks to it. The variables are taken out of the environment, so that no child and no
script can speak in its name.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping


class ServiceManager:
    """The notify socket; every method is a no-op when there is none, and none ever blocks or raises."""

    def __init__(self, address: str = "", watchdog_us: int = 0) -> None:
        self.watchdog_period_us = watchdog_us // 2
        """How often to call :meth:`alive`; 0: not wanted."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address:
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._socket = socket.socket(socket.AF_UNIX, kind)

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> ServiceManager:
        """From NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, which are removed."""
        address = environment.pop("NOTIFY_SOCKET", "")
        watchdog = environment.pop("WATCHDOG_USEC", "")
        watched_pid = environment.pop("WATCHDOG_PID", "")
        ours = watched_pid in ("", str(os.getpid()))
        watchdog_us = int(watchdog) if ours and watchdog.isascii() and watchdog.isdigit() else 0
        return cls(address if address[:1] in ("/", "@") else "", watchdog_us)

    def ready(self, status: str = "") -> None:
        self._say("READY=1", f"STATUS={status}")

    def reloading(self, monotonic_us: int) -> None:
        self._say("RELOADING=1", f"MONOTONIC_USEC={monotonic_us}")

    def stopping(self, limit_us: int) -> None:
        """``limit_us``: how long stopping may take."""
        self._say("STOPPING=1", f"EXTEND_TIMEOUT_USEC={limit_us}")

    def extend(self, limit_us: int) -> None:
        """``limit_us``: how much longer what is going on may take, from now."""
        self._say(f"EXTEND_TIMEOUT_USEC={limit_us}")

    def alive(self) -> None:
        self._say("WATCHDOG=1")

    def status(self, text: str) -> None:
        self._say(f"STATUS={text}")

    def main_pid(self, pid: int) -> None:
        """After daemonising."""
        self._say(f"MAINPID={pid}")

    def _say(self, *lines: str) -> None:
        if self._socket is None:
            return
        # A full or vanished socket is the manager's affair; it will see the next word.
        with contextlib.suppress(OSError):
            self._socket.sendto("\n".join(lines).encode(), self._address)
