"""RFC 5881 (a single hop) and RFC 5883 (several), one test for each MUST that concerns us, named after its
section. Where kad deviates, the test says so and docs/differences.md why.

Echo (5881 §4, 5883 §3) is never sent: test_6_8_6_echo_is_not_used. Real packets: tests/netns/test_bfd_child
"""

from __future__ import annotations

from typing import Any

import pytest

from kad_bfd.core.actions import Listener, Transport
from kad_bfd.core.packet import State
from tests.support.bfd_host import MS, Host, control, instance
from tests.support.configuration import assert_as_annotated


def configured(body: str = "", neighbor: str = "10.0.0.2") -> Host:
    """A session as its text in a file makes it, and its first packets sent."""
    text = f"bfd_instance peer {{\nneighbor_ip {neighbor}\n{body}}}\n"
    return Host(*assert_as_annotated(text).config.bfd.instances).boot()


def transport(host: Host) -> Transport:
    (found,) = host.transports.values()
    return found


def dropped(host: Host, packet: Any, **how: Any) -> str:
    """The one reason counted for a packet that is heard so."""
    before = host.drops()
    host.hear(packet, **how)
    (found,) = [name for name, count in host.drops().items() if count != before.get(name, 0)]
    return found


# RFC 5881 --------------------------------------------------------------------------------------------------


def test_rfc5881_2_each_protocol_has_a_session_of_its_own() -> None:
    host = Host(instance("four", "10.0.0.2"), instance("six", "2001:db8::2")).boot()
    host.hear(control(State.DOWN))
    assert (host.state("four"), host.state("six")) == (State.INIT, State.DOWN)
    assert {each.family for each in host.transports.values()} == {4, 6}
    packet = control(State.INIT, your_discriminator=host.session("six").local_discr)
    assert dropped(host, packet) == "source", "not even by its discriminator"


def test_rfc5881_3_both_sides_are_active_unless_told_otherwise() -> None:
    assert configured().sent
    assert not configured("passive\n").sent, "keepalived's keyword"


@pytest.mark.parametrize("interface", ["", "eth0"])
def test_rfc5881_3_the_first_packet_goes_to_the_session_of_neighbour_interface_and_protocol(
    interface: str,
) -> None:
    host = Host(instance(interface=interface)).boot()
    assert dropped(host, control(), source="10.0.0.3", listener=Listener(4, False, interface)) == "no_session"
    if interface:
        assert dropped(host, control(), listener=Listener(4, False, "eth1")) == "no_session"
    host.hear(control(), listener=Listener(4, False, interface))
    assert host.state() is State.INIT


@pytest.mark.parametrize("neighbor", ["10.0.0.2", "2001:db8::2"])
def test_rfc5881_4_control_packets_go_to_port_3784(neighbor: str) -> None:
    assert transport(configured(neighbor=neighbor)).port == 3784


@pytest.mark.parametrize("neighbor", ["10.0.0.2", "2001:db8::2"])
def test_rfc5881_5_what_is_sent_has_a_ttl_of_255(neighbor: str) -> None:
    assert transport(configured(neighbor=neighbor)).ttl == 255


@pytest.mark.parametrize("hop_limit", [254, 64, 1, -1])
def test_rfc5881_5_a_ttl_other_than_255_is_dropped(hop_limit: int) -> None:
    host = Host(instance()).boot()
    assert dropped(host, control(State.DOWN), hop_limit=hop_limit) == "ttl"


@pytest.mark.parametrize(
    ("fields", "hop_limit", "passes"),
    [
        ({"max_hops": 3}, 252, True),
        ({"max_hops": 3}, 251, False),
        ({"max_hops": 255}, 1, True),
        ({"max_hops": 255}, -1, True),
        ({"ttl": 64, "expected_ttl": 64}, 64, True),
        ({"ttl": 64, "expected_ttl": 64}, 255, True),
        ({"ttl": 64, "expected_ttl": 64}, 63, False),
        ({"max_hops": -1}, 255, False),
    ],
)
def test_max_hops_widens_what_passes(fields: dict[str, Any], hop_limit: int, passes: bool) -> None:
    host = Host(instance(**fields)).boot()
    host.hear(control(State.DOWN), hop_limit=hop_limit)
    assert (host.state() is State.INIT) == passes


@pytest.mark.parametrize(
    ("before", "after", "hop_limit"),
    [
        ({"max_hops": 255}, {"max_hops": 0}, 250),
        ({"max_hops": 5}, {"max_hops": 3}, 251),
        ({"ttl": 64, "expected_ttl": 64}, {}, 64),
    ],
)
def test_rfc5881_5_a_reload_that_looks_closer_holds_for_a_session_that_is_up(
    before: dict[str, Any], after: dict[str, Any], hop_limit: int
) -> None:
    """For what it has heard a hundred times, too."""
    host = Host(instance(**before)).boot().bring_up()
    packet = control(State.UP, your_discriminator=host.discriminator)
    for _ in range(3):
        host.hear(packet, hop_limit=hop_limit)
    host.reload(instance(**after))
    assert host.state() is State.UP
    assert dropped(host, packet, hop_limit=hop_limit) == "ttl"
    host.hear(packet)
    assert host.session().stats.packets_received == 8
    host.run(150 * MS)
    assert host.state() is State.DOWN


