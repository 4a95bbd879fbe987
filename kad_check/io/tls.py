"""TLS as a health check wants it: whether it can be spoken, not whether anybody should be trusted."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import warnings
from collections.abc import Callable

from kad.certificates import load_files
from kad.config.model.check import SslContext

READ_SIZE = 32 * 1024
"""Of one read from a socket. From 64 KB on the C library goes through all of its free memory each time."""
FETCHES_AT_ONCE = 64
"""Reads from a socket that lead to nothing: a server that goes on like that has failed, and others wait."""
_FLOOD = OSError(errno.EPROTO, "a flood of records without data")
_IGNORE_UNEXPECTED_EOF = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
_LEGACY_SERVER_CONNECT = getattr(ssl, "OP_LEGACY_SERVER_CONNECT", 0)


def client_context(
    settings: SslContext | None, warn: Callable[[str], None] = lambda _: None
) -> ssl.SSLContext:
    """No verification, as keepalived's; every version and cipher that this OpenSSL still knows.

    ``settings``: the SSL block, what is presented to servers. Raises OSError (ssl.SSLError is one) or
    ValueError for files that cannot be used; ``warn`` gets a complaint about one that has no effect.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # A server that cannot do better is up all the same, and closing without a goodbye is common.
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.options |= _IGNORE_UNEXPECTED_EOF | _LEGACY_SERVER_CONNECT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    complaint = load_files(context, settings) if settings is not None else ""
    if complaint:
        warn(complaint)
    return context


class TlsStream:
    """TLS over a connected socket that does not block, by way of memory.

    What lies in the socket is taken with one call, where OpenSSL by itself would make two for each record,
    and our last word of the handshake leaves together with the first of the conversation.
    """

    def __init__(self, context: ssl.SSLContext, carrier: socket.SocketType, server_name: str) -> None:
        self._carrier = carrier
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name or None)
        self._unsent = b""

    def shake_hands(self) -> bool:
        """False: more is to come. Raises OSError (ssl.SSLError is one) or ValueError when it fails."""
        for _ in range(FETCHES_AT_ONCE):
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                if not self._fetch():
                    return False
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush()  # why we refuse it
                raise
            else:
                return True
        raise _FLOOD

    def send(self, data: bytes) -> int:
        """How much of it was taken. Raises BlockingIOError when nothing is at present, or OSError."""
        if self._unsent:
            self._flush()
            if self._unsent:
                raise BlockingIOError
        taken = self._session.write(data)
        self._flush()
        return taken

    def recv(self, size: int) -> bytes:
        """Empty at the end, however it came. Raises BlockingIOError when nothing is here yet, or OSError."""
        data: bytes | None
        for _ in range(FETCHES_AT_ONCE):
            try:
                data = self._session.read(size)
            except ssl.SSLWantReadError:
                data = None
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            if self._unsent or self._outgoing.pending:
                # It may have said something before it closed.
                with contextlib.suppress(ConnectionError):
                    self._flush()
            if data is not None:
                return data
            try:
                if not self._fetch():
                    raise BlockingIOError
            except ConnectionResetError:
                return b""  # as with keepalived what was said before it counts, over TLS
        raise _FLOOD

    def unwrap(self) -> None:
        """Say goodbye, and do not wait for the answer. Raises OSError or ValueError."""
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLSyscallError):
            self._session.unwrap()
        self._flush()

    def close(self) -> None:
        self._carrier.close()

    def _fetch(self) -> bool:
        """Take what lies in the socket; False: nothing does. Its end is something."""
        try:
            data = self._carrier.recv(READ_SIZE)
        except BlockingIOError:
            return False
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return True

    def _flush(self) -> None:
        """Send what is to be sent, as far as it goes."""
        data = self._unsent + self._outgoing.read()
        self._unsent = b""
        while data:
            try:
                data = data[self._carrier.send(data) :]
            except BlockingIOError:
                self._unsent = data
                return
