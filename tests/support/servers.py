"""Servers to be checked: well-behaved ones and hostile ones, on 127.0.0.1, each with a port of its own.

    with TcpServer(http_page(b"hello")) as server:
        ...                          # server.port; server.connections counts

A handler gets a connected socket and speaks; the connection is closed when it returns. All of it ends when
the server is closed, whatever the handler waits for.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

Handler = Callable[["Visit"], None]


class Visit:
    """One connection. Its methods raise ConnectionError at the end of the test."""

    def __init__(self, connection: socket.socket, stop: threading.Event) -> None:
        self.connection = connection
        self.stop = stop

    def send(self, data: bytes) -> None:
        self.connection.settimeout(0.2)
        view = memoryview(data)
        while view:
            if self.stop.is_set():
                raise ConnectionAbortedError
            with contextlib.suppress(TimeoutError):
                view = view[self.connection.send(view) :]

    def receive(self) -> bytes:
        self.connection.settimeout(0.2)
        while not self.stop.is_set():
            with contextlib.suppress(TimeoutError):
                return self.connection.recv(65536)
        raise ConnectionAbortedError

    def line(self) -> bytes:
        """Up to a newline, or the end."""
        data = b""
        while not data.endswith(b"\n"):
            more = self.receive()
            if not more:
                break
            data += more
        return data

    def request(self) -> bytes:
        """An HTTP request's header."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.receive()
            if not more:
                break
            data += more
        return data

    def pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise ConnectionAbortedError

    def hold(self) -> None:
        """Say nothing, for ever."""
        self.stop.wait()


class TcpServer:
    """One thread a connection."""

    def __init__(self, handler: Handler, *, context: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._context = context
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.connections = 0
        self.requests: list[bytes] = []

    def __enter__(self) -> TcpServer:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.settimeout(0.1)
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                self.connections += 1
                self._start(functools.partial(self._serve, connection))

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if self._context is not None:
                connection.settimeout(5)
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                self._handler(Visit(connection, self._stop))


class UdpServer:
    """``answer(datagram)`` yields what is sent back."""

    def __init__(self, answer: Callable[[bytes], list[bytes]]) -> None:
        self._answer = answer
        self._stop = threading.Event()
        self.received: list[bytes] = []

    def __enter__(self) -> UdpServer:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._socket.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError, ConnectionError):
                data, sender = self._socket.recvfrom(65536)
                self.received.append(data)
                for reply in self._answer(data):
                    if self._stop.is_set():
                        break
                    self._socket.sendto(reply, sender)


# Well-behaved ----------------------------------------------------------------------------------------------


def http_answer(answer: bytes) -> Handler:
    """The same bytes to every request, then the end."""

    def handle(visit: Visit) -> None:
        if visit.request():
            visit.send(answer)

    return handle


def http_page(body: bytes, status: str = "200 OK", *headers: str) -> Handler:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return http_answer("\r\n".join(lines).encode() + body)


def smtp(greeting: bytes = b"220 ready\r\n", helo: bytes = b"250 hello\r\n") -> Handler:
    def handle(visit: Visit) -> None:
        visit.send(greeting)
        if visit.line().startswith(b"HELO "):
            visit.send(helo)
        if visit.line() == b"QUIT\r\n":
            visit.send(b"221 bye\r\n")

    return handle


def closes_at_once(visit: Visit) -> None:
    """Accepts, and hangs up."""


# Hostile ---------------------------------------------------------------------------------------------------


def never_answers(visit: Visit) -> None:
    visit.hold()


def resets(visit: Visit) -> None:
    visit.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def page_and_reset(visit: Visit) -> None:
    """A body that ends with the connection, which is broken off and not closed."""
    visit.request()
    visit.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else it might wait, and be lost
    visit.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
    resets(visit)


def endless_header(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 200 OK\r\n")
    for number in itertools.count():
        visit.send(f"X-Header-{number}: {'x' * 1000}\r\n".encode())


def endless_body(visit: Visit) -> None:
    visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        visit.send(b"x" * 65536)


def endless_chunks(visit: Visit) -> None:
    visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        visit.send(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")


def byte_now_and_then(visit: Visit) -> None:
    """Faster than once a second, so that a test need not last; slower than any limit allows for all of it."""
    visit.request()
    for byte in itertools.cycle(b"HTTP/1.1 200 OK\r\nX-Header: y\r\n"):
        visit.send(bytes([byte]))
        visit.pause(0.1)


def slow_body(visit: Visit) -> None:
    visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        visit.send(b"x")
        visit.pause(0.1)


def garbage(visit: Visit) -> None:
    visit.send(bytes(range(256)) * 300)
    visit.receive()


def tls_alert(visit: Visit) -> None:
    """A fatal alert, handshake failure, instead of a ServerHello."""
    visit.receive()
    visit.send(b"\x15\x03\x03\x00\x02\x02\x28")


def endless_smtp(visit: Visit) -> None:
    while True:
        visit.send(b"220-and another thing\r\n")


# Certificates ----------------------------------------------------------------------------------------------


@functools.cache
def certificate() -> tuple[str, str]:
    """Files with a certificate for anybody, and its key; made once."""
    return make_certificate(Path(tempfile.mkdtemp(prefix="ks-")))


def make_certificate(directory: Path, *kind: str) -> tuple[str, str]:
    """A new one, in this directory. ``kind``: words for openssl about the key, which is RSA else."""
    key, cert = directory / "key.pem", directory / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", *(kind or ("rsa:2048",)), "-nodes", "-days", "30"),
            *("-subj", "/CN=checked.example", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return str(cert), str(key)


def server_context(
    *, names: list[str | None] | None = None, client_certificate: bool = False
) -> ssl.SSLContext:
    """``names`` collects the SNI of each handshake; ``client_certificate``: one must be presented."""
    cert, key = certificate()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    if client_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cert)
    if names is not None:
        context.set_servername_callback(lambda _socket, name, _context: names.append(name))
    return context
