"""Carries out the engine's actions and brings back what comes of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import assert_never

from kad.ipc.bfd_feed import BfdPublisher
from kad.ipc.bfd_view import BfdLevel
from kad.ipc.reports import Cause
from kad.runtime import logs
from kad.runtime.clock import monotonic_us
from kad.runtime.driver import Driver
from kad.runtime.journal import Records
from kad_bfd.core.actions import (
    Action,
    CheckInterface,
    CloseListener,
    CloseTransport,
    Forget,
    Log,
    LogLevel,
    OpenListener,
    OpenTransport,
    Publish,
    Remember,
    SendPacket,
    SessionChanged,
    Stopped,
    Unpublish,
)
from kad_bfd.core.events import (
    Event,
    ListenerFailed,
    ListenerOpened,
    PacketsReceived,
    SendingChanged,
    TransportFailed,
    TransportOpened,
)
from kad_bfd.core.packet import Diagnostic, State
from kad_bfd.io.reading import have_packets_stamped
from kad_bfd.io.sockets import Arrived, Listeners
from kad_bfd.io.transports import Transports

ACT_TAKES_S = 0.001
"""What subscribers need until a loss is acted on, most often."""
CAUSE_LIMIT = 64
"""Transitions kept for the status of all sessions together."""

_WRITERS = {
    LogLevel.ERROR: logs.error,
    LogLevel.WARNING: logs.warning,
    LogLevel.INFO: logs.info,
    LogLevel.DEBUG: logs.debug,
}


class Shell:
    """Everything outside the engine: sockets, journal, log, subscribers."""

    def __init__(
        self,
        records: Records,
        *,
        on_stopped: Callable[[], None],
        longest_patience_us: Callable[[], int],
        is_alive: Callable[[int], None],
    ) -> None:
        """``is_alive`` is told when we are, CLOCK_MONOTONIC µs."""
        self._records = records
        self._stamping = have_packets_stamped()
        self._is_alive = is_alive
        self._on_stopped = on_stopped
        self._longest_patience_us = longest_patience_us
        self.causes: deque[Cause] = deque(maxlen=CAUSE_LIMIT)
        self.journal_full = 0
        self.published: dict[str, Publish] = {}
        self._has_told = False
        """A loss, in this turn."""
        self.publisher: BfdPublisher | None = None
        """Open once the first configuration runs: a subscriber never sees a world without sessions."""

    def attach(self, driver: Driver[Event, Action]) -> None:
        self._driver = driver
        self._driver.each_turn(self.next_turn)
        self.listeners = Listeners(
            self._hear,
            self._add_reader,
            driver.remove_reader,
            self._longest_patience_us,
            self._set_patience,
        )
        self.transports = Transports(self._lose_transport, self._tell_sending)

    def perform(self, action: Action) -> None:
        """One action, now. The packets come first: there are the most of them; then what is urgent."""
        match action:
            case SendPacket():
                self.transports.send(action)
            case Remember():
                self._remember(action)
            case Publish():
                self._publish(action)
            case Unpublish():
                self._unpublish(action)
            case SessionChanged():
                self._tell(action)
            case OpenTransport():
                self._open_transport(action)
            case CloseTransport():
                self.transports.close(action.number)
            case OpenListener():
                self._open_listener(action)
            case CloseListener():
                self.listeners.close(action.listener)
            case CheckInterface():
                self._check_interface(action)
            case Forget():
                self._records.delete(action.session)
            case Log():
                _WRITERS[action.level](action.text)
            case Stopped():
                self._on_stopped()
            case _:
                assert_never(action)

    def open_publisher(self, publisher: BfdPublisher) -> None:
        """From here on subscribers are told; what is so far goes into their first snapshot."""
        self.publisher = publisher
        for action in self.published.values():
            self._publish(action)

    def close(self) -> None:
        if self.publisher is not None:
            self.publisher.close()
        self.listeners.close_all()
        self.transports.close_all()
        self._stamping.close()

    def counters(self) -> dict[str, int]:
        """What went on outside the engine, for status; errors that never happened are left out."""
        counted = {"journal_full": self.journal_full}
        counted.update({f"send {name}": n for name, n in self.transports.send_errors.items()})
        counted.update(self.listeners.counters())
        return counted

    def next_turn(self) -> bool:
        """At the end of each turn that changed anything: subscribers are told."""
        self._has_told = False
        if self.publisher is not None:
            self.publisher.flush()
        return False

    def _add_reader(self, descriptor: int, drain: Callable[[], bool]) -> None:
        self._driver.add_reader(descriptor, drain, patient=True)

    def _hear(self, packets: Arrived) -> None:
        self._driver.feed(PacketsReceived(packets))

    def _set_patience(self, patience_us: int) -> None:
        self._driver.patience_us = patience_us

    def _lose_transport(self, number: int, reason: str) -> None:
        self._driver.feed(TransportFailed(number, reason))

    def _tell_sending(self, number: int, failure: str) -> None:
        self._driver.feed(SendingChanged(number, failure))

    def _open_transport(self, action: OpenTransport) -> None:
        port, reason = self.transports.open(action.number, action.transport, action.port)
        if reason:
            self._driver.feed(TransportFailed(action.number, reason))
        else:
            self._driver.feed(TransportOpened(action.number, port))

    def _open_listener(self, action: OpenListener) -> None:
        reason = self.listeners.open(action.listener, action.tag)
        if reason:
            self._driver.feed(ListenerFailed(action.listener, reason))
        else:
            self._driver.feed(ListenerOpened(action.listener))

    def _check_interface(self, action: CheckInterface) -> None:
        listener = action.listener
        if listener is not None and (reason := self.listeners.loss(listener)):
            # Told once: another loss would put off the next attempt.
            self.listeners.close(listener)
            self._driver.feed(ListenerFailed(listener, reason))
        for number in action.transports:
            if reason := self.transports.loss(number):
                self.transports.close(number)
                self._lose_transport(number, reason)

    def _publish(self, action: Publish) -> None:
        self.published[action.session] = action
        if self.publisher is not None:
            level = BfdLevel(action.session, action.up, action.detection_time_us)
            self.publisher.tell(level, to_vrrp=action.to_vrrp, to_checker=action.to_checker)
            if not action.up and not self._has_told:
                # Before the log has its say. Of many at once the rest goes together, at the end of the turn.
                self._has_told = True
                self.publisher.flush()
                # Its writer would be woken on the processor on which the subscriber is at work now.
                logs.hold()
                self._driver.loop.call_later(ACT_TAKES_S, logs.release)

    def _unpublish(self, action: Unpublish) -> None:
        self.published.pop(action.session, None)
        if self.publisher is not None:
            self.publisher.forget(action.session)

    def _remember(self, action: Remember) -> None:
        # The next life asks how old a record is. One that came up after a long sleep was written just now,
        # and not when this process last went to sleep.
        self._is_alive(monotonic_us())
        if not self._records.write(action.session, action.record):
            self.journal_full += 1
            if self.journal_full == 1:
                logs.error(f"({action.session}) no room in the journal: a restart would begin Down")

    def _tell(self, action: SessionChanged) -> None:
        """keepalived's wording as far as it goes: people's scripts and alerts look for it."""
        name, old, new = action.session, action.old.name, action.new.name
        self.causes.append(Cause(monotonic_us(), name, old, new, action.reason, 0))
        diagnostics = ""
        if action.old is State.UP:
            local, remote = (_words(d) for d in (action.local_diagnostic, action.remote_diagnostic))
            diagnostics = f" (Local diagnostic - {local}, Remote diagnostic - {remote})"
        logs.info(f"({name}) Entering {_STATE_WORDS[action.new]} state{diagnostics}")
        logs.info(f"({name}) {action.reason}")


def _words(diagnostic: int) -> str:
    return _DIAGNOSTIC_WORDS.get(diagnostic, f"Unknown {diagnostic}")


_STATE_WORDS = {State.UP: "Up", State.DOWN: "Down", State.INIT: "Init", State.ADMIN_DOWN: "AdminDown"}
_DIAGNOSTIC_WORDS: dict[int, str] = {
    Diagnostic.NONE: "No Diagnostic",
    Diagnostic.DETECTION_TIME_EXPIRED: "Control Detection Time Expired",
    Diagnostic.ECHO_FAILED: "Echo Function Failed",
    Diagnostic.NEIGHBOR_SIGNALED_DOWN: "Neighbor Signaled Session Down",
    Diagnostic.FORWARDING_PLANE_RESET: "Forwarding Plane Reset",
    Diagnostic.PATH_DOWN: "Path Down",
    Diagnostic.CONCATENATED_PATH_DOWN: "Concatenated Path Down",
    Diagnostic.ADMINISTRATIVELY_DOWN: "Administratively Down",
    Diagnostic.REVERSE_CONCATENATED_PATH_DOWN: "Reverse Concatenated Path Down",
}
