"""The packet filter of no_accept and of VMACs, beside keepalived's and with real packets."""

from __future__ import annotations

import errno
import json
import socket
from typing import Any

import pytest

from tests.support.capture import Capture
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, is_newer, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, Node, poll
from tests.support.neighbours import who_answers

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

VIP, VIP6 = "192.0.2.100", "2001:db8::100"
FAST: dict[str, Any] = {"version": 3, "advert_int": 0.3}
FOUR = vrrp_instance(extra=("use_vmac", "no_accept"), **FAST)
SIX = vrrp_instance("VI_6", extra=("use_vmac", "no_accept"), addresses=("fe80::99", f"{VIP6}/64"), **FAST)


@pytest.fixture
def nodes(network: Network) -> tuple[Node, Node]:
    lan = network.bridge()
    one, client = network.node("one"), network.node("client")
    one.attach(lan, "192.0.2.1/24", "2001:db8::1/64", "fe80::1/64")
    client.attach(lan, "192.0.2.9/24", "2001:db8::9/64", "fe80::9/64")
    if one.run(["nft", "list", "ruleset"], check=False).returncode:
        pytest.skip("no nftables here")
    return one, client


def ruleset(node: Node) -> dict[str, dict[str, Any]]:
    """Chains with their rules, and sets with what is in them, without numbers of the day."""
    found: dict[str, dict[str, Any]] = {}
    for item in json.loads(node.run(["nft", "-j", "-n", "list", "ruleset"]).stdout)["nftables"]:
        kind, body = next(iter(item.items()))
        if kind in ("metainfo", "table"):
            continue
        place = f"{body['family']} {body['table']} {body.get('chain') or body.get('name')}"
        if kind == "rule":
            found.setdefault(place, {}).setdefault("rules", []).append(body["expr"])
        else:
            told = {k: v for k, v in body.items() if k not in ("handle", "family", "table", "name")}
            found.setdefault(place, {}).update(told)
    return found


