"""``genhash``: the digest for the configuration, beside keepalived's own."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.servers import (
    TcpServer,
    Visit,
    garbage,
    http_answer,
    http_page,
    never_answers,
    server_context,
    slow_body,
    smtp,
)

BIN = Path(sys.executable).parent
PAGE = b"<html>all is well</html>\n" + bytes(range(256))
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)


def genhash(port: int, *words: str, url: str = "/page") -> subprocess.CompletedProcess[str]:
    return run(str(BIN / "genhash"), "-s", "127.0.0.1", "-p", str(port), "-u", url, *words)


@pytest.mark.parametrize("protocol", ["1.0", "1.0c", "1.0C", "1.1"])
@pytest.mark.parametrize("ssl", [False, True], ids=["plain", "TLS"])
def test_it_prints_the_digest_of_the_body(protocol: str, ssl: bool) -> None:
    requests: list[bytes] = []

    def handle(visit: Visit) -> None:
        requests.append(visit.request())
        visit.send(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n" + PAGE)

    names: list[str | None] = []
    with TcpServer(handle, context=server_context(names=names) if ssl else None) as server:
        words = ["-P", protocol, "-V", "a.example", *(["-S", "-I"] if ssl else [])]
        done = genhash(server.port, *words)
    assert (done.returncode, done.stdout) == (0, hashlib.md5(PAGE).hexdigest() + "\n"), done.stderr
    (request,) = requests
    assert request.startswith(f"GET /page HTTP/{protocol[:3]}\r\n".encode())
    assert b"\r\nHost: a.example\r\n" in request
    assert (b"\r\nConnection: close\r\n" in request) == (protocol != "1.0")
    assert names == (["a.example"] if ssl else [])


def test_the_verbose_report_is_keepaliveds(tmp_path: Path) -> None:
    keepalived = shutil.which("keepalived", path="/usr/sbin")
    if keepalived is None:
        pytest.skip("keepalived is not installed")
    with TcpServer(http_page(PAGE)) as server:
        words = ("-s", "127.0.0.1", "-p", str(server.port), "-u", "/a/b", "-v")
        theirs, ours = run(keepalived, "--genhash", *words), run(str(BIN / "kad"), "--genhash", *words)
    assert ours.stdout.splitlines()[:-1] == theirs.stdout.splitlines()[:-1]
    assert ours.stdout.splitlines()[-1].startswith("Global response time for [/a/b] = ")
    assert (ours.returncode, ours.stderr) == (0, "")


@pytest.mark.parametrize("trailers", [b"", b"X-Sum: 1\r\n"])
@pytest.mark.parametrize("pauses", [False, True])
def test_a_body_in_chunks_has_the_digest_that_keepalived_wants(trailers: bytes, pauses: bool) -> None:
    """All of it, even where the last lines come later than the last chunk."""

    def handle(visit: Visit) -> None:
        visit.request()
        visit.send(CHUNKED[:-2])
        if pauses:
            visit.pause(0.1)
        visit.send(trailers + CHUNKED[-2:])

    keepalived = shutil.which("keepalived", path="/usr/sbin")
    with TcpServer(handle) as server:
        done = genhash(server.port)
        words = ("-s", "127.0.0.1", "-p", str(server.port), "-u", "/page")
        theirs = run(keepalived, "--genhash", *words).stdout if keepalived is not None else ""
    framed = CHUNKED[:-2].partition(b"\r\n\r\n")[2] + trailers + CHUNKED[-2:]
    assert done.stdout.strip() == hashlib.md5(framed).hexdigest()
    if keepalived is not None:
        assert done.stdout.strip() in theirs


@pytest.mark.parametrize("body", [b"hello", b"5\r\nhello\r\n", b"x" * 70_000])
def test_a_body_that_is_not_in_chunks_as_announced_is_digested_as_it_came(body: bytes) -> None:
    keepalived = shutil.which("keepalived", path="/usr/sbin")
    header = CHUNKED.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    with TcpServer(http_answer(header + body)) as server:
        done = genhash(server.port)
        words = ("-s", "127.0.0.1", "-p", str(server.port), "-u", "/page")
        theirs = run(keepalived, "--genhash", *words).stdout if keepalived is not None else ""
    assert (done.stdout.strip(), done.stderr) == (hashlib.md5(body).hexdigest(), "")
    if keepalived is not None:
        assert done.stdout.strip() in theirs


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (http_answer(b""), "no data received"),
        (garbage, "not an HTTP response"),
        (smtp(), "not an HTTP response"),
        (never_answers, "timed out"),
        (slow_body, "timed out"),
    ],
)
def test_without_a_page_it_fails_within_its_time(handler: object, reason: str) -> None:
    with TcpServer(handler) as server:  # type: ignore[arg-type]
        began = time.monotonic()
        done = genhash(server.port, "-t", "1")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"Connection failed: {reason}\n")
    assert time.monotonic() - began < 10


def test_nobody_listens() -> None:
    done = genhash(1)
    assert (done.returncode, done.stderr) == (1, "Connection failed: Connection refused\n")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "Usage: genhash"),
        (("-h",), "Usage: genhash"),
        (("-s", "127.0.0.1", "-p", "80"), "Usage: genhash"),
        (("-s", "www.example", "-p", "80", "-u", "/"), "server should be an IP, not www.example"),
        (("-s", "127.0.0.1", "-p", "0", "-u", "/"), "invalid port number '0'"),
        (("-s", "127.0.0.1", "-p", "80", "-u", "/", "-P", "2"), "invalid HTTP protocol version '2'"),
        (("-s", "127.0.0.1", "-p", "80", "-u", "/", "-t", "-1"), "invalid timeout '-1'"),
        (("-s", "127.0.0.1", "-p", "80", "-u", "/", "more"), "Unexpected argument(s): more"),
        (("--bogus",), "option --bogus not recognized"),
    ],
)
def test_a_wrong_command_line_is_said(words: tuple[str, ...], complaint: str) -> None:
    done = run(str(BIN / "genhash"), *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0].startswith(complaint)
    assert "--use-virtualhost" in done.stderr


def test_kad_is_genhash_only_where_that_is_said_first() -> None:
    done = run(str(BIN / "kad"), "-n", "--genhash")
    assert (done.returncode, done.stderr) == (1, "--genhash must be the first option\n")
