"""Carries out the engine's actions and brings back what comes of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import assert_never

from kad.config.model.check import CheckConfiguration
from kad.ipc.reports import Cause
from kad.kernel.batch import ReceiveBuffer
from kad.notify.pipes import Fifos
from kad.notify.policy import Letter
from kad.notify.runner import ScriptRunner
from kad.runtime import logs
from kad.runtime.clock import monotonic_us
from kad.runtime.driver import Driver
from kad.runtime.journal import Records
from kad_check.core.actions import (
    Action,
    AddChecker,
    ChangeChecker,
    ChangeDestinations,
    Forget,
    Health,
    Log,
    LogLevel,
    MarkTraffic,
    Notify,
    Remember,
    RemoveChecker,
    ReplaceServices,
    SendMail,
    ServerChanged,
    StartCheck,
    Stopped,
    WithdrawServices,
    WriteFifo,
)
from kad_check.core.events import (
    AddressesChanged,
    CheckDone,
    Event,
    MarkingDone,
    NotifyDone,
    ServicesDone,
    SessionChanged,
    Verdict,
)
from kad_check.io.checks import Checks
from kad_check.io.connect import Connections
from kad_check.io.followed_files import FollowedFiles
from kad_check.io.ipvs import Ipvs
from kad_check.io.ipvs_statistics import StatisticsReader
from kad_check.io.local_addresses import LocalAddresses
from kad_check.io.marking import Marking
from kad_check.io.scripts import ScriptChecks

CAUSE_LIMIT = 256
"""Changes kept for the status of all servers together."""
COMPLAINT_LIMIT = 100
"""Refusals of the kernel kept for the answer to a reload."""

_WRITERS = {
    LogLevel.ERROR: logs.error,
    LogLevel.WARNING: logs.warning,
    LogLevel.INFO: logs.info,
    LogLevel.DEBUG: logs.debug,
}


class Shell:
    """Everything outside the engine: checks, IPVS, scripts, pipes, files, addresses, journal, log.

    ``recorded``: what the journal held when this life began. ``on_stopped``: all was given back.
    """

    def __init__(
        self,
        records: Records,
        recorded: Mapping[str, bytes],
        environment: Mapping[str, str],
        *,
        on_stopped: Callable[[], None],
        send_mail: Callable[[Letter], None],
        keep_ipvs_at_stop: bool = False,
        put_back_ipvs: bool = False,
    ) -> None:
        self._records = records
        self._recorded = recorded
        self._environment = environment
        self._on_stopped = on_stopped
        self._send_mail = send_mail
        self._keep_ipvs_at_stop = keep_ipvs_at_stop
        self._put_back_ipvs = put_back_ipvs
        self._lines: list[tuple[Callable[[str], None], str]] = []
        self.causes: deque[Cause] = deque(maxlen=CAUSE_LIMIT)
        self.complaints: list[str] = []
        self.journal_full = 0

    def attach(self, driver: Driver[Event, Action]) -> None:
        """Open what does not depend on the configuration."""
        self._driver = driver
        loop, report, records = driver.loop, logs.warning, self._records
        self.connections = Connections(driver, self._check_ended)
        self.scripts = ScriptChecks(loop, driver.feed, report, self._environment, records)
        self.scripts.end_leftovers(self._recorded)
        self.checks = Checks(loop, self.connections, self.scripts, driver.feed, report)
        self.runner = ScriptRunner(loop, self._notified, logs.error, self._environment)
        self.fifos = Fifos(loop, report, self._environment, records, self._recorded)
        self.files = FollowedFiles(loop, driver.feed, report)
        self.addresses = LocalAddresses(driver, self._addresses_changed)
        self.ipvs = Ipvs(
            self._hear,
            records,
            self._recorded,
            keep_at_stop=self._keep_ipvs_at_stop,
            put_back=self._put_back_ipvs,
        )
        self.statistics = StatisticsReader(loop, self.ipvs)
        self.marking = Marking(loop, self._hear)
        driver.each_turn(self.connections.look)
        driver.each_turn(self.write_log)

    def begin(self, ipvs_namespace: str | None) -> None:
        """``ipvs_namespace``: where IPVS is; None: here."""
        self.ipvs.start(self._driver, ipvs_namespace)
        self._recorded = {}

    def configure(self, configuration: CheckConfiguration) -> None:
        """What the engine's actions for this configuration will rest on. Before the engine hears of it."""
        self.checks.configure(configuration.ssl)
        settings = configuration.settings
        self.fifos.configure(
            (
                (settings.notify_fifo, settings.notify_fifo_script),
                (settings.lvs_notify_fifo, settings.lvs_notify_fifo_script),
            )
        )
        self.ipvs.configure(settings)
        self.files.follow(configuration.files)
        buffers = configuration.settings.netlink
        self.addresses.follow(
            any(server.ha_suspend for server in configuration.virtual_servers),
            receive_buffer=ReceiveBuffer(buffers.monitor, buffers.monitor_force),
        )

    def perform(self, action: Action) -> None:
        """One action, now. Checks come first: there are the most of them."""
        match action:
            case StartCheck():
                self.checks.start(action.number, action.step)
            case Remember():
                self._remember(action)
            case Forget():
                self._records.delete(action.key)
            case Log():
                self._lines.append((_WRITERS[action.level], action.text))
            case ServerChanged():
                self._note(action)
            case ChangeDestinations():
                self.ipvs.change(action)
            case ReplaceServices():
                self.ipvs.replace(action)
            case MarkTraffic():
                self.marking.mark(action)
            case WithdrawServices():
                self.ipvs.withdraw(action)
            case AddChecker():
                self.checks.add(action.number, action.checker)
            case ChangeChecker():
                self.checks.change(action.number, action.checker)
            case RemoveChecker():
                self.checks.remove(action.number)
            case Notify():
                self.runner.submit(action.owner, action.serial, action.commands)
            case WriteFifo():
                self.fifos.write(action.data)
            case SendMail():
                self._send_mail(action.letter)
            case Stopped():
                self._on_stopped()
            case _:
                assert_never(action)

    def write_log(self) -> bool:
        """At the end of a turn, in one go."""
        lines, self._lines = self._lines, []
        for write, text in lines:
            write(text)
        return False

    def close(self) -> None:
        """Checks are broken off; what was notified goes on by itself."""
        self.write_log()
        self.checks.close()
        self.connections.close()
        self.scripts.close()
        self.runner.close()
        self.fifos.close()
        self.files.close()
        self.addresses.close()
        self.statistics.close()
        self.ipvs.close()

    def take_complaints(self) -> tuple[str, ...]:
        """What the kernel refused since the last call."""
        complaints, self.complaints = self.complaints, []
        return tuple(complaints)

    def counters(self) -> dict[str, int]:
        """What went on outside the engine, for status."""
        return {
            "connections": self.connections.running,
            "scripts": self.scripts.running,
            "fifo_lines_lost": self.fifos.lost,
            "journal_full": self.journal_full,
            **self.ipvs.counters(),
        }

    def session_changed(self, name: str, up: bool) -> None:
        self._driver.feed(SessionChanged(name, up))

    def mastership_changed(self, master: bool) -> None:
        """Of the instance that lvs_sync_daemon names."""
        self.ipvs.follow_instance(master)

    # What comes back -------------------------------------------------------------------------------------

    def _check_ended(self, number: int, verdict: Verdict, detail: str) -> None:
        self._driver.feed(CheckDone(number, verdict, detail))

    def _notified(self, owner: str, serial: int, _statuses: tuple[int | None, ...]) -> None:
        self._driver.feed(NotifyDone(owner, serial))

    def _addresses_changed(self, addresses: frozenset[str]) -> None:
        self._driver.feed(AddressesChanged(addresses))

    def _hear(self, event: Event) -> None:
        """Events from IPVS pass by here on their way to the engine."""
        if isinstance(event, ServicesDone) and self.ipvs.available:
            # That there is no IPVS at all is said once, by who looks for it.
            room = COMPLAINT_LIMIT - len(self.complaints)
            self.complaints += event.failures[:room]  # control writes them to the log
        elif isinstance(event, MarkingDone) and event.failure:
            self.complaints.append(event.failure)
        self._driver.feed(event)

    def _remember(self, action: Remember) -> None:
        if not self._records.write(action.key, action.record):
            self.journal_full += 1
            if self.journal_full == 1:
                logs.error("no room in the journal: after a restart some servers would be taken for new")

    def _note(self, action: ServerChanged) -> None:
        new = action.health
        old = Health.DOWN if new is Health.UP else Health.UP
        who = f"{action.server} of {action.pool}" if action.server else action.pool
        self.causes.append(Cause(monotonic_us(), who, old.value, new.value, action.reason, 0))
