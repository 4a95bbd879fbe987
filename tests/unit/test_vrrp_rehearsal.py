"""The rehearsal goes through what it is for, and leaves nothing behind."""

from kad_vrrp.core.actions import State
from kad_vrrp.core.rehearsal import ACTS, LossRehearsal, _Stage, rehearse


def test_a_round_takes_over_and_advertises() -> None:
    stage = _Stage({})
    stage.start()
    assert {each.state for each in stage.engine.report().instances} == {State.BACKUP}
    for _ in range(6):
        stage.wait()
    assert {each.state for each in stage.engine.report().instances} == {State.MASTER}
    assert len(stage.adverts) >= 4
    before = len(stage.records)
    stage.hear_a_better_master()
    assert len(stage.records) == before == 2


def test_a_restart_goes_on_as_master() -> None:
    stage = _Stage({})
    stage.start()
    for _ in range(6):
        stage.wait()
    reborn = _Stage(stage.records)
    reborn.start()
    assert {each.state for each in reborn.engine.report().instances} == {State.MASTER}
    assert reborn.adverts


def test_a_lost_session_takes_masters_into_fault() -> None:
    loss = LossRehearsal()
    for _ in range(2):
        assert not loss.is_ready
        for _ in range(ACTS + 1):
            loss.renew()
        assert loss.is_ready
        for stage, _ in loss._scenes[::-1]:
            assert {each.state for each in stage.engine.report().instances} == {State.MASTER}
            loss.play()
            assert {each.state for each in stage.engine.report().instances} == {State.FAULT}


def test_it_can_be_repeated() -> None:
    rehearse(2)
