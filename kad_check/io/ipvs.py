"""The one writer of the IPVS table: brings it to what the engine wants, and never touches what is not ours.

At the start, and whenever IPVS appears, the kernel's table is read first, then compared with what is
wanted. After that our own knowledge counts: what others do to our entries is noticed by a sweep now and
then, logged, and left until that server's own next change (or put back at once, where that is wanted).

Ours are the services the configuration names and those the journal says we made. A kernel without IPVS is
asked once to load it and said so once; what is wanted is kept and programmed when it appears.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from kad.addresses import unpacked
from kad.config.model.check import CheckSettings
from kad.ipc.link import Reactor
from kad.kernel.batch import ReceiveBuffer, RequestQueue
from kad.kernel.genetlink import PROTOCOL
from kad.kernel.ipvs import DaemonState, ServiceKey
from kad.kernel.ipvs_requests import flush
from kad.runtime import logs
from kad.runtime.clock import monotonic_us
from kad.runtime.namespace import inside_network_namespace
from kad_check.core.actions import ChangeDestinations, ReplaceServices, WithdrawServices
from kad_check.core.events import DestinationRefused, Event, ServicesDone
from kad_check.core.ipvs_plan import (
    Actual,
    Change,
    Desired,
    Pool,
    destination_entry,
    placed,
    plan,
    plan_service,
)
from kad_check.core.ipvs_state import PoolState
from kad_check.io.ipvs_chores import Chore, apply_daemons, apply_timeouts, daemons_of, guarded, read_table
from kad_check.io.ipvs_presence import Presence
from kad_check.io.ipvs_record import Journal, OwnServices
from kad_check.io.ipvs_sweep import Statistics, Sweep
from kad_check.io.ipvs_worker import Task, Worker

SWEEP_INTERVAL_S = 10.0
SWEEP_SHARE = 50
"""The pause after a sweep is at least so many times as long as it took."""
_ABSENT = "IPVS is not available"
_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 10.0
"""Before the table is read once more, where once did not do; longer every time."""
_CALM_US = 60_000_000
"""Without losses so long, the first pause is none again."""


class Ipvs:
    """``feed`` takes the events for the engine. ``recorded``: what the journal held when this life began.

    :meth:`start` once; :meth:`configure` before the first action; then the engine's actions at any time.
    """

    def __init__(
        self,
        feed: Callable[[Event], None],
        journal: Journal,
        recorded: Mapping[str, bytes],
        *,
        keep_at_stop: bool = False,
        put_back: bool = False,
        sweep_interval_s: float = SWEEP_INTERVAL_S,
    ) -> None:
        self._feed = feed
        self._own = OwnServices(journal, recorded)
        self._keep_at_stop = keep_at_stop
        self._sweep_interval_s = sweep_interval_s
        self._settings = CheckSettings()
        self._pools: tuple[PoolState, ...] = ()
        self._is_master: bool | None = None
        """The instance that the sync daemon follows; None: not known yet."""
        self._flush_due = False
        self._known = False
        """The kernel's table has been read."""
        self._reading = False
        self._held: list[Task] = []
        """Until the table has been read, or there is none."""
        self._replacing = 0
        self._next_reading: asyncio.TimerHandle | None = None
        self._pause_s = 0.0
        self._lost_us = -_CALM_US
        self._sweep = Sweep(logs.warning, self._restore if put_back else None)
        self._next_sweep: asyncio.TimerHandle | None = None
        self._asking: list[Callable[[Statistics], None]] = []
        self._absence_told = False

    def start(self, reactor: Reactor, namespace: str | None = None) -> None:
        """``namespace``: where IPVS is, as net_namespace_ipvs says; None: here."""
        self._reactor = reactor
        problem = ""
        try:
            with contextlib.nullcontext() if namespace is None else inside_network_namespace(namespace):
                self._open(reactor)
        except (OSError, ValueError) as error:
            if namespace is None:
                raise
            problem = f"network namespace {namespace}: {error}"
            self._open(reactor)
        reactor.add_reader(self._requests.fileno(), self._requests.drain)
        reactor.add_reader(self._presence.monitor.fileno(), self._presence.monitor.drain)
        if problem:
            self._presence.give_up(problem)
        else:
            self._presence.begin()

    def _open(self, reactor: Reactor) -> None:
        self._requests = RequestQueue(PROTOCOL)
        self._worker = Worker(self._requests, reactor.loop, logs.warning, self._lost)
        self._presence = Presence(reactor.loop, self._requests, self._found)

    def close(self) -> None:
        for timer in (self._next_sweep, self._next_reading):
            if timer is not None:
                timer.cancel()
        for descriptor in (self._requests.fileno(), self._presence.monitor.fileno()):
            self._reactor.remove_reader(descriptor)
        self._presence.close()
        self._requests.close()

    @property
    def available(self) -> bool:
        """This kernel has IPVS now."""
        return self._worker.family != 0

    def counters(self) -> dict[str, int]:
        """For status."""
        return {
            "ipvs_commands": self._worker.commands,
            "ipvs_changed_by_others": self._sweep.differences,
            "ipvs_records_refused": self._own.refused,
        }

    # What the engine wants -------------------------------------------------------------------------------

    def replace(self, action: ReplaceServices) -> None:
        """The whole desired state. ServicesDone follows, possibly from within this call."""
        self._own_pools(action.pools)
        if action.first and self._settings.flush and self._own.is_first_life:
            self._flush_due = True
        self._replacing += 1
        self._place(Task(lambda task: self._replaced(action.serial, task), self._refused))

    def _own_pools(self, pools: tuple[PoolState, ...]) -> None:
        self._own.claim(pools)
        self._pools = pools
        self._worker.desired = Desired(pools, self._worker.desired)

    def _replaced(self, serial: int, task: Task) -> None:
        self._replacing -= 1
        if not self._replacing and not task.failures:
            self._own.settle(self._pools)
        self._feed(ServicesDone(serial, tuple(task.failures)))

    def _refused(self, change: Change, reason: str) -> None:
        """Part of a whole plan: people hear of all its failures in another way."""
        if change.destination is None:
            return
        for pool in self._worker.desired.pools_of(change.service):
            entry = pool.origin(change.service, change.destination)
            if entry is not None:
                self._feed(DestinationRefused(pool.name, unpacked(entry.address), entry.port, reason, True))

    def change(self, action: ChangeDestinations) -> None:
        """Destinations of one pool. A pool that is no longer there has none to change."""
        pool = self._worker.desired.pools.get(action.pool)
        if pool is None:
            return
        entries = []
        for destination in action.put:
            entries.append(destination_entry(destination))
            pool.put(entries[-1])
        for destination in action.remove:
            entries.append(destination_entry(destination))
            pool.remove(entries[-1].key)
        if not self._known:
            # Nothing was sent yet: what is sent will be according to this.
            return
        of_entry = {
            Change(service.key, placed(service.key, entry).key): entry.key
            for service in pool.services
            for entry in entries
        }
        told: set[object] = set()

        def refused(change: Change, reason: str) -> None:
            key = of_entry.get(change)
            if key is not None and key not in told:
                told.add(key)
                self._feed(DestinationRefused(action.pool, unpacked(key[0]), key[1], reason))

        self._worker.add(Task(lambda _: None, refused), list(of_entry), urgent=True)

    def withdraw(self, action: WithdrawServices) -> None:
        """The daemon stops. ServicesDone follows."""
        self._stop_sweeping()
        if self._keep_at_stop or (self._presence.settled and not self.available):
            self._feed(ServicesDone(action.serial))
            return
        if self._settings.flush_on_stop == "all":
            self._flush_due = True
            self._known = False
        self._settings = CheckSettings()
        self._pools = ()
        self._worker.desired = Desired()
        if self.available:
            self._worker.run(self._daemons(), logs.warning)
        self._replacing += 1
        self._place(Task(lambda task: self._replaced(action.serial, task)))

    # Settings --------------------------------------------------------------------------------------------

    def configure(self, settings: CheckSettings) -> None:
        """What global_defs says. Before the actions that belong to the same generation."""
        self._settings = settings
        buffers = settings.netlink
        self._requests.set_receive_buffer(ReceiveBuffer(buffers.command, buffers.command_force))
        if self.available:
            self._worker.run(self._timeouts(), logs.warning)
            self._worker.run(self._daemons(), logs.warning)

    def follow_instance(self, master: bool) -> None:
        """Whether the VRRP instance that lvs_sync_daemon names is master."""
        self._is_master = master
        if self.available:
            self._worker.run(self._daemons(), logs.warning)

    def _timeouts(self) -> Chore:
        return apply_timeouts(self._worker.family, self._settings.timeouts, self._own, logs.warning)

    def _daemons(self) -> Chore:
        configured = self._settings.sync_daemon
        master = self._is_master
        if master is None:
            # A life before this one left what was right then; the VRRP process will say in a moment.
            master = [daemon.state for daemon in self._own.general.daemons] == [DaemonState.MASTER]
        wanted = daemons_of(configured, master)
        return apply_daemons(self._worker.family, wanted, self._own, logs.warning)

    # IPVS comes and goes ---------------------------------------------------------------------------------

    def _found(self, family: int) -> None:
        self._known = self._reading = False
        if not family:
            self._worker.disappear("IPVS went away")
            self._stop_sweeping()
            self._answer_statistics()
            self._tell_absence()
            held, self._held = self._held, []
            for task in held:
                self._give_up(task, _ABSENT)
            return
        if self._absence_told:
            self._absence_told = False
            logs.info("IPVS has appeared: it is programmed now")
        self._worker.appear(family)
        self._worker.run(self._timeouts(), logs.warning)
        self._worker.run(self._daemons(), logs.warning)
        if self._held:
            self._read()
        elif self._pools:
            self._place(Task(self._recovered, self._refused))

    def _tell_absence(self) -> None:
        if not self._absence_told:
            self._absence_told = True
            why = self._presence.why_absent
            because = f" ({why})" if why else ""
            logs.warning(
                f"IPVS is not available{because}: checks and notifications go on, "
                "and virtual servers are programmed as soon as it appears"
            )

    def _lost(self) -> None:
        """The kernel had no room for its answers, or for what was asked: nobody knows what was done."""
        self._known = False
        self._read_later()

    def _read_later(self) -> None:
        """What the kernel has is not known, and nothing is changed until it is."""
        if self._next_reading is not None:
            return
        now_us = monotonic_us()
        calm = now_us - self._lost_us >= _CALM_US
        self._pause_s = 0.0 if calm else min(max(_PAUSE_S, 2 * self._pause_s), _LONGEST_PAUSE_S)
        self._lost_us = now_us
        self._next_reading = self._reactor.loop.call_later(self._pause_s, self._read_again)

    def _read_again(self) -> None:
        self._next_reading = None
        if self.available and not self._known and not self._reading:
            self._place(Task(self._recovered, self._refused))

    def _recovered(self, task: Task) -> None:
        for failure in task.failures:
            logs.error(f"IPVS: {failure}")

    # Reading, then planning ------------------------------------------------------------------------------

    def _place(self, task: Task) -> None:
        """Have the differences worked off for this task, as soon as they can be known."""
        if self._presence.settled and not self.available:
            self._give_up(task, _ABSENT)
        elif self._known:
            self._plan(task)
        else:
            self._held.append(task)
            if self._presence.settled and not self._reading:
                self._read()

    @staticmethod
    def _give_up(task: Task, reason: str) -> None:
        task.fail(reason)
        task.complete = True
        task.finish_if_idle()

    def _plan(self, task: Task) -> None:
        worker = self._worker
        worker.add(task, plan(worker.desired, worker.actual, worker.actual))
        self._sweep_later(self._sweep_interval_s)

    def _read(self) -> None:
        self._reading = True
        self._worker.run(self._reading_chore(), logs.error)

    def _reading_chore(self) -> Chore:
        family = self._worker.family
        if self._flush_due:
            self._flush_due = False
            outcome = (yield [flush(family)])[0]
            if outcome.error:
                logs.error(f"IPVS: the table cannot be emptied: {outcome.reason}")
        ours = {*self._worker.desired.services, *self._own.service_keys()}
        table: Actual = {}
        failures: list[str] = []
        yield from guarded(read_table(family, ours, table, failures.append), failures.append)
        self._reading = False
        held, self._held = self._held, []
        if failures:
            logs.error(f"IPVS: the table cannot be read: {failures[0]}")
            for task in held:
                self._give_up(task, failures[0])
            self._read_later()
            return
        self._worker.actual = table
        self._known = True
        for task in held:
            self._plan(task)

    # What others do, and counters ------------------------------------------------------------------------

    def ask_statistics(self, done: Callable[[Statistics], None]) -> None:
        """Read what the kernel has counted for our services; ``done`` gets it, in a moment."""
        self._asking.append(done)
        if not self.available or not self._known:
            self._answer_statistics()
        elif not self._worker.sweeping:
            self._start_sweep()

    def pools_of(self, key: ServiceKey) -> list[Pool]:
        """The virtual servers that want this service."""
        return self._worker.desired.pools_of(key)

    def _start_sweep(self) -> None:
        self._stop_sweeping()
        if self._known and not self._worker.sweeping:
            self._worker.sweep(self._sweeping())
        else:
            self._sweep_later(self._sweep_interval_s)

    def _sweeping(self) -> Chore:
        began_us = monotonic_us()
        collect = bool(self._asking)
        yield from self._sweep.run(self._worker.family, self._worker.actual, collect=collect)
        took_s = (monotonic_us() - began_us) / 1e6
        if collect:
            self._answer_statistics()
        pause = max(self._sweep_interval_s, took_s * SWEEP_SHARE)
        self._sweep_later(0.0 if self._asking else pause)

    def _answer_statistics(self) -> None:
        asking, self._asking = self._asking, []
        statistics = self._sweep.statistics if self.available else ()
        for done in asking:
            done(statistics)

    def _sweep_later(self, seconds: float) -> None:
        if self._next_sweep is None:
            self._next_sweep = self._reactor.loop.call_later(seconds, self._start_sweep)

    def _stop_sweeping(self) -> None:
        if self._next_sweep is not None:
            self._next_sweep.cancel()
            self._next_sweep = None

    def _restore(self, key: ServiceKey) -> None:
        worker = self._worker
        if key in worker.desired.services:
            worker.add(
                Task(self._recovered, self._refused), list(plan_service(worker.desired, worker.actual, key))
            )
