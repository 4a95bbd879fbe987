"""Orderly stop and withdrawal."""

import pytest

from kad.config.model.vrrp import VirtualAddress
from kad_vrrp.core.context import EngineSettings
from kad_vrrp.core.events import StopRequested
from kad_vrrp.core.instance import Instance
from tests.support.vrrp_host import SECOND, instance
from tests.support.vrrp_playbook import Playbook

GROUP = "224.0.0.18"


def test_a_master_says_farewell_gives_the_addresses_back_and_tells_the_script() -> None:
    book = Playbook(instance()).start_as_master()
    book.tell(StopRequested())
    assert book.lines() == [
        "MASTER -> INIT",
        f"advert 0 to {GROUP}",
        "remove 10.0.0.100 10.0.0.101",
        "notify STOP 100",
        "forget VI_1",
        "stopped",
    ]
    assert book.addresses == []
    assert book.journal == {}


def test_a_backup_only_tells_the_script() -> None:
    book = Playbook(instance()).start()
    book.lines()
    book.tell(StopRequested())
    assert book.lines() == ["BACKUP -> INIT", "notify STOP 100", "forget VI_1", "stopped"]


def test_every_farewell_leaves_before_the_first_address() -> None:
    many = [
        instance(f"VI_{n}", virtual_router_id=n, virtual_addresses=(VirtualAddress(f"10.0.1.{n}", 24),))
        for n in range(1, 6)
    ]
    book = Playbook(*many).start()
    book.run_for(4 * SECOND)
    book.lines()
    book.tell(StopRequested())
    lines = book.lines()
    farewells = [number for number, line in enumerate(lines) if line == f"advert 0 to {GROUP}"]
    removals = [number for number, line in enumerate(lines) if line.startswith("remove")]
    assert len(farewells) == len(removals) == 5
    assert max(farewells) < min(removals)
    assert lines.count("stopped") == 1


def test_each_instance_is_looked_at_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 200
    many = [
        instance(f"VI_{n}", virtual_router_id=n, virtual_addresses=(VirtualAddress(f"10.0.1.{n}", 24),))
        for n in range(1, count + 1)
    ]
    book = Playbook(*many).start()
    book.run_for(4 * SECOND)
    looks = 0
    was_finished = vars(Instance)["finished"].fget

    def finished(self: Instance) -> bool:
        nonlocal looks
        looks += 1
        return bool(was_finished(self))

    monkeypatch.setattr(Instance, "finished", property(finished))
    book.tell(StopRequested())
    assert book.stopped
    # Once per answer of the kernel and of the script, and once to let go.
    assert looks <= 4 * count


def test_a_kernel_that_does_not_answer_cannot_hold_the_process() -> None:
    book = Playbook(instance()).start_as_master()
    book.hold_answers = True
    book.tell(StopRequested())
    assert not book.stopped
    book.run_for(2 * SECOND)
    assert book.stopped


def test_a_script_that_does_not_end_cannot_hold_the_process() -> None:
    book = Playbook(instance()).start_as_master()
    book.hold_answers = True
    book.tell(StopRequested())
    plan_done = book.answers.popleft()
    book.tell(plan_done)
    assert book.started[-1][2] == "STOP"
    book.run_for(999_999)
    assert not book.stopped
    book.run_for(1)
    assert book.stopped


def test_stopping_twice_and_packets_meanwhile_change_nothing() -> None:
    book = Playbook(instance()).start_as_master()
    book.hold_answers = True
    book.tell(StopRequested())
    book.lines()
    book.tell(StopRequested())
    book.hear(50)
    book.hear(150)
    assert book.lines() == []


def test_keep_vips_at_stop_leaves_them() -> None:
    book = Playbook(instance()).start(EngineSettings(keep_vips_at_stop=True))
    book.run_for(4 * SECOND)
    book.tell(StopRequested())
    assert book.stopped
    assert book.addresses == ["10.0.0.100", "10.0.0.101"]


def test_without_instances_stopping_is_immediate() -> None:
    book = Playbook().start()
    book.tell(StopRequested())
    assert book.stopped


# Withdrawal ----------------------------------------------------------------------------------------------

WITHDRAW = EngineSettings(withdraw=True)


def test_withdrawal_says_farewell_and_takes_back_what_the_record_says() -> None:
    book = Playbook(instance()).start_as_master()
    book.run_for(SECOND)
    book.lines()
    book.start(WITHDRAW)
    assert book.lines() == [
        "MASTER -> BACKUP",
        f"advert 0 to {GROUP}",
        "remove 10.0.0.100 10.0.0.101",
        "stopped",
    ]
    assert book.addresses == []


def test_the_life_after_a_withdrawal_is_backup_and_tells_the_scripts() -> None:
    book = Playbook(instance()).start_as_master()
    book.start(WITHDRAW)
    book.lines()
    book.start()
    assert book.lines() == ["remove 10.0.0.100 10.0.0.101", "notify BACKUP 100"]
    assert book.state() == "BACKUP"


def test_withdrawal_long_after_the_last_advert_says_no_farewell() -> None:
    book = Playbook(instance()).start_as_master()
    book.now_us += 5 * SECOND
    book.start(WITHDRAW)
    assert book.lines() == ["MASTER -> BACKUP", "remove 10.0.0.100 10.0.0.101", "stopped"]


def test_withdrawal_without_sockets_does_not_wait_for_long() -> None:
    book = Playbook(instance()).start_as_master()
    book.hold_answers = True
    book.start(WITHDRAW)
    book.answers.clear()
    book.hold_answers = False
    book.run_for(200_000)
    assert book.stopped
    assert book.addresses == []


def test_withdrawal_of_what_nobody_remembers_touches_nothing() -> None:
    book = Playbook(instance())
    book.kernel.add(("eth0", "10.0.0.100", 24))
    book.start(WITHDRAW)
    assert book.lines() == ["stopped"]
    assert book.addresses == ["10.0.0.100"]


def test_a_withdrawing_child_takes_nothing_over_while_the_kernel_owes_it_an_answer() -> None:
    fast = {"advert_int_us": SECOND // 10}
    other = instance(
        "VI_2", virtual_router_id=52, virtual_addresses=(VirtualAddress("10.0.0.200", 24),), **fast
    )
    book = Playbook(instance(**fast), other).start_as_master()
    book.run_for(SECOND)
    book.hold_answers = True
    book.start(WITHDRAW)
    book.run_for(SECOND // 2)
    owed = book.answers.pop()
    book.hold_answers = False
    book.answer()
    book.run_for(SECOND)
    assert not book.stopped
    assert book.state() == book.state("VI_2") == "BACKUP"
    book.tell(owed)
    assert book.stopped
    assert book.addresses == []
