"""Single checks against real servers on this machine, well-behaved and hostile. No root is needed."""

from __future__ import annotations

import hashlib
import itertools
import os
import resource
import shutil
import signal
import socket
import ssl
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kad.config.model.check import (
    DnsCheck,
    MiscCheck,
    PingCheck,
    SmtpCheck,
    SslContext,
    TcpCheck,
    UdpCheck,
)
from kad.config.model.script import ScriptCommand
from kad_check.core.events import Verdict
from kad_check.io import ssl_block
from kad_check.io.patterns import SEARCH_LIMIT_US
from kad_check.io.tls import client_context
from tests.support import servers
from tests.support.check_rig import ONCE, CheckRig, MemoryJournal, connection, http
from tests.support.namespaces import poll
from tests.support.servers import Handler, TcpServer, UdpServer

GOOD, BAD, NOT_RUN = Verdict.SUCCESS, Verdict.FAILURE, Verdict.NOT_RUN


@pytest.fixture
def rig() -> Iterator[CheckRig]:
    with CheckRig() as made:
        yield made


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


# TCP -------------------------------------------------------------------------------------------------------


def test_tcp_succeeds_where_somebody_listens_and_fails_where_nobody_does(rig: CheckRig) -> None:
    with TcpServer(servers.never_answers) as server:
        assert rig.run(TcpCheck(ONCE, connection(server.port))).verdict is GOOD
    answer = rig.run(TcpCheck(ONCE, connection(free_port())))
    assert (answer.verdict, answer.detail) == (BAD, "connection refused")


