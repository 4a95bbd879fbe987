"""The VRRP child: wires the engine to the driver, the shells, the journal and the link to control."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

import msgspec

from kad.config.model.vrrp import VrrpConfiguration, VrrpSettings, WantedState
from kad.config.slices import decode_vrrp
from kad.errors import ExitStatus
from kad.garbage import collector_paused
from kad.ipc.bfd_feed import BfdFeed
from kad.ipc.child_link import ChildLink
from kad.ipc.mastership import MastershipPublisher
from kad.ipc.messages import Generation, Role
from kad.ipc.reports import InstanceReport, ProcessReport
from kad.ipc.trial import Trial
from kad.kernel.batch import ReceiveBuffer
from kad.notify.policy import Letter
from kad.runtime import logs
from kad.runtime.clock import boottime_us, monotonic_us
from kad.runtime.driver import LONG_SLEEP_US, Driver
from kad.runtime.heartbeat import Phase
from kad.runtime.journal import Records, Stamp
from kad.runtime.process import ChildContext, Options, begin_life
from kad.runtime.processors import shorten_slice
from kad_vrrp.core.actions import Action, SendAdvert
from kad_vrrp.core.context import EngineSettings
from kad_vrrp.core.engine import Engine
from kad_vrrp.core.events import BfdChanged, ConfigurationChanged, Event, StopRequested, TimeReached
from kad_vrrp.core.record import Remembered
from kad_vrrp.core.rehearsal import WARM, LossRehearsal, Rehearsal, rehearse
from kad_vrrp.core.resources import statics_of
from kad_vrrp.core.trackers import in_use
from kad_vrrp.io.packing import trial
from kad_vrrp.io.probes import instances_of, objects_of, pipes_of, runs_of, settings_of
from kad_vrrp.io.reporting import Reporting
from kad_vrrp.io.shell import Shell

SILENT_FOR_EVER_US = 1 << 60
CLOCK_DRIFT_LIMIT_US = 10_000
"""When the two clocks have drifted further apart since the last transmission, the machine was suspended."""
PREEMPTION_HOLD_US = 60_000_000
REMOVAL_PATIENCE_S = 4.0
"""How long the kernel may take to remove the interfaces of our own: a fiftieth of a second each."""
NEWS_TAKES_US = 500
"""From a BFD session's detection time until the news of its loss is here, most often."""
ACT_TAKES_US = 500
"""What a rehearsal takes at the most, most often: none is begun with less time left."""
ROUND_GAP_S = 0.02
REHEARSAL_GAP_S = 0.5
"""Before the next loss is set up to be rehearsed: what has nearly come may come now, and needs our time."""
SERVICES_PATIENCE_US = 3_000_000
"""How long an address owner may wait for the services behind its addresses: as others listen, by default."""
SERVICES_PAUSE_S = 0.005
READY_OBJECTS = 64
"""A spare has as many objects of a configuration decoded, at the most: a thousand are 4 MB, and decoding is
the least of what it takes to take them up.
"""
FIRST_INSTANCES = 16
"""A life that takes up so many may go before everything else on the machine: it is at it for milliseconds."""
LEAVING_PATIENCE_S = 1.0
"""How long the last frames and scripts may take to start once everything is withdrawn."""


def warm_up() -> None:
    """What a life is faster for that begins where one was killed."""
    rehearse()


def main(context: ChildContext) -> int:
    """The whole life of the child; the exit status."""
    with collector_paused():
        if context.await_turn is not None and not stands_ready(context.generation):
            context.take_turn()
            begin_life(context)
        child = VrrpChild(context)
        child.begin()
    return child.run()


