"""What keepalived and kad tell of servers and instances: the LVS FIFO byte for byte, and the mail."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bench.checks import many_server
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.fifo import Reader
from tests.support.ipvs_double import IpvsDouble, KeepalivedWithIpvs, needs_redirection
from tests.support.keepalived import needs_keepalived
from tests.support.mail_server import MailServer
from tests.support.namespaces import Network, Node, needs_namespaces, poll

pytestmark = [pytest.mark.root, pytest.mark.interop]

VS, OTHER = "[10.0.0.1]:tcp:80", "[10.0.0.2]:tcp:80"
RS, NOBODY = "[127.0.0.11]:tcp:8080", "[127.0.0.12]:tcp:8081"


def configuration(place: Path, mail_port: int) -> str:
    check = "TCP_CHECK {\nconnect_timeout 1\nretry 0\ndelay_before_retry 1\nwarmup 0\n}"
    head = "delay_loop 1\nlvs_sched rr\nlvs_method NAT\nprotocol TCP\nsmtp_alert\n"
    return f"""
    global_defs {{
        router_id node
        notification_email {{
            one@example.org
            two@example.org
        }}
        notification_email_from kad@example.org
        smtp_server 127.0.0.1 {mail_port}
        smtp_alert_vrrp
        lvs_notify_fifo {place}/pipe
    }}
    vrrp_instance VI_1 {{
        interface eth0
        virtual_router_id 51
        advert_int 1
        priority 200
        virtual_ipaddress {{
            192.0.2.100/24
        }}
        track_interface {{
            eth1
        }}
    }}
    vrrp_instance VI_2 {{
        interface eth0
        virtual_router_id 52
        priority 200
        virtual_ipaddress {{
            192.0.2.101/24
        }}
    }}
    vrrp_sync_group G {{
        group {{
            VI_2
        }}
    }}
    virtual_server 10.0.0.1 80 {{
        {head}
        omega
        real_server 127.0.0.11 8080 {{
            {check}
        }}
    }}
    virtual_server 10.0.0.2 80 {{
        {head}
        alpha
        quorum 2
        hysteresis 1
        sorry_server 127.0.0.13 80
        real_server 127.0.0.11 8080 {{
            weight 3
            {check}
        }}
        real_server 127.0.0.12 8081 {{
            {check}
        }}
    }}
    """


@pytest.fixture
def place() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="kt-"))
    os.mkfifo(made / "pipe")
    yield made
    shutil.rmtree(made)


@dataclass
class Told:
    pipe: list[bytes]
    mails: list[tuple[str, ...]]


def life(node: Node, program: type[Daemon], place: Path) -> Told:
    """One server comes, goes and comes back; an interface goes and comes back; the end."""
    with ExitStack() as stack:
        with node.entered():
            mail = stack.enter_context(MailServer())
        reader = stack.enter_context(contextlib.closing(Reader(place / "pipe")))
        text = configuration(place, mail.port)
        ipvs = stack.enter_context(IpvsDouble())
        # keepalived's checkers do not run without IPVS.
        made = KeepalivedWithIpvs(ipvs, node, text) if program is Keepalived else program(node, text)
        with made as daemon:
            reader.wait_for(f"VS {OTHER} DOWN\n")
            daemon.wait_for("Entering MASTER STATE", times=2)
            reader.wait_for(f"RS {RS} {VS} DOWN\n")
            with many_server(node, "tcp"):
                reader.wait_for(f"VS {VS} UP\n", 2)
                reader.wait_for(f"VS {OTHER} UP\n")
            reader.wait_for(f"VS {VS} DOWN\n", 2)
            reader.wait_for(f"VS {OTHER} DOWN\n", 2)
            node.set_link("eth1", "down")
            daemon.wait_for("(VI_1) Entering FAULT STATE")
            node.set_link("eth1", "up")
            daemon.wait_for("(VI_1) Entering MASTER STATE", times=2)
            poll(lambda: settled(mail), "no more mail", seconds=15)
            mails = sorted(read(mail))
            assert daemon.stop() == 0
            poll(lambda: reader.data.count(f"VS {VS} DOWN\n".encode()) >= 3, "the end told")
        return Told(reader.data.splitlines(keepends=True), mails)


def settled(mail: MailServer) -> bool:
    """The last thing that was to be mailed is here."""
    return mail.subjects.count("[node] VRRP Instance VI_1 - Entering MASTER state") == 2


def read(mail: MailServer) -> Iterator[tuple[str, ...]]:
    for each in list(mail.mails):
        message = mail.read(each)
        assert message.keys() == ["Date", "From", "Subject", "X-Mailer", "To"]
        # keepalived 2.3 folds the line of receivers.
        headers = tuple(" ".join(message[name].split()) for name in ("Subject", "From", "X-Mailer", "To"))
        yield (*headers, str(message.get_payload()), str(each.mail_from), *each.rcpt_tos)


def test_the_pipe_and_the_mail_say_the_same(place: Path) -> None:
    needs_namespaces()
    needs_keepalived()
    needs_redirection()
    told = []
    for program in (Keepalived, Kad):
        with Network("told") as network:
            node = network.node("lb")
            for interface, prefix in (("eth0", "192.0.2.1/24"), ("eth1", "198.51.100.1/24")):
                node.attach(network.bridge(f"lan-{interface}"), prefix, name=interface)
            told.append(life(node, program, place))
    theirs, ours = told
    assert sorted(ours.pipe) == sorted(theirs.pipe)
    # In order is what keepalived tells for one reason: its checkers have a timer each, and who of two that
    # are due at once ends first is luck.
    assert ours.pipe[:2] == theirs.pipe[:2], "the quorums of the start, as the file has them"
    for name in (VS, OTHER):
        assert told_of(name, ours) == told_of(name, theirs)
    assert ours.pipe[-1] == theirs.pipe[-1], "omega"
    assert ours.mails == theirs.mails


def told_of(name: str, told: Told) -> list[bytes]:
    """Of a virtual server and the one real server that comes and goes."""
    return [line for line in told.pipe if name.encode() in line and NOBODY.encode() not in line]
