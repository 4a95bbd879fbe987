"""The IPVS shell against a real kernel's table: what ipvsadm shows is the judge."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from kad.config.model.check import (
    CheckSettings,
    Forwarding,
    ForwardingMethod,
    Protocol,
    TunnelChecksum,
    TunnelType,
)
from kad.config.model.globals import IpvsTimeouts, SyncDaemon
from kad_check.core.events import DestinationRefused, ServicesDone
from kad_check.core.ipvs_state import Destination, PoolState, Service
from tests.support.ipvs_shell import Memory, Shell
from tests.support.lvs import ipvsadm, table
from tests.support.namespaces import Network, Node

NAT = Forwarding()
DR = Forwarding(ForwardingMethod.DIRECT_ROUTE)
TUN = Forwarding(ForwardingMethod.TUNNEL)
NO_SWEEP = 1e6
FOREIGN = ["-A -t 203.0.113.9:9 -s lc", "-a -t 203.0.113.9:9 -r 198.51.100.1:80 -m -w 3"]


GUE = "-i -w 2 --tun-type gue --tun-port 6080 --tun-remcsum"
EVERYTHING = [
    "-A -t 192.0.2.1:80 -s wrr -p 300 -M 255.255.255.0 -b flag-3",
    "-a -t 192.0.2.1:80 -r 198.51.100.1:80 -m -w 5",
    "-a -t 192.0.2.1:80 -r 198.51.100.2:80 -g -w 0",
    "-A -u [2001:db8::1]:53 -s rr -o",
    "-a -u [2001:db8::1]:53 -r [2001:db8:1::1]:53 -m -w 1",
    f"-a -u [2001:db8::1]:53 -r [2001:db8:1::2]:53 {GUE}",
    "-A -u [2001:db8::2]:53 -s rr -o",
    "-a -u [2001:db8::2]:53 -r [2001:db8:1::1]:53 -m -w 1",
    f"-a -u [2001:db8::2]:53 -r [2001:db8:1::2]:53 {GUE}",
    "-A -f 7 -s sh -b sh-fallback,sh-port",
    "-a -f 7 -r 198.51.100.1:0 -g -w 1",
    "-a -f 7 -r 198.51.100.2:0 -i -w 1 --tun-type ipip",
    "-A -f 7 -6 -s wlc",
    "-a -f 7 -6 -r 198.51.100.2:0 -i -w 1 --tun-type ipip",
    "-A --sctp-service 192.0.2.5:36412 -s mh",
    "-a --sctp-service 192.0.2.5:36412 -r 198.51.100.9:36412 -i -w 65535 --tun-type gre --tun-csum",
    "-A -t [2001:db8::9]:0 -s wlc -p 60 -M 48",
    "-a -t [2001:db8::9]:0 -r [2001:db8:1::3]:0 -g -w 1",
    "-A -u 192.0.2.6:5060 -s wlc -p 9 --pe sip",
]


@pytest.fixture
def node(network: Network) -> Node:
    return network.node("director")


def web(last: int = 1, **settings: object) -> Service:
    return Service(4, Protocol.TCP, f"192.0.2.{last}", port=80, **settings)  # type: ignore[arg-type]


def server(last: int, weight: int = 1, forwarding: Forwarding = NAT) -> Destination:
    return Destination(f"198.51.100.{last}", 80, weight, forwarding)


def pool(*servers: Destination, service: Service | None = None, name: str = "web") -> PoolState:
    return PoolState(name, (service or web(),), servers)


def add_foreign(node: Node) -> None:
    ipvsadm(node, *["-A", "-t", "203.0.113.9:9", "-s", "lc"])
    ipvsadm(node, *["-a", "-t", "203.0.113.9:9", "-r", "198.51.100.1:80", "-m", "-w", "3"])


def test_everything_a_service_can_be(node: Node) -> None:
    gue = Forwarding(ForwardingMethod.TUNNEL, TunnelType.GUE, 6080, TunnelChecksum.REMOTE)
    gre = Forwarding(ForwardingMethod.TUNNEL, TunnelType.GRE, 0, TunnelChecksum.FULL)
    six = Service(6, Protocol.UDP, "2001:db8::1", "2001:db8::2", 53, scheduler="rr", one_packet=True)
    persistent = web(
        scheduler="wrr",
        persistence_timeout=300,
        persistence_granularity="255.255.255.0",
        scheduler_flags=(3,),
    )
    persistent_six = Service(
        6, Protocol.TCP, "2001:db8::9", port=0, persistence_timeout=60, persistence_granularity="48"
    )
    pools = [
        pool(server(1, 5), server(2, 0, DR), service=persistent),
        PoolState(
            "dns",
            (six,),
            (Destination("2001:db8:1::1", 53, 1, NAT), Destination("2001:db8:1::2", 5353, 2, gue)),
        ),
        PoolState(
            "mark",
            (Service(4, None, fwmark=7, scheduler="sh", scheduler_flags=(1, 2)), Service(6, None, fwmark=7)),
            (Destination("198.51.100.1", 0, 1, DR), Destination("198.51.100.2", 0, 1, TUN)),
        ),
        PoolState(
            "sctp",
            (Service(4, Protocol.SCTP, "192.0.2.5", port=36412, scheduler="mh"),),
            (Destination("198.51.100.9", 36412, 65535, gre, 50, 20),),
        ),
        PoolState("any port", (persistent_six,), (Destination("2001:db8:1::3", 0, 1, DR),)),
        PoolState(
            "sip",
            (
                Service(
                    4, Protocol.UDP, "192.0.2.6", port=5060, persistence_timeout=9, persistence_engine="sip"
                ),
            ),
            (),
        ),
    ]
    with Shell(node, Memory(), sweep_interval_s=NO_SWEEP) as shell:
        assert shell.replace(pools).failures == ()
        assert table(node) == sorted(EVERYTHING)
        assert "198.51.100.9:36412 50 20" in " ".join(ipvsadm(node, "-Ln", "--thresholds").split())
        # The kernel's own words are read back as what was meant: nothing differs.
        before = shell.commands
        assert shell.replace(pools).failures == ()
        assert shell.commands == before
    with Shell(node, Memory(), sweep_interval_s=NO_SWEEP) as again:
        assert again.replace(pools).failures == ()
        assert again.commands == 0, "a successor finds everything as it should be"


def test_a_reload_edits_in_place_and_sends_only_the_change(node: Node) -> None:
    with Shell(node, Memory(), sweep_interval_s=NO_SWEEP) as shell:
        servers = [server(number) for number in range(1, 101)]
        shell.replace([pool(*servers)])
        before = shell.commands
        servers[40] = server(41, 7, DR)
        shell.replace([pool(*servers)])
        assert shell.commands == before + 1
        shell.replace([pool(*servers, service=web(scheduler="rr", persistence_timeout=50))])
        assert shell.commands == before + 2
        shell.replace([pool(*servers[1:], service=web(scheduler="rr", persistence_timeout=50))])
        assert shell.commands == before + 3
        lines = table(node)
        assert "-A -t 192.0.2.1:80 -s rr -p 50" in lines
        assert "-a -t 192.0.2.1:80 -r 198.51.100.41:80 -g -w 7" in lines
        assert len(lines) == 100


def test_changes_of_one_server(node: Node) -> None:
    two = (web(1), web(2))
    with Shell(node, Memory(), sweep_interval_s=NO_SWEEP) as shell:
        shell.replace([PoolState("web", two, (server(1), server(2)))])
        shell.change("web", remove=[server(1)])
        assert [line for line in table(node) if "198.51.100.1:80" in line] == []
        shell.change("web", put=[server(9)], remove=[server(2)])
        shell.change("web", put=[server(9, 0)])
        assert table(node) == [
            "-A -t 192.0.2.1:80 -s wlc",
            "-A -t 192.0.2.2:80 -s wlc",
            "-a -t 192.0.2.1:80 -r 198.51.100.9:80 -m -w 0",
            "-a -t 192.0.2.2:80 -r 198.51.100.9:80 -m -w 0",
        ]
        before = shell.commands
        shell.change("web", put=[server(9, 0)], remove=[server(7)])
        shell.change("no such pool", put=[server(1)])
        assert shell.commands == before
        assert shell.lines == []


def test_a_foreign_service_is_never_touched(node: Node) -> None:
    add_foreign(node)
    memory = Memory()
    with Shell(node, memory, sweep_interval_s=NO_SWEEP) as shell:
        shell.replace([pool(server(1))])
        shell.replace([pool(server(2), service=web(3))])
        assert "-A -t 192.0.2.1:80 -s wlc" not in table(node)
    with Shell(node, memory, sweep_interval_s=NO_SWEEP) as shell:
        shell.replace([])
        assert table(node) == FOREIGN
        shell.replace([pool(server(1))])
        shell.withdraw()
    assert table(node) == FOREIGN


def test_a_successor_removes_what_went_while_nobody_looked(node: Node) -> None:
    """Servers gone from a service of the file, and whole services that the journal says were ours."""
    memory = Memory()
    with Shell(node, memory, sweep_interval_s=NO_SWEEP) as shell:
        shell.replace([pool(server(1), server(2)), pool(server(3), service=web(9), name="other")])
    with Shell(node, memory, sweep_interval_s=NO_SWEEP) as shell:
        shell.replace([pool(server(1))])
        assert table(node) == ["-A -t 192.0.2.1:80 -s wlc", "-a -t 192.0.2.1:80 -r 198.51.100.1:80 -m -w 1"]
        assert shell.commands == 2
    # With nothing remembered, what the file names is ours all the same.
    ipvsadm(node, *["-a", "-t", "192.0.2.1:80", "-r", "198.51.100.7:80", "-m"])
    with Shell(node, Memory(), sweep_interval_s=NO_SWEEP) as shell:
        shell.replace([pool(server(1))])
        assert len(table(node)) == 2


def test_what_others_do_is_told_once_and_left_until_the_next_change(node: Node) -> None:
    with Shell(node, Memory(), sweep_interval_s=0.05) as shell:
        shell.replace([pool(server(1), server(2), server(3))])
        ipvsadm(node, *["-d", "-t", "192.0.2.1:80", "-r", "198.51.100.1:80"])
        ipvsadm(node, *["-e", "-t", "192.0.2.1:80", "-r", "198.51.100.2:80", "-m", "-w", "50"])
        ipvsadm(node, *["-a", "-t", "192.0.2.1:80", "-r", "198.51.100.9:80", "-m", "-w", "1"])
        ipvsadm(node, *["-E", "-t", "192.0.2.1:80", "-s", "rr"])
        shell.until(lambda: len(shell.lines) >= 4, "four words about it")
        told = sorted(line.removeprefix("IPVS: somebody else ").partition(":80")[0] for line in shell.lines)
        assert told == [
            "added [198.51.100.9]",
            "changed [198.51.100.2]",
            "changed service [192.0.2.1]:tcp",
            "removed [198.51.100.1]",
        ] or [line for line in shell.lines if "changed service" in line], shell.lines
        seen = table(node)
        # Another server's change and a reload without one of these leave them alone.
        shell.change("web", put=[server(3, 8)])
        shell.replace([pool(server(1), server(2), server(3, 8))])
        assert table(node) == sorted([*[x for x in seen if "100.3:" not in x], seen_line(3, 8)])
        shell.change("web", put=[server(1, 2)])
        shell.change("web", remove=[server(2)])
        after = table(node)
        assert seen_line(1, 2) in after
        assert not any("100.2:" in line for line in after)
        assert len(shell.lines) == 4, shell.lines


def seen_line(last: int, weight: int) -> str:
    return f"-a -t 192.0.2.1:80 -r 198.51.100.{last}:80 -m -w {weight}"


def test_a_service_somebody_removed_comes_back_whole(node: Node) -> None:
    with Shell(node, Memory(), sweep_interval_s=NO_SWEEP) as shell:
        shell.replace([pool(server(1), server(2))])
        ipvsadm(node, *["-D", "-t", "192.0.2.1:80"])
        shell.change("web", remove=[server(1)])
        assert table(node) == ["-A -t 192.0.2.1:80 -s wlc", seen_line(2, 1)]
        assert any("removed by somebody else" in line for line in shell.lines)


def test_put_back_at_once_where_that_is_wanted(node: Node) -> None:
    with Shell(node, Memory(), sweep_interval_s=0.05, put_back=True) as shell:
        shell.replace([pool(server(1), server(2)), pool(server(1), service=web(2), name="b")])
        wanted = table(node)
        for command in (
            "-d -t 192.0.2.1:80 -r 198.51.100.1:80",
            "-a -t 192.0.2.1:80 -r 198.51.100.9:80 -m -w 1",
            "-E -t 192.0.2.1:80 -s rr",
            "-D -t 192.0.2.2:80",
        ):
            ipvsadm(node, *command.split())
            assert table(node) != wanted
            shell.until(lambda: table(node) == wanted, f"everything put back after {command}")


def test_somebody_else_s_service_that_the_file_comes_to_name(node: Node) -> None:
    with Shell(node, Memory(), sweep_interval_s=NO_SWEEP) as shell:
        shell.replace([pool(server(1))])
        ipvsadm(node, *["-A", "-t", "192.0.2.2:80", "-s", "rr"])
        ipvsadm(node, *["-a", "-t", "192.0.2.2:80", "-r", "198.51.100.1:80", "-g", "-w", "9"])
        ipvsadm(node, *["-a", "-t", "192.0.2.2:80", "-r", "198.51.100.9:80", "-g", "-w", "9"])
        done = shell.replace([pool(server(1)), pool(server(1), server(2), service=web(2), name="b")])
        assert done.failures == ()
        assert [line for line in table(node) if "192.0.2.2" in line] == [
            "-A -t 192.0.2.2:80 -s wlc",
            "-a -t 192.0.2.2:80 -r 198.51.100.1:80 -m -w 1",
            "-a -t 192.0.2.2:80 -r 198.51.100.2:80 -m -w 1",
        ]


def test_refusals_are_told_and_the_rest_goes_on(node: Node) -> None:
    with Shell(node, Memory(), sweep_interval_s=NO_SWEEP) as shell:
        done = shell.replace(
            [pool(server(1), service=web(scheduler="nonesuch"), name="bad"), pool(server(2), service=web(2))]
        )
        assert len(done.failures) == 1 and "ENOENT" in done.failures[0], done.failures
        assert table(node) == ["-A -t 192.0.2.2:80 -s wlc", "-a -t 192.0.2.2:80 -r 198.51.100.2:80 -m -w 1"]
        # The lower threshold above the upper one: ERANGE.
        shell.change("web", put=[Destination("198.51.100.7", 80, 1, NAT, 5, 9), server(3)])
        refused = [event for event in shell.events if isinstance(event, DestinationRefused)]
        assert [(event.pool, event.address, event.port) for event in refused] == [("web", "198.51.100.7", 80)]
        assert "ERANGE" in refused[0].reason
        assert "-a -t 192.0.2.2:80 -r 198.51.100.3:80 -m -w 1" in table(node)
        # What was refused once is tried again by the next reload.
        done = shell.replace([pool(server(1), service=web(scheduler="lc"), name="bad")])
        assert done.failures == ()
        assert table(node) == ["-A -t 192.0.2.1:80 -s lc", seen_line(1, 1)]


def test_timeouts_are_set_and_given_back(node: Node) -> None:
    def shown() -> str:
        return ipvsadm(node, "-Ln", "--timeout").split(":")[1].strip()

    before = shown()
    memory = Memory()
    with Shell(node, memory, CheckSettings(timeouts=IpvsTimeouts(tcp=100, udp=7))) as shell:
        shell.settle()
        assert shown() == f"100 {before.split()[1]} 7"
    with Shell(node, memory, CheckSettings(timeouts=IpvsTimeouts(udp=8))) as shell:
        shell.settle()
        assert shown() == f"{before.split()[0]} {before.split()[1]} 8"
        shell.ipvs.configure(CheckSettings())
        shell.settle()
        assert shown() == before


def test_sync_daemons(node: Node) -> None:
    node.ip("link", "add", "sync0", "type", "dummy")
    node.ip("addr", "add", "192.0.2.200/24", "dev", "sync0")
    node.ip("link", "set", "sync0", "up")

    def running() -> list[str]:
        shown = ipvsadm(node, "-Ln", "--daemon")
        return [" ".join(line.split()) for line in shown.splitlines() if line.strip()]

    both = CheckSettings(sync_daemon=SyncDaemon("sync0", sync_id=5, maximum_length=1400, port=9000, ttl=3))
    follow = CheckSettings(sync_daemon=SyncDaemon("sync0", instance="VI_1", sync_id=51))
    memory = Memory()
    with Shell(node, memory, both, sweep_interval_s=NO_SWEEP) as shell:
        shell.settle()
        assert len(running()) == 2 and all("syncid=5" in line and "port=9000" in line for line in running())
    with Shell(node, memory, both, sweep_interval_s=NO_SWEEP) as shell:
        shell.settle()
        shell.ipvs.configure(follow)
        shell.settle()
        assert [line.split()[0] for line in running()] == ["backup"], running()
        shell.ipvs.follow_instance(True)
        shell.settle()
        assert [line.split()[0] for line in running()] == ["master"]
        assert "syncid=51" in running()[0]
        shell.ipvs.follow_instance(False)
        shell.settle()
        assert [line.split()[0] for line in running()] == ["backup"]
        # A sync daemon cannot live beside destinations of another family: it is told, and the rest goes on.
        six = Service(6, Protocol.TCP, "2001:db8::1", port=80)
        done = shell.replace(
            [PoolState("six", (six,), (server(1, 1, TUN), Destination("2001:db8::2", 80, 1, NAT)))]
        )
        assert len(done.failures) == 1 and "EINVAL" in done.failures[0]
        assert len(table(node)) == 2
        shell.withdraw()
        assert running() == []


def test_flush_at_start_and_at_the_end(node: Node) -> None:
    add_foreign(node)
    flush = CheckSettings(flush=True, flush_on_stop="all")
    memory = Memory()
    with Shell(node, memory, flush, sweep_interval_s=NO_SWEEP) as shell:
        shell.replace([pool(server(1))])
        assert table(node) == ["-A -t 192.0.2.1:80 -s wlc", seen_line(1, 1)]
        add_foreign(node)
        shell.replace([pool(server(1), server(2))])
    with Shell(node, memory, flush, sweep_interval_s=NO_SWEEP) as shell:
        shell.replace([pool(server(1), server(2))])
        assert set(FOREIGN) < set(table(node)), "a restart of the child is no start of the daemon"
        shell.withdraw()
    assert table(node) == []


def test_kept_at_stop(node: Node) -> None:
    with Shell(node, Memory(), keep_at_stop=True, sweep_interval_s=NO_SWEEP) as shell:
        shell.replace([pool(server(1))])
        shell.withdraw()
    assert len(table(node)) == 2


def test_another_network_namespace(network: Network, node: Node) -> None:
    elsewhere = network.node("elsewhere")
    with Shell(node, Memory(), namespace=elsewhere.name, sweep_interval_s=NO_SWEEP) as shell:
        shell.replace([pool(server(1))])
        assert len(table(elsewhere)) == 2
    assert table(node) == []
    with Shell(node, Memory(), namespace="no-such-namespace", sweep_interval_s=NO_SWEEP) as shell:
        assert shell.replace([pool(server(1))]).failures == ("IPVS is not available",)
        assert "no-such-namespace" in shell.lines[0] and len(shell.lines) == 1
    assert table(node) == []


def test_statistics_are_the_kernel_s(node: Node) -> None:
    with Shell(node, Memory(), sweep_interval_s=NO_SWEEP) as shell:
        shell.replace([pool(server(1), server(2)), pool(service=web(2), name="b")])
        told: list[object] = []
        shell.ipvs.ask_statistics(told.append)
        shell.until(lambda: told, "statistics")
        (counts,) = told
        assert sorted(str(each.service.entry.key) for each in counts) == [  # type: ignore[attr-defined]
            "[192.0.2.1]:tcp:80",
            "[192.0.2.2]:tcp:80",
        ]
        assert sorted(len(each.destinations) for each in counts) == [0, 2]  # type: ignore[attr-defined]


def test_two_thousand_destinations(node: Node) -> None:
    """Beside ipvsadm, which is a C program and waits for each answer: under emulation only the ratio says
    much."""
    services = [
        PoolState(
            f"p{n}",
            (Service(4, Protocol.TCP, f"10.1.{n // 250}.{n % 250}", port=80),),
            tuple(Destination(f"10.2.{n % 250}.{m}", 80, 1, NAT) for m in range(1, 101)),
        )
        for n in range(20)
    ]
    with Shell(node, Memory(), sweep_interval_s=NO_SWEEP) as shell:
        begun = time.monotonic()
        shell.replace(services)
        ours = time.monotonic() - begun
        assert shell.commands == 2_020
        rules = node.run(["ipvsadm", "-Sn"]).stdout
        shell.withdraw()
        assert table(node) == []
        begun = time.monotonic()
        with node.entered():
            subprocess.run(["ipvsadm", "-R"], input=rules, text=True, check=True)
        theirs = time.monotonic() - begun
    with Shell(node, Memory(), sweep_interval_s=NO_SWEEP) as shell:
        begun = time.monotonic()
        shell.replace(services)
        again = time.monotonic() - begun
        assert shell.commands == 0
    print(f"2,000 destinations: kad {ours:.1f} s, ipvsadm -R {theirs:.1f} s, read back {again:.1f} s")
    assert ours < 3 * theirs


def test_ipvs_that_comes_and_goes(node: Node) -> None:
    """Last: it unloads the module."""
    loader = Path("/proc/sys/kernel/modprobe")
    before = loader.read_text()
    subprocess.run(
        "modprobe -r ip_vs_sh ip_vs_lc; ipvsadm -C; rmmod $(lsmod | awk '/^ip_vs_/ {print $1}')",
        shell=True,
        check=False,
    )
    subprocess.run(["rmmod", "ip_vs"], check=True)
    try:
        loader.write_text("/bin/false")
        memory = Memory()
        with Shell(
            node, memory, CheckSettings(timeouts=IpvsTimeouts(udp=9)), sweep_interval_s=NO_SWEEP
        ) as shell:
            done = shell.replace([pool(server(1))])
            assert done.failures == ("IPVS is not available",)
            shell.replace([pool(server(1), server(2))])
            assert [line for line in shell.lines if "is not available" in line] == shell.lines and len(
                shell.lines
            ) == 1
            assert "/bin/false ip_vs: exit status 1" in shell.lines[0]
            shell.change("web", remove=[server(1)])
            loader.write_text(before)
            subprocess.run(["modprobe", "ip_vs"], check=True)
            shell.until(lambda: shell.ipvs.available, "the module")
            shell.settle()
            assert table(node) == ["-A -t 192.0.2.1:80 -s wlc", seen_line(2, 1)]
            assert ipvsadm(node, "-Ln", "--timeout").split()[-1] == "9"
            assert any("has appeared" in line for line in shell.lines)
            # And it is loaded by kad itself where that is possible.
            shell.withdraw()
        subprocess.run("rmmod ip_vs_wlc ip_vs", shell=True, check=True)
        with Shell(node, Memory(), sweep_interval_s=NO_SWEEP) as shell:
            assert shell.replace([pool(server(1))]) == ServicesDone(1)
            assert len(table(node)) == 2
    finally:
        loader.write_text(before)
        subprocess.run(["modprobe", "ip_vs"], check=True)
