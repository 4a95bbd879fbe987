import contextlib
import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from kad.kernel.encoder import MalformedMessage, Message, attribute, nested, text, u8, u32
from kad.kernel.links import (
    IFA_F_SECONDARY,
    IFA_F_TENTATIVE,
    IFA_FLAGS,
    IFA_LOCAL,
    IFA_PROTO,
    IFF_MULTICAST,
    IFF_NOARP,
    IFF_RUNNING,
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_AF_SPEC,
    IFLA_IFNAME,
    IFLA_INET6_CONF,
    IFLA_MTU,
    NETCONFA_FORWARDING,
    NETCONFA_IFINDEX,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNETCONF,
    Address,
    AddressKey,
    LinkTable,
)

MAC = b"\x02\0\0\0\0\x01"
ALL = IFF_UP | IFF_RUNNING | IFF_MULTICAST


def link(index: int, name: str, flags: int = ALL, *, kind: int = RTM_NEWLINK, family: int = 0) -> Message:
    body = struct.pack("=BxHiII", family, 1, index, flags, 0)
    body += text(IFLA_IFNAME, name) + attribute(IFLA_ADDRESS, MAC) + u32(IFLA_MTU, 1500)
    return Message(kind, 0, 0, 0, body)


def address(
    index: int, written: str, length: int = 24, flags: int = 0, *, kind: int = RTM_NEWADDR, protocol: int = 0
) -> Message:
    family = socket.AF_INET6 if ":" in written else socket.AF_INET
    body = struct.pack("=BBBBi", family, length, 0, 0, index)
    body += attribute(IFA_LOCAL, socket.inet_pton(family, written)) + u32(IFA_FLAGS, flags)
    if protocol:
        body += u8(IFA_PROTO, protocol)
    return Message(kind, 0, 77, 5, body)


def table_of(*messages: Message) -> LinkTable:
    table = LinkTable()
    for message in messages:
        table.apply(message)
    return table


def test_a_link_is_told_whole() -> None:
    table = table_of(link(2, "eth0"), address(2, "192.0.2.1"), address(2, "fe80::1", 64))
    gone, changed = table.changes()
    assert gone == []
    (told,) = changed
    assert (told.name, told.index, told.mac, told.mtu) == ("eth0", 2, MAC, 1500)
    assert told.up and told.arp and told.multicast
    assert told.addresses == ("192.0.2.1", "fe80::1")


def test_flags() -> None:
    for flags, up in ((IFF_UP, False), (IFF_RUNNING, False), (0, False), (IFF_UP | IFF_RUNNING, True)):
        told = table_of(link(2, "eth0", flags)).changes()[1][0]
        assert told.up is up
        assert not told.multicast
    assert not table_of(link(2, "eth0", IFF_NOARP)).changes()[1][0].arp


def forwarding_link(index: int, name: str, *settings: int) -> Message:
    """With the settings of IPv6 there, forwarding first, between what else such a message holds."""
    conf = struct.pack(f"={len(settings)}i", *settings)
    inet6 = nested(socket.AF_INET6, u32(1, 0), attribute(IFLA_INET6_CONF, conf), attribute(3, bytes(16)))
    plain = link(index, name)
    spec = nested(IFLA_AF_SPEC, nested(socket.AF_INET, attribute(1, bytes(4))), inet6)
    return Message(plain.kind, 0, 0, 0, plain.body + spec)


def settings_changed(index: int, *parts: bytes, family: int = socket.AF_INET6) -> Message:
    body = struct.pack("=Bxxx", family) + u32(NETCONFA_IFINDEX, index & 0xFFFFFFFF) + b"".join(parts)
    return Message(RTM_NEWNETCONF, 0, 0, 0, body)


def test_ipv6_forwarding_is_told_with_the_link() -> None:
    table = table_of(forwarding_link(2, "eth0", 1, 64), forwarding_link(3, "eth1", 0, 64), link(4, "eth2"))
    assert [each.forwarding for each in table.changes()[1]] == [True, False, False]


def test_ipv6_forwarding_is_told_when_it_changes() -> None:
    table = table_of(forwarding_link(2, "eth0", 0, 64), address(2, "192.0.2.1"))
    table.changes()
    for message in (
        settings_changed(-1, u32(NETCONFA_FORWARDING, 1)),
        settings_changed(2, u32(NETCONFA_FORWARDING, 1), family=socket.AF_INET),
        settings_changed(2, u32(5, 1)),
        settings_changed(9, u32(NETCONFA_FORWARDING, 1)),
    ):
        table.apply(message)
    assert table.changes() == ([], [])
    for wanted in (True, False):
        table.apply(settings_changed(2, u32(NETCONFA_FORWARDING, wanted)))
        ((told,),) = table.changes()[1:]
        assert (told.forwarding, told.addresses) == (wanted, ("192.0.2.1",))


