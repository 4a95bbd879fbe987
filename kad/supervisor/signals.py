"""Signals as something to read: blocked everywhere, queued by the kernel, read from one descriptor."""

from __future__ import annotations

import ctypes
import os
import signal
import struct

# keepalived's numbers where the C library has its usual real-time range.
SIGSTATE = signal.SIGUSR1
SIGSTATS = signal.SIGUSR2
SIGJSON = signal.SIGRTMIN + 2
SIGSTATS_CLEAR = signal.SIGRTMAX - 1

FORWARDED = (SIGSTATE, SIGSTATS, SIGJSON, SIGSTATS_CLEAR)
"""For a child's dump or statistics: passed to control."""
SPARE = tuple(
    number
    for number in (
        signal.SIGALRM,
        signal.SIGVTALRM,
        signal.SIGPROF,
        signal.SIGIO,
        signal.SIGPWR,
        signal.SIGSTKFLT,
        *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
    )
    if number not in FORWARDED
)
"""Mean nothing to kad, and shall not end it, as they would by themselves."""
HANDLED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGXCPU,
    *FORWARDED,
)

_SFD_NONBLOCK = os.O_NONBLOCK
_SFD_CLOEXEC = os.O_CLOEXEC
_SIGSET_BYTES = 128
_RECORD_BYTES = 128
_RECORD = struct.Struct("=IiiI")
_RECORDS_A_READ = 32


class SignalInfo:
    """One signal that came, and who sent it (0: the kernel)."""

    __slots__ = ("number", "sender_pid")

    def __init__(self, number: int, sender_pid: int) -> None:
        self.number = number
        self.sender_pid = sender_pid


def block() -> None:
    """Block every signal the daemon handles: to be called before anything else is imported or done.

    They wait in the kernel until :class:`SignalQueue` reads them. What means nothing is ignored, by the
    children too: they are born with that.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    for number in HANDLED:
        # One that whoever started us ignores would never be queued.
        signal.signal(number, signal.SIG_DFL)
    for number in SPARE:
        signal.signal(number, signal.SIG_IGN)


class SignalQueue:
    """A signalfd over :data:`HANDLED`, which must be blocked."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        mask = sum(1 << (number - 1) for number in HANDLED).to_bytes(_SIGSET_BYTES, "little")
        self.descriptor: int = libc.signalfd(-1, mask, _SFD_NONBLOCK | _SFD_CLOEXEC)
        if self.descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def read(self) -> list[SignalInfo]:
        """What has come, at most 32 at a time; the descriptor stays readable while there is more."""
        try:
            data = os.read(self.descriptor, _RECORD_BYTES * _RECORDS_A_READ)
        except BlockingIOError:
            return []
        found = []
        for at in range(0, len(data), _RECORD_BYTES):
            number, _, _, sender_pid = _RECORD.unpack_from(data, at)
            found.append(SignalInfo(number, sender_pid))
        return found
