"""The BFD child: engine, shell and driver wired together.

It opens UDP sockets and the link to its subscribers, and nothing else: no netlink, no scripts. A reborn child
goes on where its journal says the last one stopped; the neighbours see nothing when it is back in time.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

import msgspec

from kad.config.slices import decode_bfd
from kad.errors import ExitStatus
from kad.ipc.bfd_feed import BfdPublisher
from kad.ipc.child_link import ChildLink
from kad.ipc.reports import ProcessReport
from kad.runtime import logs
from kad.runtime.clock import monotonic_us
from kad.runtime.driver import Driver
from kad.runtime.heartbeat import Phase
from kad.runtime.process import ChildContext
from kad.runtime.processors import shorten_slice
from kad.units import NEVER
from kad_bfd.core.actions import Action, SendPacket
from kad_bfd.core.engine import Engine
from kad_bfd.core.events import ConfigurationChanged, Event, StopRequested, TimeReached
from kad_bfd.core.rehearsal import ACTS, WARM, Rehearsal
from kad_bfd.io.shell import Shell

SEED_BYTES = 32
ROUND_GAP_S = 0.02
REHEARSAL_GAP_S = 0.5
"""Before the next one is set up. Neighbours that are often nearly lost do not keep everybody busy."""


def main(context: ChildContext) -> int:
    """The whole life of the child; the exit status."""
    if context.withdraw:
        return ExitStatus.OK
    return BfdChild(context).run()


class BfdChild:
    """One life of the BFD process."""

    def __init__(self, context: ChildContext) -> None:
        self._context = context
        self._heartbeat = context.journal.heartbeat(context.role)
        self._stopping = False
        self._rehearsal = Rehearsal()
        self._eve_us = 0
        """When the loss is due that is prepared for."""
        self._records = records = context.journal.records(context.role)
        # The page still says when the former life last turned.
        silent_us = monotonic_us() - self._heartbeat.ticked_at_us
        seed = int.from_bytes(os.urandom(SEED_BYTES), "big")
        self._engine = Engine(seed, records.load(), silent_us)
        self._shell = Shell(
            records,
            on_stopped=self._leave,
            longest_patience_us=lambda: self._engine.longest_patience_us,
            is_alive=self._heartbeat.tick,
        )
        self._driver: Driver[Event, Action] = Driver(
            self._engine, self._shell.perform, self._heartbeat, TimeReached(), quiet=SendPacket
        )
        self._link = ChildLink(
            context,
            self._driver,
            on_prepare=prepare,
            on_apply=self._apply,
            report=self._report,
        )

    def run(self) -> int:
        shorten_slice()
        self._driver.loop.add_signal_handler(signal.SIGTERM, self._stop)
        self._shell.attach(self._driver)
        self._driver.prepare(self._next_loss_us, self._rouse, self._rouse_again)
        self._driver.loop.call_later(REHEARSAL_GAP_S, self._set_up_a_loss, WARM)
        self._link.start()
        self._heartbeat.phase = Phase.READY
        self._driver.run()
        self._shell.close()
        self._link.close()
        return ExitStatus.OK

    def _apply(self, generation: int, slice_: Mapping[str, bytes]) -> None:
        self._driver.feed(ConfigurationChanged(generation, decode_bfd(slice_).instances))
        if self._shell.publisher is None:
            self._shell.open_publisher(BfdPublisher(self._context, self._driver))
        self._link.applied(generation)

    def _next_loss_us(self) -> int:
        loss_us = self._engine.loss_us
        return loss_us if self._rehearsal.is_ready or loss_us == self._eve_us else NEVER

    def _set_up_a_loss(self, rounds: int = 0) -> None:
        """What is to be rehearsed next, when there is time. ``rounds`` are played before."""
        self._rehearsal.renew()
        if rounds:
            self._rehearsal.play()
        if rounds or not self._rehearsal.is_ready:
            self._driver.loop.call_later(ROUND_GAP_S, self._set_up_a_loss, max(0, rounds - 1))

    def _rouse(self) -> None:
        """Have everything ready that a loss will set going, here and at those who follow the session."""
        self._eve_us = self._engine.loss_us
        self._play()
        self._driver.loop.call_later(REHEARSAL_GAP_S, self._set_up_a_loss)

    def _rouse_again(self) -> None:
        if self._engine.loss_us == self._eve_us:
            self._play()

    def _play(self) -> None:
        if self._shell.publisher is not None:
            self._shell.publisher.rouse(self._eve_us)
        for _ in range(ACTS // 2):
            self._rehearsal.play()
            # Who looks out with us goes to sleep when we seem to.
            self._heartbeat.tick(monotonic_us())
        self._records.rehearse()

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._heartbeat.phase = Phase.STOPPING
        logs.info("Stopping")
        self._driver.feed(StopRequested(administrative=self._heartbeat.is_dismissed))

    def _leave(self) -> None:
        """Every neighbour was told."""
        self._driver.stop()

    def _report(self) -> bytes:
        lateness = self._driver.lateness
        process = ProcessReport(
            deadlines=lateness.deadlines,
            late=dict(zip(map(str, lateness.LIMITS_US), lateness.over, strict=True)),
            worst_late_us=lateness.worst_us,
            counters=self._shell.counters(),
            causes=tuple(self._shell.causes),
        )
        return msgspec.msgpack.encode(msgspec.structs.replace(self._engine.report(), process=process))


def prepare(slice_: Mapping[str, bytes]) -> str:
    """Whether a generation could be run: it can when it decodes. What it lacks here only keeps it Down."""
    try:
        decode_bfd(slice_)
    except msgspec.MsgspecError as error:
        return f"the BFD part does not decode: {error}"
    return ""
