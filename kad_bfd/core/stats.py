"""Counters of a session. Pure."""

from kad_bfd.core.packet import DropReason

COUNTERS = (
    "packets_received",
    "packets_sent",
    "polls_received",
    "polls_unanswered",
    "finals_received",
    "times_up",
    "times_down",
    "detections",
    "stalls",
    "slowdowns",
)


class Statistics:
    """Counts since the process began (a reload keeps them)."""

    __slots__ = (*COUNTERS, "drops")

    def __init__(self) -> None:
        self.packets_received = 0
        """Those that counted."""
        self.packets_sent = 0
        self.polls_received = 0
        self.polls_unanswered = 0
        """They came too soon after one that was answered."""
        self.finals_received = 0
        self.times_up = 0
        self.times_down = 0
        """Out of Up, whatever for."""
        self.detections = 0
        """Detection times that expired in Init or Up."""
        self.stalls = 0
        """Detection times put off because this process had not run."""
        self.slowdowns = 0
        """Times that congestion doubled the intervals (RFC 5880 §7)."""
        self.drops: dict[DropReason, int] = {}

    def count_drop(self, reason: DropReason) -> None:
        self.drops[reason] = self.drops.get(reason, 0) + 1

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in COUNTERS}
