"""ha_suspend with a real VRRP peer that takes the addresses and gives them back, beside keepalived.

The daemon is whole, beside a table that answers as IPVS does. A service without ha_suspend is the clock:
while its server is asked three times, those that are examined are asked at least once.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.ipvs_double import IpvsDouble, KadWithIpvs, KeepalivedWithIpvs, needs_redirection
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.lvs import Farm
from tests.support.namespaces import Network, needs_namespaces, poll

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

VIP, VIP6 = "192.0.2.100", "2001:db8::100"
PORT = 8080
ADDRESSES = {
    name: f"127.0.0.{number}" for number, name in enumerate(("clock", "one", "group", "late", "later"), 11)
}
ADDRESSES["six"] = "::1"
HEADS = {
    "clock": f"{VIP} 80",
    "one": f"{VIP} 81",
    "six": f"{VIP6} 82",
    "group": "group many",
    "late": f"{VIP} 83",
    "later": f"{VIP} 84",
}
FIRST = ("clock", "one", "six", "group")
GROUP = "virtual_server_group many {\n192.0.2.90-110 85\n}\n"


def service(name: str) -> str:
    suspends = "" if name == "clock" else "ha_suspend"
    return f"""
    virtual_server {HEADS[name]} {{
        delay_loop 1
        lvs_sched rr
        lvs_method NAT
        protocol TCP
        {suspends}
        real_server {ADDRESSES[name]} {PORT} {{
            TCP_CHECK {{
                connect_timeout 1
                retry 0
                delay_before_retry 1
                warmup 0
            }}
        }}
    }}
    """


def text(priority: int, *names: str) -> str:
    four = vrrp_instance("VI_4", version=3, priority=priority, advert_int=0.2, addresses=(f"{VIP}/24",))
    six = vrrp_instance(
        "VI_6", version=3, priority=priority, advert_int=0.2, addresses=("fe80::1", f"{VIP6}/64")
    )
    return configuration(four, six, GROUP if "group" in names else "", *map(service, names))


class Site:
    """A balancer and its peer. ``asked`` and ``placed``: whose servers are examined, and are in the table."""

    def __init__(self, network: Network, farm: Farm, ipvs: IpvsDouble, program: type[Daemon]) -> None:
        lan = network.bridge()
        self.balancer, node = network.node("lb"), network.node("peer")
        self.balancer.attach(lan, "192.0.2.1/24")
        node.attach(lan, "192.0.2.2/24")
        self.farm, self.ipvs = farm, ipvs
        for name in ADDRESSES:
            self.serve(name)
        kind = KadWithIpvs if program is Kad else KeepalivedWithIpvs
        self.daemon = kind(ipvs, self.balancer, text(100, *FIRST))
        self.peer = Keepalived(node, text(200))

    def serve(self, name: str) -> None:
        self.farm.serve(self.balancer, ADDRESSES[name], PORT, name)

    def refuse(self, name: str) -> None:
        self.farm.stop(self.balancer, ADDRESSES[name], PORT)

    def reload(self, *names: str) -> None:
        self.daemon.configure(text(100, *names))
        if isinstance(self.daemon, Kad):
            self.daemon.reload_surely()
        else:
            started = self.daemon.count("Activating BFD healthchecker")
            self.daemon.reload()
            self.daemon.wait_for("Activating BFD healthchecker", times=started + 1)

    def become_backup(self) -> None:
        self.peer.start()
        poll(lambda: self.peer.count("Entering MASTER STATE") == 2, "the peer to be master")
        poll(lambda: not self.holds(), "the addresses to leave")
        self.tick(1)

    def become_master(self) -> None:
        self.peer.stop()
        poll(self.holds, "the addresses")

    def holds(self) -> bool:
        found = {entry.partition("/")[0] for entry in self.balancer.addresses()}
        return bool(found & {VIP, VIP6}) if not self.peer_is_gone else {VIP, VIP6} <= found

    @property
    def peer_is_gone(self) -> bool:
        return self.peer.process is None or self.peer.process.poll() is not None

    def tick(self, times: int) -> None:
        wanted = self.farm.asked["clock"] + times
        poll(lambda: self.farm.asked["clock"] >= wanted, "the clock's server to be asked", seconds=30)

    @property
    def asked(self) -> set[str]:
        before = self.farm.asked.copy()
        self.tick(3)
        return {name for name in self.farm.asked if self.farm.asked[name] > before[name]}

    @property
    def placed(self) -> set[str]:
        lines = "\n".join(self.ipvs.table.lines())
        shown = {name: f"[{each}]" if ":" in each else each for name, each in ADDRESSES.items()}
        return {name for name, each in shown.items() if f"-r {each}:{PORT} " in lines}


@pytest.fixture(params=[Keepalived, Kad], ids=["keepalived", "kad"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    needs_namespaces()
    needs_keepalived()
    needs_redirection()
    with Network("suspend") as network, contextlib.closing(Farm()) as farm, IpvsDouble() as ipvs:
        made = Site(network, farm, ipvs, request.param)
        try:
            yield made
        finally:
            made.daemon.close()
            made.peer.close()


def test_examined_only_where_the_address_is(site: Site) -> None:
    """A life: backup, master, backup, master, with reloads, deaths and kills. What differs has its reason."""
    is_kad = isinstance(site.daemon, Kad)
    # keepalived does not look for the addresses of a group; and of a service that a reload adds it does not
    # know that its address is here already.
    of_groups = {"group"} if is_kad else set[str]()
    of_reloads = {"late"} if is_kad else set[str]()
    site.peer.start()
    site.peer.wait_for("Entering MASTER STATE", times=2)
    site.daemon.start()
    site.daemon.wait_for("Entering BACKUP STATE", times=2)
    site.tick(1)
    assert site.asked == {"clock"}
    site.refuse("one")
    assert site.asked == {"clock"} and site.placed == set(FIRST), "suspended is not failed"

    site.become_master()
    poll(lambda: "one" not in site.placed, "the dead server to be found")
    assert site.asked == {"clock", "six"} | of_groups
    site.serve("one")
    poll(lambda: "one" in site.placed, "the server to be back")
    site.reload(*FIRST, "late")
    poll(lambda: "late" in site.placed, "the new service")
    assert site.asked == {"clock", "one", "six"} | of_groups | of_reloads

    site.refuse("one")
    poll(lambda: "one" not in site.placed, "the server to be found dead")
    site.become_backup()
    site.serve("one")
    site.reload(*FIRST, "late", "later")
    poll(lambda: "later" in site.placed, "the newer service")
    # It has counted an address that left and never came, and takes -1 of them for one.
    miscounted = set() if is_kad else {"late"}
    assert site.asked == {"clock"} | miscounted and "one" not in site.placed, "suspended is not mended"
    kill_checker(site)
    assert site.asked == {"clock"}
    # A restart of the checker puts nothing back; keepalived's begins anew, with all servers up.
    assert ("one" in site.placed) is not is_kad

    site.become_master()
    poll(lambda: "one" in site.placed, "the server to be back")
    assert site.asked == {*ADDRESSES} - {"group"} | of_groups
    suspended = site.daemon.count("Suspending healthchecker")
    vrrp = site.daemon.vrrp_pid()
    os.kill(vrrp, signal.SIGKILL)
    site.daemon.new_vrrp_pid(vrrp)
    poll(site.holds, "the addresses")
    assert site.asked == {*ADDRESSES} - {"group"} | of_groups
    if is_kad:
        assert site.daemon.count("Suspending healthchecker") == suspended, "the addresses never left"
    assert site.daemon.stop() == 0
    assert site.ipvs.table.lines() == []


def kill_checker(site: Site) -> None:
    before = site.daemon._pid_of("checkers")
    os.kill(before, signal.SIGKILL)
    poll(lambda: site.daemon._pid_of("checkers") != before, "another checker")
    site.tick(1)
