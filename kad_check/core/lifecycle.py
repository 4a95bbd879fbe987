"""Start, reload, restart after a crash, and stop: the set of pools over time. Pure.

The three beginnings are one path: pools and servers that are known go on as they are, whether a reload or
the journal knows them; the others begin anew; what is not wanted any more goes. The kernel then hears the
whole desired state, and only after it those who are to be told.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from kad.config.model.check import (
    BfdCheck,
    CheckConfiguration,
    Checker,
    RealServer,
    VirtualServer,
    VirtualServerGroup,
)
from kad.units import NEVER
from kad_check.core.actions import (
    Forget,
    LogLevel,
    Remember,
    ReplaceServices,
    ServerChanged,
    Stopped,
    WithdrawServices,
)
from kad_check.core.checker import CheckerState, alpha_of, identity_of, parameters_of
from kad_check.core.events import ConfigurationChanged, MarkingDone, ServicesDone
from kad_check.core.marking import Marking
from kad_check.core.notices import pool_line, server_line, tell_fifo
from kad_check.core.pool import Pool
from kad_check.core.quorum import QuorumNews
from kad_check.core.record import (
    MARKS_KEY,
    RECORD_VERSION,
    STARTED_KEY,
    PoolRecord,
    ServerRecord,
    StartedRecord,
    decode,
    encode,
    is_ours,
)
from kad_check.core.registry import Registry
from kad_check.core.server import Key, RealServerState
from kad_check.core.texts import server_name

STOP_LIMIT_US = 2_000_000
"""How long the kernel may take to give everything back before the process leaves anyway."""


class _Telling(Struct):
    """Who is to be told of what, once the kernel has heard."""

    pool: Pool
    servers: list[RealServerState]
    news: QuorumNews | None


class Lifecycle:
    """``remembered``: the journal's records, read at birth."""

    def __init__(self, registry: Registry, remembered: Mapping[str, bytes]) -> None:
        self._registry = registry
        self._context = registry.context
        self._remembered = {key: record for key, record in remembered.items() if is_ours(key)}
        started = decode(remembered.get(STARTED_KEY), StartedRecord)
        self._resumed: StartedRecord | None = started if isinstance(started, StartedRecord) else None
        self._marking = Marking(self._context, remembered)
        self._awaited = 0
        """Serial number of the answer of the kernel that is waited for; 0: none."""
        self._stopping = False
        self._stop_limit_us = NEVER
        self._stopped = False

    @property
    def settled(self) -> bool:
        """Whether the kernel has answered everything that was asked of the whole state."""
        return not self._awaited and not self._marking.awaiting

    @property
    def stopping(self) -> bool:
        return self._stopping

    @property
    def deadline_us(self) -> int:
        return self._stop_limit_us

    def configure(self, event: ConfigurationChanged, now_us: int) -> None:
        """Become this configuration."""
        context, registry = self._context, self._registry
        first = not context.generation
        context.generation = event.generation
        context.globals = event.configuration.settings
        registry.files = {file.name: file for file in event.configuration.files}
        self._forget_sessions(event.configuration)
        self._marking.configure(event.configuration)
        wanted = named_pools(event.configuration)
        tellings = [
            self._remove_pool(pool, now_us)
            for name in list(registry.pools)
            if name not in wanted and (pool := registry.drop_pool(name)) is not None
        ]
        before = _known_servers(event.previous)
        for name, (config, group) in wanted.items():
            pool = registry.drop_pool(name)
            if pool is None:
                telling = self._begin_pool(name, config, group, now_us, first, event.generation, before)
            elif pool.is_steady(config, group):
                registry.add_pool(pool)
                continue
            else:
                telling = self._alter_pool(pool, config, group, now_us)
            registry.add_pool(telling.pool)
            tellings.append(telling)
        self._forget_strangers()
        context.emit(Remember(STARTED_KEY, encode(StartedRecord(RECORD_VERSION, event.generation))))
        self._awaited = context.next_serial()
        states = tuple(pool.state() for pool in registry.pools.values())
        context.emit(ReplaceServices(self._awaited, states, first and self._resumed is None))
        for telling in tellings:
            _tell(telling)

    def services_done(self, event: ServicesDone) -> None:
        """Marks come after what they lead to."""
        if event.serial != self._awaited:
            return
        self._awaited = 0
        if self._stopping:
            self._marking.withdraw()
        else:
            self._marking.put()
        self._leave_if_done()

    def marking_done(self, event: MarkingDone) -> None:
        self._marking.done(event)
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        if self._stopping and self.settled:
            self._leave()

    # Beginnings ------------------------------------------------------------------------------------------

    def _begin_pool(
        self,
        name: str,
        config: VirtualServer,
        group: VirtualServerGroup | None,
        now_us: int,
        first: bool,
        generation: int,
        before: dict[str, set[Key]],
    ) -> _Telling:
        """A pool that this life of the process does not know."""
        pool = Pool(self._context, name, config, group, self._marking.mark_of(config, group))
        resumed = self._resumed if first else None
        known = before.get(name, set()) if resumed and resumed.generation != generation else None
        told = []
        for each in config.real_servers:
            server = self._registry.create_server(pool, each)
            pool.servers[server.key] = server
            if resumed is None or (
                known is not None and server.key not in known and not self._recalls(server)
            ):
                self._begin_server(server, now_us, at_start=first)
                if server.alive and self._context.globals.rs_init_notifies:
                    server.notices.ask(self._context, server.health, server.script)
                    told.append(server)
            elif self._resume_server(server, now_us):
                told.append(server)
            server.remember()
        if resumed is not None:
            self._resume_pool(pool)
        pool.recount()
        return self._judge(pool, told, now_us)

    def _begin_server(self, server: RealServerState, now_us: int, *, at_start: bool) -> None:
        """A server nobody knew: up until a check fails, or with alpha down until one succeeds."""
        server.since_us = now_us
        server.alive = not server.is_failing
        server.weigh()
        for checker in server.checkers:
            if not at_start:
                # keepalived believes the first failure only at start.
                checker.retries = 0
            self._registry.schedule(checker, now_us, resumed=False)

    def _recalls(self, server: RealServerState) -> bool:
        return server.record_key in self._remembered

    def _resume_server(self, server: RealServerState, now_us: int) -> bool:
        """As the former life left it. True: it is in another state now (a file changed meanwhile)."""
        record = decode(self._remembered.get(server.record_key), ServerRecord)
        fresh: list[CheckerState] = []
        if isinstance(record, ServerRecord):
            fresh = server.restore(record)
            self._place_fresh(server, fresh, now_us)
        else:
            server.assume_usual()
            server.since_us = now_us
        for checker in server.checkers:
            self._registry.look_at_news(checker)
            if checker not in fresh:
                self._registry.schedule(checker, now_us, resumed=True)
        server.weigh()
        return self._settle_server(server, now_us)

    def _resume_pool(self, pool: Pool) -> None:
        record = decode(self._remembered.get(pool.record_key), PoolRecord)
        if isinstance(record, PoolRecord):
            pool.recorded = True
            pool.has_quorum = record.has_quorum
            pool.sorry_in_use = record.sorry_in_use and pool.config.sorry_server is not None
            pool.since_us = record.since_us
            pool.notices.restore(self._context, record.owed)
        else:
            pool.has_quorum = True

    def _settle_server(self, server: RealServerState, now_us: int) -> bool:
        """Up when no checker of it says otherwise. True: that changed it."""
        alive = not server.is_failing
        if server.alive == alive:
            return False
        server.alive = alive
        server.since_us = now_us
        server.notices.ask(self._context, server.health, server.script)
        title = server.pool.title
        server.pool.log_server(server)
        self._context.emit(ServerChanged(title, server.name, server.health, "its checkers were changed"))
        return True

    def _judge(self, pool: Pool, told: list[RealServerState], now_us: int) -> _Telling:
        news = pool.judge_quorum(now_us, starting=True)
        pool.remember()
        if news is not None:
            pool.log_quorum(news)
        pool.replace(pool.servers.values())
        return _Telling(pool, told, news)

    # Reload ----------------------------------------------------------------------------------------------

    def _alter_pool(
        self, pool: Pool, config: VirtualServer, group: VirtualServerGroup | None, now_us: int
    ) -> _Telling:
        """A pool in a new configuration: servers of the same address and port keep their state."""
        if pool.config == config and pool.group == group:
            # A track_file's weight may be another one all the same.
            told = [s for s in pool.servers.values() if self._reweigh(s, now_us)]
            pool.recount()
            return self._judge(pool, told, now_us)
        pool.configure(config, group, self._marking.mark_of(config, group))
        former, pool.servers = pool.servers, {}
        told = []
        for each in config.real_servers:
            server = former.pop((each.address, each.port), None)
            if server is None:
                server = self._registry.create_server(pool, each)
                self._begin_server(server, now_us, at_start=False)
                server.remember()
            elif self._continue_server(server, each, now_us):
                told.append(server)
            pool.servers[server.key] = server
        told += [server for server in former.values() if self._remove_server(server)]
        if config.sorry_server is None:
            pool.sorry_in_use = False
        pool.recount()
        return self._judge(pool, told, now_us)

    def _continue_server(self, server: RealServerState, config: RealServer, now_us: int) -> bool:
        """One that stays. True: it changed its state."""
        # A group's services may be of another protocol now.
        server.name = server_name(config, server.pool.config)
        steady = server.config == config
        # The cost follows the change; but what a followed file counts for may be another now.
        changed = self._reweigh(server, now_us) if steady else self._alter_server(server, config, now_us)
        if changed or not steady:
            server.remember()
        return changed

    def _reweigh(self, server: RealServerState, now_us: int) -> bool:
        """What it follows anew, if anything. True: that changed its state."""
        return self._look_at_news(server) and self._settle_in_reload(server, now_us)

    def _settle_in_reload(self, server: RealServerState, now_us: int) -> bool:
        before, after = server.weight, server.weigh()
        changed = self._settle_server(server, now_us)
        server.pool.log_weight(server, before, after)
        return changed

    def _look_at_news(self, server: RealServerState) -> bool:
        """Files and sessions anew. False: it follows none."""
        followers = [checker for checker in server.checkers if checker.schedule is None]
        for checker in followers:
            self._registry.look_at_news(checker)
        return bool(followers)

    def _alter_server(self, server: RealServerState, config: RealServer, now_us: int) -> bool:
        """Checkers that examine the same go on; returns whether the server changed state."""
        server.config = config
        former, server.checkers = server.checkers, []
        fresh: list[CheckerState] = []
        continued = _continued(former, config.checkers)
        for place, each in enumerate(config.checkers):
            checker = continued.get(place)
            if checker is None:
                fresh.append(self._registry.create_checker(server, each))
            else:
                former.remove(checker)
                server.checkers.append(checker)
                self._registry.change_checker(checker, each)
                if checker.overslept(now_us):
                    self._registry.schedule(checker, now_us, resumed=True)
        for checker in former:
            server.checkers.append(checker)
            self._registry.drop_checker(checker)
        self._place_fresh(server, fresh, now_us)
        self._look_at_news(server)
        return self._settle_in_reload(server, now_us)

    def _place_fresh(self, server: RealServerState, fresh: list[CheckerState], now_us: int) -> None:
        """New checkers of a known server: with alpha down only where the server is not seen to work."""
        known = [checker for checker in server.checkers if checker not in fresh]
        doubtful = any(not checker.is_up for checker in known) or (
            not server.alive and not any(checker.has_run for checker in known)
        )
        for checker in fresh:
            checker.is_up = not (doubtful and alpha_of(checker.config))
            schedule = checker.schedule
            if schedule is not None:
                checker.retries = schedule.retry if doubtful else 0
                self._registry.schedule(checker, now_us, resumed=False)

    def _remove_server(self, server: RealServerState) -> bool:
        """Not configured any more. True: it was up, and those who follow it are to be told."""
        self._context.log(f"Removing service {server.name} from VS {server.pool.title}")
        self._registry.drop_server(server)
        was_alive, server.alive = server.alive, False
        if was_alive:
            server.notices.ask(self._context, server.health, server.script)
        return was_alive

    def _remove_pool(self, pool: Pool, now_us: int) -> _Telling:
        self._context.log(f"Removing Virtual Server {pool.title}")
        told = [server for server in list(pool.servers.values()) if self._remove_server(server)]
        pool.servers = {}
        pool.weight = 0
        news = pool.judge_quorum(now_us)
        pool.forget()
        return _Telling(pool, told, news)

    def _forget_sessions(self, configuration: CheckConfiguration) -> None:
        """Of one that nobody follows nothing is told: who follows it again one day waits for word of it."""
        sessions = self._context.sessions
        if sessions:
            followed = followed_sessions(configuration)
            self._context.sessions = {name: up for name, up in sessions.items() if name in followed}

    def _forget_strangers(self) -> None:
        """Records of what is not configured: a former life was killed while a reload took it away."""
        if not self._remembered:
            return
        known = {STARTED_KEY, MARKS_KEY, *(pool.record_key for pool in self._registry.pools.values())}
        known.update(server.record_key for server in self._registry.servers)
        for key in self._remembered:
            if key not in known:
                self._context.emit(Forget(key))
        self._remembered = {}

    # The end ---------------------------------------------------------------------------------------------

    def stop(self, now_us: int) -> None:
        """Give the kernel everything back; with omega, tell that everything is down."""
        if self._stopping:
            return
        self._stopping = True
        context = self._context
        keep = context.settings.keep_ipvs_at_stop
        self._awaited = 0 if keep else context.next_serial()
        for pool in self._registry.pools.values():
            for server in pool.servers.values():
                context.log(f"Shutting down service {server.name} from VS {pool.title}", LogLevel.DEBUG)
        if not keep:
            context.emit(WithdrawServices(self._awaited))
        for pool in self._registry.pools.values():
            self._shut_down(pool)
        for key in (STARTED_KEY, *self._remembered):
            context.emit(Forget(key))
        if keep:
            self._leave()
        else:
            self._stop_limit_us = now_us + STOP_LIMIT_US

    def on_time(self, now_us: int) -> None:
        if now_us >= self._stop_limit_us:
            self._context.log("the kernel did not answer in time; leaving", LogLevel.WARNING)
            self._leave()

    def _shut_down(self, pool: Pool) -> None:
        context = self._context
        pool.forget()
        for server in pool.servers.values():
            server.forget()
        if not pool.config.omega:
            return
        for server in pool.servers.values():
            if server.alive:
                server.alive = False
                server.notices.ask(context, server.health, server.script)
                tell_fifo(context, server_line(server.name, pool.title, server.health))
                server.start_notices()
                pool.mail_server(server, "=> Shutting down <=")
        pool.has_quorum = False
        pool.notices.ask(context, pool.health, pool.config.quorum_down)
        tell_fifo(context, pool_line(pool.title, pool.health))
        pool.start_notices()
        pool.mail("=> Shutting down <=")

    def _leave(self) -> None:
        self._stop_limit_us = NEVER
        if not self._stopped:
            self._stopped = True
            self._context.emit(Stopped())


