"""Plans of addresses, ownership, and what a record says about them."""

from kad.config.model.script import ScriptCommand
from kad.config.model.vrrp import NotifyScripts, VirtualAddress
from kad_vrrp.core.actions import AddressEntry, ChangeAddresses, Notify, SetPromoteSecondaries
from kad_vrrp.core.events import AddressFailure, LinkRemoved, PlanDone, StopRequested
from kad_vrrp.core.holdings import Holdings
from kad_vrrp.core.resources import Holding, digest, entries_of, from_bits, plan, to_bits
from tests.support.vrrp_host import instance, link
from tests.support.vrrp_playbook import Playbook


def entry(number: int, **changes: object) -> AddressEntry:
    return AddressEntry("eth0", f"10.0.0.{number}", 24, **changes)  # type: ignore[arg-type]


def test_a_plan_removes_first_and_leaves_what_is_foreign() -> None:
    actual = {entry(1): Holding.OURS, entry(2): Holding.FOREIGN, entry(3): Holding.OURS}
    wanted = plan([entry(3), entry(4)], actual)
    assert wanted.remove == (entry(1),)
    assert wanted.add == (entry(4),)
    assert not plan([entry(3), entry(1)], actual)


def test_a_change_of_detail_is_a_removal_and_an_addition() -> None:
    wanted = plan([entry(1, label="eth0:1")], {entry(1): Holding.OURS})
    assert (wanted.remove, wanted.add) == ((entry(1),), (entry(1, label="eth0:1"),))


def test_entries_are_vips_then_excluded_without_repetition() -> None:
    config = instance(
        virtual_addresses=(VirtualAddress("10.0.0.1", 24), VirtualAddress("10.0.0.1", 24)),
        excluded_addresses=(VirtualAddress("10.0.0.2", 24, interface="eth1"), VirtualAddress("10.0.0.1", 24)),
    )
    assert [(each.interface, each.address) for each in entries_of(config)] == [
        ("eth0", "10.0.0.1"),
        ("eth1", "10.0.0.2"),
    ]


def test_bits_name_entries_of_a_list_and_beyond_it_nothing() -> None:
    entries = tuple(entry(number) for number in range(1, 21))
    chosen = (entries[0], entries[9], entries[19])
    assert from_bits(entries, to_bits(entries, chosen)) == chosen
    assert to_bits(entries, ()) == b""
    assert from_bits(entries[:10], to_bits(entries, chosen)) == chosen[:2]


def test_the_digest_tells_lists_apart() -> None:
    lists = [(entry(1),), (entry(2),), (entry(1), entry(2)), (entry(2), entry(1)), (entry(1, scope=1),)]
    assert len({digest(each) for each in lists}) == len(lists)


def held(config_addresses: int = 2) -> Holdings:
    vips = tuple(VirtualAddress(f"10.0.0.{number}", 24) for number in range(1, config_addresses + 1))
    return Holdings(entries_of(instance(virtual_addresses=vips)))


def run(holdings: Holdings, desired: tuple[AddressEntry, ...], **answer: object) -> ChangeAddresses:
    wanted = holdings.next_plan(desired)
    assert wanted is not None
    change = ChangeAddresses("VI_1", 7, wanted.remove, wanted.add)
    holdings.begin(change)
    assert holdings.next_plan(()) is None
    assert holdings.finish(PlanDone("VI_1", 7, **answer)) is not None  # type: ignore[arg-type]
    return change


def test_what_existed_is_foreign_and_what_a_plan_may_add_is_recorded_as_ours_before() -> None:
    holdings = held()
    wanted = holdings.next_plan(holdings.entries)
    assert wanted is not None
    holdings.begin(ChangeAddresses("VI_1", 1, wanted.remove, wanted.add))
    assert from_bits(holdings.entries, holdings.recorded()[1]) == holdings.entries
    holdings.finish(PlanDone("VI_1", 1, existed=(entry(1),)))
    assert holdings.held == {entry(1): Holding.FOREIGN, entry(2): Holding.OURS}
    assert from_bits(holdings.entries, holdings.recorded()[1]) == (entry(2),)


def test_an_answer_to_another_plan_means_nothing() -> None:
    holdings = held()
    wanted = holdings.next_plan(holdings.entries)
    assert wanted is not None
    holdings.begin(ChangeAddresses("VI_1", 5, (), wanted.add))
    assert holdings.finish(PlanDone("VI_1", 4)) is None
    assert holdings.in_flight


def test_a_removal_the_kernel_refuses_is_not_tried_without_end() -> None:
    holdings = held()
    run(holdings, holdings.entries)
    failure = AddressFailure(entry(1), False, "EPERM")
    run(holdings, (), failures=(failure,))
    assert holdings.next_plan(()) is None
    holdings.forgive()
    again = holdings.next_plan(())
    assert again is not None
    assert again.remove == (entry(1),)


def test_too_many_addresses_for_a_record_are_all_ours_after_a_crash() -> None:
    many = tuple(VirtualAddress(f"172.{n >> 8}.{n & 255}.1", 32) for n in range(20_000))
    book = Playbook(instance(virtual_addresses=many[:200], excluded_addresses=many[200:])).start_as_master()
    assert len(book.addresses) == 20_000
    book.start()
    assert book.state() == "MASTER"
    book.hear(150)
    assert book.addresses == []


def test_promote_secondaries_is_set_first_and_put_back_last() -> None:
    book = Playbook(instance(promote_secondaries=True), instance("VI_2", virtual_router_id=52)).start()
    assert book.actions[0] == SetPromoteSecondaries("eth0", True)
    book.actions.clear()
    book.tell(LinkRemoved("eth0"))
    book.set_link(link(index=9))
    assert [each for each in book.actions if isinstance(each, SetPromoteSecondaries)] == [
        SetPromoteSecondaries("eth0", True)
    ]
    book.actions.clear()
    book.tell(StopRequested())
    order = [type(each).__name__ for each in book.actions]
    assert order.index("SetPromoteSecondaries") > order.index("Notify")
    assert book.actions[order.index("SetPromoteSecondaries")] == SetPromoteSecondaries("eth0", False)


def test_the_script_for_a_lower_master_runs_as_written_and_is_not_owed() -> None:
    script = ScriptCommand(argv=("/etc/reclaim", "now"), executable="/etc/reclaim")
    book = Playbook(instance(notify=NotifyScripts(master_rx_lower_pri=script))).start_as_master()
    book.hear(50)
    (notify,) = (action for action in book.actions if isinstance(action, Notify))
    assert notify.commands == (script,)
    assert notify.state == "MASTER_RX_LOWER_PRI"
    assert book.engine.report().instances[0].owed_notifications == 0
