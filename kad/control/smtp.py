"""One session with a mail server: ``smtplib`` within limits of time and size. It blocks: for a thread."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Sequence

from msgspec import Struct

from kad.config.model.globals import Mail
from kad.control.letters import address_of
from kad.runtime.clock import monotonic_us

REPLY_LIMIT = 64 * 1024
"""Bytes of one reply, however many lines it has."""
READ_SIZE = 4 * 1024
FAILURES = (smtplib.SMTPException, OSError)


class Outcome(Struct):
    """Of the messages handed in, in their order: so many were taken or refused for good."""

    done: int = 0
    sent: int = 0
    complaints: tuple[str, ...] = ()
    """About those that were refused, for people."""
    failure: str = ""
    """Why the rest may be tried again; empty: there is no rest."""


def deliver(mail: Mail, host: str, sender: str, messages: Sequence[tuple[Mail, bytes]]) -> Outcome:
    """Hand these to the server of ``mail``, all in one session. Never raises.

    ``host``: this machine's name. Each message goes to the recipients of its own Mail.
    """
    outcome = Outcome()
    try:
        assert mail.server is not None
        limit_s = mail.connect_timeout_us / 1_000_000
        name = mail.helo_name or host
        with _Session(mail.server.host, mail.server.port, local_hostname=name, timeout=limit_s) as session:
            session.ehlo_or_helo_if_needed()
            for own, message in messages:
                _send(session, sender, own, message, outcome)
                outcome.done += 1
    except (*FAILURES, ValueError) as error:
        if outcome.done < len(messages):
            outcome.failure = _said(error)
    return outcome


def _send(session: _Session, sender: str, mail: Mail, message: bytes, outcome: Outcome) -> None:
    """Raises one of FAILURES where another attempt may help."""
    recipients = [address_of(text) for text in mail.recipients]
    try:
        refused = session.sendmail(address_of(sender), recipients, message)
        outcome.sent += 1
        outcome.complaints += tuple(f"{who}: {_reply(*reply)}" for who, reply in refused.items())
    except (*FAILURES, ValueError) as error:
        if not _is_final(error):
            raise
        outcome.complaints += (_said(error),)


class _Session(smtplib.SMTP):
    """Whoever sends a byte now and then, or lines without end, does not get its limit anew with each."""

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None:
            assert self.sock is not None
            self.file = _Replies(self.sock)
        self.file.begin(self.timeout)
        return super().getreply()


class _Replies:
    """The part of a file that ``smtplib`` reads replies from."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._buffer = b""
        self._left = 0
        self._until_us = 0

    def begin(self, limit_s: float) -> None:
        """The next reply has this long, all of it."""
        self._left = REPLY_LIMIT
        self._until_us = monotonic_us() + int(limit_s * 1_000_000)
        self._socket.settimeout(limit_s)

    def readline(self, _limit: int) -> bytes:
        """One line of at most :data:`REPLY_LIMIT` bytes; empty at the end. Raises OSError."""
        while b"\n" not in self._buffer:
            left_us = self._until_us - monotonic_us()
            if left_us <= 0:
                raise TimeoutError("timed out")
            self._socket.settimeout(left_us / 1_000_000)
            data = self._socket.recv(READ_SIZE)
            if not data:
                return b""
            self._buffer += data
            if len(self._buffer) > REPLY_LIMIT:
                break
        line, newline, self._buffer = self._buffer.partition(b"\n")
        self._left -= len(line)
        if self._left < 0:
            raise OSError("a reply that does not end")
        return line + newline

    def close(self) -> None:
        """The socket is closed by its owner."""


def _is_final(error: Exception) -> bool:
    """Whether the server will say the same again (RFC 5321 §4.2.1), or the message cannot be sent at all."""
    match error:
        case smtplib.SMTPRecipientsRefused():
            return all(code >= 500 for code, _ in error.recipients.values())
        case smtplib.SMTPResponseException():
            return error.smtp_code >= 500
        case _:
            return isinstance(error, ValueError)


def _said(error: Exception) -> str:
    match error:
        case smtplib.SMTPRecipientsRefused():
            return "; ".join(f"{who}: {_reply(*reply)}" for who, reply in error.recipients.items())
        case smtplib.SMTPResponseException():
            return _reply(error.smtp_code, error.smtp_error)
        case OSError() if error.strerror:
            return error.strerror
        case _:
            return str(error)


def _reply(code: int, text: str | bytes) -> str:
    return f"{code} {text.decode('ascii', 'replace') if isinstance(text, bytes) else text}"[:200]
