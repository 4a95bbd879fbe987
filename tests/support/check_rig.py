"""Runs single checks over real sockets, as the check child does, without the engine around it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from kad.config.model.check import Checker, Connection, HttpGet, Schedule, SslContext, Url
from kad_check.core.events import CheckDone, Verdict
from kad_check.io.checks import Checks
from kad_check.io.connect import Connections
from kad_check.io.scripts import ScriptChecks
from tests.support.reactor import LoopReactor

ONCE = Schedule()


class MemoryJournal:
    """What survives a life, in memory."""

    def __init__(self, records: Mapping[str, bytes] = {}) -> None:
        self.records = dict(records)

    def write(self, key: str, value: bytes) -> bool:
        self.records[key] = value
        return True

    def delete(self, key: str) -> None:
        self.records.pop(key, None)


class CheckRig:
    """:meth:`run` makes one check and waits for its answer."""

    def __init__(self, ssl: SslContext | None = None, journal: MemoryJournal | None = None) -> None:
        self.reactor = LoopReactor()
        self.journal = journal or MemoryJournal()
        self.answers: list[tuple[CheckDone, float]] = []
        self.reports: list[str] = []
        self.connections = Connections(self.reactor, self._ended)
        self.scripts = ScriptChecks(
            self.reactor.loop, self._done, self.reports.append, {"PATH": "/bin:/usr/bin"}, self.journal
        )
        self.checks = Checks(
            self.reactor.loop, self.connections, self.scripts, self._done, self.reports.append
        )
        self.checks.configure(ssl)
        self.number = 0

    def __enter__(self) -> CheckRig:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.checks.close()
        self.connections.close()
        self.scripts.close()
        self.reactor.close()

    def add(self, checker: Checker) -> int:
        self.number += 1
        self.checks.add(self.number, checker)
        return self.number

    def run(self, checker: Checker, *, step: int = 0, seconds: float = 20) -> CheckDone:
        """The answer; :attr:`took` says how long it was in coming."""
        number = self.add(checker)
        self.answers.clear()
        self.started = time.monotonic()
        self.checks.start(number, step)
        self.reactor.until(lambda: self.answers, seconds)
        ((answer, at),) = self.answers
        self.took = at - self.started
        assert answer.number == number
        return answer

    def _ended(self, number: int, verdict: Verdict, detail: str) -> None:
        self._done(CheckDone(number, verdict, detail))

    def _done(self, answer: CheckDone) -> None:
        self.answers.append((answer, time.monotonic()))


def connection(port: int, *, timeout: float = 2.0, address: str = "127.0.0.1", **more: Any) -> Connection:
    return Connection(address, port, timeout_us=int(timeout * 1e6), **more)


def http(port: int, *, ssl: bool = False, timeout: float = 2.0, protocol: Any = "1.0", **url: Any) -> HttpGet:
    """One URL, ``/`` unless ``path`` is given; further words are the URL's."""
    one = replace(Url("/"), **url)
    return HttpGet(ONCE, connection(port, timeout=timeout), (one,), ssl=ssl, protocol=protocol)
