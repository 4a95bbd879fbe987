"""One make-believe router: a process that can die, on a machine that can stop, with a clock of its own.

Nothing answers at once here: kernel, scripts and sockets take their time, and packets wait for a process
that does not run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from kad.addresses import INET6
from kad.config.model.routing import Route, Rule
from kad.config.model.vrrp import AuthType, VrrpInstance
from kad.track.process import Cause, ProcessesCounted, pattern_of
from kad.track.script import RunScript, ScriptEnded
from kad_vrrp.core.actions import (
    Action,
    AddressEntry,
    Announce,
    ChangeAddresses,
    CloseTransport,
    Log,
    Notify,
    OpenTransport,
    PriorityChanged,
    Remember,
    RememberObject,
    SendAdvert,
    StateChanged,
    Transport,
)
from kad_vrrp.core.engine import EngineSettings
from kad_vrrp.core.events import (
    AddressDeleted,
    AdvertDelayed,
    AdvertReceived,
    AdvertsReceived,
    BfdChanged,
    ClockSet,
    Event,
    FileRead,
    LinkChanged,
    LinkRemoved,
    NotifyDone,
    PlanDone,
    RouteDeleted,
    RouteReplaced,
    RoutesDoubted,
    StopRequested,
    TimeReached,
    TransportFailed,
    TransportOpened,
)
from kad_vrrp.core.record import decode
from kad_vrrp.core.resources import entries_of
from tests.simulation.witness import Witness
from tests.support.vrrp_host import HANGS, ORDINARY, AddressKey, Host, Killed, ObjectKey, key_of

if TYPE_CHECKING:
    from tests.simulation.world import World

SOCKET_ROOM = 200
"""Adverts that wait for a process that does not run."""
WAKING_LIMIT_US = 20_000
"""A packet that lay longer lay there because nobody ran."""
AT_ONCE = 3
"""How often in a row a process may want to be woken at once."""
NEVER = 1 << 62
EPOCH_US = 1_700_000_000_000_000
INTERFACES = ("eth0", "eth1", "eth2")
"""There are routers on the first two; the third is only followed, and has an address of theirs."""


def link_of(number: int, interface: str, *, up: bool = True, index: int = 0) -> LinkChanged:
    segment = int(interface[3:])
    return LinkChanged(
        name=interface,
        index=index or segment + 2,
        up=up,
        mac=bytes((2, 0, 0, 0, segment, number)),
        mtu=1500,
        arp=True,
        multicast=True,
        addresses=(f"10.0.{segment}.{number}", f"fe80::{segment}:{number}"),
    )


class Machine(Host):
    """See the module. The world moves its clock; the witness in it looks on."""

    def __init__(self, world: World, number: int, configs: tuple[VrrpInstance, ...]) -> None:
        self.world = world
        self.alive = False
        self.number = number
        self.label = f"n{number}"
        links = [link_of(number, name) for name in INTERFACES]
        self.carriers = set(INTERFACES)
        self.bfd_up = False
        # Every machine's clock began at another time.
        self.offset_us = world.random.randrange(1 << 40, 1 << 41)
        super().__init__(*configs, links=links, now_us=self.offset_us)
        self.wall_clock_wrong_us = 0
        self.set_wall_clock(0)
        self.scripts_survive = False
        self.off = self.leaving = False
        self.paused = self.suspended = False
        self.lives = 0
        """Of the process."""
        self.powered = 0
        """Of the machine."""
        self.booted_us = 0
        self.paused_us = 0
        self.meddled_us = 0
        """When somebody last took away what the kernel had."""
        self.doom: int | None = None
        """After how many actions of its start the next process dies."""
        self.broken: set[int] = set()
        """Transports that do not work."""
        self.refuses_sockets = False
        self.slow_kernel_us = 0
        self.late_us = 0
        """How much later than asked for the process wakes."""
        self.inbox: list[Callable[[], None]] = []
        self.adverts_waiting = 0
        self.listening: dict[tuple[str, int, int, str], int] = {}
        """(interface, family, protocol, destination) -> open transport."""
        self.states: dict[str, str] = {}
        self.pending: Counter[str] = Counter()
        """Plans the kernel has not answered, by instance."""
        self.foreign: set[ObjectKey] = set()
        """Addresses that somebody else has set, and what nobody remembers to have set."""
        self.left_behind: set[ObjectKey] | None = None
        """By a daemon that was killed with its journal, for the next to find."""
        self.applied = True
        """The last configuration was taken in whole."""
        self.armed_us = NEVER
        self.seen: set[tuple[str, type]] = set()
        """(state, event)"""
        self.runs: dict[int, RunScript] = {}
        self.witness = Witness(self)
        self.on_action = self._observe
        self.on_advert = world.carrier(self)

    # Life and death ------------------------------------------------------------------------------------

    @property
    def responsive(self) -> bool:
        return self.alive and not self.paused

    def start(self, settings: EngineSettings = ORDINARY) -> None:
        """The process begins, with what a former one has left in the journal."""
        assert not self.alive
        self.alive, self.leaving = True, settings.withdraw
        self.paused = self.suspended = False
        self.lives += 1
        self.booted_us = self.world.now_us
        self.inbox.clear()
        self.adverts_waiting = 0
        self.listening.clear()
        self.broken.clear()
        self.pending.clear()
        self.states.clear()
        self.runs.clear()
        self.armed_us = NEVER
        if self.applied:
            self.previous = ()
        self.applied = False
        if self.left_behind is not None:
            self._disinherit()
        if not self.journal and not self.objects:
            self.witness.forget()
        self.witness.reborn()
        self.witness.hold_until_us = settings.no_preempt_until_us - self.offset_us
        self.witness.deaf_until_us = self.world.now_us + settings.startup_delay_us
        self.now_us = self.world.now_us + self.offset_us
        self.boot(settings)
        if not self.alive:
            return
        self.applied = True
        self.states.clear()
        for report in self.engine.report().instances:
            self.states[report.name] = report.state
            self.witness.found(report)
        self.hear_of_bfd()

    def _disinherit(self) -> None:
        """A new daemon: what its configuration does not name is nobody's. Nothing tells that it was ours."""
        self.previous = ()
        configured = {key_of(entry) for config in self.configs for entry in entries_of(config)}
        self.foreign |= (self.left_behind or set()) - configured
        self.left_behind = None

    def die(self) -> None:
        """kill -9 of the process; the kernel keeps what it has, and scripts go on."""
        if self.alive:
            self.applied &= self.engine.settled
        self.alive = self.paused = self.suspended = False
        self.kill_after = None
        self.inbox.clear()

    def lose_journal(self) -> None:
        configs = self.configs if self.applied else (*self.configs, *self.previous)
        self.left_behind = {key_of(entry) for config in configs for entry in entries_of(config)} & self.kernel
        self.applied = True
        for everything in (self.journal, self.objects, self.stamps):
            everything.clear()
        self.witness.forget()

    def lose_power(self) -> None:
        self.die()
        self.powered += 1
        self.kernel.clear()
        self.foreign.clear()
        self.lose_journal()

    def pause(self) -> None:
        self.paused = True

    def suspend(self) -> None:
        """The whole machine sleeps, and its clock with it."""
        self.pause()
        self.suspended = True
        self.paused_us = self.world.now_us

    def resume(self) -> None:
        if self.suspended:
            self.offset_us -= self.world.now_us - self.paused_us
            self.witness.deaf_until_us += self.world.now_us - self.paused_us
            self.set_wall_clock(self.wall_clock_wrong_us)
            self.stamps = {name: at_us - (1 << 39) for name, at_us in self.stamps.items()}
            self.armed_us = NEVER
        self.paused = self.suspended = False
        self.meddled_us = self.world.now_us
        self.witness.interrupted()
        waiting, self.inbox = self.inbox, []
        self.adverts_waiting = 0
        for what in waiting:
            what()
        if self.alive:
            self.armed_us = NEVER
            self._wake()

    def set_configuration(self, configs: tuple[VrrpInstance, ...]) -> None:
        """A reload; a process that does not live finds it when it does."""
        if not self.alive or self.leaving:
            # One at most: the next has to wait until some process has taken this one in.
            if self.applied:
                self.previous, self.configs = self.configs, configs
                self.generation += 1
                self.applied = False
            return
        self.applied = False
        self.witness.knows_priorities = False
        self.reload(*configs)
        if self.alive:
            self.applied = True
            self.states = {each.name: each.state for each in self.engine.report().instances}
            self.witness.reconfigured()
            self.hear_of_bfd()

    # Events --------------------------------------------------------------------------------------------

    def deliver(self, event: Event) -> None:
        """Something happened to it; a process that does not run now hears of it later, or at its start."""
        if self.paused:
            self.inbox.append(lambda: self.tell(event))
        else:
            self.tell(event)

    def receive(
        self, key: tuple[str, int, int, str], data: bytes, source: str, arrived_us: int | None = None
    ) -> None:
        """A packet that this machine's sockets would take; ``arrived_us``: it lay there since."""
        number = self.listening.get(key)
        if number is None or number in self.broken or not self.alive:
            return
        if self.paused:
            self.adverts_waiting += 1
            if self.adverts_waiting <= SOCKET_ROOM and not self.suspended:
                now_us = self.world.now_us
                self.inbox.append(lambda: self.receive(key, data, source, now_us))
            return
        family, destination = key[1], key[3]
        event = AdvertReceived(number, data, source, destination=destination if family == INET6 else "")
        age_us = 0 if arrived_us is None else self.world.now_us - arrived_us
        if age_us > WAKING_LIMIT_US:
            self.witness.hear_late(event, family)
            self.tell(AdvertDelayed(event, age_us))
            return
        must_yield = self.witness.hear(event, family, destination)
        alone = self.world.random.random() < 0.8
        ways = [event.way] if family == INET6 else None
        self.tell(event if alone else AdvertsReceived(number, [data], [0], ways))
        if must_yield and self.alive:
            self.witness.has_yielded(must_yield)

    def tell(self, event: Event) -> None:
        if not self.alive:
            return
        self.now_us = self.world.now_us + self.offset_us
        kind = type(event)
        if kind is not AdvertReceived:
            for state in set(self.states.values()):
                self.seen.add((state, kind))
            if isinstance(event, PlanDone):
                self.pending[event.instance] -= 1
        if self.doom is not None:
            self.kill_after, self.doom = self.doom, None
        try:
            super().tell(event)
        except Killed:
            self.world.say(self, "killed in the middle of its work")
            self.die()
            return
        if self.witness.farewells:
            self.witness.look_at_farewells()
        if self.stopped:
            self.die()
            return
        if self.alive:
            self._arm()
            if self.witness.has_news:
                self.witness.look_at_groups()

    def answer(self) -> None:
        """Nothing answers at once."""
        while self.answers and self.alive:
            answer = self.answers.popleft()
            random = self.world.random
            match answer:
                case TransportOpened(transport=number):
                    self._open(number)
                case PlanDone(instance=name):
                    self.pending[name] += 1
                    self._later(random.randint(20, 3_000) + self.slow_kernel_us, answer)
                case NotifyDone(instance=name, serial=serial):
                    started = next(each for each in reversed(self.started) if each[:2] == (name, serial))
                    self._run_notification(answer, started[2])
                case ScriptEnded():
                    self._later(random.randint(500, 20_000), answer)
                case _:
                    self._carry_out(self.engine.handle(answer, self.now_us))

    def _open(self, number: int) -> None:
        if number not in self.transports:
            return
        answer: Event = TransportOpened(number)
        if self.refuses_sockets:
            self.broken.add(number)
            answer = TransportFailed(number, "ENOBUFS")
        else:
            self.broken.discard(number)
        for state in set(self.states.values()):
            self.seen.add((state, type(answer)))
        self._carry_out(self.engine.handle(answer, self.now_us))

    def _later(self, delay_us: int, answer: Event) -> None:
        lives = self.lives

        def arrive() -> None:
            if self.lives == lives and self.alive:
                self.deliver(answer)

        if isinstance(answer, PlanDone):
            # The kernel answers in order.
            self.world.in_order(self, delay_us, arrive)
        else:
            self.world.after(delay_us, arrive)

    def _run_notification(self, answer: NotifyDone, state: str) -> None:
        """The script lives on when the process that started it dies."""
        lives, powered = self.lives, self.powered

        def end() -> None:
            if self.powered != powered:
                return
            self.witness.script_ended(answer.serial, state)
            if self.lives == lives and self.alive:
                self.deliver(answer)

        random = self.world.random
        self.world.after(random.choice((1_000, 5_000, 40_000, random.randint(0, 2_000_000))), end)

    def end_hanging_scripts(self) -> None:
        for name, status in self.statuses.items():
            if status in (HANGS, None):
                self.statuses[name] = 0
        for run in list(self.script_runs):
            self.script_runs.remove(run)
            self.deliver(ScriptEnded(run.script, run.serial, 0))

    # Time ----------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        deadline_us = self.engine.deadline_us
        if deadline_us is None:
            return
        at_us = max(deadline_us - self.offset_us, self.world.now_us)
        if at_us < self.armed_us:
            self.armed_us = at_us
            late_us = self.world.random.randrange(100) + self.late_us
            self.world.at(at_us + late_us, self._on_alarm(at_us, self.lives))

    def _on_alarm(self, armed_us: int, lives: int) -> Callable[[], None]:
        def ring() -> None:
            if self.lives == lives and self.armed_us == armed_us and self.alive:
                self.armed_us = NEVER
                if not self.paused:
                    self._wake()

        return ring

    def _wake(self) -> None:
        deadline_us = self.engine.deadline_us
        if deadline_us is not None and deadline_us <= self.world.now_us + self.offset_us:
            self.tell(TimeReached())
            self._look_for_spinning()
        else:
            self._arm()

    def _look_for_spinning(self) -> None:
        """An engine that has been told the time soon wants nothing more at that time.

        It may once or twice: a weight that turns makes a backup's time come at once.
        """
        for _ in range(AT_ONCE):
            deadline_us = self.engine.deadline_us
            if not self.alive or deadline_us is None or deadline_us > self.now_us:
                return
            self.tell(TimeReached())
        self.witness.fail("wants to be woken without end")

    # What others do to it ------------------------------------------------------------------------------

    def set_carrier(self, interface: str, up: bool) -> None:
        self.links = [
            link_of(self.number, each.name, up=up, index=each.index) if each.name == interface else each
            for each in self.links
        ]
        self._see_carriers()
        for each in self.links:
            if each.name == interface:
                self.deliver(each)

    def remove_interface(self, interface: str) -> None:
        self.links = [each for each in self.links if each.name != interface]
        self.meddled_us = self.world.now_us
        gone = [key for key in self.kernel if not isinstance(key, Rule) and interface_of(key) == interface]
        for key in gone:
            self.kernel.discard(key)
            self.foreign.discard(key)
        self._see_carriers()
        self.deliver(LinkRemoved(interface))

    def add_interface(self, interface: str) -> None:
        if any(each.name == interface for each in self.links):
            return
        self.links.append(link_of(self.number, interface, index=self.world.random.randrange(10, 1000)))
        self._see_carriers()
        self.deliver(self.links[-1])

    def _see_carriers(self) -> None:
        self.carriers = {each.name for each in self.links if each.up}

    def has_carrier(self, interface: str) -> bool:
        return interface in self.carriers

    def delete_address(self, key: tuple[str, str, int]) -> None:
        self.meddled_us = self.world.now_us
        self.kernel.discard(key)
        self.foreign.discard(key)
        self._tell_loss(key, AddressDeleted(*key))

    def _tell_loss(self, key: ObjectKey, loss: Event) -> None:
        """As the shell does: after the answers to plans that are under way, and if it is still missing."""
        lives = self.lives

        def tell() -> None:
            if self.alive and self.lives == lives and key not in self.kernel:
                self.deliver(loss)

        if any(self.pending.values()):
            self.world.in_order(self, 0, tell)
        else:
            tell()

    def lose_routes(self, *, told: bool) -> bool:
        """Somebody, or the kernel itself, takes what is not an address."""
        lost = sorted((key for key in self.kernel if not isinstance(key, tuple)), key=repr)
        for key in lost:
            self.kernel.discard(key)
            if told and not isinstance(key, tuple):
                if self.world.random.random() < 0.5:
                    self._tell_loss(key, RouteDeleted(key))
                else:
                    self.deliver(RouteReplaced(key, "another"))
        if not told:
            self.deliver(RoutesDoubted())
        return bool(lost)

    def set_wall_clock(self, wrong_us: int) -> None:
        """``wrong_us``: by how much it is ahead of the others'."""
        self.wall_clock_wrong_us = wrong_us
        self.realtime_ahead_us = EPOCH_US + wrong_us - self.offset_us
        if self.alive:
            self.deliver(ClockSet(self.realtime_ahead_us))

    def break_socket(self, number: int) -> None:
        self.broken.add(number)
        self.deliver(TransportFailed(number, "ENETDOWN"))

    def may_be_foreign(self, name: str) -> bool:
        """Whether an address of this instance that appears now is known to be another's."""
        return self.states.get(name) in ("BACKUP", "FAULT") and not self.pending[name]

    def hear_of_file(self, path: str) -> None:
        self.deliver(FileRead(path, self.contents[path]))

    def hear_of_process(self, cause: Cause) -> None:
        for process in self.processes:
            self.deliver(ProcessesCounted(pattern_of(process), self.counts[process.process], cause))

    def hear_of_bfd(self) -> None:
        self.deliver(BfdChanged("peer", self.bfd_up))

    def can_send(self, config: VrrpInstance) -> bool:
        """Whether an advert of this instance would have a socket to leave by."""
        if not any(each.name == config.interface for each in self.links):
            return False
        number = self.listening.get(route_key(self, config))
        return number is not None and number not in self.broken

    def stop(self) -> None:
        self.leaving = True
        self.deliver(StopRequested())

    # What it does --------------------------------------------------------------------------------------

    def _observe(self, action: Action) -> None:
        match action:
            case SendAdvert():
                self.witness.sent(action)
            case StateChanged():
                self.states[action.instance] = action.new.value
                self.world.changed_state(self, action)
                self.witness.moved(action)
            case Announce():
                self.witness.announced(action)
            case ChangeAddresses():
                for entry in action.remove:
                    if isinstance(entry, AddressEntry):
                        self.foreign.discard((entry.interface, entry.address, entry.prefix_length))
                self.witness.asked(action)
            case Remember():
                record = decode(action.record)
                assert record is not None
                self.witness.owes(action.instance, record.owed)
            case RememberObject(key=key) if key.startswith("group "):
                self.witness.owes_as_group(key.removeprefix("group "), action.record)
            case Notify():
                self.witness.notified(action)
            case PriorityChanged():
                self.witness.reweighed(action)
            case Log(text=text) if "given up" in text:
                self.witness.forgive()
            case OpenTransport():
                self.listening[route_of(action.transport)] = action.number
            case CloseTransport():
                transport = self.transports[action.number]
                if self.listening.get(route_of(transport)) == action.number:
                    del self.listening[route_of(transport)]
            case _:
                pass


def route_key(machine: Machine, config: VrrpInstance) -> tuple[str, int, int, str]:
    """Where packets for this instance arrive."""
    source = next(each.addresses[0] for each in machine.links if each.name == config.interface)
    destination = config.source_address or source if config.unicast else config.multicast_group
    protocol = 51 if config.auth_type is AuthType.AH else 112
    return config.interface, config.family, protocol, destination


def interface_of(key: AddressKey | Route) -> str:
    return key.interface if isinstance(key, Route) else key[0]


def route_of(transport: Transport) -> tuple[str, int, int, str]:
    destination = transport.group or transport.source
    return transport.interface, transport.family, transport.protocol, destination
