"""What ``kadctl status`` shows of groups, of what is followed, of drops and of lateness."""

from __future__ import annotations

from typing import Any

import msgspec

from kad.ctl_report import tables
from kad.ipc.reports import (
    BfdTrackerReport,
    FileReport,
    GroupReport,
    InstanceReport,
    ProcessReport,
    ProcessTrackerReport,
    ScriptReport,
    VrrpReport,
)


def instance(**fields: Any) -> InstanceReport:
    return InstanceReport(
        "VI_1", "MASTER", 1, 100, 100, "eth0", 4, 3, 51, "BACKUP", 1_000_000, 1_000_000, **fields
    )


def shown(report: VrrpReport) -> list[list[list[str]]]:
    return list(tables({"vrrp": msgspec.to_builtins(report)}))


def test_nothing_to_show_is_no_table() -> None:
    assert shown(VrrpReport(1, instances=(instance(),))) == []
    assert list(tables({})) == []


def test_groups_and_what_is_followed() -> None:
    report = VrrpReport(
        1,
        groups=(GroupReport("G", "FAULT", ("A", "B"), faulty=1),),
        scripts=(ScriptReport("new", up=True), ScriptReport("bad", False, True, 0, 3, "running")),
        files=(FileReport("level", -4),),
        processes=(ProcessTrackerReport("web", False, 1),),
        bfds=(BfdTrackerReport("peer", None),),
    )
    groups, followed = shown(report)
    assert groups[1:] == [["G", "FAULT", "A B", "1 in FAULT"]]
    assert followed[1:] == [
        ["new", "script", "?", ""],
        ["bad", "script", "down", "status 3; running"],
        ["level", "file", "-4", ""],
        ["web", "process", "down", "1 running"],
        ["peer", "BFD", "?", ""],
    ]


def test_drops_by_reason_and_lateness() -> None:
    process = ProcessReport(deadlines=12, late={"500": 3, "10000": 1}, worst_late_us=12_300)
    report = VrrpReport(
        1, instances=(instance(drops={"TTL": 2}),), drops={"UNKNOWN_VRID": 7}, process=process
    )
    drops, late = shown(report)
    assert drops[1:] == [["VI_1", "TTL", "2"], ["nobody (vrrp)", "UNKNOWN_VRID", "7"]]
    assert late == [
        ["LATE", "DEADLINES", "> 0.5 ms", "> 10 ms", "WORST"],
        ["vrrp", "12", "3", "1", "12.3 ms"],
    ]
