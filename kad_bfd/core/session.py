"""One session: the state variables of RFC 5880 §6.8.1 and the procedures of §6.5 to §6.8. Pure.

Only :meth:`Session._enter` moves the state. The intervals and the poll sequence are in ``negotiation.py``.

Left out, with room for both: authentication (a packet that carries it is dropped, as §6.8.6 demands where
none is in use) and the echo function (we advertise 0). We do not ask for demand mode; the peer's is honoured.
"""

from __future__ import annotations

from kad.config.model.bfd import BfdInstance
from kad.units import NEVER
from kad_bfd.core.actions import LogLevel, OpenTransport, Publish, SendPacket, SessionChanged, Transport
from kad_bfd.core.congestion import CALM_US, Congestion
from kad_bfd.core.context import Context
from kad_bfd.core.negotiation import Negotiation
from kad_bfd.core.packet import ControlPacket, Diagnostic, DropReason, PacketError, State, contents, encode
from kad_bfd.core.record import Record
from kad_bfd.core.states import TRANSITIONS
from kad_bfd.core.stats import Statistics
from kad_bfd.core.timers import LEAST_STALL_US, SLOW_TX_US, early_window_us, jitter_range_us

RETRY_US = 1_000_000
"""Between two attempts to open a socket."""
FINAL_GAP_US = 1_000
"""Polls are answered no more often (§6.8.7 allows a limit up to the interval we advertise, which is never
less): a flood of polls is not answered by a flood."""
FAREWELLS = 3
"""Packets a session takes its leave with."""


