"""IPVS where the kernel has none: a table that answers netlink requests as Linux does, and counts them.

    with IpvsDouble() as ipvs, KadWithIpvs(ipvs, node, text) as daemon:
        poll(lambda: ipvs.size == 10, "all of it")

It keeps attributes as they came and gives them back; what it knows of them is what tells entries apart, and
which requests the kernel refuses. It outlives the daemon's processes, as the kernel does. That the real
kernel takes and means the same is what the tests in the virtual machine are for.

As a program it is kad beside such a table: python -m tests.support.ipvs_double SOCKET ARGUMENT …
"""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from kad.kernel import encoder
from kad.kernel.batch import RequestQueue
from kad.kernel.ipvs import Command
from tests.support.daemon import Kad, Keepalived
from tests.support.namespaces import Node

FAMILY = 33
CONTROLLER = 16
SERVICE, DESTINATION = 1, 2
_HEADER = 4
_DUMP_BYTES = 8_000
_READ_SIZE = 1 << 17

Attributes = dict[int, bytes]
Reply = tuple[int, int, bytes]
"""Kind, flags, body."""


class _Service:
    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes
        self.destinations: dict[bytes, Attributes] = {}


class Table:
    """What the kernel would hold. ``asked``: how often each command came."""

    def __init__(self) -> None:
        self.services: dict[tuple[bytes, ...], _Service] = {}
        self.asked: Counter[Command] = Counter()
        self.lock = threading.Lock()
        self.open = threading.Event()
        """While it is clear nothing is answered."""
        self.open.set()
        self.refusals: dict[Command, list[int]] = {}
        """Errors that the next requests are answered with instead."""

    def answer(self, request: encoder.Message) -> Iterator[Reply]:
        if request.kind == CONTROLLER:
            number = encoder.u16(1, FAMILY) + encoder.text(2, "IPVS")
            yield CONTROLLER, 0, bytes((1, 2, 0, 0)) + number
            yield _verdict(0)
            return
        command = Command(request.body[0])
        self.open.wait()
        with self.lock:
            self.asked[command] += 1
            if self.refusals.get(command):
                yield _verdict(self.refusals[command].pop(0))
                return
            if request.flags & encoder.NLM_F_DUMP == encoder.NLM_F_DUMP:
                for kind, found in list(self._dump(command, request.body)):
                    body = bytes((command, 1, 0, 0)) + encoder.nested(kind, _packed(found))
                    yield FAMILY, encoder.NLM_F_MULTI, body
                yield encoder.NLMSG_DONE, encoder.NLM_F_MULTI, struct.pack("=i", 0)
            elif command is Command.GET_INFO:
                information = encoder.u32(1, 0x010201) + encoder.u32(2, 4096)
                yield FAMILY, 0, bytes((Command.SET_INFO, 1, 0, 0)) + information
                yield _verdict(0)
            elif command is Command.GET_CONFIG:
                timeouts = b"".join(
                    encoder.u32(kind, value) for kind, value in ((4, 900), (5, 120), (6, 300))
                )
                yield FAMILY, 0, bytes((Command.SET_CONFIG, 1, 0, 0)) + timeouts
                yield _verdict(0)
            else:
                yield _verdict(self._change(command, request.body))

    def lines(self) -> list[str]:
        """What ``ipvsadm -Sn`` would say, sorted."""
        with self.lock:
            return sorted(line for each in self.services.values() for line in _lines(each))

    def _dump(self, command: Command, body: bytes) -> Iterator[tuple[int, Attributes]]:
        if command is Command.GET_SERVICE:
            for service in self.services.values():
                yield SERVICE, service.attributes
        elif command is Command.GET_DEST:
            found = self.services.get(_service_key(_nested(body, SERVICE)))
            for destination in found.destinations.values() if found else ():
                yield DESTINATION, destination

    def _change(self, command: Command, body: bytes) -> int:
        if command is Command.FLUSH:
            self.services.clear()
            return 0
        if command in (Command.SET_CONFIG, Command.ZERO):
            return 0
        attributes = _nested(body, SERVICE)
        key = _service_key(attributes)
        service = self.services.get(key)
        if command is Command.NEW_SERVICE:
            if service is not None:
                return errno.EEXIST
            self.services[key] = _Service(attributes)
            return 0
        if service is None:
            return errno.ESRCH
        if command is Command.SET_SERVICE:
            service.attributes.update(attributes)
        elif command is Command.DEL_SERVICE:
            del self.services[key]
        else:
            return _change_destination(service, command, _nested(body, DESTINATION))
        return 0


