"""Receive buffers: what each instance adds to its socket's, and that adverts are as long as is believed."""

from __future__ import annotations

import pytest

from kad.config.model.vrrp import AuthType, VirtualAddress, VrrpInstance, VrrpSettings
from kad.config.receive_buffers import advert_length, with_receive_buffers
from kad_vrrp.core.advertiser import advertised_addresses, auth_data_of
from kad_vrrp.core.packet import build_payload, ipv4_packet
from tests.support.configuration import read

ADDRESSES = tuple(VirtualAddress(f"10.0.0.{n}", 24) for n in range(1, 4))
SIX = (VirtualAddress("fe80::1", 128), VirtualAddress("2001:db8::1", 64))


def instance(name: str = "A", vrid: int = 51, **fields: object) -> VrrpInstance:
    settings: dict[str, object] = {"interface": "eth0", "virtual_addresses": ADDRESSES}
    return VrrpInstance(name, vrid, **(settings | fields))  # type: ignore[arg-type]


def buffers(policy: str, *instances: VrrpInstance, multiplier: int = 3) -> list[tuple[int, int]]:
    settings = VrrpSettings(rx_bufs_policy=policy, rx_bufs_multiplier=multiplier)
    made = with_receive_buffers(instances, settings)
    return [(each.receive_buffer, each.receive_buffer_mtus) for each in made]


def test_nothing_said_is_the_usual() -> None:
    assert buffers("", instance()) == [(0, 0)]


def test_those_of_one_socket_add_up() -> None:
    three = instance("A", 51), instance("B", 52), instance("C", 53, interface="eth1")
    assert buffers("1000", *three) == [(2000, 0), (2000, 0), (1000, 0)]
    assert buffers("MTU", *three, multiplier=4) == [(0, 8), (0, 8), (0, 4)]


def test_an_instances_own_size_comes_first() -> None:
    assert buffers("MTU", instance("A", 51, kernel_rx_buf_size=777), instance("B", 52)) == [(777, 3)] * 2
    assert buffers("", instance("A", 51, kernel_rx_buf_size=777)) == [(777, 0)]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("auth_type", [AuthType.NONE, AuthType.PASS])
def test_adverts_are_as_long_as_believed(version: int, auth_type: AuthType) -> None:
    config = instance(version=version, auth_type=auth_type, auth_pass=b"secret")
    payload = build_payload(
        version=version,
        virtual_router_id=51,
        priority=100,
        addresses=advertised_addresses(config),
        advert_int_us=1_000_000,
        auth_type=auth_type,
        auth_data=auth_data_of(config),
    )
    packet = ipv4_packet(payload, bytes(4), bytes(4), 255)
    assert advert_length(config) == len(packet)
    assert buffers("ADVERT", config) == [(3 * len(packet), 0)]


def test_ipv6_adverts_come_without_header() -> None:
    assert advert_length(instance(family=6, version=3, virtual_addresses=SIX)) == 8 + 2 * 16


def test_the_whole_way_from_the_text() -> None:
    text = """
vrrp_instance A {
    interface eth0
    virtual_router_id 51
    virtual_ipaddress {
        10.0.0.1/24
    }
}
"""
    settings = "vrrp_rx_bufs_policy MTU\nvrrp_rx_bufs_multiplier 5\nvrrp_netlink_cmd_rcv_bufs 99999"
    vrrp = read(text, settings).config.vrrp
    assert [each.receive_buffer_mtus for each in vrrp.instances] == [5]
    assert vrrp.settings.netlink.command == 99999
