"""Reload: what is the same instance, and how little happens to it."""

import pytest
from msgspec.structs import replace

from kad.config.model.vrrp import AuthType, NotifyScripts, UnicastPeer, VirtualAddress, VrrpInstance
from kad_vrrp.core.events import ConfigurationChanged
from kad_vrrp.core.reload import match
from tests.support.vrrp_host import SECOND, instance, link
from tests.support.vrrp_playbook import Playbook

GROUP = "224.0.0.18"


def vips(*addresses: str) -> tuple[VirtualAddress, ...]:
    return tuple(VirtualAddress(address, 24) for address in addresses)


# Who is who ----------------------------------------------------------------------------------------------


def test_identity_is_never_the_name() -> None:
    assert match([instance("A")], [instance("B")]) == [0]
    assert match([instance()], [instance(virtual_router_id=52)]) == [None]
    assert match([instance()], [instance(family=6)]) == [None]
    assert match([instance()], [instance(interface="eth1")]) == [None]
    assert match([instance()], [instance(unicast=True)]) == [None]


def test_equal_identities_are_told_apart_by_group_source_and_name() -> None:
    one, two = instance("A", multicast_group="224.0.0.18"), instance("B", multicast_group="224.0.0.19")
    assert match([one, two], [replace(two, name="C"), replace(one, name="D")]) == [1, 0]
    first = instance("A", unicast=True, source_address="10.0.0.1")
    second = instance("B", unicast=True, source_address="10.0.0.2")
    assert match([first, second], [second, first]) == [1, 0]
    assert match([first], [first, second]) == [0, None]


# Nothing for what did not change ---------------------------------------------------------------------------


def test_an_unchanged_instance_notices_nothing() -> None:
    book = Playbook(instance()).start_as_master()
    book.run_for(300_000)
    deadline_us = book.engine.deadline_us
    book.lines()
    book.reload(instance())
    assert book.lines(everything=True) == []
    assert book.engine.deadline_us == deadline_us


def test_a_change_elsewhere_is_noticed_only_there() -> None:
    other = instance("VI_2", virtual_router_id=52, virtual_addresses=vips("10.0.2.1"))
    book = Playbook(instance(), other).start_as_master()
    book.run_for(300_000)
    book.lines()
    book.reload(instance(), replace(other, priority=90))
    assert not [line for line in book.lines(everything=True) if "10.0.0.1" in line]
    assert book.state() == "MASTER"


# A master that changes stays master -------------------------------------------------------------------------


def test_addresses_are_removed_then_added_and_only_the_new_ones_announced() -> None:
    book = Playbook(instance()).start_as_master()
    book.run_for(300_000)
    book.lines()
    book.reload(instance(virtual_addresses=vips("10.0.0.101", "10.0.0.102")))
    assert book.lines() == [
        "remove 10.0.0.100",
        f"advert 100 to {GROUP}",
        "add 10.0.0.102",
        "announce 5",
    ]
    assert book.addresses == ["10.0.0.101", "10.0.0.102"]
    assert book.state() == "MASTER"
    book.run_for(5 * SECOND)
    assert "announce 10" in book.lines()


def test_a_new_priority_and_interval_reach_the_backups_at_once() -> None:
    book = Playbook(instance()).start_as_master()
    book.run_for(300_000)
    book.lines()
    book.reload(instance(priority=90, advert_int_us=200_000))
    assert book.lines() == [f"advert 90 to {GROUP}"]
    assert book.engine.deadline_us == book.now_us + 200_000
    assert book.state() == "MASTER"


def test_attributes_of_an_address_that_change_replace_it() -> None:
    book = Playbook(instance()).start_as_master()
    book.reload(instance(virtual_addresses=(VirtualAddress("10.0.0.100", 24, label="eth0:1"),)))
    assert [line for line in book.lines() if "10.0.0" in line] == [
        "remove 10.0.0.100 10.0.0.101",
        "add 10.0.0.100",
    ]


def test_an_address_may_move_from_one_instance_to_another_and_back_in_one_reload() -> None:
    one = instance("ONE", virtual_router_id=1, virtual_addresses=vips("10.0.1.1"))
    two = instance("TWO", virtual_router_id=2, virtual_addresses=vips("10.0.1.2"))
    book = Playbook(one, two).start()
    book.run_for(4 * SECOND)
    book.lines()
    book.reload(
        replace(one, virtual_addresses=vips("10.0.1.2")), replace(two, virtual_addresses=vips("10.0.1.1"))
    )
    changes = [line for line in book.lines() if line.startswith(("add", "remove"))]
    assert changes[:2] == ["remove 10.0.1.1", "remove 10.0.1.2"]
    assert book.addresses == ["10.0.1.1", "10.0.1.2"]
    book.hear(150, config=book.configs[0])
    assert book.addresses == ["10.0.1.1"]


