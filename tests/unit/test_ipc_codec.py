"""Whatever bytes arrive, decoding gives a message or a counted drop."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kad.ipc import codec
from kad.ipc.codec import Decoder, DropReason, encode
from kad.ipc.messages import Applied, Apply, ChildToControl, ControlToChild, Hello, Role


def test_message_comes_back_as_it_was() -> None:
    decoder: Decoder[ChildToControl] = Decoder(ChildToControl)
    for message in (
        Hello(Role.VRRP, 7, 2, 3),
        Applied(Role.CHECK, 1, 4, ("no such device",)),
    ):
        assert decoder.decode(encode(message)) == message
    assert not decoder.drops


def test_slices_are_carried_as_bytes() -> None:
    message = Apply(3, {"VI_1": b"\x00\xff", "": b""})
    decoder: Decoder[ControlToChild] = Decoder(ControlToChild)
    assert decoder.decode(encode(message)) == message


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_counted(data: bytes) -> None:
    decoder: Decoder[ChildToControl] = Decoder(ChildToControl)
    result = decoder.decode(data)
    assert (result is None) == (decoder.drops[DropReason.GARBAGE] == 1)


@pytest.mark.parametrize("cut", range(1, len(encode(Hello(Role.VRRP, 7, 2, 3)))))
def test_every_truncation_is_counted(cut: int) -> None:
    decoder: Decoder[ChildToControl] = Decoder(ChildToControl)
    assert decoder.decode(encode(Hello(Role.VRRP, 7, 2, 3))[:cut]) is None
    assert decoder.drops[DropReason.GARBAGE] == 1


def test_a_message_of_the_other_direction_is_refused() -> None:
    decoder: Decoder[ChildToControl] = Decoder(ChildToControl)
    assert decoder.decode(encode(Apply(3, {}))) is None
    assert decoder.drops[DropReason.GARBAGE] == 1


def test_an_unknown_field_is_refused() -> None:
    decoder: Decoder[ChildToControl] = Decoder(ChildToControl)
    body = {"type": "Hello", "role": "vrrp", "pid": 1, "incarnation": 1, "generation": 0, "new": 1}
    assert decoder.decode(msgspec.msgpack.encode(body)) is None
    assert decoder.drops[DropReason.GARBAGE] == 1


def test_deep_nesting_is_counted_not_raised() -> None:
    decoder: Decoder[ChildToControl] = Decoder(ChildToControl)
    assert decoder.decode(b"\x91" * 100_000) is None
    assert decoder.drops[DropReason.GARBAGE] == 1


def test_too_long_is_not_even_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MESSAGE_LIMIT", 10)
    decoder: Decoder[ChildToControl] = Decoder(ChildToControl)
    assert decoder.decode(encode(Hello(Role.VRRP, 7, 2, 3))) is None
    assert decoder.drops == {DropReason.TOO_LONG: 1}
