"""Several BFD hosts under one virtual clock, on links that lose, delay, and go one way; and what must hold.

Everything follows from a seed. Each host has a clock of its own, wakes a little late as processes do, may
stand still, die and come back. The witness in it watches the wire and knows RFC 5880 from outside: it does
not ask an engine what it thinks, except for its state and what it knows of the neighbour's.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kad.config.model.bfd import BfdInstance
from kad_bfd.core.actions import Listener, SessionChanged, Transport
from kad_bfd.core.events import TimeReached
from kad_bfd.core.packet import ControlPacket, Diagnostic, State, decode, encode
from kad_bfd.core.session import FINAL_GAP_US
from tests.support.bfd_host import MS, SECOND, Host

LATENESS_US = 80
DELAY_US = (50, 200)
RECENT_US = 250 * MS
SLACK_US = 1_000
"""Wake-up, delay and early sending together."""


TRANSITIONS = {
    (State.DOWN, State.DOWN): State.INIT,
    (State.DOWN, State.INIT): State.UP,
    (State.INIT, State.ADMIN_DOWN): State.DOWN,
    (State.INIT, State.INIT): State.UP,
    (State.INIT, State.UP): State.UP,
    (State.UP, State.ADMIN_DOWN): State.DOWN,
    (State.UP, State.DOWN): State.DOWN,
}
"""RFC 5880 §6.8.6: (ours, received) -> ours; all others change nothing."""


def slowest_us(config: BfdInstance | None) -> int:
    """What it may ever have asked the peer for: congestion stretches that across routers."""
    return 300 * MS if config is not None and not config.multihop else SECOND


class Violation(AssertionError):
    """What must not be, was."""


@dataclass
class Link:
    """One direction between two hosts."""

    up: bool = True
    loss: float = 0.0
    delay_us: tuple[int, int] = DELAY_US


@dataclass
class Ear:
    """What a host was told by one neighbour, as the wire has it."""

    heard_us: int = -SECOND
    packet: ControlPacket | None = None
    poll_us: int | None = None
    """A poll that has not been answered."""


@dataclass
class Mouth:
    """What a host said to one neighbour."""

    spoken_us: int | None = None
    packet: ControlPacket | None = None
    final_us: int = -SECOND
    settled_us: int = 1 << 60
    """The interval it wished for when it last did not poll: while it polls, that may still be in use."""
    interrupted: bool = True
    """Since it last spoke it was dead, or stood still, or was told something that changes its pace."""


@dataclass
class Machine:
    """A host in the world."""

    name: str
    host: Host
    offset_us: int
    alive: bool = False
    stopping: bool = False
    frozen_until_us: int = 0
    earliest_us: int = 0
    """What it reads next came no earlier: it had nothing to read, or what it read before had come."""
    clock_us: int = 0
    """How far the clock of the day, which packets are stamped by, was set in all."""
    inbox: list[Callable[[], None]] = field(default_factory=list)
    wake: int = 0
    ears: dict[str, Ear] = field(default_factory=dict)
    mouths: dict[str, Mouth] = field(default_factory=dict)
    died_us: int = 0
    disturbed_us: int = -SECOND
    """When it last was reborn or thawed: its timers began anew."""
    min_rx_us: dict[str, int] = field(default_factory=dict)
    """The least that was configured since the neighbour confirmed the last change, or ever: see Witness."""


class World:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_us = SECOND
        self.machines: dict[str, Machine] = {}
        self.links: dict[tuple[str, str], Link] = {}
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = 0
        self.losses = 0
        """Sessions lost from Up, anywhere."""
        self.forbid_losses = False
        self.packets = 0

    # Building --------------------------------------------------------------------------------------------

    def add(self, name: str, address: str, *configs: BfdInstance) -> Machine:
        host = Host(*configs, address=address, seed=self.random.getrandbits(60))
        machine = Machine(name, host, self.random.randrange(1, 1 << 40))
        self.machines[name] = machine
        for other in self.machines:
            if other != name:
                self.links[name, other], self.links[other, name] = Link(), Link()
        host.on_send = lambda transport, port, data: self._send(machine, transport, data)
        return machine

    def boot(self, name: str) -> None:
        self.kill(name)
        machine = self.machines[name]
        if machine.stopping:
            machine.mouths.clear()  # an orderly end: what comes now is somebody new
        machine.alive, machine.stopping, machine.frozen_until_us = True, False, 0
        machine.inbox.clear()
        self._disturb(machine)
        machine.host.now_us = self.now_us + machine.offset_us
        said_before = {to: mouth.packet for to, mouth in machine.mouths.items()}
        self._watched(machine, machine.host.boot)
        self._witness_birth(machine, said_before)

    # Faults ----------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        machine = self.machines[name]
        if machine.alive:
            machine.died_us = self.now_us
        machine.alive = False
        machine.wake += 1

    def freeze(self, name: str, duration_us: int) -> None:
        """It stands still; what arrives waits for it."""
        machine = self.machines[name]
        if self._runs(machine):
            machine.earliest_us = self.now_us
        machine.frozen_until_us = self.now_us + duration_us
        self.at(machine.frozen_until_us, lambda: self._thaw(machine))

    def freeze_all(self, duration_us: int) -> None:
        """The whole world stands still: nobody sends, and nobody receives."""
        for name, machine in self.machines.items():
            if machine.alive:
                self.freeze(name, duration_us)

    def set_clock(self, name: str) -> None:
        """Somebody sets the clock of the day, by up to an hour either way."""
        self.machines[name].clock_us += self.random.randrange(-3600 * SECOND, 3600 * SECOND)

    def stop(self, name: str) -> None:
        machine = self.machines[name]
        if not self._runs(machine):
            return
        machine.stopping = True
        self._act(machine, machine.host.stop)

    def reload(self, name: str, *configs: BfdInstance) -> None:
        machine = self.machines[name]
        if not self._runs(machine):
            return
        for mouth in machine.mouths.values():
            mouth.interrupted = True
        for config in configs:
            before = machine.min_rx_us.get(config.neighbor_address, config.min_rx_us)
            machine.min_rx_us[config.neighbor_address] = min(before, config.min_rx_us)
        self._act(machine, lambda: machine.host.reload(*configs))

    def _thaw(self, machine: Machine) -> None:
        if not machine.alive or machine.frozen_until_us > self.now_us:
            return
        self._disturb(machine)
        inbox, machine.inbox = machine.inbox, []
        for deliver in inbox:
            deliver()
        self._wake(machine, machine.wake)
        self._arm(machine)

    def _disturb(self, machine: Machine) -> None:
        machine.disturbed_us = self.now_us
        for mouth in machine.mouths.values():
            mouth.interrupted = True
        for ear in machine.ears.values():
            ear.poll_us = None

    # Time ------------------------------------------------------------------------------------------------

    def at(self, when_us: int, act: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._events, (when_us, self._serial, act))

    def run(self, duration_us: int) -> None:
        end_us = self.now_us + duration_us
        while self._events and self._events[0][0] <= end_us:
            self.now_us, _, act = heapq.heappop(self._events)
            act()
        self.now_us = end_us
        self.audit()

    def _arm(self, machine: Machine) -> None:
        machine.wake += 1
        due_us = machine.host.engine.deadline_us
        if due_us is None or not machine.alive:
            return
        wake = machine.wake
        late_us = self.random.randrange(LATENESS_US)
        at_us = max(self.now_us, due_us - machine.offset_us) + late_us
        self.at(at_us, lambda: self._wake(machine, wake))

    def _wake(self, machine: Machine, wake: int) -> None:
        if wake != machine.wake or not self._runs(machine):
            return
        due_us = machine.host.engine.deadline_us
        if due_us is None or due_us > self.now_us + machine.offset_us:
            self._arm(machine)
            return
        self._act(machine, lambda: machine.host.tell(TimeReached()))
        again_us = machine.host.engine.deadline_us
        if again_us is not None and again_us <= self.now_us + machine.offset_us:
            raise Violation(f"{machine.name} would turn for ever")

    def _runs(self, machine: Machine) -> bool:
        return machine.alive and machine.frozen_until_us <= self.now_us

    def _act(self, machine: Machine, act: Callable[[], None]) -> None:
        if not self._runs(machine):
            return
        machine.host.now_us = self.now_us + machine.offset_us
        self._watched(machine, act)

    def _watched(self, machine: Machine, act: Callable[[], object]) -> None:
        host = machine.host
        host.changes.clear()
        host.actions.clear()
        host.sent.clear()
        act()
        for change in host.changes:
            self._witness_change(machine, change)
        self._witness_answers(machine)
        if machine.alive:
            self._arm(machine)

    # Packets ---------------------------------------------------------------------------------------------

    def _send(self, machine: Machine, transport: Transport, data: bytes) -> None:
        self.packets += 1
        packet = decode(data)
        other = next((m for m in self.machines.values() if m.host.address == transport.neighbor), None)
        if other is None:
            return
        self._witness_sent(machine, other.name, packet)
        link = self.links[machine.name, other.name]
        if not link.up or self.random.random() < link.loss:
            return
        at_us = self.now_us + self.random.randrange(*link.delay_us)
        listener = Listener(transport.family, transport.multihop)
        self.at(at_us, lambda: self._arrive(machine, other, data, transport.ttl, listener))

    def _arrive(self, sender: Machine, machine: Machine, data: bytes, ttl: int, listener: Listener) -> None:
        if not machine.alive:
            return
        if self._runs(machine):
            self._read(sender, machine, data, ttl, listener, self.now_us, self.now_us)
            return
        arrived_us, stamp_us = self.now_us, self.now_us + machine.clock_us

        def read() -> None:
            at_us = stamp_us - machine.clock_us
            # Whatever a clock that was set may say: it came since the socket was empty, and after the last.
            at_us = machine.earliest_us = max(machine.earliest_us, min(at_us, self.now_us))
            self._read(sender, machine, data, ttl, listener, at_us, min(at_us, arrived_us))

        machine.inbox.append(read)

    def _read(
        self,
        sender: Machine,
        machine: Machine,
        data: bytes,
        ttl: int,
        listener: Listener,
        at_us: int,
        least_us: int,
    ) -> None:
        """``at_us``: when it came, as the machine knows it; ``least_us``: that or the truth, the earlier."""
        if listener not in machine.host.listeners:
            return
        packet = decode(data)
        config = self._configured(machine, sender.name)
        counts = self._counts(machine, sender, packet)
        before = machine.host.state(config.name) if config is not None and counts else None
        if counts:
            self._witness_heard(machine, sender, packet, least_us)
        ago_us = self.now_us - at_us

        def hear() -> None:
            source = sender.host.address
            machine.host.hear(data, source=source, hop_limit=ttl, listener=listener, ago_us=ago_us)

        self._act(machine, hear)
        if config is not None and before is not None:
            after = machine.host.state(config.name)
            if after is not TRANSITIONS.get((before, packet.state), before):
                raise Violation(f"§6.8.6: {before.name}, {packet.state.name} received, {after.name}")
            session = machine.host.session(config.name)
            if (session.remote_discr, session.remote_state) != (packet.my_discriminator, packet.state):
                raise Violation(f"§6.8.6: {machine.name} did not take over what it was told: {packet}")

    def inject(self, name: str, data: bytes, **how: Any) -> None:
        """A packet from nowhere; it must be without effect, so the witness is not told."""
        machine = self.machines[name]
        self._act(machine, lambda: machine.host.hear(data, **how))

    def forge(self, name: str) -> None:
        """Something hostile: near to right, with one thing wrong."""
        machine = self.machines[name]
        session = self.random.choice(list(machine.host.engine._lifecycle.sessions.values()))
        packet = ControlPacket(
            state=self.random.choice((State.DOWN, State.ADMIN_DOWN)),
            my_discriminator=self.random.randrange(1, 1 << 32),
            your_discriminator=session.local_discr,
            detect_mult=1,
            desired_min_tx_us=1000,
            required_min_rx_us=1000,
        )
        neighbor = session.config.neighbor_address
        good = encode(packet)
        match self.random.randrange(8):
            case 0:
                self.inject(name, good, source=neighbor, hop_limit=self.random.randrange(255))
            case 1:
                self.inject(name, good, source="192.0.2.250")
            case 2:
                self.inject(
                    name, bytes((good[0], good[1] | 4, good[2], 40)) + good[4:] + bytes(16), source=neighbor
                )
            case 3:
                self.inject(name, good[:-1], source=neighbor)
            case 4:
                self.inject(name, good[:8] + bytes((good[8] ^ 1,)) + good[9:], source=neighbor)
            case 5:
                self.inject(name, bytes((good[0] ^ 0x20,)) + good[1:], source=neighbor)
            case 6:
                self.inject(name, good[:2] + b"\0" + good[3:], source=neighbor)
            case _:
                self.inject(name, bytes((good[0], 0xC0)) + good[2:8] + bytes(4) + good[12:], source=neighbor)

    # The witness -----------------------------------------------------------------------------------------

    def _witness_heard(self, machine: Machine, sender: Machine, packet: ControlPacket, at_us: int) -> None:
        ear = machine.ears.setdefault(sender.name, Ear())
        mouth = machine.mouths.setdefault(sender.name, Mouth())
        if ear.packet is None or packet.required_min_rx_us != ear.packet.required_min_rx_us:
            mouth.interrupted = True
        config = self._configured(machine, sender.name)
        if config is not None and config.passive and self.now_us - ear.heard_us > RECENT_US:
            mouth.interrupted = True  # it may have forgotten the neighbour: then it may not speak
        if packet.final:
            mouth.interrupted = True
            if mouth.packet is not None and mouth.packet.poll:
                # Confirmed, and in use from now on.
                mouth.settled_us = min(mouth.settled_us, mouth.packet.desired_min_tx_us)
        ear.heard_us, ear.packet = at_us, packet
        if packet.poll and self.now_us - mouth.final_us >= FINAL_GAP_US + SLACK_US:
            ear.poll_us = self.now_us

    def _counts(self, machine: Machine, sender: Machine, packet: ControlPacket) -> bool:
        """§6.8.6: a packet meant for a former session is none."""
        config = self._configured(machine, sender.name)
        if config is None or machine.stopping:
            return False
        if packet.your_discriminator == 0:
            return packet.state in (State.DOWN, State.ADMIN_DOWN)
        return packet.your_discriminator == machine.host.session(config.name).local_discr

    def _witness_answers(self, machine: Machine) -> None:
        for name, ear in machine.ears.items():
            if ear.poll_us is not None and not machine.stopping and self._configured(machine, name):
                raise Violation(f"{machine.name} did not answer the poll of {name}")

    def _configured(self, machine: Machine, name: str) -> BfdInstance | None:
        address = self.machines[name].host.address
        return next((c for c in machine.host.configs if c.neighbor_address == address), None)

    def _witness_birth(self, machine: Machine, said_before: Mapping[str, ControlPacket | None]) -> None:
        """Whoever was away for longer than a neighbour waits is Down to that one, and may not say Up.

        ``said_before``: the last packet to each neighbour before the death; by that one it waits.
        """
        away_us = self.now_us - machine.died_us
        for name, said in said_before.items():
            config, ear, mouth = self._configured(machine, name), machine.ears[name], machine.mouths[name]
            if config is None or ear.packet is None or said is None:
                continue
            interval_us = max(said.desired_min_tx_us, config.min_tx_us, ear.packet.required_min_rx_us)
            settled_us = mouth.settled_us if mouth.settled_us < 1 << 60 else 0
            longest_us = max(said.detect_mult, config.multiplier) * max(interval_us, settled_us)
            if machine.host.session(config.name).is_up and away_us > longest_us + SLACK_US:
                raise Violation(f"{machine.name}: {config.name} is Up after {away_us} µs of death")

    def _witness_sent(self, machine: Machine, to: str, packet: ControlPacket) -> None:
        ear = machine.ears.setdefault(to, Ear())
        mouth = machine.mouths.setdefault(to, Mouth())
        config = self._configured(machine, to)
        say = f"{machine.name} to {to}: {packet}"
        if packet.demand or packet.required_min_echo_rx_us or packet.authentication:
            raise Violation(f"a bit we do not use: {say}")
        if packet.state is not State.UP and packet.desired_min_tx_us < SECOND:
            raise Violation(f"§6.8.3: fast while not Up: {say}")
        if packet.state is State.ADMIN_DOWN and config is not None:
            raise Violation(f"AdminDown without an administrator: {say}")
        if machine.stopping and (packet.state, packet.diagnostic) != (State.DOWN, Diagnostic.PATH_DOWN):
            raise Violation(f"stopping: {say}")
        if config is not None and config.passive and ear.packet is None:
            raise Violation(f"§6.1: passive, and speaks first: {say}")
        self._witness_discriminators(machine, to, packet, say)
        if packet.final:
            mouth.final_us, ear.poll_us = self.now_us, None
            if mouth.packet is not None and mouth.packet.state != packet.state:
                mouth.interrupted = True  # this one told the new state
                mouth.settled_us = packet.desired_min_tx_us
            return
        if not machine.stopping and config is not None:
            self._witness_pace(mouth, ear, packet, say)
        mouth.spoken_us, mouth.packet, mouth.interrupted = self.now_us, packet, False
        if not packet.poll:
            # After a Final the next poll sequence waits for a packet without one.
            may_wait = ear.packet is not None and ear.packet.final
            before_us = mouth.settled_us if may_wait else packet.desired_min_tx_us
            mouth.settled_us = min(before_us, packet.desired_min_tx_us)

    def _witness_discriminators(self, machine: Machine, to: str, packet: ControlPacket, say: str) -> None:
        ear, mouth = machine.ears[to], machine.mouths[to]
        theirs = ear.packet.my_discriminator if ear.packet is not None else 0
        if packet.your_discriminator not in (0, theirs):
            raise Violation(f"§6.8.7: not the discriminator they said: {say}")
        if mouth.packet is not None and packet.my_discriminator != mouth.packet.my_discriminator:
            raise Violation(f"another discriminator than before: {say}")
        if ear.packet is None:
            return
        least_us = ear.packet.detect_mult * ear.packet.desired_min_tx_us
        just_heard = self.now_us - ear.heard_us < least_us and ear.heard_us > machine.disturbed_us
        if just_heard and packet.your_discriminator != theirs:
            raise Violation(f"§6.8.6: heard them, and does not know them: {say}")
        if packet.your_discriminator == 0 or machine.stopping:
            return
        since_us = self.now_us - max(ear.heard_us, machine.disturbed_us)
        longest_us = ear.packet.detect_mult * max(
            ear.packet.desired_min_tx_us, slowest_us(self._configured(machine, to))
        )
        if packet.state is not State.UP and since_us > longest_us + SLACK_US:
            raise Violation(f"§6.8.1: a discriminator that should be forgotten: {say}")

    def _witness_pace(self, mouth: Mouth, ear: Ear, packet: ControlPacket, say: str) -> None:
        """§6.8.7: 75 to 100 % of the interval between two periodic packets (90 % with multiplier 1)."""
        before = mouth.packet
        if before is None or mouth.spoken_us is None or mouth.interrupted or before.state != packet.state:
            return
        their_min_rx_us = ear.packet.required_min_rx_us if ear.packet is not None else 1
        in_use_us = min(before.desired_min_tx_us, packet.desired_min_tx_us, mouth.settled_us)
        low_us = max(in_use_us, their_min_rx_us) * 3 // 4
        high_us = max(before.desired_min_tx_us, packet.desired_min_tx_us, their_min_rx_us)
        if packet.detect_mult == 1:
            high_us = high_us * 9 // 10
        gap_us = self.now_us - mouth.spoken_us
        heard_recently = self.now_us - ear.heard_us < RECENT_US
        if gap_us < low_us - 2 * LATENESS_US:
            raise Violation(f"§6.8.7: {gap_us} µs after the last, at least {low_us}: {say}")
        if gap_us > high_us + 2 * LATENESS_US and heard_recently:
            raise Violation(f"§6.8.7: {gap_us} µs after the last, at most {high_us}: {say}")

    def _witness_change(self, machine: Machine, change: SessionChanged) -> None:
        if change.old is not State.UP or machine.stopping:
            return
        self.losses += 1
        if self.forbid_losses:
            raise Violation(f"{machine.name} lost {change.session}: {change.reason}")
        if change.local_diagnostic == Diagnostic.DETECTION_TIME_EXPIRED:
            config = next(c for c in machine.host.configs if c.name == change.session)
            other = next(m for m in self.machines.values() if m.host.address == config.neighbor_address)
            ear = machine.ears[other.name]
            assert ear.packet is not None
            rx_us = min(config.min_rx_us, machine.min_rx_us.get(config.neighbor_address, 1 << 60))
            least_us = ear.packet.detect_mult * max(ear.packet.desired_min_tx_us, rx_us)
            if self.now_us - ear.heard_us < least_us:
                raise Violation(f"§6.8.4: lost after {self.now_us - ear.heard_us} of {least_us} µs")

    def audit(self) -> None:
        """What must hold at any moment."""
        for machine in self.machines.values():
            if not self._runs(machine) or machine.stopping:
                continue
            for config in machine.host.configs:
                session = machine.host.session(config.name)
                if machine.host.published[config.name].up != session.is_up:
                    raise Violation(f"{machine.name}: subscribers of {config.name} know something else")
                self._audit_detection(machine, config, session.is_up)

    def _audit_detection(self, machine: Machine, config: BfdInstance, is_up: bool) -> None:
        """§6.8.4: nobody is Up who has heard nothing for longer than any reading of the Detection Time."""
        other = next(m for m in self.machines.values() if m.host.address == config.neighbor_address)
        ear = machine.ears.get(other.name)
        if not is_up or ear is None or ear.packet is None:
            return
        silent_us = self.now_us - max(ear.heard_us, machine.disturbed_us)
        interval_us = max(ear.packet.desired_min_tx_us, slowest_us(config))
        if silent_us > (ear.packet.detect_mult + 1) * interval_us + SLACK_US:
            raise Violation(f"{machine.name}: {config.name} still Up after {silent_us} µs of silence")

    # At the end ------------------------------------------------------------------------------------------

    def assert_settled(self) -> None:
        """All are Up and have agreed on what their configurations say together."""
        for machine in self.machines.values():
            for config in machine.host.configs:
                self._assert_session_settled(machine, config)

    def _assert_session_settled(self, machine: Machine, config: BfdInstance) -> None:
        other = next(m for m in self.machines.values() if m.host.address == config.neighbor_address)
        theirs = next(c for c in other.host.configs if c.neighbor_address == machine.host.address)
        session = machine.host.session(config.name)
        intervals = session.intervals
        found = (
            session.state,
            intervals.transmit_interval_us,
            session.detection_time_us,
            intervals.polling,
        )
        here, there = session._congestion.interval_us, other.host.session(theirs.name)._congestion.interval_us
        wanted = (
            State.UP,
            max(here(config.min_tx_us), there(theirs.min_rx_us)),
            theirs.multiplier * max(here(config.min_rx_us), there(theirs.min_tx_us)),
            False,
        )
        if found != wanted:
            raise Violation(f"{machine.name}, {config.name}: {found} instead of {wanted}")
