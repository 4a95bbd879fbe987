"""Alerts of a whole daemon: to a real mail server, and past one that never answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from tests.bench.checks import many_server
from tests.support.capture import Capture
from tests.support.control import pids_of
from tests.support.daemon import Kad
from tests.support.namespaces import Network, Node, poll
from tests.support.servers import TcpServer, never_answers

pytestmark = pytest.mark.root

VS, RS = "[10.0.0.1]:tcp:80", "[127.0.0.11]:tcp:8080"
PORT = 25


def configuration(*settings: str, port: int = PORT, router_id: str = "node-1", interval: float = 0.1) -> str:
    lines = "\n".join(settings)
    return f"""
    global_defs {{
        router_id {router_id}
        notification_email {{
            ops@example.org
            "Second <second@example.org>"
        }}
        notification_email_from kad@example.org
        smtp_server 127.0.0.1 {port}
        smtp_connect_timeout 1
        smtp_alert
        {lines}
    }}
    vrrp_instance VI_1 {{
        interface eth0
        version 3
        virtual_router_id 51
        advert_int {interval}
        virtual_ipaddress {{
            192.0.2.100/24
        }}
        track_interface {{
            eth1
        }}
    }}
    virtual_server 10.0.0.1 80 {{
        delay_loop 1
        lvs_sched rr
        lvs_method NAT
        protocol TCP
        real_server 127.0.0.11 8080 {{
            TCP_CHECK {{
                connect_timeout 1
                retry 0
                warmup 0
            }}
        }}
    }}
    """


@pytest.fixture
def node(network: Network) -> Node:
    made = network.node("lb")
    for interface in ("eth0", "eth1"):
        lan = network.bridge(f"lan-{interface}")
        made.attach(lan, "192.0.2.1/24" if interface == "eth0" else "198.51.100.1/24", name=interface)
    return made


class Mailbox:
    """What a mail server in the namespace has taken, in the order it came."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def mails(self) -> list[Message]:
        files = [*self._directory.glob("new/*"), *self._directory.glob("cur/*")]
        files.sort(key=lambda file: file.stat().st_mtime_ns)
        return [message_from_bytes(file.read_bytes()) for file in files]

    @property
    def subjects(self) -> list[str]:
        return [mail["Subject"] for mail in self.mails()]

    def wait_for(self, *subjects: str) -> None:
        def missing() -> list[str]:
            had = self.subjects
            return [each for each in subjects if each not in had]

        poll(lambda: not missing(), f"mails {subjects}", seconds=20)


@contextmanager
def mail_server(node: Node, directory: Path) -> Iterator[Mailbox]:
    words = ("-n", "-l", f"127.0.0.1:{PORT}", "-c", "aiosmtpd.handlers.Mailbox", str(directory / "box"))
    process = node.start([sys.executable, "-m", "aiosmtpd", *words], stderr=subprocess.DEVNULL)
    try:
        yield Mailbox(directory / "box")
    finally:
        process.kill()
        process.wait()


def of_instance(what: str, router_id: str = "node-1") -> str:
    return f"[{router_id}] VRRP Instance VI_1 - {what}"


def test_alerts_reach_a_mail_server_whatever_dies_meanwhile(node: Node, tmp_path: Path) -> None:
    up, down = (f"[node-1] Realserver {RS} of virtual server {VS} - {state}" for state in ("UP", "DOWN"))
    with mail_server(node, tmp_path) as box, Kad(node, configuration()) as daemon:
        with many_server(node, "tcp"):
            box.wait_for(of_instance("Entering BACKUP state"), of_instance("Entering MASTER state"))
            node.set_link("eth1", "down")
            box.wait_for(of_instance("Entering FAULT state"))
        box.wait_for(down, f"[node-1] Virtualserver {VS} - DOWN")
        (fault,) = [mail for mail in box.mails() if mail["Subject"] == of_instance("Entering FAULT state")]
        assert fault["From"] == "kad@example.org"
        assert fault["To"] == "ops@example.org, Second <second@example.org>"
        assert fault["X-RcptTo"] == "ops@example.org, second@example.org"
        assert str(fault.get_payload()).strip() == "=> VRRP Instance is no longer owning VRRP VIPs <="
        # A reload changes what is mailed, and control may die: its successor mails on.
        daemon.configure(configuration(router_id="node-2"))
        assert daemon.kadctl("reload").returncode == 0
        os.kill(pids_of(daemon)["control"], signal.SIGKILL)
        with many_server(node, "tcp"):
            box.wait_for(up.replace("node-1", "node-2"), f"[node-2] Virtualserver {VS} - UP")
        before = len(box.subjects)
        assert daemon.stop() == 0
        poll(lambda: of_instance("Stopping", "node-2") in box.subjects[before:], "the last alert", seconds=5)


@pytest.mark.alone
def test_a_mail_server_that_never_answers_delays_nothing(node: Node) -> None:
    with ExitStack() as stack:
        with node.entered():
            server = stack.enter_context(TcpServer(never_answers))
        text = configuration(port=server.port, interval=0.02)
        with Kad(node, text) as daemon, Capture(node, "eth0") as wire:
            daemon.wait_for("Entering MASTER STATE")
            poll(lambda: server.connections, "a mail that is tried", seconds=15)
            daemon.wait_for(f"Removing service {RS}")
            sent = len(wire.adverts(vrid=51))
            adverts = wire.wait_for(
                lambda: found if len(found := wire.adverts(vrid=51)) >= sent + 100 else [],
                "a hundred adverts",
            )[sent:]
            mean_us = (adverts[-1].time_us - adverts[0].time_us) / (len(adverts) - 1)
            assert 19_000 < mean_us < 22_000
            assert daemon.stop(seconds=5) == 0
            assert "Traceback" not in daemon.said()


def test_what_the_settings_leave_out_is_not_mailed(node: Node, tmp_path: Path) -> None:
    text = configuration("smtp_alert_checker off", "no_email_faults")
    text = text.replace("TCP_CHECK {", "smtp_alert on\nTCP_CHECK {")
    with mail_server(node, tmp_path) as box, Kad(node, text) as daemon:
        box.wait_for(of_instance("Entering MASTER state"))
        box.wait_for(f"[node-1] Realserver {RS} of virtual server {VS} - DOWN")
        node.set_link("eth1", "down")
        daemon.wait_for("Entering FAULT STATE")
        node.set_link("eth1", "up")
        poll(lambda: box.subjects.count(of_instance("Entering BACKUP state")) == 2, "the return", seconds=15)
        assert not [each for each in box.subjects if "FAULT" in each or "Virtualserver" in each]
