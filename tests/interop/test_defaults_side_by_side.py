"""What global_defs say for every instance and process, word by word, beside keepalived if it knows it."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.interop.test_words_side_by_side import (
    BOTH,
    VIP,
    Lan,
    becomes,
    block,
    buffers_of,
    observed,
    unicast,
)
from tests.support.adverts import Sender, advert
from tests.support.capture import Announcement, Capture
from tests.support.daemon import Daemon, Kad, Keepalived
from tests.support.fifo import Reader
from tests.support.keepalived import configuration
from tests.support.namespaces import Network, poll, remains

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

REFRESHED = ("garp_master_refresh 1", "garp_master_refresh_repeat 2")
RELUCTANT = ("garp_lower_prio_delay 1", "garp_lower_prio_repeat 2")


@pytest.fixture
def lan(network: Network) -> Iterator[Lan]:
    with observed(network) as lan:
        yield lan


@pytest.fixture
def place() -> Iterator[Path]:
    """Where every user may look, and only root write."""
    with tempfile.TemporaryDirectory(prefix="kt-defaults-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def said_where(words: tuple[str, ...], everywhere: bool, *settings: str, **fields: object) -> str:
    """The words in global_defs, or in the instance."""
    if everywhere:
        return configuration(block(**fields), settings=[*(f"vrrp_{word}" for word in words), *settings])
    return configuration(block(*words, **fields), settings=settings)


def bursts(announced: list[Announcement]) -> list[int]:
    """How many came together."""
    sizes = [1] if announced else []
    for one, other in pairwise(announced):
        if other.time_us - one.time_us < 300_000:
            sizes[-1] += 1
        else:
            sizes.append(1)
    return sizes


# Announcements ------------------------------------------------------------------------------------------

EVERYWHERE = pytest.mark.parametrize("everywhere", [True, False], ids=["global", "instance"])


@BOTH
@EVERYWHERE
def test_a_master_announces_again_and_again_where_asked_to(
    lan: Lan, kind: type[Daemon], everywhere: bool
) -> None:
    text = said_where(REFRESHED, everywhere, "vrrp_garp_master_delay 0", "vrrp_garp_master_repeat 3")
    with kind(lan.one, text) as daemon:
        becomes(daemon, "MASTER")
        poll(lambda: len(lan.wire.announcements(VIP)) >= 3 + 3 * 2, daemon.said)
        assert bursts(lan.wire.announcements(VIP))[:4] == [3, 2, 2, 2]


@BOTH
@EVERYWHERE
def test_one_advert_of_lower_priority_is_answered_now_and_later(
    lan: Lan, kind: type[Daemon], everywhere: bool
) -> None:
    text = said_where(RELUCTANT, everywhere, "vrrp_garp_master_delay 0")
    with kind(lan.one, text) as daemon:
        becomes(daemon, "MASTER")
        poll(lambda: len(lan.wire.announcements(VIP)) == 5, daemon.said)
        lan.wire.clear()
        lower = advert(source="192.0.2.2", vip=VIP, priority=50, interval_us=200_000)
        with Sender(lan.two, [("eth0", lower)], 0.01) as sender:
            poll(lambda: sender.sent == 1, "the one advert")
            poll(lambda: len(lan.wire.announcements(VIP)) == 4, daemon.said)
        remains(lambda: len(lan.wire.announcements(VIP)) == 4, "no more of them", seconds=1.2)
        assert bursts(lan.wire.announcements(VIP)) == [2, 2]


@BOTH
@EVERYWHERE
def test_neighbour_advertisements_keep_their_gap(lan: Lan, kind: type[Daemon], everywhere: bool) -> None:
    """Of all instances together, or of the interfaces of a garp_group."""
    group = "garp_group {\ngna_interval 0.2\ninterface eth0\n}\n"
    six = block(addresses=["fe80::51/64", *(f"2001:db8::{n}/64" for n in (51, 52))])
    text = configuration("" if everywhere else group, six, settings=["vrrp_gna_interval 0.2"] * everywhere)
    with kind(lan.one, text) as daemon:
        becomes(daemon, "MASTER")
        made = poll(lambda: found if len(found := lan.wire.announcements()) > 6 else [], daemon.said)
        assert len({each.address for each in made}) == 3
        assert min(b.time_us - a.time_us for a, b in pairwise(made)) > 100_000


@BOTH
@EVERYWHERE
@pytest.mark.parametrize("word", ["garp_extra_if all 1", "vmac_garp_intvl all 1"])
def test_addresses_elsewhere_are_announced_periodically(
    lan: Lan, kind: type[Daemon], word: str, everywhere: bool
) -> None:
    lan.one.ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
    for name in ("other0", "other1"):
        lan.one.set_link(name, "up")
    lan.one.ip("addr", "add", "198.51.100.1/24", "dev", "other0")
    text = said_where(
        (word,),
        everywhere,
        "vrrp_garp_master_delay 0",
        "vrrp_garp_master_repeat 1",
        interface="other0",
        addresses=["192.0.2.230/24 dev eth0"],
    )
    with kind(lan.one, text) as daemon:
        becomes(daemon, "MASTER")
        poll(lambda: len(lan.wire.announcements("192.0.2.230")) > 3, daemon.said)


# Elections ----------------------------------------------------------------------------------------------


@BOTH
@EVERYWHERE
def test_a_backup_may_wait_for_more_adverts(lan: Lan, kind: type[Daemon], everywhere: bool) -> None:
    started = time.time()
    with kind(lan.one, said_where(("down_timer_adverts 12",), everywhere)) as daemon:
        becomes(daemon, "MASTER")
        assert lan.adverts("192.0.2.1")[0].time_us / 1e6 - started > 12 * 0.2


@BOTH
@pytest.mark.parametrize("asked", [True, False])
def test_a_last_advert_before_giving_way(lan: Lan, kind: type[Daemon], asked: bool) -> None:
    text = said_where(("higher_prio_send_advert",) * asked, everywhere=True, advert_int=1)
    with kind(lan.one, text) as daemon:
        becomes(daemon, "MASTER")
        sent = poll(lambda: lan.adverts("192.0.2.1"), "its adverts")[-1]
        higher = advert(source="192.0.2.2", vip=VIP, priority=150, interval_us=1_000_000)
        with Sender(lan.two, [("eth0", higher)], 5):
            becomes(daemon, "BACKUP", times=2)
            heard = lan.adverts("192.0.2.2")[0]
            assert heard.time_us > sent.time_us

            def answers() -> list[int]:
                return [each.priority for each in lan.adverts("192.0.2.1") if each.time_us > heard.time_us]

            poll(lambda: answers() == [100] * asked, "what it says to that")
            remains(lambda: answers() == [100] * asked, "its last word", seconds=0.5)


@BOTH
@pytest.mark.parametrize("asked", [True, False])
def test_only_peers_are_believed_where_that_is_checked(lan: Lan, kind: type[Daemon], asked: bool) -> None:
    """The other speaks to us from an address that is none of our peers'."""
    lan.two.ip("addr", "add", "192.0.2.7/24", "dev", "eth0")
    ours = unicast(1).replace("router_id test\n", "router_id test\n" + "vrrp_check_unicast_src\n" * asked)
    theirs = configuration(block(priority=150, source="192.0.2.7", peers=["192.0.2.1"]))
    with kind(lan.one, ours) as daemon, Capture(lan.one, "eth0") as wire:
        becomes(daemon, "MASTER")
        with kind(lan.two, theirs) as stranger:
            becomes(stranger, "MASTER")
            poll(lambda: len(wire.adverts(vrid=51, source="192.0.2.7")) > 5, "its adverts")
            if not asked:
                becomes(daemon, "BACKUP", times=2)
            assert daemon.count("Entering BACKUP STATE") == 2 - asked


