"""What instances follow: weights, faults, waiting for first answers, and what a later life knows of it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from kad.config.model.script import ScriptCommand
from kad.config.model.track import TrackFile, TrackProcess, TrackScript
from kad.config.model.vrrp import TrackedItem, Tracking, VirtualAddress, VrrpInstance, WantedState
from kad.track.process import Cause
from kad.track.script import ScriptEnded
from kad_vrrp.core.events import StopRequested
from kad_vrrp.core.trackers import merged
from tests.support.vrrp_host import HANGS, SECOND, instance, link
from tests.support.vrrp_playbook import Playbook

SCRIPT = TrackScript("chk", ScriptCommand(argv=("/bin/chk",)))
FILE = TrackFile("file", "/run/value")
PROCESS = TrackProcess("proc", "haproxy", terminate_delay_us=SECOND)


class Book(Playbook):
    """What is due at once with a configuration, the first runs of scripts, is done at once."""

    def tell_configuration(self, previous: tuple[VrrpInstance, ...] = ()) -> None:
        super().tell_configuration(previous)
        self.run_for(0)


def item(name: str, weight: int = 0, reverse: bool = False) -> TrackedItem:
    return TrackedItem(name, weight, reverse)


def playbook(*links: Any, **fields: Any) -> Playbook:
    tracking = Tracking(**{name: fields.pop(name) for name in Tracking.__struct_fields__ if name in fields})
    book = Book(instance(tracking=tracking, **fields), links=list(links))
    book.scripts = (SCRIPT,)
    book.files = (FILE,)
    book.processes = (PROCESS,)
    return book


def priority(book: Playbook) -> int:
    return book.engine.report().instances[0].effective_priority


def state(book: Playbook) -> str:
    return book.state("VI_1")


def to_master(book: Playbook) -> Playbook:
    book.start()
    book.run_for(5 * SECOND)
    assert state(book) == "MASTER"
    book.lines()
    return book


def advertised(book: Playbook) -> list[int]:
    """Priorities of the adverts sent since the last look."""
    return [int(line.split()[1]) for line in book.lines() if line.startswith("advert")]


# Scripts ---------------------------------------------------------------------------------------------------


def test_a_failing_script_takes_its_weight_from_the_next_advert_on() -> None:
    book = to_master(playbook(scripts=(item("chk", -30),)))
    book.statuses["chk"] = 1
    book.run_for(2 * SECOND)
    told = advertised(book)
    assert told[-1] == 70
    assert set(told) <= {100, 70}
    book.statuses["chk"] = 0
    book.run_for(2 * SECOND)
    assert advertised(book)[-1] == 100


def test_a_positive_weight_counts_once_the_script_has_succeeded() -> None:
    book = playbook(scripts=(item("chk", 20),))
    book.statuses["chk"] = HANGS
    book.start()
    assert (state(book), priority(book)) == ("BACKUP", 100)
    book.end_run("chk", 0)
    assert priority(book) == 120


def test_an_unweighted_script_is_waited_for_and_its_failure_is_a_fault() -> None:
    book = playbook(scripts=(item("chk"),))
    book.statuses["chk"] = HANGS
    book.start()
    assert state(book) == "INIT"
    assert [line for line in book.lines() if line.startswith("notify")] == []
    book.end_run("chk", 0)
    assert state(book) == "BACKUP"
    book.statuses["chk"] = 0
    book.run_for(5 * SECOND)
    assert state(book) == "MASTER"
    book.lines()
    book.statuses["chk"] = 3
    book.run_for(2 * SECOND)
    told = [line for line in book.lines() if not line.startswith("run")]
    assert told[-4:] == [
        "MASTER -> FAULT",
        "advert 0 to 224.0.0.18",
        "remove 10.0.0.100 10.0.0.101",
        "notify FAULT 100",
    ]
    assert book.engine.report().instances[0].fault == "script chk is down"
    book.statuses["chk"] = 0
    book.run_for(2 * SECOND)
    assert state(book) == "BACKUP"


def test_a_script_that_cannot_be_executed_is_not_waited_for_and_no_fault() -> None:
    book = playbook(scripts=(item("chk"),))
    book.statuses["chk"] = HANGS

    def refuse(*, refused: bool) -> None:
        run = book.script_runs.pop()
        book.tell(ScriptEnded("chk", run.serial, None, "no such file", refused))

    book.start()
    refuse(refused=False)
    assert state(book) == "INIT", "there will be room to run it"
    book.run_for(SECOND)
    refuse(refused=True)
    assert state(book) == "BACKUP"
    for _ in range(5):
        book.run_for(SECOND)
        refuse(refused=True)
    assert state(book) == "MASTER"


def test_what_forbids_does_not_raise_a_masters_priority_first() -> None:
    book = playbook(files=(item("file", 1),), notify_priority_changes=True)
    book.contents["/run/value"] = -30
    to_master(book)
    book.write_file("/run/value", -300)
    told = [line for line in book.lines() if line.split()[0] in ("priority", "notify", "MASTER")]
    assert told == ["MASTER -> FAULT", "priority 100 as FAULT", "notify FAULT 70"]


def test_init_fail_is_a_fault_from_the_start() -> None:
    book = playbook(scripts=(item("chk"),))
    book.scripts = (TrackScript("chk", SCRIPT.command, init_fail=True, interval_us=SECOND),)
    book.statuses["chk"] = HANGS
    book.start()
    assert state(book) == "FAULT"


def test_the_first_failure_is_told_as_fault() -> None:
    book = playbook(scripts=(item("chk"),))
    book.statuses["chk"] = 1
    book.start()
    assert [line for line in book.lines() if line.startswith("notify")] == ["notify FAULT 100"]


def test_a_backups_timer_moves_by_the_difference() -> None:
    book = playbook(scripts=(item("chk", -60),))
    book.statuses["chk"] = HANGS
    book.start()
    before = book.engine.report().instances[0]
    deadline_us = book.now_us + 3 * SECOND + (256 - before.effective_priority) * SECOND // 256
    book.run_for(SECOND // 2)
    book.end_run("chk", 1)
    assert priority(book) == 40
    book.run_until(deadline_us + 1000)
    assert state(book) == "BACKUP"
    book.run_until(deadline_us + 60 * SECOND // 256 + 1000)
    assert state(book) == "MASTER"


def test_priority_changes_are_told_if_wanted() -> None:
    book = to_master(playbook(scripts=(item("chk", -30),), notify_priority_changes=True))
    book.statuses["chk"] = 1
    book.run_for(2 * SECOND)
    assert "priority 70 as MASTER" in book.lines()


def test_an_owner_has_no_floating_priority() -> None:
    book = playbook(scripts=(item("chk", -30),), priority=255, wanted_state=WantedState.MASTER)
    book.statuses["chk"] = 1
    book.start()
    assert (state(book), priority(book)) == ("MASTER", 255)


def test_a_script_that_hangs_is_ended_and_counts_as_failed() -> None:
    book = to_master(playbook(scripts=(item("chk", -30),)))
    book.statuses["chk"] = HANGS
    book.run_for(3 * SECOND)
    assert "end chk TERMINATE" in book.lines()
    assert priority(book) == 70


def test_a_reload_keeps_results_and_new_scripts_are_not_waited_for() -> None:
    book = to_master(playbook(scripts=(item("chk"),)))
    other = TrackScript("other", ScriptCommand(argv=("/bin/other",)))
    book.scripts = (SCRIPT, other)
    book.statuses["other"] = HANGS
    book.reload(instance(tracking=Tracking(scripts=(item("chk"), item("other")))))
    assert state(book) == "MASTER"
    book.end_run("other", 1)
    assert state(book) == "FAULT"
    book.scripts = (SCRIPT,)
    book.reload(instance(tracking=Tracking(scripts=(item("chk"),))))
    assert state(book) == "BACKUP"
    assert "script other" not in book.objects


def test_a_script_that_goes_is_ended() -> None:
    book = to_master(playbook(scripts=(item("chk", 10),)))
    book.statuses["chk"] = HANGS
    book.run_for(SECOND)
    book.lines()
    book.scripts = ()
    book.reload(instance())
    assert "end chk TERMINATE" in book.lines()
    assert priority(book) == 100
    book.run_for(10 * SECOND)
    assert not [line for line in book.lines() if line.startswith("run")]


def test_stopping_ends_scripts_and_forgets_their_results() -> None:
    book = to_master(playbook(scripts=(item("chk", 10),)))
    assert "script chk" in book.objects
    book.statuses["chk"] = HANGS
    book.run_for(SECOND)
    book.tell(StopRequested())
    assert "end chk TERMINATE" in book.lines()
    assert book.stopped
    assert (book.objects, book.journal) == ({}, {})


# Files, processes, BFD, interfaces -------------------------------------------------------------------------


def test_a_file_weighs_what_it_holds_and_can_be_a_fault() -> None:
    book = playbook(files=(item("file", 2),))
    book.contents["/run/value"] = -5
    book.start()
    assert priority(book) == 90
    book.run_for(5 * SECOND)
    book.write_file("/run/value", 40)
    assert priority(book) == 180
    book.write_file("/run/value", 200)
    assert priority(book) == 254
    book.write_file("/run/value", -127)
    assert (state(book), priority(book)) == ("FAULT", 100)
    book.write_file("/run/value", 0)
    assert (state(book), priority(book)) == ("BACKUP", 100)


def test_an_unweighted_file_is_a_fault_unless_0() -> None:
    book = playbook(files=(item("file"),)).start()
    assert state(book) == "BACKUP"
    book.write_file("/run/value", 1)
    assert book.engine.report().instances[0].fault == "file file holds 1"
    book.write_file("/run/value", 0)
    assert state(book) == "BACKUP"


def test_processes_are_waited_for_and_debounced() -> None:
    book = playbook(processes=(item("proc"),))
    book.counts["haproxy"] = 1
    book.start()
    assert state(book) == "BACKUP"
    book.count("haproxy", 0, Cause.TERMINATED)
    book.run_for(SECOND - 1)
    assert state(book) == "BACKUP"
    book.run_for(1)
    assert state(book) == "FAULT"
    book.count("haproxy", 1, Cause.FORKED)
    assert state(book) == "BACKUP"


@pytest.mark.parametrize(("weight", "expected"), [(0, 100), (50, 150)])
def test_a_count_told_before_the_configuration_counts(weight: int, expected: int) -> None:
    """Processes are counted while interfaces of the instances' own are still being made."""
    book = playbook(processes=(item("proc", weight),))
    book.counts["haproxy"] = 1
    book.counts_first = True
    book.start()
    assert (state(book), priority(book)) == ("BACKUP", expected)
    assert "log Quorum gained for tracked process proc" in book.lines(everything=True)


