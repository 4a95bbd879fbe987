"""Words that few configurations have, one by one: what each does, beside keepalived where that knows it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.adverts import Sender, advert
from tests.support.capture import Advert, Capture
from tests.support.control import status_of
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.keepalived import configuration, needs_keepalived, vrrp_instance
from tests.support.namespaces import Network, Node, poll, remains

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

BOTH = pytest.mark.parametrize("kind", [Keepalived, Kad])
VIP = "192.0.2.100"
PIDFD_GETFD = 438
libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Lan:
    one: Node
    two: Node
    wire: Capture

    def adverts(self, source: str) -> list[Advert]:
        return self.wire.adverts(vrid=51, source=source)


@contextlib.contextmanager
def observed(network: Network) -> Iterator[Lan]:
    """Two nodes, and a third that listens."""
    needs_keepalived()
    bridge = network.bridge()
    nodes = {label: network.node(label) for label in ("one", "two", "observer")}
    for number, node in enumerate(nodes.values(), 1):
        node.attach(bridge, f"192.0.2.{number}/24", f"fe80::{number}/64", name="eth0")
    with Capture(nodes["observer"], "eth0") as wire:
        yield Lan(nodes["one"], nodes["two"], wire)


@pytest.fixture
def lan(network: Network) -> Iterator[Lan]:
    with observed(network) as lan:
        yield lan


@pytest.fixture
def place() -> Iterator[Path]:
    """Where every user may look, and only root write."""
    with tempfile.TemporaryDirectory(prefix="kt-words-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def block(*extra: str, **fields: object) -> str:
    wanted: dict[str, object] = {"version": 3, "advert_int": 0.2, "addresses": [f"{VIP}/24"]}
    return vrrp_instance(**(wanted | fields), extra=extra)  # type: ignore[arg-type]


def entered(daemon: Daemon) -> list[str]:
    """The states it says it enters, in order."""
    lines = [line for line in daemon.said().splitlines() if "(VI_1) Entering " in line]
    return [line.split("Entering ")[1].split()[0] for line in lines]


def becomes(daemon: Daemon, state: str, times: int = 1) -> None:
    poll(
        lambda: entered(daemon).count(state) >= times and entered(daemon)[-1] == state,
        lambda: f"{state}: {daemon.said()}",
        seconds=20,
    )


# Sources ------------------------------------------------------------------------------------------------


@BOTH
def test_track_src_ip_is_a_fault_at_the_start_of_one_with_peers(lan: Lan, kind: type[Daemon]) -> None:
    text = configuration(block("track_src_ip", source="192.0.2.7", peers=["192.0.2.2"]))
    with kind(lan.one, text) as daemon:
        becomes(daemon, "FAULT")
        assert entered(daemon) == ["FAULT"]


@pytest.mark.parametrize("present", [True, False])
def test_track_src_ip_is_a_fault_whenever_the_address_is_missing(lan: Lan, present: bool) -> None:
    """keepalived 2.2.7 does not mind where the adverts go to a group, nor what is deleted later."""
    if present:
        lan.one.ip("addr", "add", "192.0.2.7/24", "dev", "eth0")
    with Kad(lan.one, configuration(block("mcast_src_ip 192.0.2.7", "track_src_ip"))) as kad:
        if present:
            becomes(kad, "MASTER")
            poll(lambda: lan.adverts("192.0.2.7"), "adverts from there")
            lan.one.ip("addr", "del", "192.0.2.7/24", "dev", "eth0")
        becomes(kad, "FAULT")
        poll(lambda: not lan.one.holds(VIP), "the address to go")
        lan.one.ip("addr", "add", "192.0.2.7/24", "dev", "eth0")
        becomes(kad, "MASTER", times=1 + present)
        assert entered(kad) == [*(["BACKUP", "MASTER"] if present else []), "FAULT", "BACKUP", "MASTER"]


@BOTH
def test_without_it_a_source_may_be_missing(lan: Lan, kind: type[Daemon]) -> None:
    with kind(lan.one, configuration(block("mcast_src_ip 192.0.2.7"))) as daemon:
        becomes(daemon, "MASTER")
        poll(lambda: lan.adverts("192.0.2.7"), "adverts from there all the same")


# Checksums ----------------------------------------------------------------------------------------------


def unicast(node: int, *extra: str, priority: int = 100) -> str:
    return configuration(
        block(*extra, priority=priority, source=f"192.0.2.{node}", peers=[f"192.0.2.{3 - node}"])
    )


def test_the_old_checksum_is_keepaliveds_bit_for_bit(lan: Lan) -> None:
    payloads = {}
    for word in ("", "old_unicast_checksum"):
        for kind in (Keepalived, Kad):
            with Capture(lan.two, "eth0") as wire, kind(lan.one, unicast(1, *filter(None, [word]))):
                payloads[kind, word] = poll(lambda: wire.adverts(vrid=51), "an advert")[-1].payload
    for word in ("", "old_unicast_checksum"):
        assert payloads[Kad, word] == payloads[Keepalived, word]
    assert payloads[Kad, ""] != payloads[Kad, "old_unicast_checksum"]


@pytest.mark.parametrize(("ours", "theirs"), [(Kad, Keepalived), (Keepalived, Kad)])
def test_the_old_checksum_is_recognised_and_answered_alike(
    lan: Lan, ours: type[Daemon], theirs: type[Daemon]
) -> None:
    with theirs(lan.two, unicast(2, "old_unicast_checksum", priority=150)) as old:
        becomes(old, "MASTER")
        with ours(lan.one, unicast(1)) as young:
            becomes(young, "BACKUP")
            poll(lambda: young.count("checksum to old version") == 1, young.said)
            assert old.stop() == 0
            becomes(young, "MASTER")
        with theirs(lan.two, unicast(2, "old_unicast_checksum", priority=50)) as old:
            becomes(old, "MASTER")


def test_never_is_not_to_look_for_it(lan: Lan) -> None:
    with Kad(lan.one, unicast(1, "old_unicast_checksum never")) as kad:
        becomes(kad, "MASTER")
        with Keepalived(lan.two, unicast(2, "old_unicast_checksum", priority=150)) as old:
            becomes(old, "MASTER")

            def dropped() -> bool:
                # Of few: what keepalived cannot read itself starts its timer anew, and it hardly speaks.
                instance = status_of(kad).reports["vrrp"]["instances"][0]
                return bool(instance.get("drops", {}).get("checksum", 0))

            poll(dropped, "dropped adverts", every=0.1)
            assert entered(kad)[-1] == "MASTER"


# Words of keepalived after 2.2.7 ------------------------------------------------------------------------


@pytest.mark.parametrize("logged", [True, False])
def test_unknown_virtual_routers_are_logged_where_asked_for(lan: Lan, logged: bool) -> None:
    settings = ["log_unknown_vrids"] if logged else []
    with (
        Kad(lan.one, configuration(block(), settings=settings)) as kad,
        Keepalived(lan.two, configuration(block(vrid=77, addresses=["192.0.2.177/24"]))) as stranger,
    ):
        becomes(kad, "MASTER")
        becomes(stranger, "MASTER")
        lan.wire.clear()
        poll(lambda: len(lan.wire.adverts(vrid=77)) > 5, "the stranger to speak")
        if logged:
            kad.wait_for("VRID 77 received from 192.0.2.2")
        assert kad.count("VRID 77") == (1 if logged else 0)


@pytest.mark.parametrize("asked", [True, False])
def test_one_that_was_late_for_too_long_leaves_it_to_who_took_over(lan: Lan, asked: bool) -> None:
    """timer_expired_backup: a backup of that priority has taken over meanwhile, and is not preempted."""
    words = ["nopreempt", *(["timer_expired_backup 100"] if asked else [])]
    # Not so long that it counts as hung.
    text = configuration(block(*words, priority=150, advert_int=0.1))
    with Kad(lan.one, text) as kad:
        becomes(kad, "MASTER")
        with Keepalived(lan.two, configuration(block(advert_int=0.1))) as peer:
            becomes(peer, "BACKUP")
            sleeps_and_comes_back(lan, kad, peer, yields=asked)


def sleeps_and_comes_back(lan: Lan, kad: Kad, peer: Daemon, *, yields: bool) -> None:
    pid = kad.vrrp_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        becomes(peer, "MASTER")
        lan.wire.clear()
        poll(lambda: len(lan.adverts("192.0.2.2")) > 1, "the other's adverts")
    finally:
        os.kill(pid, signal.SIGCONT)
    if yields:
        becomes(kad, "BACKUP")
        remains(lambda: entered(peer)[-1] == "MASTER", "the other's mastery", seconds=1)
        assert entered(kad)[-1] == "BACKUP"
    else:
        becomes(peer, "BACKUP")
        assert entered(kad)[-1] == "MASTER"
    assert kad.vrrp_pid() == pid, "the same life"


SCRIPT = "#!/bin/sh\nid -G > {place}/groups.new\nmv {place}/groups.new {place}/groups\n"
ANOTHER_GROUP = 4242


@pytest.mark.parametrize("asked", [True, False])
def test_scripts_get_the_other_groups_of_their_user(lan: Lan, place: Path, asked: bool) -> None:
    script, groups, out = place / "notify", place / "etc-group", place / "out"
    out.mkdir()
    out.chmod(0o777)
    script.write_text(SCRIPT.format(place=out))
    script.chmod(0o755)
    groups.write_text(Path("/etc/group").read_text() + f"kad-words:x:{ANOTHER_GROUP}:daemon\n")
    settings = ["enable_script_security", "script_user daemon"]
    settings += ["set_supplementary_groups"] if asked else []
    text = configuration(block(f'notify_master "{script}"'), settings=settings)
    bind = f'mount --bind {groups} /etc/group && exec "$@"'
    wrapper = ["unshare", "--mount", "sh", "-c", bind, "sh"]
    with Kad(lan.one, text, wrapper=wrapper) as kad:
        becomes(kad, "MASTER")
        poll((out / "groups").exists, kad.said)
        shown = (out / "groups").read_text().split()
        assert (str(ANOTHER_GROUP) in shown) is asked


# Defaults for every instance ----------------------------------------------------------------------------


def announced(lan: Lan) -> int:
    return len(lan.wire.announcements(VIP))


@BOTH
def test_what_global_defs_say_of_announcements_and_versions(lan: Lan, kind: type[Daemon]) -> None:
    settings = ["vrrp_version 3", "vrrp_garp_master_repeat 2", "vrrp_garp_master_delay 1"]
    text = configuration(block().replace("version 3\n", ""), settings=settings)
    assert "\nversion" not in text
    with kind(lan.one, text) as daemon:
        becomes(daemon, "MASTER")
        poll(lambda: announced(lan) == 4, lambda: f"two, and two more: {announced(lan)}")
        remains(lambda: announced(lan) == 4, "no more of them", seconds=1.5)
        assert {advert.version for advert in lan.adverts("192.0.2.1")} == {3}


@BOTH
def test_vrrp_min_garp_is_one_announcement_and_no_more(lan: Lan, kind: type[Daemon]) -> None:
    with kind(lan.one, configuration(block(), settings=["vrrp_min_garp"])) as daemon:
        becomes(daemon, "MASTER")
        poll(lambda: announced(lan) == 1, "the one")
        remains(lambda: announced(lan) == 1, "the only one", seconds=6)


@BOTH
def test_a_lower_master_is_told_to_a_script_and_not_answered(
    lan: Lan, kind: type[Daemon], place: Path
) -> None:
    script = place / "notify"
    script.write_text(f'#!/bin/sh\necho "$@" >> {place}/told\n')
    script.chmod(0o755)
    (place / "told").touch()
    settings = ["enable_script_security", "script_user root"]
    settings += ["vrrp_lower_prio_no_advert", "vrrp_garp_lower_prio_repeat 3", "vrrp_garp_master_delay 0"]
    extra = f'notify_master_rx_lower_pri "{script}"'
    with kind(lan.one, configuration(block(extra), settings=settings)) as daemon:
        becomes(daemon, "MASTER")
        poll(lambda: announced(lan) == 5, "its own announcements")
        lan.wire.clear()
        packet = advert(source="192.0.2.2", vip=VIP, priority=50, interval_us=200_000)
        with Sender(lan.two, [("eth0", packet)], 50):
            poll((place / "told").read_text, daemon.said)
            poll(lambda: announced(lan) >= 3, "announcements against it")
            ours = poll(lambda: found if len(found := lan.adverts("192.0.2.1")) > 5 else [], "adverts")
        gaps = [(b.time_us - a.time_us) / 1e6 for a, b in pairwise(ours)]
        # Fifty of its adverts came in a second.
        assert sorted(gaps)[len(gaps) // 2] > 0.1, "not one for each"
        assert (place / "told").read_text()[0] == "\n", "without any argument"


@BOTH
def test_default_interface_is_that_of_static_addresses(lan: Lan, kind: type[Daemon]) -> None:
    lan.one.ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
    for name in ("other0", "other1"):
        lan.one.set_link(name, "up")
    statics = "static_ipaddress {\n10.9.9.9/24\n}\n"
    with kind(lan.one, configuration(statics, block(), settings=["default_interface other0"])) as daemon:
        poll(lambda: "10.9.9.9/24" in lan.one.addresses("other0"), daemon.said)


@BOTH
@pytest.mark.parametrize(
    ("settings", "extra", "size"),
    [
        ((), ("kernel_rx_buf_size 50000",), 100_000),
        (("vrrp_rx_bufs_policy 60000", "vrrp_rx_bufs_multiplier 2"), (), 120_000),
    ],
)
def test_receive_buffers(
    lan: Lan, kind: type[Daemon], settings: tuple[str, ...], extra: tuple[str, ...], size: int
) -> None:
    """The kernel doubles what it is asked for."""
    with kind(lan.one, configuration(block(*extra), settings=settings)) as daemon:
        becomes(daemon, "MASTER")
        assert size in set(buffers_of(daemon.vrrp_pid(), socket.AF_INET))


def buffers_of(pid: int, family: socket.AddressFamily) -> Iterator[int]:
    """Receive buffers of another process's sockets that are no streams."""
    process = os.pidfd_open(pid)
    for name in os.listdir(f"/proc/{pid}/fd"):
        descriptor = libc.syscall(PIDFD_GETFD, process, int(name), 0)
        if descriptor < 0:
            continue
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            continue
        with socket.socket(fileno=descriptor) as its:
            if its.type in (socket.SOCK_RAW, socket.SOCK_DGRAM) and its.family == family:
                yield its.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    os.close(process)


