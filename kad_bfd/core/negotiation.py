"""The intervals of one session: what each side says, what is in use, and the poll sequence between. Pure.

RFC 5880 §6.5 and §6.8.3. Two of our values stand twice: as advertised, and as in use while the peer has not
confirmed that it knows.
"""

from __future__ import annotations

from kad_bfd.core.timers import detection_time_us, transmit_interval_us


class Negotiation:
    """Intervals are microseconds."""

    __slots__ = (
        "_final_was_last",
        "_poll_again",
        "_poll_is_out",
        "desired_min_tx_us",
        "polling",
        "remote_desired_min_tx_us",
        "remote_detect_mult",
        "remote_min_rx_us",
        "required_min_rx_us",
        "rx_in_use_us",
        "tx_in_use_us",
    )

    def __init__(self, desired_min_tx_us: int, required_min_rx_us: int) -> None:
        self.desired_min_tx_us = self.tx_in_use_us = desired_min_tx_us
        self.required_min_rx_us = self.rx_in_use_us = required_min_rx_us
        self.polling = False
        self._final_was_last = False
        """A poll sequence has ended, and nothing but Finals came since."""
        self._poll_is_out = False
        self._poll_again = False
        self.forget_remote()

    @property
    def transmit_interval_us(self) -> int:
        """§6.8.7: what we send at, before jitter."""
        return transmit_interval_us(self.tx_in_use_us, self.remote_min_rx_us)

    @property
    def remote_interval_us(self) -> int:
        """What the peer sends at, at the most."""
        return max(self.rx_in_use_us, self.remote_desired_min_tx_us)

    @property
    def detection_time_us(self) -> int:
        """§6.8.4; 0 before the peer was heard."""
        return detection_time_us(self.remote_detect_mult, self.rx_in_use_us, self.remote_desired_min_tx_us)

    def forget_remote(self) -> None:
        """What the peer told us, at its initial value (§6.8.1). Nobody is there to confirm anything."""
        self.remote_min_rx_us = 1
        self.remote_desired_min_tx_us = 0
        self.remote_detect_mult = 0
        self._final_was_last = False
        self.end_polling()

    def set_desired_min_tx(self, value_us: int, *, is_up: bool, is_heard: bool) -> None:
        """§6.8.3: while Up, a longer interval is not used before the poll sequence has ended."""
        if value_us == self.desired_min_tx_us:
            return
        self.desired_min_tx_us = value_us
        if not is_up or value_us < self.tx_in_use_us:
            self.tx_in_use_us = value_us
        self.start_poll_sequence(is_heard=is_heard)

    def set_required_min_rx(self, value_us: int, *, is_up: bool, is_heard: bool) -> None:
        """§6.8.3: while Up, the Detection Time is not shortened before the poll sequence has ended."""
        if value_us == self.required_min_rx_us:
            return
        self.required_min_rx_us = value_us
        if not is_up or value_us > self.rx_in_use_us:
            self.rx_in_use_us = value_us
        self.start_poll_sequence(is_heard=is_heard)

    def leave_up(self) -> None:
        """Out of state Up, nothing is held back."""
        self.rx_in_use_us = self.required_min_rx_us

    def poll_bit(self) -> bool:
        """For the packet that goes out now (never for one that answers a poll).

        §6.8.3: after a sequence a packet with the Final bit clear "MUST be received … prior to the initiation
        of another": else a second answer to the one might end the other.
        """
        self._poll_is_out = self.polling and not self._final_was_last
        return self._poll_is_out

    def hear(self, *, final: bool) -> None:
        """A packet of the peer's, whose values have been taken over."""
        if final:
            self.final_received()
        else:
            self._final_was_last = False

    def final_received(self) -> None:
        """§6.8.6: "If a Poll Sequence is being transmitted … the Poll Sequence MUST be terminated."

        A Final that comes before our Poll went out answers none of it.
        """
        if not (self.polling and self._poll_is_out):
            return
        self._final_was_last = True
        if self._poll_again:
            self._poll_again = self._poll_is_out = False
        else:
            self.end_polling()

    def end_polling(self) -> None:
        """What is advertised is in use."""
        self.polling = self._poll_is_out = self._poll_again = False
        self.tx_in_use_us = self.desired_min_tx_us
        self.rx_in_use_us = self.required_min_rx_us

    def resume_polling(self) -> None:
        """A former life polled: what it sent is out, and may carry other values."""
        self.polling = self._poll_is_out = True

    def start_poll_sequence(self, *, is_heard: bool) -> None:
        """§6.5. The bit rides on the periodic packets; no packet is sent for its sake.

        A change while a poll is out needs a second sequence: the answer may be to a packet with the old
        values. A peer not heard yet learns everything from the first packet.
        """
        if is_heard:
            self._poll_again = self._poll_again or (self.polling and self._poll_is_out)
            self.polling = True