def test_a_change_of_sockets_keeps_the_master_and_its_addresses() -> None:
    book = Playbook(instance()).start_as_master()
    book.run_for(500_000)
    book.lines()
    book.reload(instance(multicast_group="224.0.0.77"))
    told = book.lines(everything=True)
    assert [line for line in told if line.startswith(("open", "close", "advert", "remove"))] == [
        "open 2",
        "close 1",
        "advert 100 to 224.0.0.77",
    ]
    assert book.state() == "MASTER"
    book.run_for(SECOND)
    assert "advert 100 to 224.0.0.77" in book.lines()


NEW_SOCKETS = {"multicast_group": "224.0.0.77"}


@pytest.mark.parametrize("sockets", [{}, NEW_SOCKETS], ids=("same sockets", "new sockets"))
def test_a_much_shorter_interval_keeps_the_master_and_says_nothing_untrue(sockets: dict[str, str]) -> None:
    """Backups wait by the interval of the last advert: five seconds of silence were none."""
    book = Playbook(instance(advert_int_us=10 * SECOND)).start_as_master()
    book.run_for(15 * SECOND)
    book.lines()
    book.announced.clear()
    book.reload(instance(advert_int_us=SECOND, **sockets))
    assert not [text for text in book.logs() if "no advert left us" in text]
    assert "->" not in " ".join(book.lines())
    book.run_for(500_000)
    assert (book.state(), book.addresses) == ("MASTER", ["10.0.0.100", "10.0.0.101"])
    assert len(book.announced) == bool(sockets), "as after every change of sockets, and not an interval later"


def test_a_master_killed_while_its_interval_becomes_shorter_goes_on() -> None:
    book = Playbook(instance(advert_int_us=10 * SECOND)).start_as_master()
    book.run_for(15 * SECOND)
    book.hold_answers = True
    book.reload(instance(advert_int_us=SECOND, **NEW_SOCKETS))
    book.hold_answers = False
    book.lines()
    book.boot()
    assert "->" not in " ".join(book.lines())
    assert (book.state(), book.addresses) == ("MASTER", ["10.0.0.100", "10.0.0.101"])
    book.run_for(5_100_000)
    book.now_us += 4 * SECOND
    book.boot()
    assert book.state() == "BACKUP", "silent for longer than backups of the new interval wait"


def test_a_new_name_moves_the_record_before_the_old_one_is_forgotten() -> None:
    book = Playbook(instance("OLD")).start_as_master()
    book.lines()
    book.reload(instance("NEW"))
    told = book.lines(everything=True)
    assert told.index("remember MASTER owing []") < told.index("forget OLD")
    assert set(book.journal) == {"NEW"}
    assert book.state("NEW") == "MASTER"
    assert "->" not in " ".join(told)


def test_a_backup_whose_priority_changes_moves_its_wait_by_the_difference() -> None:
    book = Playbook(instance()).start()
    book.run_for(SECOND)
    before = book.engine.deadline_us or 0
    book.reload(instance(priority=228))
    assert before - (book.engine.deadline_us or 0) == 128 * SECOND // 256


@pytest.mark.parametrize("nopreempt", [False, True])
def test_a_shorter_interval_does_not_make_a_backup_take_over_from_a_living_master(nopreempt: bool) -> None:
    ours = instance(priority=150 if nopreempt else 50, nopreempt=nopreempt)
    master = instance(priority=100)
    book = Playbook(ours).start()
    for _ in range(5):
        book.hear(100, config=master)
        book.run_for(SECOND)
    book.reload(replace(ours, advert_int_us=100_000))
    book.run_for(900_000)
    assert book.state() == "BACKUP"
    book.hear(100, config=master)
    book.run_for(3 * SECOND)
    assert book.state() == "BACKUP"
    book.run_for(SECOND)
    assert book.state() == "MASTER", "dead after three intervals of its own"


