"""Units of time. Inside kad every duration and instant is an integer count of microseconds."""

US_PER_MS = 1_000
US_PER_SECOND = 1_000_000
US_PER_CENTISECOND = 10_000
NEVER = 1 << 62
"""An instant that does not come, in microseconds."""


def in_seconds(duration_us: int) -> str:
    """For people: 3609375 is "3.609375 s"."""
    return f"{duration_us / US_PER_SECOND:.6f}".rstrip("0").rstrip(".") + " s"
