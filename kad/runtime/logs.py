"""The one way to log, in every process.

Every child's log is open when its main function is called: a line goes into a bounded queue and one writer
thread carries it to /dev/log, the console and the log file. The supervisor has no threads: it opens the log
with ``direct=True`` and writes at once. Either way the caller never waits, but for the supervisor on the
disk of a log file (-g); what cannot be kept is counted, and said as soon as there is room again.

Identifiers, facilities and the insertion into log file names are keepalived's, because people select by them.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
from datetime import datetime
from enum import IntEnum
from queue import SimpleQueue

from kad.ipc.messages import Role
from kad.runtime.clock import monotonic_us, realtime_us
from kad.runtime.process import Options

QUEUE_LIMIT = 2_000
"""Lines waiting for the writer."""
HELD_LIMIT = 64
"""Lines that are held back from it, at most."""
LINE_LIMIT = 2_000
"""Bytes of one line; longer ones are cut. A pipe that can take 4096 takes it whole."""
DEVICE = "/dev/log"
RECONNECT_US = 1_000_000
SEND_PATIENCE_MS = 200
"""How long the writer thread waits for a full /dev/log or console before it drops a line."""
CLOSE_PATIENCE_S = 0.2

FACILITIES: dict[str, int] = {
    "user": 1,
    "daemon": 3,
    **{f"local{number}": 16 + number for number in range(8)},
}
"""What -S may say, beside the digits 0-7 for local0-7."""

IDENTS: dict[Role | None, str] = {
    None: "Keepalived",
    Role.CONTROL: "Keepalived",
    Role.VRRP: "Keepalived_vrrp",
    Role.CHECK: "Keepalived_healthcheckers",
    Role.BFD: "Keepalived_bfd",
}
_FILE_WORDS: dict[Role | None, str] = {
    None: "",
    Role.CONTROL: "",
    Role.VRRP: "vrrp",
    Role.CHECK: "healthcheckers",
    Role.BFD: "bfd",
}


class Severity(IntEnum):
    """syslog's numbers."""

    ERROR = 3
    WARNING = 4
    INFO = 6


def ident(role: Role | None, options: Options) -> str:
    """keepalived's syslog identifier; None is the daemon itself."""
    parts = [IDENTS[role], options.net_namespace, options.instance]
    return "_".join(part for part in parts if part)


def facility(word: str) -> int:
    """The number of a facility as -S gives it; daemon when it is none."""
    return FACILITIES.get(f"local{word}" if word.isdigit() else word, FACILITIES["daemon"])


def file_name(path: str, role: Role | None, options: Options) -> str:
    """The log file of a role: vrrp and so on, net_namespace and instance stand before the extension."""
    stem, extension = os.path.splitext(path)
    words = [_FILE_WORDS[role], options.net_namespace, options.instance]
    return "_".join([stem, *(word for word in words if word)]) + extension


class _Line:
    __slots__ = ("severity", "text", "time_us")

    def __init__(self, severity: Severity, text: str) -> None:
        self.severity = severity
        self.text = text
        self.time_us = realtime_us()


class Sinks:
    """Where lines go. ``patience_ms`` 0: nothing here may wait but the log file's disk."""

    def __init__(self, name: str, options: Options, role: Role | None, patience_ms: int) -> None:
        self._name = f"{name}[{os.getpid()}]"
        self._facility = facility(options.log_facility)
        self._patience_ms = patience_ms
        self._syslog = options.log_syslog
        self._socket: socket.socket | None = None
        self._retry_at_us = 0
        self._console = 2 if options.log_console else -1
        self._file = -1
        self.lost = 0
        """Lines some sink did not take, not yet said."""
        self.complaint = ""
        """Why there is no log file although there should be one."""
        if options.log_file:
            path = file_name(options.log_file, role, options)
            try:
                self._file = _open_file(path)
            except OSError as error:
                self.complaint = f"the log file {path} cannot be opened: {error.strerror}"

    def write(self, line: _Line) -> None:
        """To every sink that takes it."""
        text = _printable(line.text)
        when = datetime.fromtimestamp(line.time_us / 1_000_000)
        taken = True
        if self._syslog:
            stamp = f"{_MONTHS[when.month - 1]} {when.day:2d} {when:%H:%M:%S}"
            priority = self._facility * 8 + line.severity
            taken = self._send(_encode(f"<{priority}>{stamp} {self._name}: {text}"))
        if self._console >= 0 or self._file >= 0:
            # Many a container has no syslogd: what is written elsewhere is not lost for that.
            taken = taken or self._socket is None
            packed = _encode(f"{when:%Y-%m-%d %H:%M:%S.%f} {self._name}: {text}") + b"\n"
            taken &= self._console < 0 or self._write_console(packed)
            taken &= self._file < 0 or _write_whole(self._file, packed)
        self.lost += not taken

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._file >= 0:
            os.close(self._file)

    def _send(self, packed: bytes) -> bool:
        """One datagram to /dev/log; connects again, at most once a second, where it vanished."""
        for _ in range(2):
            if self._socket is None and not self._connect():
                return False
            assert self._socket is not None
            try:
                self._socket.send(packed)
                return True
            except BlockingIOError:
                # A slow syslogd. The thread may wait a little; the line after this may be luckier.
                if not self._patience_ms or not _writable(self._socket.fileno(), self._patience_ms):
                    return False
            except OSError:
                self._socket.close()
                self._socket = None
        return False

    def _connect(self) -> bool:
        now_us = monotonic_us()
        if now_us < self._retry_at_us:
            return False
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        device: socket.socket | None = None
        try:
            device = socket.socket(socket.AF_UNIX, kind)
            device.connect(DEVICE)
        except OSError:
            self._retry_at_us = now_us + RECONNECT_US
            if device is not None:
                device.close()
            return False
        self._socket = device
        return True

    def _write_console(self, packed: bytes) -> bool:
        # stderr's open file may be shared with others, so it stays blocking; but a pipe that polls writable
        # has room for 4096 bytes.
        return _writable(self._console, self._patience_ms) and _write_whole(self._console, packed)


