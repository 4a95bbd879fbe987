"""A network of make-believe machines on one virtual clock: lossy, delayed, partitioned, and repeatable.

Everything random comes from one seed; two runs with the same seed write the same transcript, byte for byte.
"""

import heapq
import random
from collections.abc import Callable

from kad.config.model.vrrp import VrrpInstance
from kad_vrrp.core.actions import Action, SendAdvert, StateChanged
from kad_vrrp.core.context import EngineSettings
from kad_vrrp.core.events import AdvertReceived, TimeReached
from tests.support.vrrp_host import ORDINARY, SECOND, Host, link

RECEIVE_BUFFER = 200
"""Packets a socket holds for a process that does not run."""


class Node(Host):
    """One router: a host with an address on the network."""

    def __init__(self, number: int, *configs: VrrpInstance) -> None:
        self.number = number
        self.address = f"10.0.0.{number}"
        super().__init__(*configs, links=[link(address=self.address)], now_us=0)
        self.alive = False
        self.stalled_until_us = 0
        self.arrived: list[AdvertReceived] = []
        self.transitions: list[tuple[int, str, str]] = []
        """(when, old, new)."""

    @property
    def runs(self) -> bool:
        return self.alive and self.stalled_until_us <= self.now_us

    @property
    def is_master(self) -> bool:
        return self.alive and self.state(self.configs[0].name) == "MASTER"


class Network:
    """Nodes on one segment. Delivery takes between ``least_delay_us`` and ``most_delay_us``."""

    def __init__(self, seed: int, nodes: list[Node]) -> None:
        self.random = random.Random(seed)
        self.nodes = nodes
        self.now_us = 0
        self.loss = 0.0
        self.least_delay_us, self.most_delay_us = 50, 500
        self.cut: set[frozenset[int]] = set()
        """Pairs of nodes that do not hear each other."""
        self.transcript: list[str] = []
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._numbered = 0
        for node in nodes:
            node.on_advert = self._sender(node)
            node.on_action = self._witness(node)

    # What may happen -----------------------------------------------------------------------------------

    def at(self, when_us: int, what: Callable[[], None]) -> None:
        self._numbered += 1
        heapq.heappush(self._agenda, (when_us, self._numbered, what))

    def start(self, node: Node, settings: EngineSettings = ORDINARY) -> None:
        node.now_us = self.now_us
        node.alive = True
        node.stalled_until_us = 0
        node.arrived.clear()
        node.boot(settings)

    def crash(self, node: Node, *, whole_machine: bool = False) -> None:
        """kill -9 of the process; the kernel keeps its addresses unless the machine is gone."""
        node.alive = False
        if whole_machine:
            node.kernel.clear()
            node.journal.clear()
            node.stamps.clear()

    def stall(self, node: Node, span_us: int) -> None:
        """SIGSTOP: packets wait in the socket, timers do not."""
        node.stalled_until_us = self.now_us + span_us
        self.at(node.stalled_until_us, lambda: None)

    def partition(self, one: Node, other: Node) -> None:
        self.cut.add(frozenset((one.number, other.number)))

    def heal(self) -> None:
        self.cut.clear()
        self.loss = 0.0

    # Time ----------------------------------------------------------------------------------------------

    def run_for(self, span_us: int) -> None:
        self.run_until(self.now_us + span_us)

    def run_until(self, until_us: int) -> None:
        """Every node wakes exactly when its engine asks to, packets before timers."""
        while True:
            next_us = min((self._deadline_us(node) for node in self.nodes), default=until_us + 1)
            if self._agenda:
                next_us = min(next_us, self._agenda[0][0])
            if next_us > until_us:
                break
            self.now_us = max(self.now_us, next_us)
            while self._agenda and self._agenda[0][0] <= self.now_us:
                heapq.heappop(self._agenda)[2]()
            for node in self.nodes:
                self._wake(node)
        self.now_us = until_us

    def _deadline_us(self, node: Node) -> int:
        if not node.alive:
            return 1 << 62
        deadline_us = node.engine.deadline_us
        deadline_us = 1 << 62 if deadline_us is None else deadline_us
        return max(deadline_us, node.stalled_until_us)

    def _wake(self, node: Node) -> None:
        if not node.alive or node.stalled_until_us > self.now_us:
            return
        node.now_us = self.now_us
        waiting, node.arrived = node.arrived, []
        for event in waiting:
            node.tell(event)
        deadline_us = node.engine.deadline_us
        if deadline_us is not None and deadline_us <= self.now_us:
            node.tell(TimeReached())

    # The wire ------------------------------------------------------------------------------------------

    def _sender(self, sender: Node) -> Callable[[SendAdvert], None]:
        def send(advert: SendAdvert) -> None:
            for receiver in self.nodes:
                if receiver is sender or frozenset((sender.number, receiver.number)) in self.cut:
                    continue
                if self.random.random() < self.loss:
                    continue
                delay_us = self.random.randint(self.least_delay_us, self.most_delay_us)
                self.at(self.now_us + delay_us, self._delivery(receiver, sender.address, advert.data))

        return send

    def _delivery(self, receiver: Node, source: str, data: bytes) -> Callable[[], None]:
        def deliver() -> None:
            if receiver.alive and len(receiver.arrived) < RECEIVE_BUFFER:
                receiver.arrived.append(AdvertReceived(1, data, source))

        return deliver

    def _witness(self, node: Node) -> Callable[[Action], None]:
        def see(action: Action) -> None:
            if isinstance(action, StateChanged):
                node.transitions.append((self.now_us, action.old.value, action.new.value))
                line = f"{self.now_us} {node.number} {action.old.value}->{action.new.value} {action.reason}"
                self.transcript.append(line)

        return see

    # Judgement -----------------------------------------------------------------------------------------

    @property
    def masters(self) -> list[Node]:
        return [node for node in self.nodes if node.is_master]

    def holders(self, address: str) -> list[Node]:
        """Who answers for an address: the kernel of every machine that has it, running process or not."""
        return [node for node in self.nodes if address in node.addresses]


def master_down_us(config: VrrpInstance) -> int:
    """The master-down interval of this node by RFC 9568 §6.1."""
    return 3 * config.advert_int_us + (256 - config.priority) * config.advert_int_us // 256


CALM_US = 5 * SECOND
"""Longer than any master-down interval at 1 s."""
