"""What the dumps say of an instance's state, in keepalived's terms."""

from __future__ import annotations

from kad.ipc.reports import InstanceReport

NUMBERS = {"INIT": 0, "BACKUP": 1, "MASTER": 2, "FAULT": 3}
"""keepalived's numbers of states."""


def wanted_state(report: InstanceReport) -> str:
    """What keepalived calls wantstate: the configured state until the network has said otherwise."""
    if report.state in ("MASTER", "FAULT"):
        return report.state
    unsettled = not report.heard_priority and not report.counters.get("become_master")
    return report.wanted_state if report.state == "INIT" or unsettled else "BACKUP"