@pytest.mark.parametrize(("kind", "asked"), [(Keepalived, False), (Kad, False), (Kad, True)])
def test_an_owner_may_be_deaf(lan: Lan, kind: type[Daemon], asked: bool) -> None:
    """Otherwise it says that another is there. keepalived 2.2.7 does not know the word."""
    settings = ["vrrp_owner_ignore_adverts"] * asked
    text = configuration(block(state="MASTER", priority=255), settings=settings)
    with kind(lan.one, text) as daemon:
        becomes(daemon, "MASTER")
        lower = advert(source="192.0.2.2", vip=VIP, priority=254, interval_us=200_000)
        with Sender(lan.two, [("eth0", lower)], 5) as sender:
            poll(lambda: sender.sent > 5, "some adverts")
            if not asked:
                poll(lambda: daemon.count("lower priority"), daemon.said)
        assert bool(daemon.count("lower priority")) is not asked


COMPLAINTS = {Keepalived: "not present in MASTER advert", Kad: "differ from ours"}


@BOTH
@pytest.mark.parametrize("asked", [True, False])
def test_changed_addresses_of_the_same_master_may_go_unseen(
    lan: Lan, kind: type[Daemon], asked: bool
) -> None:
    """The first advert of a master is looked at all the same."""
    settings = ["vrrp_skip_check_adv_addr"] * asked
    with kind(lan.one, configuration(block(), settings=settings)) as daemon:
        becomes(daemon, "BACKUP")
        packets = [
            ("eth0", advert(source="192.0.2.2", vip=vip, priority=150, interval_us=200_000))
            for vip in (VIP, "192.0.2.99", "192.0.2.99", "192.0.2.99")
        ]
        with Sender(lan.two, packets, 10) as sender:
            poll(lambda: sender.sent == 4, "a changed advert")
        becomes(daemon, "MASTER")
        assert bool(daemon.count(COMPLAINTS[kind])) is not asked, daemon.said()