@pytest.mark.parametrize("fields", [{}, {"version": 2, "auth_type": AuthType.NONE}])
def test_a_backup_that_has_learnt_no_interval_takes_its_new_one(fields: dict[str, object]) -> None:
    ours = instance(advert_int_us=10 * SECOND, **fields)
    book = Playbook(ours).start()
    if fields:
        book.hear(150)
    book.reload(replace(ours, advert_int_us=SECOND))
    book.run_for(3_700_000)
    assert book.state() == "MASTER"


def test_addresses_new_to_a_backup_are_removed_if_they_are_there() -> None:
    book = Playbook(instance()).start()
    book.kernel.add(("eth0", "10.0.0.102", 24))
    book.reload(instance(virtual_addresses=vips("10.0.0.100", "10.0.0.102")))
    assert book.addresses == []


def test_another_interface_is_another_instance() -> None:
    book = Playbook(instance(), links=[link(), link("eth1", "10.1.0.1", index=3)]).start_as_master()
    book.reload(instance(interface="eth1"))
    lines = book.lines()
    assert lines.index("remove 10.0.0.100 10.0.0.101") < lines.index("INIT -> BACKUP")
    assert book.state() == "BACKUP"
    assert book.addresses == []
    assert set(book.journal) == {"VI_1"}


# Gone instances ------------------------------------------------------------------------------------------


def test_a_gone_master_says_farewell_and_is_forgotten() -> None:
    book = Playbook(instance()).start_as_master()
    book.reload()
    assert book.lines() == [
        "MASTER -> INIT",
        f"advert 0 to {GROUP}",
        "remove 10.0.0.100 10.0.0.101",
        "notify DELETED 100",
        "forget VI_1",
    ]
    assert book.engine.settled
    assert book.engine.deadline_us is None


def test_a_gone_instance_tells_its_script_fault_unless_configured_otherwise() -> None:
    def last_argument(config: VrrpInstance) -> str:
        book = Playbook(config).start_as_master()
        book.reload()
        notify = next(action for action in book.actions if type(action).__name__ == "Notify")
        return notify.commands[0].argv[3]  # type: ignore[union-attr]

    assert last_argument(instance()) == "FAULT"
    assert last_argument(instance(notify_deleted=True)) == "DELETED"


def test_the_generation_is_applied_only_when_the_kernel_has_answered() -> None:
    book = Playbook(instance()).start_as_master()
    book.hold_answers = True
    book.reload(instance(virtual_addresses=vips("10.0.0.100")))
    assert not book.engine.settled
    book.hold_answers = False
    book.answer()
    assert book.engine.settled
    assert book.engine.report().generation == 2


def test_reload_after_a_stop_changes_nothing() -> None:
    from kad_vrrp.core.events import StopRequested

    book = Playbook(instance(notify=NotifyScripts())).start_as_master()
    book.tell(StopRequested())
    book.lines()
    book.tell(ConfigurationChanged(9, (instance("LATE"),)))
    assert book.lines(everything=True) == []


def test_two_hundred_reloads_of_many_instances_leave_the_adverts_alone() -> None:
    many = [
        instance(f"VI_{n}", virtual_router_id=n, virtual_addresses=vips(f"10.0.{n}.1")) for n in range(1, 51)
    ]
    book = Playbook(*many).start()
    book.run_for(5 * SECOND)
    last: dict[str, int] = {}
    gaps: list[int] = []

    def note(advert: object) -> None:
        name = advert.instance  # type: ignore[attr-defined]
        gaps.append(book.now_us - last.get(name, book.now_us))
        last[name] = book.now_us

    book.on_advert = note  # type: ignore[assignment]
    for number in range(200):
        changed = list(many)
        index = number % len(many)
        changed[index] = replace(many[index], virtual_addresses=vips(f"10.0.{index + 1}.{2 + number % 2}"))
        book.reload(*changed)
        book.run_for(37_000)
        book.actions.clear()
    assert max(gaps) <= 1_010_000
    assert all(report.state == "MASTER" for report in book.engine.report().instances)


def test_unicast_peers_that_change_are_sent_to_at_once() -> None:
    ours = instance(unicast=True, unicast_peers=(UnicastPeer("10.0.0.2"),))
    book = Playbook(ours).start_as_master()
    book.reload(replace(ours, unicast_peers=(UnicastPeer("10.0.0.2"), UnicastPeer("10.0.0.3"))))
    assert book.lines() == ["advert 100 to 10.0.0.2", "advert 100 to 10.0.0.3"]