def test_a_reload_that_follows_a_process_knows_its_count() -> None:
    book = to_master(playbook())
    book.counts["haproxy"] = 1
    book.counts_first = True
    book.reload(instance(tracking=Tracking(processes=(item("proc", 50),))))
    assert (state(book), priority(book)) == ("MASTER", 150)
    book.counts_known = True
    book.processes = ()
    book.reload(instance())
    book.processes = (PROCESS,)
    book.reload(instance(tracking=Tracking(processes=(item("proc", 50),))))
    assert (state(book), priority(book)) == ("MASTER", 100), "an old count is not believed"


def test_a_process_with_another_name_for_it_keeps_its_count() -> None:
    book = to_master(playbook(processes=(item("proc", 50),)))
    book.count("haproxy", 1, Cause.FORKED)
    book.processes = (replace(PROCESS, name="other"),)
    book.counts_first = book.counts_known = True
    book.reload(instance(tracking=Tracking(processes=(item("other", 50),))))
    assert (state(book), priority(book)) == ("MASTER", 150)


def test_a_bfd_session_is_down_until_told_otherwise() -> None:
    book = playbook(bfds=(item("peer"),)).start()
    assert state(book) == "FAULT"
    book.bfd("peer", True)
    assert state(book) == "BACKUP"
    book.bfd("unknown", True)
    book.bfd("peer", False)
    assert book.engine.report().instances[0].fault == "BFD session peer is down"