def _lines(service: _Service) -> Iterator[str]:
    found = service.attributes
    family = int.from_bytes(found[1], sys.byteorder)
    if 5 in found:
        name = f"-f {int.from_bytes(found[5], sys.byteorder)}" + (" -6" if family == socket.AF_INET6 else "")
    else:
        kind = {6: "-t", 17: "-u", 132: "--sctp-service"}[int.from_bytes(found[2], sys.byteorder)]
        name = f"{kind} {_place(family, found[3], found[4])}"
    flags, mask = struct.unpack("=II", found[7])
    words = [f"-A {name} -s {found[6].decode().rstrip(chr(0))} flags {flags & mask & ~2:#x}"]
    if flags & 1:
        words.append(f"-p {int.from_bytes(found[8], sys.byteorder)} -M {found[9].hex()}")
    if 11 in found:
        words.append(f"--pe {found[11].decode().rstrip(chr(0))}")
    yield " ".join(words)
    for each in service.destinations.values():
        family_of = int.from_bytes(each.get(11, found[1]), sys.byteorder)
        method, weight, upper, lower = (int.from_bytes(each[kind], sys.byteorder) for kind in (3, 4, 5, 6))
        words = [f"-a {name} -r {_place(family_of, each[1], each[2])} method {method & 7} -w {weight}"]
        words += [f"-x {upper} -y {lower}"] if upper or lower else []
        if method & 7 == 2 and int.from_bytes(each.get(13, b""), sys.byteorder):
            port, checksums = (
                int.from_bytes(each.get(kind, b""), order)
                for kind, order in ((14, "big"), (15, sys.byteorder))
            )
            # Only GUE has a port; what a request leaves out is nothing to the kernel.
            words.append(f"tunnel {each[13][0]} {port if each[13][0] == 1 else 0} {checksums}")
        yield " ".join(words)


def _place(family: int, address: bytes, port: bytes) -> str:
    length = 16 if family == socket.AF_INET6 else 4
    shown = socket.inet_ntop(family, address[:length])
    return f"{f'[{shown}]' if length == 16 else shown}:{int.from_bytes(port, 'big')}"


def _change_destination(service: _Service, command: Command, attributes: Attributes) -> int:
    key = attributes[1] + attributes[2]
    known = key in service.destinations
    if command is Command.NEW_DEST:
        if known:
            return errno.EEXIST
        service.destinations[key] = attributes
    elif not known:
        return errno.ENOENT
    elif command is Command.SET_DEST:
        service.destinations[key].update(attributes)
    else:
        assert command is Command.DEL_DEST
        del service.destinations[key]
    return 0


def _nested(body: bytes, kind: int) -> Attributes:
    return encoder.attributes(encoder.attributes(body, _HEADER)[kind])


def _service_key(attributes: Attributes) -> tuple[bytes, ...]:
    if 5 in attributes:
        return attributes[1], attributes[5]
    return tuple(attributes[kind] for kind in (1, 2, 3, 4))


def _packed(attributes: Attributes) -> bytes:
    return b"".join(encoder.attribute(kind, data) for kind, data in attributes.items())


def _verdict(error: int) -> Reply:
    # The echoed header of the request, as after NETLINK_CAP_ACK.
    return encoder.NLMSG_ERROR, encoder.NLM_F_CAPPED, struct.pack("=i", -error) + bytes(16)


