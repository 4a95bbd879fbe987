"""What a check engine counts. Pure."""

from __future__ import annotations


class Stats:
    """Totals of one life of the process."""

    __slots__ = ("failures", "not_run", "refused", "started", "successes", "transitions")

    def __init__(self) -> None:
        self.started = 0
        self.successes = 0
        self.failures = 0
        self.not_run = 0
        """Checks that learnt nothing, because of this machine."""
        self.transitions = 0
        """Real servers that changed between up and down."""
        self.refused = 0
        """Changes that the kernel refused."""

    def as_dict(self) -> dict[str, int]:
        return {
            "checks_started": self.started,
            "checks_succeeded": self.successes,
            "checks_failed": self.failures,
            "checks_not_run": self.not_run,
            "server_transitions": self.transitions,
            "changes_refused": self.refused,
        }
