"""Sync groups: members move together, in which order, and through crashes at any point."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest

from kad.config.model.script import ScriptCommand
from kad.config.model.track import TrackScript
from kad.config.model.vrrp import SyncGroup, TrackedItem, Tracking, VirtualAddress, VrrpInstance, WantedState
from kad_vrrp.core.events import AddressDeleted, StopRequested
from tests.support.vrrp_host import HANGS, NOTIFY, SECOND, Killed, instance, link
from tests.support.vrrp_playbook import Playbook

NAMES = ("A", "B", "C")


def member(number: int, **fields: Any) -> VrrpInstance:
    name = NAMES[number]
    fields.setdefault("virtual_addresses", (VirtualAddress(f"10.{number}.0.100", 24),))
    return instance(name, interface=f"eth{number}", virtual_router_id=51 + number, **fields)


def plug(number: int, *, up: bool = True) -> Any:
    return link(f"eth{number}", f"10.{number}.0.1", index=2 + number, up=up)


class Book(Playbook):
    def __init__(self, *configs: VrrpInstance, **group: Any) -> None:
        super().__init__(*configs, links=[plug(number) for number in range(len(NAMES))])
        self.sync_groups = (SyncGroup("G", tuple(config.name for config in configs), notify=NOTIFY, **group),)

    def hear(self, priority: int, source: str = "", config: Any = None, transport: int = 1) -> None:
        """``transport``: the number of the member, from 1."""
        super().hear(priority, f"10.{transport - 1}.0.2", config or self.configs[transport - 1], transport)

    def states(self) -> str:
        return " ".join(self.state(config.name) for config in self.configs)

    def moves(self) -> list[str]:
        """Who moved where, and what was told, in order."""
        told = []
        for action in self.actions:
            kind = type(action).__name__
            if kind == "StateChanged":
                told.append(f"{action.instance} {action.new.value}")  # type: ignore[union-attr]
            elif kind == "GroupChanged":
                told.append(f"{action.group} {action.new.value}")  # type: ignore[union-attr]
            elif kind == "Notify":
                told.append(f"tell {action.instance} {action.state}")  # type: ignore[union-attr]
            elif kind == "SendAdvert" and self.priority_of(action) == 0:
                told.append(f"farewell {action.instance}")  # type: ignore[union-attr]
        self.actions.clear()
        return told

    def priority_of(self, action: Any) -> int:
        return int(action.data[22])


def two(**fields: Any) -> Book:
    book = Book(member(0, priority=150, **fields), member(1, priority=100, **fields))
    book.start()
    return book


def masters() -> Book:
    book = two()
    book.run_for(5 * SECOND)
    assert book.states() == "MASTER MASTER"
    book.moves()
    return book


def test_at_start_the_group_is_told_after_its_members() -> None:
    book = two()
    assert book.moves() == [
        "A BACKUP",
        "B BACKUP",
        "G BACKUP",
        "tell A BACKUP",
        "tell B BACKUP",
        "tell G BACKUP",
    ]


def test_none_is_master_before_all_would_be() -> None:
    book = two()
    book.moves()
    book.run_for(3 * SECOND + 106 * SECOND // 256 + 1000)
    assert book.states() == "BACKUP BACKUP"
    book.run_for(SECOND)
    assert book.states() == "MASTER MASTER"
    moves = book.moves()
    assert moves[:3] == ["B MASTER", "A MASTER", "G MASTER"]
    assert moves[-1] == "tell G MASTER"


def test_a_member_that_hears_its_master_holds_back_all() -> None:
    book = two()
    for _ in range(30):
        book.run_for(SECOND)
        book.hear(200, transport=2)
    assert book.states() == "BACKUP BACKUP"
    book.run_for(5 * SECOND)
    assert book.states() == "MASTER MASTER"


def test_one_that_is_no_longer_ready_has_to_be_again() -> None:
    book = two()
    book.run_for(3 * SECOND + 106 * SECOND // 256 + 1000)
    # A would be MASTER; then it hears a better router.
    book.hear(200, transport=1)
    book.run_for(SECOND)
    assert book.states() == "BACKUP BACKUP"
    book.run_for(4 * SECOND)
    assert book.states() == "MASTER MASTER"


def test_a_fault_of_one_is_a_fault_of_all_with_farewells() -> None:
    book = masters()
    book.set_link(plug(1, up=False))
    assert [move for move in book.moves() if not move.startswith("tell")] == [
        "B FAULT",
        "farewell B",
        "A FAULT",
        "farewell A",
        "G FAULT",
    ]
    assert book.kernel == set()
    reports = {each.name: each.fault for each in book.engine.report().instances}
    assert reports == {"A": "B in its sync group: interface eth1 is down", "B": "interface eth1 is down"}
    book.set_link(plug(1))
    moves = [move for move in book.moves() if not move.startswith("tell")]
    assert moves == ["B BACKUP", "A BACKUP", "G BACKUP"]


def test_all_stay_in_fault_until_every_one_can() -> None:
    book = masters()
    book.set_link(plug(1, up=False))
    book.set_link(plug(0, up=False))
    book.set_link(plug(1))
    assert book.states() == "FAULT FAULT"
    book.set_link(plug(0))
    assert book.states() == "BACKUP BACKUP"


def test_one_that_yields_takes_the_others_without_farewell() -> None:
    book = masters()
    book.hear(200, transport=1)
    assert book.moves()[:3] == ["A BACKUP", "B BACKUP", "G BACKUP"]
    assert book.kernel == set()
    # Nothing more is heard: the whole group comes back.
    book.run_for(5 * SECOND)
    assert book.states() == "MASTER MASTER"


def test_a_deletion_makes_all_say_farewell_and_stand_again_after_their_skew_times() -> None:
    book = masters()
    book.kernel.discard(("eth0", "10.0.0.100", 24))
    book.tell(AddressDeleted("eth0", "10.0.0.100", 24))
    book.run_for(1000)
    assert [move for move in book.moves() if not move.startswith("tell")] == [
        "A BACKUP",
        "farewell A",
        "B BACKUP",
        "farewell B",
        "G BACKUP",
    ]
    assert book.kernel == set()
    # The longer of the two: B's.
    book.run_for(156 * SECOND // 256 - 2000)
    assert book.states() == "BACKUP BACKUP"
    book.run_for(2000)
    assert book.states() == "MASTER MASTER"
    assert [move for move in book.moves() if not move.startswith("tell")] == [
        "B MASTER",
        "A MASTER",
        "G MASTER",
    ]


def test_owners_become_master_together_at_once() -> None:
    fields = {"priority": 255, "wanted_state": WantedState.MASTER}
    book = Book(member(0, **fields), member(1, **fields))
    book.start()
    assert book.states() == "MASTER MASTER"
    assert [move for move in book.moves() if not move.startswith("tell")] == [
        "B MASTER",
        "A MASTER",
        "G MASTER",
    ]


def test_an_owner_in_a_group_with_others_waits_like_them() -> None:
    book = Book(member(0, priority=255, wanted_state=WantedState.MASTER), member(1))
    book.start()
    assert book.states() == "BACKUP BACKUP"


def test_what_the_group_follows_every_member_follows() -> None:
    script = TrackScript("chk", ScriptCommand(argv=("/bin/chk",)))
    book = Book(member(0), member(1), tracking=Tracking(scripts=(TrackedItem("chk", 0),)))
    book.scripts = (script,)
    book.statuses["chk"] = HANGS
    book.start()
    book.run_for(0)
    assert book.states() == "INIT INIT"
    book.end_run("chk", 0)
    assert book.states() == "BACKUP BACKUP"
    book.statuses["chk"] = 1
    book.run_for(SECOND)
    assert book.states() == "FAULT FAULT"


def test_one_members_script_holds_back_all() -> None:
    book = Book(member(0, tracking=Tracking(scripts=(TrackedItem("chk", 0),))), member(1))
    book.scripts = (TrackScript("chk", ScriptCommand(argv=("/bin/chk",))),)
    book.statuses["chk"] = HANGS
    book.start()
    book.run_for(0)
    assert book.states() == "INIT INIT"
    book.end_run("chk", 0)
    assert book.states() == "BACKUP BACKUP"


def test_stop_tells_the_group_last() -> None:
    book = masters()
    book.tell(StopRequested())
    told = [move for move in book.moves() if move.startswith("tell")]
    assert told == ["tell A STOP", "tell B STOP", "tell G STOP"]
    assert book.stopped
    assert (book.journal, book.objects) == ({}, {})


def test_a_member_that_a_reload_brings_in_joins() -> None:
    book = masters()
    book.sync_groups = (SyncGroup("G", ("A", "B", "C"), notify=NOTIFY),)
    book.reload(*book.configs, member(2))
    assert book.states() == "MASTER MASTER BACKUP"
    book.run_for(5 * SECOND)
    assert book.states() == "MASTER MASTER MASTER"


def test_a_group_that_a_reload_makes_of_divided_ones_becomes_one() -> None:
    book = Book(member(0), member(1))
    groups, book.sync_groups = book.sync_groups, ()
    book.start()
    for _ in range(6):
        book.run_for(SECOND)
        book.hear(200, transport=2)
    assert book.states() == "MASTER BACKUP"
    book.sync_groups = groups
    book.reload(*book.configs)
    assert book.states() == "MASTER BACKUP"
    book.moves()
    book.hear(200, transport=2)
    assert book.states() == "BACKUP BACKUP"
    assert "farewell A" in book.moves()


def test_a_group_that_goes_frees_its_members() -> None:
    book = masters()
    book.sync_groups = ()
    book.reload(*book.configs)
    assert book.objects == {}
    book.set_link(plug(1, up=False))
    assert book.states() == "MASTER FAULT"


def test_equal_links_failing_together_move_each_once() -> None:
    book = Book(*(member(number) for number in range(3)))
    book.start()
    book.run_for(5 * SECOND)
    book.moves()
    for number in range(3):
        book.set_link(plug(number, up=False))
    assert [move for move in book.moves() if move.endswith(" FAULT") and not move.startswith("tell")] == [
        "A FAULT",
        "B FAULT",
        "C FAULT",
        "G FAULT",
    ]


def deaths(event: Any, steps: int) -> None:
    """Killed before its so-maniest action after an event, and back: the group is one, and was told of it."""
    for number in range(steps):
        book = masters()
        book.kill_after = number
        try:
            event(book)
        except Killed:
            book.boot()
        book.kill_after = None
        book.run_for(6 * SECOND)
        assert len(set(book.states().split())) == 1, number
        told = [state for name, _, state in book.started if name == "G"]
        assert told[-1] == book.states().split()[0], number


def fall(book: Book) -> None:
    book.links = [plug(0), plug(1, up=False), plug(2)]
    book.tell(plug(1, up=False))


@pytest.mark.parametrize("what", [fall, lambda book: book.hear(200, transport=1)])
def test_death_at_every_boundary_leaves_a_whole_group(what: Any) -> None:
    deaths(what, 40)


def test_death_while_becoming_master() -> None:
    for number in range(30):
        book = two()
        book.run_for(3 * SECOND + 156 * SECOND // 256 - 1000)
        book.kill_after = number
        try:
            book.run_for(2000)
        except Killed:
            book.boot()
            # Who has spoken has been believed: the rest of the group follows without another wait.
            spoke = book.states()
            book.run_for(1000)
            if "MASTER" in spoke:
                assert book.states() == "MASTER MASTER", number
        book.kill_after = None
        book.run_for(6 * SECOND)
        assert book.states() == "MASTER MASTER", number


def test_a_crash_in_fault_stays_in_fault() -> None:
    book = masters()
    fall(book)
    book.moves()
    book.boot()
    book.run_for(30 * SECOND)
    assert book.states() == "FAULT FAULT"
    assert book.moves() == []


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_members_are_together_when_it_is_over(seed: int) -> None:
    choose = random.Random(seed)
    configs = [member(number, priority=choose.choice([90, 100, 150])) for number in range(3)]
    book = Book(*configs)
    book.start()
    for _ in range(60):
        number = choose.randrange(3)
        match choose.randrange(4):
            case 0:
                book.set_link(plug(number, up=choose.random() < 0.6))
            case 1:
                book.hear(choose.choice([0, 80, 120, 200]), transport=number + 1)
            case 2:
                book.boot()
            case _:
                book.run_for(choose.randrange(4 * SECOND))
        states = set(book.states().split())
        # MASTER only together; a fault is everybody's.
        if "MASTER" in states or "FAULT" in states:
            assert len(states) == 1, (seed, book.states())
    for number in range(3):
        book.set_link(plug(number))
    book.run_for(10 * SECOND)
    assert book.states() == "MASTER MASTER MASTER"
    assert book.engine.report().instances[0].owed_notifications == 0


@pytest.mark.parametrize("killed_at", [None, 0, 1])
def test_a_group_that_a_reload_removes_has_told_everything(killed_at: int | None) -> None:
    """Its notifications wait for its members', which wait for the kernel."""
    book = Book(member(0), member(1))
    book.boot()
    book.hold_answers = True
    book.run_for(5 * SECOND)
    assert book.states() == "MASTER MASTER"
    assert ("G", "MASTER") not in told(book)
    book.sync_groups, book.previous_sync_groups = (), book.sync_groups
    book.kill_after = killed_at
    with contextlib.suppress(Killed):
        book.reload(*book.configs)
    book.hold_answers = False
    if killed_at is not None:
        book.boot()
    book.answer()
    assert ("G", "MASTER") in told(book)
    assert not [key for key in book.objects if key.startswith("group")]


