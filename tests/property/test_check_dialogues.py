"""Dialogues under any bytes, cut anywhere; HTTP beside h11."""

from __future__ import annotations

import hashlib
import itertools

import h11
from hypothesis import example, given
from hypothesis import strategies as st

from kad.config.model.check import Connection, HttpGet, Schedule, UdpCheck, Url
from kad.config.pattern import compile_pattern
from kad_check.core.dialogues.dialogue import SUCCESS, Dialogue, Outcome
from kad_check.core.dialogues.dns import DnsDialogue, encoded_name
from kad_check.core.dialogues.http import HttpDialogue, HttpRequest
from kad_check.core.dialogues.http_response import (
    BODY_LIMIT,
    HEADER_LIMIT,
    HttpResponse,
    MalformedResponseError,
)
from kad_check.core.dialogues.ping import PingDialogue
from kad_check.core.dialogues.smtp import REPLY_LIMIT, SmtpDialogue
from kad_check.core.dialogues.udp import UdpDialogue, matches

WHERE = Connection("192.0.2.1", 80)


def request(**words: object) -> HttpRequest:
    url = Url("/", **words)  # type: ignore[arg-type]
    return HttpRequest(HttpGet(Schedule(), WHERE, (url,)), url)


def every_dialogue() -> list[Dialogue]:
    udp = UdpCheck(Schedule(), WHERE, require_reply=True, reply=b"\x01\x02", reply_mask=b"\x00\xf0")
    return [
        HttpDialogue(request()),
        HttpDialogue(request(digest=b"x" * 16, regex="a.c")),
        SmtpDialogue("me"),
        DnsDialogue("example.org", "A", 0x1234),
        UdpDialogue(udp),
        PingDialogue(4, 7),
        PingDialogue(6, 7),
    ]


PIECES = st.lists(
    st.one_of(
        st.binary(max_size=300),
        st.sampled_from(
            [
                b"HTTP/1.1 200 OK\r\n",
                b"HTTP/1.0 404 no\n\n",
                b"Content-Length: 3\r\n",
                b"Content-Length: 99999999999999999999\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"\r\n",
                b"\n",
                b"5\r\nhello\r\n",
                b"0\r\n\r\n",
                b"ffffffff\r\n",
                b"220 x\r\n",
                b"250-",
                b"\x12\x34\x81\x80",
            ]
        ),
    ),
    max_size=12,
)


@given(PIECES)
def test_no_bytes_make_a_dialogue_raise_or_speak_on(pieces: list[bytes]) -> None:
    for dialogue in every_dialogue():
        outcome: Outcome | None = None
        for piece in pieces:
            outcome = dialogue.receive(piece)
            dialogue.to_send = b""
            if outcome is not None:
                break
        if outcome is None:
            assert isinstance(dialogue.silence(), Outcome)
            outcome = dialogue.end()
        assert outcome.success is (outcome == SUCCESS)
        assert len(outcome.detail) < 200


def read(data: bytes, cuts: list[int]) -> tuple[object, ...]:
    """What the reader makes of a stream that arrives in these pieces and then ends."""
    raw, decoded = bytearray(), bytearray()

    def take(raw_part: bytes, part: bytes) -> None:
        raw.extend(raw_part)
        decoded.extend(part)

    response = HttpResponse(take)
    at = 0
    try:
        for cut in [*sorted(cuts), len(data)]:
            response.receive(data[at:cut])
            at = cut
        complete = response.is_complete or response.end()
    except MalformedResponseError as error:
        return ("malformed", str(error))
    return response.status, complete, bytes(decoded), bytes(raw)


@given(PIECES.map(b"".join), st.lists(st.integers(0, 2000), max_size=6))
def test_where_a_stream_is_cut_makes_no_difference(data: bytes, cuts: list[int]) -> None:
    whole = read(data, [])
    assert read(data, [min(cut, len(data)) for cut in cuts]) == whole
    assert read(data, list(range(len(data)))) == whole


HEADERS = st.lists(
    st.tuples(st.sampled_from(["Server", "X-A", "Content-Type", "Date"]), st.text("abc 123,;", max_size=12)),
    max_size=4,
)


