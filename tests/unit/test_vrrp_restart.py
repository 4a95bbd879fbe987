"""Restart after a crash: what goes on, what starts anew, and that no instant of death leaves a mess."""

import contextlib
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from kad.config.model.vrrp import TrackedItem, Tracking, VirtualAddress, VrrpInstance
from kad_vrrp.core.context import EngineSettings
from kad_vrrp.core.events import AddressDeleted, StopRequested, TimeReached
from kad_vrrp.core.record import decode
from tests.support.vrrp_host import SECOND, Killed, instance, link
from tests.support.vrrp_playbook import Playbook

GROUP = "224.0.0.18"
RESTART_US = 5_000


def vips(*addresses: str) -> tuple[VirtualAddress, ...]:
    return tuple(VirtualAddress(address, 24) for address in addresses)


def test_a_master_goes_on_within_its_master_down_interval() -> None:
    book = Playbook(instance()).start_as_master()
    book.run_for(6 * SECOND)
    book.now_us += RESTART_US
    book.lines()
    book.start()
    assert book.lines() == [f"advert 100 to {GROUP}", "add 10.0.0.100 10.0.0.101", "announce 10"]
    assert book.state() == "MASTER"
    since_us = book.engine.report().instances[0].since_us
    assert since_us < book.now_us - 6 * SECOND


def test_the_log_tells_how_long_a_master_was_silent_and_nothing_of_a_backup() -> None:
    book = Playbook(instance()).start()
    book.lines()
    book.start()
    assert "(VI_1) going on as BACKUP" in book.logs()
    book.run_for(6 * SECOND)
    book.now_us += RESTART_US
    book.lines()
    book.start()
    assert [text for text in book.logs() if text.startswith("(VI_1) going on as MASTER, silent for ")]


def test_startup_and_debounce_delays_do_not_apply_to_what_goes_on() -> None:
    book = Playbook(instance(interface_up_delay_us=30 * SECOND)).start_as_master()
    book.now_us += RESTART_US
    book.lines()
    book.start(EngineSettings(startup_delay_us=60 * SECOND))
    assert book.lines()[0] == f"advert 100 to {GROUP}"
    book.hear(150)
    assert book.state() == "BACKUP"


def test_a_master_silent_for_most_of_the_interval_listens_before_announcing() -> None:
    book = Playbook(instance()).start_as_master()
    book.now_us += 3 * SECOND
    book.lines()
    book.start()
    assert book.lines() == [f"advert 100 to {GROUP}", "add 10.0.0.100 10.0.0.101"]
    book.run_for(SECOND)
    assert sorted(book.lines()) == [f"advert 100 to {GROUP}", "announce 10"]


def test_a_master_silent_for_too_long_starts_as_backup_and_clears_what_it_left() -> None:
    book = Playbook(instance()).start_as_master()
    book.now_us += 3_609_375
    book.lines()
    book.start()
    assert book.lines() == ["MASTER -> BACKUP", "remove 10.0.0.100 10.0.0.101", "notify BACKUP 100"]
    assert book.addresses == []
    assert book.engine.deadline_us == book.now_us + 3_609_375


def test_a_backup_goes_on_with_the_interval_it_learnt_and_says_nothing() -> None:
    book = Playbook(instance()).start()
    book.hear(150, config=instance(advert_int_us=200_000))
    book.now_us += RESTART_US
    book.lines()
    book.start()
    assert book.lines() == ["remove 10.0.0.100 10.0.0.101"]
    assert book.engine.deadline_us == book.now_us + 600_000 + 121_875
    assert book.engine.report().instances[0].master_address == "10.0.0.2"


def test_a_master_whose_interface_went_down_meanwhile_is_in_fault() -> None:
    book = Playbook(instance()).start_as_master()
    book.links = [link(up=False)]
    book.lines()
    book.start()
    assert book.lines() == [
        "MASTER -> FAULT",
        "remove 10.0.0.100 10.0.0.101",
        "advert 0 to 224.0.0.18",
        "notify FAULT 100",
    ]


def test_a_faulty_instance_whose_interface_came_back_meanwhile_stands_again() -> None:
    book = Playbook(instance(), links=[link(up=False)]).start()
    book.links = [link()]
    book.lines()
    book.start()
    assert book.lines() == ["remove 10.0.0.100 10.0.0.101", "FAULT -> BACKUP", "notify BACKUP 100"]


def test_an_address_that_was_foreign_is_still_foreign() -> None:
    book = Playbook(instance()).start()
    book.kernel.add(("eth0", "10.0.0.100", 24))
    book.run_for(4 * SECOND)
    book.start()
    book.hear(150)
    assert book.addresses == ["10.0.0.100"]


