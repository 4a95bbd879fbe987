"""Counts processes: by the kernel's process events where they can be had, else by looking every second.

The events (netlink connector, CONFIG_PROC_EVENTS) are only told in the first network, user and process
namespaces, to those with CAP_NET_ADMIN; asking elsewhere is answered by silence. Whether the kernel answered
is said in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator

from kad.kernel.batch import ReceiveBuffer, set_receive_buffer
from kad.track.process import Cause, Pattern, ProcessesCounted, matches

ANSWER_S = 1.0
"""How long the kernel may take to acknowledge the subscription."""
POLL_S = 1.0
SLICE = 32
"""Processes looked at in one turn of the event loop."""
BATCH = 64
COMMAND_LINE_LIMIT = 64 * 1024
RECEIVE_BUFFER = 1 << 20

_NETLINK_CONNECTOR = 11
_CN_IDX_PROC, _CN_VAL_PROC, _LISTEN = 1, 1, 1
_SUBSCRIBE = struct.Struct("=IHHIIIIIIHHI")
_PAYLOAD_AT = 36
_HEADER = struct.Struct("=IIQ")
_FORK, _EXEC, _COMM, _EXIT, _NONE = 0x1, 0x2, 0x200, 0x80000000, 0x0
_FOUR = struct.Struct("=IIII")
_TWO = struct.Struct("=II")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_setns = _libc.setns


class ProcessWatch:
    """``told`` gets a count for every pattern once everything was looked at, and at every change."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        told: Callable[[ProcessesCounted], None],
        report: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._told = told
        self._report = report
        self._patterns: tuple[Pattern, ...] = ()
        self._matched: dict[int, frozenset[Pattern]] = {}
        """Processes that match anything."""
        self._counts: dict[Pattern, int] = {}
        self._changes: dict[Pattern, Cause] = {}
        """Patterns whose count changed since they were last told, and why."""
        self._seen: set[int] = set()
        self._scan: Iterator[int] | None = None
        self._scan_again = False
        self._socket: socket.socket | None = None
        self._receive_buffer = ReceiveBuffer()
        self._answered = False
        self._timer: asyncio.TimerHandle | None = None
        self._silent: set[Pattern] = set()
        """Never told so far: the first count is due even if it is 0."""

    def set_receive_buffer(self, wanted: ReceiveBuffer) -> None:
        """Of the kernel's process events."""
        self._receive_buffer = wanted
        if self._socket is not None:
            set_receive_buffer(self._socket, wanted, RECEIVE_BUFFER)

    def watch(self, patterns: Iterable[Pattern]) -> None:
        """Exactly these from now on."""
        wanted = tuple(dict.fromkeys(patterns))
        if wanted == self._patterns:
            return
        if not wanted:
            self.close()
            return
        fresh = [pattern for pattern in wanted if pattern not in self._patterns]
        first = not self._patterns
        self._patterns = wanted
        self._silent = {each for each in self._silent if each in wanted} | set(fresh)
        self._counts = {pattern: self._counts.get(pattern, 0) for pattern in wanted}
        self._changes = {pattern: why for pattern, why in self._changes.items() if pattern in wanted}
        kept = frozenset(wanted)
        self._matched = {pid: left for pid, each in self._matched.items() if (left := each & kept)}
        if first:
            self._listen()
        if fresh:
            self._look_at_all()

    def close(self) -> None:
        if self._socket is not None:
            self._stop_listening()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._scan = None
        self._answered = False
        self._patterns = ()
        self._matched.clear()
        self._counts.clear()
        self._changes.clear()
        self._silent.clear()

    # Looking at everything -------------------------------------------------------------------------------

    def _look_at_all(self) -> None:
        """A share a turn: thousands of processes may not hold up an advertisement."""
        if self._scan is not None:
            self._scan_again = True
            return
        self._scan = iter([int(name) for name in os.listdir("/proc") if name.isdigit()])
        self._seen = set()
        self._loop.call_soon(self._look_on)

    def _look_on(self) -> None:
        if self._scan is None:
            return
        for _ in range(SLICE):
            pid = next(self._scan, None)
            if pid is None:
                self._finish_scan()
                return
            self._seen.add(pid)
            self._judge(pid, None)
        self._loop.call_soon(self._look_on)

    def _finish_scan(self) -> None:
        self._scan = None
        for pid in [pid for pid in self._matched if pid not in self._seen]:
            if not os.path.exists(f"/proc/{pid}"):
                self._replace(pid, frozenset(), Cause.TERMINATED)
        self._tell()
        for pattern in list(self._silent):
            self._silent.discard(pattern)
            self._told(ProcessesCounted(pattern, self._counts[pattern]))
        if self._scan_again:
            self._scan_again = False
            self._look_at_all()

    def _judge(self, pid: int, comm: bytes | None, cause: Cause | None = None) -> None:
        """Read what the process is now; ``comm`` where that has been told."""
        before = self._matched.get(pid, frozenset())
        now = self._matching(pid, comm, before)
        if now != before:
            if cause is None:
                cause = Cause.FORKED if len(now) > len(before) else Cause.TERMINATED
                if self._socket is not None:
                    cause = Cause.RENAMED
            self._replace(pid, now, cause)

    def _matching(self, pid: int, comm: bytes | None, before: frozenset[Pattern]) -> frozenset[Pattern]:
        by_name = [pattern for pattern in self._patterns if not pattern.full_command]
        by_command = [pattern for pattern in self._patterns if pattern.full_command]
        found: set[Pattern] = set()
        if by_name:
            name = _name_of(pid) if comm is None else comm
            found.update(pattern for pattern in by_name if matches(pattern, name, b""))
        if comm is not None:
            # A new name says nothing about the command line.
            return frozenset(found | {pattern for pattern in before if pattern.full_command})
        if by_command:
            line = _read(f"/proc/{pid}/cmdline", COMMAND_LINE_LIMIT)
            found.update(pattern for pattern in by_command if matches(pattern, b"", line))
        return frozenset(found)

    def _replace(self, pid: int, now: frozenset[Pattern], cause: Cause) -> None:
        before = self._matched.pop(pid, frozenset())
        if now:
            self._matched[pid] = now
        for pattern in before - now:
            self._counts[pattern] -= 1
            self._changes[pattern] = cause
        for pattern in now - before:
            self._counts[pattern] += 1
            self._changes[pattern] = cause

    def _tell(self) -> None:
        changes, self._changes = self._changes, {}
        for pattern, cause in changes.items():
            if pattern not in self._silent:
                self._told(ProcessesCounted(pattern, self._counts[pattern], cause))

    # The kernel's events ---------------------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            self._socket = _subscribed(self._receive_buffer)
        except OSError as error:
            self._fall_back(error.strerror or str(error))
            return
        self._loop.add_reader(self._socket.fileno(), self._drain)
        self._timer = self._loop.call_later(ANSWER_S, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        if not self._answered:
            self._fall_back("the kernel does not answer here")

    def _fall_back(self, reason: str) -> None:
        if self._socket is not None:
            self._stop_listening()
        if self._timer is not None:
            self._timer.cancel()
        self._report(f"no process events ({reason}): looking at all processes every {POLL_S:g} s")
        self._timer = self._loop.call_later(POLL_S, self._poll)

    def _poll(self) -> None:
        self._timer = self._loop.call_later(POLL_S, self._poll)
        if self._scan is None:
            self._look_at_all()

    def _stop_listening(self) -> None:
        assert self._socket is not None
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = None

    def _drain(self) -> None:
        assert self._socket is not None
        for _ in range(BATCH):
            try:
                data, sender = self._socket.recvfrom(4096)
            except BlockingIOError:
                break
            except OSError:
                # ENOBUFS: events were lost.
                self._look_at_all()
                break
            if sender[0] == 0 and len(data) >= _PAYLOAD_AT + _HEADER.size:
                self._on_event(data)
            if self._socket is None:
                return
        self._tell()

    def _on_event(self, data: bytes) -> None:
        what, _, _ = _HEADER.unpack_from(data, _PAYLOAD_AT)
        body = data[_PAYLOAD_AT + _HEADER.size :]
        if what == _FORK and len(body) >= _FOUR.size:
            _, parent, thread, child = _FOUR.unpack_from(body)
            if thread == child and parent in self._matched:
                self._replace(child, self._matched[parent], Cause.FORKED)
        elif what == _EXIT and len(body) >= _TWO.size:
            thread, process = _TWO.unpack_from(body)
            if thread == process and process in self._matched:
                self._replace(process, frozenset(), Cause.TERMINATED)
        elif what == _EXEC and len(body) >= _TWO.size:
            self._judge(_TWO.unpack_from(body)[1], None, Cause.RENAMED)
        elif what == _COMM and len(body) >= _TWO.size:
            thread, process = _TWO.unpack_from(body)
            if thread == process:
                comm = body[_TWO.size :][:16].partition(b"\0")[0]
                self._judge(process, comm, Cause.RENAMED)
        elif what == _NONE and len(body) >= 4:
            self._on_answer(int.from_bytes(body[:4], "little"))

    def _on_answer(self, error: int) -> None:
        """The kernel has heard us, or a namesake of ours who asked after us."""
        if self._answered:
            return
        if error:
            self._fall_back(os.strerror(error))
            return
        self._answered = True


def _subscribed(buffer: ReceiveBuffer) -> socket.socket:
    """A socket that asked for process events. OSError where that is not possible."""
    with _first_network_namespace():
        made = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            _NETLINK_CONNECTOR,
        )
    try:
        with contextlib.suppress(OSError):
            set_receive_buffer(made, buffer, RECEIVE_BUFFER)
        made.bind((0, _CN_IDX_PROC))
        port = made.getsockname()[0]
        made.send(
            _SUBSCRIBE.pack(_SUBSCRIBE.size, 3, 0, 0, port, _CN_IDX_PROC, _CN_VAL_PROC, 0, 0, 4, 0, _LISTEN)
        )
    except OSError:
        made.close()
        raise
    return made


@contextlib.contextmanager
def _first_network_namespace() -> Iterator[None]:
    """The kernel tells process events in the first network namespace only; what we do with them is the same
    everywhere. Where we may, the socket is made there; elsewhere it is made where we are.
    """
    try:
        there = os.open("/proc/1/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    moved = not os.path.samestat(os.fstat(there), os.fstat(home)) and _setns(there, _CLONE_NEWNET) == 0
    try:
        yield
    finally:
        if moved:
            assert _setns(home, _CLONE_NEWNET) == 0, "the way back home is always open"
        os.close(there)
        os.close(home)


def _name_of(pid: int) -> bytes:
    """The kernel's name of a process; empty when it is gone or only waits to be reaped."""
    stat = _read(f"/proc/{pid}/stat", 512)
    start, end = stat.find(b"(") + 1, stat.rfind(b")")
    return b"" if end < 0 or stat[end + 2 : end + 3] == b"Z" else stat[start:end]


def _read(path: str, limit: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, limit)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