class Session:
    """See the module. The engine owns it, hands it packets that are its own, and asks for its deadline."""

    # More than the keys that dictionaries share: without slots every access would cost more.
    # fmt: off
    __slots__ = (
        "_congestion", "_context", "_draw", "_farewell_gap_us", "_farewells_left", "_jitter_us",
        "_last_final_us", "_last_transmit_us", "_least_gap_us", "_owes_packet", "_period_us", "_periodic",
        "_said", "_stalled", "config", "detect_mult", "detect_us", "detection_time_us", "early_us", "failure",
        "familiar_data", "familiar_origin", "has_left", "heard_us", "intervals", "is_open", "local_diag",
        "local_discr", "next_transmit_us", "number", "port", "published", "queued_us", "rare_us", "reason",
        "remote_demand", "remote_diag", "remote_discr", "remote_state", "since_us", "state", "stats",
        "unsent", "unsent_us", "written"
    )
    # fmt: on

    def __init__(
        self, context: Context, config: BfdInstance, number: int, local_discr: int, now_us: int
    ) -> None:
        self._context = context
        self._draw = context.variety.draw
        self.config = config
        self.number = number
        """Of its transport."""
        self.stats = Statistics()
        self.reason = ""
        self.since_us = now_us
        self.written: Record | None = None
        """The record as the journal has it."""
        self.published: Publish | None = None
        self._begin_variables(local_discr)
        self._begin_timers(now_us)

    def _begin_variables(self, local_discr: int) -> None:
        """RFC 5880 §6.8.1, each at its initial value."""
        config = self.config
        self.state = State.DOWN
        self.local_discr = local_discr
        self.local_diag: int = Diagnostic.NONE
        self.intervals = Negotiation(self._idle_tx_us, config.min_rx_us)
        self._congestion = Congestion()
        self.detect_mult = config.multiplier
        self.remote_discr = 0
        self.remote_state = State.DOWN
        self.remote_diag = 0
        self.remote_demand = False

    def _begin_timers(self, now_us: int) -> None:
        self.port = 0
        self.is_open = False
        self.failure = ""
        """Why there is no socket."""
        self.unsent = ""
        """Why packets do not leave, though there is one."""
        self.unsent_us = now_us - RETRY_US
        """When the last failure was over."""
        self.rare_us = NEVER
        """When to try for a socket again; with one, when to ease off what congestion asked for."""
        self.next_transmit_us = NEVER
        self.detect_us = NEVER
        self.queued_us = NEVER
        """Of the entry that counts in the engine's queue of deadlines."""
        self._last_transmit_us = now_us - RETRY_US
        self._last_final_us = now_us - RETRY_US
        self._period_us = NEVER
        self.early_us = 0
        self._least_gap_us = self._jitter_us = 0
        self._periodic: SendPacket | None = None
        self._said = b""
        """The last packet's contents."""
        self._owes_packet = False
        self._stalled = False
        self._farewells_left = 0
        self._farewell_gap_us = 0
        self.has_left = False
        self.detection_time_us = 0
        self.familiar_data = b""
        self.familiar_origin: object = None
        self.heard_us = 0
        """When the last packet that counted came."""
        self._recalculate()

    # What others ask -------------------------------------------------------------------------------------

    @property
    def transport(self) -> Transport:
        config = self.config
        address, source = config.neighbor_address, config.source_address
        return Transport(address, source, config.ttl, config.multihop, config.interface)

    @property
    def deadline_us(self) -> int:
        """When this session wants to be called if nothing happens before."""
        first_us = self.next_transmit_us if self.next_transmit_us < self.detect_us else self.detect_us
        return first_us if first_us < self.rare_us else self.rare_us

    @property
    def is_up(self) -> bool:
        return self.state is State.UP

    @property
    def is_heard(self) -> bool:
        """The peer's discriminator is known."""
        return self.remote_discr != 0

    @property
    def is_leaving(self) -> bool:
        return self._farewells_left > 0 or self.has_left

    @property
    def _idle_tx_us(self) -> int:
        """§6.8.3: no less than a second while the session is not Up."""
        return max(SLOW_TX_US, self.config.idle_tx_us)

    # Sockets ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Ask for a socket; packets wait for the answer."""
        self.rare_us = NEVER
        port = self.port or self._context.variety.number(16) % 16384 + 49152
        self._context.emit(OpenTransport(self.number, self.transport, port))

    def opened(self, port: int, now_us: int) -> None:
        self.port = port
        if self.failure:
            self._context.log(LogLevel.INFO, f"({self.config.name}) has a socket again")
        self.failure = ""
        self.sending_changed("", now_us)
        self.is_open = True
        self._schedule_easing(now_us)
        self._transmit(now_us)
        self._reschedule(now_us)

    def failed(self, reason: str, now_us: int) -> None:
        """keepalived calls this AdminDown; nothing of it is administrative, so our state stays."""
        if reason != self.failure:
            self._context.log(LogLevel.WARNING, f"({self.config.name}) has no socket: {reason}")
        self.failure = reason
        self.is_open = False
        if self.is_leaving:
            self.cease()
            return
        self.rare_us = now_us + RETRY_US
        self._reschedule(now_us)

    def sending_changed(self, failure: str, now_us: int) -> None:
        """Logged once a streak: by turns sent and not sent, within a second, is one."""
        if failure and not self.unsent and now_us - self.unsent_us >= RETRY_US:
            self._context.log(LogLevel.WARNING, f"({self.config.name}) cannot send: {failure}")
        if self.unsent:
            self.unsent_us = now_us
        self.unsent = f"cannot send: {failure}" if failure else ""

    # §6.8.6 Reception ------------------------------------------------------------------------------------

    def receive(self, packet: ControlPacket, at_us: int, now_us: int) -> None:
        """From "Set bfd.RemoteDiscr" on; everything before has been checked. It came at ``at_us``.

        Raises PacketError where the packet does not count for the detection time.
        """
        self._periodic = None
        self.remote_discr = packet.my_discriminator
        self.remote_state = packet.state
        self.remote_diag = packet.diagnostic
        self.remote_demand = packet.demand
        intervals = self.intervals
        intervals.remote_min_rx_us = packet.required_min_rx_us
        intervals.remote_desired_min_tx_us = packet.desired_min_tx_us
        intervals.remote_detect_mult = packet.detect_mult
        self.stats.finals_received += packet.final
        intervals.hear(final=packet.final)
        self._recalculate()
        if self.state is State.ADMIN_DOWN:
            raise PacketError(DropReason.ADMIN_DOWN, "administratively down")
        self._advance(packet.state, now_us)
        if packet.poll:
            self._answer_poll(now_us)
        self._pay(now_us)
        self._poll_for_news()
        self._reschedule(now_us)
        self.heard(at_us)

    def heard(self, at_us: int) -> None:
        """A packet that counts came then: the detection time begins again (§6.8.4)."""
        self.stats.packets_received += 1
        self.heard_us = at_us
        due_us = at_us + self.detection_time_us
        # It never moves nearer: a packet before this one may have been given the time it was read at.
        if due_us > self.detect_us or self.detect_us == NEVER:
            self.detect_us = due_us
        self._stalled = False

    def _advance(self, received: State, now_us: int) -> None:
        """The state machine of §6.8.6."""
        found = TRANSITIONS.get((self.state, received))
        if found is not None:
            diagnostic = Diagnostic.NEIGHBOR_SIGNALED_DOWN if found[0] is State.DOWN else None
            self._enter(*found, now_us, diagnostic)

    # §6.8.4 Detection ------------------------------------------------------------------------------------

    def on_time(self, now_us: int) -> None:
        """Whatever is due, what is lost before what is sent."""
        if self.detect_us <= now_us:
            self._expire(now_us)
        if self.rare_us <= now_us:
            if self.is_open:
                self._ease(now_us)
            else:
                self.open()
        if self.next_transmit_us <= now_us + self.early_us:
            if self._farewells_left:
                self._bid_farewell(now_us)
            else:
                self._transmit_periodic(now_us)

    def _expire(self, now_us: int) -> None:
        """A Detection Time without a packet."""
        if self._put_off_for_stall(now_us):
            return
        if self.state in (State.INIT, State.UP):
            self.stats.detections += 1
            reason = f"nothing heard for {self.detection_time_us / 1000:g} ms"
            self._enter(State.DOWN, reason, now_us, Diagnostic.DETECTION_TIME_EXPIRED)
            # Said before the discriminator is forgotten: a passive system may not speak afterwards. There is
            # nobody to poll.
            self.intervals.end_polling()
            self._pay(now_us)
        # §6.8.1: bfd.RemoteDiscr "MUST be set to zero" after a Detection Time without packets.
        self._forget_remote()
        self._recalculate()
        self._reschedule(now_us)

    def _put_off_for_stall(self, now_us: int) -> bool:
        """Whether to wait a little longer, since this process did not run, and perhaps nothing did.

        A machine that stood still received nothing either. The sockets are empty by now; a living peer speaks
        within one interval of the end of the stall. Once in a silence: a starved process still detects.
        """
        interval_us, context = self.intervals.remote_interval_us, self._context
        until_us = context.stall_end_us + interval_us
        is_short = context.stall_us < max(LEAST_STALL_US, interval_us // 4)
        if self._stalled or not self.is_up or is_short or now_us >= until_us:
            return False
        self._stalled = True
        self.stats.stalls += 1
        self.detect_us = until_us
        return True

    def _forget_remote(self) -> None:
        """Everything the peer told us, at its initial value."""
        self._periodic = None
        self.detect_us = NEVER
        self.remote_discr = 0
        self.remote_state = State.DOWN
        self.remote_demand = False
        self.intervals.forget_remote()

    # §6.5 Poll sequences, §6.8.3 timer manipulation ------------------------------------------------------

    def reconfigure(self, config: BfdInstance, now_us: int) -> None:
        """Take over what a reload changed. Identity (neighbour, port, interface) is the same."""
        before, self.config = self.transport, config
        # What was heard before has to stand the checks of now.
        self.familiar_data, self._periodic = b"", None
        # §6.8.12: a changed multiplier goes out with the next packet, without a poll sequence.
        self.detect_mult = config.multiplier
        self._set_intervals()
        self._poll_for_news()
        if self.transport != before:
            self.is_open = False
            self.open()
        self._recalculate()
        self._reschedule(now_us)

    def _set_intervals(self) -> None:
        stretched, how = self._congestion.interval_us, {"is_up": self.is_up, "is_heard": self.is_heard}
        self.intervals.set_required_min_rx(stretched(self.config.min_rx_us), **how)
        wanted_us = stretched(self.config.min_tx_us) if self.is_up else self._idle_tx_us
        self.intervals.set_desired_min_tx(wanted_us, **how)

    def _poll_for_news(self) -> None:
        """§6.6: with demand mode active, what would be said otherwise than last begins a poll sequence."""
        if self._demand_is_active and not self.intervals.polling and contents(self._packet()) != self._said:
            self.intervals.start_poll_sequence(is_heard=True)

    def _answer_poll(self, now_us: int) -> None:
        """§6.8.7: at once, whatever the transmission timer, the state or demand mode say."""
        self.stats.polls_received += 1
        if now_us - self._last_final_us < FINAL_GAP_US:
            self.stats.polls_unanswered += 1
            return
        if self._may_speak:
            self._last_final_us = now_us
            self._send(self._packet(final=True))
            self._owes_packet = False  # this one told the new state

    # §6.8.7 Transmission ---------------------------------------------------------------------------------

    @property
    def _may_speak(self) -> bool:
        """A passive system is silent until it has heard somebody."""
        return self.is_open and (self.is_heard or not self.config.passive)

    @property
    def _may_speak_periodically(self) -> bool:
        if not self._may_speak or self.is_leaving or self.intervals.remote_min_rx_us == 0:
            return False
        return self.intervals.polling or not self._demand_is_active

    @property
    def _demand_is_active(self) -> bool:
        """§6.6: on the remote system, that is."""
        return self.remote_demand and self.is_up and self.remote_state is State.UP

    def _packet(self, *, final: bool = False) -> bytes:
        return encode(
            ControlPacket(
                state=self.state,
                my_discriminator=self.local_discr,
                your_discriminator=self.remote_discr,
                detect_mult=self.detect_mult,
                desired_min_tx_us=self.intervals.desired_min_tx_us,
                required_min_rx_us=self.intervals.required_min_rx_us,
                diagnostic=self.local_diag,
                poll=not final and self.intervals.poll_bit(),
                final=final,
            )
        )

    def _send(self, data: bytes) -> None:
        self.stats.packets_sent += 1
        self._said = contents(data)
        self._context.emit(SendPacket(self.number, data))

    def _transmit(self, now_us: int) -> None:
        """One packet now; the transmission timer begins again."""
        self._owes_packet = False
        if self._may_speak:
            self._transmit_periodic(now_us)

    def _transmit_periodic(self, now_us: int) -> None:
        packet = self._periodic
        if packet is None:
            packet = self._periodic = SendPacket(self.number, self._packet())
            self._said = contents(packet.data)
        self.stats.packets_sent += 1
        self._context.actions.append(packet)
        self._last_transmit_us = now_us
        if self._period_us < NEVER:
            self.next_transmit_us = now_us + self._least_gap_us + (self._jitter_us * self._draw() >> 16)
        else:
            self.next_transmit_us = NEVER

    def _pay(self, now_us: int) -> None:
        """§6.8.7: what has changed is told at once, between periodic packets."""
        if self._owes_packet:
            self._transmit(now_us)

    def _recalculate(self) -> None:
        """The Detection Time of §6.8.4. It counts from the last packet: a standing deadline moves with it."""
        before_us, self.detection_time_us = self.detection_time_us, self.intervals.detection_time_us
        if self.detect_us < NEVER:
            self.detect_us += self.detection_time_us - before_us

    def _reschedule(self, now_us: int) -> None:
        """Have the transmission timer follow the interval, and whether to send at all."""
        if self._farewells_left:
            return
        period_us = self.intervals.transmit_interval_us if self._may_speak_periodically else NEVER
        self._least_gap_us, self._jitter_us = jitter_range_us(period_us, self.detect_mult)
        self.early_us = early_window_us(period_us, self.detect_mult)
        if period_us == self._period_us:
            return
        self._period_us = period_us
        if period_us == NEVER:
            self.next_transmit_us = NEVER
            return
        gap_us = self._least_gap_us + (self._jitter_us * self._draw() >> 16)
        self.next_transmit_us = max(now_us, self._last_transmit_us + gap_us)

    # §6.2 States -----------------------------------------------------------------------------------------

    def _enter(self, state: State, reason: str, now_us: int, diagnostic: int | None = None) -> None:
        """The only way into another state. A packet is owed afterwards (:meth:`_pay`)."""
        old, self.state = self.state, state
        up_us, self.since_us = now_us - self.since_us, now_us
        self.reason = reason
        self.familiar_data, self._periodic, self._owes_packet = b"", None, True
        if diagnostic is not None:
            self.local_diag = diagnostic
        self.stats.times_up += state is State.UP
        self.stats.times_down += old is State.UP
        if old is State.UP:
            self._judge_congestion(up_us)
        self._schedule_easing(now_us)
        self._set_intervals()
        if not self.is_up:
            self.intervals.leave_up()
        self._recalculate()
        name = self.config.name
        self._context.emit(SessionChanged(name, old, state, reason, self.local_diag, self.remote_diag))

    # §7 Congestion ---------------------------------------------------------------------------------------

    def _judge_congestion(self, up_us: int) -> None:
        """Over a single hop (there it is a SHOULD) intervals stay as configured; but a process with too much
        to do sends less there too: what was late is not made up for."""
        if self.config.multihop and self._congestion.lost(up_us, self.local_diag, self.remote_diag):
            self.stats.slowdowns += 1
            again = f"({self.config.name}) lost again {up_us / 1e6:.1f} s after it came up: congested?"
            self._context.log(LogLevel.WARNING, f"{again} Fewer packets are sent")

    def _ease(self, now_us: int) -> None:
        """A while without a loss: a step back towards what is configured."""
        self._congestion.ease()
        self._periodic = None
        self._set_intervals()
        self._recalculate()
        self._schedule_easing(now_us)
        self._reschedule(now_us)

    def _schedule_easing(self, now_us: int) -> None:
        if self.is_open:
            self.rare_us = now_us + CALM_US if self.is_up and self._congestion.doublings else NEVER

    # Leaving ---------------------------------------------------------------------------------------------

    def stop(self, gap_us: int, now_us: int) -> None:
        """The daemon stops: state Down with "Path Down", three times, so that every peer acts at once.

        Not AdminDown: RFC 5882 §3.2 has its clients ignore that, and keepalived's do.
        """
        self._leave(State.DOWN, Diagnostic.PATH_DOWN, "stopping", gap_us, now_us)

    def shut_down(self, now_us: int, reason: str = "no longer configured") -> None:
        """§6.8.16: an administrative end, told for as long as the peer would wait (at most a second)."""
        patience_us = self.detect_mult * self.intervals.transmit_interval_us
        gap_us = min(patience_us, RETRY_US) // (FAREWELLS - 1)
        self._leave(State.ADMIN_DOWN, Diagnostic.ADMINISTRATIVELY_DOWN, reason, gap_us, now_us)

    def _leave(self, state: State, diagnostic: Diagnostic, reason: str, gap_us: int, now_us: int) -> None:
        if self.state is not state:
            self._enter(state, reason, now_us, diagnostic)
        self.local_diag = diagnostic
        self.intervals.end_polling()
        self._periodic, self._owes_packet = None, False
        self.detect_us = self.rare_us = NEVER
        self._farewell_gap_us = gap_us
        self.early_us = 0
        self._farewells_left = FAREWELLS
        self._bid_farewell(now_us)

    def cease(self) -> None:
        """What is left of the leave is not taken."""
        self._farewells_left, self.has_left, self.next_transmit_us = 0, True, NEVER

    def _bid_farewell(self, now_us: int) -> None:
        """One of the last packets. They may follow each other faster than §6.8.7 has periodic ones."""
        self._farewells_left -= 1
        self.next_transmit_us = now_us + self._farewell_gap_us
        if self._may_speak:
            self._send(self._packet())
        if not self._may_speak or not self._farewells_left:
            self.cease()