def test_scripts_that_had_not_ended_run_again_in_order() -> None:
    book = Playbook(instance()).start()
    book.hold_answers = True
    book.run_for(3_609_375)
    book.tell(book.answers.popleft())
    book.hear(150)
    book.tell(next(answer for answer in book.answers if type(answer).__name__ == "PlanDone"))
    assert [state for _, _, state in book.started] == ["BACKUP", "MASTER", "BACKUP"]
    book.hold_answers = False
    book.started.clear()
    book.start()
    assert [state for _, _, state in book.started] == ["MASTER", "BACKUP"]
    book.started.clear()
    book.start()
    assert book.started == []


def test_a_damaged_record_is_as_none() -> None:
    for record in (b"", b"\xc1", b"\x93\x01\x02\x03", b"\x81\xa1a\x01"):
        book = Playbook(instance())
        book.journal = {"VI_1": record}
        book.start()
        assert "INIT -> BACKUP" in book.lines()
        decoded = decode(book.journal["VI_1"])
        assert decoded is not None


def test_the_record_that_replaces_a_damaged_one_is_kept() -> None:
    book = Playbook(instance(), links=[link(up=False)])
    book.journal = {"VI_1": b"\xc1"}
    book.hold_answers = True
    book.start()
    assert decode(book.journal["VI_1"]) is not None


def test_a_second_reign_that_dies_before_its_first_advert_is_not_measured_by_the_first() -> None:
    book = Playbook(instance()).start_as_master()
    book.hear(150)
    for _ in range(10):
        book.run_for(SECOND)
        book.hear(150)
    book.kill_after = 1
    with pytest.raises(Killed):
        book.run_for(4 * SECOND)
    book.now_us += RESTART_US
    book.start()
    assert book.state() == "MASTER"
    assert book.addresses == ["10.0.0.100", "10.0.0.101"]


def test_numbers_go_on_above_those_still_owed() -> None:
    book = Playbook(instance()).start()
    book.hold_answers = True
    book.run_for(3_609_375)
    book.tell(book.answers.popleft())
    owed = book.started[-1][1]
    book.hold_answers = False
    book.start()
    book.hear(150)
    assert book.started[-1][1] > owed
    assert len({serial for _, serial, _ in book.started}) == 3


def test_a_preempt_delay_that_was_running_runs_on() -> None:
    book = Playbook(instance(preempt_delay_us=5 * SECOND)).start()
    for _ in range(4):
        book.hear(50)
        book.run_for(SECOND)
    book.start()
    for _ in range(5):
        book.run_for(SECOND)
        book.hear(50)
    assert book.state() == "MASTER"


def test_records_of_instances_nobody_knows_are_forgotten() -> None:
    book = Playbook(instance("GONE")).start_as_master()
    book.configs = (instance("HERE", virtual_router_id=9, virtual_addresses=vips("10.0.9.9")),)
    book.start()
    assert set(book.journal) == {"HERE"}


def test_a_reload_cut_short_is_finished_by_the_next_life() -> None:
    gone = instance("GONE", virtual_router_id=9, virtual_addresses=vips("10.0.9.9"))
    book = Playbook(instance(), gone).start()
    book.run_for(4 * SECOND)
    assert len(book.addresses) == 3
    book.previous = book.configs
    book.configs = (instance(virtual_addresses=vips("10.0.0.101", "10.0.0.102")),)
    book.lines()
    book.start()
    assert book.state() == "MASTER"
    assert book.addresses == ["10.0.0.101", "10.0.0.102"]
    assert set(book.journal) == {"VI_1"}
    assert "notify DELETED 100" in book.lines()


def test_a_renaming_cut_short_keeps_the_master() -> None:
    book = Playbook(instance("OLD")).start_as_master()
    book.previous = book.configs
    book.configs = (instance("NEW"),)
    book.start()
    assert book.state("NEW") == "MASTER"
    assert set(book.journal) == {"NEW"}


# Death at every boundary -----------------------------------------------------------------------------------


def become_master(book: Playbook) -> None:
    book.run_for(3_609_375)


def leave_for_higher(book: Playbook) -> None:
    book.hear(150)


def leave_for_fault(book: Playbook) -> None:
    book.set_link(link(up=False))


def leave_after_deletion(book: Playbook) -> None:
    book.kernel.discard(("eth0", "10.0.0.100", 24))
    book.tell(AddressDeleted("eth0", "10.0.0.100", 24))
    book.tell(TimeReached())


def change_addresses(book: Playbook) -> None:
    book.reload(instance(virtual_addresses=vips("10.0.0.101", "10.0.0.102")))


def rename(book: Playbook) -> None:
    book.reload(instance("VI_1b"))


def remove(book: Playbook) -> None:
    book.reload()


def stop(book: Playbook) -> None:
    book.tell(StopRequested())


TURNS: list[tuple[Callable[[Playbook], None], bool]] = [
    (become_master, False),
    (leave_for_higher, True),
    (leave_for_fault, True),
    (leave_after_deletion, True),
    (change_addresses, True),
    (rename, True),
    (remove, True),
    (stop, True),
]


def prepared(as_master: bool, *, scripts_survive: bool = True) -> Playbook:
    book = Playbook(instance())
    book.scripts_survive = scripts_survive
    book.boot()
    if as_master:
        become_master(book)
    return book