@st.composite
def responses(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A response as a server would write it, and its body."""
    status = draw(st.integers(200, 599).filter(lambda code: code not in (204, 304)))
    body = draw(st.binary(max_size=400))
    lines = [f"HTTP/1.{draw(st.integers(0, 1))} {status} {draw(st.text('Okay ', max_size=6))}".rstrip()]
    lines += [f"{name}: {value.strip()}" for name, value in draw(HEADERS)]
    kind = draw(st.sampled_from(["length", "chunks", "end"]))
    encoded = body
    if kind == "length":
        lines.append(f"{draw(st.sampled_from(['Content-Length', 'content-length']))}: {len(body)}")
    elif kind == "chunks":
        lines[0] = lines[0].replace("HTTP/1.0", "HTTP/1.1")
        lines.append("Transfer-Encoding: chunked")
        size = draw(st.integers(1, 50))
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        width = draw(st.integers(1, 20))  # RFC 9112 §7.1: leading zeros are digits like others
        sizes = [b"%0*x\r\n" % (width, len(part)) for part in (*parts, b"")]
        encoded = b"\r\n".join(map(bytes.__add__, sizes, (*parts, b""))) + b"\r\n"
    interim = draw(
        st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 x\r\nA: b\r\n\r\n"])
    )
    return interim + "\r\n".join([*lines, "", ""]).encode() + encoded, body


def oracle(data: bytes) -> tuple[int, bytes]:
    """Status and body as h11 reads them."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x"), ("Connection", "close")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    client.receive_data(b"")
    status, body = 0, b""
    while True:
        event = client.next_event()
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return status, body


@given(responses(), st.lists(st.integers(0, 600), max_size=5))
@example((b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""), [])
def test_responses_are_read_as_h11_reads_them(written: tuple[bytes, bytes], cuts: list[int]) -> None:
    data, body = written
    status, complete, decoded, _ = read(data, [min(cut, len(data)) for cut in cuts])
    assert complete
    assert (status, decoded) == oracle(data)
    assert decoded == body


@st.composite
def framed_bodies(draw: st.DrawFn) -> tuple[bytes, bytes, bytes]:
    """The field that says where a body ends, the body with its framing, and the body."""
    body = draw(st.binary(max_size=2000))
    if draw(st.booleans()):
        return b"Content-Length: %d" % len(body), body, body
    size = draw(st.integers(1, 2000))
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    trailers = b"".join(
        draw(st.lists(st.sampled_from([b"X-Sum: 1\r\n", b"Y:\n", b"\rZ: 0\r\n"]), max_size=3))
    )
    last = draw(st.sampled_from([b"0", b"00;x=y"]))
    return b"Transfer-Encoding: chunked", chunks + last + b"\r\n" + trailers + b"\r\n", body


@given(framed_bodies(), st.integers(1, 300), st.sampled_from([b"", b"\r\n", b"more"]))
def test_digest_and_verdict_do_not_depend_on_the_pieces(
    bodies: tuple[bytes, bytes, bytes], size: int, surplus: bytes
) -> None:
    field, framed, body = bodies
    data = b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (field, framed)
    for form in (framed, body):
        dialogue = HttpDialogue(request(digest=hashlib.md5(form).digest()))
        outcomes = []
        for at in range(0, len(data), size):
            assert outcomes == []
            piece = data[at : at + size] + (surplus if at + size >= len(data) else b"")
            outcomes += [outcome for outcome in [dialogue.receive(piece)] if outcome is not None]
        assert outcomes == [SUCCESS]


@given(st.sampled_from([b"", b"\r", b"X: 1\r\n", b"X: 1"]), st.integers(1, 30))
def test_the_end_of_the_stream_ends_trailers_too(trailers: bytes, size: int) -> None:
    framed = b"5\r\nhello\r\n0\r\n" + trailers
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed
    for form in (framed, b"hello"):
        dialogue = HttpDialogue(request(digest=hashlib.md5(form).digest()))
        assert {dialogue.receive(data[at : at + size]) for at in range(0, len(data), size)} == {None}
        assert dialogue.end() == SUCCESS


