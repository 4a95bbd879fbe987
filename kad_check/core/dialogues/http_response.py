"""Reads one HTTP response from a stream of hostile bytes, within limits (RFC 9112). Pure.

As much as a health check needs: the status, and where the body is. Header fields other than the three that
say how long the body is are not looked at; interim responses (1xx) are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable

HEADER_LIMIT = 64 * 1024
"""Bytes of all headers together, interim responses included."""
BODY_LIMIT = 16 * 1024 * 1024
"""Bytes of a body, as they come."""
_CHUNK_LINE_LIMIT = 1_024

_STATUS_LINE = re.compile(rb"HTTP/\d+(?:\.\d+)?[ \t]+(\d{3})(?:[ \t\r\n]|$)")
# For headers in lower case.
_LENGTH = re.compile(rb"\ncontent-length[ \t]*:[ \t]*([^\r\n]*)")
_CODING = re.compile(rb"\ntransfer-encoding[ \t]*:[ \t]*([^\r\n]*)")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}[ \t]*(?:;|$)")
_NO_BODY = (204, 304)

_IN_HEADER, _TO_LENGTH, _TO_END, _IN_CHUNKS, _DONE = range(5)


class MalformedResponseError(Exception):
    """Not HTTP, or more of it than allowed. The text says what, for people."""


class HttpResponse:
    """``on_body(raw, decoded)`` gets the body part by part; without chunks both are the same object."""

    __slots__ = ("_buffer", "_left", "_on_body", "_seen", "_state", "body_length", "status")

    def __init__(self, on_body: Callable[[bytes, bytes], None] | None = None) -> None:
        self._on_body = on_body
        self._buffer = b""
        self._seen = 0
        """Bytes of headers."""
        self._left = 0
        """To the end of the body, or of the present chunk."""
        self._state = _IN_HEADER
        self.status = 0
        """0: the header has not ended."""
        self.body_length = 0

    @property
    def is_complete(self) -> bool:
        return self._state == _DONE

    def receive(self, data: bytes) -> bool:
        """True: the response is complete. Raises MalformedResponseError."""
        while data and self._state == _IN_HEADER:
            data = self._take_header(data)
        if not data or self._state == _DONE:
            return self._state == _DONE
        self.body_length += len(data)
        if self.body_length > BODY_LIMIT:
            raise MalformedResponseError(f"a body of more than {BODY_LIMIT} bytes")
        if self._state == _IN_CHUNKS:
            self._take_chunks(data)
        else:
            self._take_plain(data)
        return self._state == _DONE

    def end(self) -> bool:
        """The stream ended. True: there was a response, if perhaps a shorter one than announced."""
        if self._state in (_TO_LENGTH, _TO_END):
            self._state = _DONE
        return self._state == _DONE

    # Header ----------------------------------------------------------------------------------------------

    def _take_header(self, data: bytes) -> bytes:
        """Returns what follows the header; nothing while it has not ended."""
        searched = max(0, len(self._buffer) - 3)
        buffer = self._buffer + data
        if not buffer.startswith(b"HTTP/"[: len(buffer)]):
            raise MalformedResponseError("not an HTTP response")
        start, end = _end_of_header(buffer, searched)
        if self._seen + (end if end else len(buffer)) > HEADER_LIMIT:
            raise MalformedResponseError(f"a header of more than {HEADER_LIMIT} bytes")
        if not end:
            self._buffer = buffer
            return b""
        self._buffer = b""
        self._seen += end
        self._read_header(buffer[: start + 1])
        return buffer[end:]

    def _read_header(self, header: bytes) -> None:
        line = _STATUS_LINE.match(header)
        if line is None:
            raise MalformedResponseError("not an HTTP response")
        status = int(line[1])
        # RFC 9110 §15.2: a client must be able to take interim responses; 101 ends HTTP on the connection.
        if 100 <= status < 200 and status != 101:
            return
        self.status = status
        if status in _NO_BODY:
            self._state = _DONE
            return
        header = header.lower()
        if _is_chunked(header):
            self._state = _IN_CHUNKS
            return
        length = _content_length(header)
        if length is None:
            self._state = _TO_END
        else:
            self._left = length
            self._state = _TO_LENGTH if length else _DONE

    # Body ------------------------------------------------------------------------------------------------

    def _take_plain(self, data: bytes) -> None:
        if self._state == _TO_LENGTH:
            data = data[: self._left]
            self._left -= len(data)
            if not self._left:
                self._state = _DONE
        self._give(data, data)

    def _take_chunks(self, data: bytes) -> None:
        """RFC 9112 §7.1. What the raw body is told keeps the framing, as it came."""
        buffer = self._buffer + data
        at, parts = 0, []
        while self._state == _IN_CHUNKS:
            if self._left > 2:
                part = buffer[at : at + self._left - 2]
                if not part:
                    break
                parts.append(part)
                self._left -= len(part)
                at += len(part)
                continue
            if self._left:
                if len(buffer) - at < 2:
                    break
                if buffer[at : at + 2] != b"\r\n":
                    raise MalformedResponseError("a malformed chunk")
                at += 2
                self._left = 0
            line_end = buffer.find(b"\r\n", at, at + _CHUNK_LINE_LIMIT)
            if line_end < 0:
                if len(buffer) - at >= _CHUNK_LINE_LIMIT:
                    raise MalformedResponseError("a malformed chunk")
                break
            at = self._begin_chunk(buffer, at, line_end)
        self._buffer = buffer[at:]
        self._give(data, b"".join(parts))

    def _begin_chunk(self, buffer: bytes, at: int, line_end: int) -> int:
        line = buffer[at:line_end]
        if _CHUNK_SIZE.match(line) is None:
            raise MalformedResponseError("a malformed chunk")
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            # Trailer fields are not waited for: nothing in them could change the verdict.
            self._state = _DONE
        self._left = size + 2 if size else 0
        return line_end + 2

    def _give(self, raw: bytes, decoded: bytes) -> None:
        if self._on_body is not None:
            self._on_body(raw, decoded)


def _end_of_header(buffer: bytes, searched: int) -> tuple[int, int]:
    """Where the empty line begins and ends; (0, 0): it is not there. Lines may end with LF alone."""
    end = buffer.find(b"\n\r\n", searched)
    bare = buffer.find(b"\n\n", searched, end if end >= 0 else len(buffer))
    if bare >= 0:
        return bare, bare + 2
    return (end, end + 3) if end >= 0 else (0, 0)


def _is_chunked(header: bytes) -> bool:
    if b"\ntransfer-encoding" not in header:
        return False
    coding = _CODING.search(header)
    return coding is not None and coding[1].strip().endswith(b"chunked")


def _content_length(header: bytes) -> int | None:
    """None: there is none, or none that can be believed (RFC 9112 §6.3); the body goes on to the end then."""
    values = _LENGTH.findall(header) if b"\ncontent-length" in header else ()
    if not values:
        return None
    text = values[0].strip()
    if len(values) > 1 and any(value.strip() != text for value in values):
        return None
    return int(text) if text.isdigit() and len(text) <= 15 else None
