"""Machines on two network segments under one virtual clock. Everything follows from one seed.

What goes wrong is done to it by ``faults.py``; what must hold is in ``witness.py`` (always) and ``judge.py``
(once it is calm).
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable

from kad.config.model.vrrp import VrrpInstance
from kad_vrrp.core.actions import SendAdvert, StateChanged
from tests.simulation.machine import Machine
from tests.simulation.routers import Plan, configurations
from tests.simulation.witness import Violation

TRANSCRIPT = 300
OVERLAP_US = 40_000
"""How long two masters may both be there while the one takes over from the other on a calm network."""


class World:
    """See the module."""

    def __init__(self, seed: int, count: int = 0) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now_us = 0
        self.transcript: deque[str] = deque(maxlen=TRANSCRIPT)
        self.history = 0
        """Of everything ever written into the transcript: equal seeds, equal numbers."""
        self.injected: Counter[str] = Counter()
        self.packets: Counter[str] = Counter()
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._numbered = 0
        self._answered_us: dict[int, int] = {}
        self.cut: set[tuple[str, int, int]] = set()
        """(interface, from, to) where nothing passes."""
        self.loss = 0.0
        self.duplication = 0.0
        self.disorder = 0.0
        self.least_delay_us, self.most_delay_us = 50, 500
        self.calm_since_us: int | None = None
        """From here on, no more than one master of any virtual router."""
        self.still_since_us: int | None = None
        """From here on, nothing happens at all."""
        self.risen: dict[str, tuple[int, Machine]] = {}
        """Who became master first since this was last cleared, and when."""
        self.plan = Plan.drawn(self.random, count)
        self.machines = [
            Machine(self, number, configurations(self.plan, number))
            for number in range(1, self.plan.count + 1)
        ]
        for machine in self.machines:
            self.plan.equip(machine)

    # Time ----------------------------------------------------------------------------------------------

    def at(self, when_us: int, what: Callable[[], None]) -> None:
        self._numbered += 1
        heapq.heappush(self._agenda, (when_us, self._numbered, what))

    def after(self, span_us: int, what: Callable[[], None]) -> None:
        self.at(self.now_us + span_us, what)

    def in_order(self, machine: Machine, span_us: int, what: Callable[[], None]) -> None:
        """After this span, and after everything before it of the same machine."""
        when_us = max(self.now_us + span_us, self._answered_us.get(machine.number, 0) + 1)
        self._answered_us[machine.number] = when_us
        self.at(when_us, what)

    def run_for(self, span_us: int) -> None:
        self.run_until(self.now_us + span_us)

    def run_until(self, until_us: int) -> None:
        agenda = self._agenda
        while agenda and agenda[0][0] <= until_us:
            when_us, _, what = heapq.heappop(agenda)
            if when_us > self.now_us:
                self.now_us = when_us
            what()
        self.now_us = max(self.now_us, until_us)

    # The wire ------------------------------------------------------------------------------------------

    def carrier(self, sender: Machine) -> Callable[[SendAdvert], None]:
        """What takes a machine's adverts to the others."""

        def carry(advert: SendAdvert) -> None:
            transport = sender.transports[advert.transport]
            if advert.transport in sender.broken or not sender.has_carrier(transport.interface):
                return
            self.packets["sent"] += 1
            interface = transport.interface
            key = (interface, transport.family, transport.protocol, advert.destination)
            for receiver in self.machines:
                if receiver is sender or (interface, sender.number, receiver.number) in self.cut:
                    continue
                self._send(receiver, key, advert)

        return carry

    def _send(self, receiver: Machine, key: tuple[str, int, int, str], advert: SendAdvert) -> None:
        chance = self.random.random
        if self.loss and chance() < self.loss:
            self.packets["lost"] += 1
            return
        copies = 1
        if self.duplication and chance() < self.duplication:
            self.packets["duplicated"] += 1
            copies = 2
        for _ in range(copies):
            delay_us = int(self.least_delay_us + chance() * (self.most_delay_us - self.least_delay_us))
            if self.disorder and chance() < self.disorder:
                self.packets["reordered"] += 1
                delay_us += int(chance() * self.plan.longest_interval_us * 2)
            self.at(self.now_us + delay_us, lambda: self._arrive(receiver, key, advert))

    def _arrive(self, receiver: Machine, key: tuple[str, int, int, str], advert: SendAdvert) -> None:
        if receiver.has_carrier(key[0]):
            receiver.receive(key, advert.data, advert.source)

    def connected(self) -> bool:
        """Whether all hear each other, as far as they listen."""
        return not self.cut and not self.loss

    # What is seen --------------------------------------------------------------------------------------

    def say(self, machine: Machine | None, text: str) -> None:
        who = machine.label if machine is not None else "--"
        line = f"{self.now_us / 1_000_000:12.6f} {who} {text}"
        self.transcript.append(line)
        self.history = (self.history * 31 + sum(map(ord, line)) * len(line)) % (1 << 61)

    def changed_state(self, machine: Machine, action: StateChanged) -> None:
        text = f"{action.instance} {action.old.value}->{action.new.value} {action.priority}: {action.reason}"
        self.say(machine, text)
        if action.new.value == "MASTER":
            self.risen.setdefault(action.instance, (self.now_us, machine))
        if self.still_since_us is not None:
            raise Violation(f"{machine.label}: while nothing happens, {text}")
        if self.calm_since_us is not None and action.new.value == "MASTER":
            since_us = self.calm_since_us
            self.after(OVERLAP_US, lambda: self._expect_one_master(action.instance, since_us))

    def _expect_one_master(self, name: str, calm_since_us: int) -> None:
        if self.calm_since_us == calm_since_us and len(self.masters(name)) > 1:
            found = " and ".join(machine.label for machine in self.masters(name))
            raise Violation(f"{name} has two masters on a calm network: {found}")

    def masters(self, name: str) -> list[Machine]:
        return [m for m in self.machines if m.responsive and m.states.get(name) == "MASTER"]

    @property
    def names(self) -> list[str]:
        return [config.name for config in configurations(self.plan, 1)]


def config_of(machine: Machine, name: str) -> VrrpInstance | None:
    return next((config for config in machine.configs if config.name == name), None)
