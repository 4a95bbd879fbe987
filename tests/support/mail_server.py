"""A mail server that keeps what it gets: aiosmtpd, in a thread of its own.

with MailServer() as server:
    ...                          # server.port; server.mails
"""

from __future__ import annotations

import socket
from email import message_from_bytes
from email.message import Message
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope, Session


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


class MailServer:
    """``answers``: what is said to the end of DATA, one mail after the other; then 250."""

    def __init__(self, port: int = 0, *, answers: list[str] | None = None, refuses: str = "") -> None:
        self._controller = Controller(self, hostname="127.0.0.1", port=port or free_port(), ready_timeout=20)
        self._answers = answers or []
        self._refuses = refuses
        self.mails: list[Envelope] = []
        self.names: list[str | None] = []
        """What clients called themselves."""

    def __enter__(self) -> MailServer:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    @property
    def port(self) -> int:
        port: int = self._controller.port
        return port

    @property
    def subjects(self) -> list[str]:
        return [self.read(mail)["Subject"] for mail in list(self.mails)]

    def read(self, mail: Envelope) -> Message:
        assert isinstance(mail.original_content, bytes)
        return message_from_bytes(mail.original_content)

    # What aiosmtpd calls

    async def handle_RCPT(
        self, _server: Any, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address == self._refuses:
            return "550 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, session: Session, envelope: Envelope) -> str:
        self.names.append(session.host_name)
        answer = self._answers.pop(0) if self._answers else "250 OK"
        if answer.startswith("250"):
            self.mails.append(envelope)
        return answer
