"""SMTP_CHECK: greeting, HELO, QUIT (RFC 5321). Pure.

Replies may have several lines (RFC 5321 §4.2.1), which keepalived takes for failures.
"""

from __future__ import annotations

from kad_check.core.dialogues.dialogue import SUCCESS, Outcome, failure

LINE_LIMIT = 2_048
"""Bytes of one reply line; the RFC's limit is 512 (§4.5.3.1.5)."""
REPLY_LIMIT = 64
"""Lines of one reply."""

_STEPS = (("greeting", 220), ("HELO", 250), ("QUIT", 0))
"""What is answered, and the code that is wanted; 0: any."""


class SmtpDialogue:
    """See the module."""

    opening = b""

    def __init__(self, helo_name: str) -> None:
        self.to_send = b""
        self._helo = f"HELO {helo_name}\r\n".encode()
        self._step = 0
        self._buffer = b""
        self._lines = 0

    def receive(self, data: bytes) -> Outcome | None:
        self._buffer += data
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if not newline:
                return failure("a reply line that does not end") if len(line) > LINE_LIMIT else None
            self._buffer = rest
            outcome = self._take_line(line)
            if outcome is not None:
                return outcome

    def end(self) -> Outcome:
        return failure(f"connection closed before the reply to {_STEPS[self._step][0]}")

    def silence(self) -> Outcome:
        return failure(f"no reply to {_STEPS[self._step][0]} in time")

    def _take_line(self, line: bytes) -> Outcome | None:
        what, wanted = _STEPS[self._step]
        self._lines += 1
        code = int(line[:3]) if len(line) >= 3 and line[:3].isdigit() else -1
        if code < 0 or len(line) > LINE_LIMIT or self._lines > REPLY_LIMIT:
            return failure(f"bad reply to {what}")
        if wanted and code != wanted:
            return failure(f"reply {code:03} to {what}")
        if line[3:4] == b"-":
            return None
        self._lines = 0
        self._step += 1
        if self._step == len(_STEPS):
            return SUCCESS
        self.to_send += self._helo if self._step == 1 else b"QUIT\r\n"
        return None
