"""What a health check costs: a thousand a second of each kind, beside keepalived's checker."""

from __future__ import annotations

import functools
import os
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
from tests.support.namespaces import Network, Node, wait_until
from tests.support.servers import certificate

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


@contextmanager
def many_server(node: Node, kind: str) -> Iterator[None]:
    words = [kind, str(PORT), *(certificate() if kind == "tls" else ())]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    argv = [sys.executable, "-m", "tests.support.many_server", *words]
    process = node.start(argv, env=environment, stdout=subprocess.DEVNULL)
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
            wait_until(lambda: False, LOOK_SECONDS, every=LOOK_SECONDS)
            checks = connections(node) - opened
            used = processor_time(pid) - before
            return {
                "cost": used / checks * 1e6,
                "rate": checks / (time.monotonic() - start),
            }
