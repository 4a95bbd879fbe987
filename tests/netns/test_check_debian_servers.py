"""Single checks against Debian's own servers (nginx, plain and with TLS, dnsmasq, OpenSMTPD), and mail."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import psutil
import pytest

from kad.config.model.check import DnsCheck, HttpGet, SmtpCheck
from kad.config.model.globals import Mail, SmtpServer
from kad.control.mailer import Mailer
from kad.ipc.messages import Alert, Role
from kad.notify.policy import Letter
from kad_check.core.events import Verdict
from kad_check.io.connect import Connections
from tests.support.check_rig import ONCE, CheckRig, connection, http
from tests.support.namespaces import Network, Node, poll
from tests.support.servers import certificate

pytestmark = pytest.mark.root

GOOD, BAD = Verdict.SUCCESS, Verdict.FAILURE
PAGE = b"<html>all is well</html>\n"


def program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def rig(network: Network) -> Iterator[CheckRig]:
    """Its sockets are made inside a namespace of their own."""
    node = network.node("web")
    with node.entered(), CheckRig() as made:
        made.node = node  # type: ignore[attr-defined]
        assert isinstance(made.connections, Connections)
        yield made


def node_of(rig: CheckRig) -> Node:
    node = rig.node  # type: ignore[attr-defined]
    assert isinstance(node, Node)
    return node


def listens(rig: CheckRig, port: int, ssl: bool) -> bool:
    return rig.run(http(port, ssl=ssl, status_codes=((100, 599),))).verdict is GOOD


@pytest.fixture
def nginx(rig: CheckRig, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_bytes(PAGE)
    tmp_path.chmod(0o755)
    cert, key = certificate()
    places = "\n".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"""
        daemon off;
        user root;
        pid {tmp_path}/pid;
        error_log {tmp_path}/error.log;
        events {{ }}
        http {{
            access_log {tmp_path}/access.log;
            {places}
            server {{
                listen 127.0.0.1:8080;
                listen 127.0.0.1:8443 ssl;
                ssl_certificate {cert};
                ssl_certificate_key {key};
                root {tmp_path};
                location = /moved {{ return 302 /page.html; }}
                location = /broken {{ return 503; }}
                location = /host {{ return 200 "$host $ssl_server_name"; }}
            }}
        }}
        """
    )
    node_of(rig).start([program("nginx"), "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)])
    poll(lambda: listens(rig, 8080, False) and listens(rig, 8443, True), "nginx", seconds=10)


@pytest.mark.usefixtures("nginx")
@pytest.mark.parametrize("ssl", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("protocol", ["1.0", "1.0C", "1.1"])
def test_nginx(rig: CheckRig, ssl: bool, protocol: str) -> None:
    port = 8443 if ssl else 8080

    def check(**words: object) -> HttpGet:
        return http(port, ssl=ssl, protocol=protocol, **words)

    page = {"path": "/page.html"}
    assert rig.run(check(**page, digest=hashlib.md5(PAGE).digest())).verdict is GOOD
    assert rig.run(check(**page, digest=b"x" * 16)).verdict is BAD
    assert rig.run(check(**page, regex="is (well|fine)")).verdict is GOOD
    assert rig.run(check(path="/absent")).detail == "status code 404"
    assert rig.run(check(path="/moved")).detail == "status code 302"
    assert rig.run(check(path="/broken")).detail == "status code 503"
    named = check(path="/host", virtualhost="a.example", server_name="b.example", regex="^a.example")
    assert rig.run(named).verdict is GOOD
    if ssl:
        assert rig.run(check(path="/host", server_name="b.example", regex="b.example$")).verdict is GOOD
        assert rig.run(check(**page, tls_compliant=True)).verdict is GOOD


@pytest.mark.usefixtures("nginx")
def test_a_tls_port_is_not_a_plain_one_nor_the_other_way_round(rig: CheckRig) -> None:
    assert rig.run(http(8443)).detail == "status code 400"
    answer = rig.run(http(8080, ssl=True))
    assert answer.verdict is BAD and answer.detail.startswith("TLS handshake")


def test_dnsmasq(rig: CheckRig, tmp_path: Path) -> None:
    argv = [
        *(program("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"),
        *("--port=5353", "--listen-address=127.0.0.1", "--bind-interfaces", "--user=root"),
        *("--address=/good.example/192.0.2.1", "--local=/example/", f"--pid-file={tmp_path}/pid"),
    ]
    node_of(rig).start(argv)

    def check(name: str) -> DnsCheck:
        return DnsCheck(ONCE, connection(5353), "A", name)

    poll(lambda: rig.run(check("good.example")).verdict is GOOD, "dnsmasq", seconds=10)
    assert rig.run(check("absent.example")).detail == "answer NXDOMAIN"
    assert rig.run(check("somewhere.else")).detail == "answer REFUSED"


@pytest.fixture
def mail_box(rig: CheckRig, tmp_path: Path) -> Iterator[Path]:
    """OpenSMTPD on port 2525; what it takes is in this directory."""
    smtpd = program("smtpd")
    box = tmp_path / "box"
    box.mkdir()
    for directory in (*reversed(tmp_path.parents), tmp_path):
        if directory.is_relative_to(tempfile.gettempdir()):
            directory.chmod(0o755)
    box.chmod(0o777)
    configuration = tmp_path / "smtpd.conf"
    configuration.write_text(
        f"""
        listen on 127.0.0.1 port 2525 hostname mail.example
        action "keep" maildir "{box}" virtual {{ "@" = "nobody" }}
        match from any for any action "keep"
        """
    )
    configuration.chmod(0o644)
    # Its control socket has one fixed place for all of the machine.
    if any(each.name() == "smtpd" for each in psutil.process_iter()):
        pytest.skip("an OpenSMTPD runs on this machine")
    process = node_of(rig).start([smtpd, "-d", "-f", str(configuration)])
    try:
        poll(lambda: rig.run(SmtpCheck(ONCE, connection(2525))).verdict is GOOD, "OpenSMTPD", seconds=15)
        yield box
    finally:
        process.terminate()
        process.wait(10)


def test_opensmtpd(rig: CheckRig, mail_box: Path) -> None:
    assert rig.run(SmtpCheck(ONCE, connection(2525), helo_name="lb.example")).verdict is GOOD
    assert rig.run(http(2525)).detail == "not an HTTP response"
    # Its queue outlives it: letters of a former run may come too.
    node = f"node-{uuid.uuid4()}"
    alert = Alert(
        Role.CHECK,
        1,
        Mail(sender="k@example.org", recipients=("a@example.org",), server=SmtpServer("127.0.0.1", 2525)),
        node,
        Letter("Virtualserver [10.0.0.1]:tcp:80 - DOWN", "=> Lost quorum 1-0=1 > 0 <="),
    )
    mailer = Mailer(rig.reactor.loop)
    # Its thread is to be born in the namespace.
    mailer.submit(alert)
    rig.reactor.until(lambda: mailer.sent, 10)

    def delivered() -> list[bytes]:
        letters = [file.read_bytes() for file in (mail_box / "new").glob("*")]
        return [letter for letter in letters if node.encode() in letter]

    (letter,) = poll(delivered, "the delivered mail", seconds=10)
    mail = message_from_bytes(letter)
    assert mail["Subject"] == f"[{node}] Virtualserver [10.0.0.1]:tcp:80 - DOWN"
    assert str(mail.get_payload()).strip() == "=> Lost quorum 1-0=1 > 0 <="


@pytest.mark.usefixtures("nginx")
def test_nginx_is_no_mail_server(rig: CheckRig) -> None:
    assert rig.run(SmtpCheck(ONCE, connection(8080, timeout=0.5))).detail == "no reply to greeting in time"
