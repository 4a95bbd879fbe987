"""IPVS's attributes to bytes and back, and hostile bytes."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kad.kernel.batch import Outcome, Request, RequestQueue
from kad.kernel.encoder import MalformedMessage, attribute, attributes, nested, text, u16, u32, u64
from kad.kernel.genetlink import CONTROLLER, PROTOCOL, FamilyMonitor, family_number, family_request, header
from kad.kernel.ipvs import (
    IPV4_HOST_MASK,
    Command,
    Counters,
    Daemon,
    DaemonState,
    DestinationEntry,
    Method,
    ServiceEntry,
    ServiceFlag,
    ServiceKey,
    Timeouts,
    Tunnel,
    TunnelFlag,
    daemon_body,
    destination_body,
    destination_key_body,
    ipv6_mask,
    read_daemon,
    read_destination,
    read_service,
    read_timeouts,
    service_body,
    service_key_body,
    timeouts_body,
)
from kad.kernel.ipvs_requests import (
    delete_destination,
    dump_destinations,
    flush,
    put_destination,
    put_service,
    zero,
)
from kad.kernel.links import AF_INET, AF_INET6
from tests.support.namespaces import poll

HEADER = header(Command.NEW_SERVICE, 1)
WEB = ServiceKey(AF_INET, 6, bytes([192, 0, 2, 1]), 80)
WEB6 = ServiceKey(AF_INET6, 17, bytes.fromhex("20010db8000000000000000000000001"), 53)

addresses = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
ports = st.integers(0, 65535)
marks = st.integers(1, 0xFFFFFFFF)
numbers = st.integers(0, 0xFFFFFFFF)


@st.composite
def keys(draw: st.DrawFn) -> ServiceKey:
    if draw(st.booleans()):
        return ServiceKey(draw(st.sampled_from([AF_INET, AF_INET6])), 0, b"", 0, draw(marks))
    address = draw(addresses)
    family = AF_INET if len(address) == 4 else AF_INET6
    return ServiceKey(family, draw(st.sampled_from([6, 17, 132])), address, draw(ports))


@st.composite
def services(draw: st.DrawFn) -> ServiceEntry:
    key = draw(keys())
    mask = draw(st.binary(min_size=4, max_size=4)) if key.family == AF_INET else ipv6_mask(64)
    flags = draw(st.sampled_from([0, ServiceFlag.PERSISTENT, ServiceFlag.ONE_PACKET, 0x3D]))
    scheduler = draw(st.sampled_from(["rr", "wlc", "mh"]))
    return ServiceEntry(key, scheduler, int(flags), draw(numbers), mask, draw(st.sampled_from(["", "sip"])))


@st.composite
def destinations(draw: st.DrawFn) -> DestinationEntry:
    method = draw(st.sampled_from([Method.MASQUERADE, Method.TUNNEL, Method.DIRECT_ROUTE]))
    plain = (draw(addresses), draw(ports), int(method), *(draw(numbers) for _ in range(3)))
    if method is not Method.TUNNEL:
        return DestinationEntry(*plain)
    return DestinationEntry(
        *plain, draw(st.sampled_from([0, 1, 2])), draw(ports), draw(st.sampled_from([0, 1, 2]))
    )


@given(services())
def test_services_come_back_as_they_went(entry: ServiceEntry) -> None:
    assert read_service(HEADER + service_body(entry)).entry == entry


@given(destinations())
def test_destinations_come_back_as_they_went(entry: DestinationEntry) -> None:
    assert read_destination(HEADER + destination_body(entry), AF_INET).entry == entry


@given(st.binary(max_size=200))
def test_anything_else_is_malformed_and_no_more(data: bytes) -> None:
    for body in (data, HEADER + data, HEADER + nested(1, data), HEADER + nested(2, data), nested(3, data)):
        for read in (read_service, read_daemon, lambda b: read_destination(b, AF_INET6)):
            try:
                read(body)
            except MalformedMessage:
                continue


def test_service_bytes() -> None:
    """As uapi/linux/ip_vs.h has it, byte for byte."""
    found = attributes(attributes(service_body(ServiceEntry(WEB, "rr", 1, 300)))[1])
    assert found == {
        1: struct.pack("=H", socket.AF_INET),
        2: struct.pack("=H", 6),
        3: bytes([192, 0, 2, 1]),
        4: b"\x00\x50",
        6: b"rr\0",
        7: struct.pack("=II", 1, 0xFFFFFFFF),
        8: struct.pack("=I", 300),
        9: IPV4_HOST_MASK,
    }


def test_destination_bytes_of_a_tunnel() -> None:
    entry = DestinationEntry(
        WEB6.address, 81, Method.TUNNEL, 5, 9, 3, Tunnel.GUE, 6080, TunnelFlag.REMOTE_CHECKSUM
    )
    found = attributes(attributes(destination_body(entry))[2])
    assert found == {
        1: WEB6.address,
        2: b"\x00\x51",
        3: struct.pack("=I", 2),
        4: struct.pack("=I", 5),
        5: struct.pack("=I", 9),
        6: struct.pack("=I", 3),
        11: struct.pack("=H", socket.AF_INET6),
        13: b"\x01",
        14: b"\x17\xc0",
        15: struct.pack("=H", 2),
    }


def test_a_mark_has_neither_address_nor_port() -> None:
    found = attributes(attributes(service_key_body(ServiceKey(AF_INET6, 0, b"", 0, 7)))[1])
    assert found == {1: struct.pack("=H", socket.AF_INET6), 5: struct.pack("=I", 7)}


def test_keys_as_people_read_them() -> None:
    assert str(WEB) == "[192.0.2.1]:tcp:80"
    assert str(WEB6) == "[2001:db8::1]:udp:53"
    assert str(ServiceKey(AF_INET6, 0, b"", 0, 7)) == "FWM 7 -6"


def test_the_kernel_s_own_flag_and_sixteen_byte_addresses_are_read_away() -> None:
    inner = u16(1, AF_INET) + u16(2, 6) + attribute(3, WEB.address + bytes(12)) + attribute(4, b"\0\x50")
    status = read_service(HEADER + nested(1, inner, attribute(7, struct.pack("=II", 3, 0xFFFFFFFF))))
    assert status.entry.key == WEB
    assert status.entry.flags == ServiceFlag.PERSISTENT


def test_wide_counters_win_over_narrow_ones() -> None:
    narrow = nested(10, *(u32(kind, kind) for kind in range(1, 6)))
    wide = nested(12, *(u64(kind, kind << 40) for kind in range(1, 11)))
    key = attributes(service_body(ServiceEntry(WEB, "rr")))[1]
    assert read_service(HEADER + nested(1, key, narrow)).counters == Counters(1, 2, 3, 4, 5)
    both = read_service(HEADER + nested(1, key, narrow, wide)).counters
    assert both == Counters(1 << 40, 2 << 40, 3 << 40, 4 << 40, 5 << 40)


def test_timeouts_that_are_not_given_are_not_sent() -> None:
    assert attributes(timeouts_body(Timeouts(udp=5))) == {6: struct.pack("=I", 5)}
    assert read_timeouts(HEADER + timeouts_body(Timeouts(1, 2, 3))) == Timeouts(1, 2, 3)


@pytest.mark.parametrize("group", [bytes([224, 0, 0, 81]), bytes.fromhex("ff05" + "00" * 13 + "51")])
def test_sync_daemons_come_back_as_they_went(group: bytes) -> None:
    daemon = Daemon(DaemonState.BACKUP, "eth0", 51, 1400, group, 8848, 3)
    assert read_daemon(HEADER + daemon_body(daemon)) == daemon
    bare = Daemon(DaemonState.MASTER, "eth0")
    assert read_daemon(HEADER + daemon_body(bare)) == bare


def test_a_sync_daemon_in_no_state_is_malformed() -> None:
    with pytest.raises(MalformedMessage):
        read_daemon(HEADER + nested(3, u32(1, 3)))


def test_requests_name_their_command() -> None:
    entry = DestinationEntry(WEB.address, 80, Method.MASQUERADE, 1)
    assert put_service(30, ServiceEntry(WEB, "rr"), new=True).body[:2] == b"\x01\x01"
    assert put_service(30, ServiceEntry(WEB, "rr"), new=False).body[:2] == b"\x02\x01"
    assert put_destination(30, WEB, entry, new=True).body[0] == Command.NEW_DEST
    assert flush(30) == Request(30, 0, header(Command.FLUSH, 1))
    assert zero(30, WEB).body == header(Command.ZERO, 1) + service_key_body(WEB)
    assert dump_destinations(30, WEB).flags == 0x300
    assert delete_destination(30, WEB, entry.key).body.endswith(destination_key_body(entry.key))


def answers(requests: list[Request]) -> list[Outcome]:
    """What this machine's kernel says; asking needs no privilege."""
    queue = RequestQueue(PROTOCOL)
    told: list[list[Outcome]] = []
    queue.submit(requests, told.append)

    def look() -> bool:
        queue.drain()
        return bool(told)

    poll(look, "the kernel's answer")
    queue.close()
    return told[0]


