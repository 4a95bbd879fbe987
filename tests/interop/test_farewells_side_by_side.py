"""What keepalived and kad tell of virtual servers as they go: at the end with omega, or in a reload."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.fifo import Reader
from tests.support.ipvs_double import IpvsDouble, KadWithIpvs, KeepalivedWithIpvs, needs_redirection
from tests.support.keepalived import configuration, needs_keepalived
from tests.support.lvs import Farm
from tests.support.namespaces import Network, needs_namespaces, poll

pytestmark = [pytest.mark.root, pytest.mark.interop]

SERVER = "127.0.0.11"
DEAD = 8009
ALIVE = (8001, 8002, 8003, 8004)
SERVICES = {
    1: ("", (8001, DEAD)),
    2: ("quorum 2\nsorry_server 127.0.0.9 80", (8002, DEAD)),  # the sorry server serves
    3: ("sorry_server 127.0.0.9 80", (8003,)),
    4: ("quorum 2", (8004, DEAD)),
    5: ("", (DEAD,)),
    6: ("sorry_server 127.0.0.9 80", (DEAD,)),
}
"""By number: settings and the ports of its servers."""


def text(place: Path, flush: str, *numbers: int) -> str:
    parts = []
    for number in numbers:
        settings, ports = SERVICES[number]
        servers = "".join(
            f"real_server {SERVER} {port} {{\nnotify_down '{place}/told.sh server down {port}'\n"
            "TCP_CHECK {\nconnect_timeout 1\nretry 0\ndelay_before_retry 1\nwarmup 0\n}\n}\n"
            for port in ports
        )
        parts.append(
            f"virtual_server 10.0.0.{number} 80 {{\ndelay_loop 1\nlvs_sched rr\nlvs_method NAT\n"
            f"protocol TCP\nomega\nquorum_down '{place}/told.sh quorum down {number}'\n{settings}\n"
            f"{servers}}}\n"
        )
    return configuration(
        *parts, settings=[f"lvs_notify_fifo {place}/pipe", "script_user root", *flush.splitlines()]
    )


def line(port: int, number: int) -> str:
    return f"RS [{SERVER}]:tcp:{port} [10.0.0.{number}]:tcp:80 DOWN"


def quorum(number: int) -> str:
    return f"VS [10.0.0.{number}]:tcp:80 DOWN"


class Place:
    """A directory with the pipe and the script, both read."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="kf-"))
        self.path.chmod(0o755)
        os.mkfifo(self.path / "pipe")
        script = self.path / "told.sh"
        script.write_text(f'#!/bin/sh\necho "$@" >>{self.path}/told\n')
        script.chmod(0o755)
        self.pipe = Reader(self.path / "pipe")
        self.forget()

    def forget(self) -> None:
        self.pipe.forget()
        (self.path / "told").write_text("")

    def lines(self) -> list[str]:
        return self.pipe.data.decode().splitlines()

    def scripts(self) -> list[str]:
        return sorted((self.path / "told").read_text().splitlines())

    def close(self) -> None:
        self.pipe.close()
        shutil.rmtree(self.path)


def life(program: type[Daemon], flush: str, removed: bool) -> tuple[list[str], list[str]]:
    """What is told from the moment on that everybody who is dead is known to be."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network("farewell"))
        farm = stack.enter_context(contextlib.closing(Farm()))
        ipvs = stack.enter_context(IpvsDouble())
        place = stack.enter_context(contextlib.closing(Place()))
        node = network.node("lb")
        for port in ALIVE:
            farm.serve(node, SERVER, port, str(port))
        kind = KadWithIpvs if program is Kad else KeepalivedWithIpvs
        daemon = stack.enter_context(kind(ipvs, node, text(place.path, flush, *SERVICES)))
        dead = [line(DEAD, number) for number, (_, ports) in SERVICES.items() if DEAD in ports]
        poll(lambda: set(dead) <= set(place.lines()), "the dead servers to be found")
        poll(lambda: len(place.scripts()) >= len(dead) + 4, lambda: f"scripts: {place.scripts()}")
        place.forget()
        if removed:
            daemon.configure(text(place.path, flush, 5))
            daemon.reload()
            poll(lambda: len(ipvs.table.services) == 1, "one service")
        else:
            assert daemon.stop() == 0
            assert ipvs.table.lines() == []
        return settled(place)


def settled(place: Place) -> tuple[list[str], list[str]]:
    """Both, once each line has its script."""
    poll(
        lambda: place.lines() and len(place.scripts()) == len(place.lines()),
        lambda: f"{place.lines()} {place.scripts()}",
    )
    return place.lines(), place.scripts()


def script_of(told: str) -> str:
    """What a line's script writes."""
    kind, name, *_ = told.split()
    if kind == "RS":
        return f"server down {name.rpartition(':')[2]}"
    return f"quorum down {name.partition(']')[0].rpartition('.')[2]}"


EVERYTHING = [
    line(8001, 1),
    quorum(1),
    line(8002, 2),
    quorum(2),
    line(8003, 3),
    quorum(3),
    line(8004, 4),
    quorum(4),
    quorum(5),
    quorum(6),
]
REMOVED = [line(8001, 1), quorum(1), line(8002, 2), line(8003, 3), quorum(3), line(8004, 4)]


@pytest.mark.parametrize(
    ("flush", "removed", "wanted", "not_by_keepalived"),
    [
        ("", False, EVERYTHING, {line(8002, 2)}),
        ("lvs_flush_on_stop", False, EVERYTHING, {each for each in EVERYTHING if each.startswith("RS")}),
        ("lvs_flush_on_stop VS", False, EVERYTHING, {each for each in EVERYTHING if each.startswith("RS")}),
        ("", True, REMOVED, {line(8002, 2)}),
    ],
    ids=["the end", "the end with lvs_flush_on_stop", "the end with lvs_flush_on_stop VS", "removed"],
)
def test_who_was_up_is_told_of(
    flush: str, removed: bool, wanted: list[str], not_by_keepalived: set[str]
) -> None:
    """In the order of the file. keepalived does not tell of a server whose sorry server serves."""
    needs_namespaces()
    needs_keepalived()
    needs_redirection()
    for program, lines in (
        (Kad, wanted),
        (Keepalived, [each for each in wanted if each not in not_by_keepalived]),
    ):
        told, scripts = life(program, flush, removed)
        assert told == lines, program.__name__
        assert scripts == sorted(map(script_of, lines)), program.__name__
