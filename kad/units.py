"""Units of time. Inside kad every duration and instant is an integer count of microseconds."""

US_PER_MS = 1_000
US_PER_SECOND = 1_000_000
US_PER_CENTISECOND = 10_000
