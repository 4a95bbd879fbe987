"""Packets: built as keepalived builds them, judged in its order."""

import json
import pathlib

import pytest

from kad.config.model.vrrp import AuthType, UnicastPeer, VirtualAddress, VrrpInstance
from kad.wire import checksum_holds
from kad_vrrp.core.advertiser import Adverts, receive_rules
from kad_vrrp.core.packet import DropReason, PacketError, judge, virtual_router_id

CAPTURED = json.loads((pathlib.Path(__file__).parent / "data" / "vrrp_packets.json").read_text())["cases"]
SOURCE = "192.0.2.1"
SOURCE_6 = "fe80::ff:fe00:1"


def config(**changes: object) -> VrrpInstance:
    settings: dict[str, object] = {
        "name": "VI_1",
        "virtual_router_id": 51,
        "interface": "v0",
        "version": 3,
        "virtual_addresses": (VirtualAddress("192.0.2.10", 24),),
    }
    return VrrpInstance(**(settings | changes))  # type: ignore[arg-type]


def vips(*addresses: str) -> tuple[VirtualAddress, ...]:
    return tuple(VirtualAddress(address, 24) for address in addresses)


# What each captured configuration says, as the resolved model.
CONFIGS = {
    "v2_pass": config(
        version=2,
        priority=150,
        auth_type=AuthType.PASS,
        auth_pass=b"1111",
        virtual_addresses=vips("192.0.2.10", "192.0.2.11", "192.0.2.12"),
    ),
    "v2_plain": config(version=2, virtual_router_id=7, priority=100, advert_int_us=2_000_000),
    "v3": config(
        virtual_router_id=200,
        priority=120,
        advert_int_us=250_000,
        virtual_addresses=vips("192.0.2.10", "192.0.2.11"),
        excluded_addresses=(VirtualAddress("2001:db8::99", 64),),
    ),
    "v3_one_address": config(virtual_router_id=201, priority=120, advert_int_us=100_000),
    "v3_unicast": config(
        virtual_router_id=9,
        priority=90,
        advert_int_us=500_000,
        unicast=True,
        unicast_ttl=64,
        unicast_peers=(UnicastPeer("192.0.2.2"), UnicastPeer("192.0.2.3")),
    ),
    "v3_unicast_old_checksum": config(
        virtual_router_id=9,
        priority=90,
        advert_int_us=500_000,
        unicast=True,
        unicast_peers=(UnicastPeer("192.0.2.2"),),
        old_unicast_checksum="on",
    ),
    "v3_ipv6": config(
        virtual_router_id=60,
        priority=100,
        advert_int_us=200_000,
        family=6,
        multicast_group="ff02::12",
        virtual_addresses=(VirtualAddress("fe80::100", 64), VirtualAddress("2001:db8::10", 64)),
    ),
    "v2_unicast": config(
        version=2, virtual_router_id=10, priority=90, unicast=True, unicast_peers=(UnicastPeer("192.0.2.2"),)
    ),
}
CASES = [
    (name, index, bytes.fromhex(frame)[14:])
    for name, case in CAPTURED.items()
    for index, (kind, frame) in enumerate(case["frames"])
    if kind == "vrrp"
]


def without_kernels_fields(packet: bytes) -> bytes:
    """IPv4 identification and header checksum zeroed: the kernel fills in ours."""
    return packet[:4] + bytes(2) + packet[6:10] + bytes(2) + packet[12:]


def built(name: str, priority: int, destination: str) -> bytes:
    own = SOURCE_6 if CONFIGS[name].family == 6 else SOURCE
    adverts = Adverts(CONFIGS[name], own, 1, old_checksum=False).of(priority)
    return next(advert.data for advert in adverts if advert.destination == destination)


def test_every_case_was_captured() -> None:
    assert set(CONFIGS) == set(CAPTURED)
    assert len(CASES) >= 16


