"""Every planted bug is found, under five seeds that nobody has seen before."""

from __future__ import annotations

import random

import pytest

from tests.simulation.planted_bugs import BUGS, planted
from tests.simulation.story import tell

SEEDS = 5
PATIENCE = 25
"""Stories in which a bug must show itself. Most need one."""

pytestmark = pytest.mark.slow


def test_there_are_enough() -> None:
    assert len(BUGS) >= 20


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str) -> None:
    for _ in range(SEEDS):
        seed = random.SystemRandom().randrange(1 << 31)
        print(f"first seed: {seed}")
        with planted(name):
            assert any(_ends_badly(seed + number) for number in range(PATIENCE)), f"not found from {seed} on"


def _ends_badly(seed: int) -> bool:
    """An assertion of the core's own counts too: it ends the process, and somebody looks."""
    try:
        tell(seed)
    except AssertionError:
        return True
    return False