def test_names_of_tables_come_from_where_it_is_told(lan: Lan, place: Path) -> None:
    (place / "rt_tables").write_text("77 seventyseven\n")
    rules = ("virtual_rules {", "from 10.9.0.0/16 table seventyseven", "}")
    text = configuration(block(*rules), settings=[f"iproute_etc_dir {place}"])
    with Kad(lan.one, text) as kad:
        poll(lambda: lan.one.ip("rule", "show", "table", "77"), kad.said)


@BOTH
def test_announcements_keep_the_gap_that_global_defs_ask_for(lan: Lan, kind: type[Daemon]) -> None:
    addresses = [f"192.0.2.{100 + n}/24" for n in range(3)]
    text = configuration(block(addresses=addresses), settings=["vrrp_garp_interval 0.2"])
    with kind(lan.one, text) as daemon:
        becomes(daemon, "MASTER")
        made = poll(lambda: found if len(found := lan.wire.announcements()) > 6 else [], daemon.said)
        assert min(b.time_us - a.time_us for a, b in pairwise(made)) > 100_000


# Kernel objects -----------------------------------------------------------------------------------------


@BOTH
def test_a_route_expires(lan: Lan, kind: type[Daemon]) -> None:
    statics = "static_routes {\n2001:db8:55::/48 dev eth0 expires 100\n}\n"
    with kind(lan.one, configuration(statics, block())) as daemon:
        route = poll(lambda: lan.one.ip_json("-6", "route", "show", "2001:db8:55::/48"), daemon.said)[0]
        assert 80 <= route["expires"] <= 100


