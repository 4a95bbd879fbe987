"""The report of many instances: in pieces, so that nothing waits for it, and yet of one set of them."""

from __future__ import annotations

import msgspec

from kad.config.model.vrrp import VirtualAddress
from kad.ipc.reports import InstanceReport, ProcessReport, VrrpReport
from kad_vrrp.io.reporting import PIECE, Reporting
from tests.support.vrrp_host import SECOND, Host, instance

COUNT = 2 * PIECE + 7


def host() -> Host:
    made = Host(
        *(
            instance(
                f"VI_{number}",
                virtual_router_id=number + 1,
                virtual_addresses=(VirtualAddress(f"10.1.{number}.1", 24),),
            )
            for number in range(COUNT)
        )
    )
    made.boot()
    made.run_for(5 * SECOND)
    return made


def ask(made: Host, *, clear: bool = False) -> tuple[Reporting, list[bytes]]:
    def as_it_is(report: InstanceReport) -> InstanceReport:
        return report

    reporting = Reporting(made.engine, as_it_is, ProcessReport)
    answers: list[bytes] = []
    reporting.ask(clear, answers.append)
    return reporting, answers


def told(answers: list[bytes]) -> VrrpReport:
    (answer,) = answers
    return msgspec.msgpack.decode(answer, type=VrrpReport)


def test_a_turn_has_a_piece_and_the_whole_is_as_if_made_at_once() -> None:
    made = host()
    reporting, answers = ask(made)
    turns = 1
    while reporting.next_turn():
        assert not answers
        turns += 1
    assert turns == 3
    assert told(answers).instances == made.engine.report().instances
    assert len(told(answers).instances) == COUNT
    assert not reporting.next_turn() and len(answers) == 1


def test_a_reload_in_between_begins_it_again() -> None:
    made = host()
    reporting, answers = ask(made)
    assert reporting.next_turn()
    made.configs = made.configs[: PIECE + 1]
    made.generation += 1
    made.tell_configuration()
    while reporting.next_turn():
        pass
    assert [each.name for each in told(answers).instances] == [each.name for each in made.configs]


def test_counters_begin_anew_once_they_are_told() -> None:
    made = host()
    reporting, answers = ask(made, clear=True)
    while reporting.next_turn():
        pass
    assert all(each.counters["become_master"] == 1 for each in told(answers).instances)
    assert all(each.counters["become_master"] == 0 for each in made.engine.report().instances)


def test_who_asks_while_another_is_answered_is_answered_next() -> None:
    made = host()
    reporting, answers = ask(made)
    reporting.ask(False, answers.append)
    while reporting.next_turn():
        pass
    assert len(answers) == 2 and answers[0] == answers[1]