def test_a_reload_that_follows_a_session_waits_for_word_of_it() -> None:
    book = to_master(playbook())
    book.reload(instance(tracking=Tracking(bfds=(item("peer"), item("other", -20)))))
    assert (state(book), priority(book)) == ("MASTER", 100), "keepalived: FAULT until told"
    book.bfd("other", False)
    assert (state(book), priority(book)) == ("MASTER", 80)
    book.bfd("peer", False)
    assert state(book) == "FAULT"
    book.reload(instance(tracking=Tracking(bfds=(item("other", -20),))))
    assert state(book) == "BACKUP"
    assert "bfd peer" not in book.objects


def test_a_new_instance_takes_no_part_before_word_of_its_session() -> None:
    book = to_master(playbook())
    second = instance("VI_2", virtual_router_id=52, tracking=Tracking(bfds=(item("peer"),)))
    book.reload(instance(), second)
    book.run_for(60 * SECOND)
    assert book.state("VI_2") == "INIT"
    book.bfd("peer", True)
    assert book.state("VI_2") == "BACKUP"


def test_interfaces_by_weight_and_as_fault() -> None:
    uplink = link("eth1", "10.1.0.1", index=3)
    book = playbook(link(), uplink, interfaces=(item("eth1", -50),)).start()
    assert priority(book) == 100
    book.set_link(link("eth1", "10.1.0.1", index=3, up=False))
    assert (state(book), priority(book)) == ("BACKUP", 50)
    strict = playbook(link(), uplink, interfaces=(item("eth1"),)).start()
    strict.set_link(link("eth1", "10.1.0.1", index=3, up=False))
    assert strict.engine.report().instances[0].fault == "interface eth1 is down"
    strict.set_link(uplink)
    assert state(strict) == "BACKUP"


