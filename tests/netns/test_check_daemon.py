"""The check child in a real daemon: verdicts, notifications, pipes, reload, kill -9, stop; without IPVS."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from kad.control.status import RealServerStatus
from kad.runtime.clock import monotonic_us
from tests.bench.checks import many_server
from tests.support.control import pids_of, reload, status_of, wait_for_generation
from tests.support.daemon import Kad, cpu_seconds
from tests.support.namespaces import Network, Node, poll, remains
from tests.support.servers import (
    TcpServer,
    Visit,
    certificate,
    http_page,
    make_certificate,
    server_context,
)

pytestmark = pytest.mark.root

VS, ONE, TWO = "[10.0.0.1]:tcp:80", "[127.0.0.11]:tcp:8080", "[127.0.0.12]:tcp:8081"


def configuration(directory: Path, *, vs: str = "", retry: int = 1) -> str:
    """One real server that answers, and one that does not."""
    script = directory / "told"
    servers = "\n".join(
        f"""real_server {address} {port} {{
            notify_up "{script} up {port}"
            notify_down "{script} down {port}"
            TCP_CHECK {{
                connect_timeout 1
                delay_before_retry 1
                retry {retry}
                warmup 0
            }}
        }}"""
        for address, port in (("127.0.0.11", 8080), ("127.0.0.12", 8081))
    )
    return f"""
    global_defs {{
        script_user root
        enable_script_security
        lvs_notify_fifo {directory}/pipe
    }}
    virtual_server 10.0.0.1 80 {{
        delay_loop 1
        lvs_sched rr
        lvs_method NAT
        protocol TCP
        quorum_up "{script} quorum up"
        quorum_down "{script} quorum down"
        {vs}
        {servers}
    }}
    """


@pytest.fixture
def node(network: Network) -> Node:
    return network.node("lb")


@pytest.fixture
def directory() -> Iterator[Path]:
    """Nobody but root may write there or above: scripts are looked at for that."""
    made = Path("/root") / f".kad-check-{os.getpid()}"
    made.mkdir(mode=0o700)
    script = made / "told"
    script.write_text(f'#!/bin/sh\necho "$@" >> {made}/heard\n')
    script.chmod(0o700)
    yield made
    shutil.rmtree(made)


def heard(directory: Path) -> list[str]:
    file = directory / "heard"
    return file.read_text().splitlines() if file.exists() else []


def servers(daemon: Kad) -> dict[str, RealServerStatus]:
    services = status_of(daemon).virtual_servers
    return {server.name: server for service in services for server in service.real_servers}


def alive(daemon: Kad) -> dict[str, bool]:
    return {name: server.alive for name, server in servers(daemon).items()}


def test_verdicts_reach_log_status_scripts_and_pipe(node: Node, directory: Path) -> None:
    with many_server(node, "tcp"), Kad(node, configuration(directory)) as daemon:
        daemon.wait_for(f"TCP connection to {ONE} success.")
        daemon.wait_for(f"Removing service {TWO} from VS {VS}")
        assert alive(daemon) == {ONE: True, TWO: False}
        assert servers(daemon)[TWO].problem == "TCP_CHECK: connection refused"
        poll(lambda: heard(directory) == ["quorum up", "down 8081"], "both notifications, in order")
        pipe = os.open(directory / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        assert os.read(pipe, 4096) == f"VS {VS} UP\nRS {TWO} {VS} DOWN\n".encode()
        os.close(pipe)
        text = daemon.kadctl("status").stdout
        assert TWO in text and "DOWN" in text
        assert daemon.stop() == 0
        assert not (directory / "pipe").exists(), "it was ours"


def test_death_to_removal_takes_one_to_two_periods(node: Node, directory: Path) -> None:
    """One failed check, then the one retry a second later: no sooner, and not much later."""
    with Kad(node, configuration(directory)) as daemon:
        with many_server(node, "tcp"):
            daemon.wait_for(f"TCP connection to {ONE} success.")
            assert alive(daemon)[ONE]
        died = monotonic_us()
        daemon.wait_for(f"Removing service {ONE} from VS {VS}", seconds=6)
        assert 950_000 < monotonic_us() - died < 4_000_000


def test_a_killed_checker_goes_on_where_it_stopped(node: Node, directory: Path) -> None:
    """A dead server is not put back, a live one not taken out, and nobody is told again."""
    with many_server(node, "tcp"), Kad(node, configuration(directory)) as daemon:
        daemon.wait_for(f"Removing service {TWO} from VS {VS}")
        poll(lambda: len(heard(directory)) == 2, "both notifications")
        for _ in range(3):
            old = pids_of(daemon)["check"]
            os.kill(old, signal.SIGKILL)
            poll(lambda old=old: pids_of(daemon).get("check") not in (None, old), "the next life")
            poll(lambda: status_of(daemon).virtual_servers, "its report")
            remains(lambda: alive(daemon) == {ONE: True, TWO: False}, "what was known", seconds=0.5)
        assert len(heard(directory)) == 2
        assert daemon.count(f"Removing service {TWO}") == 1


def test_a_reload_keeps_what_is_known_and_what_runs(node: Node, directory: Path) -> None:
    with many_server(node, "tcp"), Kad(node, configuration(directory)) as daemon:
        daemon.wait_for(f"Removing service {TWO} from VS {VS}")
        pid = pids_of(daemon)["check"]
        since = servers(daemon)[TWO].since
        daemon.configure(configuration(directory, retry=5, vs="persistence_timeout 50"))
        answer = reload(daemon)
        assert answer.accepted, answer.text
        wait_for_generation(daemon, answer.generation)
        assert pids_of(daemon)["check"] == pid
        assert alive(daemon) == {ONE: True, TWO: False}
        assert abs(servers(daemon)[TWO].since - since) < 0.1
        assert daemon.count(f"Removing service {TWO}") == 1


def test_without_ipvs_it_says_so_once_and_goes_on(node: Node, directory: Path) -> None:
    with many_server(node, "tcp"), Kad(node, configuration(directory)) as daemon:
        daemon.wait_for(f"Removing service {TWO} from VS {VS}")
        if not status_of(daemon).ipvs:
            pytest.skip("this kernel has IPVS")
        assert daemon.count("IPVS is not available") == 1


def test_more_checks_than_a_processor_carries_are_no_hang(node: Node) -> None:
    """Each of them all the time, and dear ones: there is always one overdue."""
    pauses = "connect_timeout 9\nwarmup 0\nretry 0\ndelay_before_retry 0.0001"
    check = f"SSL_GET {{\nurl {{\npath /\nstatus_code 200\n}}\n{pauses}\n}}"
    ends = "".join(f"real_server 127.0.{n // 250}.{n % 250 + 1} 8080 {{\n{check}\n}}\n" for n in range(500))
    head = "virtual_server 10.0.0.1 80 {\ndelay_loop 0.0001\nlvs_sched rr\nlvs_method NAT\nprotocol TCP\n"
    with many_server(node, "tcp"), Kad(node, f"{head}{ends}}}\n") as daemon:
        daemon.wait_for("check: STARTING → RUNNING")
        pid = pids_of(daemon)["check"]
        before = cpu_seconds(pid)
        # A second is what a child may stand still.
        poll(lambda: cpu_seconds(pid) - before > 2.5, "it to be busy", seconds=60)
        assert daemon.count("hangs") == 0 and pids_of(daemon)["check"] == pid, daemon.said()
        assert daemon.stop() == 0


def test_with_omega_a_stop_tells_of_everything(node: Node, directory: Path) -> None:
    with many_server(node, "tcp"), Kad(node, configuration(directory, vs="omega")) as daemon:
        daemon.wait_for(f"Removing service {TWO} from VS {VS}")
        poll(lambda: len(heard(directory)) == 2, "the first notifications")
        assert daemon.stop() == 0
        poll(lambda: sorted(heard(directory)[2:]) == ["down 8080", "quorum down"], "the last ones")


def tls_configuration(port: int, cert: Path, key: Path) -> str:
    return f"""
    SSL {{
        certificate {cert}
        key {key}
    }}
    virtual_server 10.0.0.1 443 {{
        delay_loop 1
        protocol TCP
        real_server 127.0.0.1 {port} {{
            SSL_GET {{
                url {{
                    path /
                    status_code 200
                }}
                connect_timeout 2
            }}
        }}
    }}
    """


def test_a_renewed_client_certificate_is_presented_after_a_reload(node: Node, directory: Path) -> None:
    """The configuration is the same, and so are the files' names."""
    presented: list[bytes | None] = []

    def handle(visit: Visit) -> None:
        assert isinstance(visit.connection, ssl.SSLSocket)
        presented.append(visit.connection.getpeercert(binary_form=True))
        http_page(b"hi")(visit)

    first = [Path(file).read_text() for file in certificate()]
    second = [Path(file).read_text() for file in make_certificate(directory)]
    files = [directory / "client.pem", directory / "client-key.pem"]

    def install(texts: list[str]) -> bytes:
        for file, text in zip(files, texts, strict=True):
            file.write_text(text)
        return ssl.PEM_cert_to_DER_cert(texts[0])

    context = server_context(client_certificate=True)
    context.load_verify_locations(cadata=second[0])
    old = install(first)
    with contextlib.ExitStack() as stack:
        with node.entered():
            server = stack.enter_context(TcpServer(handle, context=context))
        daemon = stack.enter_context(Kad(node, tls_configuration(server.port, *files)))
        poll(lambda: len(presented) > 1, "two checks")
        assert set(presented) == {old}
        new = install(second)
        wait_for_generation(daemon, reload(daemon).generation)
        presented.clear()
        poll(lambda: new in presented, "a check with it")
        count = len(presented)
        poll(lambda: len(presented) > count, "one more")
        assert presented[-1] == new
