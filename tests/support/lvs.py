"""What tests of load balancing need: the kernel's IPVS table as text, real servers, and clients that count.

farm = Farm()                                   # answers from many namespaces, all in one thread
farm.serve(node, "10.0.0.1", 80, "one")         # TCP: says "one FROM" to whoever connects
said = ask(client, "192.0.2.100", 80)           # "one 10.1.0.9"
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from tests.support.namespaces import Node


def table(node: Node) -> list[str]:
    """``ipvsadm -Sn`` inside, sorted: what keepalived's and kad's work is compared by."""
    return sorted(line.strip() for line in node.run(["ipvsadm", "-Sn"]).stdout.splitlines() if line.strip())


def ipvsadm(node: Node, *words: str) -> str:
    return node.run(["ipvsadm", *words]).stdout


class Farm:
    """Real servers in any namespaces. Each answers with its name and the address it was asked from."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._lock = threading.Lock()
        self._sockets: dict[tuple[str, str, int, int], socket.socket] = {}
        self._names: dict[socket.socket, str] = {}
        self._dialogues: dict[socket.socket, Callable[[socket.socket], None]] = {}
        self._replies: dict[socket.socket, Callable[[bytes], bytes]] = {}
        self._held: list[socket.socket] = []
        self.hold = False
        """Keep TCP connections open after the answer (for tests of connections that live)."""
        self.asked: Counter[str] = Counter()
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def serve(
        self,
        node: Node,
        address: str,
        port: int,
        name: str,
        kind: int = socket.SOCK_STREAM,
        *,
        dialogue: Callable[[socket.socket], None] | None = None,
        reply: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """``dialogue`` talks over a connection, in a thread of its own; ``reply`` answers a datagram."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with node.entered():
            made = socket.socket(family, kind)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind((address, port))
            if kind == socket.SOCK_STREAM:
                made.listen(128)
            made.setblocking(False)
        with self._lock:
            self._sockets[node.name, address, port, kind] = made
            self._names[made] = name
            if dialogue is not None:
                self._dialogues[made] = dialogue
            if reply is not None:
                self._replies[made] = reply
            self._selector.register(made, selectors.EVENT_READ, kind)
        self._wake_write.send(b"x")

    def stop(self, node: Node, address: str, port: int, kind: int = socket.SOCK_STREAM) -> None:
        """Refuse from now on; connections that are held stay."""
        with self._lock:
            made = self._sockets.pop((node.name, address, port, kind))
            self._selector.unregister(made)
            made.close()
        self._wake_write.send(b"x")

    def close(self) -> None:
        self._over = True
        self._wake_write.send(b"x")
        self._thread.join(5)
        for made in [*self._sockets.values(), *self._held, self._wake_read, self._wake_write]:
            made.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._over:
            for key, _ in self._selector.select(1):
                if key.data is None:
                    self._wake_read.recv(4096)
                    continue
                with self._lock, contextlib.suppress(OSError):
                    self._answer(key.fileobj, key.data)  # type: ignore[arg-type]

    def _answer(self, ready: socket.socket, kind: int) -> None:
        name = self._names[ready]
        if kind == socket.SOCK_DGRAM:
            asked, sender = ready.recvfrom(2048)
            self.asked[name] += 1
            reply = self._replies.get(ready)
            ready.sendto(reply(asked) if reply else f"{name} {sender[0]}".encode(), sender)
            return
        made, sender = ready.accept()
        self.asked[name] += 1
        if ready in self._dialogues:
            threading.Thread(target=self._dialogues[ready], args=(made,), daemon=True).start()
            return
        # Who has the answer may let go of the next ones at once.
        hold = self.hold
        made.sendall(f"{name} {sender[0]}\n".encode())
        if hold:
            self._held.append(made)
        else:
            made.close()


def ask(
    node: Node,
    address: str,
    port: int,
    *,
    kind: int = socket.SOCK_STREAM,
    source: str = "",
    seconds: float = 3,
) -> str:
    """The answer, or the name of the error."""
    try:
        with connection(node, address, port, kind=kind, source=source, seconds=seconds) as made:
            if kind == socket.SOCK_DGRAM:
                made.send(b"?")
            return made.recv(200).decode().strip()
    except OSError as error:
        return type(error).__name__


@contextlib.contextmanager
def connection(
    node: Node,
    address: str,
    port: int,
    *,
    kind: int = socket.SOCK_STREAM,
    source: str = "",
    seconds: float = 3,
) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with node.entered():
        made = socket.socket(family, kind)
    with made:
        made.settimeout(seconds)
        if source:
            made.bind((source, 0))
        made.connect((address, port))
        yield made


def ask_often(node: Node, address: str, port: int, times: int, **options: object) -> Counter[str]:
    """How often each server answered: by the first word of what it said."""
    answers = (ask(node, address, port, **options) for _ in range(times))  # type: ignore[arg-type]
    return Counter(answer.partition(" ")[0] for answer in answers)