class VrrpChild:
    """One life of the VRRP process.

    Made of the configuration alone: what only the journal and the hour of birth can tell comes in with
    :meth:`begin`. A spare waits in between.
    """

    def __init__(self, context: ChildContext) -> None:
        self._context = context
        self._records = context.journal.records(context.role)
        self._heartbeat = context.journal.heartbeat(context.role)
        self._applying = 0
        self._settings = VrrpSettings()
        self._making_links = False
        """The engine has not been given its configuration yet: interfaces of their own are being made."""
        self._next: tuple[int, Mapping[str, bytes]] | None = None
        """What came meanwhile, with its generation; of several the newest."""
        self._stopping = False
        self._rehearsal = Rehearsal()
        self._loss_rehearsal = LossRehearsal()
        self._eve_us = 0
        """When a loss may come that was rehearsed once so far."""
        self._follows_sessions = False
        configuration = _decode(context.generation)
        self._of_birth = configuration if context.generation is not None else None
        """Until it is applied, first of all: with a thousand instances decoding takes a while."""
        self._is_the_start = False
        self._services_until_us = 0
        self._followed = ""
        """The instance whose mastership the check process is told."""
        self._shell = Shell(
            self._records,
            os.environ,
            on_synced=self._begin,
            on_stopped=self._leave,
            send_mail=self._send_mail,
            packet_fd=context.packet_fd,
            log_address_changes=context.options.log_address_changes,
            receive_buffer=ReceiveBuffer(
                configuration.settings.netlink.monitor, configuration.settings.netlink.monitor_force
            ),
        )
        self._driver: Driver[Event, Action] = Driver(
            None,
            self._shell.perform,
            self._heartbeat,
            TimeReached(),
            quiet=SendAdvert,
            idle_us=LONG_SLEEP_US,
        )
        self._mastership = MastershipPublisher(context, self._driver)
        self._sessions = BfdFeed(
            context,
            self._driver,
            self._session_changed,
            on_eve=self._rehearse_a_loss,
            on_lost=lambda: self._link.restore_processors(),
        )
        self._link = ChildLink(
            context,
            self._driver,
            on_prepare=self._prepare,
            on_apply=self._apply_whole,
            on_status=lambda clear, answer: self._reporting.ask(clear, answer),
        )
        self._shell.attach(self._driver)
        self._shell.addresses.expect_statics(statics_of(configuration))

    def begin(self) -> None:
        """Wait for the turn, and go on where the former life stood: when this returns, whoever was master and
        needs nothing but a socket has advertised.
        """
        context = self._context
        is_spare = context.await_turn is not None
        shorten_slice()
        if is_spare:
            self._await_turn()
        # It waits until the loop can take it: the handler is not made in a moment.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
        configuration = self._of_birth or VrrpConfiguration()
        self._is_the_start = context.incarnation == 1
        if needs_services(context, configuration):
            self._services_until_us = monotonic_us() + SERVICES_PATIENCE_US
        found = self._records.load()
        self._engine = Engine(
            engine_settings(configuration.settings, context),
            remembered(self._records, instances_of(found)),
            objects_of(found),
        )
        self._reporting = Reporting(self._engine, self._with_error, self._process_report)
        self._driver.take(self._engine)
        self._driver.each_turn(self._confirm)
        self._driver.each_turn(self._note_changes)
        self._driver.each_turn(self._set_the_stage)
        self._driver.each_turn(self._reporting.next_turn)
        self._driver.prepare(lambda: self._engine.take_over_us, self._rehearsal.play)
        for script, record in runs_of(found).items():
            self._shell.probes.scripts.end_leftover(script, record)
        self._shell.begin(pipes_of(found), settings_of(found))
        if is_spare:
            self._driver.go_as_usual()
            begin_life(context)

    def _await_turn(self) -> None:
        """Do for nobody what will have to be done, then wait to be woken: it is to run before all that is
        ordinary on this machine.
        """
        instances = self._of_birth.instances if self._of_birth is not None else ()
        self._records.load()
        self._shell.rehearse()
        self._shell.transports.expect({instance.family for instance in instances})
        if len(instances) <= FIRST_INSTANCES:
            self._driver.go_first()
        self._context.take_turn()

    def run(self) -> int:
        self._driver.loop.add_signal_handler(signal.SIGTERM, self._stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
        self._driver.run()
        self._sessions.close()
        self._shell.probes.close()
        self._shell.fifos.close()
        self._shell.write_log()
        return ExitStatus.OK

    def _begin(self) -> None:
        """Every link has been told: the engine may have its configuration."""
        if self._awaits_services() and not self._stopping:
            self._driver.loop.call_later(SERVICES_PAUSE_S, self._begin)
            return
        self._link.start()
        if self._stopping:
            # Told to stop before there was anything: what a former life left is withdrawn all the same.
            if not self._making_links:
                self._driver.feed(StopRequested())
            return
        self._heartbeat.phase = Phase.READY

    def _awaits_services(self) -> bool:
        """At the daemon's start, for who is MASTER at once: an address held without its services refuses what
        is sent to it. keepalived's processes start side by side.
        """
        check = self._context.journal.heartbeat(Role.CHECK)
        return check.phase is not Phase.READY and monotonic_us() < self._services_until_us

    def _send_mail(self, letter: Letter) -> None:
        self._link.alert(self._settings.mail, self._settings.router_id, letter)

    def _prepare(self, slice_: Mapping[str, bytes]) -> str | Trial:
        with self._heartbeat.at_length():
            return prepare(slice_)

    def _apply_whole(self, generation: int, slice_: Mapping[str, bytes]) -> None:
        """With a thousand instances tens of thousands of objects come of it that are no garbage.

        One at a time, and in order: interfaces that are being made for one are there for the next.
        """
        if self._making_links:
            self._next = generation, slice_
            return
        with collector_paused(), self._heartbeat.at_length():
            self._apply(generation, slice_)

    def _apply(self, generation: int, slice_: Mapping[str, bytes]) -> None:
        previous: VrrpConfiguration = VrrpConfiguration()
        if not self._link.generation and not self._applying:
            previous = _decode(self._context.previous_generation)
        self._applying = generation
        configuration = self._of_birth if self._of_birth is not None else decode_vrrp(slice_)
        self._of_birth = None
        self._settings = configuration.settings
        self._followed = configuration.settings.followed_instance
        if not self._context.withdraw:
            self._shell.probes.prepare(configuration, initialising=self._is_the_start)
            self._shell.configure_fifos(configuration.settings)
            self._is_the_start = False
        event = ConfigurationChanged(
            generation,
            configuration.instances,
            previous.instances,
            configuration.garp_groups,
            configuration.sync_groups,
            configuration.scripts,
            configuration.files,
            configuration.processes,
            configuration.settings,
            configuration.virtual_links,
            statics_of(configuration),
            statics_of(previous),
            previous.sync_groups,
        )

        self._shell.addresses.expect_statics(event.statics)

        def run() -> None:
            self._making_links = False
            with self._heartbeat.at_length():
                self._run_with(event, configuration)
            newest, self._next = self._next, None
            if newest is not None and not self._stopping:
                self._apply_whole(*newest)

        self._making_links = True
        if self._context.withdraw:
            run()
            return
        self._shell.prepare(configuration, previous, run)

    def _run_with(self, event: ConfigurationChanged, configuration: VrrpConfiguration) -> None:
        """Every interface the configuration needs is there, as far as it can be."""
        self._driver.feed(event)
        self._shell.changed = True
        if self._stopping:
            self._end()
        elif not self._context.withdraw:
            followed = followed_sessions(configuration)
            self._sessions.follow(followed)
            if followed and not self._follows_sessions:
                self._follows_sessions = True
                self._driver.loop.call_later(REHEARSAL_GAP_S, self._set_up_a_loss, WARM)

    def _session_changed(self, name: str, up: bool) -> None:
        self._driver.feed(BfdChanged(name, up))

    def _set_up_a_loss(self, rounds: int = 0) -> None:
        """What is to be rehearsed next, when there is time. ``rounds`` are played before."""
        self._loss_rehearsal.renew()
        if rounds:
            self._loss_rehearsal.play()
        if rounds or not self._loss_rehearsal.is_ready:
            self._driver.loop.call_later(ROUND_GAP_S, self._set_up_a_loss, max(0, rounds - 1))

    def _rehearse_a_loss(self, due_us: int) -> None:
        """Two milliseconds before, where all is cold, and once more right before."""
        if due_us == self._eve_us:
            self._eve_us = 0
        elif self._loss_rehearsal.is_ready:
            self._eve_us = due_us
            self._driver.loop.call_later(REHEARSAL_GAP_S, self._set_up_a_loss)
        else:
            return
        self._driver.look_out(due_us + NEWS_TAKES_US, self._sessions.is_awake)
        if monotonic_us() < due_us - ACT_TAKES_US:
            self._loss_rehearsal.play()
            self._records.rehearse()

    def _confirm(self) -> bool:
        """A generation is applied when the kernel has answered all that came of it."""
        if self._applying and not self._making_links and self._engine.settled:
            generation, self._applying = self._applying, 0
            self._shell.virtual_links.retire()
            self._link.applied(generation, self._shell.take_complaints())
        return False

    def _set_the_stage(self) -> bool:
        """For the next rehearsal, once everything that has to be done at once is done."""
        begun = self._link.generation and not self._applying
        if begun and self._rehearsal.is_spent and self._engine.settled:
            self._rehearsal.renew()
        return False

    def _note_changes(self) -> bool:
        if self._shell.changed:
            self._shell.changed = False
            self._driver.patience_us = self._engine.patience_us
            if not self._context.withdraw:
                self._mastership.tell(self._followed, self._engine.is_master(self._followed))
        return False

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._heartbeat.phase = Phase.STOPPING
        logs.info("Stopping")
        # The BFD process stops as well, and that is no fault of anybody's.
        self._sessions.close()
        if (self._link.generation or self._applying) and not self._making_links:
            self._end()

    def _end(self) -> None:
        """keepalived: what a reload takes out is DELETED, be it all there is. STOP is the daemon's end."""
        if self._heartbeat.is_dismissed:
            generation = self._link.generation + 1
            self._driver.feed(ConfigurationChanged(generation, (), settings=self._settings))
        self._driver.feed(StopRequested())

    def _leave(self) -> None:
        """Everything is withdrawn. Frames and scripts that wait for their turn get it, for a bounded time."""
        self._heartbeat.phase = Phase.WITHDRAWN
        keeps = self._context.options.keep_vips_at_stop and not self._heartbeat.is_dismissed
        if keeps or self._context.withdraw:
            self._leave_when_out()
        else:
            self._driver.loop.call_later(REMOVAL_PATIENCE_S, self._driver.stop)
            self._shell.dismantle(self._leave_when_out)

    def _leave_when_out(self) -> None:
        self._driver.loop.call_later(LEAVING_PATIENCE_S, self._driver.stop)

        def when_all_is_out() -> bool:
            waiting = bool(self._shell.runner.waiting or self._shell.announcer.waiting)
            if not waiting:
                self._driver.stop()
            return waiting

        self._driver.each_turn(when_all_is_out)

    def _process_report(self) -> ProcessReport:
        lateness = self._driver.lateness
        return ProcessReport(
            deadlines=lateness.deadlines,
            late=dict(zip(map(str, lateness.LIMITS_US), lateness.over, strict=True)),
            worst_late_us=lateness.worst_us,
            counters=self._shell.counters(),
            causes=tuple(self._shell.causes),
        )

    def _with_error(self, report: InstanceReport) -> InstanceReport:
        error = self._shell.packet_filter.error
        if not error or not self._shell.packet_filter.concerns(report.name):
            return report
        found = f"the packet filter is not in place: {error}"
        return msgspec.structs.replace(report, error="; ".join(filter(None, (found, report.error))))


def stands_ready(generation: Generation | None) -> bool:
    """Whether a spare of this generation does beforehand what can be done."""
    return generation is not None and len(generation.slices.get(Role.VRRP, {})) <= READY_OBJECTS


def needs_services(context: ChildContext, configuration: VrrpConfiguration) -> bool:
    """Whether an instance will be MASTER at the start without listening, and there are services."""
    generation = context.generation
    if (
        context.incarnation > 1
        or context.withdraw
        or generation is None
        or Role.CHECK not in generation.roles
    ):
        return False
    return any(i.is_owner and i.wanted_state is WantedState.MASTER for i in configuration.instances)


def followed_sessions(configuration: VrrpConfiguration) -> frozenset[str]:
    """BFD sessions that some instance or sync group follows."""
    used = in_use(configuration.instances, configuration.sync_groups)
    return frozenset(name for kind, name in used if kind == "bfd")


def _decode(generation: Generation | None) -> VrrpConfiguration:
    if generation is None:
        return VrrpConfiguration()
    return decode_vrrp(generation.slices.get(Role.VRRP, {}))


def prepare(slice_: Mapping[str, bytes]) -> str | Trial:
    """Whether a generation could be run: it can when it decodes, and what the kernel would be asked can be
    put into messages. What it lacks here only makes a FAULT.
    """
    try:
        return trial(decode_vrrp(slice_))
    except msgspec.MsgspecError as error:
        return f"the VRRP part does not decode: {error}"


def engine_settings(settings: VrrpSettings, context: ChildContext) -> EngineSettings:
    """What the command line, global_defs and this life's history say to the engine."""
    options: Options = context.options
    startup_delay_us = 0
    if context.incarnation == 1:
        # A restart goes on where the last life stopped; the delays are for the daemon's start.
        after_boot_us = max(0, settings.delay_after_boot_us - boottime_us())
        startup_delay_us = max(settings.startup_delay_us, after_boot_us)
    held_until_us = monotonic_us() + PREEMPTION_HOLD_US if context.hold_preemption else 0
    return EngineSettings(
        release_vips=options.release_vips,
        keep_vips_at_stop=options.keep_vips_at_stop,
        startup_delay_us=startup_delay_us,
        no_preempt_until_us=held_until_us,
        withdraw=context.withdraw,
    )


def remembered(records: Records, found: Mapping[str, bytes]) -> dict[str, Remembered]:
    """What the journal holds of instances, with how long each has been silent."""
    now_boottime_us, now_us = boottime_us(), monotonic_us()
    return {
        name: Remembered(record, _silence(records.stamp_of(name), now_boottime_us, now_us))
        for name, record in found.items()
    }


def _silence(stamp: Stamp | None, now_boottime_us: int, now_us: int) -> int:
    """Time since the last transmission; for ever when that cannot be said."""
    if stamp is None:
        return SILENT_FOR_EVER_US
    silent_us = now_boottime_us - stamp.boottime_us
    drift_us = abs(silent_us - (now_us - stamp.monotonic_us))
    if silent_us < 0 or drift_us > CLOCK_DRIFT_LIMIT_US:
        return SILENT_FOR_EVER_US
    return silent_us
