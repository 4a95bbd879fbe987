"""What keeps an instance from taking part, and how it comes back."""

from msgspec.structs import replace

from kad.config.model.vrrp import UnicastPeer, VirtualAddress
from kad_vrrp.core.actions import SendAdvert
from kad_vrrp.core.context import EngineSettings
from kad_vrrp.core.events import AddressDeleted, LinkRemoved, TimeReached, TransportFailed
from tests.support.vrrp_host import SECOND, instance, link
from tests.support.vrrp_playbook import Playbook

GROUP = "224.0.0.18"


def test_an_interface_that_goes_down_takes_the_master_to_fault_with_a_farewell() -> None:
    book = Playbook(instance()).start_as_master()
    book.set_link(link(up=False))
    assert book.lines() == [
        "MASTER -> FAULT",
        f"advert 0 to {GROUP}",
        "remove 10.0.0.100 10.0.0.101",
        "notify FAULT 100",
    ]
    assert book.engine.report().instances[0].fault == "interface eth0 is down"
    assert book.engine.deadline_us is None


def test_a_master_that_loses_its_source_address_says_farewell_with_it() -> None:
    book = Playbook(instance()).start_as_master()
    before = book.engine.report().instances[0].fault
    book.set_link(replace(link(), addresses=()))
    assert (before, book.engine.report().instances[0].fault) == ("", "no source address")
    farewell = [each for each in book.actions if isinstance(each, SendAdvert)][-1]
    assert farewell.source == "10.0.0.1"
    assert f"advert 0 to {GROUP}" in book.lines()
    book.set_link(replace(link(), addresses=("10.0.0.7",)))
    book.run_for(4 * SECOND)
    assert [each for each in book.actions if isinstance(each, SendAdvert)][-1].source == "10.0.0.7"


def test_coming_back_is_as_backup_with_the_whole_wait() -> None:
    book = Playbook(instance()).start_as_master()
    book.set_link(link(up=False))
    book.run_for(60 * SECOND)
    book.lines()
    book.set_link(link())
    assert book.lines() == ["FAULT -> BACKUP", "notify BACKUP 100"]
    assert book.engine.deadline_us == book.now_us + 3_609_375


def test_fault_at_start_removes_addresses_and_hears_nothing() -> None:
    book = Playbook(instance(), links=[link(up=False)]).start()
    assert book.lines() == ["INIT -> FAULT", "remove 10.0.0.100 10.0.0.101", "notify FAULT 100"]
    book.hear(150)
    assert book.engine.report().instances[0].drops == {"not_listening": 1}


def test_no_interface_no_sockets_until_it_appears() -> None:
    book = Playbook(instance(), links=[link("other", index=9)]).start()
    assert book.lines(everything=True)[1] == "INIT -> FAULT"
    assert book.engine.report().instances[0].fault == "interface eth0 does not exist"
    book.set_link(link())
    told = book.lines(everything=True)
    assert told[0] == "open 1"
    assert "FAULT -> BACKUP" in told


def test_an_interface_that_is_made_anew_gets_new_sockets() -> None:
    book = Playbook(instance()).start_as_master()
    book.tell(LinkRemoved("eth0"))
    told = book.lines(everything=True)
    assert "MASTER -> FAULT" in told
    assert told[-1] == "remember FAULT owing []"
    assert "close 1" in told
    book.set_link(link(index=7))
    told = book.lines(everything=True)
    assert told[0] == "open 2"
    assert "FAULT -> BACKUP" in told


def test_an_interface_made_anew_unnoticed_gets_sockets_and_addresses_again() -> None:
    book = Playbook(instance()).start_as_master()
    book.kernel.clear()
    book.set_link(link(index=7))
    told = book.lines(everything=True)
    assert [line for line in told if line.split()[0] in ("open", "close", "advert", "add")] == [
        "open 2",
        "close 1",
        f"advert 100 to {GROUP}",
        "add 10.0.0.100 10.0.0.101",
    ]
    assert book.state() == "MASTER"
    assert book.addresses == ["10.0.0.100", "10.0.0.101"]


def test_down_debounce_rides_out_a_short_flap() -> None:
    book = Playbook(instance(interface_down_delay_us=500_000)).start_as_master()
    book.set_link(link(up=False))
    book.run_for(499_999)
    book.set_link(link())
    book.run_for(5 * SECOND)
    assert book.state() == "MASTER"
    book.set_link(link(up=False))
    book.run_for(500_000)
    assert book.state() == "FAULT"


