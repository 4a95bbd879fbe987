"""Dumps on a signal: a child is asked for its state, which is written the way keepalived's users expect.

The children only tell; putting it into words and onto the disk is done here, in a thread, so neither a slow
disk nor many instances hold up anybody. What the configuration alone says is put into words beforehand.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

import msgspec
from msgspec import Struct

from kad.config.slices import decode_vrrp
from kad.control.candidate import globals_of
from kad.dumps.files import json_file, replace_file, state_file, statistics_file, temporary_directory
from kad.dumps.global_data import global_text
from kad.dumps.service_data import bfd_text, check_text
from kad.dumps.statistics import statistics_text
from kad.dumps.vrrp_data import DataDump
from kad.dumps.vrrp_json import JsonDump
from kad.ipc.messages import Generation, Role, StatusReport
from kad.ipc.reports import BfdReport, CheckReport, VrrpReport
from kad.runtime import logs
from kad.runtime.clock import monotonic_us, realtime_us
from kad.runtime.process import Options
from kad.runtime.thread import in_thread
from kad.supervisor.signals import SIGJSON, SIGSTATE, SIGSTATS, SIGSTATS_CLEAR

PATIENCE_US = 2_000_000
"""A child that has not answered by then is not waited for."""
PREPARE_AFTER_S = 0.5
"""After a start or reload, everybody else's work comes first."""


class Kind(Enum):
    STATE = auto()
    STATISTICS = auto()
    CLEARED = auto()
    """Statistics, which begin anew then."""
    JSON = auto()


_KINDS = {
    SIGSTATE: Kind.STATE,
    SIGSTATS: Kind.STATISTICS,
    SIGSTATS_CLEAR: Kind.CLEARED,
    SIGJSON: Kind.JSON,
}
_decoders: dict[Role, msgspec.msgpack.Decoder[Any]] = {
    Role.VRRP: msgspec.msgpack.Decoder(VrrpReport),
    Role.CHECK: msgspec.msgpack.Decoder(CheckReport),
    Role.BFD: msgspec.msgpack.Decoder(BfdReport),
}


class Prepared:
    """One configuration in the dumps' words."""

    def __init__(self, generation: Generation | None, options: Options) -> None:
        slices = generation.slices if generation is not None else {}
        self.number = generation.number if generation is not None else 0
        self.settings = globals_of(generation)
        self.head = global_text(self.settings, options.umask_with(self.settings.umask))
        vrrp = decode_vrrp(slices.get(Role.VRRP, {}))
        self.state = DataDump(vrrp)
        self.json = JsonDump(vrrp, self.settings.json_version)


class _Asked(Struct, frozen=True):
    """A child was asked for its state."""

    kind: Kind
    role: Role
    at_us: int
    keep: Callable[[bytes], None] | None = None
    """Takes its report, which is then no dump."""


