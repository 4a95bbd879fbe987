"""A conversation with a checked server, as the shell sees it: bytes in, bytes and a verdict out. Pure."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class Outcome(Struct, frozen=True):
    """How a conversation ended. ``detail``: one phrase for people, without the server's name."""

    success: bool
    detail: str = ""


SUCCESS = Outcome(True)


def failure(detail: str) -> Outcome:
    return Outcome(False, detail)


class Dialogue(Protocol):
    """One conversation, used once.

    ``opening`` is sent as soon as there is a connection. After each :meth:`receive` whatever is in
    ``to_send`` is sent and taken out. An outcome ends it; nothing is asked of it after that.
    """

    opening: bytes
    to_send: bytes

    def receive(self, data: bytes) -> Outcome | None:
        """Bytes of the server: of a stream any part of it, of UDP and ICMP one datagram."""
        ...

    def end(self) -> Outcome:
        """The server sends no more (streams only)."""
        ...

    def silence(self) -> Outcome:
        """The time is over."""
        ...
