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
    """Which HUP is passed to control, and when. Each method returns True when one is to be passed now."""

    def __init__(self) -> None:
        self._control_listens = False
        self._in_progress = False
        self._owed = False
        self._is_unread = False
        """What was passed last."""

    @property
    def in_progress(self) -> bool:
        return self._in_progress

    def request(self) -> bool:
        """A HUP came. While a load or reload runs, one is owed, however many come."""
        self._owed = True
        return self._next()

    def begun(self) -> None:
        """Control has read what was passed."""
        self._is_unread = False

    def finished(self) -> bool:
        """The load or reload ended, well or not."""
        self._in_progress = self._is_unread = False
        return self._next()

    def control_started(self, *, loading: bool) -> bool:
        """``loading``: it begins with a load of its own, because nothing was committed yet."""
        self._control_listens, self._in_progress = True, loading
        return self._next()

    def control_deaf(self) -> None:
        """Its line is closed: nothing can be passed, although it may not have died yet."""
        self._control_listens = False

    def control_died(self) -> None:
        """The reload it was at is lost, and not asked for again: it may be what control died of. One that it
        has not read is the next control's.
        """
        self._owed |= self._is_unread
        self._control_listens = self._in_progress = self._is_unread = False

    def _next(self) -> bool:
        passed = self._owed and self._control_listens and not self._in_progress
        if passed:
            self._owed, self._in_progress, self._is_unread = False, True, True
        return passed