def test_the_kernel_tells_a_family_s_number() -> None:
    known, unknown = answers([family_request("nlctrl"), family_request("no such family")])
    assert family_number(known) == CONTROLLER
    assert family_number(unknown) == 0
    assert unknown.error


def test_dumps_wait_for_each_other() -> None:
    """The kernel refuses a second dump on a socket (EBUSY): each goes alone, and everything in order."""
    every_family = Request(CONTROLLER, 0x300, header(3, 2))
    outcomes = answers([every_family, every_family, family_request("nlctrl"), every_family])
    assert [outcome.error for outcome in outcomes] == [0, 0, 0, 0]
    assert [len(outcome.replies) > 1 for outcome in outcomes] == [True, True, False, True]


def test_the_monitor_hears_of_its_own_family_only() -> None:
    heard: list[int] = []
    monitor = FamilyMonitor("IPVS", heard.append, lambda: heard.append(-1))
    say = monitor._read

    def word(command: int, name: str, number: int) -> bytes:
        body = header(command, 2) + text(2, name) + u16(1, number)
        return struct.pack("=IHHII", 16 + len(body), CONTROLLER, 0, 0, 0) + body

    say(word(1, "IPVS", 37))
    say(word(1, "OTHER", 38))
    say(word(2, "IPVS", 37))
    say(word(2, "IPVS", 37)[:-3])
    assert heard == [37, 0]
    assert monitor.malformed == 1
    assert not monitor.drain()
    monitor.close()
