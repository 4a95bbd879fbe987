"""The rehearsal goes through what it is for."""

from kad_bfd.core.actions import Publish
from kad_bfd.core.rehearsal import ACTS, Rehearsal


def test_a_loss_is_played_each_time() -> None:
    rehearsal = Rehearsal()
    for _ in range(3):
        assert not rehearsal.is_ready
        for _ in range(ACTS + 1):
            rehearsal.renew()
        assert rehearsal.is_ready
        for _ in range(ACTS):
            actions = rehearsal.play()
            assert [action.up for action in actions if isinstance(action, Publish)] == [False]
