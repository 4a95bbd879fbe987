"""Reads one HTTP response from a stream of hostile bytes, within limits (RFC 9112). Pure.

As much as a health check needs: the status, and where the body is. Header fields other than the three that
say how long the body is are not looked at; interim responses (1xx) are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable

HEADER_LIMIT = 64 * 1024
"""Bytes of all headers together, interim responses included; and of what follows the last chunk."""
BODY_LIMIT = 16 * 1024 * 1024
"""Bytes of a body, as they come."""
_CHUNK_LINE_LIMIT = 1_024

_STATUS_LINE = re.compile(rb"HTTP/\d+(?:\.\d+)?[ \t]+(\d{3})(?:[ \t\r\n]|$)")
_END_OF_HEADER = re.compile(rb"\n\r?\n")
"""Lines may end with LF alone."""
_FIELDS = re.compile(rb"\n(content-length|transfer-encoding)[ \t]*:[ \t]*([^\r\n]*)")
"""In a header in lower case."""
_CHUNK_SIZE = re.compile(rb"0*[0-9A-Fa-f]{1,8}[ \t]*(?:;|$)")
_NO_BODY = (204, 304)

_IN_HEADER, _TO_LENGTH, _TO_END, _IN_CHUNKS, _IN_TRAILER, _DONE = range(6)


class MalformedResponseError(Exception):
    """Not HTTP, or more of it than allowed. The text says what, for people."""


class MalformedChunkError(MalformedResponseError):
    """The header is fine, and says that the body comes in chunks, but what follows is none."""

    def __init__(self) -> None:
        super().__init__("a malformed chunk")


class HttpResponse:
    """``on_body(raw, decoded)`` gets the body part by part; without chunks both are the same object.

    With chunks the first ``raw`` begins with a chunk's size: it is another object than ``decoded``.
    """

    # Class attributes: a response is made for each check, and few change all of them.
    _buffer = b""
    _seen = 0
    """Bytes of headers."""
    _left = 0
    """To the end of the body, or of the present chunk; of trailers: what is still allowed."""
    _state = _IN_HEADER
    status = 0
    """0: the header has not ended."""
    body_length = 0

    def __init__(self, on_body: Callable[[bytes, bytes], None] | None = None) -> None:
        self._on_body = on_body

    @property
    def header_length(self) -> int:
        """Bytes, interim responses included."""
        return self._seen

    @property
    def is_complete(self) -> bool:
        return self._state == _DONE

    def receive(self, data: bytes) -> bool:
        """True: the response is complete. Raises MalformedResponseError."""
        while data and self._state == _IN_HEADER:
            data = self._take_header(data)
        state = self._state
        if not data or state == _DONE:
            return state == _DONE
        self.body_length += len(data)
        if self.body_length > BODY_LIMIT:
            raise MalformedResponseError(f"a body of more than {BODY_LIMIT} bytes")
        if state == _IN_CHUNKS:
            self._take_chunks(data)
        elif state == _IN_TRAILER:
            self._give(data[: len(data) - self._take_trailer(data)], b"")
        else:
            self._take_plain(data)
        return self._state == _DONE

    def end(self) -> bool:
        """The stream ended. True: there was a response, if perhaps a shorter one than announced."""
        if self._state in (_TO_LENGTH, _TO_END, _IN_TRAILER):
            self._state = _DONE
        return self._state == _DONE

    # Header ----------------------------------------------------------------------------------------------

    def _take_header(self, data: bytes) -> bytes:
        """Returns what follows the header; nothing while it has not ended."""
        searched = 0
        if self._buffer:
            searched = max(0, len(self._buffer) - 3)
            data = self._buffer + data
        found = _END_OF_HEADER.search(data, searched)
        end = found.end() if found is not None else len(data)
        if self._seen + end > HEADER_LIMIT:
            raise MalformedResponseError(f"a header of more than {HEADER_LIMIT} bytes")
        if found is None:
            if not data.startswith(b"HTTP/"[: len(data)]):
                raise MalformedResponseError("not an HTTP response")
            self._buffer = data
            return b""
        self._buffer = b""
        self._seen += end
        self._read_header(data[:end])
        return data[end:]

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
        else:
            self._plan_body(_FIELDS.findall(header.lower()))

    def _plan_body(self, fields: list[tuple[bytes, bytes]]) -> None:
        """Where the body ends, by the fields that say so."""
        length: int | None = None
        if len(fields) == 1 and fields[0][0] == b"content-length":
            length = _number(fields[0][1])
        elif fields:
            if _is_chunked(fields):
                self._state = _IN_CHUNKS
                return
            length = _content_length(fields)
        if length is None:
            self._state = _TO_END
        else:
            self._left = length
            self._state = _TO_LENGTH if length else _DONE

    # Body ------------------------------------------------------------------------------------------------

    def _take_plain(self, data: bytes) -> None:
        if self._state == _TO_LENGTH:
            if len(data) >= self._left:
                data = data[: self._left]
                self._state = _DONE
            self._left -= len(data)
        if self._on_body is not None:
            self._on_body(data, data)

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
                    raise MalformedChunkError
                at += 2
                self._left = 0
            line_end = buffer.find(b"\r\n", at, at + _CHUNK_LINE_LIMIT)
            if line_end < 0:
                if len(buffer) - at >= _CHUNK_LINE_LIMIT:
                    raise MalformedChunkError
                break
            at = self._begin_chunk(buffer, at, line_end)
        rest, self._buffer = buffer[at:], b""
        surplus = 0
        if self._state == _IN_CHUNKS:
            self._buffer = rest
        elif self._state == _IN_TRAILER:
            self._buffer, self._left = b"\n", HEADER_LIMIT
            surplus = self._take_trailer(rest)
        self._give(data[: len(data) - surplus], b"".join(parts))

    def _begin_chunk(self, buffer: bytes, at: int, line_end: int) -> int:
        line = buffer[at:line_end]
        if _CHUNK_SIZE.match(line) is None:
            raise MalformedChunkError
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            # Trailers are not waited for where nobody looks: nothing in them could change the verdict.
            self._state = _DONE if self._on_body is None else _IN_TRAILER
        self._left = size + 2 if size else 0
        return line_end + 2

    def _take_trailer(self, data: bytes) -> int:
        """Trailer fields and the blank line (RFC 9112 §7.1.2), part of the raw body. Returns the surplus."""
        text = self._buffer + data
        found = _END_OF_HEADER.search(text)
        surplus = 0 if found is None else len(text) - found.end()
        self._left -= len(data) - surplus
        if self._left < 0:
            raise MalformedResponseError(f"trailers of more than {HEADER_LIMIT} bytes")
        if found is not None:
            self._state = _DONE
        self._buffer = text[-2:]  # where the blank line may begin
        return surplus

    def _give(self, raw: bytes, decoded: bytes) -> None:
        if self._on_body is not None:
            self._on_body(raw, decoded)


def _is_chunked(fields: list[tuple[bytes, bytes]]) -> bool:
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    return bool(codings) and codings[0].strip().endswith(b"chunked")


def _content_length(fields: list[tuple[bytes, bytes]]) -> int | None:
    """None: there is none, or none that can be believed (RFC 9112 §6.3); the body goes on to the end then."""
    values = {value.strip() for name, value in fields if name == b"content-length"}
    return _number(values.pop()) if len(values) == 1 else None


def _number(text: bytes) -> int | None:
    text = text.strip()
    return int(text) if text.isdigit() and len(text) <= 15 else None
