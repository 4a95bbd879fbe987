"""kad and Debian's keepalived with the same file, each in a namespace of its own: the same table at every
step.

None is allowed: what kad does otherwise on purpose (docs/differences.md) does not show in these steps.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.dialogues import Tls, dns, http, smtp
from tests.support.lvs import Farm, table
from tests.support.lvs_configurations import ENTRIES, Entry, configuration
from tests.support.namespaces import Network, Node, poll, wait_until

PATIENCE_S = 180
SCRIPT = "#!/bin/sh\n[ -e {directory}/dead-$1 ] && exit 1\nexit 12\n"


def _addition(address: str) -> str:
    return f"addr add {address}/128 dev lo nodad" if ":" in address else f"addr add {address}/32 dev lo"


class Site:
    """One namespace with all the real servers on its loopback, and one daemon."""

    def __init__(self, node: Node, directory: Path, kind: type[Daemon], farm: Farm, tls: Tls) -> None:
        self.node = node
        self.directory = directory
        self._farm = farm
        self._tls = tls
        script = directory / "check.sh"
        script.write_text(SCRIPT.format(directory=directory))
        script.chmod(0o755)
        for last in (1, 2, 3):
            (directory / f"file{last}").write_text("1\n")
        places = [(n, entry, last) for n, entry in enumerate(ENTRIES, 1) for last in (1, 2, 3, 9)]
        commands = directory / "addresses"
        commands.write_text("\n".join(_addition(entry.address(n, last)) for n, entry, last in places))
        node.ip("-batch", str(commands))
        for n, entry, last in places:
            self._open(n, entry, last)
        self.daemon = kind(node, configuration(directory))

    def _open(self, n: int, entry: Entry, last: int) -> None:
        address, name = entry.address(n, last), f"{n}-{last}"
        serve, node, port = self._farm.serve, self.node, entry.port
        match entry.serves:
            case "tcp":
                serve(node, address, port, name)
            case "http":
                serve(node, address, port, name, dialogue=http)
            case "tls":
                serve(node, address, port, name, dialogue=self._tls)
            case "smtp":
                serve(node, address, port, name, dialogue=smtp)
            case "udp":
                serve(node, address, port, name, socket.SOCK_DGRAM)
            case "dns":
                serve(node, address, port, name, socket.SOCK_DGRAM, reply=dns)

    def let_die(self, last: int) -> None:
        """This server of every virtual server."""
        for n, entry in enumerate(ENTRIES, 1):
            address = entry.address(n, last)
            match entry.serves:
                case "udp" | "dns":
                    self._farm.stop(self.node, address, entry.port, socket.SOCK_DGRAM)
                case "ping":
                    self.node.ip("addr", "del", f"{address}/32", "dev", "lo")
                case "script":
                    (self.directory / f"dead-{address}").touch()
                case "file":
                    (self.directory / f"file{last}").write_text("-2147483648\n")
                case "":
                    pass
                case _:
                    self._farm.stop(self.node, address, entry.port)

    def bring_back(self, last: int) -> None:
        for n, entry in enumerate(ENTRIES, 1):
            address = entry.address(n, last)
            match entry.serves:
                case "ping":
                    self.node.ip(*_addition(address).split())
                case "script":
                    (self.directory / f"dead-{address}").unlink()
                case "file":
                    (self.directory / f"file{last}").write_text("1\n")
                case _:
                    self._open(n, entry, last)


@pytest.fixture
def sites(network: Network, tmp_path: Path) -> Iterator[tuple[Site, Site]]:
    farm = Farm()
    tls = Tls(tmp_path)
    made = []
    for kind in (Kad, Keepalived):
        directory = tmp_path / kind.__name__
        directory.mkdir()
        tmp_path.chmod(0o755)
        made.append(Site(network.node(kind.__name__.lower()), directory, kind, farm, tls))
    kad, keepalived = made
    try:
        with kad.daemon, keepalived.daemon:
            yield kad, keepalived
    finally:
        farm.close()


def reload(daemon: Daemon) -> None:
    if isinstance(daemon, Kad):
        daemon.reload_surely(PATIENCE_S)
    else:
        daemon.reload()


def agree(
    kad: Site | Following, keepalived: Site | Following, when: str, settled: object = None
) -> list[str]:
    """Both tables, once they are the same, and as at the last look (and ``settled`` about them holds)."""
    seen: tuple[list[str], list[str]] = ([], [])

    def same() -> bool:
        nonlocal seen
        before, seen = seen, (table(kad.node), table(keepalived.node))
        return before == seen and seen[0] == seen[1] and (settled is None or bool(settled(seen[1])))  # type: ignore[operator]

    if wait_until(same, PATIENCE_S, every=1.0) is None:
        ours, theirs = map(set, seen)
        lines = [f"kad only: {line}" for line in sorted(ours - theirs)]
        lines += [f"keepalived only: {line}" for line in sorted(theirs - ours)]
        pytest.fail("\n".join([f"{when}: the tables differ", *lines, kad.daemon.said()[-3000:]]))
    print(f"{when}: {len(seen[0])} lines")
    return seen[0]


def test_the_same_table_at_every_step(sites: tuple[Site, Site]) -> None:
    kad, keepalived = sites
    for site in sites:
        site.daemon.wait_for("Gained quorum", times=1, seconds=PATIENCE_S) if site is kad else None
    started = agree(kad, keepalived, "after the start", lambda lines: len(lines) > 2 * len(ENTRIES))
    for site in sites:
        site.let_die(1)
    checked = sum(1 for entry in ENTRIES if entry.serves)

    def first_ones(lines: list[str]) -> int:
        """Services that still send clients to their first server."""
        live = [line for line in lines if line.startswith("-a") and not line.endswith("-w 0")]
        return sum(any(_is_first(line, n, entry) for line in live) for n, entry in enumerate(ENTRIES, 1))

    dead = agree(kad, keepalived, "after a death", lambda lines: first_ones(lines) <= len(ENTRIES) - checked)
    assert dead != started
    for site in sites:
        site.bring_back(1)
    assert agree(kad, keepalived, "after its return", lambda lines: lines == started) == started
    for site in sites:
        site.daemon.configure(configuration(site.directory, changed=True))
        reload(site.daemon)
    longer = len(started) + len(ENTRIES) / 2
    reloaded = agree(kad, keepalived, "after a reload", lambda lines: len(lines) > longer)
    assert "-A -t 192.0.2.1:80 -s wrr" in reloaded
    for site in sites:
        site.daemon.process.terminate()  # type: ignore[union-attr]
    for site in sites:
        assert site.daemon.process.wait(PATIENCE_S) == 0  # type: ignore[union-attr]
    assert agree(kad, keepalived, "after the end") == []


GROUPS = """global_defs {{
    router_id test
    nftables_ipvs
}}
virtual_server_group A {{
    203.0.113.1-9 80
    203.0.113.16/30 81
    203.0.113.30 82
}}
virtual_server_group B {{
    2001:db8::10-1f 80
}}
virtual_server group A {{
    lvs_sched rr
    lvs_method NAT
    protocol TCP
    real_server 10.66.1.1 8080 {{
    }}
}}
virtual_server group A {{
    lvs_sched wrr
    lvs_method NAT
    protocol UDP
    real_server 10.66.1.1 53 {{
    }}
}}
virtual_server group B {{
    lvs_sched rr
    lvs_method DR
    protocol TCP
    {more}
    real_server fd66::1 80 {{
    }}
}}
"""


def maps(node: Node) -> list[str]:
    """Elements of the maps in nf_tables, and the rules but for their counters, as nft shows them."""
    shown = node.run(["nft", "list", "ruleset"]).stdout
    found = re.findall(
        r"^\s*(?:map|table|chain) \S+(?: \S+)?|[0-9a-f.:/-]+ \. [0-9-]+ : 0x[0-9a-f]+", shown, re.M
    )
    return sorted(" ".join(each.split()) for each in found)


def test_groups_that_are_marks(network: Network) -> None:
    first, second = GROUPS.format(more=""), GROUPS.format(more="real_server fd66::2 80 {\n}")
    ours, theirs = network.node("kad"), network.node("keepalived")
    with Kad(ours, first) as kad, Keepalived(theirs, first) as keepalived:

        def agreed(lines: int) -> bool:
            return len(table(ours)) == lines and table(ours) == table(theirs) and maps(ours) == maps(theirs)

        def seen() -> str:
            return "\n".join(["kad", *table(ours), *maps(ours), "keepalived", *table(theirs), *maps(theirs)])

        poll(lambda: agreed(6), seen, seconds=PATIENCE_S, every=0.5)
        assert len(maps(ours)) == 14
        for daemon in (kad, keepalived):
            daemon.configure(second)
            reload(daemon)
        poll(lambda: agreed(7), seen, seconds=PATIENCE_S, every=0.5)
        for daemon in (kad, keepalived):
            assert daemon.stop(PATIENCE_S) == 0
        poll(lambda: agreed(0), seen, seconds=PATIENCE_S, every=0.5)


SESSION = "min_rx 500\nmin_tx 500\nmultiplier 12\n"
"""An emulated machine's pauses are shorter than that."""
FOLLOWING = f"""global_defs {{
    router_id test
}}
bfd_instance near {{
    neighbor_ip 192.0.2.2
    source_ip 192.0.2.1
    {SESSION}
}}
bfd_instance far {{
    neighbor_ip 192.0.2.3
    source_ip 192.0.2.1
    {SESSION}
}}
virtual_server 203.0.113.1 80 {{
    lvs_sched wrr
    lvs_method NAT
    protocol TCP
    quorum 6
    sorry_server 10.66.1.9 80
    real_server 192.0.2.2 80 {{
        weight 3
        BFD_CHECK {{
            name near
        }}
    }}
    real_server 192.0.2.3 80 {{
        weight 5
        BFD_CHECK {{
            name far
        }}
    }}
}}
virtual_server 203.0.113.2 80 {{
    lvs_sched rr
    lvs_method DR
    protocol TCP
    real_server 192.0.2.2 80 {{
        inhibit_on_failure
        BFD_CHECK {{
            name near
            alpha
        }}
    }}
    real_server 192.0.2.3 80 {{
        BFD_CHECK {{
            name near
        }}
        BFD_CHECK {{
            name far
        }}
    }}
    real_server 192.0.2.4 80 {{
    }}
}}
"""
ALL_UP = [
    "-A -t 203.0.113.1:80 -s wrr",
    "-A -t 203.0.113.2:80 -s rr",
    "-a -t 203.0.113.1:80 -r 192.0.2.2:80 -m -w 3",
    "-a -t 203.0.113.1:80 -r 192.0.2.3:80 -m -w 5",
    "-a -t 203.0.113.2:80 -r 192.0.2.2:80 -g -w 1",
    "-a -t 203.0.113.2:80 -r 192.0.2.3:80 -g -w 1",
    "-a -t 203.0.113.2:80 -r 192.0.2.4:80 -g -w 1",
]
NEAR_LOST = [
    "-A -t 203.0.113.1:80 -s wrr",
    "-A -t 203.0.113.2:80 -s rr",
    "-a -t 203.0.113.1:80 -r 10.66.1.9:80 -m -w 1",
    "-a -t 203.0.113.2:80 -r 192.0.2.2:80 -g -w 0",
    "-a -t 203.0.113.2:80 -r 192.0.2.4:80 -g -w 1",
]
"""The other server's weight is less than the quorum: the sorry server stands in."""


