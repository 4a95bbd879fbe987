"""The status as people see it, and where kadctl looks for its daemon."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

import msgspec
import pytest

from kad import __version__, ctl
from kad.control.status import (
    AddressStatus,
    Clocks,
    DaemonStatus,
    InstanceStatus,
    LastReload,
    ObjectStatus,
    ProcessStatus,
    Reports,
    StatusRound,
    instances_of,
    sessions_of,
)
from kad.ipc.client import is_listening
from kad.ipc.messages import Role, StatusReport
from kad.ipc.reports import BfdReport, BfdSessionReport, InstanceReport, VirtualAddressReport, VrrpReport

NOW = 1_700_000_000.0


def instance(**changes: object) -> InstanceStatus:
    made = InstanceStatus(
        name="VI_1",
        state="MASTER",
        since=NOW - 65,
        interface="eth0",
        virtual_router_id=51,
        priority=100,
        effective_priority=100,
        reason="no advertisement",
        fault="",
        master_address="",
        addresses=tuple(AddressStatus(f"192.0.2.{n}/24", True) for n in range(5)),
    )
    return msgspec.structs.replace(made, **changes)


def status(**changes: object) -> DaemonStatus:
    made = DaemonStatus(
        version="1",
        supervisor_pid=10,
        run_directory="/run/kad/default",
        config_file="/etc/keepalived/keepalived.conf",
        generation=3,
        applied_everywhere=True,
        file_is_what_runs=True,
        file_note="",
        transaction="IDLE",
        last_reload=None,
        processes=(
            ProcessStatus("control", 11, "RUNNING", 1, 0, NOW - 3, 3, True),
            ProcessStatus("vrrp", 12, "RUNNING", 4, 3, NOW - 4000, 2, False, "signal SIGKILL"),
            ProcessStatus("bfd", 0, "STOPPED", 0, 0, 0.0, None, True),
        ),
        instances=(instance(),),
        reports={},
        dropped={},
    )
    return msgspec.structs.replace(made, **changes)


def rows(text: str, heading: str) -> list[str]:
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(heading))
    return lines[start:]


def test_processes_are_a_table() -> None:
    table = rows(ctl.render(status(), NOW, lambda pid: (f"{pid} MB", "0.5 s")), "PROCESS")
    assert table[1].split() == ["control", "11", "RUNNING", "3.0", "s", "0", "3", "11", "MB", "0.5", "s"]
    assert table[2].startswith("vrrp     12   RUNNING  1 h 6 min  3")
    assert table[2].endswith("does not answer; last end: signal SIGKILL")
    # What is not configured is no process of this daemon.
    assert "bfd" not in "\n".join(table)


def test_what_a_process_uses_is_measured() -> None:
    memory, processor = ctl.measured(os.getpid())
    assert float(memory.removesuffix(" MB")) > 1
    assert float(processor.removesuffix(" s")) > 0
    assert ctl.measured(1 << 30) == ("-", "-")


def test_columns_stand_below_their_headings() -> None:
    for heading, column in (("PROCESS", "GENERATION"), ("INSTANCE", "ADDRESSES")):
        header, row = rows(ctl.render(status(), NOW), heading)[:2]
        at = header.index(column)
        assert row[at - 2 : at] == "  "
        assert row[at] != " "


def test_instances_are_a_table() -> None:
    row = rows(ctl.render(status(), NOW), "INSTANCE")[1]
    assert "1 min 5 s" in row
    assert "192.0.2.0/24 192.0.2.1/24 192.0.2.2/24 and 2 more" in row
    assert row.endswith("no advertisement")


def test_routes_and_rules_are_a_table_with_the_missing_ones_first() -> None:
    objects = (
        ObjectStatus("", "address 192.0.2.9/24 dev eth1", True, True),
        ObjectStatus("VI_1", "route default via 192.0.2.1", False, False),
        ObjectStatus("VI_2", "rule 5: from all lookup 7", False, True),
    )
    table = rows(ctl.render(status(objects=objects), NOW), "OWNER")
    assert [line.split()[:2] for line in table[1:4]] == [["VI_2", "MISSING"], ["static", "in"], ["VI_1", "-"]]
    table = rows(ctl.render(status(objects=objects * 20), NOW), "OWNER")
    assert table[41].strip() == "and 20 more"


def test_changed_priority_and_fault_are_shown() -> None:
    shown = ctl.render(
        status(instances=(instance(state="FAULT", effective_priority=80, fault="eth0 is down"),)), NOW
    )
    row = rows(shown, "INSTANCE")[1]
    assert "80 (of 100)" in row
    assert row.endswith("eth0 is down")


@pytest.mark.parametrize(
    ("agrees", "note", "line"),
    [
        (True, "", ": is what runs"),
        (False, "why", ": IS NOT WHAT RUNS (why)"),
        (None, "why", ": not known whether it is what runs (why)"),
    ],
)
def test_whether_the_file_is_what_runs(agrees: bool | None, note: str, line: str) -> None:
    text = ctl.render(status(file_is_what_runs=agrees, file_note=note), NOW)
    assert f"keepalived.conf{line}" in text


def test_what_is_going_on_is_said() -> None:
    reload = LastReload(NOW - 3700, False, "a new error")
    text = ctl.render(status(applied_everywhere=False, transaction="APPLYING", last_reload=reload), NOW)
    assert "generation 3, not yet applied everywhere" in text
    assert "a reload is APPLYING" in text
    assert "last reload 1 h 1 min ago: REFUSED: a new error" in text


@pytest.mark.parametrize(
    ("transaction", "told"),
    [("LOADING", "being read"), ("COMMITTING", "being started"), ("IDLE", "nothing runs yet")],
)
def test_a_start_is_no_reload(transaction: str, told: str) -> None:
    text = ctl.render(status(generation=0, transaction=transaction, processes=(), instances=()), NOW)
    assert "starting: " in text and told in text
    assert "reload" not in text and "generation" not in text and "PROCESS" not in text


# Assembling ------------------------------------------------------------------------------------------------


def report(incarnation: int = 1, sequence: int = 1, request: int = 1, body: bytes = b"") -> StatusReport:
    return StatusReport(Role.VRRP, incarnation, 1, sequence, request, body)


def test_instances_come_from_the_childs_report() -> None:
    told = InstanceReport(
        "VI_1", "MASTER", 5_000_000, 100, 90, "eth0", 4, 2, 51, "MASTER", 1_000_000, 0,
        addresses=(VirtualAddressReport("192.0.2.1", 24, "eth0", present=True),),
    )  # fmt: skip
    body = msgspec.msgpack.encode(VrrpReport(3, (told,)))
    (made,) = instances_of(report(body=body), Clocks(7_000_000, 1_000_000_000_000))
    assert (made.name, made.since, made.effective_priority) == ("VI_1", 999_998.0, 90)
    assert made.addresses == (AddressStatus("192.0.2.1/24", True),)


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x80", msgspec.msgpack.encode({"instances": 3})])
def test_report_that_is_none_shows_nothing(body: bytes) -> None:
    assert instances_of(report(body=body), Clocks(1, 1)) == ()
    assert instances_of(None, Clocks(1, 1)) == ()


def test_bfd_sessions_are_shown_with_their_times() -> None:
    up = BfdSessionReport(
        "one", "UP", 5_000_000, "192.0.2.2", transmit_interval_us=50_000, detection_time_us=150_000,
        reason="the neighbour hears us", drops={"ttl": 2, "version": 1},
    )  # fmt: skip
    down = BfdSessionReport("two", "DOWN", 6_000_000, "192.0.2.3", failure="no such device")
    body = msgspec.msgpack.encode(BfdReport(1, (up, down)))
    made = sessions_of(report(body=body), Clocks(7_000_000, int(NOW) * 1_000_000))
    lines = [" ".join(line.split()) for line in ctl.render(status(bfd_sessions=made), NOW).splitlines()]
    assert lines[-2:] == [
        "one UP 2.0 s 192.0.2.2 50 ms 150 ms 3 the neighbour hears us",
        "two DOWN 1.0 s 192.0.2.3 0 ms - 0 no such device",
    ]
    assert sessions_of(None, Clocks(1, 1)) == sessions_of(report(body=b"\xc1"), Clocks(1, 1)) == ()


def test_older_reports_do_not_replace_newer_ones() -> None:
    reports = Reports()
    assert reports.take(report(2, 5))
    for older in (report(2, 5), report(2, 4), report(1, 9)):
        assert not reports.take(older)
    assert reports.take(report(3, 1))
    assert reports.stale == 3


def test_round_is_complete_when_everybody_has_answered_it() -> None:
    asking = StatusRound(2, {Role.VRRP})
    asking.file_looked_at = True
    asking.take(report(request=1))
    assert not asking.is_complete
    asking.take(report(request=2))
    assert asking.is_complete


# Where the daemon is ---------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ctl, "ROOT", str(tmp_path))
    return tmp_path


def listen(root: Path, name: str) -> socket.socket:
    (root / name).mkdir()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(root / name / "ctl.ipc"))
    listening.listen()
    return listening


def test_only_daemon_is_found_without_a_name(root: Path) -> None:
    (root / "dead").mkdir()
    with listen(root, "one"):
        assert ctl._run_directory(None) == str(root / "one")
        assert is_listening(str(root / "one"))
        assert not is_listening(str(root / "dead"))


def test_default_daemon_comes_first(root: Path) -> None:
    with listen(root, "default"), listen(root, "one"):
        assert ctl._run_directory(None) == str(root / "default")


def test_of_several_one_must_be_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listen(root, "one"), listen(root, "two"):
        assert ctl.main(["status"]) == 1
        assert "(one, two)" in capsys.readouterr().err
        assert ctl._run_directory("two") == str(root / "two")


def test_without_a_daemon_it_says_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["status"]) == 1
    assert "no kad answers in" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_names_that_are_no_names(root: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["-i", name, "status"]) == 1
    assert "no name" in capsys.readouterr().err


def test_socket_left_behind_without_a_holder_is_no_daemon(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listen(root, "default").close()
    (root / "default" / "lock").write_text("")
    assert ctl.main(["reload"]) == 1
    assert "no kad answers in" in capsys.readouterr().err


def test_control_that_is_being_restarted_is_waited_for_a_moment(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kad.ipc.client.BIRTH_US", 50_000)
    monkeypatch.setattr("kad.ipc.client.REPEAT_US", 0)
    looks: list[str] = []
    monkeypatch.setattr("kad.ipc.client.is_listening", looks.append)
    (root / "default").mkdir()
    with (root / "default" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert ctl.main(["status"]) == 1
    assert len(looks) > 2


def test_a_loop_that_came_late_says_so() -> None:
    late = ProcessStatus("vrrp", 12, "RUNNING", 1, 0, NOW - 9, 2, True, late=3, worst_late_us=1_234_567)
    assert ctl.render(status(processes=(late,)), NOW).count("over 10 ms late 3 times, at worst 1235 ms") == 1
    once = msgspec.structs.replace(late, late=1)
    assert "late once" in ctl.render(status(processes=(once,)), NOW)


def test_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        ctl.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"kadctl v{__version__}\n"