def a_group_removed_while_its_script_runs() -> Book:
    book = Book(member(0), member(1))
    book.boot()
    book.hold_answers = True
    book.run_for(5 * SECOND)
    book.sync_groups, book.previous_sync_groups = (), book.sync_groups
    book.reload(*book.configs)
    assert ("G", "MASTER") in told(book)
    assert not book.engine.settled
    return book


def test_what_a_removed_group_said_is_said_again_after_a_kill() -> None:
    """Asked for is not carried out: the process may die before its script has begun."""
    book = a_group_removed_while_its_script_runs()
    book.hold_answers = False
    book.boot()
    book.answer()
    assert told(book).count(("G", "MASTER")) == 2
    assert book.engine.settled
    assert not [key for key in book.objects if key.startswith("group")]


def test_a_group_that_comes_back_still_owes_what_it_owed() -> None:
    book = a_group_removed_while_its_script_runs()
    book.sync_groups, book.previous_sync_groups = book.previous_sync_groups, ()
    book.reload(*book.configs)
    book.hold_answers = False
    book.boot()
    book.answer()
    assert told(book).count(("G", "MASTER")) >= 2
    assert book.engine.settled
    assert [key for key in book.objects if key.startswith("group")] == ["group G"]


def told(book: Book) -> list[tuple[str, str]]:
    return [(name, state) for name, _, state in book.started]