def test_an_address_joins_its_group(lan: Lan) -> None:
    text = configuration("static_ipaddress {\n239.7.7.7/32 dev eth0 autojoin\n}\n", block())
    with Kad(lan.one, text) as kad:
        poll(lambda: "239.7.7.7" in lan.one.ip("maddr", "show", "dev", "eth0"), kad.said)


# Scripts and pipes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [True, False])
def test_init_fail_is_a_fault_until_rise_successes(lan: Lan, place: Path, said: bool) -> None:
    """keepalived forgets it when it reads the track_script that names the script."""
    script = place / "counts"
    script.write_text(f"#!/bin/sh\necho x >> {place}/runs\n")
    script.chmod(0o755)
    word = "init_fail" if said else ""
    check = f'vrrp_script counts {{\nscript "{script}"\ninterval 0.5\nrise 3\n{word}\n}}\n'
    text = configuration(
        check,
        block("track_script {", "counts", "}"),
        settings=["enable_script_security", "script_user root"],
    )
    with Kad(lan.one, text) as kad:
        becomes(kad, "BACKUP" if said else "MASTER")
        if said:
            assert len((place / "runs").read_text().split()) >= 3
            becomes(kad, "MASTER")
        assert entered(kad) == [*(["FAULT"] if said else []), "BACKUP", "MASTER"]


