"""An alert as it is written: headers in keepalived's order, and never a line that somebody else wrote."""

from __future__ import annotations

from email import message_from_bytes, policy

from kad.config.model.globals import Mail
from kad.control.letters import address_of, written
from kad.ipc.messages import Alert, Role
from kad.notify.policy import Letter

DATE = "Sun, 22 Nov 2026 19:05:15 +0000"


def text(
    subject: str = "VRRP Instance A - Stopping",
    body: str = "=> VRRP Instance stopping <=",
    *,
    recipients: tuple[str, ...] = ("a@example.org", "b@example.org"),
    router_id: str = "R1",
    sender: str = "k@example.org",
) -> bytes:
    alert = Alert(Role.VRRP, 1, Mail(recipients=recipients), router_id, Letter(subject, body))
    return written(alert, sender=sender, host="node.example.org", date=DATE)


def test_it_is_keepaliveds_byte_for_byte() -> None:
    assert text() == (
        b"Date: Sun, 22 Nov 2026 19:05:15 +0000\r\n"
        b"From: k@example.org\r\n"
        b"Subject: [R1] VRRP Instance A - Stopping\r\n"
        b"X-Mailer: Keepalived\r\n"
        b"To: a@example.org, b@example.org\r\n"
        b"\r\n"
        b"=> VRRP Instance stopping <=\r\n\r\n"
    )


def test_the_hosts_name_stands_for_a_router_id() -> None:
    assert b"\r\nSubject: [node.example.org] VRRP" in text(router_id="")


def test_what_is_not_ascii_goes_by_the_rules() -> None:
    read = message_from_bytes(text("VRRP Instance Köln - Stopping", "=> Köln <="), policy=policy.default)
    assert read["Subject"] == "[R1] VRRP Instance Köln - Stopping"
    assert read.get_content().strip() == "=> Köln <="
    assert text("VRRP Instance Köln").partition(b"\r\n\r\n")[0].isascii()


def test_a_name_cannot_add_a_header() -> None:
    read = message_from_bytes(text("A\r\nBcc: x@example.org", sender="k@example.org\nBcc: y@example.org"))
    assert read.keys() == ["Date", "From", "Subject", "X-Mailer", "To"]


def test_lines_have_bounds() -> None:
    many = tuple(f"somebody-{n}@example.org" for n in range(200))
    assert max(map(len, text("x" * 5000, "y" * 5000, recipients=many).split(b"\r\n"))) < 998
    assert message_from_bytes(text(recipients=many), policy=policy.default)["To"] == ", ".join(many)


def test_an_address_may_have_a_name() -> None:
    assert address_of("kad at R1 <k@example.org>") == "k@example.org"
    assert address_of("k@example.org") == "k@example.org"
    assert address_of("root") == "root"
