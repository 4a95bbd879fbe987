"""BFD_CHECK: what keepalived and kad say and run when the sessions of real servers come and go."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.fifo import Reader
from tests.support.ipvs_double import IpvsDouble, KeepalivedWithIpvs, needs_redirection
from tests.support.keepalived import needs_keepalived
from tests.support.namespaces import Network, Node, needs_namespaces, poll

pytestmark = [pytest.mark.root, pytest.mark.interop]

VS = "[10.0.0.1]:tcp:80"
PLAIN, ALPHA, TWICE = ("[192.0.2.2]:tcp:80", "[192.0.2.2]:tcp:81", "[192.0.2.3]:tcp:80")
SESSION = "min_rx 200\nmin_tx 200\nmultiplier 5\n"
"""A busy machine's pauses are shorter than that."""
SAID = re.compile(r"(?:BFD check of|(?:Adding|Removing) service|(?:Gained|Lost) quorum) .*$", re.MULTILINE)


def balancer(place: Path) -> str:
    """The third server is down when either of the two sessions is."""
    scripts = "\n".join(f'notify_{way} "{place}/notify {way} {{}}"' for way in ("up", "down"))
    sessions = "".join(
        f"bfd_instance peer{n} {{\nneighbor_ip 192.0.2.{n}\nsource_ip 192.0.2.1\n{SESSION}}}\n"
        for n in (2, 3)
    )

    def server(where: str, name: str, *checks: str) -> str:
        checkers = "\n".join(f"BFD_CHECK {{\n{check}\n}}" for check in checks)
        return f"real_server {where} {{\nweight 1\n{scripts.format(name, name)}\n{checkers}\n}}"

    servers = "\n".join(
        (
            server("192.0.2.2 80", "plain", "name peer2"),
            server("192.0.2.2 81", "alpha", "name peer2\nalpha"),
            server("192.0.2.3 80", "twice", "name peer2", "name peer3"),
        )
    )
    return f"""
    global_defs {{
        router_id node
        script_user root
        enable_script_security
        lvs_notify_fifo {place}/pipe
    }}
    {sessions}
    virtual_server 10.0.0.1 80 {{
        lvs_sched rr
        lvs_method NAT
        protocol TCP
        quorum 2
        quorum_up "{place}/notify up quorum"
        quorum_down "{place}/notify down quorum"
        {servers}
    }}
    """


def neighbor(last: int) -> str:
    session = f"bfd_instance lb {{\nneighbor_ip 192.0.2.1\nsource_ip 192.0.2.{last}\n{SESSION}}}\n"
    return f"global_defs {{\nrouter_id n{last}\n}}\n{session}"


@pytest.fixture
def place() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="kt-"))
    os.mkfifo(made / "pipe")
    script = made / "notify"
    script.write_text(f'#!/bin/sh\necho "$*" >>{made}/notified\n')
    script.chmod(0o755)
    yield made
    shutil.rmtree(made)


class Life:
    """What one daemon says and does, step by step: lines in the pipe, scripts run, lines in the log."""

    def __init__(self, place: Path, daemon: Daemon, reader: Reader) -> None:
        self._notified = place / "notified"
        self._daemon = daemon
        self._reader = reader
        self._seen = [0, 0, 0]
        self.told: list[tuple[list[str], ...]] = []

    def _new(self) -> tuple[list[str], ...]:
        calls = self._notified.read_text().splitlines() if self._notified.exists() else []
        every = (self._reader.data.decode().splitlines(), calls, SAID.findall(self._daemon.said()))
        return tuple(found[seen:] for found, seen in zip(every, self._seen, strict=True))

    def settle(self) -> None:
        """Everything is up. keepalived took it all down before, as it started."""

        def is_up(what: str) -> bool:
            lines = [line for line in self._new()[0] if what in line]
            return not lines or lines[-1].endswith(" UP")

        def is_believed(server: str, session: str) -> bool:
            verdicts = [line for line in self._new()[2] if f"[{session}] RS({server})" in line]
            return bool(verdicts) and verdicts[-1].endswith(" UP")

        followed = ((PLAIN, "peer2"), (ALPHA, "peer2"), (TWICE, "peer2"), (TWICE, "peer3"))

        poll(
            lambda: (
                f"RS {ALPHA} {VS} UP" in self._new()[0]
                and all(is_believed(*each) for each in followed)
                and all(map(is_up, (f"RS {PLAIN}", f"RS {ALPHA}", f"RS {TWICE}", f"VS {VS}")))
                and len(self._new()[0]) == len(self._new()[1])
            ),
            lambda: f"all of it up: {self._new()}\n{self._daemon.said()}",
            seconds=20,
        )
        self._seen = [seen + len(new) for seen, new in zip(self._seen, self._new(), strict=True)]

    def step(self, changes: int, logged: int) -> None:
        """Wait until so many changes have been told in each way, and note them."""
        wanted = (changes, changes, logged)
        poll(
            lambda: all(len(new) >= count for new, count in zip(self._new(), wanted, strict=True)),
            lambda: f"{wanted} of {self._new()}\n{self._daemon.said()}",
            seconds=20,
        )
        new = self._new()
        self.told.append(tuple(map(sorted, new)))
        self._seen = [seen + len(each) for seen, each in zip(self._seen, new, strict=True)]


def balanced(stack: ExitStack, program: type[Daemon], node: Node, text: str) -> Daemon:
    """keepalived's checkers do not run without IPVS."""
    if program is Kad:
        return Kad(node, text)
    return KeepalivedWithIpvs(stack.enter_context(IpvsDouble()), node, text)


def life(network: Network, program: type[Daemon], place: Path) -> list[tuple[list[str], ...]]:
    nodes = [network.node(name) for name in ("lb", "n2", "n3")]
    lan = network.bridge()
    for last, node in enumerate(nodes, 1):
        node.attach(lan, f"192.0.2.{last}/24", name="eth0")
    with ExitStack() as stack:
        (place / "notified").unlink(missing_ok=True)
        reader = stack.enter_context(contextlib.closing(Reader(place / "pipe")))
        second, third = (
            stack.enter_context(Keepalived(node, neighbor(last))) for last, node in enumerate(nodes[1:], 2)
        )
        daemon = stack.enter_context(balanced(stack, program, nodes[0], balancer(place)))
        lived = Life(place, daemon, reader)
        lived.settle()
        # Three verdicts, of three servers, one of which follows both; three changes and the quorum.
        for lost, changes, logged in ((second, 4, 7), (third, 1, 2)):
            lost.kill_all()
            lived.step(changes, logged)
            for left in lost.directory.glob("*.pid"):
                left.unlink()  # of processes that nobody has reaped yet
            lost.start()
            lived.step(changes, logged)
        assert daemon.stop() == 0
        return lived.told


def test_both_tell_and_run_the_same(place: Path) -> None:
    needs_namespaces()
    needs_keepalived()
    needs_redirection()
    told = []
    for program in (Keepalived, Kad):
        with Network("bfdcheck") as network:
            told.append(life(network, program, place))
    theirs, ours = told
    assert ours == theirs
    every = [f"RS {name} {VS} DOWN" for name in (PLAIN, ALPHA, TWICE)]
    assert ours[0][0] == sorted([*every, f"VS {VS} DOWN"])
    assert ours[2][:2] == ([f"RS {TWICE} {VS} DOWN"], ["down twice"])