# The start ----------------------------------------------------------------------------------------------

DELAY_S = 3


@pytest.mark.parametrize("late", [True, False], ids=["just booted", "long since"])
def test_who_starts_soon_after_the_boot_waits_the_longer(lan: Lan, late: bool) -> None:
    """A time namespace has a boot of its own. keepalived 2.2.7 does not know the word."""
    age_s = int(time.clock_gettime(time.CLOCK_BOOTTIME)) if late else 0
    wrapper = ["unshare", "--time", "--boottime", str(-age_s), "--fork", "--kill-child"]
    if lan.one.run([*wrapper, "true"], check=False).returncode:
        pytest.skip("this kernel, or unshare(1), has no time namespaces")
    text = configuration(block(), settings=[f"vrrp_delay_after_boot {DELAY_S}"])
    started = time.time()
    with Kad(lan.one, text, wrapper=wrapper) as kad:
        becomes(kad, "MASTER")
        took_s = lan.adverts("192.0.2.1")[0].time_us / 1e6 - started
        # Three adverts and the skew time are less than a second; the boot is up to another one further back
        # than was asked for, whole seconds being all that unshare(1) takes.
        assert (took_s > DELAY_S - 1.1) is late


# Processes ----------------------------------------------------------------------------------------------

SIZES = {
    "vrrp_netlink_monitor_rcv_bufs 90000": {180_000},
    "vrrp_netlink_cmd_rcv_bufs 150000": {300_000},
    "vrrp_netlink_monitor_rcv_bufs 9000000\nvrrp_netlink_monitor_rcv_bufs_force": {18_000_000},
    "vrrp_netlink_cmd_rcv_bufs 8000000\nvrrp_netlink_cmd_rcv_bufs_force": {16_000_000},
}


@BOTH
@pytest.mark.parametrize("words", SIZES)
def test_netlink_buffers(lan: Lan, kind: type[Daemon], words: str) -> None:
    """The kernel doubles what it is asked for."""
    with kind(lan.one, configuration(block(), settings=words.split("\n"))) as daemon:
        becomes(daemon, "MASTER")
        assert SIZES[words] <= set(buffers_of(daemon.vrrp_pid(), socket.AF_NETLINK)), daemon.said()


@BOTH
def test_the_vrrp_process_has_its_name(lan: Lan, kind: type[Daemon]) -> None:
    with kind(lan.one, configuration(block(), settings=["vrrp_process_name speaker"])) as daemon:
        becomes(daemon, "MASTER")
        assert Path(f"/proc/{daemon.vrrp_pid()}/comm").read_text() == "speaker\n"


