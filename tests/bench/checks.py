"""What a health check costs: a thousand a second of each kind, beside keepalived's checker."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bench.stage import NotMeasuredError, Program, processor_time
from tests.support.daemon import Daemon, Keepalived
from tests.support.namespaces import Network, Node, stand_still, wait_until
from tests.support.servers import make_certificate

Values = dict[str, float]
SERVERS = 1000
LOOK_SECONDS = 20.0
PORT = 8080
STUB = Path(__file__).parents[1] / "support/ipvs_stub.c"

CHECKS = {
    "tcp": "TCP_CHECK {{\n{schedule}\n}}",
    "http": "HTTP_GET {{\nurl {{\npath /\nstatus_code 200\n}}\n{schedule}\n}}",
    "tls": "SSL_GET {{\nurl {{\npath /\nstatus_code 200\n}}\n{schedule}\n}}",
}
SCHEDULE = "connect_timeout 3\nwarmup 1\ndelay_before_retry 1\nretry 3"


def configuration(kind: str, count: int = SERVERS, delay_loop: int = 1) -> str:
    """One service with many real servers, all of them addresses of this machine."""
    check = CHECKS[kind].format(schedule=SCHEDULE)
    servers = "\n".join(
        f"real_server 127.{1 + n // 62500}.{n // 250 % 250}.{n % 250 + 1} {PORT} {{\n{check}\n}}"
        for n in range(count)
    )
    head = (
        f"virtual_server 10.0.0.1 80 {{\ndelay_loop {delay_loop}\nlvs_sched rr\nlvs_method NAT\nprotocol TCP"
    )
    return f"{head}\n{servers}\n}}\n"


@functools.cache
def stub() -> str:
    """The compiled stub for LD_PRELOAD; empty where nothing compiles it."""
    made = Path(tempfile.mkdtemp(prefix="kb-")) / "ipvs_stub.so"
    try:
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O2", "-o", made, STUB, "-ldl"], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return str(made)


def needs_stub() -> None:
    """Skip the running test, saying why, where keepalived's checkers cannot be made to run."""
    if not stub():
        pytest.skip("no C compiler for the stub that lets keepalived's checkers run (make packages)")


@contextmanager
def checker(program: Program, node: Node, text: str) -> Iterator[Daemon]:
    """The daemon with this configuration; keepalived's checkers want to believe in IPVS."""
    wrapper: list[str] = []
    if program is Keepalived:
        if not stub():
            raise NotMeasuredError("no compiler for the stub that lets keepalived's checkers run")
        wrapper = ["env", f"LD_PRELOAD={stub()}"]
    with program(node, text, wrapper=wrapper) as daemon:
        yield daemon


NGINX = """
daemon off;
master_process off;
user root;
pid {place}/pid;
error_log {place}/error.log;
worker_rlimit_nofile 16384;
events {{
    worker_connections 8192;
}}
http {{
    access_log off;
    keepalive_timeout 0;
    {temporary}
    server {{
        listen 0.0.0.0:{port} ssl backlog=4096;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache off;
        ssl_session_tickets off;
        location / {{
            return 200 hello;
        }}
    }}
}}
"""
"""Each connection is a whole handshake, none is resumed."""


def tls_server(place: Path) -> list[str]:
    """nginx in one process. With such a key a handshake costs it half of what it costs its client: both fit
    on two processors at a thousand a second."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if program is None:
        raise NotMeasuredError("nginx is not installed (make packages)")
    place.chmod(0o755)
    certificate, key = make_certificate(place, "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"{kind}_temp_path {place}/{kind};" for kind in kinds)
    text = NGINX.format(place=place, port=PORT, certificate=certificate, key=key, temporary=temporary)
    (place / "nginx.conf").write_text(text)
    return [program, "-c", f"{place}/nginx.conf", "-p", str(place)]


@contextmanager
def many_server(node: Node, kind: str) -> Iterator[None]:
    """Answers on every address. Over TLS it is nginx, else a program of our own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with tempfile.TemporaryDirectory(prefix="kn-") as place:
        argv = [sys.executable, "-m", "tests.support.many_server", kind, str(PORT)]
        if kind == "tls":
            argv = tls_server(Path(place))
        with running(node, argv, environment):
            yield


@contextmanager
def running(node: Node, argv: list[str], environment: dict[str, str]) -> Iterator[None]:
    process = node.start(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def connections(node: Node) -> int:
    """How many were accepted in the namespace so far."""
    with node.entered():
        lines = [line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()]
    names, values = (line for line in lines if line[0] == "Tcp:")
    return int(values[names.index("PassiveOpens")])


def cost_of_checks(program: Program, kind: str, count: int = SERVERS) -> Values:
    """Processor time a check, and whether the pace was kept."""
    with Network("checks") as network:
        node = network.node("lb")
        with many_server(node, kind), checker(program, node, configuration(kind, count)) as daemon:
            if wait_until(lambda: connections(node) > 3 * count, 30, every=0.1) is None:
                raise NotMeasuredError("the checks do not come to their pace")
            pid = daemon._pid_of("checkers")
            before, opened, start = processor_time(pid), connections(node), time.monotonic()
            stand_still(LOOK_SECONDS)
            checks = connections(node) - opened
            used = processor_time(pid) - before
            return {
                "cost": used / checks * 1e6,
                "rate": checks / (time.monotonic() - start),
            }
