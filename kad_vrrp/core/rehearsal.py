"""An engine's life played through once, for nobody. Pure.

Python runs code it has run before several times faster: bytecode is specialised by its first executions,
and a forked child pays a page fault for each page it touches first. A take-over is code that runs once, after
days of waiting, and must not pay for that: so it is played through before it matters, with instances that
exist nowhere and actions that nobody performs.
"""

from kad.config.model.routing import Route, Rule
from kad.config.model.vrrp import TrackedItem, Tracking, VirtualAddress, VrrpInstance
from kad.ipc.bfd_view import BfdChanges, BfdLevel, BfdSnapshot, BfdView
from kad_vrrp.core.actions import Action, ChangeAddresses, Notify, OpenTransport, Remember, SendAdvert
from kad_vrrp.core.context import EngineSettings
from kad_vrrp.core.engine import Engine
from kad_vrrp.core.events import (
    AdvertReceived,
    BfdChanged,
    ConfigurationChanged,
    Event,
    LinkChanged,
    NotifyDone,
    PlanDone,
    StopRequested,
    TimeReached,
    TransportOpened,
)
from kad_vrrp.core.record import Remembered

ACTS = 2
"""The first meets everything cold, the second shows what is left to be warmed up."""
WARM = 8
"""Rounds after which CPython has specialised what it will."""

_LINK = LinkChanged("rehearsal", 1, True, bytes(6), 1500, True, True, ("192.0.2.1", "fe80::1"))
_START_US = 1_000_000_000


_SESSION = "rehearsal"
_NOTHING = Tracking()


def _instances(tracking: Tracking) -> tuple[VrrpInstance, ...]:
    return tuple(
        VrrpInstance(
            name=f"rehearsal {version}",
            virtual_router_id=version,
            interface=_LINK.name,
            version=version,
            tracking=tracking,
            virtual_addresses=(VirtualAddress(f"192.0.2.{100 + version}", 24),),
            virtual_routes=(Route(4, "198.51.100.0", 24, interface=_LINK.name),),
            virtual_rules=(Rule(4, 100, table=version),),
        )
        for version in (2, 3)
    )


class _Stage:
    """Answers every action as a machine would on which all goes well."""

    def __init__(self, remembered: dict[str, Remembered]) -> None:
        self.engine = Engine(EngineSettings(), remembered)
        self.now_us = _START_US
        self.records: dict[str, Remembered] = {}
        self.adverts: list[SendAdvert] = []

    def tell(self, event: Event) -> None:
        waiting = [event]
        while waiting:
            for action in self.engine.handle(waiting.pop(), self.now_us):
                answer = self._answer(action)
                if answer is not None:
                    waiting.append(answer)

    def _answer(self, action: Action) -> Event | None:
        match action:
            case OpenTransport():
                return TransportOpened(action.number)
            case ChangeAddresses():
                return PlanDone(action.instance, action.serial)
            case Notify():
                return NotifyDone(action.instance, action.serial)
            case Remember():
                self.records[action.instance] = Remembered(action.record, 0)
            case SendAdvert():
                self.adverts.append(action)
        return None

    def start(self, tracking: Tracking = _NOTHING) -> None:
        self.tell(_LINK)
        self.tell(ConfigurationChanged(1, _instances(tracking), ()))

    def wait(self) -> None:
        deadline_us = self.engine.deadline_us
        if deadline_us is not None:
            self.now_us = max(self.now_us, deadline_us)
            self.tell(TimeReached())

    def hear_a_better_master(self) -> None:
        """Our own adverts, come back from another address which wins a tie."""
        for advert in self.adverts[-2:]:
            self.tell(AdvertReceived(advert.transport, advert.data, "192.0.2.2"))


def rehearse(rounds: int = WARM) -> None:
    """Play ``rounds`` lives: start, take-over, adverts, a restart from the journal, the end."""
    for _ in range(rounds):
        stage = _Stage({})
        stage.start()
        for _ in range(6):
            stage.wait()
        stage.hear_a_better_master()
        reborn = _Stage(stage.records)
        reborn.start()
        reborn.wait()
        reborn.tell(StopRequested())


class Rehearsal:
    """One take-over, set up beforehand, to be played just before a real one.

    Set up when there is time for it: a process that starts has more urgent things to do.
    """

    def __init__(self) -> None:
        self._stage: _Stage | None = None

    @property
    def is_spent(self) -> bool:
        return self._stage is None

    def renew(self) -> None:
        self._stage = _Stage({})
        self._stage.start()

    def play(self) -> None:
        if self._stage is not None:
            self._stage.wait()
            self._stage = None


class LossRehearsal:
    """:data:`ACTS` losses of a BFD session that masters follow, to be played when one is near."""

    def __init__(self) -> None:
        self._scenes: list[tuple[_Stage, BfdView]] = []

    @property
    def is_ready(self) -> bool:
        return len(self._scenes) == ACTS

    def renew(self) -> None:
        """Set up one that is missing."""
        if self.is_ready:
            return
        stage, view = _Stage({}), BfdView()
        stage.start(Tracking(bfds=(TrackedItem(_SESSION),)))
        view.follow(frozenset((_SESSION,)), _START_US, _START_US)
        self._tell(stage, view, BfdSnapshot(1, 1, (BfdLevel(_SESSION, True, 30_000),)))
        for _ in range(4):
            stage.wait()
        self._scenes.append((stage, view))

    def play(self) -> None:
        """One loss, as the BFD process would tell it."""
        self._tell(*self._scenes.pop(), BfdChanges(1, 2, 1, (BfdLevel(_SESSION, False, 0),)))

    def _tell(self, stage: _Stage, view: BfdView, message: BfdSnapshot | BfdChanges) -> None:
        for session in view.receive(message, _START_US):
            stage.tell(BfdChanged(session, view.is_up(session)))
