"""The daemon and what it asks of IPVS, counted, beside a table that answers as the kernel does.

The same with the real one is tested in the virtual machine; this runs where the kernel has none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kad.kernel.ipvs import Command
from tests.support.control import status_of, wait_for_generation
from tests.support.ipvs_double import IpvsDouble, KadWithIpvs
from tests.support.namespaces import Network, Node, poll

pytestmark = pytest.mark.root

SERVICES, EACH = 20, 10


def configuration(*, weight: int = 1, services: int = SERVICES, each: int = EACH) -> str:
    """``weight``: of the first server. Checks come in an hour."""
    parts = []
    for n in range(services):
        parts.append(f"virtual_server 10.0.0.{n + 1} 80 {{\ndelay_loop 3600\nlvs_sched rr\nprotocol TCP")
        parts.append("lvs_method NAT")
        for m in range(each):
            own = f"weight {weight}\n" if n == m == 0 else ""
            parts.append(f"real_server 10.1.{n}.{m + 1} 80 {{\n{own}TCP_CHECK {{\n}}\n}}")
        parts.append("}")
    return "\n".join(parts) + "\n"


@pytest.fixture
def node(network: Network) -> Node:
    return network.node("lb")


@pytest.fixture
def ipvs() -> Iterator[IpvsDouble]:
    with IpvsDouble() as made:
        yield made


def wait_for(ipvs: IpvsDouble, size: int) -> None:
    poll(lambda: ipvs.size == size, lambda: f"{size} destinations, not {ipvs.size}", seconds=30)


def test_a_start_sends_everything_once_a_reload_the_change_and_a_stop_takes_it_back(
    node: Node, ipvs: IpvsDouble
) -> None:
    with KadWithIpvs(ipvs, node, configuration()) as daemon:
        wait_for(ipvs, SERVICES * EACH)
        assert ipvs.changes == SERVICES + SERVICES * EACH
        daemon.configure(configuration(weight=3))
        assert daemon.kadctl("reload").returncode == 0, daemon.said()
        assert ipvs.changes == SERVICES + SERVICES * EACH + 1
        assert ipvs.table.asked[Command.SET_DEST] == 1
        assert daemon.stop() == 0
        assert ipvs.table.services == {}
        assert ipvs.table.asked[Command.DEL_SERVICE] == SERVICES


def test_a_killed_checkers_successor_sends_nothing(node: Node, ipvs: IpvsDouble) -> None:
    with KadWithIpvs(ipvs, node, configuration()) as daemon:
        wait_for(ipvs, SERVICES * EACH)
        sent, old = ipvs.changes, daemon._pid_of("checkers")
        read = ipvs.table.asked[Command.GET_DEST]
        os.kill(old, signal.SIGKILL)
        poll(lambda: daemon._pid_of("checkers") != old, "another checker")
        poll(
            lambda: ipvs.table.asked[Command.GET_DEST] >= read + SERVICES,
            lambda: f"the table is read: {ipvs.table.asked}\n{daemon.said()[-2000:]}",
        )
        # A reload is answered when everything before it has been.
        assert daemon.kadctl("reload").returncode == 0, daemon.said()
        assert (ipvs.changes, ipvs.size) == (sent, SERVICES * EACH)


@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.ENOMEM])
def test_a_kernel_without_room_is_asked_until_it_has_some(node: Node, ipvs: IpvsDouble, error: int) -> None:
    """Of a change nobody knows whether it was carried out; then the table cannot be read, more than once."""
    with KadWithIpvs(ipvs, node, configuration()) as daemon:
        wait_for(ipvs, SERVICES * EACH)
        assert daemon.kadctl("reload").returncode == 0, daemon.said()
        ipvs.table.refusals = {Command.DEL_DEST: [error], Command.GET_DEST: [error] * 8}
        daemon.configure(configuration(each=EACH - 1))
        daemon.kadctl("reload")
        wait_for(ipvs, SERVICES * (EACH - 1))
        assert not any(ipvs.table.refusals.values())
        daemon.configure(configuration())
        daemon.kadctl("reload")
        wait_for(ipvs, SERVICES * EACH)


def test_a_start_without_room_is_repeated(node: Node, ipvs: IpvsDouble) -> None:
    ipvs.table.refusals = {Command.GET_SERVICE: [errno.ENOMEM] * 8}
    with KadWithIpvs(ipvs, node, configuration()):
        wait_for(ipvs, SERVICES * EACH)


def test_what_went_from_the_file_while_nothing_ran_goes_and_what_is_not_ours_stays(
    node: Node, ipvs: IpvsDouble
) -> None:
    with KadWithIpvs(ipvs, node, configuration()) as daemon:
        wait_for(ipvs, SERVICES * EACH)
        daemon.kill_all()
    foreign, stranger = next(iter(ipvs.table.services.items()))
    key = (*foreign[:3], b"\x1f\x90")
    ipvs.table.services[key] = type(stranger)({**stranger.attributes, 4: b"\x1f\x90"})
    before = ipvs.table.asked.copy()
    with KadWithIpvs(ipvs, node, configuration(each=EACH - 1)) as daemon:
        wait_for(ipvs, SERVICES * (EACH - 1))
        assert ipvs.table.asked[Command.DEL_DEST] - before[Command.DEL_DEST] == SERVICES
        assert ipvs.table.asked[Command.NEW_DEST] == before[Command.NEW_DEST]
        assert ipvs.table.asked[Command.NEW_SERVICE] == before[Command.NEW_SERVICE]
        assert daemon.stop() == 0
        assert list(ipvs.table.services) == [key]


@pytest.mark.parametrize("end", ["stop", "reload"])
def test_services_of_a_checker_that_is_not_to_come_back_go_too(
    node: Node, ipvs: IpvsDouble, end: str
) -> None:
    """Killed so often that it is waited with; then the daemon stops, or no service is configured any more."""
    with KadWithIpvs(ipvs, node, configuration()) as daemon:
        wait_for(ipvs, SERVICES * EACH)
        wait_for_generation(daemon, 1)

        def is_waited_with() -> bool:
            (check,) = [process for process in status_of(daemon).processes if process.role == "check"]
            with contextlib.suppress(ProcessLookupError):
                if check.pid:
                    os.kill(check.pid, signal.SIGKILL)
            return check.state == "BACKOFF"

        poll(is_waited_with, "a checker that died often enough")
        assert ipvs.size == SERVICES * EACH
        if end == "stop":
            assert daemon.stop() == 0
        else:
            daemon.configure("global_defs {\n}\n")
            assert daemon.kadctl("reload").returncode == 0, daemon.said()
        poll(lambda: not ipvs.table.services, lambda: f"no services, not {ipvs.table.lines()}")


def watched(flag: Path, *, more: str = "") -> str:
    """A server that is up while there is such a file, looked at every second."""
    return f"""
    global_defs {{
        script_user root
    }}
    virtual_server 10.0.0.1 80 {{
        lvs_sched rr
        lvs_method NAT
        protocol TCP
        delay_loop 1
        warmup 0
        retry 0
        sorry_server 192.0.2.99 80
        {more}
        real_server 192.0.2.11 80 {{
            MISC_CHECK {{
                misc_path "/usr/bin/test -e {flag}"
            }}
        }}
    }}
    """


SERVER, SORRY = "-r 192.0.2.11:80", "-r 192.0.2.99:80"


def wait_for_only(ipvs: IpvsDouble, daemon: KadWithIpvs, server: str) -> None:
    def is_alone() -> bool:
        found = [line for line in ipvs.table.lines() if line.startswith("-a")]
        return len(found) == 1 and server in found[0]

    poll(is_alone, lambda: f"{server} alone: {ipvs.table.lines()}\n{daemon.said()[-2000:]}", seconds=30)


@pytest.mark.parametrize("more", ["", "alpha"], ids=["later", "at the start"])
def test_a_sorry_server_that_was_refused_is_asked_for_again(
    node: Node, ipvs: IpvsDouble, tmp_path: Path, more: str
) -> None:
    flag = tmp_path / "up"
    flag.touch()
    if more:
        ipvs.table.refusals[Command.NEW_DEST] = [errno.EINVAL]
        flag.unlink()
    with KadWithIpvs(ipvs, node, watched(flag, more=more)) as daemon:
        if not more:
            wait_for_only(ipvs, daemon, SERVER)
            ipvs.table.refusals[Command.NEW_DEST] = [errno.EINVAL]
            flag.unlink()
        wait_for_only(ipvs, daemon, SORRY)
        said = [line for line in daemon.said().splitlines() if "EINVAL" in line]
        assert len(said) == 1 and "[192.0.2.99]" in said[0]
        flag.touch()
        wait_for_only(ipvs, daemon, SERVER)


def test_a_removal_that_was_refused_is_said_once_and_blames_nobody(
    node: Node, ipvs: IpvsDouble, tmp_path: Path
) -> None:
    flag = tmp_path / "up"
    flag.touch()
    with KadWithIpvs(ipvs, node, watched(flag)) as daemon:
        wait_for_only(ipvs, daemon, SERVER)
        ipvs.table.refusals[Command.DEL_DEST] = [errno.EINVAL] * 1000
        flag.unlink()
        poll(lambda: "IPVS does not remove" in daemon.said(), daemon.said, seconds=30)
        looked = ipvs.table.asked[Command.GET_DEST]
        poll(lambda: ipvs.table.asked[Command.GET_DEST] >= looked + 2, "two looks", seconds=60)
        assert "somebody else" not in daemon.said(), daemon.said()
        assert ipvs.table.asked[Command.DEL_DEST] >= 10, "it is asked for with each failed check"
        ipvs.table.refusals.clear()
        wait_for_only(ipvs, daemon, SORRY)
        assert daemon.said().count("IPVS does not remove [192.0.2.11]:tcp:80") == 1
