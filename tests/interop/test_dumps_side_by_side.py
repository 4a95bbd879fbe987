"""Dumps of keepalived and of kad in the same place: the same keys, the same lines; what exporters read."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.adverts import Sender, advert
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, is_newer, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, needs_namespaces, poll

pytestmark = [pytest.mark.root, pytest.mark.interop]

SIGJSON = 36
SIGSTATS_CLEAR = 63

TRACKERS = """
track_file level {{
    file "{place}/level"
    weight 2
    init_file 3 overwrite
}}
vrrp_script check {{
    script "/usr/bin/true a 'b c'"
    interval 2
    weight -4
    fall 2
    rise 3
}}
"""
FIRST = [
    "notify_master \"/usr/bin/echo m 'x y'\"",
    "notify_backup /usr/bin/true nobody",
    'notify "/usr/bin/true any"',
    "notify_deleted",
    "promote_secondaries",
    "garp_master_refresh 60",
    "track_script {\ncheck\n}",
    "track_file {\nlevel weight 1\n}",
    "virtual_ipaddress_excluded {\n2001:db8::5/64 dev eth1\n}",
    "virtual_routes {\n10.88.0.0/24 via 192.0.2.253 dev eth0 metric 5\n}",
    "virtual_rules {\nfrom 10.90.0.0/16 table 200 priority 44\n}",
]


def text_of(place: Path) -> str:
    return configuration(
        TRACKERS.format(place=place),
        vrrp_instance(
            "first",
            priority=150,
            password="sec/ret",
            addresses=[
                "192.0.2.100/24",
                "192.0.2.101/24 brd 192.0.2.255 dev eth0 label eth0:1",
                "192.0.2.102",
            ],
            extra=FIRST,
        ),
        vrrp_instance(
            "second",
            interface="eth1",
            vrid=52,
            version=3,
            advert_int=0.5,
            source="198.51.100.1",
            peers=["198.51.100.2", "198.51.100.3 min_ttl 3 max_ttl 255"],
            addresses=["198.51.100.100/24"],
        ),
        vrrp_instance("third", vrid=53, version=3, priority=120, addresses=["fe80::99", "2001:db8::100/64"]),
        'vrrp_sync_group pair {\ngroup {\nsecond\nthird\n}\nnotify "/usr/bin/true group"\n}\n',
        settings=["script_user root", "enable_script_security"],
    )


@dataclass
class Dumps:
    state: str
    statistics: str
    json: str
    cleared: str
    modes: set[str]


def dumps_of(network: Network, program: type[Daemon], place: Path) -> Dumps:
    lan, other = network.bridge(), network.bridge()
    node = network.node("node")
    node.attach(lan, "192.0.2.1/24", "2001:db8::1/64", name="eth0")
    node.attach(other, "198.51.100.1/24", name="eth1")
    out = place / "out"
    out.mkdir()

    def dump(daemon: Daemon, name: str, number: int) -> str:
        path = out / name
        path.unlink(missing_ok=True)
        os.kill(daemon.pid, number)
        # keepalived puts an empty file there, and fills it then.
        return poll(lambda: path.read_text() if path.exists() else "", f"{name} of {daemon.program}")

    with program(node, text_of(place), wrapper=["env", f"TMPDIR={out}"]) as daemon:
        for name in ("first", "second", "third"):
            daemon.wait_for(f"({name}) Entering MASTER STATE")
        found = Dumps(
            dump(daemon, "keepalived.data", signal.SIGUSR1),
            dump(daemon, "keepalived.stats", signal.SIGUSR2),
            dump(daemon, "keepalived.json", SIGJSON),
            dump(daemon, "keepalived.stats", SIGSTATS_CLEAR)
            and dump(daemon, "keepalived.stats", signal.SIGUSR2),
            {oct(each.stat().st_mode & 0o777) for each in out.iterdir()},
        )
        poll(lambda: (out / "keepalived_parent.data").exists(), "the parent's dump")
        daemon.stop()
    return found


@pytest.fixture(scope="module")
def both() -> Iterator[dict[str, Dumps]]:
    needs_namespaces()
    needs_keepalived()
    place = Path(tempfile.mkdtemp(prefix="kdump-"))
    try:
        found = {}
        for label, program in (("keepalived", Keepalived), ("kad", Kad)):
            (place / label).mkdir()
            with Network("dumps") as network:
                found[label] = dumps_of(network, program, place / label)
        yield found
    finally:
        shutil.rmtree(place)


CHANGING = {"last_transition", "advert_sent", "advert_rcvd"}


def test_json_has_the_same_keys_in_the_same_order_and_the_same_values(both: dict[str, Dumps]) -> None:
    ours, theirs = json.loads(both["kad"].json), json.loads(both["keepalived"].json)
    assert [each["data"]["iname"] for each in ours] == ["first", "second", "third"]
    for mine, other in zip(ours, theirs, strict=True):
        for part in ("data", "stats"):
            assert list(mine[part]) == list(other[part])
            for key in mine[part].keys() - CHANGING:
                if key == "auth_data":
                    assert (mine[part][key], other[part][key]) == ("********", "sec/ret")
                else:
                    assert mine[part][key] == other[part][key], (mine["data"]["iname"], key)
    assert "\\/bin\\/true" in both["kad"].json, "the slash is escaped, as keepalived does"


def instance_lines(state: str) -> dict[str, list[str]]:
    """The lines of each instance, without those that tell the time or a descriptor."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in state.splitlines():
        if line.startswith(" VRRP Instance = "):
            name = line.split("= ")[1]
        elif not line.startswith("   "):
            name = ""
        elif name and not re.match(r"   (Last transition|Read timeout|fd_in|Using src_ip = fe80) ?", line):
            found.setdefault(name, []).append(line)
    return found