def test_up_debounce_waits_before_believing() -> None:
    book = Playbook(instance(interface_up_delay_us=2 * SECOND)).start()
    book.set_link(link(up=False))
    assert book.state() == "FAULT"
    book.set_link(link())
    book.run_for(1_999_999)
    assert book.state() == "FAULT"
    book.run_for(1)
    assert book.state() == "BACKUP"


def test_dont_track_primary_ignores_the_interfaces_state() -> None:
    book = Playbook(instance(dont_track_primary=True)).start_as_master()
    book.set_link(link(up=False))
    assert book.state() == "MASTER"


def test_no_source_address_is_a_fault_and_an_own_virtual_address_is_no_source() -> None:
    bare = link()
    for addresses in ((), ("fe80::1",), ("10.0.0.100",)):
        book = Playbook(instance(), links=[type(bare)(**(_fields(bare) | {"addresses": addresses}))]).start()
        assert book.engine.report().instances[0].fault == "no source address"
    book = Playbook(
        instance(source_address="10.9.9.9"), links=[type(bare)(**(_fields(bare) | {"addresses": ()}))]
    )
    assert book.start().state() == "BACKUP"
    tracked = Playbook(instance(source_address="10.9.9.9", track_src_ip=True)).start()
    assert tracked.engine.report().instances[0].fault == "source address 10.9.9.9 is not configured"


def _fields(struct: object) -> dict[str, object]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}  # type: ignore[attr-defined]


def test_a_changed_source_address_is_used_by_the_next_advert() -> None:
    book = Playbook(instance()).start_as_master()
    sent = []
    book.on_advert = sent.append
    book.set_link(link(address="10.0.0.33"))
    book.run_for(SECOND)
    assert sent[-1].source == "10.0.0.33"
    assert sent[-1].data[12:16] == bytes((10, 0, 0, 33))
    assert book.state() == "MASTER"


def test_ipv6_sends_from_a_link_local_address() -> None:
    six = instance(
        family=6, multicast_group="ff02::12", virtual_addresses=(VirtualAddress("2001:db8::1", 64),)
    )
    cable = link()
    both = type(cable)(**(_fields(cable) | {"addresses": ("2001:db8::7", "fe80::1")}))
    sent = []
    book = Playbook(six, links=[both]).start()
    book.on_advert = sent.append
    book.run_for(4 * SECOND)
    assert sent[0].source == "fe80::1"
    assert sent[0].destination == "ff02::12"
    book.set_link(type(cable)(**(_fields(cable) | {"addresses": ("2001:db8::7",)})))
    assert book.engine.report().instances[0].fault == "no source address"


def test_every_link_local_address_is_a_source() -> None:
    six = instance(family=6, multicast_group="ff02::12", virtual_addresses=(VirtualAddress("fe90::100", 64),))
    book = Playbook(six, links=[replace(link(), addresses=("2001:db8::7", "fe90::1"))]).start()
    assert book.engine.report().instances[0].fault == ""
    book.run_for(4 * SECOND)
    assert [each.source for each in book.actions if isinstance(each, SendAdvert)][-1] == "fe90::1"


def test_ipv6_unicast_may_send_from_any_address() -> None:
    peers = (UnicastPeer("2001:db8::9"),)
    addresses = (VirtualAddress("2001:db8::1", 64),)
    six = instance(
        family=6, unicast=True, unicast_peers=peers, multicast_group="", virtual_addresses=addresses
    )
    cable = link()
    assert (
        Playbook(six, links=[type(cable)(**(_fields(cable) | {"addresses": ("2001:db8::7",)}))])
        .start()
        .state()
        == "BACKUP"
    )


def test_the_interface_of_a_tracked_address_counts_but_not_of_an_untracked_one() -> None:
    def with_device(no_track: bool) -> Playbook:
        address = VirtualAddress("10.1.0.1", 24, interface="eth1", no_track=no_track)
        return Playbook(instance(virtual_addresses=(address,)), links=[link()]).start()

    assert (
        with_device(False).engine.report().instances[0].fault
        == "interface eth1 of a virtual address is missing"
    )
    assert with_device(True).state() == "BACKUP"


