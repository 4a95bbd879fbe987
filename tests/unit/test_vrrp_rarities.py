"""Coincidences that the simulator found: each once made a router lose an address, a word or its memory."""

import contextlib

import pytest
from msgspec.structs import replace

from kad.config.model.vrrp import NotifyScripts, SyncGroup, VirtualAddress, WantedState
from kad_vrrp.core.events import Event, NotifyDone, PlanDone, StopRequested
from kad_vrrp.core.record import decode
from tests.support.vrrp_host import NOTIFY, SECOND, Killed, instance, link
from tests.support.vrrp_playbook import Playbook

VIPS = ["10.0.0.100", "10.0.0.101"]


def test_a_foreign_address_that_went_while_backup_is_set_by_the_next_master() -> None:
    book = Playbook(instance())
    book.boot()
    book.kernel.add(("eth0", "10.0.0.100", 24))
    book.run_for(4 * SECOND)
    assert book.state() == "MASTER"
    book.hear(200)
    assert book.addresses == ["10.0.0.100"], "it was there before"
    book.kernel.clear()
    book.run_for(5 * SECOND)
    assert book.state() == "MASTER"
    assert book.addresses == VIPS


def test_a_foreign_address_set_anew_by_a_life_that_was_killed_at_once_goes_with_mastery() -> None:
    """Whether it was that life's or the other's nobody can know: an address too few is the lesser evil."""
    book = Playbook(instance())
    book.boot()
    book.kernel.add(("eth0", "10.0.0.100", 24))
    book.run_for(4 * SECOND)
    book.hear(200)
    assert book.addresses == ["10.0.0.100"], "it was there before"
    book.kernel.clear()
    book.hold_answers = True
    book.run_for(5 * SECOND)
    assert book.addresses == VIPS
    book.hold_answers = False
    book.boot()
    assert book.state() == "MASTER"
    book.hear(200)
    assert book.addresses == []


def test_a_refused_address_that_a_record_says_is_there_is_removed() -> None:
    book = Playbook(instance()).start_as_master()
    book.refuses.add("10.0.0.100")
    book.boot()
    assert book.state() == "FAULT"
    assert book.addresses == []


def test_the_last_word_to_a_script_is_the_present_state_after_a_crash_too() -> None:
    book = Playbook(instance())
    book.hold_answers = True
    book.boot()
    while book.answers:
        answer = book.answers.popleft()
        if not isinstance(answer, NotifyDone):  # the script of BACKUP goes on
            book.tell(answer)
    book.run_for(4 * SECOND)
    while book.answers:
        book.tell(book.answers.popleft())
    assert book.state() == "MASTER"
    book.hold_answers = False
    book.started.clear()
    book.boot()
    assert [state for _, _, state in book.started] == ["BACKUP", "MASTER"]


def test_answers_that_come_under_a_former_name_are_understood() -> None:
    book = Playbook(instance())
    book.boot()
    book.hold_answers = True
    book.run_for(4 * SECOND)
    book.reload(instance("NEW"))
    book.hold_answers = False
    book.answer()
    assert book.engine.settled
    assert book.addresses == VIPS
    assert book.engine.report().instances[0].owed_notifications == 0


def test_a_script_that_ends_under_a_former_name_has_ended() -> None:
    book = Playbook(instance())
    book.boot()
    book.hold_answers = True
    book.run_for(4 * SECOND)
    done = [each for each in book.answers if isinstance(each, PlanDone)]
    book.answers.clear()
    for each in done:
        book.tell(each)
    book.reload(instance("NEW"))
    book.hold_answers = False
    book.answer()
    assert book.engine.report().instances[0].owed_notifications == 0


def test_another_instance_of_the_same_name_keeps_its_record_and_speaks_last() -> None:
    book = Playbook(instance()).start_as_master()
    book.hold_answers = True
    book.started.clear()
    book.reload(instance(virtual_router_id=77))
    removed = book.answers.popleft()
    book.hold_answers = False
    book.answer()
    book.tell(removed)
    assert [state for _, _, state in book.started] == ["DELETED", "BACKUP"]
    record = decode(book.journal["VI_1"])
    assert record is not None and record.state.value == book.state() == "BACKUP"


def test_an_address_taken_away_late_by_a_former_instance_comes_back() -> None:
    """It still had a plan in flight when the reload came; the next is an owner and needs no wait."""
    owner = instance(priority=255, wanted_state=WantedState.MASTER)
    book = Playbook(owner)
    book.hold_answers = True
    book.boot()
    while book.answers and not isinstance(book.answers[0], PlanDone):
        book.tell(book.answers.popleft())
    assert book.state() == "MASTER"
    added = book.answers.popleft()
    book.reload(replace(owner, virtual_router_id=77))
    book.hold_answers = False
    book.answer()
    book.tell(added)
    assert book.state() == "MASTER"
    assert book.addresses == VIPS


