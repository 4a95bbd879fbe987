"""A session's loss played through for nobody, just before a real one may come. Pure.

Code that has not run for seconds runs several times slower, and a loss is code that runs once in days. It
shows itself beforehand: a neighbour that is silent for nearly its detection time.
"""

from kad.config.model.bfd import BfdInstance
from kad_bfd.core.actions import Action, OpenListener, OpenTransport, SendPacket
from kad_bfd.core.engine import Engine
from kad_bfd.core.events import (
    ConfigurationChanged,
    Event,
    ListenerOpened,
    Origin,
    PacketsReceived,
    TimeReached,
    TransportOpened,
)
from kad_bfd.core.packet import ControlPacket, State, encode

ACTS = 4
"""In pairs: the first meets everything cold, the second shows what is left to be warmed up."""
WARM = 8
"""Rounds after which CPython has specialised what it will."""

_START_US = 1_000_000_000
_INSTANCE = BfdInstance("rehearsal", "192.0.2.2", min_rx_us=10_000, min_tx_us=10_000, multiplier=3)
_LONGEST_TURNS = 20
"""More than the packets that are sent in the detection time."""


class Rehearsal:
    """:data:`ACTS` losses, set up beforehand, to be played one after the other."""

    def __init__(self) -> None:
        self._scenes: list[_Scene] = []

    @property
    def is_ready(self) -> bool:
        return len(self._scenes) == ACTS

    def renew(self) -> None:
        """Set up one that is missing."""
        if not self.is_ready:
            self._scenes.append(_Scene())

    def play(self) -> list[Action]:
        """One loss. What would have to be done for it is done by nobody."""
        return self._scenes.pop().turn()


class _Scene:
    """A session that comes up, and hears no more until its detection time has nearly passed."""

    def __init__(self) -> None:
        self._engine = Engine(0)
        self._now_us = _START_US
        self._sent = b""
        self._tell(ConfigurationChanged(1, (_INSTANCE,)))
        self._hear(State.DOWN, 0)
        for state in (State.INIT, State.UP, State.UP):
            self._hear(state, int.from_bytes(self._sent[4:8], "big"))
        for _ in range(_LONGEST_TURNS):
            if self._engine.loss_us == self._engine.deadline_us:
                break
            self.turn()

    def turn(self) -> list[Action]:
        self._now_us = self._engine.deadline_us or self._now_us
        return self._tell(TimeReached())

    def _hear(self, state: State, your_discriminator: int) -> None:
        packet = ControlPacket(
            state=state,
            my_discriminator=1,
            your_discriminator=your_discriminator,
            detect_mult=3,
            desired_min_tx_us=10_000,
            required_min_rx_us=10_000,
            final=True,
        )
        origin = Origin(_INSTANCE.neighbor_address, "192.0.2.1", 255, self._listener)
        self._tell(PacketsReceived([(encode(packet), origin, self._now_us)]))

    def _tell(self, event: Event) -> list[Action]:
        waiting, done = [event], []
        while waiting:
            for action in self._engine.handle(waiting.pop(0), self._now_us):
                done.append(action)
                match action:
                    case OpenListener():
                        self._listener = action.listener
                        waiting.append(ListenerOpened(action.listener))
                    case OpenTransport():
                        waiting.append(TransportOpened(action.number, 49152))
                    case SendPacket():
                        self._sent = action.data
        # As the driver does at the end of a turn.
        _ = self._engine.deadline_us
        return done
