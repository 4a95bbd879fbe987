"""Control's ends of the links: to the children, to kadctl, and to the supervisor."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable
from typing import assert_never

from kad.control.events import ChildApplied, ChildGreeted, ChildPrepared, Event
from kad.ipc.codec import Decoder, DropReason, Drops
from kad.ipc.link import Reactor, RouterEnd, child_identity, control_path, ctl_path
from kad.ipc.messages import (
    Alert,
    Applied,
    ChildToControl,
    ControlToChild,
    ControlToCtl,
    ControlToSupervisor,
    CtlToControl,
    Generation,
    Hello,
    HelloRequest,
    Prepared,
    Role,
    StatusReport,
    SupervisorToControl,
)
from kad.supervisor.channel import MESSAGE_LIMIT, seal_generation, send_with_descriptor

MESSAGES_A_TURN = 64


class ChildrenHub:
    """The router the children connect to. A role is known by the last life that spoke."""

    def __init__(
        self,
        reactor: Reactor,
        run_directory: str,
        *,
        feed: Callable[[Event], None],
        on_status: Callable[[StatusReport], None],
        on_alert: Callable[[Alert], None],
    ) -> None:
        self._feed = feed
        self._on_status = on_status
        self._on_alert = on_alert
        self._peers: dict[Role, tuple[int, bytes]] = {}
        self._end: RouterEnd[ChildToControl] = RouterEnd(
            reactor,
            control_path(run_directory),
            ChildToControl,
            on_peer=self._greet,
            on_message=self._receive,
        )

    @property
    def drops(self) -> Drops:
        return self._end.drops

    def send(self, role: Role, incarnation: int, message: ControlToChild, *, pid: int = 0) -> bool:
        """To this life of the child, or to nobody. ``pid`` helps to find one that has not spoken."""
        known, peer = self._peers.get(role, (0, b""))
        if known != incarnation:
            if not pid:
                self.drops[DropReason.UNSENT] += 1
                return False
            peer = child_identity(role, incarnation, pid)
        return self._end.send(peer, message)

    def send_to_any(self, role: Role, message: ControlToChild) -> bool:
        """To whichever life of the child spoke last; False: it is not there."""
        _, peer = self._peers.get(role, (0, b""))
        return bool(peer) and self._end.send(peer, message)

    def drain(self) -> None:
        """Take what lies here now."""
        self._end.drain()

    def close(self) -> None:
        self._end.close()

    def _greet(self, peer: bytes) -> None:
        self._end.send(peer, HelloRequest())

    def _receive(self, peer: bytes, message: ChildToControl) -> None:
        incarnation, _ = self._peers.get(message.role, (0, b""))
        if message.incarnation < incarnation:
            self.drops[DropReason.STALE_INCARNATION] += 1
            return
        self._peers[message.role] = (message.incarnation, peer)
        match message:
            case Hello():
                self._feed(ChildGreeted(message.role, message.incarnation, message.generation))
            case Prepared():
                event = ChildPrepared(message.role, message.incarnation, message.transaction, message.refusal)
                self._feed(event)
            case Applied():
                applied = ChildApplied(
                    message.role, message.incarnation, message.generation, message.complaints
                )
                self._feed(applied)
            case StatusReport():
                self._on_status(message)
            case Alert():
                self._on_alert(message)
            case _:
                assert_never(message)


class CtlHub:
    """The router kadctl connects to."""

    def __init__(
        self,
        reactor: Reactor,
        run_directory: str,
        on_query: Callable[[bytes, CtlToControl], None],
    ) -> None:
        self._end: RouterEnd[CtlToControl] = RouterEnd(
            reactor,
            ctl_path(run_directory),
            CtlToControl,
            on_peer=lambda _peer: None,
            on_message=on_query,
        )

    @property
    def drops(self) -> Drops:
        return self._end.drops

    def answer(self, peer: bytes, message: ControlToCtl) -> None:
        """To a kadctl that may have given up: then it is counted, and that is all."""
        self._end.send(peer, message)

    def close(self) -> None:
        self._end.close()


class SupervisorPipe:
    """Control's end of the socket pair. ``on_gone``: the supervisor has closed its end."""

    def __init__(
        self,
        reactor: Reactor,
        descriptor: int,
        *,
        on_message: Callable[[SupervisorToControl], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._on_message = on_message
        self._on_gone = on_gone
        self._drops: Drops = Counter()
        self._decoder: Decoder[SupervisorToControl] = Decoder(SupervisorToControl, self._drops)
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        reactor.add_reader(self._socket.fileno(), self._drain)

    @property
    def drops(self) -> Drops:
        return self._drops

    def send(self, message: ControlToSupervisor) -> None:
        """Raises OSError when the supervisor does not read (BlockingIOError) or is gone: then so are we."""
        send_with_descriptor(self._socket, message)

    def commit(self, message: ControlToSupervisor, generation: Generation) -> None:
        """Send with the generation, sealed, riding along. Raises OSError like :meth:`send`."""
        descriptor = seal_generation(generation)
        try:
            send_with_descriptor(self._socket, message, descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        self._reactor.remove_reader(self._socket.fileno())
        self._socket.close()

    def _drain(self) -> bool:
        for _ in range(MESSAGES_A_TURN):
            try:
                data = self._socket.recv(MESSAGE_LIMIT)
            except BlockingIOError:
                return False
            except ConnectionError:
                data = b""
            if not data:
                self._reactor.remove_reader(self._socket.fileno())
                self._on_gone()
                return False
            message = self._decoder.decode(data)
            if message is not None:
                self._on_message(message)
        return True
