"""Announcements: frames as keepalived sends them, when they leave, and how they are paced."""

import json
import pathlib

import pytest
from msgspec.structs import replace

from kad.addresses import packed
from kad.config.model.vrrp import GarpGroup, GarpSettings, UnicastPeer, VirtualAddress, VrrpInstance
from kad.wire import checksum_holds, ipv6_pseudo_header
from kad_vrrp.core.actions import AddressEntry, Announce
from kad_vrrp.core.events import AddressDeleted, ConfigurationChanged
from kad_vrrp.core.garp import frame_for, gratuitous_arp, unsolicited_advertisement
from tests.support.vrrp_host import SECOND, instance, link
from tests.support.vrrp_playbook import Playbook

CAPTURED = json.loads((pathlib.Path(__file__).parent / "data" / "vrrp_packets.json").read_text())["cases"]
MAC = bytes.fromhex("020000000001")


def captured(kind: str) -> list[bytes]:
    frames = {frame for case in CAPTURED.values() for each, frame in case["frames"] if each == kind}
    return [bytes.fromhex(frame) for frame in sorted(frames)]


@pytest.mark.parametrize("frame", captured("arp"), ids=lambda frame: frame[38:].hex())
def test_gratuitous_arp_is_keepaliveds_to_the_byte(frame: bytes) -> None:
    assert gratuitous_arp(MAC, frame[38:42]) == frame


@pytest.mark.parametrize("frame", captured("na"), ids=lambda frame: frame[62:78].hex())
def test_unsolicited_advertisement_is_keepaliveds_to_the_byte(frame: bytes) -> None:
    assert unsolicited_advertisement(MAC, frame[62:78], router=False) == frame


def test_a_router_says_so_and_the_checksum_still_holds() -> None:
    frame = unsolicited_advertisement(MAC, packed("2001:db8::1"), router=True)
    body = frame[54:]
    assert body[4] == 0xA0
    assert checksum_holds(ipv6_pseudo_header(frame[22:38], frame[38:54], 58, len(body)) + body)


def test_nothing_is_announced_where_it_cannot_be() -> None:
    entry = AddressEntry("eth0", "10.0.0.100", 24)
    cable = link()
    fields = {name: getattr(cable, name) for name in cable.__struct_fields__}
    assert frame_for(entry, cable) is not None
    assert frame_for(entry, None) is None
    assert frame_for(entry, type(cable)(**(fields | {"arp": False}))) is None
    assert frame_for(entry, type(cable)(**(fields | {"mac": bytes(20)}))) is None


