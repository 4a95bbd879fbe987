"""Every session of the BFD child behind one ``handle`` and one deadline. Pure.

The driver hands in each event with the time, carries out the actions in order, and sends TimeReached once
:attr:`Engine.deadline_us` has come and the sockets are drained. Construct, then tell the configuration:
start, reload and restart after a crash are one path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from kad.ipc.reports import BfdReport
from kad.units import NEVER
from kad_bfd.core.actions import Action, Remember
from kad_bfd.core.context import Context
from kad_bfd.core.deadlines import Deadlines
from kad_bfd.core.demux import Demux, check_authentication, check_origin
from kad_bfd.core.events import (
    ConfigurationChanged,
    Event,
    ListenerFailed,
    ListenerOpened,
    Origin,
    PacketsReceived,
    SendingChanged,
    StopRequested,
    TimeReached,
    TransportFailed,
    TransportOpened,
)
from kad_bfd.core.lifecycle import Lifecycle
from kad_bfd.core.listeners import Listeners
from kad_bfd.core.memory import record_of
from kad_bfd.core.packet import ControlPacket, DropReason, PacketError, State, decode
from kad_bfd.core.record import encode
from kad_bfd.core.report import publication_of, report_of
from kad_bfd.core.session import Session
from kad_bfd.core.timers import LEAST_STALL_US

LONGEST_PATIENCE_US = 8_000
PATIENCE_PARTS = 16
"""A packet may lie for this part of the shortest detection time."""
ABOUT_US = 2_500
"""A session that will not have sent again this long before its detection time ends may be lost next."""
PULSES = 2
"""Times in the shortest detection time that this process shows it is alive at the least: its subscribers
take its silence for so long as the loss of the sessions."""


class Engine:
    """See the module.

    ``seed``: entropy, up to 256 bits. ``remembered``: the journal's records by session name, read at birth,
    of a life that was last seen at work ``silent_us`` ago.
    """

    def __init__(
        self, seed: int, remembered: Mapping[str, bytes] | None = None, silent_us: int = NEVER
    ) -> None:
        self._context = Context(seed)
        self._demux = Demux()
        self._deadlines = Deadlines()
        self._listeners = Listeners(self._context)
        self._lifecycle = Lifecycle(
            self._context, self._demux, self._listeners, self._deadlines, remembered or {}, silent_us
        )
        self._drops: dict[DropReason, int] = {}
        self._told_us = 0
        self._due_us = NEVER
        self._pulse_us = NEVER
        self._early_us = 0
        self._nearly_lost: Session | None = None
        self._nearly_lost_us = NEVER
        self.longest_patience_us = 0
        """How long a packet may lie unread. So long a neighbour that says it is down may not be heard."""
        self._pace_is_known = True

    def handle(self, event: Event, now_us: int) -> list[Action]:
        """Take one event and say what is to be done, in order."""
        self._told_us = now_us
        if now_us - self._due_us >= LEAST_STALL_US:
            self._context.stall_us, self._context.stall_end_us = now_us - self._due_us, now_us
        if type(event) is PacketsReceived:
            self._on_packets(event.packets, now_us)
        elif type(event) is TimeReached:
            self._on_time(now_us)
        else:
            self._dispatch(event, now_us)
        actions = self._context.actions
        if not actions:
            return []
        self._context.actions = []
        return actions

    @property
    def deadline_us(self) -> int | None:
        """When to be woken if nothing happens before: CLOCK_MONOTONIC microseconds, or None."""
        if not self._pace_is_known:
            self._find_pace()
        first_us = min(self._deadlines.first_us, self._listeners.deadline_us, self._told_us + self._pulse_us)
        self._due_us = first_us
        return first_us if first_us < NEVER else None

    @property
    def loss_us(self) -> int:
        """When a detection time ends, of a neighbour silent for most of it; NEVER: none is near.

        Something to send may be due before.
        """
        session = self._nearly_lost
        if session is not None:
            if session.is_up and session.detect_us == self._nearly_lost_us:
                return self._nearly_lost_us
            self._nearly_lost = None
        first = self._deadlines.first
        return (
            self._due_us if first is not None and first.is_up and first.detect_us == self._due_us else NEVER
        )

    def report(self) -> BfdReport:
        """The whole present state, for status."""
        return BfdReport(
            generation=self._context.generation,
            sessions=tuple(
                report_of(session, self._listeners.failure_of(session))
                for session in self._lifecycle.sessions.values()
            ),
            drops={reason.value: count for reason, count in self._drops.items()},
        )

    def _dispatch(self, event: Event, now_us: int) -> None:
        match event:
            case PacketsReceived():
                self._on_packets(event.packets, now_us)
            case TimeReached():
                self._on_time(now_us)
            case TransportOpened():
                self._on_transport(event, now_us)
            case TransportFailed():
                self._on_transport(event, now_us)
            case SendingChanged():
                self._on_sending(event, now_us)
            case ListenerOpened():
                self._listeners.opened(event.listener)
            case ListenerFailed():
                self._listeners.failed(event.listener, event.reason, now_us)
            case ConfigurationChanged():
                self._configure(event, now_us)
            case StopRequested():
                self._settle_all(self._lifecycle.stop(now_us, administrative=event.administrative))
                self._lifecycle.finish_stop()
            case _:
                assert_never(event)

    # Packets -------------------------------------------------------------------------------------------

    def _on_packets(self, packets: list[tuple[bytes, Origin, int]], now_us: int) -> None:
        """Nearly all are what the neighbour said last, word for word, the same way: only time has passed."""
        find = self._demux.by_discriminator.get
        for data, origin, at_us in packets:
            session = find(data[8:12])
            if session is not None and data == session.familiar_data and origin is session.familiar_origin:
                session.heard(at_us)
            else:
                self._receive(data, origin, at_us, now_us)
        self._serve(now_us, may_judge=False)

    def _receive(self, data: bytes, origin: Origin, at_us: int, now_us: int) -> None:
        """The one place where a packet's faults end: counted, and without effect."""
        session = None
        try:
            packet = decode(data)
            session = self._demux.session_of(packet, origin)
            check_authentication(packet)
            check_origin(session, origin)
            self._check_time_of_life(session)
            _check_order(session, at_us)
            self._hear(session, packet, at_us, now_us)
            _make_familiar(session, packet, data, origin)
        except PacketError as error:
            self._count_drop(session, error)

    def _check_time_of_life(self, session: Session) -> None:
        if self._lifecycle.stopping:
            raise PacketError(DropReason.STOPPING, "stopping")
        if not session.is_open:
            raise PacketError(DropReason.NOT_OPEN, "no socket to answer from")

    def _hear(self, session: Session, packet: ControlPacket, at_us: int, now_us: int) -> None:
        mark = len(self._context.actions)
        try:
            session.receive(packet, at_us, now_us)
        finally:
            self._settle(session, mark)

    def _count_drop(self, session: Session | None, error: PacketError) -> None:
        if session is not None:
            session.stats.count_drop(error.reason)
        else:
            self._drops[error.reason] = self._drops.get(error.reason, 0) + 1

    # Time, configuration, sockets ----------------------------------------------------------------------

    def _on_time(self, now_us: int) -> None:
        """What is due; the sockets are empty."""
        self._serve(now_us)
        self._listeners.retry(now_us)
        self._listeners.check(now_us)
        self._lifecycle.finish_stop()

    def _serve(self, now_us: int, *, may_judge: bool = True) -> None:
        """What is due, and what is nearly due: one wake-up for all of it.

        Without ``may_judge``, while packets may be waiting, nobody is declared lost.
        """
        actions, push = self._context.actions, self._deadlines.push
        for session in self._deadlines.take(now_us + self._early_us):
            if session.detect_us > now_us and session.rare_us > now_us:
                session.on_time(now_us)
                if not session.has_left:
                    push(session)
                    if session.detect_us < session.next_transmit_us + ABOUT_US:
                        self._note_nearly_lost(session)
                else:
                    self._lifecycle.finish(session)
            elif may_judge:
                mark = len(actions)
                session.on_time(now_us)
                self._settle(session, mark)
            else:
                push(session)

    def _note_nearly_lost(self, session: Session) -> None:
        if self.loss_us > session.detect_us:
            self._nearly_lost, self._nearly_lost_us = session, session.detect_us

    def _configure(self, event: ConfigurationChanged, now_us: int) -> None:
        if self._lifecycle.stopping:
            return
        self._settle_all(self._lifecycle.configure(event, now_us))
        self._pace_is_known = False

    def _on_transport(self, event: TransportOpened | TransportFailed, now_us: int) -> None:
        session = self._lifecycle.by_number.get(event.transport)
        if session is None:
            return
        mark = len(self._context.actions)
        if isinstance(event, TransportOpened):
            session.opened(event.port, now_us)
        else:
            session.failed(event.reason, now_us)
        self._settle(session, mark)
        self._lifecycle.finish_stop()

    def _on_sending(self, event: SendingChanged, now_us: int) -> None:
        session = self._lifecycle.by_number.get(event.transport)
        if session is not None:
            session.sending_changed(event.failure, now_us)

    # What must be known before it shows ----------------------------------------------------------------

    def _settle_all(self, sessions: list[Session]) -> None:
        """For what has sent nothing that depends on the record: it follows what was done."""
        for session in sessions:
            self._settle(session, len(self._context.actions))

    def _settle(self, session: Session, mark: int) -> None:
        """After anything but a plain transmission: the record and the subscribers come before what is sent.

        ``mark``: where the session's actions begin.
        """
        if session.has_left:
            self._lifecycle.finish(session)
            return
        self._deadlines.push(session)
        if session.is_leaving:
            return
        publication = publication_of(session)
        if publication != session.published:
            session.published = publication
            self._context.actions.insert(mark, publication)
            self._pace_is_known = False
            if not publication.up:
                self._listeners.lose(self._told_us)
        record = record_of(session)
        if record != session.written:
            session.written = record
            self._context.actions.insert(mark, Remember(session.config.name, encode(record)))

    def _find_pace(self) -> None:
        """The most pressing session sets it: how often we show life, how long packets lie or leave early."""
        self._pace_is_known = True
        sessions = self._lifecycle.sessions.values()
        shortest_us = min((s.detection_time_us for s in sessions if s.is_up), default=NEVER)
        self._pulse_us = shortest_us // PULSES if shortest_us < NEVER else NEVER
        self.longest_patience_us = min(shortest_us // PATIENCE_PARTS, LONGEST_PATIENCE_US)
        self._early_us = min((s.early_us for s in sessions), default=0)


def _check_order(session: Session, at_us: int) -> None:
    """Raises PacketError for what came before the packet heard last, and was read after it.

    What names no session of ours lies in another socket than what does: a neighbour's first Down must not
    undo the Up that followed it.
    """
    if at_us < session.heard_us:
        raise PacketError(DropReason.OVERTAKEN, "the neighbour has said something else since")


def _make_familiar(session: Session, packet: ControlPacket, data: bytes, origin: Origin) -> None:
    """The same packet again would change nothing, unless it asks or answers."""
    steady = session.is_up and packet.state is State.UP and not (packet.poll or packet.final)
    session.familiar_data = data if steady else b""
    session.familiar_origin = origin