class IpvsDouble:
    """The table, and the socket it is asked through."""

    def __init__(self) -> None:
        self.table = Table()
        self._directory = tempfile.TemporaryDirectory(prefix="ki-")
        self.path = str(Path(self._directory.name) / "ipvs")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self.path)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._directory.cleanup()

    @property
    def size(self) -> int:
        """Destinations in all services."""
        with self.table.lock:
            return sum(len(service.destinations) for service in self.table.services.values())

    @property
    def changes(self) -> int:
        """Commands so far that were to change services or destinations."""
        reading = (Command.GET_SERVICE, Command.GET_DEST, Command.GET_CONFIG, Command.GET_DAEMON)
        with self.table.lock:
            return sum(count for command, count in self.table.asked.items() if command not in reading)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while data := connection.recv(_READ_SIZE):
                for request in encoder.messages(data):
                    for datagram in _datagrams(request.sequence, self.table.answer(request)):
                        connection.send(datagram)


def _datagrams(sequence: int, replies: Iterator[Reply]) -> Iterator[bytes]:
    """Answers of a dump share datagrams; every other one has its own."""
    waiting = b""
    for kind, flags, body in replies:
        made = encoder.message(kind, 0, sequence, body)
        # Requests are marked as such, answers are not.
        made = made[:6] + struct.pack("=H", flags) + made[8:]
        if len(waiting) + len(made) > _DUMP_BYTES:
            yield waiting
            waiting = b""
        waiting += made
        if not flags & encoder.NLM_F_MULTI:
            yield waiting
            waiting = b""
    if waiting:
        yield waiting


# keepalived -------------------------------------------------------------------------------------------------


@functools.cache
def redirection() -> str:
    """The compiled library for LD_PRELOAD; empty where nothing compiles it."""
    made = Path(tempfile.mkdtemp(prefix="kr-")) / "ipvs_redirect.so"
    source = Path(__file__).with_suffix("").parent / "ipvs_redirect.c"
    try:
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O2", "-o", made, source, "-ldl"], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return str(made)


def needs_redirection() -> None:
    """Skip the running test, saying why, where keepalived cannot be made to ask a table."""
    if not redirection():
        pytest.skip("no C compiler for what has keepalived ask the table (make packages)")


class KeepalivedWithIpvs(Keepalived):
    """keepalived in a namespace, beside a table."""

    def __init__(self, ipvs: IpvsDouble, node: Node, text: str, *options: str) -> None:
        words = ("env", f"LD_PRELOAD={redirection()}", f"IPVS_DOUBLE={ipvs.path}")
        super().__init__(node, text, *options, wrapper=words)


# In the daemon ----------------------------------------------------------------------------------------------


class _Socket:
    """To the table, with what is used of a netlink socket."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(path)
        self._socket.setblocking(False)
        self.fileno, self.close = self._socket.fileno, self._socket.close

    def setsockopt(self, *_: Any) -> None:
        pass

    def sendto(self, data: bytes, _address: tuple[int, int]) -> int:
        return self._socket.send(data)

    def recvfrom_into(self, buffer: memoryview) -> tuple[int, tuple[int, int]]:
        length = self._socket.recv_into(buffer)
        if not length:
            raise ConnectionError("the table is gone")
        return length, (0, 0)


def install(path: str) -> None:
    """Have this process and its children find IPVS there."""
    from kad_check.io import ipvs

    class Queue(RequestQueue):
        def __init__(self, protocol: int) -> None:
            super().__init__(protocol)
            self._socket.close()
            self._socket = _Socket(path)  # type: ignore[assignment]

    ipvs.RequestQueue = Queue  # type: ignore[misc]


class KadWithIpvs(Kad):
    """kad in a namespace, beside a table."""

    def __init__(self, ipvs: IpvsDouble, node: Node, text: str, *options: str) -> None:
        root = Path(__file__).parents[2]
        super().__init__(node, text, *options, wrapper=("env", f"PYTHONPATH={root}"))
        self._path = ipvs.path

    def argv(self) -> list[str]:
        return [sys.executable, "-m", __name__, self._path, *super().argv()[1:]]


def main(words: list[str]) -> int:
    path, *arguments = words
    install(path)
    sys.argv = ["kad", *arguments]
    from kad.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
