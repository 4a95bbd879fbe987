"""The sender of alerts against a real mail server, and against servers that are none."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from kad.config.model.globals import Mail, SmtpServer
from kad.control import mailer as module
from kad.control.mailer import Mailer
from kad.ipc.messages import Alert, Role
from kad.notify.policy import Letter
from tests.support.mail_server import MailServer, free_port
from tests.support.servers import (
    Handler,
    TcpServer,
    Visit,
    closes_at_once,
    endless_smtp,
    garbage,
    never_answers,
    resets,
)


class Post:
    """A mailer on a loop of its own. ``patience_s``: how long an alert is tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "PAUSES_S", (0.05,))
        self.loop = asyncio.new_event_loop()
        self.mailer = Mailer(self.loop)

    def submit(self, port: int, subject: str = "S", **fields: object) -> None:
        values = {"recipients": ("a@example.org",), "sender": "kad <k@example.org>", **fields}
        mail = Mail(server=SmtpServer("127.0.0.1", port), connect_timeout_us=200_000, **values)  # type: ignore[arg-type]
        self.mailer.submit(Alert(Role.VRRP, 1, mail, "R1", Letter(subject, "=> body <=")))

    def until(self, condition: Callable[[], object], seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end
            self.loop.run_until_complete(asyncio.sleep(0.01))

    def until_idle(self) -> None:
        done: list[bool] = []
        self.mailer.finish(lambda: done.append(True))
        self.until(lambda: done)


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Iterator[Post]:
    made = Post(monkeypatch)
    yield made
    made.loop.close()


def test_alerts_arrive_in_order_in_one_session(post: Post) -> None:
    with MailServer() as server:
        for number in range(5):
            post.submit(server.port, f"number {number}", recipients=("a@example.org", "Bee <b@example.org>"))
        post.until(lambda: len(server.mails) == 5)
        assert server.subjects == [f"[R1] number {number}" for number in range(5)]
        assert {mail.mail_from for mail in server.mails} == {"k@example.org"}
        assert {tuple(mail.rcpt_tos) for mail in server.mails} == {("a@example.org", "b@example.org")}
        read = server.read(server.mails[0])
        assert (read["From"], read["X-Mailer"]) == ("kad <k@example.org>", "Keepalived")
        assert read.get_payload() == "=> body <=\r\n\r\n"
    assert (post.mailer.sent, post.mailer.lost, post.mailer.waiting) == (5, 0, 0)


def test_an_alert_without_a_server_is_given_up_and_the_next_goes_out(post: Post) -> None:
    """A reload takes the server away, and another names one."""
    post.mailer.submit(Alert(Role.VRRP, 1, Mail(recipients=("a@example.org",)), "R1", Letter("S", "body")))
    with MailServer() as server:
        post.submit(server.port, "next")
        post.until(lambda: len(server.mails) == 1)
        post.until_idle()
    assert (post.mailer.sent, post.mailer.lost, post.mailer.waiting) == (1, 1, 0)


def test_a_name_for_the_greeting_and_a_sender_are_made_up(post: Post) -> None:
    host = socket.gethostname()
    with MailServer() as server:
        post.submit(server.port, sender="")
        post.submit(server.port, sender="", helo_name="lb.example.org")
        post.until(lambda: len(server.mails) == 2)
        post.until(lambda: not post.mailer.waiting)
        post.submit(server.port, sender="", helo_name="lb.example.org")
        post.until(lambda: len(server.mails) == 3)
        assert server.names[2] == "lb.example.org"
        assert all(mail.mail_from and mail.mail_from.startswith(f"root@{host}") for mail in server.mails)


def test_a_server_that_comes_back_gets_what_waited(post: Post) -> None:
    port = free_port()
    for number in range(3):
        post.submit(port, str(number))
    post.until(lambda: post.mailer.failures >= 2)
    assert (post.mailer.waiting, post.mailer.lost) == (3, 0)
    with MailServer(port) as server:
        post.until(lambda: len(server.mails) == 3)
        assert server.subjects == ["[R1] 0", "[R1] 1", "[R1] 2"]


def test_what_is_refused_for_good_is_given_up_and_the_rest_goes_on(post: Post) -> None:
    with MailServer(answers=["554 no", "451 later", "250 OK"], refuses="x@example.org") as server:
        post.submit(server.port, "refused")
        post.submit(server.port, "delayed")
        post.submit(server.port, "nobody", recipients=("x@example.org",))
        post.submit(server.port, "somebody", recipients=("x@example.org", "a@example.org"))
        post.until(lambda: len(server.mails) == 2)
        post.until(lambda: not post.mailer.waiting)
        assert server.subjects == ["[R1] delayed", "[R1] somebody"]
    assert (post.mailer.sent, post.mailer.lost) == (2, 2)


def slow_answer(visit: Visit) -> None:
    for byte in itertools.cycle(b"220-hello\r\n"):
        visit.send(bytes([byte]))
        visit.pause(0.05)


HOSTILE: list[Handler] = [never_answers, closes_at_once, resets, garbage, endless_smtp, slow_answer]


@pytest.mark.parametrize("handler", HOSTILE, ids=lambda handler: handler.__name__)
def test_a_server_that_is_none_costs_a_bounded_time(
    post: Post, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_US", 1_500_000)
    with TcpServer(handler) as server:
        began = time.monotonic()
        for number in range(3):
            post.submit(server.port, str(number))
        post.until(lambda: post.mailer.lost == 3)
        assert time.monotonic() - began < 15
        assert server.connections <= 60
    assert (post.mailer.sent, post.mailer.waiting) == (0, 0)


def test_the_queue_is_bounded(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_LIMIT", 10)
    with MailServer() as server:
        for number in range(25):
            post.submit(server.port, str(number))
        # The first is under way already.
        assert (post.mailer.waiting, post.mailer.lost) == (11, 14)
        post.until(lambda: len(server.mails) == 11)
        assert server.subjects == [f"[R1] {number}" for number in (0, *range(15, 25))]


def test_the_end_does_not_wait_for_a_server_that_hangs(post: Post) -> None:
    with TcpServer(never_answers) as server:
        post.submit(server.port)
        post.until(lambda: server.connections)
        began = time.monotonic()
        post.until_idle()
        assert time.monotonic() - began < 5
    assert post.mailer.sent == 0
