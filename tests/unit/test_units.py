"""Durations as people read them."""

import pytest

from kad.units import in_seconds


@pytest.mark.parametrize(
    ("duration_us", "text"),
    [
        (3_609_375, "3.609375 s"),
        (1_000_000, "1 s"),
        (10_000, "0.01 s"),
        (1, "0.000001 s"),
        (0, "0 s"),
        (100_000_000, "100 s"),
    ],
)
def test_seconds_without_needless_digits(duration_us: int, text: str) -> None:
    assert in_seconds(duration_us) == text