def test_sockets_that_fail_are_opened_again_ever_less_often() -> None:
    book = Playbook(instance()).start_as_master()
    book.hold_answers = True
    book.tell(TransportFailed(1, "no such device"))
    book.hold_answers = False
    told = book.lines(everything=True)
    assert "MASTER -> FAULT" in told
    assert not [line for line in told if line.startswith("advert")]
    book.answers.clear()
    asked_at = []
    book.on_action = lambda action: (
        (asked_at.append(book.now_us), book.answers.clear())
        if type(action).__name__ == "OpenTransport"
        else None
    )
    book.hold_answers = True
    began_us = book.now_us
    for _ in range(4):
        book.run_until(book.engine.deadline_us or 0)
        book.tell(TransportFailed(1, "no such device"))
    assert [at_us - began_us for at_us in asked_at] == [SECOND, 3 * SECOND, 7 * SECOND, 15 * SECOND]


def test_sockets_that_open_again_bring_the_instance_back() -> None:
    book = Playbook(instance()).start()
    book.tell(TransportFailed(1, "no such device"))
    assert book.state() == "FAULT"
    book.run_for(SECOND)
    assert book.state() == "BACKUP"


def test_an_address_the_kernel_refuses_is_a_fault_for_a_while() -> None:
    book = Playbook(instance()).start()
    book.refuses.add("10.0.0.101")
    book.run_for(3_609_375)
    assert book.state() == "FAULT"
    assert book.addresses == []
    assert not book.announced
    assert f"advert 0 to {GROUP}" in book.lines()
    book.refuses.clear()
    book.run_for(10 * SECOND)
    assert book.state() == "BACKUP"
    book.run_for(4 * SECOND)
    assert book.state() == "MASTER"
    assert book.addresses == ["10.0.0.100", "10.0.0.101"]


def test_an_address_refused_again_is_a_fault_for_longer() -> None:
    book = Playbook(instance()).start()
    book.refuses.add("10.0.0.101")
    book.run_for(600 * SECOND)
    takeovers = [line for line in book.lines() if line.startswith("BACKUP -> MASTER")]
    assert 4 <= len(takeovers) <= 7, "after 10, 20, 40, 80, 160, 320 s"
    book.refuses.clear()
    book.run_for(330 * SECOND)
    assert book.state() == "MASTER"
    book.refuses.add("10.0.0.101")
    book.reload(instance(virtual_addresses=(VirtualAddress("10.0.0.100", 24),)))
    book.reload(instance())
    assert book.state() == "FAULT"
    book.refuses.clear()
    book.run_for(15 * SECOND)
    assert book.state() == "MASTER", "what was accepted once begins anew"


def test_a_reload_that_corrects_a_refused_address_ends_the_wait() -> None:
    good, bad = VirtualAddress("10.0.0.100", 24), VirtualAddress("10.0.0.101", 24)
    for corrected in (
        instance(virtual_addresses=(good,)),
        instance(virtual_addresses=(good, VirtualAddress("10.0.0.102", 24))),
        instance(virtual_addresses=(good,), excluded_addresses=(bad,)),
    ):
        book = Playbook(instance(virtual_addresses=(good, bad))).start()
        book.refuses.add("10.0.0.101")
        book.run_for(200 * SECOND)
        assert book.state() == "FAULT"
        book.reload(corrected)
        assert book.state() == "BACKUP"
        book.run_for(3_609_375)
        assert book.state() == "MASTER"


def test_a_reload_that_leaves_a_refused_address_as_it_is_goes_on_waiting() -> None:
    book = Playbook(instance()).start()
    book.refuses.add("10.0.0.101")
    book.run_for(200 * SECOND)
    book.lines()
    more = VirtualAddress("10.0.0.102", 24)
    book.reload(instance(priority=120, virtual_addresses=(*book.configs[0].virtual_addresses, more)))
    book.run_for(30 * SECOND)
    assert book.state() == "FAULT"
    assert "->" not in " ".join(book.lines())


def test_an_excluded_address_may_be_refused() -> None:
    book = Playbook(instance(excluded_addresses=(VirtualAddress("10.0.0.102", 24),)))
    book.refuses.add("10.0.0.102")
    book.start()
    book.run_for(30 * SECOND)
    assert book.state() == "MASTER"
    assert book.addresses == ["10.0.0.100", "10.0.0.101"]
    assert book.engine.report().instances[0].error == "the kernel refused 10.0.0.102"
    book.refuses.clear()
    book.hear(200)
    book.run_for(30 * SECOND)
    assert book.addresses == ["10.0.0.100", "10.0.0.101", "10.0.0.102"]
    assert not book.engine.report().instances[0].error


