"""PING_CHECK: one echo request (RFC 792, RFC 4443 §4.1). Pure."""

from __future__ import annotations

import struct

from kad_check.core.dialogues.dialogue import SUCCESS, Outcome, failure

_ECHO = struct.Struct("!BBHHH")
_REQUEST = {4: 8, 6: 128}
_REPLY = {4: 0, 6: 129}
_PAYLOAD = bytes(range(128))


class PingDialogue:
    """For a datagram ICMP socket: the kernel fills in checksum and identifier, and lets only ours through."""

    to_send = b""

    def __init__(self, family: int, sequence: int) -> None:
        self._reply = _REPLY[family]
        self._sequence = sequence
        self.opening = _ECHO.pack(_REQUEST[family], 0, 0, 0, sequence) + _PAYLOAD

    def receive(self, data: bytes) -> Outcome | None:
        """A late answer to an earlier request is not heard."""
        if len(data) < _ECHO.size:
            return None
        kind, code, _, _, sequence = _ECHO.unpack_from(data)
        if (kind, code, sequence) != (self._reply, 0, self._sequence) or data[_ECHO.size :] != _PAYLOAD:
            return None
        return SUCCESS

    def end(self) -> Outcome:
        return failure("no answer")

    def silence(self) -> Outcome:
        return failure("no answer in time")