def test_what_did_not_change_is_not_told_again() -> None:
    table = table_of(link(2, "eth0"), link(3, "eth1"))
    assert len(table.changes()[1]) == 2
    table.apply(link(2, "eth0"))
    table.apply(link(3, "eth1", IFF_UP))
    assert [told.name for told in table.changes()[1]] == ["eth1"]
    assert table.changes() == ([], [])


def test_removed_renamed_and_replaced_links() -> None:
    table = table_of(link(2, "eth0"), link(3, "eth1"), link(4, "eth2"))
    table.changes()
    table.apply(link(2, "eth0", kind=RTM_DELLINK))
    table.apply(link(3, "wan"))
    table.apply(link(4, "eth2", kind=RTM_DELLINK))
    table.apply(link(9, "eth2"))
    gone, changed = table.changes()
    assert sorted(gone) == ["eth0", "eth1", "eth2"]
    assert sorted((told.name, told.index) for told in changed) == [("eth2", 9), ("wan", 3)]
    assert table.index_of("eth0") is None
    assert table.index_of("eth2") == 9


def test_a_port_leaving_its_bridge_is_no_link_leaving() -> None:
    table = table_of(link(2, "eth0"))
    table.changes()
    table.apply(link(2, "eth0", kind=RTM_DELLINK, family=socket.AF_BRIDGE))
    assert table.changes() == ([], [])
    assert table.index_of("eth0") == 2


def test_source_addresses() -> None:
    table = LinkTable(lambda a: a.protocol == 18)
    for message in (
        link(2, "eth0"),
        address(2, "192.0.2.9", flags=IFA_F_SECONDARY),
        address(2, "192.0.2.1"),
        address(2, "192.0.2.100", protocol=18),
        address(2, "2001:db8::1", 64, flags=IFA_F_TENTATIVE),
    ):
        table.apply(message)
    assert table.changes()[1][0].addresses == ("192.0.2.1", "192.0.2.9")
    table.apply(address(2, "2001:db8::1", 64))
    assert table.changes()[1][0].addresses == ("192.0.2.1", "2001:db8::1", "192.0.2.9")


def test_losses_tell_who_did_it_and_what_it_was() -> None:
    table = table_of(link(2, "eth0"), address(2, "192.0.2.1"))
    table.apply(address(2, "192.0.2.1", kind=RTM_DELADDR))
    (loss,) = table.losses()
    assert (loss.port_id, loss.sequence) == (5, 77)
    assert loss.address.key == AddressKey(2, bytes((192, 0, 2, 1)), 24)
    assert loss.address.body == address(2, "192.0.2.1").body
    assert table.losses() == []


def test_equal_addresses_of_other_lengths_are_others() -> None:
    table = table_of(link(2, "eth0"), address(2, "192.0.2.1", 24), address(2, "192.0.2.1", 32))
    table.apply(address(2, "192.0.2.1", 32, kind=RTM_DELADDR))
    assert table.address(AddressKey(2, bytes((192, 0, 2, 1)), 24)) is not None
    assert table.address(AddressKey(2, bytes((192, 0, 2, 1)), 32)) is None


def test_a_dump_tells_what_is_gone() -> None:
    table = table_of(link(2, "eth0"), link(3, "eth1"), address(2, "192.0.2.1"), address(2, "192.0.2.2"))
    table.changes()
    table.begin_dump()
    table.apply(link(2, "eth0"))
    table.apply(address(2, "192.0.2.2"))
    table.end_dump()
    assert table.changes()[0] == ["eth1"]
    (loss,) = table.losses()
    assert loss.address.key.data == bytes((192, 0, 2, 1))
    assert loss.port_id == 0


def test_an_abandoned_dump_removes_nothing() -> None:
    table = table_of(link(2, "eth0"), address(2, "192.0.2.1"))
    table.changes()
    table.begin_dump()
    table.abandon_dump()
    assert table.changes() == ([], [])
    assert table.losses() == []


def test_excluded_may_change_its_mind() -> None:
    excluded: set[bytes] = set()
    table = LinkTable(lambda a: a.key.data in excluded)
    table.apply(link(2, "eth0"))
    table.apply(address(2, "192.0.2.1"))
    table.changes()
    excluded.add(bytes((192, 0, 2, 1)))
    table.touch_all()
    assert table.changes()[1][0].addresses == ()


@given(
    st.sampled_from([RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR, RTM_NEWNETCONF]),
    st.binary(max_size=80),
)
def test_any_body_is_taken_or_malformed(kind: int, body: bytes) -> None:
    table = table_of(link(2, "eth0"), address(2, "192.0.2.1"))
    with contextlib.suppress(MalformedMessage):
        table.apply(Message(kind, 0, 0, 0, body))
    table.changes()
    table.losses()


def test_address_values() -> None:
    table = table_of(link(2, "eth0"), address(2, "192.0.2.1", flags=0x8001, protocol=18))
    found = table.address(AddressKey(2, bytes((192, 0, 2, 1)), 24))
    assert isinstance(found, Address)
    assert (found.flags, found.protocol) == (0x8001, 18)