def actions_of(turn: Callable[[Playbook], None], as_master: bool) -> int:
    book = prepared(as_master)
    before = len(book.actions)
    turn(book)
    return len(book.actions) - before


def assert_consistent(book: Playbook) -> None:
    """Kernel and state agree, for every instance there is."""
    expected: set[str] = set()
    for report in book.engine.report().instances:
        if report.state == "MASTER":
            expected |= {address.address for address in report.addresses}
        assert report.owed_notifications == 0
    assert book.addresses == sorted(expected)
    assert set(book.journal) == {config.name for config in book.configs}


@pytest.mark.parametrize("scripts_survive", [True, False], ids=["scripts end", "scripts die too"])
@pytest.mark.parametrize(("turn", "as_master"), TURNS, ids=[turn[0].__name__ for turn in TURNS])
def test_death_between_any_two_actions(
    turn: Callable[[Playbook], None], as_master: bool, scripts_survive: bool
) -> None:
    steps = actions_of(turn, as_master)
    assert steps >= 3
    for survived in range(steps + 1):
        book = prepared(as_master, scripts_survive=scripts_survive)
        book.kill_after = survived
        try:
            turn(book)
        except Killed:
            pass
        else:
            assert survived == steps
        if book.stopped:
            continue
        book.now_us += RESTART_US
        book.announced.clear()
        book.boot()
        book.previous = ()
        assert_consistent(book)
        assert_everything_told(book)
        for report in book.engine.report().instances:
            assert report.state != "MASTER" or book.announced, survived
        # And it goes on working.
        if book.configs and turn is not leave_for_fault:
            book.run_for(4 * SECOND)
            assert {report.state for report in book.engine.report().instances} == {"MASTER"}
            assert_consistent(book)
            assert_everything_told(book)


def assert_everything_told(book: Playbook) -> None:
    """Every notification that was ever intended has finished at least once, in order, the last one last."""
    intended = collapsed([state for _, state in book.recorded if state])
    told = collapsed([state for _, _, state in book.finished])
    assert is_subsequence(intended, told), (intended, told)
    assert intended[-1] == told[-1], (intended, told)


def collapsed(states: list[str]) -> list[str]:
    return [state for index, state in enumerate(states) if index == 0 or states[index - 1] != state]


def is_subsequence(short: list[str], long: list[str]) -> bool:
    rest = iter(long)
    return all(any(item == other for other in rest) for item in short)


def test_dying_again_and_again_at_the_same_place_still_ends_well() -> None:
    book = prepared(as_master=False)
    for survived in range(12):
        book.kill_after = survived
        try:
            become_master(book)
        except Killed:
            book.now_us += RESTART_US
            for deaths in range(3):
                try:
                    book.boot()
                    book.kill_after = deaths
                    book.run_for(1)
                except Killed:
                    pass
            book.boot()
            assert_consistent(book)
    assert replace(book.configs[0]) == book.configs[0]


@pytest.mark.parametrize("first", [0, 1], ids=["the former one stands first", "the new one stands first"])
def test_an_address_that_changes_hands_is_there_wherever_the_reload_was_cut_short(first: int) -> None:
    def lists(mover: int) -> list[VrrpInstance]:
        made = [
            instance(
                f"VI_{number}",
                virtual_router_id=number + 1,
                virtual_addresses=vips(f"10.1.{number}.1", *(["10.0.9.9"] if number == mover else [])),
            )
            for number in (0, 1)
        ]
        return made if first == 0 else made[::-1]

    for survived in range(25):
        book = Playbook(*lists(0)).start_as_master()
        book.run_for(4 * SECOND)
        assert "10.0.9.9" in book.addresses
        book.kill_after = survived
        with contextlib.suppress(Killed):
            book.reload(*lists(1))
            book.run_for(SECOND)
        book.kill_after = None
        book.configs, book.previous = tuple(lists(1)), tuple(lists(0))
        book.now_us += RESTART_US
        book.boot()
        book.run_for(6 * SECOND)
        assert {report.state for report in book.engine.report().instances} == {"MASTER"}
        assert "10.0.9.9" in book.addresses, survived


def test_a_master_keeps_the_address_that_another_instance_gives_up() -> None:
    """keepalived takes it from both."""
    book = Playbook(
        instance(
            "A", virtual_addresses=vips("10.0.9.9"), tracking=Tracking(interfaces=(TrackedItem("eth1", 0),))
        ),
        instance("B", virtual_router_id=52, virtual_addresses=vips("10.0.9.9")),
        links=[link("eth0"), link("eth1", "10.0.1.2", index=3)],
    ).start_as_master()
    book.run_for(4 * SECOND)
    book.tell(link("eth1", "10.0.1.2", index=3, up=False))
    book.run_for(SECOND)
    assert [report.state for report in book.engine.report().instances] == ["FAULT", "MASTER"]
    assert "10.0.9.9" in book.addresses