def test_tcp_to_where_nothing_answers_ends_in_time(rig: CheckRig) -> None:
    """A listener whose queue is full ignores the connection's first packet."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        held = [socket.socket() for _ in range(4)]
        for each in held:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        answer = rig.run(TcpCheck(ONCE, connection(port, timeout=1)))
        assert (answer.verdict, answer.detail) == (BAD, "connection timeout")
        assert 0.9 < rig.took < 3
        for each in held:
            each.close()


def test_a_local_address_that_is_not_ours_says_nothing_about_the_server(rig: CheckRig) -> None:
    with TcpServer(servers.never_answers) as server:
        check = TcpCheck(ONCE, connection(server.port, bind_address="192.0.2.77"))
        answer = rig.run(check)
    assert answer.verdict is NOT_RUN and "cannot bind" in answer.detail


def test_bindto_and_bind_port_are_where_the_connection_comes_from(rig: CheckRig) -> None:
    seen: list[tuple[str, int]] = []
    port = free_port()
    with TcpServer(lambda visit: seen.append(visit.connection.getpeername())) as server:
        check = TcpCheck(ONCE, connection(server.port, bind_address="127.0.0.2", bind_port=port))
        assert rig.run(check).verdict is GOOD
        poll(lambda: seen, "the server's side of the connection")
    assert seen == [("127.0.0.2", port)]


def test_a_check_that_is_broken_off_gives_no_answer(rig: CheckRig) -> None:
    with TcpServer(servers.never_answers) as server:
        number = rig.add(http(server.port, timeout=1))
        rig.checks.start(number, 0)
        rig.reactor.spin()
        rig.checks.remove(number)
        rig.reactor.until(lambda: rig.connections.running == 0)
        rig.reactor.spin(50)
    assert not rig.answers


def test_a_check_that_runs_ends_as_it_began_and_the_next_is_of_the_new_form(rig: CheckRig) -> None:
    asked: list[bytes] = []
    go_on = threading.Event()

    def serve(visit: servers.Visit) -> None:
        asked.append(visit.request().split(b" ")[1])
        go_on.wait(10)
        visit.send(b"HTTP/1.0 200 OK\r\n\r\n")

    with TcpServer(serve) as server:
        number = rig.add(http(server.port, timeout=5, path="/old"))
        rig.checks.start(number, 0)
        rig.reactor.until(lambda: asked)
        rig.checks.change(number, http(server.port, timeout=5, path="/new"))
        go_on.set()
        rig.reactor.until(lambda: rig.answers)
        rig.checks.start(number, 0)
        rig.reactor.until(lambda: len(rig.answers) == 2)
    assert asked == [b"/old", b"/new"]
    assert [answer.verdict for answer, _ in rig.answers] == [GOOD, GOOD]


# HTTP ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["1.0", "1.0C", "1.1"])
def test_the_request_is_keepaliveds(rig: CheckRig, protocol: str) -> None:
    seen: list[bytes] = []

    def handle(visit: servers.Visit) -> None:
        seen.append(visit.request())
        visit.send(b"HTTP/1.0 200 OK\r\n\r\n")

    with TcpServer(handle) as server:
        assert rig.run(http(server.port, protocol=protocol, path="/a?b")).verdict is GOOD
        close = "" if protocol == "1.0" else "Connection: close\r\n"
        wanted = (
            f"GET /a?b HTTP/{protocol[:3]}\r\nUser-Agent: KeepAliveClient\r\n{close}"
            f"Host: 127.0.0.1:{server.port}\r\n\r\n"
        )
    assert seen == [wanted.encode()]


@pytest.mark.parametrize(
    ("status", "accepted", "verdict"),
    [
        ("200 OK", ((200, 299),), GOOD),
        ("404 Not Found", ((200, 299),), BAD),
        ("404 Not Found", ((200, 299), (404, 404)), GOOD),
        ("302 Found", ((200, 299),), BAD),
        ("302 Found", ((302, 302),), GOOD),
        ("500 Oops", ((200, 299),), BAD),
    ],
)
def test_the_status_decides(
    rig: CheckRig, status: str, accepted: tuple[tuple[int, int], ...], verdict: Verdict
) -> None:
    """A redirection is not followed: it is a status like any other."""
    page = servers.http_page(b"", status, "Location: /elsewhere")
    with TcpServer(page) as server:
        answer = rig.run(http(server.port, status_codes=accepted))
        assert server.connections == 1
    assert answer.verdict is verdict
    if verdict is BAD:
        assert answer.detail == f"status code {status[:3]}"


def test_an_interim_response_is_passed_over(rig: CheckRig) -> None:
    answer = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhi"
    )
    with TcpServer(servers.http_answer(answer)) as server:
        assert rig.run(http(server.port, digest=hashlib.md5(b"hi").digest())).verdict is GOOD


def test_the_digest_is_of_the_body(rig: CheckRig) -> None:
    page = os.urandom(300_000)
    with TcpServer(servers.http_page(page)) as server:
        assert rig.run(http(server.port, digest=hashlib.md5(page).digest())).verdict is GOOD
        answer = rig.run(http(server.port, digest=hashlib.md5(b"another").digest()))
    assert answer.verdict is BAD
    assert answer.detail == f"MD5 digest {hashlib.md5(page).hexdigest()}"


def test_a_chunked_body_may_have_the_digest_of_either_form(rig: CheckRig) -> None:
    raw = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + raw
    with TcpServer(servers.http_answer(answer)) as server:
        for body in (b"hello world", b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"):
            check = http(server.port, protocol="1.1", digest=hashlib.md5(body).digest())
            assert rig.run(check).verdict is GOOD, body
        assert rig.run(http(server.port, protocol="1.1", regex="o w")).verdict is GOOD


def test_a_server_that_keeps_the_connection_is_not_waited_for(rig: CheckRig) -> None:
    """The length says where the body ends; keepalived waits for the end of the connection."""

    def handle(visit: servers.Visit) -> None:
        visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        visit.hold()

    with TcpServer(handle) as server:
        assert rig.run(http(server.port, timeout=5)).verdict is GOOD
    assert rig.took < 4


def test_patterns_are_searched_in_the_body(rig: CheckRig) -> None:
    with TcpServer(servers.http_page(b"status: all is WELL\n")) as server:
        for words, verdict in (
            ({"regex": "is (well|fine)"}, BAD),
            ({"regex": "is (well|fine)", "regex_options": ("caseless",)}, GOOD),
            ({"regex": "WELL", "regex_no_match": True}, BAD),
            ({"regex": "ILL", "regex_no_match": True}, GOOD),
            ({"regex": "all", "regex_min_offset": 9}, BAD),
            ({"regex": "all", "regex_max_offset": 7}, BAD),
            ({"regex": "all", "regex_max_offset": 8}, GOOD),
        ):
            assert rig.run(http(server.port, **words)).verdict is verdict, words


def test_a_pattern_that_takes_for_ever_is_given_up(rig: CheckRig) -> None:
    with TcpServer(servers.http_page(b"a" * 60)) as server:
        answer = rig.run(http(server.port, regex="(a+)+b"))
    assert (answer.verdict, answer.detail) == (BAD, "the pattern takes too long")
    assert rig.took < SEARCH_LIMIT_US / 1e6 + 3


class Pages:
    """A server whose pages all come when the test says so. How many have been asked for is in ``asked``."""

    def __init__(self, page: bytes) -> None:
        self.page = page
        self.asked = 0
        self.sent = 0
        self._now = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, visit: servers.Visit) -> None:
        visit.request()
        with self._lock:
            self.asked += 1
        self._now.wait(20)
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(self.page), self.page))
        with self._lock:
            self.sent += 1
        visit.hold()

    def send(self) -> None:
        """All of them; they are there when this returns."""
        self._now.set()
        poll(lambda: self.sent == self.asked, "the pages")


def test_many_slow_patterns_at_once_leave_the_loop_its_turns(rig: CheckRig) -> None:
    """Else the process would not show that it lives for a second or more, and be killed for it."""
    slow = Pages(b"a" * 60)
    answered: list[int] = []
    with TcpServer(slow) as server:
        for _ in range(6):
            rig.checks.start(rig.add(http(server.port, regex="(a+)+b", timeout=30)), 0)
        rig.reactor.until(lambda: slow.asked == 6)
        slow.send()

        def turn() -> None:
            answered.append(len(rig.answers))
            if len(rig.answers) < 6:
                rig.reactor.loop.call_soon(turn)

        turn()
        rig.reactor.until(lambda: len(rig.answers) == 6)
    assert {answer.detail for answer, _ in rig.answers} == {"the pattern takes too long"}
    assert max(after - before for before, after in itertools.pairwise([*answered, 6])) == 1


def test_who_has_answered_is_not_failed_for_others_slow_patterns(rig: CheckRig) -> None:
    slow, quick = Pages(b"a" * 60), Pages(b"well")
    with TcpServer(slow) as server, TcpServer(quick) as other:
        for _ in range(15):
            rig.checks.start(rig.add(http(server.port, regex="(a+)+b", timeout=30)), 0)
        rig.reactor.until(lambda: slow.asked == 15)
        number = rig.add(http(other.port, regex="well", timeout=1))
        rig.checks.start(number, 0)
        rig.reactor.until(lambda: quick.asked)
        slow.send()
        quick.send()
        rig.reactor.until(lambda: len(rig.answers) == 16)
    assert rig.answers[-1][1] - rig.answers[0][1] > 1
    assert [answer.verdict for answer, _ in rig.answers if answer.number == number] == [GOOD]


def test_a_pattern_that_cannot_be_used_says_nothing_about_the_server(rig: CheckRig) -> None:
    with TcpServer(servers.http_page(b"")) as server:
        assert rig.run(http(server.port, regex="(?R)")).verdict is NOT_RUN


# TLS -------------------------------------------------------------------------------------------------------


def test_a_page_over_tls(rig: CheckRig) -> None:
    with TcpServer(servers.http_page(b"hi"), context=servers.server_context()) as server:
        assert rig.run(http(server.port, ssl=True)).verdict is GOOD
        polite = http(server.port, ssl=True, tls_compliant=True)
        assert rig.run(polite).verdict is GOOD


def test_a_long_page_over_tls_is_read_to_its_end(rig: CheckRig) -> None:
    """More than is read at once: what OpenSSL holds is not told by any descriptor."""
    page = os.urandom(4_000_000)
    with TcpServer(servers.http_page(page), context=servers.server_context()) as server:
        check = http(server.port, ssl=True, timeout=15, digest=hashlib.md5(page).digest())
        assert rig.run(check).verdict is GOOD


def test_a_connection_that_is_reset_after_the_answer_ends_it_over_tls_as_with_keepalived(
    rig: CheckRig,
) -> None:
    with TcpServer(servers.page_and_reset, context=servers.server_context()) as server:
        assert rig.run(http(server.port, ssl=True, regex="hello")).verdict is GOOD
    with TcpServer(servers.page_and_reset) as server:
        answer = rig.run(http(server.port, regex="hello"))
    assert answer.verdict is BAD and "reset" in answer.detail


@pytest.mark.parametrize("name", ["", "checked.example"])
def test_the_server_name_is_sent_where_it_is_wanted(rig: CheckRig, name: str) -> None:
    names: list[str | None] = []
    with TcpServer(servers.http_page(b""), context=servers.server_context(names=names)) as server:
        assert rig.run(http(server.port, ssl=True, server_name=name)).verdict is GOOD
    assert names == [name or None]


def test_a_certificate_is_presented_where_one_is_configured() -> None:
    cert, key = servers.certificate()
    context = servers.server_context(client_certificate=True)
    with TcpServer(servers.http_page(b"hi"), context=context) as server:
        with CheckRig() as rig:
            assert rig.run(http(server.port, ssl=True)).verdict is BAD
        with CheckRig(SslContext(certificate_file=cert, key_file=key)) as rig:
            assert rig.run(http(server.port, ssl=True)).verdict is GOOD


@pytest.mark.parametrize("key_in_file", [True, False])
def test_a_certificate_without_a_key_is_not_presented_and_checks_go_on(
    tmp_path: Path, key_in_file: bool
) -> None:
    presented: list[bytes | None] = []

    def handle(visit: servers.Visit) -> None:
        assert isinstance(visit.connection, ssl.SSLSocket)
        presented.append(visit.connection.getpeercert(binary_form=True))
        servers.http_page(b"hi")(visit)

    cert, key = (Path(path).read_text() for path in servers.certificate())
    file = tmp_path / "client.pem"
    file.write_text(cert + (key if key_in_file else ""))
    context = servers.server_context(client_certificate=True)
    context.verify_mode = ssl.CERT_OPTIONAL
    with (
        TcpServer(handle, context=context) as server,
        CheckRig(SslContext(certificate_file=str(file))) as rig,
    ):
        assert rig.run(http(server.port, ssl=True)).verdict is GOOD
    assert presented == [ssl.PEM_cert_to_DER_cert(cert) if key_in_file else None]
    assert bool(rig.reports) is not key_in_file
    assert all("is not presented" in report for report in rig.reports)


def test_a_reload_reads_the_files_of_the_ssl_block_again(tmp_path: Path) -> None:
    """The same block, other files; half replaced or away, what was read before goes on."""
    presented: list[bytes | None] = []

    def handle(visit: servers.Visit) -> None:
        assert isinstance(visit.connection, ssl.SSLSocket)
        presented.append(visit.connection.getpeercert(binary_form=True))
        servers.http_page(b"hi")(visit)

    pairs = [servers.certificate(), servers.make_certificate(tmp_path)]
    old, new = (ssl.PEM_cert_to_DER_cert(Path(cert).read_text()) for cert, _ in pairs)
    cert, key = tmp_path / "client.pem", tmp_path / "client-key.pem"
    settings = SslContext(certificate_file=str(cert), key_file=str(key))
    context = servers.server_context(client_certificate=True)
    context.load_verify_locations(pairs[1][0])
    shutil.copy(pairs[0][0], cert)
    shutil.copy(pairs[0][1], key)
    with TcpServer(handle, context=context) as server, CheckRig(settings) as rig:
        number = rig.add(http(server.port, ssl=True))

        def check() -> bytes | None:
            presented.clear()
            rig.answers.clear()
            rig.checks.start(number, 0)
            rig.reactor.until(lambda: rig.answers)
            assert rig.answers[0][0].verdict is GOOD
            return presented[0]

        assert check() == old and not rig.reports
        shutil.copy(pairs[1][0], cert)  # its key is still the old one
        rig.checks.configure(settings)
        rig.reactor.until(lambda: rig.reports)
        assert "what was read before goes on" in rig.reports.pop()
        assert check() == old
        shutil.copy(pairs[1][1], key)
        rig.checks.configure(settings)
        rig.reactor.until(lambda: check() == new)
        cert.unlink()
        rig.checks.configure(settings)
        rig.reactor.until(lambda: rig.reports)
        assert check() == new


def test_an_ssl_block_that_cannot_be_used_says_nothing_about_servers(tmp_path: Path) -> None:
    with CheckRig(SslContext(certificate_file=str(tmp_path / "none"))) as rig:
        answer = rig.run(http(free_port(), ssl=True))
    assert answer.verdict is NOT_RUN and "SSL block" in answer.detail


class SlowFiles:
    """Reading the files of an SSL block takes until :attr:`end` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.end = threading.Event()
        self.begun = 0
        monkeypatch.setattr(ssl_block, "client_context", self._read)

    def _read(self, settings: SslContext | None, *warn: Callable[[str], None]) -> ssl.SSLContext:
        if settings is not None:
            self.begun += 1
            assert self.end.wait(30)
        return client_context(settings, *warn)


