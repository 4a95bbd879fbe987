"""Sends alerts, in control and there in a thread: a mail server that hangs delays nobody's adverts or checks.

The moment of a failover is the one at which the way to the mail server is likely to be gone, so what could
not be sent is tried again for a while (keepalived tries once). The queue is bounded in size and time.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
from collections import deque
from collections.abc import Callable
from email import utils

from msgspec import Struct

from kad.config.model.globals import Mail
from kad.control.letters import written
from kad.control.smtp import Outcome, deliver
from kad.ipc.messages import Alert
from kad.runtime import logs
from kad.runtime.clock import monotonic_us, realtime_us
from kad.runtime.thread import in_thread

WAITING_LIMIT = 1_000
"""Alerts that wait; beyond it the oldest are given up."""
SESSION_LIMIT = 100
"""Alerts in one session."""
PATIENCE_US = 300_000_000
"""How long an alert is worth trying."""
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""After a session that failed; the last one is repeated."""
FINISH_LIMIT_S = 0.7
"""How long the daemon's stop waits for what is still to be sent; keepalived's last mails have a second."""


class Waiting(Struct):
    """An alert on its way. ``until_us``: CLOCK_MONOTONIC, after which it is not tried again."""

    alert: Alert
    date: str
    until_us: int


class Mailer:
    """See the module."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: deque[Waiting] = deque()
        self._out: list[Waiting] = []
        """In the session that goes on."""
        self._pause: asyncio.TimerHandle | None = None
        self._host = ""
        self._finished: Callable[[], None] | None = None
        self.failures = 0
        """Sessions in a row that failed."""
        self.sent = 0
        self.lost = 0

    @property
    def waiting(self) -> int:
        return len(self._queue) + len(self._out)

    def submit(self, alert: Alert) -> None:
        """Send this, now or as soon as it can be done."""
        if alert.mail.server is None:
            # Written just when a reload took the server away.
            self._give_up(alert, "no mail server is configured")
            return
        if len(self._queue) == WAITING_LIMIT:
            self._give_up(self._queue.popleft().alert, f"{WAITING_LIMIT} others wait already")
        date = utils.formatdate(realtime_us() / 1_000_000, localtime=True)
        self._queue.append(Waiting(alert, date, monotonic_us() + PATIENCE_US))
        self._begin()

    def finish(self, done: Callable[[], None]) -> None:
        """Call ``done`` once nothing waits any more, or after :data:`FINISH_LIMIT_S`."""
        if self.waiting:
            self._finished = done
            self._loop.call_later(FINISH_LIMIT_S, done)
        else:
            done()

    def _begin(self) -> None:
        """Open a session, unless one goes on or a pause has not ended."""
        if self._out or self._pause is not None or not self._queue:
            return
        self._out = [self._queue.popleft() for _ in range(min(SESSION_LIMIT, len(self._queue)))]
        mail = self._out[-1].alert.mail  # a reload may have named another server meanwhile
        alerts = tuple(self._out)
        in_thread(self._loop, "mail", lambda: self._session(mail, alerts), self._end)

    def _session(self, mail: Mail, items: tuple[Waiting, ...]) -> Outcome:
        """In the thread."""
        host = self._host = self._host or _host_name()
        sender = mail.sender or f"{_user()}@{host}"
        messages = [
            (item.alert.mail, written(item.alert, sender=sender, host=host, date=item.date)) for item in items
        ]
        return deliver(mail, host, sender, messages)

    def _end(self, outcome: Outcome) -> None:
        server = self._out[-1].alert.mail.server
        name = f"mail server {server.host}" if server is not None else "no mail server"
        self._queue.extendleft(reversed(self._out[outcome.done :]))
        self._out = []
        self.sent += outcome.sent
        self.lost += outcome.done - outcome.sent
        for complaint in outcome.complaints:
            logs.error(f"{name} refuses: {complaint}")
        if outcome.failure:
            self._fail(name, outcome.failure)
            return
        self.failures = 0
        self._begin()
        self._tell_finished()

    def _fail(self, name: str, reason: str) -> None:
        now_us = monotonic_us()
        while self._queue and (self._queue[0].until_us <= now_us or len(self._queue) > WAITING_LIMIT):
            self._give_up(self._queue.popleft().alert, f"{name}: {reason}")
        if not self.failures:
            logs.warning(f"{name}: {reason}; {len(self._queue)} alerts wait")
        pause_s = PAUSES_S[min(self.failures, len(PAUSES_S) - 1)]
        self.failures += 1
        self._pause = self._loop.call_later(pause_s, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._begin()

    def _tell_finished(self) -> None:
        if self._finished is not None and not self.waiting:
            self._finished()

    def _give_up(self, alert: Alert, reason: str) -> None:
        self.lost += 1
        logs.error(f"not mailed: {alert.letter.subject}: {reason}")


def _host_name() -> str:
    """The whole name of this host where it is known, as keepalived's."""
    name = socket.gethostname()
    try:
        return socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME)[0][3] or name
    except (OSError, UnicodeError):
        return name


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
