"""The content of a reload_time_file: when to reload. Pure.

``HH:MM:SS`` is the next time it is that late, ``YY-MM-DD HH:MM:SS`` or with four digits for the year one
moment; a Z at the end makes it UTC instead of local time.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from msgspec import Struct

_FORMAT = re.compile(r"(?:(?:(\d\d)|(\d{4}))-(\d\d)-(\d\d) )?(\d\d):(\d\d):(\d\d)(Z?)")
CENTURY = 69
"""Two digits from here on are of the last century, as strptime has it."""


class ReloadTime(Struct, frozen=True):
    """``at``: seconds since the epoch. ``has_date``: it comes once."""

    at: float
    has_date: bool


def parse(text: str, now: float) -> ReloadTime | str:
    """When, or what is wrong with it. ``now``: seconds since the epoch."""
    found = _FORMAT.fullmatch(text)
    if found is None:
        return "it is neither HH:MM:SS nor YY-MM-DD HH:MM:SS nor YYYY-MM-DD HH:MM:SS"
    short, long, month, day, hour, minute, second, is_utc = found.groups()
    present = datetime.fromtimestamp(now, UTC if is_utc else None)
    try:
        moment = present.replace(hour=int(hour), minute=int(minute), second=int(second), microsecond=0)
        if month is not None:
            year = int(long) if long else int(short) + (1900 if int(short) >= CENTURY else 2000)
            moment = moment.replace(year=year, month=int(month), day=int(day))
    except ValueError:
        return "there is no such time"
    if moment.timestamp() <= now:
        if month is not None:
            return "it is in the past"
        moment += timedelta(days=1)
    return ReloadTime(moment.timestamp(), month is not None)
