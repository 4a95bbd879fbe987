"""TLS by way of memory: what a server can do to the one who reads it."""

from __future__ import annotations

import socket
from typing import cast

import pytest

from kad_check.io.tls import FETCHES_AT_ONCE, TlsStream, client_context

RECORD = b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb" + bytes(16_379)
"""The beginning of a handshake: one record, as long as one may be."""


class Carrier:
    """A socket whose other end says ``words``; then there is nothing, for now."""

    def __init__(self, words: list[bytes]) -> None:
        self.words = iter(words)
        self.sent: list[bytes] = []
        self.room = 1 << 20

    def recv(self, size: int) -> bytes:
        word = next(self.words, None)
        if word is None:
            raise BlockingIOError
        assert len(word) <= size
        return word

    def send(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        taken = data[: self.room]
        self.room -= len(taken)
        self.sent.append(taken)
        return len(taken)


def stream(carrier: Carrier) -> TlsStream:
    return TlsStream(client_context(None), cast(socket.SocketType, carrier), "")


def test_what_comes_in_crumbs_without_end_is_given_up() -> None:
    carrier = Carrier([RECORD[at : at + 1] for at in range(FETCHES_AT_ONCE)])
    with pytest.raises(OSError, match="flood"):
        stream(carrier).shake_hands()


def test_crumbs_that_come_one_by_one_are_waited_for() -> None:
    carrier = Carrier([])
    made = stream(carrier)
    assert not made.shake_hands()
    (hello,) = carrier.sent
    assert hello[:1] == b"\x16"
    for at in range(2 * FETCHES_AT_ONCE):
        carrier.words = iter([RECORD[at : at + 1]])
        assert not made.shake_hands()
    assert carrier.sent == [hello]


def test_what_does_not_go_out_goes_later() -> None:
    carrier = Carrier([])
    carrier.room = 10
    made = stream(carrier)
    assert not made.shake_hands()
    assert [len(each) for each in carrier.sent] == [10]
    carrier.room = 1 << 20
    assert not made.shake_hands()
    whole = b"".join(carrier.sent)
    assert int.from_bytes(whole[3:5], "big") == len(whole) - 5


def test_an_end_in_the_middle_of_the_handshake_is_a_failure() -> None:
    for heard in ([b""], [RECORD[:100], b""], [b"HTTP/1.0 200 OK\r\n\r\n"]):
        with pytest.raises(OSError):
            stream(Carrier(heard)).shake_hands()
