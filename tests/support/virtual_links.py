"""Interfaces of virtual routers and the kernel's settings, as ``ip`` and /proc tell them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.namespaces import Network, Node

SETTINGS = ("arp_ignore", "arp_filter", "rp_filter", "accept_local", "promote_secondaries")


def needs_macvlan() -> None:
    """Skip the running test, saying why, where the kernel makes no macvlan."""
    with Network("macvlan") as network:
        node = network.node("probe")
        base = node.attach(network.bridge())
        words = ["ip", "link", "add", "link", base, "name", "x", "type", "macvlan"]
        made = node.run(words, check=False)
    if made.returncode:
        pytest.skip(f"this kernel has no macvlan: {made.stderr.strip()}")


def own_links(node: Node) -> dict[str, dict[str, Any]]:
    """Every macvlan and ipvlan that has its base beside it, by name."""
    found = json.loads(node.run(["ip", "-j", "-d", "addr", "show"]).stdout)
    links = {link["ifname"]: _told(link) for link in found if "linkinfo" in link and "link" in link}
    return {name: told for name, told in links.items() if told}


def _told(link: dict[str, Any]) -> dict[str, Any]:
    kind = link["linkinfo"]
    if kind.get("info_kind") not in ("macvlan", "ipvlan"):
        return {}
    addresses = [
        (a["local"], a["prefixlen"], a["scope"], a.get("preferred_life_time"), a.get("nodad", False))
        for a in link["addr_info"]
    ]
    data = kind.get("info_data", {})
    return {
        "on": link["link"],
        "in": link.get("master"),
        "kind": kind["info_kind"],
        "mode": data.get("mode"),
        "flags": {name for name, value in data.items() if value is True or value is None},
        "mac": link["address"],
        "group": link["group"],
        "up": "UP" in link["flags"],
        "addresses": sorted(addresses),
    }


def settings(node: Node, *interfaces: str) -> dict[str, str]:
    """``INTERFACE.NAME`` -> value of :data:`SETTINGS`, for these interfaces, ``all`` and ``default``."""
    with node.entered():
        found = {}
        for interface in ("all", "default", *interfaces):
            for name in SETTINGS:
                path = Path("/proc/sys/net/ipv4/conf", interface, name)
                if path.exists():
                    found[f"{interface}.{name}"] = path.read_text().strip()
        return found
