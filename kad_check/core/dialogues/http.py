"""HTTP_GET and SSL_GET: one request, and what its answer must be. Pure.

The digest is of the body as it came, chunk framing included, since that is what keepalived's genhash prints;
for a chunked body that of the decoded one is right as well. The pattern is searched in the decoded body.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import md5
from re import Pattern
from typing import Any

from kad.config.model.check import HttpGet, Url
from kad.config.pattern import compile_pattern
from kad_check.core.dialogues.dialogue import SUCCESS, Outcome, failure
from kad_check.core.dialogues.http_response import HttpResponse, MalformedChunkError, MalformedResponseError

SUBJECT_LIMIT = 256 * 1024
"""Bytes of a body that a pattern is searched in; keepalived looks at all of it, 4 kB at a time."""
USER_AGENT = "KeepAliveClient"
"""keepalived's; servers' logs are filtered by it."""

Subject = bytes | str
Search = Callable[[Pattern[Any], Any, int], int | None]
"""Pattern, subject, first position: where the first match starts, or None. May raise PatternTimeoutError."""


class PatternTimeoutError(Exception):
    """The pattern needs too long on this subject."""


def plain_search(pattern: Pattern[Any], subject: Any, position: int) -> int | None:
    """A search without a time limit."""
    found = pattern.search(subject, position)
    return found.start() if found else None


@lru_cache(256)
def accepted_codes(ranges: tuple[tuple[int, int], ...]) -> frozenset[int]:
    """Every code in these ranges; one set for all the URLs that say the same."""
    return frozenset(code for low, high in ranges for code in range(low, high + 1))


class HttpRequest:
    """What is the same for every check of one URL. Raises ValueError for a pattern that cannot be used."""

    __slots__ = ("accepted", "data", "is_plain", "pattern", "search", "url")

    def __init__(self, check: HttpGet, url: Url, search: Search = plain_search) -> None:
        self.url = url
        self.data = request_of(check, url)
        self.pattern = compile_pattern(url.regex, url.regex_options) if url.regex else None
        self.search = search
        self.is_plain = self.pattern is None and not url.digest
        """Nothing but the status counts."""
        self.accepted = accepted_codes(url.status_codes)


class HttpDialogue:
    """One check of one URL."""

    to_send = b""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self.opening = request.data
        self._response = HttpResponse(None if request.is_plain else self._take_body)
        if not request.is_plain:
            self._raw = md5(usedforsecurity=False)
            self._decoded = md5(usedforsecurity=False)
            self._differ = False
            """Whether the body came in chunks."""
            self._subject = bytearray()

    def receive(self, data: bytes) -> Outcome | None:
        try:
            complete = self._response.receive(data)
        except MalformedChunkError as error:
            return self._judge_wrong_body(str(error))
        except MalformedResponseError as error:
            return failure(str(error))
        return self._judge() if complete else None

    def end(self) -> Outcome:
        if self._response.end():
            return self._judge()
        if self._response.status:
            return self._judge_wrong_body("connection closed within a chunk")
        return failure("no data received")

    def silence(self) -> Outcome:
        return failure("read timeout")

    def _take_body(self, raw: bytes, decoded: bytes) -> None:
        if self._request.url.digest:
            self._raw.update(raw)
            # A later part may lie within a chunk and be both; the first cannot.
            self._differ = self._differ or raw is not decoded
            if self._differ:
                self._decoded.update(decoded)
        if self._request.pattern is not None:
            self._subject += decoded[: SUBJECT_LIMIT - len(self._subject)]

    def _judge_wrong_body(self, problem: str) -> Outcome:
        """Where nobody looks at the body it may be as it likes, as with keepalived."""
        return self._judge() if self._request.is_plain else failure(problem)

    def _judge(self) -> Outcome:
        request, status = self._request, self._response.status
        if status not in request.accepted:
            return failure(f"status code {status}")
        if request.is_plain:
            return SUCCESS
        url = request.url
        if url.digest and not self._has_digest(url.digest):
            return failure(f"MD5 digest {self._raw.hexdigest()}")
        return SUCCESS if request.pattern is None else self._judge_pattern(request.pattern)

    def _has_digest(self, digest: bytes) -> bool:
        return digest == self._raw.digest() or (self._differ and digest == self._decoded.digest())

    def _judge_pattern(self, pattern: Pattern[Any]) -> Outcome:
        url = self._request.url
        subject: Subject = bytes(self._subject)
        if isinstance(pattern.pattern, str):
            subject = bytes(self._subject).decode(errors="replace")
        try:
            start = self._request.search(pattern, subject, url.regex_min_offset)
        except PatternTimeoutError:
            return failure("the pattern takes too long")
        found = start is not None and (url.regex_max_offset is None or start <= url.regex_max_offset)
        if found == url.regex_no_match:
            return failure("pattern found" if found else "pattern not found")
        return SUCCESS


def request_of(check: HttpGet, url: Url) -> bytes:
    """The request as keepalived sends it, byte for byte."""
    connection = check.connection
    host = url.virtualhost
    if not host:
        address = f"[{connection.address}]" if connection.family == 6 else connection.address
        host = f"{address}:{connection.port}"
    version = "1.1" if check.protocol == "1.1" else "1.0"
    close = "" if check.protocol == "1.0" else "Connection: close\r\n"
    text = f"GET {url.path} HTTP/{version}\r\nUser-Agent: {USER_AGENT}\r\n{close}Host: {host}\r\n\r\n"
    return text.encode()
