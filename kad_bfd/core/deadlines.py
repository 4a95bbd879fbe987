"""Which session is due next, without touching the queue for every packet. Pure."""

from heapq import heappop, heappush

from kad.units import NEVER
from kad_bfd.core.session import Session


class Deadlines:
    """A heap of lower bounds: a deadline that moves later leaves its entry where it is.

    An entry counts only while the session remembers it (``queued_us``). Each session has one that counts,
    and an older one only until its time comes, so the heap stays small whatever packets arrive.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Session]] = []
        self._pushed = 0

    @property
    def first_us(self) -> int:
        """The earliest deadline; NEVER when there is none."""
        heap = self._heap
        while heap:
            at_us, _, session = heap[0]
            if session.queued_us == at_us:
                if session.deadline_us == at_us:
                    return at_us
                session.queued_us = NEVER
                heappop(heap)
                self.push(session)
            else:
                heappop(heap)
        return NEVER

    @property
    def first(self) -> Session | None:
        """Whose deadline that is, right after :attr:`first_us` was asked for."""
        return self._heap[0][2] if self._heap else None

    def push(self, session: Session) -> None:
        """The session's deadline may have changed."""
        deadline_us = session.deadline_us
        if deadline_us < session.queued_us:
            session.queued_us = deadline_us
            self._pushed += 1
            heappush(self._heap, (deadline_us, self._pushed, session))

    def take(self, until_us: int) -> list[Session]:
        """Every session whose entry is at or before that instant. Push each again afterwards."""
        heap = self._heap
        taken = []
        while heap and heap[0][0] <= until_us:
            at_us, _, session = heappop(heap)
            if session.queued_us == at_us:
                session.queued_us = NEVER
                taken.append(session)
        return taken

    def drop(self, session: Session) -> None:
        """The session is no more."""
        session.queued_us = NEVER
