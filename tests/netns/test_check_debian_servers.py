"""Single checks against Debian's own servers: nginx, plain and with TLS, and dnsmasq."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kad.config.model.check import DnsCheck, HttpGet
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