LATER = ("Flags of interface faults", "Last advert sent", "VRRPv3 uses VRRPv2 checksum")
"""Lines that keepalived has since 2.3; kad's are those of 2.2.7."""


def as_2_2_7(lines: list[str]) -> list[str]:
    """keepalived's, where its later versions call the same something else."""
    if not is_newer():
        return lines
    kept = [line for line in lines if not line.strip().startswith(LATER)]
    renamed = [line.replace("tracker faults", "interface and track script faults") for line in kept]
    milliseconds = re.compile(r"Master advert interval = (\d+) milli-sec")
    return [milliseconds.sub(lambda m: f"Master advert int = {int(m[1]) / 1000:.2f} sec", e) for e in renamed]


def test_state_has_the_same_lines_for_each_instance(both: dict[str, Dumps]) -> None:
    ours, theirs = (instance_lines(both[label].state) for label in ("kad", "keepalived"))
    assert ours.keys() == theirs.keys() == {"first", "second", "third"}
    for name, lines in ours.items():
        other = [line.replace(", ifindex ", ",") for line in as_2_2_7(theirs[name])]
        other = [re.sub(r"(Multicast address ff02::12).*", r"\1", line) for line in other]
        other = [line.replace("= sec/ret", "= ********") for line in other]
        assert lines == other, name


@pytest.mark.parametrize("state", ["MASTER", "BACKUP"])
def test_a_backup_shows_who_is_master(state: str) -> None:
    """Of one that wants to be MASTER, too, once it has heard another."""
    needs_namespaces()
    needs_keepalived()
    place = Path(tempfile.mkdtemp(prefix="kdump-"))
    found = []
    try:
        for program in (Keepalived, Kad):
            with Network("dumps") as network:
                found.append(backup_dumps(network, program, place, state))
    finally:
        shutil.rmtree(place)
    theirs, ours = found
    if is_newer():  # It shows the interval once, 2.2.7 and kad twice.
        ours["lines"] = [line for line in ours["lines"] if "Master advert interval" not in line]
    assert ours == theirs
    assert (ours["state"], ours["wantstate"], ours["master_priority"], ours["vipset"]) == (1, 1, 200, False)
    assert "   Master router = 192.0.2.66" in ours["lines"]


