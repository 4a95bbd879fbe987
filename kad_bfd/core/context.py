"""What the parts of one engine share: its source of variety and the list actions are put on. Pure."""

from __future__ import annotations

from kad_bfd.core.actions import Action, Log, LogLevel
from kad_bfd.core.timers import Variety

TAG_BITS = 12


class Context:
    """Owned by the engine; sessions write actions through it."""

    def __init__(self, seed: int) -> None:
        self.variety = Variety(seed)
        self.tag = 0
        """The first :data:`TAG_BITS` bits of every local discriminator: a packet that reflects them comes
        from somebody who hears us."""
        self.generation = 0
        self.stall_us = 0
        """How late this process last came to a deadline, where that was late enough to speak of."""
        self.stall_end_us = 0
        self.actions: list[Action] = []

    def emit(self, action: Action) -> None:
        self.actions.append(action)

    def log(self, level: LogLevel, text: str) -> None:
        self.actions.append(Log(level, text))
