import contextlib
import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kad.kernel import encoder
from kad.kernel.encoder import MalformedMessage, Message


def test_a_message_read_back_is_the_one_written() -> None:
    data = encoder.message(20, encoder.NLM_F_ACK, 7, b"abcde")
    assert len(data) % 4 == 0
    assert list(encoder.messages(data)) == [Message(20, 0x5, 7, 0, b"abcde")]


def test_requests_can_be_strung_together() -> None:
    data = b"".join(encoder.message(20, 0, number, b"x" * number) for number in range(1, 6))
    assert [(m.sequence, m.body) for m in encoder.messages(data)] == [(n, b"x" * n) for n in range(1, 6)]


def test_attributes_by_type() -> None:
    data = (
        encoder.u8(1, 200)
        + encoder.u16(2, 0x1234)
        + encoder.u16_big(3, 0x1234)
        + encoder.u32(4, 5)
        + encoder.u64(5, 6)
        + encoder.text(6, "eth0")
        + encoder.nested(7, encoder.u32(1, 9))
    )
    found = encoder.attributes(b"head" + data, 4)
    assert found[1] == b"\xc8"
    assert found[2] == struct.pack("=H", 0x1234)
    assert found[3] == b"\x12\x34"
    assert encoder.read_u32(found[4]) == 5
    assert found[5] == struct.pack("=Q", 6)
    assert encoder.read_text(found[6]) == "eth0"
    assert encoder.read_u32(encoder.attributes(found[7])[1]) == 9


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("=IHHII", 15, 2, 0, 0, 0),
        struct.pack("=IHHII", 17, 2, 0, 0, 0),
        struct.pack("=IHHII", 0, 2, 0, 0, 0),
    ],
)
def test_a_message_longer_or_shorter_than_itself_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        list(encoder.messages(data))


@pytest.mark.parametrize("data", [struct.pack("=HH", 3, 1), struct.pack("=HH", 5, 1)])
def test_an_attribute_out_of_bounds_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        encoder.attributes(data)


@given(st.binary(max_size=300))
def test_any_bytes_end_in_values_or_malformed(data: bytes) -> None:
    try:
        for found in encoder.messages(data):
            encoder.attributes(found.body)
    except MalformedMessage:
        pass


@given(st.binary(max_size=100), st.integers(0, 0xFFFF))
def test_any_reply_is_an_answer_or_malformed(body: bytes, flags: int) -> None:
    for kind in (encoder.NLMSG_ERROR, encoder.NLMSG_DONE):
        with contextlib.suppress(MalformedMessage):
            encoder.answer(Message(kind, flags, 1, 0, body))


def test_answers() -> None:
    status = struct.pack("=i", -errno.EEXIST)
    echoed = struct.pack("=IHHII", 16, 20, 5, 1, 0)
    assert encoder.answer(Message(2, 0, 1, 0, status + echoed)) == encoder.Answer(errno.EEXIST)
    assert encoder.answer(Message(2, 0, 1, 0, bytes(4) + echoed)).error == 0
    assert encoder.answer(Message(3, 2, 1, 0, b"")).error == 0
    words = encoder.text(1, "no such thing")
    flags = encoder.NLM_F_CAPPED | encoder.NLM_F_ACK_TLVS
    assert encoder.answer(Message(2, flags, 1, 0, status + echoed + words)).text == "no such thing"
    longer = struct.pack("=IHHII", 20, 20, 5, 1, 0) + b"body"
    flags = encoder.NLM_F_ACK_TLVS
    assert encoder.answer(Message(2, flags, 1, 0, status + longer + words)).text == "no such thing"
