"""The check child: wires the engine to the driver, the shells, the journal and the link to control."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Mapping

import msgspec

from kad.config.model.check import CheckConfiguration, CheckSettings
from kad.config.slices import Known, decode_check
from kad.errors import ExitStatus
from kad.garbage import collector_paused
from kad.ipc.child_link import ChildLink
from kad.ipc.mastership import MastershipFeed
from kad.ipc.messages import Generation, Role
from kad.ipc.reports import ProcessReport
from kad.ipc.trial import Trial
from kad.notify.policy import Letter
from kad.runtime import logs
from kad.runtime.clock import monotonic_us
from kad.runtime.driver import Driver
from kad.runtime.heartbeat import Phase
from kad.runtime.process import ChildContext
from kad_check.core.actions import Action
from kad_check.core.engine import Engine, EngineSettings
from kad_check.core.events import ConfigurationChanged, Event, StopRequested, TimeReached
from kad_check.core.lifecycle import followed_sessions
from kad_check.core.record import started_generation
from kad_check.io.packing import changed, trial
from kad_check.io.sessions import Sessions
from kad_check.io.shell import Shell

ADDRESSES_PATIENCE_US = 2_000_000
"""How long the VRRP process may take to give its addresses back when there is no supervisor to see to it."""
ADDRESSES_PAUSE_S = 0.005
LEAVING_PATIENCE_S = 1.0
"""How long the last scripts may take to start once everything is withdrawn."""


def main(context: ChildContext) -> int:
    """The whole life of the child; the exit status."""
    child = CheckChild(context)
    return child.clean_up() if context.withdraw else child.run()


class CheckChild:
    """One life of the check process."""

    def __init__(self, context: ChildContext) -> None:
        self._context = context
        self._heartbeat = context.journal.heartbeat(context.role)
        self._applying = 0
        self._settings = CheckSettings()
        self._stopping = False
        self._known: Known = {}
        self._namespace = self._configuration_at_birth().settings.net_namespace_ipvs
        records = context.journal.records(context.role)
        recorded = records.load()
        self._begun_generation = started_generation(recorded)
        keep = context.options.keep_ipvs_at_stop
        self._engine = Engine(EngineSettings(keep_ipvs_at_stop=keep), recorded)
        self._shell = Shell(
            records,
            recorded,
            os.environ,
            on_stopped=self._leave,
            send_mail=self._send_mail,
            keep_ipvs_at_stop=keep,
            put_back_ipvs=context.options.put_back_ipvs,
        )
        self._driver: Driver[Event, Action] = Driver(
            self._engine, self._shell.perform, self._heartbeat, TimeReached()
        )
        self._sessions = Sessions(context, self._driver, self._shell.session_changed)
        self._mastership = MastershipFeed(context, self._driver, self._shell.mastership_changed)
        self._link = ChildLink(
            context,
            self._driver,
            on_prepare=self._prepare,
            on_apply=self._apply,
            on_status=self._tell_status,
        )

    def run(self) -> int:
        self._driver.loop.add_signal_handler(signal.SIGTERM, self._stop)
        self._shell.attach(self._driver)
        self._shell.begin(self._namespace)
        self._driver.each_turn(self._confirm)
        self._link.start()
        # READY is who has put everything into the kernel.
        self._heartbeat.phase = Phase.PREPARING if self._applying else Phase.READY
        self._driver.run()
        self._sessions.close()
        self._mastership.close()
        self._shell.close()
        self._link.close()
        return ExitStatus.OK

    def clean_up(self) -> int:
        """One that died is not to come back: take away the services its records name, and nothing else."""
        self._shell.attach(self._driver)
        self._shell.begin(self._namespace)
        self._driver.feed(StopRequested())
        self._driver.run()
        self._shell.close()
        return ExitStatus.OK

    def _configuration_at_birth(self) -> CheckConfiguration:
        with collector_paused():
            return _decode(self._context.generation, self._known)

    def _prepare(self, slice_: Mapping[str, bytes]) -> str | Trial:
        """Tens of thousands of servers take a while to look at: that is no hang."""
        with collector_paused(), self._heartbeat.at_length():
            return prepare(slice_, self._known)

    def _apply(self, generation: int, slice_: Mapping[str, bytes]) -> None:
        if self._heartbeat.phase is Phase.READY:
            self._heartbeat.phase = Phase.PREPARING  # until it is applied
        gc.collect()  # what was here before is frozen: there is next to nothing to look through
        with collector_paused():
            configuration = self._become(generation, slice_)
            # No later search for garbage goes through tens of thousands of servers either.
            gc.freeze()
        self._sessions.follow(followed_sessions(configuration))
        daemon = configuration.settings.sync_daemon
        self._mastership.follow(daemon.instance if daemon is not None else "")

    def _become(self, generation: int, slice_: Mapping[str, bytes]) -> CheckConfiguration:
        previous = CheckConfiguration()
        if self._link.generation == 0:
            previous = _decode(self._context.previous_generation, {})
        configuration = decode_check(slice_, self._known)
        if self._link.generation == 0:
            former = self._former(generation, configuration, previous)
            self._sessions.inherit(followed_sessions(former))
        self._applying = generation
        self._settings = configuration.settings
        self._shell.configure(configuration)
        self._driver.feed(ConfigurationChanged(generation, configuration, previous))
        return configuration

    def _former(
        self, generation: int, configuration: CheckConfiguration, previous: CheckConfiguration
    ) -> CheckConfiguration:
        """What a former life of this process had begun with, as far as can be known."""
        if not self._begun_generation:
            return CheckConfiguration()
        is_same = self._begun_generation == generation or self._context.previous_generation is None
        return configuration if is_same else previous

    def _send_mail(self, letter: Letter) -> None:
        self._link.alert(self._settings.mail, self._settings.router_id, letter)

    def _confirm(self) -> bool:
        """A generation is applied when the kernel has answered all that came of it."""
        if self._applying and self._engine.settled:
            generation, self._applying = self._applying, 0
            if self._heartbeat.phase is Phase.PREPARING:
                self._heartbeat.phase = Phase.READY
            self._link.applied(generation, self._shell.take_complaints())
        return False

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._heartbeat.phase = Phase.STOPPING
        logs.info("Stopping")
        # The BFD process stops as well, and that is no fault of any server's.
        self._sessions.close()
        self._withdraw(monotonic_us() + ADDRESSES_PATIENCE_US)

    def _withdraw(self, until_us: int) -> None:
        """Services go after the addresses they stand behind. The supervisor sees to that; when it is dead,
        the kernel has told everybody at once.
        """
        orphaned = os.getppid() != self._context.supervisor_pid
        if orphaned and self._addresses_are_held() and monotonic_us() < until_us:
            self._driver.loop.call_later(ADDRESSES_PAUSE_S, self._withdraw, until_us)
        else:
            self._end()

    def _end(self) -> None:
        """keepalived: what a reload takes out is told as down, be it all there is; a stop with omega only."""
        if self._heartbeat.is_dismissed:
            nothing = CheckConfiguration(settings=self._settings)
            self._driver.feed(ConfigurationChanged(self._link.generation + 1, nothing))
        self._driver.feed(StopRequested())

    def _addresses_are_held(self) -> bool:
        vrrp = self._context.journal.heartbeat(Role.VRRP)
        alive = vrrp.pid and os.path.exists(f"/proc/{vrrp.pid}")
        return bool(alive) and vrrp.phase is not Phase.WITHDRAWN

    def _leave(self) -> None:
        """Everything is withdrawn. Scripts that wait for their turn get it, for a bounded time."""
        self._driver.loop.call_later(LEAVING_PATIENCE_S, self._driver.stop)

        def when_all_is_out() -> bool:
            waiting = bool(self._shell.runner.waiting)
            if not waiting:
                self._driver.stop()
            return waiting

        self._driver.each_turn(when_all_is_out)

    def _tell_status(self, _clear: bool, answer: Callable[[bytes], None]) -> None:
        """Once the kernel has said what it has counted."""
        self._shell.statistics.gather(lambda: answer(self._report()))

    def _report(self) -> bytes:
        lateness = self._driver.lateness
        process = ProcessReport(
            deadlines=lateness.deadlines,
            late=dict(zip(map(str, lateness.LIMITS_US), lateness.over, strict=True)),
            worst_late_us=lateness.worst_us,
            counters={**self._shell.counters(), "mails_lost": self._link.alerts_lost},
            causes=tuple(self._shell.causes),
        )
        ipvs = "" if self._shell.ipvs.available else "this kernel has no IPVS"
        report = msgspec.structs.replace(self._engine.report(), process=process, ipvs=ipvs)
        return msgspec.msgpack.encode(self._shell.statistics.add_to(report, self._engine.pool_names))


def _decode(generation: Generation | None, known: Known) -> CheckConfiguration:
    if generation is None:
        return CheckConfiguration()
    return decode_check(generation.slices.get(Role.CHECK, {}), known)


def prepare(slice_: Mapping[str, bytes], known: Known) -> str | Trial:
    """Whether a generation could be run: it can when it decodes, and all that IPVS would be asked can be put
    into messages. What it lacks here the checks will say.
    """
    found = dict(known)
    try:
        configuration = decode_check(slice_, found)
    except msgspec.MsgspecError as error:
        return f"the check part does not decode: {error}"
    return _trial(configuration, found, known)


def _trial(configuration: CheckConfiguration, found: Known, known: Known) -> Trial:
    """Only what stands it to its end is known then: anything else is tried again the next time."""
    refusal = yield from trial(configuration, changed(found, known))
    if not refusal:
        known.clear()
        known.update(found)
    return refusal
