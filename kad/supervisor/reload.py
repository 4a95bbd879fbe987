"""What the supervisor remembers of configurations: generations, and which reload is owed.

The answer to CommitGeneration is the commit. The generation before is kept until every child has applied
the new one, so that a child that died in the middle of its plan knows what to clean.
"""

from __future__ import annotations

from kad.ipc.messages import CommitGeneration, Generation


class Generations:
    """The committed generation and, until all have applied it, the one before."""

    def __init__(self) -> None:
        self.current: Generation | None = None
        self.previous: Generation | None = None

    @property
    def number(self) -> int:
        """0: none was committed yet."""
        return self.current.number if self.current else 0

    def commit(self, message: CommitGeneration, generation: Generation) -> str:
        """Take the generation. Returns why not, or "" for taken."""
        if generation.number != message.number:
            return f"the message says generation {message.number}, its memory {generation.number}"
        if generation.number <= self.number:
            return f"generation {generation.number} is not newer than {self.number}"
        if self.previous is None:
            # A second commit before all applied the first: children may still hold what the oldest one gave.
            self.previous = self.current
        self.current = generation
        return ""

    def all_applied(self, number: int) -> bool:
        """Every child runs ``number``. False when that is not the current generation any more."""
        if number != self.number:
            return False
        self.previous = None
        return True


class ReloadRequests:
    """Which HUP is passed on when. A load is in progress from the start."""

    def __init__(self) -> None:
        self._busy = True
        self._queued = False

    @property
    def busy(self) -> bool:
        return self._busy

    def request(self) -> bool:
        """A HUP came. True: pass it on now; else it is owed, once, however many there are."""
        if self._busy:
            self._queued = True
            return False
        self._busy = True
        return True

    def finished(self) -> bool:
        """The load or reload ended, or control did. True: pass the owed one on now."""
        self._busy, self._queued = self._queued, False
        return self._busy
