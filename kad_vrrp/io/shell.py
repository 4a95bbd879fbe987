"""Carries out the engine's actions and brings back what comes of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import assert_never

import msgspec

from kad.config.model.vrrp import VrrpConfiguration, VrrpSettings
from kad.ipc.reports import Cause
from kad.kernel.batch import ReceiveBuffer
from kad.notify.pipes import Fifos
from kad.notify.policy import Letter, NotifyEvent, instance_line
from kad.notify.runner import ScriptRunner
from kad.runtime import logs
from kad.runtime.clock import boottime_us, monotonic_us
from kad.runtime.driver import Driver
from kad.runtime.journal import Records
from kad.track.script import EndScript, RunScript
from kad_vrrp.core.actions import (
    Action,
    Announce,
    ChangeAddresses,
    CloseTransport,
    Forget,
    ForgetObject,
    GroupChanged,
    Log,
    LogLevel,
    Notify,
    OpenTransport,
    PriorityChanged,
    Remember,
    RememberObject,
    SendAdvert,
    SetPromoteSecondaries,
    State,
    StateChanged,
    Stopped,
    WriteFifo,
)
from kad_vrrp.core.descriptions import describe
from kad_vrrp.core.events import (
    Event,
    LinkChanged,
    LinkRemoved,
    NotifyDone,
    PlanDone,
    TransportFailed,
    TransportOpened,
)
from kad_vrrp.core.log_lines import LinkNews, lines_of_change
from kad_vrrp.io.addresses import Addresses
from kad_vrrp.io.garp import Announcer
from kad_vrrp.io.linkbeat import Linkbeat, polled_interfaces
from kad_vrrp.io.packet_filter import PacketFilter
from kad_vrrp.io.probes import PIPES, Probes, object_key, setting_key
from kad_vrrp.io.sockets import Transports
from kad_vrrp.io.sysctls import Sysctls, interface_setting
from kad_vrrp.io.virtual_links import KernelThread, VirtualLinks
from kad_vrrp.io.wall_clock import WallClock

COMPLAINT_LIMIT = 100
"""Refusals of the kernel kept for the answer to a reload."""
_LOCAL_IGMP = "net/ipv4/igmp_link_local_mcast_reports"
CAUSE_LIMIT = 64
"""Transitions kept for the status of all instances together."""

_WRITERS = {
    LogLevel.ERROR: logs.error,
    LogLevel.WARNING: logs.warning,
    LogLevel.INFO: logs.info,
    LogLevel.DEBUG: logs.debug,
}


class Shell:
    """Everything outside the engine: sockets, addresses, announcements, scripts, journal, log.

    ``on_synced``: all links have been told. ``on_stopped``: the engine has withdrawn everything.
    """

    def __init__(
        self,
        records: Records,
        environment: Mapping[str, str],
        *,
        on_synced: Callable[[], None],
        on_stopped: Callable[[], None],
        send_mail: Callable[[Letter], None],
        receive_buffer: ReceiveBuffer | None = None,
        packet_fd: int = -1,
        log_address_changes: bool = False,
    ) -> None:
        self._records = records
        self._environment = environment
        self._on_stopped = on_stopped
        self._send_mail = send_mail
        self._receive_buffer = receive_buffer or ReceiveBuffer()
        self._log_address_changes = log_address_changes
        self._on_synced = on_synced
        self.announcer = Announcer(packet_fd)
        self._lines: list[tuple[Callable[[str], None], str]] = []
        self._link_news = LinkNews()
        self.complaints: list[str] = []
        self.changed = False
        """Some instance's state, or what it has learnt, may have changed; whoever asks sets it back."""
        self.causes: deque[Cause] = deque(maxlen=CAUSE_LIMIT)
        self.journal_full = 0
        self.sysctls = Sysctls(records, setting_key, self._warn)

    def attach(self, driver: Driver[Event, Action]) -> None:
        """Open what depends neither on the configuration nor on what former lives left. Nothing is heard of
        the kernel, and nothing is told, before :meth:`begin`.
        """
        self._driver = driver
        self.addresses = Addresses(
            self._hear,
            logs.warning,
            self._on_synced,
            driver.loop.call_later,
            receive_buffer=self._receive_buffer,
            log_changes=self._log_address_changes,
        )
        patient_reader = partial(driver.add_reader, patient=True)
        self.transports = Transports(
            driver.feed, patient_reader, driver.remove_reader, lambda: driver.patience_us
        )
        self.runner = ScriptRunner(driver.loop, self._script_ended, logs.error, self._environment)
        self.thread = KernelThread(driver.loop)
        self.linkbeat = Linkbeat(driver.loop, self._tell_linkbeat, logs.info)
        self.packet_filter = PacketFilter(driver.loop, self.thread, self._refused)
        self.virtual_links = VirtualLinks(
            driver.loop,
            self.thread,
            self.sysctls,
            self._catch_up,
            self._refused,
            self._tell_link,
            self.packet_filter.program,
        )
        self.probes = Probes(driver.loop, driver.feed, logs.warning, self._environment, self._records)
        driver.add_reader(self.addresses.monitor.fileno(), self.addresses.monitor.drain)
        driver.add_reader(self.addresses.route_monitor.fileno(), self.addresses.drain_routes)
        driver.add_reader(self.addresses.requests.fileno(), self.addresses.requests.drain)
        driver.each_turn(self.announcer.next_turn)
        driver.each_turn(self.write_log)
        self.wall_clock = WallClock(driver.feed)
        driver.add_reader(self.wall_clock.fileno(), self.wall_clock.drain)

    def rehearse(self) -> None:
        """Ask the kernel what :meth:`begin` will ask, for nobody: the second time is faster."""
        later = self._driver.loop.call_later
        trial = Addresses(
            lambda _: None, logs.debug, lambda: None, later, receive_buffer=self._receive_buffer
        )
        trial.start()
        trial.close()

    def begin(self, pipes_found: Mapping[str, bytes], settings_found: Mapping[str, bytes]) -> None:
        """Take up what former lives left in the journal: their FIFOs, and the kernel settings they changed.
        Then hear from the kernel what there is, all of it.
        """
        self.sysctls.recall(settings_found)
        self.fifos = Fifos(
            self._driver.loop, logs.warning, self._environment, self._records, pipes_found, prefix=PIPES
        )
        self.wall_clock.tell()
        self.addresses.start()

    def configure_fifos(self, settings: VrrpSettings) -> None:
        """Before the engine hears of these settings."""
        self.fifos.configure(
            (
                (settings.notify_fifo, settings.notify_fifo_script),
                (settings.vrrp_notify_fifo, settings.vrrp_notify_fifo_script),
            )
        )

    def perform(self, action: Action) -> None:
        """One action, now. The adverts come first: there are the most of them; then what comes before one."""
        match action:
            case SendAdvert():
                if self.transports.send(action):
                    self._records.stamp(action.instance, boottime_us(), monotonic_us())
            case Announce():
                self.announcer.announce(action.frames)
            case ChangeAddresses():
                self.addresses.change(action)
            case Remember():
                self.changed = True
                self._remember(action)
            case RememberObject():
                self._write(object_key(action.key), action.record, action.key)
            case StateChanged():
                self._tell(action)
            case Notify():
                if action.line:
                    self.fifos.write(action.line)
                if action.letter is not None:
                    self._send_mail(action.letter)
                if action.commands:
                    self.runner.submit(action.instance, action.serial, action.commands)
            case WriteFifo():
                self.fifos.write(action.line)
            case PriorityChanged():
                self._tell_priority(action)
            case Log():
                self._lines.append((_WRITERS[action.level], action.text))
            case OpenTransport():
                self._open(action)
            case CloseTransport():
                self.transports.close(action.number)
            case SetPromoteSecondaries():
                self._set_promote_secondaries(action)
            case Forget():
                self._records.delete(action.instance)
            case ForgetObject():
                self._records.delete(object_key(action.key))
            case RunScript():
                self.probes.scripts.run(action)
            case EndScript():
                self.probes.scripts.end(action)
            case GroupChanged():
                pass  # its notification says so
            case Stopped():
                self._on_stopped()
            case _:
                assert_never(action)

    def write_log(self) -> bool:
        """At the end of a turn: every line wakes the writer, which would compete with the adverts."""
        lines, self._lines = self._lines, []
        for write, text in lines:
            write(text)
        return False

    def close(self) -> None:
        self.write_log()
        self.runner.close()
        self.probes.close()
        self.fifos.close()
        self.transports.close_all()
        self.announcer.close()
        self.addresses.close()
        self.wall_clock.close()

    def take_complaints(self) -> tuple[str, ...]:
        """What the kernel refused since the last call."""
        complaints, self.complaints = self.complaints, []
        return tuple(complaints)

    def counters(self) -> dict[str, int]:
        """What went on outside the engine, for status; errors that never happened are left out."""
        counted = {
            "announcements_sent": self.announcer.sent,
            "addresses_put_back": self.addresses.put_back,
            "link_dumps": self.addresses.monitor.resyncs,
            "journal_full": self.journal_full,
            "fifo_lines_lost": self.fifos.lost,
        }
        counted.update({f"send {name}": n for name, n in self.transports.send_errors.items()})
        counted.update({f"announce {name}": n for name, n in self.announcer.errors.items()})
        return counted

    def _hear(self, event: Event) -> None:
        """Events from the kernel pass by here on their way to the engine."""
        match event:
            case PlanDone():
                for failure in event.failures:
                    owner = f"({event.instance})" if event.instance else "static"
                    self._complain(f"{owner} {describe(failure.entry)}: {failure.reason}")
            case LinkChanged() | LinkRemoved():
                self._lines += [(logs.info, text) for text in self._link_news.heard(event)]
                self.virtual_links.heard(event)
                self.packet_filter.heard(event)
                if event.name in self.virtual_links.failures:
                    return
                event = self._as_linkbeat_says(event)
            case _:
                pass
        self._driver.feed(event)

    def prepare(
        self, configuration: VrrpConfiguration, former: VrrpConfiguration, done: Callable[[], None]
    ) -> None:
        """Have there what instances stand on: settings, interfaces, the packet filter; then ``done``.

        ``former``: of a generation whose end a former life may not have lived to see.
        """
        settings = configuration.settings
        buffers = settings.netlink
        monitor, requests = self.addresses.monitor, self.addresses.requests
        monitor.set_receive_buffer(ReceiveBuffer(buffers.monitor, buffers.monitor_force))
        requests.set_receive_buffer(ReceiveBuffer(buffers.command, buffers.command_force))
        self.linkbeat.watch(polled_interfaces(configuration))
        self._link_news.watch(configuration, self.addresses.link)
        if settings.disable_local_igmp:
            self.sysctls.hold(_LOCAL_IGMP, 0)
        else:
            self.sysctls.release(_LOCAL_IGMP)
        self.packet_filter.configure(configuration, former)
        self.virtual_links.configure(
            configuration.virtual_links,
            former.virtual_links,
            lambda: self.packet_filter.program(done),
        )

    def dismantle(self, done: Callable[[], None]) -> None:
        """Take all of that away again."""
        self.linkbeat.close()
        self.sysctls.release(_LOCAL_IGMP)

        def put_back() -> None:
            for path in reversed(self.sysctls.held):
                self.sysctls.release(path)
            done()

        self.packet_filter.close(lambda: self.virtual_links.close(put_back))

    def _tell_link(self, name: str) -> None:
        """An interface of our own can be used, or not any more."""
        present = None if name in self.virtual_links.failures else self.addresses.link(name)
        self._driver.feed(LinkRemoved(name) if present is None else self._as_linkbeat_says(present))

    def _tell_linkbeat(self, name: str) -> None:
        present = self.addresses.link(name)
        if present is not None:
            self._driver.feed(self._as_linkbeat_says(present))

    def _as_linkbeat_says(self, event: LinkChanged | LinkRemoved) -> LinkChanged | LinkRemoved:
        if isinstance(event, LinkChanged) and event.up and self.linkbeat.is_down(event.name):
            return msgspec.structs.replace(event, up=False)
        return event

    def _catch_up(self) -> None:
        self.addresses.monitor.catch_up()

    def _refused(self, text: str) -> None:
        logs.error(text)
        self._complain(text)

    def _warn(self, text: str) -> None:
        logs.warning(text)

    def _complain(self, text: str) -> None:
        if len(self.complaints) < COMPLAINT_LIMIT:
            self.complaints.append(text)

    def _open(self, action: OpenTransport) -> None:
        reason = self.transports.open(action.number, action.transport)
        if reason:
            self._driver.feed(TransportFailed(action.number, reason))
        else:
            self._driver.feed(TransportOpened(action.number))

    def _write(self, key: str, record: bytes, name: str) -> None:
        if not self._records.write(key, record):
            self.journal_full += 1
            if self.journal_full == 1:
                logs.error(f"({name}) no room in the journal: a restart would begin as BACKUP")

    def _remember(self, action: Remember) -> None:
        self._write(action.instance, action.record, action.instance)
        if action.stamp:
            self._records.stamp(action.instance, boottime_us(), monotonic_us())

    def _tell(self, action: StateChanged) -> None:
        name, old, new = action.instance, action.old, action.new
        cause = Cause(monotonic_us(), name, old.value, new.value, action.reason, action.priority)
        self.causes.append(cause)
        self._lines += [(_WRITERS[line.level], line.text) for line in lines_of_change(action)]

    def _tell_priority(self, action: PriorityChanged) -> None:
        # keepalived: whoever is not MASTER has a BACKUP_PRIORITY, in FAULT too.
        is_master = action.state is State.MASTER
        what = NotifyEvent.MASTER_PRIORITY if is_master else NotifyEvent.BACKUP_PRIORITY
        self.fifos.write(instance_line(action.instance, what, action.priority))

    def _set_promote_secondaries(self, action: SetPromoteSecondaries) -> None:
        path = interface_setting(action.interface, "promote_secondaries")
        if action.enabled:
            self.sysctls.hold(path, 1)
        else:
            self.sysctls.release(path)

    def _script_ended(self, instance: str, serial: int, _statuses: tuple[int | None, ...]) -> None:
        self._driver.feed(NotifyDone(instance, serial))