def bursts(book: Playbook, since_us: int) -> list[tuple[int, int]]:
    """(seconds/1000 since, frames) of every announcement since the last look."""
    return [
        ((when_us - since_us) // 1000, frames)
        for (when_us, _), frames in zip(book.announced, _sizes(book), strict=True)
    ]


def _sizes(book: Playbook) -> list[int]:
    return [len(action.frames) for action in book.actions if isinstance(action, Announce)]


def test_burst_then_again_after_the_delay_then_the_refreshes() -> None:
    garp = GarpSettings(
        master_delay_us=2 * SECOND,
        master_repeat=3,
        master_refresh_us=10 * SECOND,
        master_refresh_repeat=2,
    )
    book = Playbook(instance(garp=garp)).start()
    book.run_for(3_609_375)
    born_us = book.now_us
    book.run_for(35 * SECOND)
    assert bursts(book, born_us) == [(0, 6), (2000, 6), (12000, 4), (22000, 4), (32000, 4)]


def test_without_delay_there_is_one_burst() -> None:
    book = Playbook(instance(garp=GarpSettings(master_delay_us=0))).start()
    book.run_for(30 * SECOND)
    assert _sizes(book) == [10]


def test_vips_come_before_excluded_addresses_round_by_round() -> None:
    both = instance(
        virtual_addresses=(VirtualAddress("10.0.0.100", 24),),
        excluded_addresses=(VirtualAddress("10.0.0.200", 24), VirtualAddress("2001:db8::5", 64)),
        garp=GarpSettings(master_repeat=2),
    )
    book = Playbook(both).start()
    book.run_for(4 * SECOND)
    (announce,) = (action for action in book.actions if isinstance(action, Announce))
    kinds = [frame[38:42] if frame[12:14] == b"\x08\x06" else frame[62:78] for _, frame in announce.frames]
    assert kinds == [packed("10.0.0.100"), packed("10.0.0.200"), packed("2001:db8::5")] * 2


def test_a_lower_master_is_answered_with_a_burst_and_another_later() -> None:
    garp = GarpSettings(lower_prio_repeat=2, lower_prio_delay_us=3 * SECOND)
    book = Playbook(instance(garp=garp)).start_as_master()
    book.run_for(20 * SECOND)
    book.lines()
    book.announced.clear()
    heard_us = book.now_us
    book.hear(50)
    book.run_for(10 * SECOND)
    assert bursts(book, heard_us) == [(0, 4), (3000, 4)]


def test_lower_prio_repeat_zero_announces_nothing() -> None:
    book = Playbook(instance(garp=GarpSettings(lower_prio_repeat=0))).start_as_master()
    book.run_for(20 * SECOND)
    book.lines()
    book.hear(50)
    book.run_for(10 * SECOND)
    assert _sizes(book) == []


def test_leaving_master_cancels_everything_that_was_to_come() -> None:
    garp = GarpSettings(master_refresh_us=SECOND, interval_us=300_000)
    book = Playbook(instance(garp=garp)).start()
    book.run_for(3_609_375)
    book.hear(150)
    book.lines()
    book.run_for(3 * SECOND)
    assert _sizes(book) == []


def test_paced_announcements_keep_the_gap_and_merge() -> None:
    garp = GarpSettings(master_repeat=2, interval_us=100_000, master_delay_us=0)
    one = instance("ONE", virtual_router_id=1, garp=garp)
    two = instance(
        "TWO", virtual_router_id=2, garp=garp, virtual_addresses=(VirtualAddress("10.0.0.200", 24),)
    )
    book = Playbook(one, two).start()
    book.run_for(3_609_375)
    born_us = book.now_us
    book.run_for(2 * SECOND)
    assert bursts(book, born_us) == [(100 * number, 1) for number in range(6)]
    told = [action.frames[0][1][38:42] for action in book.actions if isinstance(action, Announce)]
    assert sorted(told) == sorted([packed("10.0.0.100"), packed("10.0.0.101"), packed("10.0.0.200")] * 2)


def test_interfaces_of_a_group_share_one_pace() -> None:
    links = [link(), link("eth1", "10.1.0.1", index=3)]
    garp = GarpSettings(master_repeat=1, master_delay_us=0)
    one = instance("ONE", virtual_router_id=1, garp=garp, virtual_addresses=(VirtualAddress("10.0.0.9", 24),))
    two = instance(
        "TWO",
        virtual_router_id=2,
        garp=garp,
        interface="eth1",
        virtual_addresses=(VirtualAddress("10.1.0.9", 24),),
    )
    book = Playbook(one, two, links=links)
    book.boot()
    group = GarpGroup(("eth0", "eth1"), garp_interval_us=250_000)
    book.tell(ConfigurationChanged(2, book.configs, garp_groups=(group,)))
    book.run_for(3_609_375)
    born_us = book.now_us
    book.run_for(SECOND)
    assert bursts(book, born_us) == [(0, 1), (250, 1)]


def test_extra_interfaces_are_told_once_each() -> None:
    addresses = (
        VirtualAddress("10.0.0.100", 24),
        VirtualAddress("10.1.0.100", 24, interface="eth1"),
        VirtualAddress("10.1.0.101", 24, interface="eth1"),
    )
    garp = GarpSettings(master_delay_us=0, extra_if_us=SECOND, extra_if_all=True)
    links = [link(), link("eth1", "10.1.0.1", index=3)]
    book = Playbook(instance(virtual_addresses=addresses, garp=garp), links=links).start()
    book.run_for(3_609_375)
    book.lines()
    book.run_for(3 * SECOND)
    extras = [action.frames for action in book.actions if isinstance(action, Announce)]
    assert [len(frames) for frames in extras] == [1, 1, 1]
    assert {frames[0][0] for frames in extras} == {"eth1"}


def test_a_new_hardware_address_is_announced_as_such() -> None:
    book = Playbook(instance(garp=GarpSettings(master_refresh_us=SECOND))).start_as_master()
    cable = link()
    fields = {name: getattr(cable, name) for name in cable.__struct_fields__}
    book.set_link(type(cable)(**(fields | {"mac": b"\2\0\0\0\0\x77"})))
    book.run_for(7 * SECOND)
    last = [action for action in book.actions if isinstance(action, Announce)][-1]
    assert all(frame[6:12] == b"\2\0\0\0\0\x77" for _, frame in last.frames)


def test_a_unicast_router_coming_back_tells_its_own_address() -> None:
    ours = instance(unicast=True, unicast_peers=(UnicastPeer("10.0.0.2"),))
    book = Playbook(ours).start()
    book.set_link(link(up=False))
    book.lines()
    book.set_link(link())
    (announce,) = (action for action in book.actions if isinstance(action, Announce))
    assert announce.frames[0][1][38:42] == packed("10.0.0.1")


# Reloads ---------------------------------------------------------------------------------------------------


def announced_after(before: GarpSettings, after: GarpSettings, seconds: int) -> list[int]:
    """Milliseconds from a reload, half a second after a refresh was due, to each burst."""
    addresses = (VirtualAddress("10.0.0.100", 24), VirtualAddress("10.1.0.100", 24, interface="eth1"))
    links = [link(), link("eth1", "10.1.0.1", index=3)]
    book = Playbook(instance(virtual_addresses=addresses, garp=before), links=links).start_as_master()
    book.run_for(10_500_000)
    book.announced.clear()
    reloaded_us = book.now_us
    book.reload(instance(virtual_addresses=addresses, garp=after))
    book.run_for(seconds * SECOND)
    return [(when_us - reloaded_us) // 1000 for when_us, _ in book.announced]


EVERY_TWO_SECONDS = (
    GarpSettings(master_delay_us=0, master_refresh_us=2 * SECOND),
    GarpSettings(master_delay_us=0, extra_if_us=2 * SECOND, extra_if_all=True),
)


@pytest.mark.parametrize("periodic", EVERY_TWO_SECONDS, ids=("refresh", "extra_if"))
def test_a_reload_ends_announcements_again_and_again(periodic: GarpSettings) -> None:
    assert announced_after(periodic, GarpSettings(master_delay_us=0), 20) == []


@pytest.mark.parametrize("periodic", EVERY_TWO_SECONDS, ids=("refresh", "extra_if"))
def test_a_reload_begins_announcements_again_and_again(periodic: GarpSettings) -> None:
    assert announced_after(GarpSettings(master_delay_us=0), periodic, 7) == [2000, 4000, 6000]


def test_a_shorter_refresh_holds_from_the_reload_on_and_the_same_one_goes_on() -> None:
    hourly = GarpSettings(master_delay_us=0, master_refresh_us=3600 * SECOND)
    every_two_seconds = EVERY_TWO_SECONDS[0]
    assert announced_after(hourly, every_two_seconds, 5) == [2000, 4000]
    more = replace(every_two_seconds, master_refresh_repeat=2)
    assert announced_after(every_two_seconds, more, 5) == [1500, 3500]


def test_a_reload_of_a_backup_begins_no_announcements() -> None:
    book = Playbook(instance(garp=GarpSettings())).start()
    book.hear(150)
    book.reload(instance(garp=EVERY_TWO_SECONDS[0]))
    book.run_for(3 * SECOND)
    assert book.announced == []


PACED = GarpSettings(master_repeat=3, interval_us=500_000, master_delay_us=0)


def becoming_master(*configs: VrrpInstance) -> Playbook:
    """The first announcement has left, the others wait."""
    book = Playbook(*configs).start()
    book.run_for(3_609_375)
    assert _sizes(book) == [1]
    book.actions.clear()
    return book


def told(book: Playbook) -> list[str]:
    """The last bytes of the IPv4 addresses announced."""
    frames = [action.frames for action in book.actions if isinstance(action, Announce)]
    return [".".join(map(str, frame[38:42])) for each in frames for _, frame in each]


def test_an_address_that_a_reload_removes_is_not_announced_any_more() -> None:
    book = becoming_master(instance(garp=PACED))
    book.reload(instance(garp=PACED, virtual_addresses=(VirtualAddress("10.0.0.101", 24),)))
    book.run_for(5 * SECOND)
    assert told(book) == ["10.0.0.101"] * 3


def test_an_address_that_another_deletes_is_not_announced_until_it_is_back() -> None:
    addresses = (VirtualAddress("10.0.0.100", 24), VirtualAddress("10.0.0.101", 24, no_track=True))
    book = becoming_master(instance(garp=PACED, virtual_addresses=addresses))
    book.tell(AddressDeleted("eth0", "10.0.0.101", 24))
    book.run_for(5 * SECOND)
    assert told(book) == ["10.0.0.100"] * 2


def test_an_instance_that_a_reload_renames_is_silent_as_backup() -> None:
    book = becoming_master(instance(garp=PACED))
    book.reload(instance("VI_X", garp=PACED))
    book.run_for(700_000)
    assert book.announced[-1][1] == "VI_X"
    book.hear(200)
    book.lines()
    book.run_for(3 * SECOND)
    assert told(book) == []


def test_who_takes_over_a_name_by_a_reload_is_not_silenced_by_the_end_of_its_former_owner() -> None:
    one = instance("ONE", virtual_router_id=1, garp=PACED)
    former = instance("TWO", virtual_router_id=2, virtual_addresses=(VirtualAddress("10.0.0.9", 24),))
    book = Playbook(one, former).start()
    book.run_for(3_609_375)
    book.actions.clear()
    book.reload(replace(one, name="TWO"))
    book.run_for(5 * SECOND)
    assert sorted(told(book)) == ["10.0.0.100"] * 2 + ["10.0.0.101"] * 3


def test_a_new_hardware_address_replaces_the_former_one_that_waits() -> None:
    book = becoming_master(instance(garp=PACED))
    book.set_link(replace(link(), mac=b"\2\0\0\0\0\x77"))
    book.hear(50)
    book.actions.clear()
    book.run_for(10 * SECOND)
    macs = {frame[6:12] for a in book.actions if isinstance(a, Announce) for _, frame in a.frames}
    assert macs == {b"\2\0\0\0\0\x77"}


def test_lower_prio_repeat_zero_announces_nothing_paced_either() -> None:
    book = Playbook(instance(garp=replace(PACED, lower_prio_repeat=0))).start_as_master()
    book.run_for(20 * SECOND)
    book.lines()
    book.hear(50)
    book.run_for(10 * SECOND)
    assert told(book) == []