def test_trailers_are_waited_for_where_the_body_matters_and_bounded() -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    assert HttpDialogue(request()).receive(data) == SUCCESS
    for at_once in (1, 100, 100_000):
        dialogue = HttpDialogue(request(digest=b"x" * 16))
        outcome = dialogue.receive(data)
        assert outcome is None
        fed = 0
        while outcome is None:
            assert fed <= HEADER_LIMIT
            outcome = dialogue.receive(b"y" * at_once)
            fed += at_once
        assert outcome.detail == f"trailers of more than {HEADER_LIMIT} bytes"


@given(st.sampled_from([b"hello", b"5\r\nhel", b"5\r\nhello\r\n", b"5\r\nhelloo", b""]), st.integers(1, 80))
def test_where_the_status_alone_counts_the_body_may_be_wrong(body: bytes, size: int) -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body

    def verdict(**words: object) -> Outcome:
        dialogue = HttpDialogue(request(**words))
        for at in range(0, len(data), size):
            outcome = dialogue.receive(data[at : at + size])
            if outcome is not None:
                return outcome
        return dialogue.end()

    assert verdict() == SUCCESS
    assert verdict(status_codes=((300, 399),)).detail == "status code 200"
    assert "chunk" in verdict(regex="hello").detail
    assert "chunk" in verdict(digest=hashlib.md5(body).digest()).detail


def test_headers_and_bodies_are_bounded() -> None:
    dialogue = HttpDialogue(request(regex="x"))
    line = b"X: " + b"y" * 997 + b"\r\n"
    fed = 0
    outcome = dialogue.receive(b"HTTP/1.1 200 OK\r\n")
    while outcome is None:
        outcome = dialogue.receive(line)
        fed += len(line)
    assert not outcome.success and fed <= HEADER_LIMIT + len(line)
    dialogue = HttpDialogue(request())
    assert dialogue.receive(b"HTTP/1.1 200 OK\r\n\r\n") is None
    part = b"x" * (1 << 20)
    counted = itertools.takewhile(lambda n: dialogue.receive(part) is None, itertools.count())
    assert (len(list(counted)) + 1) * len(part) <= BODY_LIMIT + len(part)


def test_interim_responses_without_end_are_bounded() -> None:
    dialogue = HttpDialogue(request())
    outcome, fed = None, 0
    while outcome is None:
        outcome = dialogue.receive(b"HTTP/1.1 100 Continue\r\n\r\n" * 10)
        fed += 250
        assert fed < 2 * HEADER_LIMIT
    assert not outcome.success


@given(st.lists(st.sampled_from([b"220-a\r\n", b"220-\r\n"]), min_size=REPLY_LIMIT, max_size=REPLY_LIMIT + 5))
def test_an_smtp_reply_has_a_last_line(lines: list[bytes]) -> None:
    dialogue = SmtpDialogue("me")
    outcome = dialogue.receive(b"".join(lines) + b"220-x\r\n")
    assert outcome is not None and not outcome.success


@given(st.text("abc.-_", max_size=100))
def test_names_are_encoded_or_refused(name: str) -> None:
    try:
        encoded = encoded_name(name)
    except ValueError:
        return
    labels, at = [], 0
    while encoded[at]:
        labels.append(encoded[at + 1 : at + 1 + encoded[at]].decode())
        at += 1 + encoded[at]
    assert at == len(encoded) - 1
    assert ".".join(labels) == name.rstrip(".")


@given(st.binary(max_size=20), st.binary(max_size=20), st.binary(min_size=20, max_size=20))
def test_masked_bits_are_not_compared(data: bytes, reply: bytes, mask: bytes) -> None:
    mask = mask[: len(reply)]
    masked = bytes(byte ^ hidden for byte, hidden in zip(reply, mask, strict=True))
    assert matches(masked + data, reply, mask) or not reply
    assert matches(data, reply, b"\xff" * len(reply))
    if reply:
        assert not matches(bytes([reply[0] ^ 1]) + reply[1:], reply, b"")


@given(st.text("ab.*+?()[]{}|^$\\dwsZzhRQE<>:!=P-09,", max_size=25), st.booleans())
def test_any_pattern_compiles_or_is_refused(text: str, as_text: bool) -> None:
    try:
        compile_pattern(text, ("utf",) if as_text else ())
    except ValueError as error:
        assert str(error).startswith("the pattern cannot be used")
