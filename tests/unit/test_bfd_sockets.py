"""Sockets that cannot be made: told to the engine, whatever the reason."""

from __future__ import annotations

import errno
import os
import resource
import socket
from typing import Any

import pytest

from kad_bfd.core.actions import Listener, Transport
from kad_bfd.io.sockets import Listeners
from kad_bfd.io.transports import Transports


def opened() -> tuple[str, tuple[int, str]]:
    listeners = Listeners(lambda packets: None, lambda *_: None, lambda _: None, lambda: 0, lambda _: None)
    transports = Transports(lambda number, reason: None)
    try:
        return listeners.open(Listener(6), 1), transports.open(1, Transport("2001:db8::2", "", 255), 0)
    finally:
        listeners.close_all()
        transports.close_all()


def test_a_host_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = socket.socket

    def refuse(family: int = -1, *arguments: Any, **options: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return usual(family, *arguments, **options)

    monkeypatch.setattr(socket, "socket", refuse)
    reason = os.strerror(errno.EAFNOSUPPORT)
    assert opened() == (reason, (0, reason))


def test_no_descriptor_left() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        found = opened()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    reason = os.strerror(errno.EMFILE)
    assert found == (reason, (0, reason))
