"""Tables of ``kadctl status`` made straight from the children's own reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Reports = Mapping[str, Any]
"""By role, as plain data; what an older or newer daemon does not tell is left out."""
Rows = list[list[str]]


def tables(reports: Reports) -> Iterator[Rows]:
    """Those that have something to show."""
    vrrp = reports.get("vrrp") or {}
    for rows in (_groups(vrrp), _followed(vrrp), _dropped(reports), _late(reports)):
        if len(rows) > 1:
            yield rows


def _groups(vrrp: Reports) -> Rows:
    rows = [["GROUP", "STATE", "MEMBERS", ""]]
    for group in vrrp.get("groups", ()):
        notes = []
        if group.get("faulty"):
            notes.append(f"{group['faulty']} in FAULT")
        if group.get("awaiting"):
            notes.append(f"{group['awaiting']} waiting for a first result")
        rows.append([group["name"], group["state"], " ".join(group.get("members", ())), "; ".join(notes)])
    return rows


def _followed(vrrp: Reports) -> Rows:
    rows = [["FOLLOWED", "KIND", "STATE", ""]]
    for script in vrrp.get("scripts", ()):
        state = "?" if not script.get("answered") else "up" if script.get("up") else "down"
        notes = [f"status {script['status']}"] if script.get("status") else []
        if script.get("phase", "idle") != "idle":
            notes.append(script["phase"])
        rows.append([script["name"], "script", state, "; ".join(notes)])
    for file in vrrp.get("files", ()):
        rows.append([file["name"], "file", str(file.get("value", 0)), ""])
    for process in vrrp.get("processes", ()):
        count = process.get("count")
        note = "not counted yet" if count is None else f"{count} running"
        rows.append([process["name"], "process", "up" if process.get("up") else "down", note])
    for session in vrrp.get("bfds", ()):
        words = {None: "?", True: "up", False: "down"}
        rows.append([session["name"], "BFD", words[session.get("up")], ""])
    return rows


def _dropped(reports: Reports) -> Rows:
    """Packets that were not believed."""
    rows = [["DROPPED PACKETS OF", "REASON", "COUNT"]]
    for role, what in (("vrrp", "instances"), ("bfd", "sessions")):
        report = reports.get(role) or {}
        for each in report.get(what, ()):
            rows += [[each["name"], reason, str(n)] for reason, n in sorted(each.get("drops", {}).items())]
        rows += [
            [f"nobody ({role})", reason, str(n)] for reason, n in sorted(report.get("drops", {}).items())
        ]
    return rows


def _late(reports: Reports) -> Rows:
    """How late each child's loop came to what was due."""
    limits: list[str] = []
    found = []
    for role, report in reports.items():
        process = (report or {}).get("process") or {}
        if not process.get("deadlines"):
            continue
        limits = sorted(process.get("late", {}), key=int)
        counts = [str(process["late"][limit]) for limit in limits]
        worst = f"{process.get('worst_late_us', 0) / 1000:.1f} ms"
        found.append([role, str(process["deadlines"]), *counts, worst])
    head = ["LATE", "DEADLINES", *(f"> {int(limit) / 1000:g} ms" for limit in limits), "WORST"]
    return [head, *found]
