"""One real server: up when no checker of its says otherwise; how much it weighs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad.config.model.check import WEIGHT_LIMIT, FileCheck, RealServer
from kad.config.model.script import ScriptCommand
from kad_check.core.actions import Forget, Health, Remember
from kad_check.core.checker import CheckerState
from kad_check.core.ipvs_state import Destination
from kad_check.core.notices import Notices
from kad_check.core.record import RECORD_VERSION, CheckerRecord, ServerRecord, encode, server_key
from kad_check.core.texts import server_name

if TYPE_CHECKING:
    from kad_check.core.pool import Pool

Key = tuple[str, int]
"""Address and port: what identifies a real server within its virtual server."""


class RealServerState:
    """``placed`` is what was last asked of the kernel; None: that it is not there."""

    __slots__ = (
        "alive",
        "checkers",
        "config",
        "name",
        "notices",
        "placed",
        "pool",
        "record_key",
        "recorded",
        "refused",
        "since_us",
        "weight",
    )

    def __init__(self, pool: Pool, config: RealServer) -> None:
        self.pool = pool
        self.config = config
        self.name = server_name(config, pool.config)
        self.record_key = server_key(pool.name, f"{config.address}|{config.port}")
        self.recorded = False
        """Whether the journal has a record."""
        self.checkers: list[CheckerState] = []
        self.alive = False
        self.since_us = 0
        self.weight = config.weight
        """What it weighs while it is up; what scripts and files say is in it."""
        self.placed: Destination | None = None
        self.refused = ""
        """Why the kernel did not take what was last asked; empty: it did."""
        self.notices = Notices()

    @property
    def key(self) -> Key:
        return self.config.address, self.config.port

    @property
    def health(self) -> Health:
        return Health.UP if self.alive else Health.DOWN

    @property
    def script(self) -> ScriptCommand | None:
        """What is run for the state it is in."""
        return self.config.notify_up if self.alive else self.config.notify_down

    def start_notices(self) -> None:
        config = self.config
        self.notices.start(self.pool.context, self.record_key, config.notify_up, config.notify_down)

    @property
    def is_failing(self) -> bool:
        """Whether some checker holds it to be down."""
        return any(not checker.is_up for checker in self.checkers)

    def weigh(self) -> int:
        """Its weight anew."""
        wished = self.config.weight + sum(checker.contribution for checker in self.checkers)
        self.weight = min(max(wished, 0), WEIGHT_LIMIT)
        return self.weight

    def destination(self, weight: int) -> Destination:
        config = self.config
        return Destination(
            config.address,
            config.port,
            weight,
            config.forwarding,
            config.upper_threshold,
            config.lower_threshold,
        )

    # The journal -----------------------------------------------------------------------------------------

    @property
    def is_usual(self) -> bool:
        """What a restart assumes of a server without a record."""
        return (
            self.alive
            and not self.notices.owed
            and not any(c.wish is not None or (c.has_run and c.retries) for c in self._recorded)
        )

    @property
    def _recorded(self) -> list[CheckerState]:
        """Files are looked at again at start; of all else the last result is all there is."""
        return [checker for checker in self.checkers if not isinstance(checker.config, FileCheck)]

    def remember(self) -> None:
        """Write down what a restart could not assume."""
        context = self.pool.context
        if self.is_usual:
            if self.recorded:
                self.recorded = False
                context.emit(Forget(self.record_key))
            return
        self.recorded = True
        record = ServerRecord(
            RECORD_VERSION,
            self.alive,
            self.since_us,
            tuple(
                CheckerRecord(c.digest, c.is_up, c.has_run, c.retries, c.wish, c.step, c.failed_step)
                for c in self._recorded
            ),
            self.notices.recorded(),
        )
        context.emit(Remember(self.record_key, encode(record)))

    def forget(self) -> None:
        if self.recorded:
            self.recorded = False
            self.pool.context.emit(Forget(self.record_key))

    def restore(self, record: ServerRecord) -> list[CheckerState]:
        """Go on where a former life stopped. Checkers are recognised by what they examine; those that are
        not are the answer: a reload brought them.
        """
        self.recorded = True
        self.alive = record.alive
        self.since_us = record.since_us
        self.notices.restore(self.pool.context, record.owed)
        remembered = list(record.checkers)
        unknown = []
        for checker in self._recorded:
            found = next((each for each in remembered if each.digest == checker.digest), None)
            if found is None:
                unknown.append(checker)
            else:
                remembered.remove(found)
                _restore_checker(checker, found)
        self.weigh()
        return unknown

    def assume_usual(self) -> None:
        """Nothing is recorded of it although it was started: it was up."""
        self.alive = True
        for checker in self._recorded:
            checker.is_up = checker.has_run = True
            checker.retries = 0


def _restore_checker(checker: CheckerState, found: CheckerRecord) -> None:
    schedule = checker.schedule
    checker.is_up = found.is_up
    checker.has_run = found.has_run
    checker.retries = min(found.retries, schedule.retry + 1) if schedule is not None else 0
    checker.wish = found.wish
    urls = len(getattr(checker.config, "urls", ())) or 1
    checker.step = min(max(found.step, 0), urls - 1)
    checker.failed_step = found.failed_step if found.failed_step < urls else -1
