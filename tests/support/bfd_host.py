"""A make-believe machine around the BFD engine: sockets, journal, clock. No real IO anywhere.

It carries out actions as the shell does, in order. What it sends goes to :attr:`Host.on_send`; what others
send comes in by :meth:`Host.hear`. ``tests/support/bfd_world.py`` joins several of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from kad.config.model.bfd import BfdInstance
from kad.units import NEVER
from kad_bfd.core.actions import (
    Action,
    CloseListener,
    CloseTransport,
    Forget,
    Listener,
    Log,
    OpenListener,
    OpenTransport,
    Publish,
    Remember,
    SendPacket,
    SessionChanged,
    Stopped,
    Transport,
    Unpublish,
)
from kad_bfd.core.engine import Engine
from kad_bfd.core.events import (
    ConfigurationChanged,
    Event,
    ListenerOpened,
    Origin,
    PacketsReceived,
    StopRequested,
    TimeReached,
    TransportFailed,
    TransportOpened,
)
from kad_bfd.core.packet import ControlPacket, State, decode, encode
from kad_bfd.core.record import decode as decode_record
from kad_bfd.core.session import Session

MS = 1_000
SECOND = 1_000_000


def instance(name: str = "peer", neighbor: str = "10.0.0.2", **fields: Any) -> BfdInstance:
    """50 ms, three times, unless said otherwise."""
    settings = {"min_tx_us": 50 * MS, "min_rx_us": 50 * MS, "multiplier": 3}
    return BfdInstance(name, neighbor, **(settings | fields))


def control(state: State = State.DOWN, **fields: Any) -> ControlPacket:
    """A neighbour's packet: discriminator 77, 50 ms, three times."""
    settings = {
        "my_discriminator": 77,
        "your_discriminator": 0,
        "detect_mult": 3,
        "desired_min_tx_us": 50 * MS if state is State.UP else SECOND,
        "required_min_rx_us": 50 * MS,
    }
    return ControlPacket(state=state, **(settings | fields))


class Killed(Exception):
    """The process died between two actions."""