@pytest.mark.parametrize(("name", "index", "packet"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_we_build_what_keepalived_sends(name: str, index: int, packet: bytes) -> None:
    if CONFIGS[name].family == 6:
        payload = packet[40:]
        # The kernel computes the checksum of ours as it did of theirs.
        assert built(name, payload[2], "ff02::12") == payload[:6] + bytes(2) + payload[8:]
        return
    destination = ".".join(map(str, packet[16:20]))
    assert built(name, packet[22], destination) == without_kernels_fields(packet)


@pytest.mark.parametrize(("name", "index", "packet"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_we_believe_what_keepalived_sends(name: str, index: int, packet: bytes) -> None:
    theirs = CONFIGS[name]
    six = theirs.family == 6
    heard = judge(
        packet[40:] if six else packet,
        receive_rules(theirs),
        source=SOURCE_6 if six else SOURCE,
        destination="ff02::12" if six else "",
    )
    assert heard.virtual_router_id == theirs.virtual_router_id
    assert heard.priority in (0, theirs.priority)
    assert heard.advert_int_us == theirs.advert_int_us
    assert len(heard.addresses) == len(theirs.virtual_addresses)
    assert heard.old_checksum is (name == "v3_unicast_old_checksum")


def test_old_unicast_checksum_is_recognised_without_being_configured() -> None:
    packet = next(packet for name, _, packet in CASES if name == "v3_unicast_old_checksum")
    unaware = config(
        virtual_router_id=9, advert_int_us=500_000, unicast=True, unicast_peers=(UnicastPeer("192.0.2.1"),)
    )
    assert judge(packet, receive_rules(unaware), source=SOURCE).old_checksum
    never = config(virtual_router_id=9, advert_int_us=500_000, unicast=True, old_unicast_checksum="never")
    with pytest.raises(PacketError) as caught:
        judge(packet, receive_rules(never), source=SOURCE)
    assert caught.value.reason is DropReason.CHECKSUM


def test_checksum_as_version_2_leaves_the_pseudo_header_out_and_verifies_nothing() -> None:
    plain = config(virtual_router_id=201, advert_int_us=100_000, v3_checksum_as_v2=True)
    packet = bytearray(Adverts(plain, SOURCE, 1, old_checksum=False).of(120)[0].data)
    assert checksum_holds(bytes(packet[20:]))
    packet[26] ^= 0xFF
    assert judge(bytes(packet), receive_rules(plain), source=SOURCE).priority == 120


def v2(priority: int = 100) -> bytearray:
    return bytearray(built("v2_pass", priority, "224.0.0.18"))


def v3(priority: int = 100) -> bytearray:
    return bytearray(built("v3", priority, "224.0.0.18"))


def edited(packet: bytearray, **edits: int) -> bytes:
    """Bytes by position: ``b8=64`` sets byte 8."""
    for name, value in edits.items():
        packet[int(name[1:])] = value
    return bytes(packet)


DROPS = [
    ("v3", b"", DropReason.TRUNCATED),
    ("v3", bytes(v3()[:27]), DropReason.TRUNCATED),
    ("v3", edited(v3(), b0=0x65), DropReason.TRUNCATED),
    ("v3", edited(v3(), b0=0x44), DropReason.TRUNCATED),
    ("v3", edited(v3(), b0=0x4F), DropReason.TRUNCATED),
    ("v3", edited(v3(), b9=51), DropReason.AH_HEADER),
    ("v3", bytes(v3()) + b"\0", DropReason.LENGTH),
    ("v3", edited(v3(), b23=1), DropReason.LENGTH),
    ("v3", edited(v3(), b23=255), DropReason.LENGTH),
    ("v3", edited(v3(), b8=254), DropReason.TTL),
    ("v3", edited(v3(), b20=0x41), DropReason.VERSION),
    ("v2_pass", edited(v2(), b24=3), DropReason.AUTH_TYPE_INVALID),
    ("v2_pass", edited(v2(), b24=0), DropReason.AUTH_TYPE_MISMATCH),
    ("v2_pass", edited(v2(), b40=ord("2")), DropReason.AUTH_FAILURE),
    ("v2_pass", edited(v2(), b25=2), DropReason.ADVERT_INTERVAL),
    ("v3", edited(v3(), b24=0, b25=0), DropReason.ADVERT_INTERVAL),
    ("v3", edited(v3(), b20=0x32), DropReason.TYPE),
    ("v3", edited(v3(), b3=35), DropReason.IP_LENGTH),
    ("v3", edited(v3(), b26=0x12), DropReason.CHECKSUM),
    ("v2_pass", edited(v2(), b22=101), DropReason.CHECKSUM),
    ("v2_unicast", bytes(built("v2_plain", 1, "224.0.0.18")), DropReason.ADVERT_INTERVAL),
]


@pytest.mark.parametrize(("name", "packet", "reason"), DROPS)
def test_what_is_not_believed_and_why(name: str, packet: bytes, reason: DropReason) -> None:
    with pytest.raises(PacketError) as caught:
        judge(packet, receive_rules(CONFIGS[name]), source=SOURCE)
    assert caught.value.reason is reason


def test_the_first_fault_in_keepaliveds_order_is_the_reason() -> None:
    everything_wrong = v2()
    order = [
        (b"\0", DropReason.LENGTH),
        ({"b8": 1}, DropReason.TTL),
        ({"b24": 9}, DropReason.AUTH_TYPE_INVALID),
        ({"b25": 9}, DropReason.ADVERT_INTERVAL),
        ({"b20": 0x22}, DropReason.TYPE),
        ({"b3": 1}, DropReason.IP_LENGTH),
        ({"b26": 1}, DropReason.CHECKSUM),
    ]
    for index in range(len(order)):
        packet = bytearray(everything_wrong)
        suffix = b""
        for edit, _ in reversed(order[index:]):
            if isinstance(edit, bytes):
                suffix = edit
            else:
                edited(packet, **edit)
        with pytest.raises(PacketError) as caught:
            judge(bytes(packet) + suffix, receive_rules(CONFIGS["v2_pass"]), source=SOURCE)
        assert caught.value.reason is order[index][1]


@pytest.mark.parametrize("padded_to", [46, 42, 38])
def test_ethernet_padding_is_tolerated(padded_to: int) -> None:
    packet = built("v3_one_address", 120, "224.0.0.18")
    assert len(packet) == 32
    padded = packet + bytes(padded_to - len(packet))
    assert judge(padded, receive_rules(CONFIGS["v3_one_address"]), source=SOURCE).priority == 120
    # Four more still look like a VLAN tag's worth, but no frame is padded beyond 46 bytes of payload.
    for excess in (1, 2, 3, 50 - padded_to):
        with pytest.raises(PacketError):
            judge(padded + bytes(excess), receive_rules(CONFIGS["v3_one_address"]), source=SOURCE)


def test_unicast_peers_are_held_to_their_ttl_and_to_being_peers() -> None:
    ours = config(
        virtual_router_id=9,
        advert_int_us=500_000,
        unicast=True,
        check_unicast_src=True,
        unicast_peers=(UnicastPeer("192.0.2.1", min_ttl=60, max_ttl=64),),
    )
    packet = bytearray(built("v3_unicast", 90, "192.0.2.2"))
    rules = receive_rules(ours)
    assert judge(bytes(packet), rules, source=SOURCE).priority == 90
    for ttl in (59, 65):
        with pytest.raises(PacketError) as caught:
            judge(edited(packet, b8=ttl), rules, source=SOURCE)
        assert caught.value.reason is DropReason.UNICAST_TTL
    with pytest.raises(PacketError) as caught:
        judge(edited(packet, b8=64), rules, source="192.0.2.77")
    assert caught.value.reason is DropReason.UNICAST_SOURCE


def test_multicast_and_unicast_are_not_mixed_up() -> None:
    to_peer = built("v2_unicast", 90, "192.0.2.2")
    multicast = config(version=2, virtual_router_id=10)
    with pytest.raises(PacketError) as caught:
        judge(to_peer, receive_rules(multicast), source=SOURCE)
    assert caught.value.reason is DropReason.CAST
    payload = built("v3_ipv6", 100, "ff02::12")
    for unicast, destination in ((False, SOURCE_6), (True, "ff02::12")):
        rules = receive_rules(config(family=6, virtual_router_id=60, advert_int_us=200_000, unicast=unicast))
        with pytest.raises(PacketError) as caught:
            judge(payload, rules, source=SOURCE_6, destination=destination)
        assert caught.value.reason is DropReason.CAST


def test_vrid_is_found_behind_ip_options() -> None:
    packet = v3()
    packet[0] = 0x46
    assert virtual_router_id(bytes(packet[:20]) + bytes(4) + bytes(packet[20:]), 4) == 200


def test_an_interval_beyond_twelve_bits_does_not_wrap_around() -> None:
    slow = Adverts(config(advert_int_us=60_000_000), SOURCE, 1, old_checksum=False).of(100)[0]
    assert slow.data[24:26] == b"\x0f\xff"
