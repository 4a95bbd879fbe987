"""What the kernel says of addresses that come and go in a namespace: nothing that lasted a moment is missed.

with AddressNews(node) as news:
    ...
    assert "192.0.2.100" not in news.removed()
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterator

from tests.support.namespaces import Node

_GROUPS = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_NEW, _DELETED = 20, 21
_ADDRESS, _LOCAL = 1, 2
_SO_RCVBUFFORCE = 33


class AddressNews:
    """Every word since the beginning. Reading raises OSError where the kernel could not keep one."""

    def __init__(self, node: Node) -> None:
        with node.entered():
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        with contextlib.suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
        self._socket.setblocking(False)
        self._socket.bind((0, _GROUPS))
        self._heard: list[tuple[int, str]] = []

    def __enter__(self) -> AddressNews:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def added(self) -> list[str]:
        return [address for kind, address in self._drain() if kind == _NEW]

    def removed(self) -> list[str]:
        return [address for kind, address in self._drain() if kind == _DELETED]

    def _drain(self) -> list[tuple[int, str]]:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._heard += _news(self._socket.recv(1 << 16))
        return self._heard


def _news(data: bytes) -> Iterator[tuple[int, str]]:
    while data:
        length, kind = struct.unpack_from("=IH", data)
        attributes = dict(_attributes(data[24:length]))  # behind nlmsghdr and ifaddrmsg
        address = attributes.get(_LOCAL) or attributes.get(_ADDRESS)
        if kind in (_NEW, _DELETED) and address:
            yield kind, str(ipaddress.ip_address(address))
        data = data[-(-length // 4) * 4 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length, kind = struct.unpack_from("=HH", data)
        yield kind, data[4:length]
        data = data[-(-length // 4) * 4 :]
