"""Configuration texts for pairs of routers, written for both daemons alike."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Sequence

import pytest


def needs_keepalived() -> None:
    """Skip the running test, saying why, where Debian's keepalived is not installed."""
    if shutil.which("keepalived") is None:
        pytest.skip("keepalived is not installed")


@functools.cache
def version() -> tuple[int, ...]:
    """What it says it is: (2, 2, 7) of Debian 12, (2, 3, 3) of Debian 13; empty where it is not installed."""
    if shutil.which("keepalived") is None:
        return ()
    done = subprocess.run(["keepalived", "-v"], capture_output=True, text=True, timeout=20, check=True)
    found = re.search(r"^Keepalived v(\d+)\.(\d+)\.(\d+)", done.stdout + done.stderr, re.MULTILINE)
    assert found is not None, done.stderr
    return tuple(map(int, found.groups()))


def is_newer() -> bool:
    """Whether it is of 2.3 or later, where it does some things as kad does which 2.2.7 does otherwise."""
    return version() >= (2, 3)


def vrrp_instance(
    name: str = "VI_1",
    *,
    interface: str = "eth0",
    vrid: int = 51,
    version: int = 2,
    state: str = "BACKUP",
    priority: int = 100,
    advert_int: float = 1,
    addresses: Sequence[str] = ("192.0.2.100/24",),
    source: str = "",
    peers: Sequence[str] = (),
    password: str = "",
    auth_type: str = "PASS",
    extra: Sequence[str] = (),
) -> str:
    """One block. ``peers`` makes it unicast from ``source``; the first address fixes the family."""
    lines = [
        f"state {state}",
        f"interface {interface}",
        f"virtual_router_id {vrid}",
        f"version {version}",
        f"priority {priority}",
        f"advert_int {advert_int:g}",
        *extra,
    ]
    if peers:
        lines += [f"unicast_src_ip {source}", "unicast_peer {", *peers, "}"]
    if password:
        lines += ["authentication {", f"auth_type {auth_type}", f"auth_pass {password}", "}"]
    lines += ["virtual_ipaddress {", *addresses, "}"]
    return "\n".join([f"vrrp_instance {name} {{", *lines, "}", ""])


def configuration(*blocks: str, settings: Sequence[str] = ()) -> str:
    """A whole file: the settings keepalived wants to keep quiet, then the blocks."""
    head = ["global_defs {", "router_id test", *settings, "}", ""]
    return "\n".join([*head, *blocks])
