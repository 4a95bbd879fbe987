"""Any bytes, any packets, any order: counted or believed, never a crash. What is always true of a session."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kad_bfd.core.events import TimeReached
from kad_bfd.core.packet import ControlPacket, PacketError, State, decode, encode
from kad_bfd.core.record import decode as decode_record
from kad_bfd.core.record import encode as encode_record
from tests.support.bfd_host import MS, SECOND, Host, instance

u32 = st.integers(0, 0xFFFF_FFFF)
states = st.sampled_from(State)


def packets(**fixed: Any) -> st.SearchStrategy[ControlPacket]:
    fields: dict[str, Any] = {
        "state": states,
        "my_discriminator": st.integers(1, 0xFFFF_FFFF),
        "your_discriminator": u32,
        "detect_mult": st.integers(1, 255),
        "desired_min_tx_us": u32,
        "required_min_rx_us": u32,
        "required_min_echo_rx_us": u32,
        "diagnostic": st.integers(0, 31),
        "poll": st.booleans(),
        "demand": st.booleans(),
        "control_plane_independent": st.booleans(),
    }
    return st.builds(ControlPacket, **(fields | fixed))


@given(packets())
def test_what_is_encoded_decodes_the_same(packet: ControlPacket) -> None:
    assert decode(encode(packet)) == packet


@given(st.binary(max_size=300))
def test_any_bytes_are_a_packet_or_a_reason(data: bytes) -> None:
    try:
        packet = decode(data)
    except PacketError as error:
        assert error.detail
    else:
        assert packet.detect_mult and packet.my_discriminator


@given(packets(), st.integers(0, 23), st.integers(0, 255))
def test_one_byte_changed_is_a_packet_or_a_reason(packet: ControlPacket, at: int, value: int) -> None:
    data = bytearray(encode(packet))
    data[at] = value
    host = Host(instance()).boot()
    host.hear(bytes(data))
    counted = sum(host.drops().values()) + host.session().stats.packets_received
    assert counted == 1


class Ours:
    """Stands in a packet for the discriminator the session has."""


steps = st.one_of(
    st.tuples(st.just("hear"), packets(your_discriminator=st.sampled_from([0, 1]))),
    st.tuples(st.just("bytes"), st.binary(max_size=60)),
    st.tuples(st.just("run"), st.integers(1, 4 * SECOND)),
    st.tuples(st.just("stall"), st.integers(1, 4 * SECOND)),
    st.tuples(st.just("crash"), st.integers(0, 300 * MS)),
    st.tuples(
        st.just("reload"),
        st.builds(
            instance,
            min_tx_us=st.sampled_from([1 * MS, 10 * MS, 50 * MS, 5 * SECOND]),
            min_rx_us=st.sampled_from([1 * MS, 10 * MS, 50 * MS, 5 * SECOND]),
            multiplier=st.sampled_from([1, 3, 255]),
            passive=st.booleans(),
        ),
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=25))
def test_whatever_happens_a_session_keeps_its_rules(sequence: list[tuple[str, Any]]) -> None:
    host = Host(instance()).boot()
    for what, value in sequence:
        take_step(host, what, value)
        check(host)


def take_step(host: Host, what: str, value: Any) -> None:
    match what:
        case "hear":
            yours = host.discriminator if value.your_discriminator else 0
            fields = {name: getattr(value, name) for name in ControlPacket.__struct_fields__}
            host.hear(ControlPacket(**(fields | {"your_discriminator": yours})))
        case "bytes":
            host.hear(value)
        case "run":
            # As often as it wants to be woken, but not for millions of packets.
            host.run(min(value, 200 * max(MS, host.session().intervals.transmit_interval_us)))
        case "stall":
            host.now_us += value
            host.tell(TimeReached())
        case "crash":
            host.now_us += value
            host.boot()
        case "reload":
            host.reload(value)


def check(host: Host) -> None:
    session = host.session()
    intervals = session.intervals
    if session.state is not State.UP:
        assert intervals.desired_min_tx_us >= SECOND
        assert intervals.tx_in_use_us == intervals.desired_min_tx_us
        assert intervals.rx_in_use_us == intervals.required_min_rx_us
    if not intervals.polling:
        assert intervals.tx_in_use_us == intervals.desired_min_tx_us
        assert intervals.rx_in_use_us == intervals.required_min_rx_us
    else:
        assert session.is_heard
    assert (session.detect_us < 1 << 62) == session.is_heard, "the peer is waited for while it is known"
    assert session.state is State.DOWN or session.is_heard
    assert host.published["peer"].up == session.is_up
    due = host.engine.deadline_us
    assert due is not None or (session.config.passive and not session.is_heard)
    record = decode_record(host.journal["peer"])
    assert record is not None
    assert decode_record(encode_record(record)) == record
    assert (record.state, record.local_discr) == (session.state, session.local_discr)
    for _, packet in host.sent:
        assert not (packet.poll and packet.final)
    host.sent.clear()


@given(st.binary(max_size=200))
def test_any_record_is_a_record_or_none(data: bytes) -> None:
    host = Host(instance())
    host.journal["peer"] = data
    host.boot()
    assert host.session().local_discr != 0
