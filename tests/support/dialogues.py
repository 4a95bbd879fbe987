"""Real servers' ends of the dialogues that checkers have, for ``tests.support.lvs.Farm``: just enough
each."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from pathlib import Path


def http(connection: socket.socket) -> None:
    with contextlib.suppress(OSError), connection:
        connection.settimeout(5)
        said = b""
        while b"\r\n\r\n" not in said:
            got = connection.recv(4096)
            if not got:
                return
            said += got
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
        # Closed by the other end first, so that no reset overtakes the answer.
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)


def smtp(connection: socket.socket) -> None:
    with contextlib.suppress(OSError), connection:
        connection.settimeout(5)
        connection.sendall(b"220 test ready\r\n")
        with connection.makefile("rb") as lines:
            for line in lines:
                if line.upper().startswith(b"QUIT"):
                    connection.sendall(b"221 bye\r\n")
                    return
                connection.sendall(b"250 fine\r\n")


def dns(question: bytes) -> bytes:
    """The same question, answered with nothing wrong."""
    return question[:2] + b"\x81\x80" + question[4:6] + bytes(6) + question[12:]


class Tls:
    """``http`` over TLS, with a certificate of its own."""

    def __init__(self, directory: Path) -> None:
        key, certificate = directory / "key.pem", directory / "certificate.pem"
        words = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=test"]
        files = ["-keyout", str(key), "-out", str(certificate), "-days", "30", "-nodes"]
        argv = ["openssl", "req", "-x509", *words, *files]
        subprocess.run(argv, check=True, capture_output=True)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)

    def __call__(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.settimeout(5)
            http(self._context.wrap_socket(connection, server_side=True))
