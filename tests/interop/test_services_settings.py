"""Settings of services that show in what is told, asked and placed, beside keepalived."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.dialogues import smtp
from tests.support.ipvs_double import IpvsDouble, KadWithIpvs, KeepalivedWithIpvs, needs_redirection
from tests.support.keepalived import configuration, needs_keepalived
from tests.support.lvs import Farm
from tests.support.namespaces import Network, Node, needs_namespaces, poll

pytestmark = [pytest.mark.root, pytest.mark.interop]

SERVER = "127.0.0.11"
ALIVE, DEAD = 8001, 8009
QUICK = "connect_timeout 2\nretry 0\ndelay_before_retry 1\nwarmup 0"
TCP = f"TCP_CHECK {{\n{QUICK}\n}}"


class Site:
    """A balancer beside a table, whose servers are its own addresses, and a directory for what is told."""

    def __init__(self, network: Network, farm: Farm, ipvs: IpvsDouble, place: Path) -> None:
        self.node: Node = network.node("lb")
        self.farm, self.ipvs, self.place = farm, ipvs, place
        self.script("told.sh", f'echo "$@" >>{place}/told')
        (place / "told").touch()

    def script(self, name: str, body: str) -> None:
        made = self.place / name
        made.write_text(f"#!/bin/sh\n{body}\n")
        made.chmod(0o755)

    def daemon(self, program: type[Daemon], *blocks: str, settings: str = "") -> Daemon:
        kind = KadWithIpvs if program is Kad else KeepalivedWithIpvs
        text = configuration(*blocks, settings=["script_user root", *settings.splitlines()])
        return kind(self.ipvs, self.node, text)

    def told(self) -> list[str]:
        return (self.place / "told").read_text().splitlines()

    def read(self) -> list[str]:
        """By the script that reads the pipe."""
        with contextlib.suppress(FileNotFoundError):
            return (self.place / "read").read_text().splitlines()
        return []

    def table(self) -> str:
        return "\n".join(self.ipvs.table.lines())

    def weights(self) -> list[int]:
        return [int(line.split(" -w ")[1].split()[0]) for line in self.ipvs.table.lines() if " -w " in line]


@contextlib.contextmanager
def new_site() -> Iterator[Site]:
    needs_namespaces()
    needs_keepalived()
    needs_redirection()
    place = Path(tempfile.mkdtemp(prefix="ks-"))
    place.chmod(0o755)
    with Network("settings") as network, contextlib.closing(Farm()) as farm, IpvsDouble() as ipvs:
        yield Site(network, farm, ipvs, place)
    shutil.rmtree(place)


def service(number: int, settings: str, *servers: str) -> str:
    return (
        f"virtual_server 10.0.0.{number} 80 {{\ndelay_loop 1\nlvs_sched rr\nlvs_method NAT\nprotocol TCP\n"
        f"{settings}\n{''.join(servers)}}}\n"
    )


def real_server(port: int, settings: str = "", check: str = TCP) -> str:
    return f"real_server {SERVER} {port} {{\n{settings}\n{check}\n}}\n"


BOTH = (Keepalived, Kad)


@pytest.mark.parametrize("initial", [False, True], ids=["", "rs_init_notifies"])
def test_the_first_states_and_who_reads_the_pipe(initial: bool) -> None:
    """A script that the daemon starts for its pipe is given the pipe's name, and reads everything."""
    theirs, ours = (first_states(program, initial) for program in BOTH)
    assert ours == theirs
    lines, scripts = ours
    # Without alpha a server that is up was taken to be: that is told with rs_init_notifies only.
    assert (f"RS [{SERVER}]:tcp:{ALIVE} [10.0.0.1]:tcp:80 UP" in lines) is initial
    assert ("up 1" in scripts) is initial and "up 2" in scripts


def first_states(program: type[Daemon], initial: bool) -> tuple[list[str], list[str]]:
    """What the pipe's reader has read, and what scripts were told."""
    with new_site() as site:
        site.farm.serve(site.node, SERVER, ALIVE, "alive")
        site.script("reader.sh", f'echo "$1" >{site.place}/name\nexec cat "$1" >{site.place}/read')
        blocks = []
        for number, settings in ((1, ""), (2, "alpha")):
            notify = "\n".join(
                f'notify_{way} "{site.place}/told.sh {way} {number}"' for way in ("up", "down")
            )
            blocks.append(service(number, settings, real_server(ALIVE, notify), real_server(DEAD, notify)))
        settings = f"lvs_notify_fifo {site.place}/pipe\nlvs_notify_fifo_script {site.place}/reader.sh"
        settings += "\nrs_init_notifies" if initial else ""
        with site.daemon(program, *blocks, settings=settings) as daemon:
            wanted = {f"RS [{SERVER}]:tcp:{DEAD} [10.0.0.{number}]:tcp:80 DOWN" for number in (1, 2)}
            poll(lambda: wanted <= set(site.read()), lambda: f"{site.read()}", seconds=20)
            seen = site.farm.asked["alive"] + 6
            poll(lambda: site.farm.asked["alive"] >= seen, "more checks")
            assert (site.place / "name").read_text().strip() == f"{site.place}/pipe"
            told = sorted(site.read()), sorted(site.told())
            assert daemon.stop() == 0
        return told


