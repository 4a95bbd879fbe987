"""What a page's pattern is searched in, by keepalived and by kad."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import Kad, Keepalived
from tests.support.ipvs_double import IpvsDouble, KadWithIpvs, KeepalivedWithIpvs, needs_redirection
from tests.support.keepalived import configuration, needs_keepalived
from tests.support.lvs import Farm
from tests.support.namespaces import Network, Node, needs_namespaces, poll, wait_until

pytestmark = [pytest.mark.root, pytest.mark.interop]

SERVER = "127.0.0.11"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
HELLO = (b"hello world\n",)
CUT = (b"hello w", b"orld")
BOTH, NOBODY = {Kad, Keepalived}, set[type]()
CASES = [
    # Pattern, options, the body's pieces, whether the first comes with the headers, who finds it.
    ("hello", "", HELLO, True, BOTH),
    ("lo wor", "", CUT, True, BOTH),
    ("lo wor", "", CUT, False, BOTH),
    ("^hello", "", HELLO, False, BOTH),
    ("^hello", "", HELLO, True, {Kad}),
    ("^hello", "multiline", (b"x\nhello world\n",), True, BOTH),
    ("world$", "multiline", (b"world\nx\n",), True, BOTH),
    ("world$", "", HELLO, True, {Kad}),
    ("world$", "", HELLO, False, {Kad}),
    ("world$", "", CUT, False, {Kad}),
    ("hello w$", "", CUT, False, NOBODY),
    ("^orld", "", CUT, False, {Keepalived}),
    ("200 OK", "", HELLO, True, {Keepalived}),
    ("^HTTP", "", HELLO, True, {Keepalived}),
    ("^a*b$", "", (b"a" * 9000 + b"b",), False, {Kad}),
]
FIRST_PORT = 8001


def server(node: Node, pieces: tuple[bytes, ...], together: bool) -> Callable[[socket.socket], None]:
    """Each piece is sent when the one before it was read."""

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(5)
            connection.recv(4096)
            client = connection.getpeername()[1]
            sent = (HEAD + pieces[0], *pieces[1:]) if together else (HEAD, *pieces)
            for piece in sent:
                connection.sendall(piece)
                wait_until(lambda: has_read(node, client), 3)

    return answer


def has_read(node: Node, port: int) -> bool:
    """Whether nothing waits to be read by the connection from this port."""
    with node.entered():
        lines = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
    for _, local, _, _, queues, *_ in map(str.split, lines):
        if local.endswith(f":{port:04X}"):
            return queues.endswith(":00000000")
    return True


def text() -> str:
    parts = []
    for number, (pattern, options, *_) in enumerate(CASES):
        page = f'path /\nstatus_code 200\nregex "{pattern}"' + (
            f"\nregex_options {options}" if options else ""
        )
        schedule = "connect_timeout 3\nretry 0\ndelay_before_retry 1\nwarmup 0"
        parts.append(
            f"virtual_server 10.0.0.{number} 80 {{\ndelay_loop 1\nlvs_sched rr\nlvs_method NAT\n"
            f"protocol TCP\nalpha\nreal_server {SERVER} {FIRST_PORT + number} {{\n"
            f"HTTP_GET {{\nurl {{\n{page}\n}}\n{schedule}\n}}\n}}\n}}\n"
        )
    return configuration(*parts)


@pytest.mark.parametrize("program", [Keepalived, Kad], ids=["keepalived", "kad"])
def test_what_is_searched(program: type[Keepalived | Kad]) -> None:
    needs_namespaces()
    needs_keepalived()
    needs_redirection()
    kind = KadWithIpvs if program is Kad else KeepalivedWithIpvs
    with Network("patterns") as network, contextlib.closing(Farm()) as farm, IpvsDouble() as ipvs:
        node = network.node("lb")
        for number, (_, _, pieces, together, _) in enumerate(CASES):
            port = FIRST_PORT + number
            farm.serve(node, SERVER, port, str(port), dialogue=server(node, pieces, together))
        seen: set[int] = set()

        def look() -> bool:
            """With alpha a server comes into the table once its pattern is found."""
            lines = "\n".join(ipvs.table.lines())
            seen.update(n for n in range(len(CASES)) if f":{FIRST_PORT + n} " in lines)
            return wanted <= seen and all(
                farm.asked[str(FIRST_PORT + number)] >= 3 for number in range(len(CASES))
            )

        wanted = {number for number, case in enumerate(CASES) if program in case[4]}
        with kind(ipvs, node, text()):
            poll(look, lambda: f"not found: {[CASES[n] for n in wanted - seen]}", seconds=30, every=0.05)
        assert seen == wanted, [CASES[n] for n in seen - wanted]
