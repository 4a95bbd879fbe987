"""What a trial of a configuration comes to."""

from __future__ import annotations

from kad.ipc.trial import Trial


def verdict_of(found: str | Trial) -> str:
    """Played to its end; one that was not begun stands as it is."""
    if isinstance(found, str):
        return found
    while True:
        try:
            next(found)
        except StopIteration as end:
            return str(end.value)
