"""A minute of what ``make soak`` does for an hour. SOAK_SEED chooses another sequence."""

import os

import pytest

from tests.soak import run, summary
from tests.support.namespaces import needs_namespaces

SECONDS = 60

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.pairs]


def test_a_minute_of_everything() -> None:
    needs_namespaces()
    seed = int(os.environ.get("SOAK_SEED", "1"))
    outcome = run(seed, SECONDS)
    told = f"seed {seed}\n{summary(outcome)}"
    assert not outcome.failures, f"{told}\n{outcome.failures}"
    assert outcome.rounds >= 5 and len(outcome.disturbances) >= 5, told
    assert outcome.calm_s > 5, told
