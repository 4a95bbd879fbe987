"""An alert as it goes over the wire (RFC 5322), headers and their order as keepalived's. Pure."""

from __future__ import annotations

from email import header, utils

from kad.ipc.messages import Alert

SUBJECT_LIMIT, BODY_LIMIT = 255, 511
"""Characters, as keepalived's."""


def written(alert: Alert, *, sender: str, host: str, date: str) -> bytes:
    """The whole mail. ``host`` stands in the subject where there is no router_id."""
    subject = f"[{alert.router_id or host}] {alert.letter.subject}"
    body = alert.letter.body[:BODY_LIMIT]
    lines = [
        f"Date: {date}",
        f"From: {_line(sender)}",
        f"Subject: {_line(subject[:SUBJECT_LIMIT])}",
        "X-Mailer: Keepalived",
        # One a line where there are many: a line has 998 characters at most (RFC 5322 §2.1.1).
        f"To: {_separator(alert.mail.recipients).join(map(_line, alert.mail.recipients))}",
    ]
    if not body.isascii():
        lines += ["MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8"]
    return "\r\n".join((*lines, "", body, "", "")).encode(errors="replace")


def address_of(text: str) -> str:
    """The address alone, of one that may be written ``NAME <ADDRESS>``."""
    return utils.parseaddr(text)[1] or text


def _separator(recipients: tuple[str, ...]) -> str:
    return ", " if sum(map(len, recipients)) < 900 else ",\r\n "


def _line(text: str) -> str:
    """One line of printable ASCII; what is not goes by RFC 2047."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable if printable.isascii() else header.Header(printable, "utf-8").encode(linesep="\r\n")
