"""The log: what lines look like, where they go, and that nobody ever waits for it."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kad.ipc.messages import Role
from kad.runtime import logs
from kad.runtime.process import Options
from tests.support.namespaces import poll

QUIET = Options(log_syslog=False)


class Device:
    """A /dev/log of our own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(5)

    def line(self) -> str:
        return self.socket.recv(65536).decode()


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setattr(logs, "DEVICE", str(tmp_path / "log"))
    monkeypatch.setattr(logs, "RECONNECT_US", 0)
    yield Device(tmp_path / "log")
    logs.close(5)


@pytest.mark.parametrize("direct", [True, False])
def test_syslog_line(device: Device, direct: bool) -> None:
    logs.open(Role.VRRP, Options(log_facility="local3", instance="left"), direct=direct)
    logs.info("(VI_1) Entering MASTER STATE")
    line = device.line()
    pattern = r"<158>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d Keepalived_vrrp_left\[(\d+)\]: (.*)"
    found = re.fullmatch(pattern, line)
    assert found is not None, line
    assert found.groups() == (str(os.getpid()), "(VI_1) Entering MASTER STATE")
    logs.error("e")
    logs.warning("w")
    assert [device.line()[:5] for _ in range(2)] == ["<155>", "<156>"]


def test_idents() -> None:
    words = [logs.ident(role, Options()) for role in (None, *Role)]
    assert words == [
        "Keepalived",
        "Keepalived",
        "Keepalived_vrrp",
        "Keepalived_healthcheckers",
        "Keepalived_bfd",
    ]
    assert logs.ident(None, Options(net_namespace="blue", instance="left")) == "Keepalived_blue_left"


def test_facilities() -> None:
    given = [logs.facility(word) for word in ("daemon", "user", "0", "7", "local5", "nonsense", "")]
    assert given == [3, 1, 16, 23, 21, 3, 3]


def test_file_names() -> None:
    roles = (None, Role.VRRP, Role.CHECK, Role.BFD)
    names = [logs.file_name("/var/log/k.log", role, Options()) for role in roles]
    assert names == [
        "/var/log/k.log",
        "/var/log/k_vrrp.log",
        "/var/log/k_healthcheckers.log",
        "/var/log/k_bfd.log",
    ]
    both = Options(net_namespace="blue", instance="left")
    assert logs.file_name("/var/log/k.log", Role.VRRP, both) == "/var/log/k_vrrp_blue_left.log"
    assert logs.file_name("/var/log/k", None, Options(instance="left")) == "/var/log/k_left"


def test_detail_only_when_asked_for(device: Device) -> None:
    logs.open(None, Options(), direct=True)
    logs.debug("hidden")
    logs.info("shown")
    assert device.line().endswith(": shown")
    logs.open(None, Options(log_detail=1), direct=True)
    logs.debug("detail")
    line = device.line()
    assert line.endswith(": detail")
    assert line.startswith("<30>"), "detailed messages have the ordinary priority"


def test_text_from_outside_forges_no_line(device: Device, tmp_path: Path) -> None:
    logs.open(None, Options(log_file=str(tmp_path / "file")), direct=True)
    logs.info("a\nb\0c\x1b[31m\x7fé\udcff")
    assert device.line().endswith(r": a\x0ab\x00c\x1b[31m\x7fé\udcff")
    logs.info("x" * 100_000)
    assert len(device.line()) == logs.LINE_LIMIT
    assert len((tmp_path / "file").read_text().splitlines()) == 2


def test_no_device_costs_nothing_and_is_said_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "DEVICE", str(tmp_path / "log"))
    monkeypatch.setattr(logs, "RECONNECT_US", 0)
    logs.open(None, Options(), direct=True)
    for _ in range(7):
        logs.info("into the void")
    device = Device(tmp_path / "log")
    logs.info("back")
    assert device.line().endswith(": 7 log lines were lost")
    assert device.line().endswith(": back")
    # It vanishes and comes again, as when syslogd is restarted.
    device.socket.close()
    os.unlink(device.path)
    logs.info("lost")
    device = Device(tmp_path / "log")
    logs.info("again")
    assert device.line().endswith(": 1 log lines were lost")
    assert device.line().endswith(": again")
    logs.close()


def test_without_a_device_nothing_is_lost_that_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "DEVICE", str(tmp_path / "log"))
    logs.open(None, Options(log_file=str(tmp_path / "k.log")), direct=True)
    logs.info("one")
    logs.info("two")
    logs.close()
    lines = (tmp_path / "k.log").read_text().splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == ["one", "two"]


def test_device_that_is_not_read_never_blocks(device: Device) -> None:
    logs.open(None, Options(), direct=True)
    for number in range(5_000):
        logs.info(f"line {number}")
    heard = [device.line()]
    device.socket.setblocking(False)
    try:
        while True:
            heard.append(device.line())
    except BlockingIOError:
        pass
    assert len(heard) < 5_000
    device.socket.settimeout(5)
    logs.info("room again")
    assert device.line().endswith(f": {5_000 - len(heard)} log lines were lost")
    assert device.line().endswith(": room again")


