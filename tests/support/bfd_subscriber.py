"""A process that follows BFD sessions as the VRRP child does: a driver around nothing, and a BfdFeed.

What it is told, and when, goes down a pipe; the test reads it as :attr:`Subscriber.told`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal

from kad.ipc.bfd_feed import BfdFeed
from kad.ipc.messages import Role
from kad.runtime.clock import monotonic_us
from kad.runtime.driver import Driver
from kad.runtime.process import ChildContext, die
from tests.support.bfd_node import BfdNode
from tests.support.namespaces import poll
from tests.support.waiting import WaitingCore


class Subscriber:
    """A child beside a :class:`BfdNode`'s; ended with the context."""

    def __init__(self, family: BfdNode, *sessions: str, role: Role = Role.VRRP) -> None:
        self._told: list[tuple[int, str, bool]] = []
        self._rest = ""
        self._pipe, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _follow(family.context(role, incarnation=1), frozenset(sessions), writing)
            except BaseException as error:  # noqa: BLE001 - the outermost frame of a forked process
                die(error)
            os._exit(0)
        os.close(writing)

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._pipe)

    @property
    def told(self) -> list[tuple[int, str, bool]]:
        """(CLOCK_MONOTONIC µs, session, up), everything so far."""
        while select.select([self._pipe], [], [], 0)[0]:
            data = os.read(self._pipe, 65536).decode()
            if not data:
                break
            *lines, self._rest = (self._rest + data).split("\n")
            for line in lines:
                at, name, up = line.split()
                self._told.append((int(at), name, up == "True"))
        return self._told

    def knows(self, session: str, up: bool, *, seconds: float = 10) -> int:
        """Wait until the last it was told of the session is this; when that was."""

        def last() -> int:
            said = [(at, is_up) for at, name, is_up in self.told if name == session]
            return said[-1][0] if said and said[-1][1] == up else 0

        return poll(last, f"{session} to be {'up' if up else 'down'}; told {self.told}", seconds=seconds)


def _follow(context: ChildContext, sessions: frozenset[str], writing: int) -> None:
    core: WaitingCore[None, None] = WaitingCore()
    driver: Driver[None, None] = Driver(core, lambda _: None, context.journal.heartbeat(context.role), None)

    def tell(name: str, up: bool) -> None:
        os.write(writing, f"{monotonic_us()} {name} {up}\n".encode())

    feed = BfdFeed(context, driver, tell)
    feed.follow(sessions)
    driver.run()