def named_pools(
    configuration: CheckConfiguration,
) -> dict[str, tuple[VirtualServer, VirtualServerGroup | None]]:
    """Virtual servers by a unique name: a second definition of the same service gets a number."""
    groups = {group.name: group for group in configuration.groups}
    pools: dict[str, tuple[VirtualServer, VirtualServerGroup | None]] = {}
    for number, config in enumerate(configuration.virtual_servers):
        family = f" inet{6 if config.family == 6 else ''}" if config.fwmark is not None else ""
        name = config.name + family
        pools[name if name not in pools else f"{name}#{number}"] = config, groups.get(config.group)
    return pools


def followed_sessions(configuration: CheckConfiguration) -> frozenset[str]:
    """BFD sessions that some server follows."""
    return frozenset(
        checker.bfd_instance
        for server in configuration.virtual_servers
        for real_server in server.real_servers
        for checker in real_server.checkers
        if isinstance(checker, BfdCheck)
    )


def _known_servers(previous: CheckConfiguration) -> dict[str, set[Key]]:
    return {
        name: {(server.address, server.port) for server in config.real_servers}
        for name, (config, _) in named_pools(previous).items()
    }


def _continued(former: list[CheckerState], configs: tuple[Checker, ...]) -> dict[int, CheckerState]:
    """Which checker each of the new ones continues, by its place: of several that examine the same the one
    that is most like it.
    """
    found: dict[int, CheckerState] = {}
    rest = list(former)
    for likeness in (_itself, parameters_of, identity_of):
        for place, config in enumerate(configs):
            if place in found or not rest:
                continue
            wanted = likeness(config)
            checker = next((each for each in rest if likeness(each.config) == wanted), None)
            if checker is not None:
                rest.remove(checker)
                found[place] = checker
    return found


def _itself(checker: Checker) -> Checker:
    return checker


def _tell(telling: _Telling) -> None:
    pool = telling.pool
    for server in telling.servers:
        pool.tell_server(server)
        if server.key not in pool.servers:
            pool.mail_server(server, "=> Removing <=")
    # What a former life owed starts again too.
    for server in pool.servers.values():
        server.start_notices()
    if telling.news is not None:
        pool.tell_quorum(telling.news)
    pool.start_notices()
