"""Which session a packet belongs to: RFC 5880 §6.3, RFC 5881 §3, RFC 5883 §4."""

from __future__ import annotations

from kad_bfd.core.actions import Listener
from kad_bfd.core.packet import State
from tests.support.bfd_host import Host, control, instance


def states(host: Host) -> dict[str, str]:
    return {report.name: report.state for report in host.engine.report().sessions}


def test_6_3_the_discriminator_selects_whatever_the_rest_says() -> None:
    host = Host(instance("one", "10.0.0.2"), instance("two", "10.0.0.3")).boot()
    host.hear(control(State.DOWN), source="10.0.0.3")
    host.hear(control(State.INIT, your_discriminator=host.session("two").local_discr), source="10.0.0.3")
    assert states(host) == {"one": "DOWN", "two": "UP"}


def test_6_3_the_first_packet_is_selected_by_addresses() -> None:
    host = Host(instance("one", "10.0.0.2"), instance("two", "10.0.0.3")).boot()
    host.hear(control(State.DOWN), source="10.0.0.2")
    assert states(host) == {"one": "INIT", "two": "DOWN"}


def test_two_sessions_with_one_neighbour_are_told_apart_by_our_address() -> None:
    host = Host(
        instance("one", source_address="10.0.0.1"), instance("two", source_address="10.0.0.11")
    ).boot()
    host.hear(control(State.DOWN), destination="10.0.0.11")
    assert states(host) == {"one": "DOWN", "two": "INIT"}
    host.hear(control(State.DOWN), destination="10.0.0.12")
    assert host.drops() == {"no_session": 1}


def test_two_sessions_with_one_neighbour_are_told_apart_by_the_port() -> None:
    host = Host(instance("single"), instance("multi", multihop=True)).boot()
    host.hear(control(State.DOWN), listener=Listener(4, True))
    assert states(host) == {"single": "DOWN", "multi": "INIT"}


def test_two_link_local_neighbours_are_told_apart_by_the_interface() -> None:
    near = [instance(f"on {name}", "fe80::2", interface=name, expected_ttl=64) for name in ("eth0", "eth1")]
    host = Host(*near, address="fe80::1").boot()
    assert host.listeners == {Listener(6, False, "eth0"), Listener(6, False, "eth1")}
    host.hear(control(State.DOWN), source="fe80::2", listener=Listener(6, False, "eth1"))
    assert states(host) == {"on eth0": "DOWN", "on eth1": "INIT"}
    packet = control(State.INIT, your_discriminator=host.session("on eth1").local_discr)
    host.hear(packet, source="fe80::2", listener=Listener(6, False, "eth0"))
    assert host.drops() == {"interface": 1}


def test_a_session_without_an_interface_is_heard_through_any_socket() -> None:
    host = Host(instance("bound", "10.0.0.3", interface="eth0"), instance("free")).boot()
    host.hear(control(State.DOWN), listener=Listener(4, False, "eth0"))
    assert states(host)["free"] == "INIT"


def test_one_receiving_socket_serves_all_sessions_of_a_kind() -> None:
    host = Host(*(instance(f"s{i}", f"10.0.0.{i + 2}") for i in range(50))).boot()
    assert host.listeners == {Listener(4)}
    host.reload(instance("six", "2001:db8::2", expected_ttl=64))
    assert host.listeners == {Listener(6)}
    host.reload()
    assert host.listeners == set()


def test_what_was_overtaken_does_not_undo_what_followed_it() -> None:
    """First packets lie in another socket than the rest; the two are not read in the order of arrival."""
    host = Host(instance()).boot()
    host.run(1000)
    host.hear(control(State.INIT, your_discriminator=host.session().local_discr), ago_us=100)
    host.hear(control(State.DOWN), ago_us=200)
    assert states(host) == {"peer": "UP"}
    assert host.drops() == {"overtaken": 1}
    host.hear(control(State.DOWN), ago_us=50)
    assert states(host) == {"peer": "DOWN"}