def test_the_vendors_names_count_where_the_host_has_no_file(lan: Lan, place: Path) -> None:
    """As in iproute2. keepalived 2.2.7 does not know the word."""
    for name in ("usr", "etc"):
        (place / name).mkdir()
    (place / "usr" / "rt_tables").write_text("77 vendors\n")
    (place / "usr" / "rt_realms").write_text("7 theirs\n")
    (place / "etc" / "rt_realms").write_text("8 theirs\n")
    rules = ("virtual_rules {", "from 10.9.0.0/16 realms theirs table vendors", "}")
    settings = [f"iproute_usr_dir {place}/usr", f"iproute_etc_dir {place}/etc"]
    with Kad(lan.one, configuration(block(*rules), settings=settings)) as kad:
        rule = poll(lambda: lan.one.run(["ip", "-N", "rule", "show", "table", "77"]).stdout, kad.said)
        assert "10.9.0.0/16" in rule and "realms 8" in rule


@pytest.mark.parametrize("kept", [True, False])
def test_a_script_is_run_by_the_path_as_written_where_asked(lan: Lan, place: Path, kept: bool) -> None:
    """Otherwise by its real path. keepalived before 2.4 does not know the word, and keeps the link's name."""
    real, link = place / "real", place / "link"
    real.write_text(f'#!/bin/sh\necho "$0" > {place}/new\nmv {place}/new {place}/told\n')
    real.chmod(0o755)
    link.symlink_to(real)
    settings = ["enable_script_security", "script_user root", *(["use_symlink_paths"] if kept else [])]
    with Kad(lan.one, configuration(block(f'notify_master "{link}"'), settings=settings)) as kad:
        becomes(kad, "MASTER")
        poll((place / "told").exists, kad.said)
        assert (place / "told").read_text().strip() == str(link if kept else real)


# Pid files where the configuration has them, in a /run of its own.
OWN_RUN = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh")


def without_pid_options(kind: type[Daemon]) -> type[Daemon]:
    class Bare(kind):  # type: ignore[misc, valid-type]
        def argv(self) -> list[str]:
            words = super().argv()
            flags = {at for at, word in enumerate(words) if word in ("-p", "-r", "-c", "-b")}
            return [word for at, word in enumerate(words) if not {at, at - 1} & flags]

    return Bare


@BOTH
@pytest.mark.parametrize("asked", [True, False])
def test_where_pid_files_are(lan: Lan, kind: type[Daemon], asked: bool) -> None:
    text = "use_pid_dir\n" * asked + configuration(block())
    with without_pid_options(kind)(lan.one, text, wrapper=OWN_RUN) as daemon:
        becomes(daemon, "MASTER")
        place = Path(f"/proc/{daemon.pid}/root/run", *["keepalived"] * asked)
        assert {each.name for each in place.glob("*.pid")} == {"keepalived.pid", "vrrp.pid"}
        assert int((place / "keepalived.pid").read_text()) == daemon.pid
        assert int((place / "vrrp.pid").read_text()) in daemon.children()


# The packet filter --------------------------------------------------------------------------------------


def test_the_words_of_iptables_mean_nftables(lan: Lan) -> None:
    if lan.one.run(["nft", "list", "ruleset"], check=False).returncode:
        pytest.skip("no nftables here")
    found = []
    for settings in (["nftables keepalived"], ["vrrp_iptables MY_IN MY_OUT", "vrrp_ipsets a b c"]):
        with Kad(lan.one, configuration(block("no_accept"), settings=settings)) as kad:
            becomes(kad, "MASTER")
            listed = poll(lambda: lan.one.run(["nft", "list", "ruleset"]).stdout, kad.said)
            found.append(listed.split("{", 1)[1])
            assert kad.count("nftables") >= ("vrrp_iptables MY_IN MY_OUT" in settings)
    assert VIP in found[0]
    assert found[0] == found[1]