class Following(Struct):
    """One daemon, and two neighbours of its own, of which the first one comes and goes."""

    node: Node
    daemon: Daemon
    near: Daemon
    far: Daemon


def following(network: Network, kind: type[Daemon]) -> Following:
    lan = network.bridge()
    label = kind.__name__.lower()
    nodes = [network.node(f"{label}{last}") for last in (1, 2, 3)]
    for last, node in enumerate(nodes, 1):
        node.attach(lan, f"192.0.2.{last}/24")

    def neighbor(last: int) -> Daemon:
        session = f"bfd_instance it {{\nneighbor_ip 192.0.2.1\nsource_ip 192.0.2.{last}\n{SESSION}}}\n"
        return Keepalived(nodes[last - 1], session)

    return Following(nodes[0], kind(nodes[0], FOLLOWING), neighbor(2), neighbor(3))


def test_servers_that_follow_bfd_sessions(network: Network) -> None:
    both = kad, keepalived = following(network, Kad), following(network, Keepalived)
    with contextlib.ExitStack() as stack:
        for each in both:
            for daemon in (each.near, each.far, each.daemon):
                stack.enter_context(daemon)
        agree(kad, keepalived, "after the start", lambda lines: lines == ALL_UP)
        for each in both:
            each.near.kill_all()
        agree(kad, keepalived, "after the neighbour's loss", lambda lines: lines == NEAR_LOST)
        for each in both:
            each.near.start()
        agree(kad, keepalived, "after its return", lambda lines: lines == ALL_UP)
        for each in both:
            assert each.daemon.stop(PATIENCE_S) == 0
        assert agree(kad, keepalived, "after the end") == []


def _is_first(line: str, n: int, entry: Entry) -> bool:
    address = entry.address(n, 1)
    return f"-r [{address}]:" in line or f"-r {address}:" in line
