"""Bytes from outside are hostile: whatever arrives ends as an advertisement or as a counted reason."""

import json
import pathlib

from hypothesis import given, settings
from hypothesis import strategies as st

from kad.config.model.vrrp import AuthType, UnicastPeer, VirtualAddress
from kad_vrrp.core.actions import State
from kad_vrrp.core.advertiser import Adverts, receive_rules
from kad_vrrp.core.packet import PacketError, judge, virtual_router_id
from kad_vrrp.core.record import RECORD_LIMIT, OwedNotice, Record, decode, encode
from tests.support.vrrp_host import instance
from tests.support.vrrp_playbook import Playbook

CAPTURED = json.loads(
    (pathlib.Path(__file__).parents[1] / "unit" / "data" / "vrrp_packets.json").read_text()
)["cases"]
FRAMES = [
    bytes.fromhex(frame)[14:]
    for case in CAPTURED.values()
    for kind, frame in case["frames"]
    if kind == "vrrp"
]
RULES = [
    receive_rules(instance(**changes))  # type: ignore[arg-type]
    for changes in (
        {},
        {"version": 2},
        {"version": 2, "auth_type": AuthType.PASS, "auth_pass": b"1111"},
        {"unicast": True, "unicast_peers": (UnicastPeer("192.0.2.1", 10, 100),), "check_unicast_src": True},
        {"family": 6, "multicast_group": "ff02::12"},
        {"v3_checksum_as_v2": True},
    )
]


@st.composite
def nearly_packets(draw: st.DrawFn) -> bytes:
    """Captured packets with a few bytes changed, cut short or grown."""
    packet = bytearray(draw(st.sampled_from(FRAMES)))
    for _ in range(draw(st.integers(0, 4))):
        packet[draw(st.integers(0, len(packet) - 1))] = draw(st.integers(0, 255))
    del packet[draw(st.integers(0, len(packet))) :]
    return bytes(packet) + draw(st.binary(max_size=8))


@given(
    st.one_of(st.binary(max_size=1200), nearly_packets()),
    st.sampled_from(RULES),
    st.integers(0, 255),
    st.sampled_from(["", "ff02::12", "fe80::1", "224.0.0.18"]),
)
@settings(max_examples=1500, deadline=None)
def test_any_bytes_are_an_advertisement_or_a_reason(
    data: bytes, rules: object, hop_limit: int, destination: str
) -> None:
    try:
        heard = judge(data, rules, source="192.0.2.1", hop_limit=hop_limit, destination=destination)  # type: ignore[arg-type]
    except PacketError as error:
        assert error.reason
    else:
        assert 0 <= heard.priority <= 255
        assert heard.advert_int_us > 0
        assert len(heard.addresses) <= 255


@given(st.binary(max_size=100), st.sampled_from([4, 6]))
def test_any_bytes_have_a_vrid_or_a_reason(data: bytes, family: int) -> None:
    try:
        assert 0 <= virtual_router_id(data, family) <= 255
    except PacketError:
        assert len(data) < 28 or data[0] != 0x45


@given(st.lists(nearly_packets(), max_size=30))
@settings(max_examples=100, deadline=None)
def test_an_engine_survives_any_packets(packets: list[bytes]) -> None:
    book = Playbook(instance(virtual_router_id=200, advert_int_us=250_000)).start()
    for packet in packets:
        book.hear_bytes(packet)
        book.run_for(10_000)
    drops = book.engine.report()
    counted = sum(drops.drops.values()) + sum(drops.instances[0].drops.values())
    assert counted + drops.instances[0].counters["advert_rcvd"] == len(packets)


addresses = st.integers(1, 0xDFFFFFFF).map(lambda number: ".".join(map(str, number.to_bytes(4, "big"))))


@given(
    version=st.sampled_from([2, 3]),
    vrid=st.integers(1, 255),
    priority=st.integers(0, 255),
    vips=st.lists(addresses, max_size=40, unique=True),
    source=addresses,
    unicast=st.booleans(),
    centiseconds=st.integers(1, 4095),
    password=st.binary(max_size=12),
)
@settings(max_examples=300, deadline=None)
def test_what_we_send_we_believe(
    version: int,
    vrid: int,
    priority: int,
    vips: list[str],
    source: str,
    unicast: bool,
    centiseconds: int,
    password: bytes,
) -> None:
    interval_us = centiseconds * 10_000 if version == 3 else (1 + centiseconds % 255) * 1_000_000
    config = instance(
        version=version,
        virtual_router_id=vrid,
        advert_int_us=interval_us,
        virtual_addresses=tuple(VirtualAddress(vip, 32) for vip in vips),
        unicast=unicast,
        unicast_peers=(UnicastPeer("10.1.2.3"),) if unicast else (),
        auth_type=AuthType.PASS if password else AuthType.NONE,
        auth_pass=password,
    )
    data = Adverts(config, source, 1, old_checksum=False).of(priority)[0].data
    heard = judge(data, receive_rules(config), source=source)
    assert (heard.virtual_router_id, heard.priority, heard.advert_int_us) == (vrid, priority, interval_us)
    assert len(heard.addresses) == len(vips)
    assert virtual_router_id(data, 4) == vrid


# Journal records -----------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_none(data: bytes) -> None:
    assert decode(data) is None or isinstance(decode(data), Record)


@given(
    ours=st.binary(max_size=3000),
    foreign=st.binary(max_size=3000),
    owed=st.lists(
        st.builds(
            OwedNotice, st.integers(0, 2**63 - 1), st.sampled_from(["MASTER", "DELETED"]), st.integers(0, 255)
        ),
        max_size=32,
    ),
    instant=st.integers(0, 2**62),
)
def test_a_record_always_fits_and_comes_back(
    ours: bytes, foreign: bytes, owed: list[OwedNotice], instant: int
) -> None:
    record = Record(
        version=1,
        generation=instant,
        state=State.MASTER,
        since_us=instant,
        effective_priority=255,
        master_adver_us=instant,
        master_address="ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        master_priority=255,
        preempt_at_us=instant,
        old_checksum=True,
        addresses_digest=bytes(8),
        ours=ours,
        foreign=foreign,
        serial=instant,
        notified="MASTER",
        owed=tuple(owed),
    )
    data = encode(record)
    assert len(data) <= RECORD_LIMIT
    again = decode(data)
    assert again is not None
    assert again.owed == tuple(owed)
    assert (again.ours, again.foreign) in ((ours, foreign), (None, b""))