# Sync groups --------------------------------------------------------------------------------------------


@BOTH
def test_a_deleted_address_makes_the_whole_group_say_farewell_and_come_back(
    lan: Lan, kind: type[Daemon]
) -> None:
    """Slow adverts: whoever waited for a master-down interval would be silent for much longer."""
    members = [
        vrrp_instance(
            f"VI_{n}", vrid=50 + n, version=3, advert_int=2, addresses=[f"192.0.2.{100 + n}/24"], priority=200
        )
        for n in (1, 2)
    ]
    group = "vrrp_sync_group G {\ngroup {\nVI_1\nVI_2\n}\n}\n"
    with kind(lan.one, configuration(*members, group)) as daemon:
        becomes(daemon, "MASTER")
        poll(lambda: lan.one.holds("192.0.2.102"), "both addresses")
        lan.wire.clear()
        lan.one.ip("addr", "del", "192.0.2.101/24", "dev", "eth0")
        for vrid in (51, 52):
            said = poll(lambda v=vrid: back(lan.wire.adverts(vrid=v)), f"{vrid} back: {daemon.said()}")  # type: ignore[misc]
            farewell, again = said
            # Skew time is 0.44 s; 6 s more would be a master-down interval.
            assert again.time_us - farewell.time_us < 4_000_000


def back(adverts: list[Advert]) -> tuple[Advert, Advert] | None:
    """The last farewell, and the first advert after it."""
    for later, earlier in pairwise(reversed(adverts)):
        if earlier.priority == 0 and later.priority:
            return earlier, later
    return None