# Instances ----------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("place_of_word", ["global", "instance", "group", "nowhere"])
def test_changes_of_priority_are_told_where_asked(
    lan: Lan, kind: type[Daemon], place: Path, place_of_word: str
) -> None:
    (place / "value").write_text("0\n")
    lan.one.run(["mkfifo", f"{place}/pipe"])
    pipe = Reader(place / "pipe")
    word = "notify_priority_changes"
    text = configuration(
        f"track_file value {{\nfile {place}/value\nweight 1\n}}\n",
        block("track_file {", "value", "}", *[word] * (place_of_word == "instance")),
        block(name="VI_2", vrid=52, addresses=["192.0.2.102/24"]),
        "vrrp_sync_group G {\ngroup {\nVI_1\nVI_2\n}\nsync_group_tracking_weight\n"
        + f"{word}\n" * (place_of_word == "group")
        + "}\n",
        settings=[f"vrrp_notify_fifo {place}/pipe", *[f"vrrp_{word}"] * (place_of_word == "global")],
    )
    try:
        with kind(lan.one, text) as daemon:
            becomes(daemon, "MASTER")
            poll(lambda: b'GROUP "G" MASTER' in pipe.data, lambda: str(pipe.data))
            (place / "fresh").write_text("-20\n")
            (place / "fresh").rename(place / "value")
            poll(lambda: 80 in {each.priority for each in lan.adverts("192.0.2.1")}, daemon.said)
            told = b'INSTANCE "VI_1" MASTER_PRIORITY 80'
            if place_of_word != "nowhere":
                poll(lambda: told in pipe.data, lambda: str(pipe.data))
            assert (told in pipe.data) is (place_of_word != "nowhere")
    finally:
        pipe.close()


@BOTH
def test_a_rule_suppresses_a_group_of_interfaces(lan: Lan, kind: type[Daemon]) -> None:
    rules = ("virtual_rules {", "from 10.9.0.0/16 table 77 priority 100 sup_group 5", "}")
    with kind(lan.one, configuration(block(*rules))) as daemon:
        becomes(daemon, "MASTER")
        rule = poll(lambda: lan.one.ip_json("rule", "show", "table", "77"), daemon.said)[0]
        assert rule["sup_group" if "sup_group" in rule else "suppress_ifgroup"] in (5, "5")


def test_one_that_is_meant_to_have_no_address(lan: Lan) -> None:
    """keepalived 2.2.7 does not know the word."""
    text = configuration(block("no_virtual_ipaddress").replace(f"virtual_ipaddress {{\n{VIP}/24\n}}\n", ""))
    assert VIP not in text
    with Kad(lan.one, text) as kad:
        becomes(kad, "MASTER")
        assert poll(lambda: lan.adverts("192.0.2.1"), kad.said)[0].addresses == ()


@BOTH
def test_native_ipv6_is_no_more_than_its_addresses_say(lan: Lan, kind: type[Daemon]) -> None:
    with kind(lan.one, configuration(block("native_ipv6", addresses=["fe80::51/64"]))) as daemon:
        becomes(daemon, "MASTER")
        said = poll(lambda: lan.wire.adverts(vrid=51), daemon.said)[0]
        assert (said.version, said.destination, said.addresses) == (3, "ff02::12", ("fe80::51",))


@BOTH
@pytest.mark.parametrize("word", ["preempt", "nopreempt", ""])
def test_preempting_is_the_default(lan: Lan, kind: type[Daemon], word: str) -> None:
    words = (word,) if word else ()
    lower = advert(source="192.0.2.2", vip=VIP, priority=50, interval_us=200_000)
    with (
        Sender(lan.two, [("eth0", lower)], 10),
        kind(lan.one, configuration(block(*words))) as daemon,
    ):
        becomes(daemon, "BACKUP")
        if word == "nopreempt":
            heard = len(lan.adverts("192.0.2.2"))
            poll(lambda: len(lan.adverts("192.0.2.2")) > heard + 15, "adverts of lower priority")
        else:
            becomes(daemon, "MASTER")
        assert bool(daemon.count("Entering MASTER")) is (word != "nopreempt")
