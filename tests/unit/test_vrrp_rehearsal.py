"""The rehearsal goes through what it is for, and leaves nothing behind."""

import pytest

from kad_vrrp.core import rehearsal
from kad_vrrp.core.actions import State
from kad_vrrp.core.record import Remembered
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


class Played(_Stage):
    """A stage that is remembered."""

    all: list[_Stage] = []

    def __init__(self, remembered: dict[str, Remembered]) -> None:
        super().__init__(remembered)
        self.all.append(self)


def test_it_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Played, "all", [])
    monkeypatch.setattr(rehearsal, "_Stage", Played)
    rehearse(2)
    assert len(Played.all) == 4, "each life has a next one"
    for first, reborn in (Played.all[:2], Played.all[2:]):
        assert {each.state for each in first.engine.report().instances} == {State.BACKUP}
        assert {each.state for each in reborn.engine.report().instances} == {State.INIT}
        assert len(first.adverts) > len(reborn.adverts) >= 2
    assert len({len(each.adverts) for each in Played.all}) == 2, "the second round is the first"