def test_unicast_without_peers_only_faults_when_asked_to() -> None:
    assert Playbook(instance(unicast=True)).start().state() == "BACKUP"
    book = Playbook(instance(unicast=True, unicast_fault_no_peer=True)).start()
    assert book.engine.report().instances[0].fault == "no unicast peer"
    peers = (UnicastPeer("10.0.0.2"),)
    assert Playbook(
        instance(unicast=True, unicast_fault_no_peer=True, unicast_peers=peers)
    ).start().state() == ("BACKUP")


# Addresses deleted by others -----------------------------------------------------------------------------


def delete(book: Playbook, address: str = "10.0.0.100") -> None:
    book.kernel.discard(("eth0", address, 24))
    book.tell(AddressDeleted("eth0", address, 24))
    book.tell(TimeReached())


def test_a_deleted_address_makes_the_master_step_down_and_stand_again() -> None:
    book = Playbook(instance()).start_as_master()
    delete(book)
    assert book.lines() == [
        "MASTER -> BACKUP",
        f"advert 0 to {GROUP}",
        "remove 10.0.0.101",
        "notify BACKUP 100",
    ]
    assert book.engine.deadline_us == book.now_us + 609_375
    book.run_for(609_375)
    assert book.state() == "MASTER"
    assert book.addresses == ["10.0.0.100", "10.0.0.101"]


def test_deletions_without_end_do_not_make_it_flap() -> None:
    book = Playbook(instance()).start_as_master()
    transitions = 0
    for _ in range(600):
        if book.state() == "MASTER":
            delete(book)
        book.run_for(50_000)
        transitions += book.lines().count("MASTER -> BACKUP")
    assert 2 <= transitions <= 4
    book.run_for(2 * SECOND)
    assert book.addresses == ["10.0.0.100", "10.0.0.101"]


def test_an_untracked_address_may_be_deleted() -> None:
    loose = instance(virtual_addresses=(VirtualAddress("10.0.0.100", 24, no_track=True),))
    book = Playbook(loose).start_as_master()
    delete(book)
    assert book.lines() == []
    assert book.state() == "MASTER"


def test_a_deleted_address_means_nothing_to_a_backup_or_to_others() -> None:
    book = Playbook(instance()).start()
    book.lines()
    delete(book)
    delete(book, "10.0.0.77")
    assert book.lines() == []


def test_deletion_that_comes_with_the_link_going_down_is_one_fault() -> None:
    book = Playbook(instance()).start_as_master()
    book.tell(AddressDeleted("eth0", "10.0.0.100", 24))
    book.set_link(link(up=False))
    book.tell(TimeReached())
    assert [line for line in book.lines() if "->" in line] == ["MASTER -> FAULT"]


# Whose an address is -------------------------------------------------------------------------------------


def test_an_address_that_was_there_before_stays_on_leaving() -> None:
    book = Playbook(instance()).start()
    book.kernel.add(("eth0", "10.0.0.100", 24))
    book.run_for(3_609_375)
    book.hear(150)
    assert book.state() == "BACKUP"
    assert book.addresses == ["10.0.0.100"]


def test_release_vips_takes_it_away_all_the_same() -> None:
    book = Playbook(instance()).start(EngineSettings(release_vips=True))
    book.kernel.add(("eth0", "10.0.0.100", 24))
    book.run_for(3_609_375)
    book.hear(150)
    assert book.addresses == []


def test_whatever_is_there_at_start_goes_whoever_set_it() -> None:
    book = Playbook(instance())
    book.kernel |= {("eth0", "10.0.0.100", 24), ("eth0", "10.0.0.1", 24)}
    book.start()
    assert book.addresses == ["10.0.0.1"]


def test_giving_way_while_the_kernel_is_still_adding_removes_it_after_all() -> None:
    book = Playbook(instance()).start()
    book.hold_answers = True
    book.run_for(3_609_375)
    assert book.state() == "MASTER"
    book.hear(150)
    assert book.state() == "BACKUP"
    book.lines()
    book.hold_answers = False
    book.answer()
    assert book.addresses == []
    assert book.lines() == ["remove 10.0.0.100 10.0.0.101", "notify MASTER 100", "notify BACKUP 100"]
    assert not book.announced
