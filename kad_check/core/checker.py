"""One checker: what its checks' results mean, and when the next one is due. Pure.

keepalived's rules, with its exceptions by kind of checker. A verdict about the server comes only when
``retry`` further attempts have failed too; the first result of a checker's life needs no confirmation.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from kad.config.model.check import (
    BfdCheck,
    Checker,
    FileCheck,
    HttpGet,
    MiscCheck,
    Schedule,
    SmtpCheck,
    UdpCheck,
    Url,
)
from kad.config.model.script import ScriptCommand
from kad.config.model.track import TrackFile
from kad.units import NEVER

if TYPE_CHECKING:
    from kad_check.core.server import RealServerState

START_DELAY_US = 1_000_000
"""Before the first check of a checker's life; a share of ``warmup`` is added."""
FAULT_WEIGHT = -(1 << 31)
"""A FILE_CHECK whose value times weight is this low is a failure."""
DYNAMIC_LIMIT = 253

_ALWAYS = Schedule()
_encode = msgspec.msgpack.Encoder().encode


class Told(Enum):
    """What a result says about the server."""

    NOTHING = auto()
    UP = auto()
    DOWN = auto()


KINDS = {
    "TcpCheck": "TCP_CHECK",
    "SmtpCheck": "SMTP_CHECK",
    "DnsCheck": "DNS_CHECK",
    "UdpCheck": "UDP_CHECK",
    "PingCheck": "PING_CHECK",
    "MiscCheck": "MISC_CHECK",
    "FileCheck": "FILE_CHECK",
    "BfdCheck": "BFD_CHECK",
}


def kind_of(checker: Checker) -> str:
    """The keyword it was written with."""
    if isinstance(checker, HttpGet):
        return "SSL_GET" if checker.ssl else "HTTP_GET"
    return KINDS[type(checker).__name__]


def parameters_of(checker: Checker) -> Checker:
    """What it does when it runs, not when it runs."""
    return checker if schedule_of(checker) is None else msgspec.structs.replace(checker, schedule=_ALWAYS)


def identity_of(checker: Checker) -> Checker:
    """What makes it the same checker after a reload, as keepalived has it: what is examined, not how closely.

    Whoever is down stays down till the checker in its new form has found otherwise.
    """
    match checker:
        case FileCheck():
            return FileCheck(checker.track_file)
        case BfdCheck():
            return BfdCheck(checker.bfd_instance)
        case MiscCheck():
            return MiscCheck(_ALWAYS, ScriptCommand(checker.script.argv), dynamic=checker.dynamic)
        case HttpGet():
            return HttpGet(_ALWAYS, checker.connection, tuple(map(_request_of, checker.urls)))
        case UdpCheck():
            return UdpCheck(_ALWAYS, checker.connection)
        case _:
            return parameters_of(checker)


def _request_of(url: Url) -> Url:
    """Without what is the TLS session's, or the servers' to say."""
    return msgspec.structs.replace(
        url,
        virtualhost="" if url.virtualhost_is_inherited else url.virtualhost,
        virtualhost_is_inherited=False,
        regex_stack=None,
        tls_compliant=False,
        server_name="",
    )


def digest_of(checker: Checker) -> int:
    """Its identity in 32 bits, for the journal and for spreading starts."""
    return crc32(_encode(identity_of(checker)))


