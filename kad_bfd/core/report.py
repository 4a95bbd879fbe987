"""What the engine tells about its sessions. Pure."""

from kad.ipc.reports import BfdSessionReport
from kad_bfd.core.actions import Publish
from kad_bfd.core.packet import Diagnostic
from kad_bfd.core.session import Session

_NAMES = {diagnostic.value: diagnostic.name for diagnostic in Diagnostic}


def diagnostic_name(value: int) -> str:
    """Unassigned values of a peer are shown as numbers."""
    return _NAMES.get(value, str(value))


def publication_of(session: Session) -> Publish:
    """What subscribers know of it."""
    config = session.config
    return Publish(
        config.name,
        session.is_up,
        session.detection_time_us if session.is_up else 0,
        config.events_to_vrrp,
        config.events_to_checker,
    )


def report_of(session: Session, deafness: str) -> BfdSessionReport:
    """The whole present state of one session. ``deafness``: why nothing is received for it."""
    config, intervals = session.config, session.intervals
    return BfdSessionReport(
        name=config.name,
        state=session.state.name,
        since_us=session.since_us,
        neighbor=config.neighbor_address,
        source=config.source_address,
        interface=config.interface,
        port=session.port,
        multihop=config.multihop,
        passive=config.passive,
        reason=session.reason,
        failure=session.failure or deafness or session.unsent,
        diagnostic=diagnostic_name(session.local_diag),
        local_discriminator=session.local_discr,
        remote_discriminator=session.remote_discr,
        remote_state=session.remote_state.name,
        remote_diagnostic=diagnostic_name(session.remote_diag),
        remote_demand=session.remote_demand,
        detect_multiplier=session.detect_mult,
        desired_min_tx_us=intervals.desired_min_tx_us,
        required_min_rx_us=intervals.required_min_rx_us,
        transmit_interval_us=intervals.transmit_interval_us,
        remote_detect_multiplier=intervals.remote_detect_mult,
        remote_desired_min_tx_us=intervals.remote_desired_min_tx_us,
        remote_min_rx_us=intervals.remote_min_rx_us,
        detection_time_us=session.detection_time_us,
        polling=intervals.polling,
        counters=session.stats.as_dict(),
        drops={reason.value: count for reason, count in session.stats.drops.items()},
    )