def test_rfc5881_4_the_source_port_is_in_the_range_and_one_for_the_session() -> None:
    host = Host(*(instance(f"s{i}", f"10.0.0.{i + 2}") for i in range(100))).boot()
    ports = list(host.ports.values())
    assert all(49152 <= port <= 65535 for port in ports)
    assert len(set(ports)) > 90
    before = dict(host.ports)
    host.run(3_000 * MS)
    assert host.ports == before


def test_rfc5881_5_over_ipv6_a_hop_limit_of_64_passes_unless_told_otherwise() -> None:
    """A listed difference from the RFC: Debian's keepalived sends no more."""
    host = configured(neighbor="2001:db8::2")
    assert dropped(host, control(), source="2001:db8::2", hop_limit=63) == "ttl"
    host.hear(control(), source="2001:db8::2", hop_limit=64)
    assert host.state() is State.INIT
    strict = configured("hoplimit 255\n", "2001:db8::2")
    assert dropped(strict, control(), source="2001:db8::2", hop_limit=254) == "ttl"


def test_rfc5881_6_the_destination_is_the_configured_address_for_good() -> None:
    """On a point-to-point link the RFC has packets from other addresses believed too: a listed difference."""
    host = Host(instance()).boot().bring_up()
    packet = control(State.UP, your_discriminator=host.discriminator)
    assert dropped(host, packet, source="10.0.0.77") == "source"
    host.run(100 * MS)
    assert transport(host).neighbor == "10.0.0.2"


def test_rfc5881_6_a_session_with_an_interface_sends_through_it_alone() -> None:
    """Without one the routing table decides. On the wire: test_bfd_child.py."""
    assert transport(configured("interface eth7\n")).interface == "eth7"


# RFC 5883 --------------------------------------------------------------------------------------------------


def test_rfc5883_4_1_two_sessions_between_the_same_systems_differ_in_an_address() -> None:
    text = (
        "bfd_instance one {\nneighbor_ip 10.0.0.2\nsource_ip 10.0.0.1\nmultihop\n}\n"
        "bfd_instance two {\nneighbor_ip 10.0.0.2  # duplicate-session\nsource_ip 10.0.0.1\nmultihop\n}\n"
        "bfd_instance three {\nneighbor_ip 10.0.0.2\nsource_ip 10.0.0.9\nmultihop\n}\n"
    )
    found = assert_as_annotated(text).config.bfd.instances
    assert [each.name for each in found] == ["one", "three"]


def test_rfc5883_4_1_the_first_packet_is_selected_by_source_and_destination() -> None:
    host = Host(
        instance("one", multihop=True, source_address="10.0.0.1"),
        instance("two", multihop=True, source_address="10.0.0.9"),
    ).boot()
    host.hear(control(), destination="10.0.0.9", listener=Listener(4, True))
    assert (host.state("one"), host.state("two")) == (State.DOWN, State.INIT)


def test_rfc5883_3_echo_is_not_used_over_several_hops() -> None:
    host = Host(instance(multihop=True)).boot()
    for state in (State.DOWN, State.INIT, State.UP):
        mine = host.discriminator if state is not State.DOWN else 0
        packet = control(state, your_discriminator=mine, required_min_echo_rx_us=1000)
        host.hear(packet, listener=Listener(4, True))
    host.run(100 * MS)
    assert host.state() is State.UP
    assert host.last.required_min_echo_rx_us == 0
    assert {each.port for each in host.transports.values()} == {4784}


@pytest.mark.parametrize("neighbor", ["10.0.0.2", "2001:db8::2"])
def test_rfc5883_5_control_packets_go_to_port_4784(neighbor: str) -> None:
    host = configured("multihop\n", neighbor)
    assert (transport(host).port, transport(host).ttl) == (4784, 255)


@pytest.mark.parametrize("multihop", [False, True])
def test_rfc5883_5_each_kind_has_its_port(multihop: bool) -> None:
    host = Host(instance(multihop=multihop)).boot()
    (listener,) = host.listeners
    assert listener.port == (4784 if multihop else 3784)
    other = Listener(4, not multihop)
    assert dropped(host, control(State.DOWN), listener=other) == "no_session"
    host.hear(control(State.DOWN), listener=listener)
    packet = control(State.INIT, your_discriminator=host.discriminator)
    assert dropped(host, packet, listener=other) == "port"
