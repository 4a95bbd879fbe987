"""Protocol timers in integer microseconds, rounded exactly as keepalived rounds. Pure."""

from msgspec import Struct

from kad.units import US_PER_CENTISECOND, US_PER_SECOND

VERSION_2 = 2
VERSION_3 = 3


def skew_time_us(version: int, priority: int, master_adver_us: int) -> int:
    """How long a backup of this effective priority (0-255) waits beyond the missed adverts.

    Version 3 scales with the advertisement interval of the master (RFC 9568 §6.1), version 2 with one second
    (RFC 3768 §6.1). keepalived counts the interval in whole centiseconds first.
    """
    if version == VERSION_3:
        return (256 - priority) * (master_adver_us // US_PER_CENTISECOND) * 625 // 16
    return (256 - priority) * US_PER_SECOND // 256


def master_down_interval_us(
    version: int, priority: int, master_adver_us: int, down_timer_adverts: int
) -> int:
    """Silence after which the master is taken for dead (RFC 9568 §6.1 with 3 for ``down_timer_adverts``)."""
    return down_timer_adverts * master_adver_us + skew_time_us(version, priority, master_adver_us)


LONGEST_EARLY_US = 10_000
"""No advert leaves earlier than this before its time."""


def early_window_us(advert_int_us: int) -> int:
    """How much before its time an advert may leave when the process is awake anyway."""
    return min(LONGEST_EARLY_US, advert_int_us // 64)


LONGEST_PATIENCE_US = 125_000
"""No packet lies longer than this on purpose."""


def reading_patience_us(advert_int_us: int, skew_us: int) -> int:
    """How long a backup's packets may lie unread where many come, their times of arrival told.

    No deadline is judged before they are read, and all count from their arrival. The soonest that one of them
    can make anything due is the skew time, after a farewell: it is read in half of that.
    """
    return min(LONGEST_PATIENCE_US, advert_int_us // 8, skew_us // 2)


class Intervals(Struct, frozen=True):
    """What follows from version, intervals and priority. Microseconds."""

    skew_us: int
    master_down_us: int
    silence_limit_us: int
    """A gap in own adverts after which another router may have become master unheard: one advert less than
    the master-down interval, since the last one sent may have been lost."""


def intervals(
    version: int, priority: int, advert_int_us: int, master_adver_us: int, down_timer_adverts: int
) -> Intervals:
    """``advert_int_us`` is our own, ``master_adver_us`` the present master's."""
    # Where one advert makes the interval, its own rhythm must not count as a gap.
    missed_adverts = max(down_timer_adverts - 1, 1)
    return Intervals(
        skew_us=skew_time_us(version, priority, master_adver_us),
        master_down_us=master_down_interval_us(version, priority, master_adver_us, down_timer_adverts),
        silence_limit_us=master_down_interval_us(version, priority, advert_int_us, missed_adverts),
    )
