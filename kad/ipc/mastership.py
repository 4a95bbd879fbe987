"""The direct link from the VRRP process to the check process: is the instance master that the kernel's sync
daemon follows? Both ends.

Nothing on the way waits for control: at a failover the new director's daemon is to send at once. Levels, not
edges: each message states the whole present value, and whoever connects is told it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from kad.ipc.link import DealerEnd, Reactor, RouterEnd, child_identity
from kad.ipc.messages import Message
from kad.runtime.process import ChildContext

RETRY_S = 0.05
"""Before a subscriber that does not read is told again."""


class Mastership(Message, frozen=True):
    """Whether an instance is master now, as this life of the VRRP process says."""

    incarnation: int
    sequence: int
    instance: str
    master: bool


def mastership_path(run_directory: str) -> str:
    """Where the VRRP process listens to its subscriber."""
    return os.path.join(run_directory, "vrrp.ipc")


class MastershipPublisher:
    """The VRRP process's end: :meth:`tell` it what is, as often as you like."""

    def __init__(self, context: ChildContext, reactor: Reactor) -> None:
        self._context = context
        self._reactor = reactor
        self._end: RouterEnd[Mastership] | None = None
        self._subscriber = b""
        self._sequence = 0
        self._instance = ""
        self._master = False
        self._retry: asyncio.TimerHandle | None = None

    def tell(self, instance: str, master: bool) -> None:
        """``instance`` is the one followed now; empty: none is, and the link is given up."""
        if (instance, master) == (self._instance, self._master):
            return
        self._instance, self._master = instance, master
        if not instance:
            self.close()
        elif self._end is None:
            # Nothing that a subscriber says is of interest but that it is there.
            self._end = RouterEnd(
                self._reactor,
                mastership_path(self._context.run_directory),
                Mastership,
                on_peer=self._welcome,
                on_message=lambda _peer, _message: None,
            )
        else:
            self._send()

    def close(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._end is not None:
            self._end.close()
            self._end, self._subscriber = None, b""

    def _welcome(self, identity: bytes) -> None:
        """The check process has one life at a time: the newest connection is the only one."""
        self._subscriber = identity
        self._send()

    def _send(self) -> None:
        self._retry = None
        if self._end is None or not self._subscriber:
            return
        self._sequence += 1
        message = Mastership(self._context.incarnation, self._sequence, self._instance, self._master)
        if not self._end.send(self._subscriber, message):
            # It is gone, and its successor will greet; or it is slow.
            self._retry = self._reactor.loop.call_later(RETRY_S, self._send)


class MastershipFeed:
    """The check process's end. ``on_change(master)`` is called whenever the followed instance became master
    or ceased to be, and once it is first known. While the VRRP process is away its last word holds."""

    def __init__(self, context: ChildContext, reactor: Reactor, on_change: Callable[[bool], None]) -> None:
        self._context = context
        self._reactor = reactor
        self._on_change = on_change
        self._end: DealerEnd[Mastership] | None = None
        self._instance = ""
        self._position = (0, 0)
        self._told: bool | None = None

    def follow(self, instance: str) -> None:
        """Empty: none."""
        if instance == self._instance:
            return
        self.close()
        self._instance = instance
        if instance:
            context = self._context
            self._end = DealerEnd(
                self._reactor,
                mastership_path(context.run_directory),
                Mastership,
                identity=child_identity(context.role, context.incarnation, os.getpid()),
                on_message=self._receive,
            )

    def close(self) -> None:
        if self._end is not None:
            self._end.close()
        self._end, self._instance, self._told = None, "", None

    def _receive(self, message: Mastership) -> None:
        position = (message.incarnation, message.sequence)
        if position <= self._position:
            return
        self._position = position
        # At a reload the processes do not change in the same moment: another instance is not ours.
        if message.instance == self._instance and message.master is not self._told:
            self._told = message.master
            self._on_change(message.master)