def test_a_check_waits_for_the_files_of_the_ssl_block(monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = servers.certificate()
    slow = SlowFiles(monkeypatch)
    context = servers.server_context(client_certificate=True)
    settings = SslContext(certificate_file=cert, key_file=key)
    with TcpServer(servers.http_page(b"hi"), context=context) as server, CheckRig(settings) as rig:
        number = rig.add(http(server.port, ssl=True))
        rig.checks.start(number, 0)
        with TcpServer(servers.http_page(b"hi")) as plain:
            assert rig.run(http(plain.port)).verdict is GOOD, "meanwhile others run"
        rig.answers.clear()
        slow.end.set()
        rig.reactor.until(lambda: rig.answers)
        assert rig.answers[0][0].verdict is GOOD


def test_where_they_hang_checks_say_nothing_until_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = servers.certificate()
    slow = SlowFiles(monkeypatch)
    monkeypatch.setattr(ssl_block, "PATIENCE_S", 0.05)
    settings = SslContext(certificate_file=cert, key_file=key)
    page, context = servers.http_page(b"hi"), servers.server_context()
    with TcpServer(page, context=context) as server, CheckRig(settings) as rig:
        for _ in range(2):
            answer = rig.run(http(server.port, ssl=True))
            assert (answer.verdict, answer.detail) == (
                NOT_RUN,
                "the files of the SSL block are still being read",
            )
        slow.end.set()
        rig.reactor.until(lambda: rig.run(http(server.port, ssl=True)).verdict is GOOD)
        slow.end.clear()
        rig.checks.configure(settings)
        rig.reactor.until(lambda: slow.begun == 2)
        assert rig.run(http(server.port, ssl=True)).verdict is GOOD, "with what was read before"
        slow.end.set()


def test_a_check_that_is_removed_while_it_waits_gives_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowFiles(monkeypatch)
    cert, key = servers.certificate()
    with CheckRig(SslContext(certificate_file=cert, key_file=key)) as rig:
        number, other = (rig.add(http(free_port(), ssl=True)) for _ in range(2))
        for each in (number, other):
            rig.checks.start(each, 0)
        rig.checks.remove(number)
        slow.end.set()
        rig.reactor.until(lambda: rig.answers)
        rig.reactor.spin()
        assert [answer.number for answer, _ in rig.answers] == [other]


# Hostile servers -------------------------------------------------------------------------------------------

LIMIT = 1.0
"""Seconds each check here has, for its connection and for its conversation."""

HOSTILE: dict[str, tuple[Handler, str]] = {
    "never answers": (servers.never_answers, "read timeout"),
    "closes at once": (servers.closes_at_once, ""),
    "resets": (servers.resets, ""),
    "endless header": (servers.endless_header, "a header of more than 65536 bytes"),
    "endless body": (servers.endless_body, "a body of more than 16777216 bytes"),
    "endless chunks": (servers.endless_chunks, "a body of more than 16777216 bytes"),
    "a byte now and then": (servers.byte_now_and_then, "read timeout"),
    "a body a byte at a time": (servers.slow_body, "read timeout"),
    "garbage": (servers.garbage, "not an HTTP response"),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_http_from_a_hostile_server_fails_in_time(rig: CheckRig, what: str, tls: bool) -> None:
    handler, detail = HOSTILE[what]
    context = servers.server_context() if tls else None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with TcpServer(handler, context=context) as server:
        # An endless body takes as long to be too long as the machine needs for it.
        timeout = 15 if "endless" in what else LIMIT
        answer = rig.run(http(server.port, ssl=tls, timeout=timeout, regex="never"))
        assert answer.verdict is BAD
        if not (tls and "timeout" not in detail):
            assert detail in answer.detail
    assert rig.took < 2 * timeout + 1
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 32 * 1024, "memory is bounded whatever a server sends"
    assert rig.connections.running == 0


@pytest.mark.parametrize(
    "handler",
    [servers.never_answers, servers.garbage, servers.tls_alert, servers.closes_at_once, servers.resets],
)
def test_a_handshake_that_does_not_come_about_fails_in_time(rig: CheckRig, handler: Handler) -> None:
    with TcpServer(handler) as server:
        answer = rig.run(http(server.port, ssl=True, timeout=LIMIT))
    assert answer.verdict is BAD and answer.detail
    assert rig.took < 2 * LIMIT + 1


def test_the_rest_goes_on_beside_hostile_servers(rig: CheckRig) -> None:
    """A healthy server is found healthy while others pour."""
    with (
        TcpServer(servers.endless_body) as pouring,
        TcpServer(servers.endless_body, context=servers.server_context()) as tls,
        TcpServer(servers.http_page(b"")) as good,
    ):
        for number in (rig.add(http(pouring.port, timeout=5)), rig.add(http(tls.port, ssl=True, timeout=5))):
            rig.checks.start(number, 0)
        rig.reactor.spin(3)
        for _ in range(5):
            wanted = rig.add(http(good.port))
            rig.checks.start(wanted, 0)
            rig.reactor.until(lambda wanted=wanted: any(a.number == wanted for a, _ in rig.answers))
        verdicts = {answer.number: answer.verdict for answer, _ in rig.answers}
        assert [verdicts[number] for number in range(3, 8)] == [GOOD] * 5


# SMTP ------------------------------------------------------------------------------------------------------


def smtp_check(port: int, timeout: float = 2.0) -> SmtpCheck:
    return SmtpCheck(ONCE, connection(port, timeout=timeout), "me.example")


@pytest.mark.parametrize(
    ("handler", "verdict"),
    [
        (servers.smtp(), GOOD),
        (servers.smtp(greeting=b"220-welcome\r\n220-to\r\n220 us\r\n"), GOOD),
        (servers.smtp(helo=b"250-me.example\r\n250 SIZE 1000\r\n"), GOOD),
        (servers.smtp(greeting=b"554 go away\r\n"), BAD),
        (servers.smtp(helo=b"550 who are you\r\n"), BAD),
        (servers.smtp(greeting=b"220-half a reply\r\n"), BAD),
        (servers.endless_smtp, BAD),
        (servers.garbage, BAD),
        (servers.never_answers, BAD),
        (servers.closes_at_once, BAD),
    ],
)
def test_smtp(rig: CheckRig, handler: Handler, verdict: Verdict) -> None:
    with TcpServer(handler) as server:
        answer = rig.run(smtp_check(server.port, timeout=LIMIT))
    assert answer.verdict is verdict, answer
    assert rig.took < 2 * LIMIT + 1


# DNS -------------------------------------------------------------------------------------------------------


def dns_answer(query: bytes, code: int = 0, identifier: int | None = None) -> bytes:
    number = struct.unpack_from("!H", query)[0] if identifier is None else identifier
    return struct.pack("!HH", number, 0x8180 | code) + query[4:]


def dns(port: int, timeout: float = 2.0) -> DnsCheck:
    return DnsCheck(ONCE, connection(port, timeout=timeout), "A", "www.example.org")


def test_any_answer_without_an_error_is_good(rig: CheckRig) -> None:
    with UdpServer(lambda query: [dns_answer(query)]) as server:
        assert rig.run(dns(server.port)).verdict is GOOD
        assert server.received[0][12:] == b"\x03www\x07example\x03org\x00\x00\x01\x00\x01"


def test_an_error_is_told_by_its_name(rig: CheckRig) -> None:
    with UdpServer(lambda query: [dns_answer(query, 2)]) as server:
        answer = rig.run(dns(server.port))
    assert (answer.verdict, answer.detail) == (BAD, "answer SERVFAIL")


def test_what_is_no_answer_to_the_query_is_not_heard(rig: CheckRig) -> None:
    def answers(query: bytes) -> list[bytes]:
        other = struct.unpack_from("!H", query)[0] ^ 1
        return [b"", b"x", query, dns_answer(query, 0, other), dns_answer(query, 3)]

    with UdpServer(answers) as server:
        assert rig.run(dns(server.port)).detail == "answer NXDOMAIN"


def test_a_flood_of_other_datagrams_does_not_keep_a_check_from_ending(rig: CheckRig) -> None:
    with UdpServer(lambda query: [b"\0" * 512] * 200_000) as server:
        answer = rig.run(dns(server.port, timeout=LIMIT))
        assert (answer.verdict, answer.detail) == (BAD, "no answer in time")
        assert rig.took < LIMIT + 2


def test_a_name_that_cannot_be_asked_for_says_nothing_about_the_server(rig: CheckRig) -> None:
    check = DnsCheck(ONCE, connection(9), "A", "x" * 64)
    assert rig.run(check).verdict is NOT_RUN


# UDP -------------------------------------------------------------------------------------------------------


def udp(port: int, **words: object) -> UdpCheck:
    return UdpCheck(ONCE, connection(port, timeout=0.5), **words)  # type: ignore[arg-type]


def test_udp_silence_is_success_and_a_refusal_is_not(rig: CheckRig) -> None:
    with UdpServer(lambda data: []) as server:
        assert rig.run(udp(server.port)).verdict is GOOD
        assert rig.took >= 0.45
        assert rig.run(udp(server.port, require_reply=True)).verdict is BAD
        assert rig.run(udp(server.port, payload=b"\x01\x02")).verdict is GOOD
        assert server.received[-1] == b"\x01\x02"
    answer = rig.run(udp(free_port(socket.SOCK_DGRAM)))
    assert answer.verdict is BAD and "connection refused" in answer.detail


def test_a_required_reply_is_compared_under_its_mask(rig: CheckRig) -> None:
    with UdpServer(lambda data: [b"\x12\x34\x56"]) as server:
        for reply, mask, verdict in (
            (b"", b"", GOOD),
            (b"\x12\x34", b"", GOOD),
            (b"\x12\x35", b"", BAD),
            (b"\x12\x0f", b"\x00\xff", GOOD),
            (b"\x12\x34\x56\x78", b"", GOOD),
        ):
            check = udp(server.port, require_reply=True, reply=reply, reply_mask=mask)
            assert rig.run(check).verdict is verdict, (reply, mask)
        short = udp(server.port, require_reply=True, reply=b"\x12", min_reply_length=4)
        assert rig.run(short).verdict is BAD
        long = udp(server.port, require_reply=True, reply=b"\x12", max_reply_length=2)
        assert rig.run(long).verdict is BAD


# Ping ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_ping(rig: CheckRig, address: str) -> None:
    check = PingCheck(ONCE, connection(0, address=address, timeout=1))
    answer = rig.run(check)
    if answer.verdict is NOT_RUN and os.geteuid():
        pytest.skip("this user may not open ICMP sockets")
    assert answer.verdict is GOOD, answer


# Scripts ---------------------------------------------------------------------------------------------------


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "check.sh"
    path.write_text('#!/bin/sh\n. "$(dirname "$0")/body"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def misc(script: Path, body: str, *, timeout: float = 5, dynamic: bool = False) -> MiscCheck:
    (script.parent / "body").write_text(body)
    command = ScriptCommand((str(script), "a b"), str(script), os.geteuid(), os.getegid())
    return MiscCheck(ONCE, command, timeout_us=int(timeout * 1e6), dynamic=dynamic)


@pytest.mark.parametrize(
    ("body", "dynamic", "verdict", "weight"),
    [
        ("exit 0", False, GOOD, None),
        ("exit 1", False, BAD, None),
        ("exit 7", False, BAD, None),
        ("exit 0", True, GOOD, None),
        ("exit 1", True, BAD, None),
        ("exit 2", True, GOOD, 0),
        ("exit 42", True, GOOD, 40),
        ("exit 255", True, GOOD, 253),
        ("kill -9 $$", False, BAD, None),
        ('[ "$1" = "a b" ]', False, GOOD, None),
    ],
)
def test_a_scripts_status_decides(
    rig: CheckRig, script: Path, body: str, dynamic: bool, verdict: Verdict, weight: int | None
) -> None:
    answer = rig.run(misc(script, body, dynamic=dynamic))
    assert (answer.verdict, answer.weight) == (verdict, weight)


def test_a_script_that_runs_keeps_its_time_and_the_next_has_the_new_one(rig: CheckRig, script: Path) -> None:
    went_on = script.parent / "went on"
    body = f"while [ ! -e '{went_on}' ]; do sleep 0.01; done\nrm '{went_on}'"
    number = rig.add(misc(script, body, timeout=60))
    rig.checks.start(number, 0)
    rig.checks.change(number, misc(script, body, timeout=0.1))
    went_on.touch()
    rig.reactor.until(lambda: rig.answers)
    rig.checks.start(number, 0)
    rig.reactor.until(lambda: len(rig.answers) == 2)
    assert [(answer.verdict, answer.detail) for answer, _ in rig.answers] == [(GOOD, ""), (BAD, "timeout")]
    rig.checks.remove(number)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_script_that_cannot_be_executed_says_nothing_about_the_server(
    rig: CheckRig, script: Path, dynamic: bool
) -> None:
    check = misc(script, "exit 0", dynamic=dynamic)
    script.chmod(0o644)
    answer = rig.run(check)
    assert (answer.verdict, answer.weight) == (NOT_RUN, None) and "Permission denied" in answer.detail
    script.chmod(0o755)
    with script.open("a"):
        answer = rig.run(check)  # as it is being written
    assert (answer.verdict, answer.weight) == (NOT_RUN, None) and "busy" in answer.detail
    script.unlink()
    answer = rig.run(check)
    assert (answer.verdict, answer.weight) == (NOT_RUN, None) and "No such file" in answer.detail
    assert rig.reports == [], "the checker says it"


def test_a_script_that_takes_too_long_is_ended_with_all_it_started(rig: CheckRig, script: Path) -> None:
    mark = script.parent / "pids"
    body = f"trap '' TERM\nsleep 300 &\necho $$ $! > {mark}\nwait\nwhile :; do sleep 1; done"
    check = misc(script, body, timeout=0.5)
    answer = rig.run(check)
    assert (answer.verdict, answer.detail) == (BAD, "timeout")
    assert 0.4 < rig.took < 3
    pids = [int(word) for word in mark.read_text().split()]
    number = rig.number
    rig.answers.clear()
    rig.checks.start(number, 0)
    assert rig.answers[0][0].detail == "the run before it does not end", "they do not pile up"
    rig.reactor.until(lambda: rig.scripts.running == 0, 15)
    for pid in pids:
        poll(lambda pid=pid: not Path(f"/proc/{pid}").exists() or is_dead(pid), f"the end of process {pid}")
    (script.parent / "body").write_text("exit 0")
    rig.answers.clear()
    rig.checks.start(number, 0)
    rig.reactor.until(lambda: rig.answers)
    assert rig.answers[0][0].verdict is GOOD


def test_what_a_former_life_left_running_is_ended(script: Path) -> None:
    journal = MemoryJournal()
    mark = script.parent / "pid"
    rig = CheckRig(journal=journal)
    number = rig.add(misc(script, f"echo $$ > {mark}\nexec sleep 300", timeout=100))
    rig.checks.start(number, 0)
    rig.reactor.until(lambda: mark.exists() and mark.read_text().strip())
    pid = int(mark.read_text())
    left = MemoryJournal(journal.records)
    assert left.records
    with CheckRig(journal=left) as next_life:
        next_life.scripts.end_leftovers(dict(left.records))
        next_life.reactor.until(lambda: is_dead(pid))
        (report,) = next_life.reports
        assert report.startswith(f"MISC_CHECK {script} of a former life still runs")
    assert not left.records
    rig.close()


def is_dead(pid: int) -> bool:
    """Gone, or waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_alarm_does_not_outlive_a_search() -> None:
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
