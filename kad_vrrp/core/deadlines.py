"""Which instance is due next, without touching the queue for every packet. Pure."""

from heapq import heappop, heappush, heapreplace

from kad.units import NEVER
from kad_vrrp.core.instance import Instance


class Deadlines:
    """A heap of lower bounds: a deadline that moves later leaves its entry where it is.

    An entry counts only while the instance remembers it (``queued_us``). Each instance has one that counts,
    and an older one only until its time comes, so the heap stays small whatever packets arrive.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Instance]] = []
        self._pushed = 0

    def __len__(self) -> int:
        """Entries, those that no longer count among them."""
        return len(self._heap)

    @property
    def first_us(self) -> int:
        """The earliest deadline; NEVER when there is none."""
        heap = self._heap
        while heap:
            at_us, _, instance = heap[0]
            deadline_us = instance.deadline_us
            if instance.queued_us != at_us:
                heappop(heap)
            elif deadline_us == at_us:
                return at_us
            elif deadline_us == NEVER:
                instance.queued_us = NEVER
                heappop(heap)
            else:
                instance.queued_us = deadline_us
                self._pushed += 1
                heapreplace(heap, (deadline_us, self._pushed, instance))
        return NEVER

    @property
    def first(self) -> Instance | None:
        """The instance whose deadline that is."""
        return self._heap[0][2] if self.first_us < NEVER else None

    def push(self, instance: Instance) -> None:
        """The instance's deadline may have changed."""
        deadline_us = instance.deadline_us
        if deadline_us < instance.queued_us:
            instance.queued_us = deadline_us
            self._pushed += 1
            heappush(self._heap, (deadline_us, self._pushed, instance))

    def take(self, until_us: int) -> list[Instance]:
        """Every instance whose entry is at or before that instant. Push each again afterwards."""
        heap = self._heap
        taken = []
        while heap and heap[0][0] <= until_us:
            at_us, _, instance = heappop(heap)
            if instance.queued_us == at_us:
                instance.queued_us = NEVER
                taken.append(instance)
        return taken