def backup_dumps(network: Network, program: type[Daemon], out: Path, state: str) -> dict[str, Any]:
    lan = network.bridge()
    node, master = network.node("node"), network.node("master")
    node.attach(lan, "192.0.2.1/24", name="eth0")
    master.attach(lan, "192.0.2.66/24", name="eth0")
    text = configuration(vrrp_instance("one", version=3, advert_int=0.1, priority=120, state=state))
    heard = [("eth0", advert(priority=200, interval_us=100_000))]
    with program(node, text, wrapper=["env", f"TMPDIR={out}"]) as daemon, Sender(master, heard, rate=20):
        daemon.wait_for("(one) Entering BACKUP STATE")

        def settled() -> dict[str, Any]:
            os.kill(daemon.pid, SIGJSON)
            try:
                data: dict[str, Any] = json.loads((out / "keepalived.json").read_text())[0]["data"]
            except (OSError, ValueError):
                return {}
            return data if data["master_priority"] == 200 else {}

        found = poll(settled, "the master to be shown", every=0.05)
        (out / "keepalived.data").unlink(missing_ok=True)
        os.kill(daemon.pid, signal.SIGUSR1)
        shown = poll(
            lambda: (out / "keepalived.data").read_text() if (out / "keepalived.data").exists() else "",
            "the state",
        )
        found["lines"] = instance_lines(shown)["one"]
        if program is Keepalived:
            found["lines"] = as_2_2_7(found["lines"])
        assert daemon.count("MASTER STATE") == 0
    for file in out.iterdir():
        file.unlink()
    del found["last_transition"]
    return found


def section(state: str, title: str) -> str:
    return state.partition(f"------< {title} >------\n")[2].partition("------<")[0]


@pytest.mark.parametrize("title", ["VRRP Sync groups", "VRRP Scripts", "VRRP Track files"])
def test_state_has_the_same_lines_for_groups_and_trackers(both: dict[str, Dumps], title: str) -> None:
    ours, theirs = (section(both[label].state, title) for label in ("kad", "keepalived"))
    ours, theirs = (re.sub(r"/kad/|/keepalived/", "/", text) for text in (ours, theirs))
    # A script is looked at while it runs now and then.
    ours, theirs = (text.replace("State = running\n", "State = idle\n") for text in (ours, theirs))
    assert ours == theirs != ""


def test_statistics_have_the_same_lines_and_those_of_later_versions(both: dict[str, Dumps]) -> None:
    ours = re.sub(r"  Authentication Extension Errors:\n(    .*\n)+", "", both["kad"].statistics)
    without_counts = [
        re.sub(r"\d+$", "N", text, flags=re.M) for text in (ours, both["keepalived"].statistics)
    ]
    assert without_counts[0] == without_counts[1]
    assert "Became master: 1" in ours


def test_statistics_begin_anew_when_asked_to(both: dict[str, Dumps]) -> None:
    for label in both:
        assert "Became master: 0" in both[label].cleared and "Became master: 1" not in both[label].cleared


def test_dumps_are_for_their_owner_alone(both: dict[str, Dumps]) -> None:
    assert both["kad"].modes == both["keepalived"].modes == {"0o600"}


# As an exporter reads them ---------------------------------------------------------------------------------


def exporter_data(text: str) -> dict[str, dict[str, Any]]:
    """The habits of a much used exporter: depth by spaces, keys before "=" or ":", addresses five deep."""
    found: dict[str, dict[str, Any]] = {}
    name = key = ""
    for line in text.splitlines():
        if line.startswith(" VRRP Instance") and "=" in line:
            name = line.split("=")[1].strip()
            found[name] = {"vips": [], "excluded": []}
        elif line.startswith("   ") and name:
            if line.startswith("     "):
                value = line.strip()
            else:
                separator = "=" if "=" in line else ":" if ":" in line else ""
                if not separator:
                    continue
                key, value = (part.strip() for part in line.strip().split(separator)[:2])
            if key.startswith("Virtual IP (") and value:
                found[name]["vips"].append(value)
            elif key.startswith("Virtual IP Excluded") and value:
                found[name]["excluded"].append(value)
            else:
                found[name].setdefault(key, value)
        elif not line.startswith(" VRRP Version"):
            name = ""
    return found


def test_an_exporter_finds_what_it_looks_for(both: dict[str, Dumps]) -> None:
    found = exporter_data(both["kad"].state)
    assert found["first"]["State"] == found["first"]["Wantstate"] == "MASTER"
    assert found["first"]["Interface"] == "eth0"
    assert int(found["first"]["Gratuitous ARP delay"]) == 5
    assert int(found["first"]["Virtual Router ID"]) == 51
    first = found["first"]["vips"][0].split()
    assert (first[0], first[2]) == ("192.0.2.100/24", "eth0")
    assert found["first"]["excluded"][0].startswith("2001:db8::5/64 dev eth1")
    counters = [line for line in both["kad"].statistics.splitlines() if line.startswith("    ")]
    assert all(line.split(":")[1].strip().isdigit() for line in counters)
