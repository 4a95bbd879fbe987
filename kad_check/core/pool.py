"""One virtual server with its real servers: who is in it, with what weight, and who is told. Pure.

A change is carried out in this order: what is true now is written to the journal, the log and the record of
causes are told, IPVS is changed, and only then scripts, FIFO and mail hear of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from kad.addresses import packed
from kad.config.model.check import VirtualServer, VirtualServerGroup, protocol_name
from kad_check.core.actions import ChangeDestinations, Forget, Health, LogLevel, Remember, ServerChanged
from kad_check.core.checker import CheckerState, Told, alpha_of
from kad_check.core.context import Context
from kad_check.core.ipvs_state import Destination, PoolState, Service, marked_services, services_of
from kad_check.core.notices import (
    Notices,
    mail_about_pool,
    mail_about_server,
    pool_line,
    server_line,
    tell_fifo,
)
from kad_check.core.quorum import QuorumChange, QuorumNews, quorum_letter, quorum_news, quorum_text
from kad_check.core.record import RECORD_VERSION, PoolRecord, encode, pool_key
from kad_check.core.server import Key, RealServerState
from kad_check.core.texts import mail_body, server_name, verdict_line

SORRY_WEIGHT = 1


class Pool:
    """See the module. ``name`` is unique in the engine; ``title`` is what people call it."""

    __slots__ = (
        "_refusals_told",
        "_state",
        "config",
        "context",
        "group",
        "has_quorum",
        "name",
        "notices",
        "places",
        "record_key",
        "recorded",
        "servers",
        "services",
        "since_us",
        "sorry_in_use",
        "sorry_placed",
        "sorry_refused",
        "suspended",
        "title",
        "weight",
    )

    def __init__(
        self,
        context: Context,
        name: str,
        config: VirtualServer,
        group: VirtualServerGroup | None,
        mark: int = 0,
    ) -> None:
        self.context = context
        self.name = name
        self.title = config.name
        self.record_key = pool_key(name)
        self.recorded = False
        """Whether the journal has a record."""
        self.servers: dict[Key, RealServerState] = {}
        self.weight = 0
        """Of all servers that are up."""
        self.has_quorum = False
        self.sorry_in_use = False
        self.sorry_placed: Destination | None = None
        self.sorry_refused = ""
        """As that of a real server."""
        self._refusals_told: dict[Key, str] = {}
        """The last refusal that was logged, until something else is asked for that destination."""
        self.since_us = 0
        """When the quorum was last won or lost."""
        self.suspended = False
        """ha_suspend, and none of its addresses is here."""
        self.notices = Notices()
        self.places: tuple[Service, ...] = ()
        """What clients turn to. ``services``: what the kernel is told, which may be a mark for all of it."""
        self.services: tuple[Service, ...] = ()
        self.configure(config, group, mark)

    def configure(self, config: VirtualServer, group: VirtualServerGroup | None, mark: int = 0) -> None:
        """``mark``: stands for all addresses of its group; 0: none does."""
        self._state: PoolState | None = None
        """The last answer of :meth:`state`, while it holds."""
        self.config = config
        self.group = group
        self.places = services_of(config, group)
        self.services = marked_services(config, group, mark) if mark and group is not None else self.places
        self.look_at_addresses()

    @property
    def health(self) -> Health:
        return Health.UP if self.has_quorum else Health.DOWN

    def is_steady(self, config: VirtualServer, group: VirtualServerGroup | None) -> bool:
        """Whether a configuration has nothing new for it. What a followed file counts for may be another now
        although nothing is written differently here."""
        return (
            self.config == config
            and self.group == group
            and all(each.schedule is not None for server in self.servers.values() for each in server.checkers)
        )

    def state(self) -> PoolState:
        """All that is wanted in the kernel now; the same object as long as that is the same."""
        if self._state is None:
            placed = [server.placed for server in self.servers.values() if server.placed is not None]
            if self.sorry_placed is not None:
                placed.append(self.sorry_placed)
            self._state = PoolState(self.name, self.services, tuple(placed))
        return self._state

    @property
    def awaits_addresses(self) -> bool:
        """Nobody has said yet which addresses are here (ha_suspend)."""
        return self.config.ha_suspend and self.context.addresses is None

    def look_at_addresses(self) -> None:
        """Whether checks are worth while here (ha_suspend)."""
        here = self.context.addresses
        self.suspended = (
            self.config.ha_suspend
            and here is not None
            and not any(_serves(place, here) for place in self.places)
        )

    # What checkers say -----------------------------------------------------------------------------------

    def tell(self, checker: CheckerState, told: Told, now_us: int, tried: int = 0) -> None:
        """A checker's verdict about its server. ``tried``: failures that came before this one."""
        server = checker.server
        up = told is Told.UP
        first, turned = not checker.has_run, checker.is_up != up
        checker.has_run = True
        if not (first or turned):
            return
        was_alive = server.alive
        self._log_verdict(checker, up, 0 if first else tried)
        if not turned:
            if server.recorded:
                server.remember()
            # As keepalived: a server found to be down as it was taken to be is told of once.
            if not up or alpha_of(checker.config):
                self.notify_server(server)
            return
        checker.is_up = up
        if server.alive == server.is_failing:
            self.set_alive(
                server, up, f"{checker.kind}: {checker.detail or ('success' if up else 'failed')}", now_us
            )
        else:
            server.remember()
        self._mail_verdict(checker, up, was_alive)

    def set_alive(self, server: RealServerState, alive: bool, reason: str, now_us: int) -> None:
        """A real server comes up or goes down, with all that follows from it."""
        context = self.context
        server.alive = alive
        server.since_us = now_us
        self.weight += server.weight if alive else -server.weight
        server.notices.ask(context, server.health, server.script)
        server.remember()
        used_sorry = self.sorry_in_use
        news = self.judge_quorum(now_us)
        self.log_server(server)
        context.emit(ServerChanged(self.title, server.name, server.health, reason))
        if news is not None:
            self.log_quorum(news)
        self.place(self.servers.values() if used_sorry != self.sorry_in_use else (server,))
        self.tell_server(server)
        if news is not None:
            self.tell_quorum(news)

    def weigh(self, server: RealServerState, now_us: int) -> None:
        """Some checker's contribution to the weight may have changed."""
        before = server.weight
        after = server.weigh()
        if after == before:
            return
        server.remember()
        self.log_weight(server, before, after)
        if not server.alive:
            return
        self.weight += after - before
        used_sorry = self.sorry_in_use
        news = self.judge_quorum(now_us)
        if news is not None:
            self.log_quorum(news)
        self.place(self.servers.values() if used_sorry != self.sorry_in_use else (server,))
        if news is not None:
            self.tell_quorum(news)

    # IPVS ------------------------------------------------------------------------------------------------

    def place(self, servers: Iterable[RealServerState]) -> None:
        """Ask for what these servers, and the sorry server, should be in the kernel now."""
        put, remove = self.replace(servers)
        if put or remove:
            self.context.emit(ChangeDestinations(self.name, put, remove))

    def replace(
        self, servers: Iterable[RealServerState]
    ) -> tuple[tuple[Destination, ...], tuple[Destination, ...]]:
        """What changes: (to put, to remove). All of it is taken for done."""
        put: list[Destination] = []
        remove: list[Destination] = []
        for server in servers:
            wanted = self._wanted(server)
            if wanted != server.placed or server.refused:
                if wanted != server.placed:
                    self._refusals_told.pop(server.key, None)
                _note(server.placed or server.destination(0), wanted, put, remove)
                server.placed = wanted
                server.refused = ""
        self._replace_sorry(put, remove)
        if put or remove:
            self._state = None
        if remove:
            # The sorry server may be one of the real servers: one takes the other's place.
            kept = {destination.key for destination in put}
            if self.sorry_placed is not None:
                kept.add(self.sorry_placed.key)
            remove = [destination for destination in remove if destination.key not in kept]
        return tuple(put), tuple(remove)

    def _replace_sorry(self, put: list[Destination], remove: list[Destination]) -> None:
        before, wanted, sorry = self.sorry_placed, self._wanted_sorry(), self.config.sorry_server
        if wanted == before and not self.sorry_refused:
            return
        if before is None and sorry is not None:
            before = Destination(sorry.address, sorry.port, 0, sorry.forwarding)
        if before is not None:
            if wanted != self.sorry_placed:
                self._refusals_told.pop(before.key, None)
            _note(before, wanted, put, remove)
        self.sorry_placed = wanted
        self.sorry_refused = ""

    def _wanted(self, server: RealServerState) -> Destination | None:
        if self.sorry_in_use:
            sorry = self.config.sorry_server
            if sorry is not None and server.key == (sorry.address, sorry.port):
                return None
        elif server.alive:
            return server.destination(server.weight)
        return server.destination(0) if server.config.inhibit_on_failure else None

    def _wanted_sorry(self) -> Destination | None:
        sorry = self.config.sorry_server
        if sorry is None:
            return None
        if self.sorry_in_use:
            return Destination(sorry.address, sorry.port, SORRY_WEIGHT, sorry.forwarding)
        if sorry.inhibit and (sorry.address, sorry.port) not in self.servers:
            return Destination(sorry.address, sorry.port, 0, sorry.forwarding)
        return None

    # Refusals --------------------------------------------------------------------------------------------

    def refused(self, key: Key, reason: str, *, is_told: bool) -> None:
        """The kernel did not do what was last asked of it for one destination; it is asked again. That is
        logged once, until something else is asked."""
        sorry, server = self.config.sorry_server, self.servers.get(key)
        if sorry is not None and key == (sorry.address, sorry.port) and (self.sorry_placed or server is None):
            self.sorry_refused = reason
            placed = self.sorry_placed
        elif server is not None:
            server.refused = reason
            placed = server.placed
        else:
            placed = None  # a reload has taken it out
        if self._refusals_told.get(key) == reason:
            return
        self._refusals_told[key] = reason
        if not is_told:
            name = f"[{key[0]}]:{protocol_name(self.config.protocol)}:{key[1]}"
            does = "take" if placed is not None else "remove"
            self.context.log(f"IPVS does not {does} {name} of VS {self.title}: {reason}", LogLevel.WARNING)

    def ask_again(self) -> None:
        """For whatever was refused."""
        servers = [server for server in self.servers.values() if server.refused]
        if servers or self.sorry_refused:
            self.place(servers)

    # Quorum ----------------------------------------------------------------------------------------------

    def judge_quorum(self, now_us: int, *, starting: bool = False) -> QuorumNews | None:
        """Win or lose the quorum if the weight says so, and write it down."""
        config = self.config
        news = quorum_news(
            config,
            has_quorum=self.has_quorum,
            weight=self.weight,
            starting=starting,
            sorry_in_use=self.sorry_in_use,
        )
        if news is None:
            return None
        self.has_quorum = news.change is QuorumChange.GAINED
        self.since_us = now_us
        self.sorry_in_use = not self.has_quorum and config.sorry_server is not None
        self.notices.ask(
            self.context, self.health, config.quorum_up if self.has_quorum else config.quorum_down
        )
        self.remember()
        return news

    def recount(self) -> None:
        """The weight of all servers that are up, from the beginning."""
        self.weight = sum(server.weight for server in self.servers.values() if server.alive)

    def remember(self) -> None:
        """A virtual server without a record has its quorum, and owes nobody anything."""
        if self.has_quorum and not self.notices.owed:
            self.forget()
            return
        self.recorded = True
        owed = self.notices.recorded()
        record = PoolRecord(RECORD_VERSION, self.has_quorum, self.sorry_in_use, self.since_us, owed)
        self.context.emit(Remember(self.record_key, encode(record)))

    def forget(self) -> None:
        if self.recorded:
            self.recorded = False
            self.context.emit(Forget(self.record_key))

    # Telling ---------------------------------------------------------------------------------------------

    def notify_server(self, server: RealServerState) -> None:
        """Its notification for the state it is in, without a change of state."""
        server.notices.ask(self.context, server.health, server.script)
        server.remember()
        self.tell_server(server)

    def tell_server(self, server: RealServerState) -> None:
        tell_fifo(self.context, server_line(server.name, self.title, server.health))
        server.start_notices()

    def tell_quorum(self, news: QuorumNews) -> None:
        tell_fifo(self.context, pool_line(self.title, self.health))
        self.start_notices()
        self.mail(quorum_letter(self.config, news))

    def start_notices(self) -> None:
        self.notices.start(self.context, self.record_key, self.config.quorum_up, self.config.quorum_down)

    def mail(self, body: str) -> None:
        if self.config.smtp_alert and self.context.has_mail:
            mail_about_pool(self.context, self.title, self.health, body)

    def mail_server(self, server: RealServerState, body: str) -> None:
        if server.config.smtp_alert and self.context.has_mail:
            mail_about_server(self.context, server.name, self.title, server.health, body)

    def _mail_verdict(self, checker: CheckerState, up: bool, was_alive: bool) -> None:
        server = checker.server
        if server.alive != was_alive or not self.context.globals.mail.no_checker:
            health = Health.UP if up else Health.DOWN
            self.mail_server(server, mail_body(checker.config, checker.kind, health, checker.detail))

    def _log_verdict(self, checker: CheckerState, up: bool, retries: int) -> None:
        health = Health.UP if up else Health.DOWN
        self.context.log(
            verdict_line(
                checker.config,
                checker.kind,
                checker.server.name,
                self.title,
                health,
                detail=checker.detail,
                retries=retries,
            )
        )

    def log_server(self, server: RealServerState) -> None:
        if server.config.inhibit_on_failure:
            verb, preposition = ("Enabling" if server.alive else "Disabling"), "of"
        else:
            verb, preposition = ("Adding", "to") if server.alive else ("Removing", "from")
        self.context.log(f"{verb} service {server.name} {preposition} VS {self.title}")

    def log_weight(self, server: RealServerState, before: int, after: int) -> None:
        if before == after:
            return
        state = "active" if server.alive else "inactive"
        self.context.log(
            f"Changing weight from {before} to {after} for {state} service {server.name} of VS {self.title}"
        )

    def log_quorum(self, news: QuorumNews) -> None:
        context, config = self.context, self.config
        text = quorum_text(config, news)
        context.log(f"{text} for VS {self.title}")
        context.emit(ServerChanged(self.title, "", self.health, text))
        sorry = config.sorry_server
        if sorry is None:
            return
        name = server_name(sorry, config)
        if self.sorry_in_use:
            context.log(f"{'Enabling' if sorry.inhibit else 'Adding'} sorry server {name} to VS {self.title}")
            context.log(f"Removing alive servers from the pool for VS {self.title}")
        elif self.sorry_placed is not None:
            verb = "Disabling" if sorry.inhibit else "Removing"
            context.log(f"{verb} sorry server {name} from VS {self.title}")
            context.log(f"Adding alive servers to the pool for VS {self.title}")


def _note(
    before: Destination, after: Destination | None, put: list[Destination], remove: list[Destination]
) -> None:
    if after is not None:
        put.append(after)
    else:
        remove.append(before)


def _serves(service: Service, addresses: frozenset[str]) -> bool:
    """Whether one of these addresses is the service's."""
    if not service.last_address:
        return service.address in addresses
    first, last = packed(service.address), packed(service.last_address)
    return any(len(each) == len(first) and first <= each <= last for each in map(packed, addresses))
