"""The report of the VRRP child, made a few instances a turn: adverts do not wait for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, cast

import msgspec

from kad.ipc.reports import InstanceReport, ProcessReport
from kad_vrrp.core.engine import Engine
from kad_vrrp.core.instance import Instance
from kad_vrrp.core.report import report_of

PIECE = 50
"""Instances told of in one turn: a third of a millisecond."""
QUESTIONS_LIMIT = 16
"""Reports asked for and not begun; control asks for one at a time and gives up on what takes too long."""

_encode = msgspec.msgpack.Encoder().encode


class Reporting:
    """``mend(report)``: with what the engine does not know. ``process()``: how the process is doing."""

    def __init__(
        self,
        engine: Engine,
        mend: Callable[[InstanceReport], InstanceReport],
        process: Callable[[], ProcessReport],
    ) -> None:
        self._engine = engine
        self._mend = mend
        self._process = process
        self._questions: deque[tuple[bool, Callable[[bytes], None]]] = deque(maxlen=QUESTIONS_LIMIT)
        self._roster: list[Instance] = []
        self._told: list[msgspec.Raw] = []

    def ask(self, clear: bool, answer: Callable[[bytes], None]) -> None:
        """``clear``: every instance's counters begin anew as soon as they are told."""
        self._questions.append((clear, answer))

    def next_turn(self) -> bool:
        """A piece more, if anybody asked; True: there is more to do."""
        if not self._questions:
            return False
        if self._roster is not self._engine.roster:
            # A reload came in between: whoever is told of must belong together.
            self._roster = self._engine.roster
            self._told = []
        clear, answer = self._questions[0]
        first = len(self._told)
        for instance in self._roster[first : first + PIECE]:
            self._told.append(msgspec.Raw(_encode(self._mend(report_of(instance)))))
            if clear:
                instance.stats.clear()
        if len(self._told) < len(self._roster):
            return True
        self._questions.popleft()
        answer(self._whole())
        self._told = []
        return bool(self._questions)

    def _whole(self) -> bytes:
        report = self._engine.report(instances=False)
        told = cast(Any, tuple(self._told))
        return _encode(msgspec.structs.replace(report, instances=told, process=self._process()))
