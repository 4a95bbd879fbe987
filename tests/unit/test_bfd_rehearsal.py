"""The rehearsal goes through what it is for."""

from kad_bfd.core.actions import Publish
from kad_bfd.core.rehearsal import Rehearsal


def test_a_loss_is_played_each_time() -> None:
    rehearsal = Rehearsal()
    for _ in range(3):
        assert not rehearsal.is_spent
        actions = rehearsal.play()
        assert [action.up for action in actions if isinstance(action, Publish)] == [False]
        assert rehearsal.is_spent
        rehearsal.renew()