def test_a_familiar_better_master_ends_the_preempt_delay_that_a_worse_one_began() -> None:
    config = instance(preempt_delay_us=3 * SECOND, virtual_addresses=(VirtualAddress("10.0.0.100", 24),))
    book = Playbook(config)
    book.boot()
    for _ in range(2):
        book.hear(200, "10.0.0.9")
    book.hear(50, "10.0.0.8")
    for _ in range(8):
        book.run_for(SECOND // 2)
        book.hear(200, "10.0.0.9")
    book.hear(50, "10.0.0.8")
    record = decode(book.journal["VI_1"])
    assert record is not None
    assert record.preempt_at_us == book.now_us + 3 * SECOND


def test_a_group_gives_no_number_twice_over_a_crash() -> None:
    members = [
        instance("A", notify=NotifyScripts()),
        instance("B", virtual_router_id=52, notify=NotifyScripts(), virtual_addresses=()),
    ]
    book = Playbook(*members)
    book.sync_groups = (SyncGroup(name="G", members=("A", "B"), notify=NOTIFY),)
    book.boot()
    book.scripts_survive = False
    book.hold_answers = True
    for _ in range(3):
        book.set_link(link(up=False))
        book.set_link(link())
    owed = max(serial for _, serial, _ in book.started)
    book.hold_answers = False
    book.boot()
    book.started.clear()
    book.set_link(link(up=False))
    assert [state for _, _, state in book.started] == ["FAULT"]
    assert book.started[0][1] > owed


def test_killed_while_stopping_it_begins_with_its_own_interval() -> None:
    """RFC 9568 §6.4.1 (150): what the last master used counts for a backup only."""
    book = Playbook(instance())
    book.boot()
    book.hear(200, config=instance(advert_int_us=SECOND // 10))
    book.hold_answers = True
    book.tell(StopRequested())
    book.hold_answers = False
    book.boot()
    book.lines()
    book.run_for(3 * SECOND)
    assert book.state() == "BACKUP"


def test_an_instance_on_its_way_out_does_not_keep_the_process_awake() -> None:
    """A delay that ran when it was removed must not be due for ever."""
    book = Playbook(instance(interface_down_delay_us=SECOND)).start_as_master()
    book.set_link(link(up=False))
    book.hold_answers = True
    book.reload()
    book.run_for(5 * SECOND)
    assert book.engine.deadline_us is None or book.engine.deadline_us > book.now_us


def test_a_record_of_another_instance_of_the_same_name_is_not_taken_over() -> None:
    """Killed in the reload that put it in the other's place: what that one held is removed."""
    book = Playbook(instance()).start_as_master()
    book.previous, book.configs = (
        book.configs,
        (instance(virtual_router_id=77, virtual_addresses=(VirtualAddress("10.0.0.100", 24),)),),
    )
    book.generation += 1
    book.boot()
    assert book.state() == "BACKUP"
    assert book.addresses == []


@pytest.mark.parametrize("kills", [1, 2])
def test_who_takes_the_name_of_another_is_told_of_after_it_whenever_the_reload_is_cut_short(
    kills: int,
) -> None:
    """The same name, another virtual router: the record is the one's until the other has written in it."""
    deaths = 0
    for kill_after in range(60):
        book = Playbook(instance()).start_as_master()
        book.started.clear()
        new = instance(virtual_router_id=77, virtual_addresses=(VirtualAddress("10.0.0.107", 24),))
        book.kill_after = kill_after
        try:
            book.reload(new)
        except Killed:
            deaths += 1
        told = [state for _, _, state in book.started]
        for life in range(1, kills + 1):
            lives = len(book.started)
            with contextlib.suppress(Killed):
                book.boot(kill_after=kill_after if life < kills else None)
            serials = [serial for _, serial, _ in book.started[lives:]]
            assert serials == sorted(serials), kill_after
            heard = [state for _, _, state in book.started[lives:]]
            assert heard in ([], ["BACKUP"], ["DELETED"], ["DELETED", "BACKUP"]), kill_after
            told += heard
        book.run_for(5 * SECOND)
        assert book.state() == "MASTER"
        assert book.addresses == ["10.0.0.107"], kill_after
        assert "DELETED" in told, kill_after
        assert [state for _, _, state in book.started][-2:] == ["BACKUP", "MASTER"], kill_after
        assert book.engine.settled
    assert deaths > 10


def test_those_who_had_a_name_before_are_let_go_when_all_is_told() -> None:
    book = Playbook(instance()).start_as_master()
    book.hold_answers = True
    for number in (61, 62, 63):
        book.reload(instance(virtual_router_id=number))
    assert book.engine.roster[0].predecessor is not None
    book.hold_answers = False
    book.answer()
    assert book.engine.roster[0].predecessor is None
    assert [state for _, _, state in book.started][-4:] == ["DELETED"] * 3 + ["BACKUP"]


def test_killed_while_who_had_the_name_before_is_told_of_still_the_last_word_is_of_who_has_it() -> None:
    """Its script outlives the newcomer's: a later life runs both again, in order."""
    book = Playbook(instance()).start_as_master()
    book.hold_answers = True
    book.reload(instance(virtual_router_id=61))

    def outlives(answer: Event) -> bool:
        deleted = [serial for _, serial, state in book.started if state == "DELETED"]
        return isinstance(answer, NotifyDone) and answer.serial in deleted

    while answers := [each for each in book.answers if not outlives(each)]:
        book.answers.remove(answers[0])
        book.tell(answers[0])
    assert [state for _, _, state in book.started][-2:] == ["DELETED", "BACKUP"]
    book.hold_answers = False
    book.boot()
    assert [state for _, _, state in book.started][-2:] == ["DELETED", "BACKUP"]
    assert not book.engine.report().instances[0].owed_notifications
