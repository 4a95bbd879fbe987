"""UDP_CHECK: a datagram that is not refused, or one that is answered as it should be. Pure."""

from __future__ import annotations

from kad.config.model.check import UdpCheck
from kad_check.core.dialogues.dialogue import SUCCESS, Outcome, failure

DEFAULT_PAYLOAD = b"kad health check, please ignore."
"""Sent where the configuration gives none."""


class UdpDialogue:
    """What ICMP says is the shell's to notice. Without require_reply silence is as good as an answer."""

    to_send = b""

    def __init__(self, check: UdpCheck) -> None:
        self._check = check
        self.opening = check.payload or DEFAULT_PAYLOAD

    def receive(self, data: bytes) -> Outcome | None:
        """As keepalived, the first datagram decides; it is judged only where a pattern was given."""
        check = self._check
        if not check.require_reply or not check.reply:
            return SUCCESS
        if not check.min_reply_length <= len(data) <= check.max_reply_length:
            return failure(f"a reply of {len(data)} bytes")
        return SUCCESS if matches(data, check.reply, check.reply_mask) else failure("another reply")

    def end(self) -> Outcome:
        return failure("no reply")

    def silence(self) -> Outcome:
        return failure("no reply in time") if self._check.require_reply else SUCCESS


def matches(data: bytes, reply: bytes, mask: bytes) -> bool:
    """Whether data begins with ``reply``, as far as it goes; bits of ``mask`` that are 1 are not compared."""
    length = min(len(data), len(reply))
    if not mask:
        return data[:length] == reply[:length]
    return not any((data[i] ^ reply[i]) & ~mask[i] & 0xFF for i in range(length))
