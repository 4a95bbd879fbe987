"""Every pool, server and checker of an engine, and how to find them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

from kad.config.model.check import BfdCheck, Checker, FileCheck, RealServer
from kad.config.model.track import TrackFile
from kad.units import NEVER
from kad_check.core.actions import AddChecker, ChangeChecker, RemoveChecker
from kad_check.core.checker import CheckerState, file_verdict, parameters_of
from kad_check.core.context import Context
from kad_check.core.pool import Pool
from kad_check.core.server import RealServerState
from kad_check.core.timetable import Timetable


class Registry:
    """Owned by the engine."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.pools: dict[str, Pool] = {}
        self.checkers: dict[int, CheckerState] = {}
        """Those that run checks, by number."""
        self.timetable = Timetable()
        self.files: dict[str, TrackFile] = {}
        self._following: dict[str, list[CheckerState]] = {}
        """FILE_CHECKs by name of the file, BFD_CHECKs by name of the session."""
        self._owners: dict[str, Pool | RealServerState] = {}
        self._last_number = 0

    @property
    def servers(self) -> Iterator[RealServerState]:
        for pool in self.pools.values():
            yield from pool.servers.values()

    def owner_of(self, key: str) -> Pool | RealServerState | None:
        """Whom a notification is about, by the key of the journal record."""
        return self._owners.get(key)

    def add_pool(self, pool: Pool) -> None:
        """At the end: pools stand in the order of the file."""
        self.pools[pool.name] = pool
        self._owners[pool.record_key] = pool

    def drop_pool(self, name: str) -> Pool | None:
        pool = self.pools.pop(name, None)
        if pool is not None:
            del self._owners[pool.record_key]
        return pool

    def following(self, kind: type[Checker], name: str) -> list[CheckerState]:
        """Checkers of this kind that a file or session of that name concerns."""
        return [c for c in self._following.get(name, ()) if isinstance(c.config, kind)]

    def create_server(self, pool: Pool, config: RealServer) -> RealServerState:
        """With its checkers, none of which has a time yet."""
        server = RealServerState(pool, config)
        self._owners[server.record_key] = server
        for checker in config.checkers:
            self.create_checker(server, checker)
        return server

    def create_checker(self, server: RealServerState, config: Checker) -> CheckerState:
        self._last_number += 1
        checker = CheckerState(self._last_number, config, server)
        server.checkers.append(checker)
        name = followed_name(config)
        if name:
            self._following.setdefault(name, []).append(checker)
            self.look_at_news(checker)
        else:
            self.checkers[checker.number] = checker
            self.context.emit(AddChecker(checker.number, config))
        return checker

    def change_checker(self, checker: CheckerState, config: Checker) -> None:
        """It goes on in a new configuration."""
        differs = parameters_of(checker.config) != parameters_of(config)
        checker.take_over(config)
        if differs and checker.schedule is not None:
            self.context.emit(ChangeChecker(checker.number, config))

    def drop_checker(self, checker: CheckerState) -> None:
        checker.server.checkers.remove(checker)
        checker.due_us = NEVER
        name = followed_name(checker.config)
        if name:
            self._following[name].remove(checker)
        else:
            del self.checkers[checker.number]
            self.context.emit(RemoveChecker(checker.number))

    def drop_server(self, server: RealServerState) -> None:
        for checker in list(server.checkers):
            self.drop_checker(checker)
        del self._owners[server.record_key]
        server.forget()

    def look_at_news(self, checker: CheckerState) -> None:
        """Take what its file or session is now, without a word to anybody."""
        up = self.news_of(checker)
        if up is not None:
            checker.is_up = up
            checker.has_run = True

    def news_of(self, checker: CheckerState) -> bool | None:
        """Whether its file or session holds the server to be up; None: nothing was heard, or it runs checks.

        What a file adds to the weight is taken on the way.
        """
        config = checker.config
        if isinstance(config, FileCheck):
            value = self.context.files.get(config.track_file, 0)
            up, added = file_verdict(config, self.files.get(config.track_file), value)
            checker.wish = added or None
            checker.detail = "" if up else f"the file holds {value}"
            return up
        if isinstance(config, BfdCheck):
            return self.context.sessions.get(config.bfd_instance)
        return None

    def schedule(self, checker: CheckerState, now_us: int, *, resumed: bool) -> None:
        """Its first check of this life, at a place among the others that is always the same."""
        if checker.schedule is None:
            return
        spread = spread_of(checker)
        if resumed:
            checker.due_us = checker.resumed_due_us(now_us, spread)
        else:
            checker.due_us = checker.first_due_us(now_us, spread)
        self.timetable.put(checker)


def followed_name(config: Checker) -> str:
    """The file or session that drives it; empty: it runs checks."""
    match config:
        case FileCheck():
            return config.track_file
        case BfdCheck():
            return config.bfd_instance
        case _:
            return ""


def spread_of(checker: CheckerState) -> float:
    """In [0, 1), the same for the same checker at every start."""
    server = checker.server
    place = server.checkers.index(checker)
    return crc32(f"{server.pool.name}|{server.name}|{checker.digest}|{place}".encode()) / (1 << 32)