class Host:
    """The machine outlives its engine: journal and clock stay."""

    def __init__(
        self, *configs: BfdInstance, address: str = "10.0.0.1", now_us: int = 10 * SECOND, seed: int = 1
    ) -> None:
        self.configs = configs
        self.address = address
        self.now_us = now_us
        self.seed = seed
        self.generation = 1
        self.journal: dict[str, bytes] = {}
        self.ticked_at_us = -NEVER
        self.transports: dict[int, Transport] = {}
        self.ports: dict[int, int] = {}
        self.listeners: set[Listener] = set()
        self.refused: str = ""
        """Why no socket can be opened, while it is not empty."""
        self.sent: list[tuple[int, ControlPacket]] = []
        self.changes: list[SessionChanged] = []
        self.published: dict[str, Publish] = {}
        self.logged: list[str] = []
        self.actions: list[Action] = []
        self.stopped = False
        self.kill_after: int | None = None
        self.on_send: Callable[[Transport, int, bytes], None] = lambda transport, port, data: None
        self._answers: deque[Event] = deque()
        self._lives = 0
        self.engine = Engine(seed)

    # Life and death --------------------------------------------------------------------------------------

    def boot(self) -> Host:
        """Start the process anew from what is in the journal."""
        self._lives += 1
        silent_us = self.now_us - self.ticked_at_us
        self.engine = Engine(self.seed * 1000 + self._lives, dict(self.journal), silent_us)
        self._answers.clear()
        self.transports.clear()
        self.ports.clear()
        self.listeners.clear()
        self.published.clear()
        self.stopped = False
        self.kill_after = None
        self.tell(ConfigurationChanged(self.generation, self.configs))
        return self

    def reload(self, *configs: BfdInstance) -> None:
        self.configs = configs
        self.generation += 1
        self.tell(ConfigurationChanged(self.generation, configs))

    def stop(self) -> None:
        self.tell(StopRequested())

    # Events ----------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """One event, and everything that follows from it at once."""
        self._answers.append(event)
        while self._answers:
            for action in self.engine.handle(self._answers.popleft(), self.now_us):
                self._carry_out(action)
        self.ticked_at_us = self.now_us
        # As the driver does at the end of a turn.
        assert self.engine.deadline_us is None or self.engine.deadline_us > 0

    def hear(
        self,
        packet: ControlPacket | bytes,
        *,
        source: str = "10.0.0.2",
        hop_limit: int = 255,
        listener: Listener | None = None,
        destination: str = "",
        ago_us: int = 0,
    ) -> None:
        """``ago_us``: how long it has lain in the socket."""
        data = packet if isinstance(packet, bytes) else encode(packet)
        family = 6 if ":" in source else 4
        origin = Origin(source, destination or self.address, hop_limit, listener or Listener(family))
        self.tell(PacketsReceived([(data, self._one_object(origin), self.now_us - ago_us)]))

    _origins: dict[Origin, Origin] = {}

    def _one_object(self, origin: Origin) -> Origin:
        return self._origins.setdefault(origin, origin)

    def run(self, duration_us: int) -> None:
        """Let time pass, alone in the world."""
        end_us = self.now_us + duration_us
        while True:
            due_us = self.engine.deadline_us
            if due_us is None or due_us > end_us:
                break
            self.now_us = max(self.now_us, due_us)
            self.tell(TimeReached())
            again_us = self.engine.deadline_us
            assert again_us is None or again_us > self.now_us, "it would turn for ever"
        self.now_us = end_us

    # Looking inside --------------------------------------------------------------------------------------

    def session(self, name: str = "peer") -> Session:
        return self.engine._lifecycle.sessions[name]

    def state(self, name: str = "peer") -> State:
        return self.session(name).state

    @property
    def discriminator(self) -> int:
        return self.session().local_discr

    @property
    def last(self) -> ControlPacket:
        """What was sent last."""
        return self.sent[-1][1]

    def clear(self) -> None:
        self.sent.clear()
        self.changes.clear()
        self.actions.clear()

    def drops(self) -> dict[str, int]:
        """Of all sessions and of none, together."""
        report = self.engine.report()
        counted = dict(report.drops)
        for each in report.sessions:
            for reason, count in each.drops.items():
                counted[reason] = counted.get(reason, 0) + count
        return counted

    def bring_up(self, **fields: Any) -> Host:
        """Shake hands with the neighbour, whose packets have these fields."""
        yours = {"your_discriminator": self.discriminator} | fields
        self.hear(control(State.DOWN, **{**fields, "your_discriminator": 0}))
        self.hear(control(State.INIT, **yours))
        assert self.state() is State.UP
        self.hear(control(State.UP, **yours, final=True))
        self.hear(control(State.UP, **yours))
        return self

    def hear_up(self, *, ago_us: int = 0, **fields: Any) -> None:
        """One more packet of a neighbour that is Up."""
        packet = control(State.UP, **({"your_discriminator": self.discriminator} | fields))
        self.hear(packet, ago_us=ago_us)

    # Actions ---------------------------------------------------------------------------------------------

    def _carry_out(self, action: Action) -> None:
        if self.kill_after is not None:
            if self.kill_after == 0:
                raise Killed
            self.kill_after -= 1
        self.actions.append(action)
        match action:
            case SendPacket():
                self._assert_recorded(action)
                if action.transport in self.transports:
                    self.sent.append((self.now_us, decode(action.data)))
                    transport = self.transports[action.transport]
                    self.on_send(transport, self.ports[action.transport], action.data)
            case OpenTransport():
                self._open(action)
            case CloseTransport():
                self.transports.pop(action.number, None)
            case OpenListener():
                self.listeners.add(action.listener)
                self._answers.append(ListenerOpened(action.listener))
            case CloseListener():
                self.listeners.discard(action.listener)
            case Remember():
                self.journal[action.session] = action.record
            case Forget():
                self.journal.pop(action.session, None)
            case Publish():
                record = decode_record(self.journal[action.session])
                assert record is not None
                assert (record.state is State.UP) == action.up, "told before it was recorded"
                self.published[action.session] = action
            case Unpublish():
                self.published.pop(action.session, None)
            case SessionChanged():
                self.changes.append(action)
            case Log():
                self.logged.append(action.text)
            case Stopped():
                self.stopped = True

    def _assert_recorded(self, action: SendPacket) -> None:
        """What the peer is told, the journal knew before (a session that leaves has no record)."""
        packet = decode(action.data)
        for record in map(decode_record, self.journal.values()):
            if record is not None and record.local_discr == packet.my_discriminator:
                assert record.state is packet.state
                assert record.desired_min_tx_us == packet.desired_min_tx_us
                assert record.polling or not packet.poll
                return

    def _open(self, action: OpenTransport) -> None:
        if self.refused:
            self._answers.append(TransportFailed(action.number, self.refused))
            return
        self.transports[action.number] = action.transport
        self.ports[action.number] = action.port
        self._answers.append(TransportOpened(action.number, action.port))