class Dumps:
    """``ask(role, clear)`` sends a StatusRequest and returns its number; None: that child does not run."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: Options,
        ask: Callable[[Role, bool], int | None],
        generation: Callable[[], Generation | None],
    ) -> None:
        self._loop = loop
        self._options = options
        self._ask = ask
        self._generation = generation
        self._directory = temporary_directory(os.environ)
        self._asked: dict[int, _Asked] = {}
        self._busy: dict[tuple[Kind, Role], int] = {}
        """Since when, by CLOCK_MONOTONIC. One more is made when it is done, however often it is asked for."""
        self._again: set[tuple[Kind, Role]] = set()
        self._owed: dict[tuple[Kind, Role], int] = {}
        """Since when: nobody was there to answer."""
        self._prepared: Prepared | None = None

    def on_signal(self, number: int) -> None:
        kind = _KINDS.get(number)
        if kind is None:
            return
        roles = (Role.VRRP, Role.CHECK, Role.BFD) if kind is Kind.STATE else (Role.VRRP,)
        for role in roles:
            self._begin(kind, role)
        if kind is Kind.STATE:
            self._write_head()

    def keep(self, role: Role, take: Callable[[Callable[[], str]], None]) -> None:
        """``take`` gets what puts the child's state, as it is at this moment, into words: for a thread.

        That raises msgspec.MsgspecError.
        """
        generation = self._generation()
        now_us = monotonic_us()
        self._forget_before(now_us - PATIENCE_US)
        number = self._ask(role, False)
        if number is not None:
            self._asked[number] = _Asked(
                Kind.STATE, role, now_us, lambda body: take(lambda: self._state(role, body, generation))
            )

    def prepare_soon(self) -> None:
        """Another configuration runs."""
        self._loop.call_later(PREPARE_AFTER_S, self._prepare)

    def take(self, report: StatusReport) -> None:
        """A child's report, asked for by whomever."""
        asked = self._asked.pop(report.request, None)
        if asked is None:
            return
        if asked.keep is not None:
            asked.keep(report.body)
            return
        in_thread(
            self._loop,
            "dump",
            lambda: self._write(asked, report.body),
            lambda complaint: self._written(asked, complaint),
        )

    def _prepare(self) -> None:
        in_thread(self._loop, "dump", self._current, lambda _prepared: None)

    def _current(self) -> Prepared:
        """What runs now, in words; made once a generation."""
        return self._words_of(self._generation())

    def _words_of(self, generation: Generation | None) -> Prepared:
        number = generation.number if generation is not None else 0
        prepared = self._prepared
        if prepared is None or prepared.number != number:
            self._prepared = prepared = Prepared(generation, self._options)
        return prepared

    def _begin(self, kind: Kind, role: Role) -> None:
        now_us = monotonic_us()
        key = kind, role
        if now_us - self._busy.get(key, -PATIENCE_US) < PATIENCE_US:
            self._again.add(key)
            return
        self._forget_before(now_us - PATIENCE_US)
        number = self._ask(role, kind is Kind.CLEARED)
        if number is None:
            self._owed[key] = now_us
        else:
            self._busy[key] = now_us
            self._asked[number] = _Asked(kind, role, now_us)

    def _forget_before(self, time_us: int) -> None:
        self._asked = {number: each for number, each in self._asked.items() if each.at_us > time_us}

    def on_child(self, role: Role) -> None:
        """This child can be asked from now on."""
        now_us = monotonic_us()
        for key in [each for each in self._owed if each[1] == role]:
            if now_us - self._owed.pop(key) < PATIENCE_US:
                self._begin(*key)

    def _write_head(self) -> None:
        in_thread(self._loop, "dump", lambda: self._put(Role.CONTROL, self._current(), ""), self._complain)

    # In a thread ---------------------------------------------------------------------------------------

    def _write(self, asked: _Asked, body: bytes) -> str:
        """Why it was not written; empty: it was. Never raises."""
        try:
            report = _decoders[asked.role].decode(body)
        except msgspec.MsgspecError as error:
            return f"the report of {asked.role} does not decode: {error}"
        prepared = self._current()
        ahead_us = realtime_us() - monotonic_us()
        match asked.kind, report:
            case Kind.STATE, VrrpReport():
                return self._put(asked.role, prepared, prepared.state.text(report, ahead_us))
            case Kind.STATE, CheckReport():
                return self._put(asked.role, prepared, check_text(report))
            case Kind.STATE, BfdReport():
                return self._put(asked.role, prepared, bfd_text(report))
            case Kind.JSON, VrrpReport():
                text = prepared.json.text(report, ahead_us)
                # keepalived: nothing where there is no instance.
                return _replace(json_file(prepared.settings, self._directory), text) if text else ""
            case _, VrrpReport():
                text = statistics_text(report.instances)
                return _replace(statistics_file(prepared.settings, self._directory), text)
        return f"no dump of {asked.role} is of this kind"

    def _state(self, role: Role, body: bytes, generation: Generation | None) -> str:
        """Raises msgspec.MsgspecError."""
        prepared = self._words_of(generation)
        report = _decoders[role].decode(body)
        if isinstance(report, VrrpReport):
            return prepared.head + prepared.state.text(report, realtime_us() - monotonic_us())
        return prepared.head + (bfd_text if isinstance(report, BfdReport) else check_text)(report)

    def _put(self, role: Role, prepared: Prepared, text: str) -> str:
        return _replace(state_file(prepared.settings, role, self._directory), prepared.head + text)

    # In the loop again ---------------------------------------------------------------------------------

    def _written(self, asked: _Asked, complaint: str) -> None:
        self._complain(complaint)
        key = asked.kind, asked.role
        self._busy.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self._begin(*key)

    def _complain(self, complaint: str) -> None:
        if complaint:
            logs.warning(f"no dump: {complaint}")


def _replace(path: str, text: str) -> str:
    try:
        replace_file(path, text)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""
