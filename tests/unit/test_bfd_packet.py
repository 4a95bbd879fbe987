"""The checks of RFC 5880 §6.8.6, in their order: of several faults the first one is named."""

from __future__ import annotations

import pytest

from kad_bfd.core.packet import DropReason, PacketError, State, decode, encode
from tests.support.bfd_host import Host, control, instance

GOOD = encode(control(State.DOWN))


def changed(at: int, value: int, data: bytes = GOOD) -> bytes:
    return data[:at] + bytes((value,)) + data[at + 1 :]


def reason(data: bytes) -> DropReason:
    with pytest.raises(PacketError) as caught:
        decode(data)
    return caught.value.reason


def test_4_1_what_is_sent_has_version_1_the_length_and_no_multipoint_bit() -> None:
    assert (GOOD[0] >> 5, GOOD[1] & 1, GOOD[3], len(GOOD)) == (1, 0, 24, 24)


@pytest.mark.parametrize("version", [0, 2, 7])
def test_the_version_must_be_1(version: int) -> None:
    assert reason(changed(0, version << 5)) is DropReason.VERSION


@pytest.mark.parametrize("length", [0, 23])
def test_the_length_must_be_24_at_least(length: int) -> None:
    assert reason(changed(3, length)) is DropReason.LENGTH


def test_the_length_must_be_26_at_least_with_authentication() -> None:
    authenticated = changed(1, GOOD[1] | 0x04) + bytes(8)
    assert reason(changed(3, 25, authenticated)) is DropReason.LENGTH
    assert decode(changed(3, 26, authenticated)).authentication


def test_the_length_must_not_exceed_the_payload() -> None:
    assert reason(changed(3, 25)) is DropReason.PAYLOAD


@pytest.mark.parametrize("cut", range(24))
def test_a_payload_cut_anywhere_is_dropped(cut: int) -> None:
    expected = {0: DropReason.VERSION, 1: DropReason.LENGTH, 2: DropReason.LENGTH, 3: DropReason.LENGTH}
    assert reason(GOOD[:cut]) is expected.get(cut, DropReason.PAYLOAD)


def test_what_follows_the_packet_is_ignored() -> None:
    assert decode(GOOD + b"more") == decode(GOOD)


def test_the_detect_multiplier_must_not_be_zero() -> None:
    assert reason(changed(2, 0)) is DropReason.DETECT_MULT


def test_the_multipoint_bit_must_not_be_set() -> None:
    assert reason(changed(1, GOOD[1] | 1)) is DropReason.MULTIPOINT


def test_my_discriminator_must_not_be_zero() -> None:
    assert reason(GOOD[:4] + bytes(4) + GOOD[8:]) is DropReason.MY_DISCRIMINATOR


IN_ORDER = [
    (DropReason.VERSION, lambda data: changed(0, 2 << 5, data)),
    (DropReason.LENGTH, lambda data: changed(3, 3, data)),
    (DropReason.PAYLOAD, lambda data: changed(3, 200, data)),
    (DropReason.DETECT_MULT, lambda data: changed(2, 0, data)),
    (DropReason.MULTIPOINT, lambda data: changed(1, data[1] | 1, data)),
    (DropReason.MY_DISCRIMINATOR, lambda data: data[:4] + bytes(4) + data[8:]),
]


@pytest.mark.parametrize("first", range(len(IN_ORDER)))
def test_the_checks_are_made_in_order(first: int) -> None:
    data = GOOD
    for wanted, spoil in reversed(IN_ORDER[first:]):
        if not (wanted is DropReason.PAYLOAD and first == 1):  # one field cannot be both
            data = spoil(data)
    assert reason(data) is IN_ORDER[first][0]


# Those that need a session ---------------------------------------------------------------------------------


def dropped(host: Host, **how: object) -> str:
    """The one reason counted for a packet that is heard so."""
    packet = how.pop("packet")
    before = host.drops()
    host.hear(packet, **how)  # type: ignore[arg-type]
    after = host.drops()
    (found,) = [name for name in after if after[name] != before.get(name, 0)]
    return found


def test_your_discriminator_must_name_a_session() -> None:
    host = Host(instance()).boot()
    packet = control(State.DOWN, your_discriminator=host.discriminator ^ 1)
    assert dropped(host, packet=packet) == "your_discriminator"
    assert host.state() is State.DOWN


@pytest.mark.parametrize("state", [State.INIT, State.UP])
def test_your_discriminator_may_be_zero_only_in_down_and_admin_down(state: State) -> None:
    host = Host(instance()).boot()
    assert dropped(host, packet=control(state)) == "state"


def test_a_neighbour_that_is_not_configured_is_dropped() -> None:
    host = Host(instance()).boot()
    assert dropped(host, packet=control(State.DOWN), source="10.0.0.3") == "no_session"


def test_the_checks_that_need_a_session_are_made_in_order() -> None:
    """§6.8.6, then RFC 5881 §5: of a packet with every fault left the first one is named."""
    host = Host(instance()).boot()
    elsewhere = {"source": "10.0.0.3", "hop_limit": 1}
    unknown, ours = host.discriminator ^ 1, host.discriminator
    for yours, state, source, wanted in (
        (unknown, State.INIT, "10.0.0.3", "your_discriminator"),
        (0, State.INIT, "10.0.0.3", "state"),
        (0, State.DOWN, "10.0.0.3", "no_session"),
        (0, State.DOWN, "10.0.0.2", "authentication"),
        (ours, State.INIT, "10.0.0.3", "authentication"),
    ):
        plain = encode(control(state, your_discriminator=yours))
        data = changed(3, 32, changed(1, plain[1] | 0x04, plain)) + bytes((1, 8)) + bytes(6)
        assert dropped(host, packet=data, **(elsewhere | {"source": source})) == wanted
    packet = control(State.INIT, your_discriminator=ours)
    assert dropped(host, packet=packet, **elsewhere) == "source"
    assert dropped(host, packet=packet, hop_limit=1) == "ttl"


def test_authentication_is_dropped_since_none_is_in_use() -> None:
    host = Host(instance()).boot()
    data = changed(3, 32, changed(1, GOOD[1] | 0x04)) + bytes((1, 8)) + bytes(6)
    assert dropped(host, packet=data) == "authentication"
    assert host.state() is State.DOWN


def test_the_discriminator_does_not_excuse_a_stranger() -> None:
    host = Host(instance()).boot().bring_up()
    packet = control(State.DOWN, your_discriminator=host.discriminator)
    assert dropped(host, packet=packet, source="10.0.0.66") == "source"
    assert host.state() is State.UP


def test_nothing_is_heard_without_a_socket_to_answer_from() -> None:
    host = Host(instance())
    host.refused = "no such address"
    host.boot()
    assert dropped(host, packet=control(State.DOWN)) == "not_open"
