"""A session's variables to its journal record, and back in the next life. Pure."""

from __future__ import annotations

from kad_bfd.core.packet import State
from kad_bfd.core.record import RECORD_VERSION, Record
from kad_bfd.core.session import Session

_INTERVALS = (
    "remote_min_rx_us",
    "remote_desired_min_tx_us",
    "remote_detect_mult",
    "desired_min_tx_us",
    "required_min_rx_us",
    "tx_in_use_us",
    "rx_in_use_us",
)


def record_of(session: Session) -> Record:
    """What the next life must know."""
    intervals, config = session.intervals, session.config
    return Record(
        RECORD_VERSION,
        (config.neighbor_address, config.source_address, config.multihop, config.interface),
        session.port,
        session.local_discr,
        session.remote_discr,
        session.state,
        session.since_us,
        session.local_diag,
        session.remote_state,
        session.remote_diag,
        session.remote_demand,
        intervals.remote_min_rx_us,
        intervals.remote_desired_min_tx_us,
        intervals.remote_detect_mult,
        session.detect_mult,
        intervals.desired_min_tx_us,
        intervals.required_min_rx_us,
        intervals.tx_in_use_us,
        intervals.rx_in_use_us,
        intervals.polling,
    )


def resume(session: Session, record: Record, silent_us: int, now_us: int) -> None:
    """Go on where a former life stopped, ``silent_us`` ago.

    The peer has seen nothing if it was not silent for longer than the peer waits. Otherwise this begins as
    Down, but with the discriminator and port the peer knows.
    """
    session.port = record.port
    if record.state is State.ADMIN_DOWN or silent_us >= record.patience_us:
        return
    session.state, session.since_us = record.state, record.since_us
    session.reason = "resumed after a crash"
    session.local_diag = record.local_diag
    session.remote_discr, session.remote_state = record.remote_discr, record.remote_state
    session.remote_diag, session.remote_demand = record.remote_diag, record.remote_demand
    session.detect_mult = record.detect_mult
    for name in _INTERVALS:
        setattr(session.intervals, name, getattr(record, name))
    if record.polling:
        session.intervals.resume_polling()
    # A reload may have come in between.
    session.reconfigure(session.config, now_us)
    if session.is_heard:
        # How long the peer had been silent before is not known: it gets a whole detection time.
        session.detect_us = now_us + session.detection_time_us