class CheckerState:
    """One checker of one real server. ``number`` is the engine's; news-driven ones have no schedule."""

    __slots__ = (
        "config",
        "detail",
        "digest",
        "due_us",
        "failed_step",
        "failures",
        "has_run",
        "is_up",
        "number",
        "retries",
        "runs",
        "schedule",
        "server",
        "started_us",
        "step",
        "wish",
    )

    def __init__(self, number: int, config: Checker, server: RealServerState) -> None:
        self.number = number
        self.config = config
        self.schedule = schedule_of(config)
        """None: news drive it."""
        self.server = server
        self.digest = digest_of(config)
        alpha = False if isinstance(config, FileCheck) else alpha_of(config)
        self.is_up = not alpha
        self.has_run = isinstance(config, FileCheck)
        """False: no result yet that said anything about the server."""
        # The first failure is believed at once: retrying is for servers that were seen working.
        self.retries = self.schedule.retry if self.schedule is not None else 0
        self.step = 0
        """HTTP: the URL that is next."""
        self.failed_step = -1
        """HTTP: the URL the server is down for; -1: none."""
        self.wish: int | None = None
        """MISC_CHECK with misc_dynamic: the weight asked for. FILE_CHECK: what is added to the weight."""
        self.due_us = NEVER
        """When the next check starts; NEVER while one runs."""
        self.started_us = 0
        self.detail = ""
        """Of the last failure, for people; empty after a success."""
        self.runs = 0
        self.failures = 0

    @property
    def kind(self) -> str:
        return kind_of(self.config)

    @property
    def contribution(self) -> int:
        """What it adds to the weight of its server."""
        if self.wish is None:
            return 0
        if isinstance(self.config, MiscCheck):
            return self.wish - self.server.config.weight
        return self.wish

    # When -----------------------------------------------------------------------------------------------

    def first_due_us(self, now_us: int, spread: float) -> int:
        """Of a new checker; ``spread`` in [0, 1) is its place among the others."""
        schedule = self.schedule
        assert schedule is not None
        return now_us + START_DELAY_US + int(spread * schedule.warmup_us)

    def resumed_due_us(self, now_us: int, spread: float) -> int:
        """Of one that an earlier life of the process ran: its pace goes on, no warm-up."""
        return now_us + int(spread * self.interval_us)

    @property
    def interval_us(self) -> int:
        """From one check to the next, as things are."""
        schedule = self.schedule
        assert schedule is not None
        retrying = self.is_up and self.retries
        return schedule.delay_before_retry_us if retrying else schedule.delay_loop_us

    def overslept(self, now_us: int) -> bool:
        """Whether the next check was planned for an interval that is shorter by now."""
        waiting = self.schedule is not None and self.runs and self.due_us != NEVER
        return bool(waiting) and self.due_us > now_us + self.interval_us

    # Results ---------------------------------------------------------------------------------------------

    def succeed(self, now_us: int) -> Told:
        """The check that ran went well; sets when the next one is due."""
        schedule = self.schedule
        assert schedule is not None
        self.runs += 1
        self.detail = ""
        if isinstance(self.config, HttpGet):
            return self._url_succeeded(self.config, now_us)
        self.retries = 0
        self._plan(now_us, schedule.delay_loop_us)
        return Told.NOTHING if self.is_up and self.has_run else Told.UP

    def fail(self, now_us: int, detail: str) -> Told:
        """The check that ran failed."""
        schedule = self.schedule
        assert schedule is not None
        self.runs += 1
        self.failures += 1
        self.detail = detail
        if isinstance(self.config, HttpGet):
            return self._url_failed(schedule, now_us)
        undecided = self.is_up or not self.has_run
        # An SMTP_CHECK goes on using its retries while the server is down.
        if (undecided or isinstance(self.config, SmtpCheck)) and self.retries < schedule.retry:
            self.retries += 1
            self.has_run = True
            self._plan(now_us, schedule.delay_before_retry_us)
            return Told.NOTHING
        self.retries = 0
        self._plan(now_us, schedule.delay_loop_us)
        if not undecided:
            return Told.NOTHING
        self.wish = None
        return Told.DOWN

    def postpone(self, now_us: int, by_us: int | None = None) -> None:
        """Nothing was learnt: the same again after that, or the usual time."""
        schedule = self.schedule
        assert schedule is not None
        self.due_us = now_us + (schedule.delay_loop_us if by_us is None else by_us)

    def _plan(self, now_us: int, delay_us: int) -> None:
        # keepalived counts a script's period from start to start, every other's from end to start.
        if isinstance(self.config, MiscCheck):
            self.due_us = max(now_us, self.started_us + delay_us)
        else:
            self.due_us = now_us + delay_us

    def _url_succeeded(self, config: HttpGet, now_us: int) -> Told:
        """One URL a period; the server is up when all went well in turn."""
        told = Told.NOTHING
        complete = self.step + 1 >= len(config.urls)
        self.retries = 0
        if self.failed_step >= 0:
            # The URL it was down for works: all of them once more.
            self.failed_step = -1
            self.step = 0
        elif complete:
            self.step = 0
            if not self.is_up or not self.has_run:
                told = Told.UP
        else:
            self.step += 1
        unfinished = not self.has_run and told is Told.NOTHING
        if unfinished:
            self.retries = config.schedule.retry
        recovering = unfinished or (not self.is_up and told is Told.NOTHING)
        hurried = config.fast_recovery and recovering
        self.due_us = now_us + (0 if hurried else config.schedule.delay_loop_us)
        return told

    def _url_failed(self, schedule: Schedule, now_us: int) -> Told:
        """The same URL again, and again while the server is down for it.

        With fast_recovery keepalived would repeat at once, without end, a URL that fails while another one
        has just recovered; a failure is always followed by a pause here.
        """
        told = Told.NOTHING
        if self.is_up or not self.has_run:
            self.has_run = True
            self.retries += 1
            if self.retries > schedule.retry:
                self.failed_step = self.step
                told = Told.DOWN
        delay_us = schedule.delay_before_retry_us
        if self.failed_step >= 0:
            delay_us = max(delay_us, schedule.delay_loop_us)
        self.due_us = now_us + delay_us
        return told

    # Carrying over ---------------------------------------------------------------------------------------

    def take_over(self, config: Checker) -> None:
        """The same checker in a new configuration: what it knows stays."""
        self.config = config
        self.schedule = schedule_of(config)
        if self.schedule is not None:
            self.retries = min(self.retries, self.schedule.retry)
        if isinstance(config, HttpGet):
            self.step = min(self.step, len(config.urls) - 1)


def schedule_of(config: Checker) -> Schedule | None:
    """When it runs; None: it is driven by news."""
    return None if isinstance(config, FileCheck | BfdCheck) else config.schedule


def alpha_of(config: Checker) -> bool:
    """Whether the server is down until this checker has succeeded."""
    if isinstance(config, FileCheck):
        return False
    return config.alpha if isinstance(config, BfdCheck) else config.schedule.alpha


def file_verdict(config: FileCheck, file: TrackFile | None, value: int) -> tuple[bool, int]:
    """(up, what is added to the weight) for the number that a followed file holds."""
    weight, reverse = config.weight, config.reverse
    if weight is None:
        weight, reverse = (1, False) if file is None else (file.weight, file.reverse)
    if weight == 0:
        return (value != 0) == reverse, 0
    added = value * (-weight if reverse else weight)
    return (True, added) if added > FAULT_WEIGHT else (False, 0)