def test_a_sorry_server_with_a_method_of_its_own() -> None:
    seen = []
    for program in BOTH:
        with new_site() as site:
            sorry = "sorry_server 127.0.0.9 80\nsorry_server_lvs_method TUN\nsorry_server_inhibit"
            with site.daemon(program, service(1, sorry, real_server(ALIVE, "inhibit_on_failure"))):
                wait_for_weights(site, [0, 1])
                serving = site.table()
                site.farm.serve(site.node, SERVER, ALIVE, "alive")
                wait_for_weights(site, [1, 0])
                seen.append((serving, site.table()))
    theirs, ours = seen
    assert ours == theirs
    assert all("-r 127.0.0.9:80 method 2 " in table for table in ours)


@pytest.mark.parametrize("fast", [False, True], ids=["", "fast_recovery"])
def test_a_server_that_comes_back_has_all_its_pages_asked_for(fast: bool) -> None:
    """With fast_recovery one after the other, else a delay_loop apart."""
    gaps = {}
    for program in BOTH:
        with new_site() as site:
            asked: list[tuple[float, str]] = []
            is_well = threading.Event()
            site.farm.serve(site.node, SERVER, ALIVE, "pages", dialogue=pages(asked, is_well))
            urls = "".join(f"url {{\npath /{name}\nstatus_code 200\n}}\n" for name in "abc")
            check = f"HTTP_GET {{\n{urls}{'fast_recovery' if fast else ''}\n{QUICK}\n}}"
            with site.daemon(program, service(1, "", real_server(ALIVE, "", check))) as daemon:
                daemon.wait_for("Removing service")
                is_well.set()
                daemon.wait_for("Adding service")
                good = [(at, page) for at, page in asked if page.startswith("200")]
                # The page that failed is asked for again once it does not.
                assert [page for _, page in good[:4]] == ["200 a", "200 a", "200 b", "200 c"]
                gaps[program] = good[3][0] - good[0][0]
    for program, gap in gaps.items():
        assert (gap < 1.5) is fast, (program.__name__, gap)


def pages(asked: list[tuple[float, str]], is_well: threading.Event) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(5)
            page = connection.recv(4096).split()[1].decode().strip("/")
            code = "200" if is_well.is_set() else "503"
            asked.append((time.monotonic(), f"{code} {page}"))
            connection.sendall(f"HTTP/1.0 {code} x\r\nContent-Length: 2\r\n\r\nok".encode())

    return answer


SAID = """exec >{place}/said.new
id -un; id -Gn; pwd | grep -c /kd-; printf '<%s>' "$@"; echo; umask
readlink /proc/$$/fd/0 /proc/$$/fd/2; ls /proc/$$/fd
env | cut -d= -f1 | grep -vx 'LD_PRELOAD\\|IPVS_DOUBLE\\|PYTHONPATH\\|_\\|OLDPWD' | sort
cp {place}/said.new {place}/said-$1"""


def test_a_script_that_checks_is_started_alike() -> None:
    """As the user it is to be, and with nothing of the daemon's but its environment."""
    theirs, ours = (started(program) for program in BOTH)
    assert ours == theirs
    assert ours[1].splitlines()[:5] == ["nobody", "nogroup", "1", "<nobody><two words><$HOME>", "0177"]


def started(program: type[Daemon]) -> list[str]:
    with new_site() as site:
        users = ("root", "nobody")
        servers = []
        for number, user in enumerate(users):
            own = site.place / user
            own.mkdir()
            own.chmod(0o777)
            site.script(f"{user}.sh", SAID.format(place=own))
            command = f"\"{site.place}/{user}.sh {user} 'two words' $HOME\""
            check = f"MISC_CHECK {{\nmisc_path {command}\nuser {user}\nmisc_timeout 3\nwarmup 0\n}}"
            servers.append(real_server(100 + number, "", check))
        said = [site.place / user / f"said-{user}" for user in users]
        with site.daemon(program, service(1, "", *servers)):
            poll(lambda: all(each.exists() and each.read_text() for each in said), "both scripts", seconds=20)
            return [each.read_text() for each in said]


@pytest.mark.parametrize("timeout", ["connect_timeout 2", ""], ids=["", "no time of its own"])
def test_every_host_of_a_mail_check_has_to_answer(timeout: str) -> None:
    """The server itself too. A host without a time limit has the server's; with keepalived it has none."""
    for program in BOTH if timeout else (Kad,):
        with new_site() as site:
            ports = (ALIVE, 8025, 8026)
            for port in ports:
                site.farm.serve(site.node, SERVER, port, str(port), dialogue=smtp)
            hosts = "".join(
                f"host {{\nconnect_ip {SERVER}\nconnect_port {port}\n{timeout}\n}}\n" for port in ports[1:]
            )
            check = f"SMTP_CHECK {{\n{hosts}helo_name lb\n{QUICK}\n}}"
            notify = "\n".join(f'notify_{way} "{site.place}/told.sh {way}"' for way in ("up", "down"))
            with site.daemon(program, service(1, "alpha", real_server(ALIVE, notify, check))):
                wanted = ["up"]
                wait_for_told(site, [1], wanted)
                for port in ports:
                    site.farm.stop(site.node, SERVER, port)
                    wait_for_told(site, [], wanted := [*wanted, "down"])
                    site.farm.serve(site.node, SERVER, port, str(port), dialogue=smtp)
                    wait_for_told(site, [1], wanted := [*wanted, "up"])
                assert site.told() == wanted, program.__name__


def wait_for_told(site: Site, weights: list[int], told: list[str]) -> None:
    """Scripts run beside each other: the next is not to be started before the last one has written."""
    wait_for_weights(site, weights)
    poll(lambda: site.told() == told, lambda: f"{told}, not {site.told()}", seconds=20)


def wait_for_weights(site: Site, wanted: list[int]) -> None:
    poll(lambda: site.weights() == wanted, site.table, seconds=20)
