"""Addresses and the services behind them: one is never held without the other where that can be helped."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.support.freezer import frozen
from tests.support.ipvs_double import IpvsDouble, KadWithIpvs
from tests.support.keepalived import configuration, vrrp_instance
from tests.support.namespaces import Network, Node, poll, remains

pytestmark = pytest.mark.root

VIP = "192.0.2.100"
SERVICE = f"""
virtual_server {VIP} 80 {{
    lvs_sched rr
    lvs_method NAT
    protocol TCP
    real_server 192.0.2.11 80 {{
    }}
}}
"""


@pytest.fixture
def node(network: Network) -> Node:
    made = network.node("lb")
    made.attach(network.bridge(), "192.0.2.1/24")
    return made


@pytest.fixture
def ipvs() -> Iterator[IpvsDouble]:
    with IpvsDouble() as made:
        yield made
        made.table.open.set()


def text(priority: int) -> str:
    instance = vrrp_instance(priority=priority, state="MASTER", addresses=(f"{VIP}/24",))
    return configuration(instance) + SERVICE


def test_an_address_owner_takes_its_addresses_when_the_services_are_there(
    node: Node, ipvs: IpvsDouble
) -> None:
    ipvs.table.open.clear()
    with KadWithIpvs(ipvs, node, text(255)) as daemon:
        daemon.wait_for("generation 1 is committed")
        remains(lambda: not node.holds(VIP), "no address yet", seconds=1)
        ipvs.table.open.set()
        assert poll(lambda: node.holds(VIP) and ipvs.size, "the address") == 1


def test_an_address_owner_does_not_wait_for_ever(node: Node, ipvs: IpvsDouble) -> None:
    ipvs.table.open.clear()
    with KadWithIpvs(ipvs, node, text(255)) as daemon:
        daemon.wait_for("Entering MASTER STATE")
        assert ipvs.size == 0 and poll(lambda: node.holds(VIP), "the address")
        ipvs.table.open.set()
        poll(lambda: ipvs.size == 1, "the services")


def test_services_stay_behind_an_address_when_the_supervisor_was_killed(node: Node, ipvs: IpvsDouble) -> None:
    with KadWithIpvs(ipvs, node, text(255)) as daemon:
        poll(lambda: node.holds(VIP), "the address")
        vrrp = daemon.vrrp_pid()
        # Told by the kernel as the checker is, and slow: who is only stopped would be woken by that death.
        with frozen([vrrp]) as how:
            if how != "cgroup":
                pytest.skip("this machine has no freezer")
            os.kill(daemon.pid, signal.SIGKILL)
            remains(lambda: ipvs.size == 1, "the service is there", seconds=0.7)
            assert node.holds(VIP)
        poll(lambda: not node.holds(VIP), "the address to go")
        poll(lambda: ipvs.size == 0, "the service to go")