def test_weights_add_up_within_bounds() -> None:
    book = playbook(scripts=(item("chk", -60),), files=(item("file", 1),), bfds=(item("peer", -200),))
    book.statuses["chk"] = 1
    book.contents["/run/value"] = 10
    book.start()
    assert priority(book) == 1
    book.bfd("peer", True)
    assert priority(book) == 50


def test_what_is_followed_twice_weighs_as_the_group_says() -> None:
    own = Tracking(scripts=(item("a", 5), item("b", 0)))
    group = Tracking(scripts=(item("a", 7), item("b", 9), item("c", 1)))
    assert merged(own, group).scripts == (item("a", 7), item("b", 0), item("c", 1))
    assert merged(own, Tracking()) is own


def test_an_interface_that_cannot_be_done_without_has_no_weight() -> None:
    """keepalived 2.2.7: 153, where one of the two carries an excluded address."""
    book = playbook(
        link("eth0", "192.0.2.1"),
        link("eth1", "198.51.100.1", index=3),
        link("eth2", "203.0.113.1", index=4),
        priority=150,
        interfaces=(item("eth1", 3), item("eth2", 3)),
        excluded_addresses=(VirtualAddress("198.51.100.100", 24, interface="eth1"),),
    )
    book.start()
    assert priority(book) == 153
    book.set_link(link("eth1", "198.51.100.1", index=3, up=False))
    assert state(book) == "FAULT"


def test_an_interface_of_an_address_that_is_not_tracked_weighs() -> None:
    book = playbook(
        link("eth0", "192.0.2.1"),
        link("eth1", "198.51.100.1", index=3),
        priority=150,
        interfaces=(item("eth1", 3),),
        excluded_addresses=(VirtualAddress("198.51.100.100", 24, interface="eth1", no_track=True),),
    )
    book.start()
    assert priority(book) == 153


# A later life ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["scripts", "bfds", "files", "processes", "interfaces"])
def test_after_a_crash_the_first_advert_is_reduced(what: str) -> None:
    names = {"scripts": "chk", "bfds": "peer", "files": "file", "processes": "proc", "interfaces": "eth1"}
    weight = 1 if what == "files" else -30
    uplink = link("eth1", "10.1.0.1", index=3, up=False)
    book = playbook(link(), uplink, **{what: (item(names[what], weight),)})
    book.statuses["chk"] = 1
    book.contents["/run/value"] = -30
    to_master(book)
    assert priority(book) == 70
    # The next life's script has not answered, and nobody has counted or told, when the first advert leaves.
    book.statuses["chk"] = HANGS
    for _ in range(3):
        book.run_for(SECOND // 10)
        book.lines()
        book.boot()
        assert state(book) == "MASTER"
        told = advertised(book)
        assert told and set(told) == {70}


def test_after_a_crash_in_fault_there_is_no_advert() -> None:
    book = to_master(playbook(scripts=(item("chk"),)))
    book.statuses["chk"] = 1
    book.run_for(2 * SECOND)
    assert state(book) == "FAULT"
    book.statuses["chk"] = HANGS
    book.lines()
    book.boot()
    book.run_for(60 * SECOND)
    assert state(book) == "FAULT"
    assert advertised(book) == []


def test_a_result_about_another_command_does_not_count() -> None:
    book = playbook(scripts=(item("chk"),))
    book.statuses["chk"] = 1
    book.start()
    book.scripts = (TrackScript("chk", ScriptCommand(argv=("/bin/another",))),)
    book.statuses["chk"] = HANGS
    book.boot()
    book.end_run("chk", 0)
    assert state(book) == "BACKUP"
    book.objects["script chk"] = b"damaged"
    book.boot()
    assert state(book) == "BACKUP"


@pytest.mark.parametrize("dead_us", [SECOND, 4 * SECOND])
def test_a_master_that_has_to_leave_right_after_a_restart_says_farewell(dead_us: int) -> None:
    """As soon as its sockets are open, unless it has been silent for so long that all have noticed."""
    book = playbook(files=(item("file"),)).start_as_master()
    book.contents[FILE.path] = -254
    book.now_us += dead_us
    book.lines()
    book.boot()
    assert book.state() == "FAULT"
    assert ("advert 0 to 224.0.0.18" in book.lines()) is (dead_us == SECOND)
