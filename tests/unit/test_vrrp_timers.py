"""Rounding of timers, pinned to keepalived's."""

import pytest

from kad_vrrp.core.priority import effective_priority
from kad_vrrp.core.timers import (
    early_window_us,
    intervals,
    master_down_interval_us,
    reading_patience_us,
    skew_time_us,
)


@pytest.mark.parametrize(
    ("version", "priority", "interval_us", "skew_us"),
    [
        (2, 100, 1_000_000, 609_375),
        (2, 100, 10_000_000, 609_375),
        (2, 255, 1_000_000, 3_906),
        (2, 1, 1_000_000, 996_093),
        (3, 100, 1_000_000, 609_375),
        (3, 100, 100_000, 60_937),
        (3, 255, 10_000, 39),
        (3, 254, 10_000, 78),
        (3, 1, 40_950_000, 40_790_039),
        (3, 0, 1_000_000, 1_000_000),
    ],
)
def test_skew_time(version: int, priority: int, interval_us: int, skew_us: int) -> None:
    assert skew_time_us(version, priority, interval_us) == skew_us


def test_master_down_interval_counts_the_configured_adverts() -> None:
    assert master_down_interval_us(3, 100, 1_000_000, 3) == 3_609_375
    assert master_down_interval_us(2, 100, 1_000_000, 2) == 2_609_375


def test_intervals_follow_the_master_but_silence_follows_us() -> None:
    derived = intervals(3, 100, 1_000_000, 100_000, 3)
    assert derived.master_down_us == 360_937
    assert derived.skew_us == 60_937
    assert derived.silence_limit_us == 2_609_375


def test_the_rhythm_of_a_single_advert_is_no_gap() -> None:
    assert intervals(2, 255, 1_000_000, 1_000_000, 1).silence_limit_us == 1_003_906


def test_early_window_is_a_64th_but_never_over_10_ms() -> None:
    assert early_window_us(1_000_000) == 10_000
    assert early_window_us(100_000) == 1_562
    assert early_window_us(10_000) == 156


def test_effective_priority_stays_in_range_and_an_owner_stays_owner() -> None:
    assert effective_priority(100, 20) == 120
    assert effective_priority(100, -300) == 1
    assert effective_priority(200, 100) == 254
    assert effective_priority(255, -100) == 255


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("priority", [1, 100, 200, 254, 255])
@pytest.mark.parametrize("interval_us", [10_000, 100_000, 1_000_000, 10_000_000])
def test_no_packet_lies_until_it_makes_something_due(version: int, priority: int, interval_us: int) -> None:
    """The soonest that a packet makes due is the skew time."""
    skew_us = skew_time_us(version, priority, interval_us)
    patience_us = reading_patience_us(interval_us, skew_us)
    assert patience_us <= min(skew_us / 2, interval_us / 8, 125_000)
    if priority <= 100 and version == 3:
        assert patience_us == min(interval_us // 8, 125_000)