@pytest.mark.parametrize("direct", [True, False])
def test_console_that_is_not_read_never_blocks(direct: bool) -> None:
    reader, writer = os.pipe()
    saved = os.dup(2)
    log = None
    os.dup2(writer, 2)
    try:
        logs.open(None, Options(log_syslog=False, log_console=True), direct=direct)
        begin = time.monotonic()
        for number in range(logs.QUEUE_LIMIT * 2):
            logs.info(f"line {number} " + "x" * 200)
        log = logs._log
        logs.close(0.3)
        assert time.monotonic() - begin < 10
    finally:
        # Without a reader the writer thread is soon through.
        os.close(reader)
        if log is not None and log._thread is not None:
            log._thread.join(10)
        os.dup2(saved, 2)
        os.close(saved)
        os.close(writer)


def test_full_queue_drops_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    path = tmp_path / "file"
    options = Options(log_syslog=False, log_file=str(path))
    sinks = logs.Sinks("x", options, None, 0)
    write = sinks.write

    def slow(line: logs._Line) -> None:
        gate.wait(10)
        write(line)

    monkeypatch.setattr(sinks, "write", slow)
    log = logs.Log(sinks, detail=False, direct=False)
    for number in range(logs.QUEUE_LIMIT + 50):
        log.put(logs.Severity.INFO, f"line {number}")
    gate.set()
    log.close(10)
    text = path.read_text()
    said = re.search(r"(\d+) log lines were lost", text)
    assert said is not None
    kept = len(re.findall(r": line \d+$", text, re.MULTILINE))
    assert kept + int(said.group(1)) == logs.QUEUE_LIMIT + 50
    assert 49 <= int(said.group(1)) <= 50


def test_full_disk_is_survived_and_counted(device: Device) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    logs.open(None, Options(log_file="/dev/full"), direct=True)
    logs.info("one")
    logs.info("two")
    heard = [device.line().rpartition(": ")[2] for _ in range(3)]
    assert heard == ["one", "1 log lines were lost", "two"]


def test_unusable_file_leaves_the_rest(device: Device, tmp_path: Path) -> None:
    logs.open(None, Options(log_file=str(tmp_path / "no" / "such" / "file")), direct=True)
    assert device.line().endswith(
        f"the log file {tmp_path}/no/such/file cannot be opened: No such file or directory"
    )
    logs.info("still heard")
    assert device.line().endswith(": still heard")


def test_file_and_console_lines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = Options(log_syslog=False, log_console=True, log_file=str(tmp_path / "k.log"))
    logs.open(Role.BFD, options)
    for number in range(100):
        logs.info(f"line {number}")
    logs.close(10)
    lines = (tmp_path / "k_bfd.log").read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == [str(number) for number in range(100)]
    assert capfd.readouterr().err.splitlines() == lines
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} Keepalived_bfd\[\d+\]: line 0$", lines[0])


def test_before_it_is_open_lines_go_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    logs.close()
    logs.info("early")
    assert capfd.readouterr().err == "early\n"


def test_nothing_anywhere(capfd: pytest.CaptureFixture[str]) -> None:
    logs.open(None, QUIET)
    logs.error("unheard")
    logs.close(5)
    assert capfd.readouterr().err == ""


def test_what_is_held_is_written_later_in_order_and_with_its_time(device: Device) -> None:
    logs.open(Role.BFD, Options())
    device.socket.settimeout(0.1)
    before = time.time()
    logs.hold()
    logs.info("first")
    logs.hold()
    logs.info("second")
    assert logs._log is not None and logs._log._held is not None
    assert [before <= line.time_us / 1e6 + 1e-6 <= time.time() for line in logs._log._held] == [True, True]
    with pytest.raises(TimeoutError):
        device.line()
    device.socket.settimeout(5)
    logs.release()
    logs.info("third")
    assert [device.line().rpartition(" ")[2] for _ in range(3)] == ["first", "second", "third"]
    logs.release()


def test_no_more_than_so_many_lines_are_held_and_none_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    logs.open(None, Options(log_syslog=False, log_file=str(path)))
    logs.hold()
    for number in range(logs.HELD_LIMIT + 1):
        logs.info(f"line {number}")
    poll(lambda: path.read_text().count("\n") > logs.HELD_LIMIT, "all lines")
    logs.hold()
    logs.info("the last")
    logs.close(5)
    said = path.read_text().splitlines()
    numbers = [int(line.split()[-1]) for line in said[:-1]]
    assert numbers == list(range(logs.HELD_LIMIT + 1))
    assert said[-1].endswith("the last")


def test_who_writes_by_itself_may_hold_lines_too(tmp_path: Path) -> None:
    path = tmp_path / "file"
    logs.open(None, Options(log_syslog=False, log_file=str(path)), direct=True)
    logs.hold()
    logs.info("first")
    logs.info("second")
    assert path.read_text() == ""
    logs.release()
    logs.info("third")
    logs.hold()
    logs.info("fourth")
    logs.close()
    assert [line.split()[-1] for line in path.read_text().splitlines()] == [
        "first",
        "second",
        "third",
        "fourth",
    ]
