"""What a protocol core looks like to the driver: events in, actions out, one deadline."""

from typing import Any, NoReturn, Protocol, TypeVar

Event_contra = TypeVar("Event_contra", contravariant=True)
Action = TypeVar("Action")


class Core(Protocol[Event_contra, Action]):
    """A pure state machine. Instants are CLOCK_MONOTONIC microseconds handed in from outside."""

    def handle(self, event: Event_contra, now_us: int) -> list[Action]:
        """Take one event and say what is to be done, in order."""
        ...

    @property
    def deadline_us(self) -> int | None:
        """When the core wants to be woken if nothing happens before; None: never."""
        ...


class NoCore:
    """In a core's place as long as there is none: nothing is due, and nobody may tell it anything."""

    deadline_us: int | None = None

    def handle(self, event: Any, now_us: int) -> NoReturn:
        raise AssertionError(f"{event!r} at {now_us}, and no core to hear of it")