class Log:
    """A process's log. Use the module's functions; a second one is for tests."""

    def __init__(self, sinks: Sinks, *, detail: bool, direct: bool) -> None:
        self.detail = detail
        self._sinks = sinks
        self._direct = direct
        self._dropped = 0
        self._queue: SimpleQueue[_Line | None] = SimpleQueue()
        self._held: list[_Line] | None = None
        self._thread: threading.Thread | None = None
        if not direct:
            self._thread = threading.Thread(target=self._carry, name="log", daemon=True)
            self._thread.start()

    def put(self, severity: Severity, text: str) -> None:
        """Never waits, never raises."""
        line = _Line(severity, text)
        if self._held is not None and len(self._held) < HELD_LIMIT:
            self._held.append(line)
        else:
            self.release()
            self._pass_on(line)

    def hold(self) -> None:
        """Do not write, nor wake the writer for, what comes from now on."""
        if self._held is None:
            self._held = []

    def release(self) -> None:
        """Write what was held."""
        held, self._held = self._held, None
        for line in held or ():
            self._pass_on(line)

    def _pass_on(self, line: _Line) -> None:
        if self._direct:
            self._write(line)
        elif self._queue.qsize() >= QUEUE_LIMIT:
            self._dropped += 1
        else:
            self._queue.put(line)

    def close(self, patience_s: float = CLOSE_PATIENCE_S) -> None:
        """Let the writer finish, for a bounded time."""
        self.release()
        if self._thread is None:
            self._sinks.close()
            return
        self._queue.put(None)
        self._thread.join(patience_s)

    def _carry(self) -> None:
        while (line := self._queue.get()) is not None:
            self._write(line)
        self._sinks.close()

    def _write(self, line: _Line) -> None:
        lost = self._dropped + self._sinks.lost
        if lost:
            self._dropped = self._sinks.lost = 0
            self._sinks.write(_Line(Severity.WARNING, f"{lost} log lines were lost"))
            # It went the way of the others: count those again, and not itself.
            self._sinks.lost = lost if self._sinks.lost else 0
        self._sinks.write(line)


_log: Log | None = None


def open(role: Role | None, options: Options, *, direct: bool = False) -> None:
    """Begin to log, in this process. ``direct``: no thread (the supervisor)."""
    global _log
    close()
    sinks = Sinks(ident(role, options), options, role, 0 if direct else SEND_PATIENCE_MS)
    _log = Log(sinks, detail=options.log_detail > 0, direct=direct)
    if sinks.complaint:
        warning(sinks.complaint)


def error(text: str) -> None:
    _put(Severity.ERROR, text)


def warning(text: str) -> None:
    _put(Severity.WARNING, text)


def info(text: str) -> None:
    _put(Severity.INFO, text)


def debug(text: str) -> None:
    """Only with -D. Like keepalived's detailed messages it has the ordinary priority."""
    if _log is None or _log.detail:
        _put(Severity.INFO, text)


def hold() -> None:
    """Until :func:`release` lines only get their time: a writer at work competes with what is urgent."""
    if _log is not None:
        _log.hold()


def release() -> None:
    """Write what was held, and what comes."""
    if _log is not None:
        _log.release()


def close(patience_s: float = CLOSE_PATIENCE_S) -> None:
    """Write what waits, within ``patience_s``; to be called before os._exit."""
    global _log
    if _log is not None:
        _log.close(patience_s)
    _log = None


def _put(severity: Severity, text: str) -> None:
    if _log is not None:
        _log.put(severity, text)
    elif sys.__stderr__ is not None:
        # Before the log is open there is only the terminal of whoever starts us.
        with contextlib.suppress(OSError, ValueError):
            print(text, file=sys.__stderr__, flush=True)


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""Not strftime's: those follow the locale."""
_CONTROL_CHARACTERS = {code: f"\\x{code:02x}" for code in (*range(32), 127)}


def _printable(text: str) -> str:
    """One line whatever it holds: what came from outside must not forge lines."""
    return text.translate(_CONTROL_CHARACTERS)


def _encode(line: str) -> bytes:
    """File names and words of a configuration may hold bytes that are no text (surrogates, in Python)."""
    return line.encode(errors="backslashreplace")[:LINE_LIMIT]


def _open_file(path: str) -> int:
    """Raises OSError."""
    # NONBLOCK: a FIFO without a reader must not be waited for.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.open(path, flags, 0o644)


def _write_whole(descriptor: int, packed: bytes) -> bool:
    """False on a full disk or a closed pipe."""
    try:
        return os.write(descriptor, packed) == len(packed)
    except OSError:
        return False


def _writable(descriptor: int, patience_ms: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(events & select.POLLOUT for _, events in poll.poll(patience_ms))