def refused(client: Node, address: str, port: int = 9) -> bool:
    """Is there anybody who says that nobody listens? Not where packets are dropped."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with client.entered(), socket.socket(family) as made:
        made.settimeout(0.7)
        return made.connect_ex((address, port)) == errno.ECONNREFUSED


def master(daemon: Daemon, node: Node, *addresses: str) -> None:
    daemon.wait_for("Entering MASTER STATE", times=len(addresses))
    poll(lambda: all(map(node.holds, addresses)), "the addresses")


def test_rules_are_keepaliveds(nodes: tuple[Node, Node]) -> None:
    needs_keepalived()
    node, _ = nodes
    plain = vrrp_instance("VI_P", vrid=52, extra=("no_accept",), addresses=("192.0.2.102/24",), **FAST)
    text = configuration(FOUR, SIX, plain)
    found = []
    for make in (Keepalived, Kad):
        with make(node, text) as daemon:
            master(daemon, node, VIP, VIP6, "192.0.2.102")
            poll(lambda: "192.0.2.102" in str(ruleset(node)), "the rules")
            found.append(ruleset(node))
            daemon.stop()
        poll(lambda: not ruleset(node), "no rules left")
    theirs, ours = found
    for place in ("ip keepalived vips", "ip keepalived in", "ip keepalived out", "ip6 keepalived vips"):
        assert ours[place] == theirs[place], place
    assert ours["ip keepalived vmac_map"].keys() == theirs["ip keepalived vmac_map"].keys()
    # Since 2.3 it tells more reports from others, and lets the base alone answer for its address.
    newer = {"ip6 keepalived mld-report", "ip6 keepalived parent_link_local"}
    assert newer <= (theirs.keys() if is_newer() else ours.keys() - theirs.keys())
    assert ours.keys() - theirs.keys() - newer == {"ip6 keepalived vips_link_local_name"}
    assert theirs.keys() - ours.keys() == {"ip6 keepalived vips_link_local"}
    assert ours["ip6 keepalived out"]["rules"][-2:] == theirs["ip6 keepalived out"]["rules"][-2:]
    assert ours["ip6 keepalived in"]["rules"] == theirs["ip6 keepalived in"]["rules"]


def test_packets_are_dropped_where_they_are_not_accepted(nodes: tuple[Node, Node]) -> None:
    node, client = nodes
    with Kad(node, configuration(FOUR, SIX)) as kad:
        master(kad, node, VIP, VIP6)
        assert who_answers(client, "eth0", VIP) and who_answers(client, "eth0", VIP6), "discovery goes on"
        assert not refused(client, VIP) and not refused(client, VIP6)
        assert not refused(client, "fe80::99%eth0")
        assert who_answers(client, "eth0", "fe80::1") == {node.mac("eth0")}, "not the VMAC, which has it too"
        assert refused(client, "192.0.2.1") and refused(client, "2001:db8::1"), "other addresses are accepted"
        accepting = configuration(*(each.replace("no_accept", "accept") for each in (FOUR, SIX)))
        kad.configure(accepting)
        kad.reload()
        poll(
            lambda: refused(client, VIP) and refused(client, VIP6), "acceptance after the reload", seconds=10
        )
        assert kad.count("Entering MASTER STATE") == 2
        kad.configure(configuration(FOUR, SIX))
        kad.reload()
        poll(lambda: not refused(client, VIP), "and back", seconds=15)
        assert kad.stop() == 0
    assert ruleset(node) == {}


def test_names_priority_counters_and_indexes_are_as_asked(nodes: tuple[Node, Node]) -> None:
    node, _ = nodes
    settings = ("nftables mine", "nftables_priority -7", "nftables_counters", "nftables_ifindex")
    with Kad(node, configuration(FOUR, SIX, settings=settings)) as kad:
        master(kad, node, VIP, VIP6)
        found = ruleset(node)
        assert {place.split()[1] for place in found} == {"mine"}
        assert found["ip mine in"]["prio"] == found["ip6 mine out"]["prio"] == -7
        assert all("counter" in str(rule) for rule in found["ip6 mine out"]["rules"])
        assert found["ip6 mine vips_link_local"]["type"] == ["ipv6_addr", "iface_index"]
        kad.configure(configuration(FOUR, SIX, settings=("nftables mine", "nftables_priority 9")))
        kad.reload()
        poll(lambda: ruleset(node)["ip mine in"]["prio"] == 9, "the new priority")
        found = ruleset(node)
        assert "counter" not in str(found) and "ip6 mine vips_link_local_name" in found


def test_membership_reports_leave_from_the_base(nodes: tuple[Node, Node]) -> None:
    node, client = nodes
    with Capture(client, "eth0") as wire, Kad(node, configuration(FOUR, SIX)) as kad:
        master(kad, node, VIP, VIP6)

        def reports() -> set[str]:
            igmp = {f.source_mac for f in wire.drain() if f.ethertype == 0x0800 and f.data[23] == 2}
            mld = {f.source_mac for f in wire.drain() if f.ethertype == 0x86DD and f.data[62:63] == b"\x8f"}
            return {mac for mac in igmp | mld if mac != client.mac("eth0")}

        poll(lambda: node.mac("eth0") in reports(), "a report of the groups joined", seconds=10)
        assert not any(mac.startswith("00:00:5e") for mac in reports())


def test_a_flushed_table_comes_back(nodes: tuple[Node, Node]) -> None:
    node, client = nodes
    with Kad(node, configuration(FOUR)) as kad:
        master(kad, node, VIP)
        before = ruleset(node)
        node.run(["nft", "flush", "ruleset"])
        assert refused(client, VIP)
        kad.wait_for("somebody removed the packet filter's table keepalived")
        poll(lambda: ruleset(node) == before, "the same rules again")
        assert not refused(client, VIP)
        assert kad.count("Entering MASTER STATE") == 1


def test_what_cannot_be_filtered_is_said(nodes: tuple[Node, Node]) -> None:
    node, _ = nodes
    # A table of that name that belongs to somebody who is still there cannot be replaced.
    holder = node.start(["nft", "-i"], stdin=-1, stdout=-1, stderr=-1)
    assert holder.stdin is not None
    holder.stdin.write("add table ip keepalived { flags owner; }\n")
    holder.stdin.flush()
    poll(lambda: "keepalived" in node.run(["nft", "list", "tables"]).stdout, "somebody's table")
    with Kad(node, configuration(FOUR)) as kad:
        kad.wait_for("ERROR: the packet filter is not in place")
        master(kad, node, VIP)
        told = poll(lambda: kad.kadctl("status").stdout, "status")
        assert "ERROR: the packet filter is not in place" in told, told


def test_local_igmp_can_be_switched_off(nodes: tuple[Node, Node]) -> None:
    node, _ = nodes
    path = "net/ipv4/igmp_link_local_mcast_reports"

    def value() -> str:
        return node.run(["cat", f"/proc/sys/{path}"]).stdout.strip()

    assert value() == "1"
    accepting = FOUR.replace("no_accept", "accept")
    with Kad(node, configuration(accepting, settings=("disable_local_igmp",))) as kad:
        master(kad, node, VIP)
        assert value() == "0"
        assert ruleset(node) == {}, "nothing to move"
        assert kad.stop() == 0
    assert value() == "1"
