"""Every checker that runs checks: made ready once, started when the engine says so."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Callable

from kad.config.model.check import (
    BfdCheck,
    Checker,
    DnsCheck,
    FileCheck,
    HttpGet,
    MiscCheck,
    PingCheck,
    SmtpCheck,
    SslContext,
    TcpCheck,
    UdpCheck,
)
from kad_check.core.dialogues.dialogue import Dialogue
from kad_check.core.dialogues.dns import DnsDialogue
from kad_check.core.dialogues.http import HttpDialogue, HttpRequest
from kad_check.core.dialogues.ping import PingDialogue
from kad_check.core.dialogues.smtp import SmtpDialogue
from kad_check.core.dialogues.udp import UdpDialogue
from kad_check.core.events import CheckDone, Verdict
from kad_check.io.connect import Connections
from kad_check.io.icmp import allow_ping
from kad_check.io.scripts import ScriptChecks
from kad_check.io.ssl_block import SslBlock
from kad_check.io.target import Target

_Ready = Target | MiscCheck | str | None
"""A string: why it cannot be run. None: it waits for the files of the SSL block."""


class Checks:
    """``done`` gets the answer to every :meth:`start`, once; none after :meth:`remove`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connections: Connections,
        scripts: ScriptChecks,
        done: Callable[[CheckDone], None],
        warn: Callable[[str], None],
    ) -> None:
        self._connections = connections
        self._scripts = scripts
        self._done = done
        self._checkers: dict[int, Checker] = {}
        self._ready: dict[int, _Ready] = {}
        self._ssl = SslBlock(loop, self._ssl_turned, warn)
        self._waiting: dict[int, int] = {}
        """Step of each check that waits for the files of the SSL block."""
        self._sequence = itertools.count()
        self._ping_problem: str | None = None

    def configure(self, settings: SslContext | None) -> None:
        """The SSL block of the generation that comes. Its files are read anew each time."""
        self._ssl.configure(settings)
        self._renew()

    def close(self) -> None:
        self._ssl.close()

    def _renew(self) -> None:
        """All that speak TLS do so with the context of now. Other files may have the same names."""
        context = self._ssl.context
        for number, checker in self._checkers.items():
            if not _speaks_tls(checker):
                continue
            ready = self._ready[number]
            if context is not None and type(ready) is Target:
                ready.context = context
            else:
                self._ready[number] = self._prepare(checker)

    def _ssl_turned(self) -> None:
        self._renew()
        for number in list(self._waiting):
            step = self._waiting.pop(number, None)
            if step is not None:
                self.start(number, step)

    def add(self, number: int, checker: Checker) -> None:
        self._checkers[number] = checker
        self._ready[number] = self._prepare(checker)

    def change(self, number: int, checker: Checker) -> None:
        """Of this form from the next start on. It is a script as before, or a connection as before."""
        self.add(number, checker)

    def remove(self, number: int) -> None:
        del self._checkers[number]
        ready = self._ready.pop(number)
        self._waiting.pop(number, None)
        if isinstance(ready, MiscCheck):
            self._scripts.stop(number)
        else:
            self._connections.stop(number)

    def start(self, number: int, step: int) -> None:
        ready = self._ready[number]
        if type(ready) is Target:
            self._connections.start(number, step, ready)
        elif isinstance(ready, MiscCheck):
            self._scripts.start(number, ready)
        elif isinstance(ready, str):
            self._done(CheckDone(number, Verdict.NOT_RUN, ready))
        else:
            self._waiting[number] = step

    def _prepare(self, checker: Checker) -> _Ready:
        if _speaks_tls(checker):
            self._ssl.want()
            if self._ssl.context is None:
                return self._ssl.problem or None
        try:
            return self._target(checker)
        except (OSError, ValueError) as error:
            return str(error)

    def _target(self, checker: Checker) -> _Ready:
        match checker:
            case TcpCheck():
                return Target(checker.connection, socket.SOCK_STREAM, None)
            case HttpGet():
                return self._http_target(checker)
            case SmtpCheck():
                name = checker.helo_name
                return Target(checker.connection, socket.SOCK_STREAM, lambda _: SmtpDialogue(name))
            case DnsCheck():
                return Target(checker.connection, socket.SOCK_DGRAM, _dns_dialogues(checker))
            case UdpCheck():
                return Target(checker.connection, socket.SOCK_DGRAM, lambda _: UdpDialogue(checker))
            case PingCheck():
                return self._ping_target(checker)
            case MiscCheck():
                return checker
            case FileCheck() | BfdCheck():
                raise AssertionError("driven by news")

    def _http_target(self, checker: HttpGet) -> Target:
        requests = [HttpRequest(checker, url, self._connections.search) for url in checker.urls]

        def make(step: int) -> Dialogue:
            return HttpDialogue(requests[step])

        if not checker.ssl:
            return Target(checker.connection, socket.SOCK_STREAM, make, speaks_first=True)
        return Target(
            checker.connection,
            socket.SOCK_STREAM,
            make,
            context=self._ssl.context,
            server_names=tuple(url.server_name for url in checker.urls),
            closes_politely=tuple(url.tls_compliant for url in checker.urls),
            speaks_first=True,
        )

    def _ping_target(self, checker: PingCheck) -> Target:
        if self._ping_problem is None:
            self._ping_problem = allow_ping()
        family = checker.connection.family
        return Target(
            checker.connection,
            socket.SOCK_DGRAM,
            lambda _: PingDialogue(family, next(self._sequence) & 0xFFFF),
            protocol=socket.IPPROTO_ICMPV6 if family == 6 else socket.IPPROTO_ICMP,
        )


def _speaks_tls(checker: Checker) -> bool:
    return isinstance(checker, HttpGet) and checker.ssl


def _dns_dialogues(checker: DnsCheck) -> Callable[[int], Dialogue]:
    def make(_step: int) -> Dialogue:
        return DnsDialogue(checker.name, checker.query_type, int.from_bytes(os.urandom(2), "big"))

    make(0)  # a name that cannot be asked for is known now
    return make
