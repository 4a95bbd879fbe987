"""What the service manager hears."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from kad.runtime.systemd import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def manager_socket(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[socket.socket, str]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    address = f"@kad-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    listener.bind(address.replace("@", "\0"))
    listener.settimeout(5)
    return listener, address


def test_says_what_happens(manager_socket: tuple[socket.socket, str]) -> None:
    listener, address = manager_socket
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000", "OTHER": "1"}
    manager = ServiceManager.from_environment(environment)
    assert environment == {"OTHER": "1"}, "no child and no script may speak in its name"
    assert manager.watchdog_period_us == 1_500_000
    manager.ready("generation 1")
    manager.reloading(123)
    manager.stopping(7_000_000)
    manager.alive()
    heard = [listener.recv(4096).decode().split("\n") for _ in range(4)]
    assert heard == [
        ["READY=1", "STATUS=generation 1"],
        ["RELOADING=1", "MONOTONIC_USEC=123"],
        ["STOPPING=1", "EXTEND_TIMEOUT_USEC=7000000"],
        ["WATCHDOG=1"],
    ]


def test_never_blocks_on_a_manager_that_does_not_read(manager_socket: tuple[socket.socket, str]) -> None:
    _, address = manager_socket
    manager = ServiceManager.from_environment({"NOTIFY_SOCKET": address})

    def say_much() -> None:
        for _ in range(10_000):
            manager.alive()

    thread = threading.Thread(target=say_much, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "/nowhere/at/all"},
        {"NOTIFY_SOCKET": "/" + "x" * 300},
    ],
)
def test_without_a_manager_nothing_happens(environment: dict[str, str]) -> None:
    manager = ServiceManager.from_environment(environment)
    manager.ready()
    manager.alive()


def test_watchdog_of_another_process_is_not_ours() -> None:
    theirs = {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    assert ServiceManager.from_environment(theirs).watchdog_period_us == 0
    ours = {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": str(os.getpid())}
    assert ServiceManager.from_environment(ours).watchdog_period_us == 500
    broken = {"WATCHDOG_USEC": "soon"}
    assert ServiceManager.from_environment(broken).watchdog_period_us == 0
