"""Checks and mail of a daemon whose files were moved away: its own, and all of Python's library."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.control import pids_of, wait_for_generation
from tests.support.daemon import Kad
from tests.support.mail_server import MailServer
from tests.support.namespaces import Network, Node, poll
from tests.support.roles.family import ROOT
from tests.support.servers import TcpServer, UdpServer, http_page, server_context, smtp

pytestmark = pytest.mark.root


class World:
    """Servers of every kind in the daemon's namespace."""

    def __init__(self, node: Node, stack: ExitStack) -> None:
        with node.entered():
            self.tls = stack.enter_context(TcpServer(http_page(b"hello"), context=server_context()))
            self.plain = stack.enter_context(TcpServer(http_page(b"hello")))
            self.smtp = stack.enter_context(TcpServer(smtp()))
            self.dns = stack.enter_context(UdpServer(answer_query))
            self.mail = stack.enter_context(MailServer())

    def configuration(self, path: str = "/") -> str:
        fast = "connect_timeout 1\nwarmup 0\nretry 0\n"
        name = "url {\npath " + path + "\nstatus_code 200\nregex hel+o\n}\n"
        checks = (
            (self.tls.port, f"SSL_GET {{\nenable_sni\nvirtualhost www.example\n{fast}{name}}}"),
            (self.plain.port, f"HTTP_GET {{\n{fast}{name}}}"),
            (self.smtp.port, f"SMTP_CHECK {{\n{fast}}}"),
            (self.dns.port, f"DNS_CHECK {{\n{fast}name www.example\n}}"),
        )
        servers = "\n".join(f"real_server 127.0.0.1 {port} {{\n{check}\n}}" for port, check in checks)
        return f"""
        global_defs {{
            router_id node
            notification_email {{
                ops@example.org
            }}
            smtp_server localhost {self.mail.port}
        }}
        virtual_server 10.0.0.1 80 {{
            delay_loop 1
            lvs_sched rr
            lvs_method NAT
            protocol TCP
            smtp_alert
            {servers}
        }}
        """

    def counts(self) -> list[int]:
        """Checks seen, by kind."""
        return [
            self.tls.connections,
            self.plain.connections,
            self.smtp.connections,
            len(self.dns.received),
        ]


def answer_query(query: bytes) -> list[bytes]:
    """The same, as a response without an error."""
    return [query[:2] + b"\x81\x80" + query[4:]]


@pytest.fixture
def world(network: Network) -> Iterator[tuple[Node, World]]:
    node = network.node("lb")
    with ExitStack() as stack:
        yield node, World(node, stack)


def cover(pid: int) -> None:
    for covered in (ROOT, Path(sys.base_prefix) / "lib", Path(sys.prefix)):
        argv = ["nsenter", "-t", str(pid), "-m", "mount", "-t", "tmpfs", "none", str(covered)]
        if Path(f"/proc/{pid}/root{covered}").exists():
            subprocess.run(argv, check=True)
    assert os.listdir(f"/proc/{pid}/root{Path(sys.base_prefix) / 'lib'}") == []


def test_checks_and_mail_go_on_without_files(world: tuple[Node, World]) -> None:
    if shutil.which("nsenter") is None:
        pytest.skip("needs nsenter")
    node, servers = world

    def two_more_of_each() -> None:
        before = servers.counts()
        poll(
            lambda: all(now >= then + 2 for now, then in zip(servers.counts(), before, strict=True)),
            "two more checks of each kind",
            seconds=20,
        )

    with Kad(
        node, servers.configuration(), wrapper=("unshare", "--mount", "--propagation", "private")
    ) as daemon:
        two_more_of_each()
        cover(daemon.pid)
        # A life that begins without files, with its first handshake, look-up of a name and pattern.
        os.kill(pids_of(daemon)["check"], signal.SIGKILL)
        two_more_of_each()
        # And a configuration read without them.
        daemon.configure(servers.configuration("/other"))
        assert daemon.kadctl("reload").returncode == 0
        wait_for_generation(daemon, 2)
        two_more_of_each()
        assert not daemon.count("failed"), daemon.said()
        servers.tls.__exit__()
        poll(
            lambda: f"[127.0.0.1]:tcp:{servers.tls.port} of" in " ".join(servers.mail.subjects),
            "a mail",
            seconds=20,
        )
        assert daemon.stop() == 0
        assert not daemon.count("last words"), daemon.said()
