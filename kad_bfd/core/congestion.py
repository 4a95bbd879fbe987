"""Congestion on a path across routers: RFC 5880 §7. Pure.

"When BFD is used across multiple hops, a congestion control mechanism MUST be implemented, and when
congestion is detected, the BFD implementation MUST reduce the amount of traffic it generates." How is left
open; of the signs §7 names, a session's failure is the one there is without authentication. One loss is most
often a broken path; a session that is lost again soon after it came up gets through well enough for that, and
no more.
"""

from __future__ import annotations

from kad_bfd.core.packet import Diagnostic
from kad_bfd.core.timers import SLOW_TX_US

CALM_US = 60_000_000
"""Lost again sooner than this after coming up is congestion; up for so long is less of it."""
MOST_DOUBLINGS = 10


class Congestion:
    """Of one session across routers: how far its intervals are stretched, both ways."""

    __slots__ = ("_was_lost", "doublings")

    def __init__(self) -> None:
        self._was_lost = False
        self.doublings = 0

    def lost(self, up_us: int, local_diagnostic: int, remote_diagnostic: int) -> bool:
        """The session left Up, after ``up_us``. Whether that is congestion.

        Packets got lost on the way if the detection time of either side ended it.
        """
        if Diagnostic.DETECTION_TIME_EXPIRED not in (local_diagnostic, remote_diagnostic):
            return False
        is_congestion = self._was_lost and up_us < CALM_US
        self._was_lost = True
        if is_congestion:
            self.doublings = min(self.doublings + 1, MOST_DOUBLINGS)
        return is_congestion

    def ease(self) -> None:
        """:data:`CALM_US` without a loss."""
        self.doublings = max(0, self.doublings - 1)

    def interval_us(self, configured_us: int) -> int:
        """What to ask for instead: up to a second, which is the pace of a session that is not up."""
        return max(configured_us, min(configured_us << self.doublings, SLOW_TX_US))
