"""What only the whole configuration tells: sync groups, clashing virtual routers, script security."""

import pytest

from kad.config.diagnostics import render
from kad.config.load import Loaded
from kad.config.model.routing import Encapsulation, NextHop, Route, Rule, RuleAction
from kad.config.model.vrrp import TrackedItem, TrackGroup, VrrpInstance
from kad.notify.runner import program_and_argv
from tests.support.configuration import SECURE, assert_as_annotated, read


def router(name: str, body: str = "", *, vrid: str = "virtual_router_id 51", vip: str = "10.0.0.1") -> str:
    return f"vrrp_instance {name} {{\ninterface eth0\n{vrid}\n{body}\nvirtual_ipaddress {{\n{vip}\n}}\n}}\n"


def test_members_know_their_group() -> None:
    text = (
        router("A", vrid="virtual_router_id 1")
        + router("B", vrid="virtual_router_id 2")
        + "vrrp_sync_group G {\ngroup {\nA\nB\n}\nnotify_master /etc/up.sh\n}\n"
    )
    vrrp = assert_as_annotated(text).config.vrrp
    assert [each.sync_group for each in vrrp.instances] == ["G", "G"]
    (group,) = vrrp.sync_groups
    assert group.members == ("A", "B")
    assert group.notify.master is not None and group.notify.master.argv == ("/etc/up.sh",)


def test_members_must_exist_and_have_one_group() -> None:
    text = (
        router("A", vrid="virtual_router_id 1")
        + router("B", vrid="virtual_router_id 2")
        + "vrrp_sync_group G {\ngroup {\nA\nB\n}\n}\n"
        + "vrrp_sync_group H {\ngroup { # no-members\nA # group-member\nnobody # group-member\n}\n}\n"
        + "vrrp_sync_group I {\n} # no-members\n"
        + "vrrp_sync_group G { # duplicate-name\n}\n"
    )
    assert [each.name for each in assert_as_annotated(text).config.vrrp.sync_groups] == ["G"]


def test_members_follow_nothing_by_weight_unless_the_group_allows_it() -> None:
    body = "track_interface {\neth1 weight 10{}\n}"
    groups = "vrrp_sync_group G {{\ngroup {{ # one-member\nA\n}}\n{}\n}}\n"
    text = router("A", body.replace("{}", " # weight")) + groups.format("")
    (instance,) = assert_as_annotated(text).config.vrrp.instances
    assert instance.tracking.interfaces == (TrackedItem("eth1", 0),)
    text = router("A", body.replace("{}", "")) + groups.format("sync_group_tracking_weight")
    (instance,) = assert_as_annotated(text).config.vrrp.instances
    assert instance.tracking.interfaces == (TrackedItem("eth1", 10),)


CLASH = "virtual_router_id 51 # vrid-clash"


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("", "", True),
        ("", "mcast_dst_ip 224.0.0.99", False),
        ("unicast_peer {\n10.0.0.2\n}", "", False),
        ("unicast_peer {\n10.0.0.2\n}", "unicast_peer {\n10.0.0.2\n}", True),
        ("unicast_peer {\n10.0.0.2\n}", "unicast_peer {\n10.0.0.3\n}", False),
    ],
)
def test_two_routers_of_one_number_on_one_link_cannot_be_run(one: str, other: str, clash: bool) -> None:
    vrid = CLASH if clash else "virtual_router_id 51"
    loaded = assert_as_annotated(router("A", one) + router("B", other, vrid=vrid))
    assert loaded.runnable is not clash


def test_the_same_number_in_another_family_or_on_another_interface_is_another_router() -> None:
    other = router("B").replace("eth0", "eth1")
    assert_as_annotated(router("A") + other + router("C", vip="fe80::1"))


def test_scripts_without_script_security_are_told_once() -> None:
    text = router("A", "notify_master /etc/up.sh\nnotify_backup /etc/down.sh")
    loaded = read(text, "script_user root")
    assert [(each.code, each.exit_status) for each in loaded.diagnostics] == [("script-security", 6)]
    assert place_of_security(loaded) == "notify_master /etc/up.sh"
    assert loaded.exit_status == 6
    assert assert_as_annotated(text).exit_status == 0


def place_of_security(loaded: Loaded) -> str:
    """The line that the complaint about script security points to: of the first script, or what is worse."""
    (warning,) = [each for each in loaded.diagnostics if each.code == "script-security"]
    assert warning.span is not None
    return warning.source_line


def test_the_complaint_about_script_security_points_to_the_script_that_others_may_change() -> None:
    text = router("A", "notify_master /etc/up.sh\nnotify_backup /etc/open.sh")
    assert place_of_security(read(text, "script_user root")) == "notify_backup /etc/open.sh"
    tracked = "vrrp_script x {\nscript /etc/x.sh\n}\n" + router("A")
    assert place_of_security(read(tracked, "script_user root")) == "script /etc/x.sh"
    line = "shutdown_script /etc/down.sh"
    assert place_of_security(read(router("A"), f"script_user root\n{line}")) == line
    assert place_of_security(read(router("A"), f"{line.replace('shutdown', 'notify_fifo')}")) == (
        "notify_fifo_script /etc/down.sh"
    )


ADDRESSES = """\
virtual_ipaddress {
10.0.1.9/24
10.0.1.9 # repeated
}
virtual_ipaddress_excluded {
10.0.1.9 # repeated
10.0.1.9 dev eth1
10.0.1.11
10.0.1.11 dev eth1
10.0.1.12 dev eth1
10.0.1.13
}
virtual_ipaddress {
10.0.1.9 dev eth1 # repeated
10.0.1.10
10.0.1.11 dev eth1 # repeated
10.0.1.12
10.0.1.13 # repeated
}
"""


def test_an_address_stands_once_in_all_blocks_of_an_instance() -> None:
    """As keepalived 2.4.3 has it, to the line; 2.2.7 lets repeated ones pass."""
    text = f"vrrp_instance A {{\ninterface eth0\nvirtual_router_id 5\n{ADDRESSES}}}"
    (instance,) = assert_as_annotated(text).config.vrrp.instances
    assert [each.address[-2:] for each in instance.virtual_addresses] == [".9", "10", "12"]
    assert [each.address[-2:] for each in instance.excluded_addresses] == [".9", "11", "11", "12", "13"]


def test_an_insecure_script_runs_only_without_script_security() -> None:
    text = router("A", "notify_master /etc/open.sh{}")
    loaded = read(text.replace("{}", ""), "script_user root")
    (finding,) = loaded.diagnostics
    assert "other" in finding.message
    assert loaded.config.vrrp.instances[0].notify.master is not None
    loaded = assert_as_annotated(text.replace("{}", " # script-unusable/0"))
    assert loaded.config.vrrp.instances[0].notify.master is None


def test_a_disabled_script_is_not_followed() -> None:
    text = (
        "vrrp_script gone {\nscript /bin/absent # script-unusable\n}\n"
        "vrrp_script chk {\nscript /bin/chk\n}\n" + router("A", "track_script {\ngone\nchk\n}")
    )
    vrrp = assert_as_annotated(text).config.vrrp
    assert [each.name for each in vrrp.scripts] == ["chk"]
    assert [each.name for each in vrrp.instances[0].tracking.scripts] == ["chk"]


def test_without_interfaces_keepalived_never_gets_to_the_scripts() -> None:
    text = router("A", "notify_master /etc/up.sh").replace("eth0", "absent0 # no-interface")
    loaded = read(text, "script_user root")
    assert loaded.exit_status == 5


def test_a_redirection_is_no_script() -> None:
    text = 'vrrp_script file {\nscript "</var/run/ok"\n}\n' + router("A", "track_script {\nfile\n}")
    loaded = read(text, "script_user root")
    assert loaded.exit_status == 0
    (file,) = loaded.config.vrrp.scripts
    assert file.command.through_shell
    assert program_and_argv(file.command) == ("/bin/sh", ("sh", "-c", "</var/run/ok"))


def test_members_of_a_track_group_that_do_not_exist_are_told_and_left_out() -> None:
    text = """
track_group G {
    group {
        A
        B C # group-member/0
    }
}
track_group H {
    group {
        D # group-member/0
    }
}
"""
    vrrp = assert_as_annotated(router("A") + text + router("C", vrid="virtual_router_id 7")).config.vrrp
    assert vrrp.track_groups == (TrackGroup("G", ("A", "C")),)


def test_who_follows_an_interface_it_cannot_do_without_is_told_that_the_weight_does_not_count() -> None:
    followed = "track_interface {{\neth1 weight 3{}\neth2 weight 4\n}}\n"
    excluded = "virtual_ipaddress_excluded {{\n10.1.0.1 dev eth1{}\n}}"
    told = assert_as_annotated(router("A", followed.format(" # weight/0") + excluded.format("")))
    assert told.config.vrrp.instances[0].tracking.interfaces == (
        TrackedItem("eth1", 3),
        TrackedItem("eth2", 4),
    )
    assert_as_annotated(router("A", followed.format("") + excluded.format(" no_track")))


STATIC = """
track_group G {
    group {
        A
    }
}
static_ipaddress {
    10.9.9.9/24 dev eth1 track_group G
    10.9.9.10 dev eth1 track_group H # not-defined
    10.9.9.11
}
static_routes {
    10.0.0.0/8 via 192.0.2.1 dev eth1 metric 5 track_group G
    default via 2001:db8::1 dev eth1
    blackhole 10.1.0.0/16
    10.0.0.0/8 gw 192.0.2.1 # deprecated
    10.0.0.0/8 via 2001:db8::1 # mixed-families
    10.0.0.0/8 via nowhere # bad-address
    10.0.0.0/8 metric x # bad-value
    10.0.0.0/8 rtt lock 5ms hoplimit 300 # bad-value
    via 192.0.2.1 # missing-value
    link 10.0.0.0/8 # unknown-option
    10.3.0.0/16 nexthop via 192.0.2.1 weight 2 nexthop via 192.0.2.2
    10.4.0.0/16 encap mpls 100/200 dev eth1
}
static_rules {
    from 10.0.0.0/8 table 100 preference 50
    to 10.0.0.0/8 lookup main # no-preference
    from 10.0.0.0/8 preference 5 # bad-rule
    from 10.0.0.0/8 table 1 blackhole preference 5 # bad-rule
    goto 50 preference 60 # bad-rule
    from 10.0.0.0/8 to 2001:db8::/32 table 1 preference 3 # mixed-families
    from 10.0.0.0/8 tabel 1 # unknown-option
    iif eth0 fwmark 0x1/0xff prohibit preference 0x10
}
"""


def test_static_items_are_checked_and_kept() -> None:
    vrrp = assert_as_annotated(router("A") + STATIC).config.vrrp
    assert [each.track_group for each in vrrp.static_addresses] == ["G", "", ""]
    first, second, third, _, nexthops, labels = vrrp.static_routes
    assert first == Route(4, "10.0.0.0", 8, gateway="192.0.2.1", interface="eth1", metric=5, track_group="G")
    assert (second.family, second.destination, second.prefix_length) == (6, "::", 0)
    assert third == Route(4, "10.1.0.0", 16, kind=6)
    assert nexthops.next_hops == (NextHop("192.0.2.1", weight=2), NextHop("192.0.2.2"))
    assert labels.encapsulation == Encapsulation("mpls", labels=(100, 200))
    assert vrrp.static_rules == (
        Rule(4, 50, table=100, source="10.0.0.0", source_length=8),
        Rule(4, 16384, table=254, destination="10.0.0.0", destination_length=8),
        Rule(4, 16, RuleAction.PROHIBIT, input_interface="eth0", mark=1, mark_mask=255),
    )


def test_pacing_groups_and_polled_links() -> None:
    vrrp = assert_as_annotated(
        """
garp_group {
    garp_interval 0.01
    interfaces {
        eth0
        eth1 eth2
    }
}
garp_group {
    gna_interval 0.02
    interface eth1 # repeated
}
garp_group { # no-interval
    interface eth3
}
linkbeat_interfaces {
    eth0 MII
    eth1
    eth2 magic # bad-choice
    absent1 # no-interface/4
}
"""
    ).config.vrrp
    assert [each.interfaces for each in vrrp.garp_groups] == [("eth0", "eth1", "eth2"), ()]
    assert [each.method for each in vrrp.linkbeat_interfaces] == ["MII", "", "", ""]


TRACKERS = """
vrrp_script a {
    script "/bin/chk -x 'y z'"
    interval 0.5
    timeout 0 # zero
    weight -10 reverse
    rise 2
    fall x # bad-number
    user alice staff
    init_fail
}
vrrp_script b {
} # missing-value
track_file f {
    file /tmp/value
    weight 300 # bad-number
    init_file 5 overwrite
}
track_file g {
} # missing-value
vrrp_track_process p {
    process /usr/sbin/haproxy -f x
    quorum 2
    quorum_max 1 # quorum
    delay 1.5
}
vrrp_track_process q {
} # missing-value
"""


def test_trackers() -> None:
    text = TRACKERS + router("A", "track_script {\na\n}")
    vrrp = assert_as_annotated(text).config.vrrp
    (script,) = vrrp.scripts
    assert script.command.argv == ("/bin/chk", "-x", "y z")
    assert (script.interval_us, script.timeout_us, script.weight, script.reverse) == (
        500_000,
        1_000_000,
        -10,
        True,
    )
    assert (script.rise, script.fall, script.init_fail) == (2, 1, True)
    assert (script.command.uid, script.command.gid) == (1000, 50)
    (file,) = vrrp.files
    assert (file.path, file.weight, file.initial_value, file.overwrite) == ("/tmp/value", 1, 5, True)
    (process,) = vrrp.processes
    assert (process.parameters, process.param_match, process.quorum) == (("-f", "x"), "exact", 2)
    assert process.fork_delay_us == process.terminate_delay_us == 1_500_000


def test_an_instance_without_a_network_finding_is_decoded_alike() -> None:
    found: VrrpInstance = read(router("A"), SECURE).config.vrrp.instances[0]
    assert found.is_owner is False


def test_scripts_of_start_and_stop_count_for_script_security_whatever_else_is_wrong() -> None:
    text = router("A", "priority 300")
    loaded = read(text, "script_user root\nshutdown_script /etc/open.sh")
    (warning,) = [each for each in loaded.diagnostics if each.code == "script-security"]
    assert (warning.exit_status, loaded.exit_status) == (6, 6)
    assert "others may write to it" in warning.message, "it says what is wrong with which"
    assert read(text, f"{SECURE}\nshutdown_script /etc/down.sh").exit_status == 5
    assert read("", "script_user root\nlvs_notify_fifo_script /etc/up.sh").exit_status == 0


@pytest.mark.parametrize("keyword", ["startup_script", "notify_fifo_script", "lvs_notify_fifo_script"])
def test_a_lost_script_of_the_daemon_is_told_at_its_line(keyword: str) -> None:
    text = f"global_defs {{\n{keyword} /bin/absent # script-unusable/0\n}}"
    assert assert_as_annotated(text).config.globals.startup_script is None


def test_an_address_without_interface_says_what_it_wants() -> None:
    text = "vrrp_instance A {\nvirtual_router_id 5\nunicast_src_ip 10.0.0.9\nunicast_peer {\n10.0.0.8\n}\n"
    loaded = read(text + "virtual_ipaddress {\n10.0.0.1\n}\n}")
    assert [each.remedy for each in loaded.diagnostics if each.code == "no-interface-given"] == [
        "interface NAME in the instance, or dev NAME after the address"
    ]


def test_what_is_found_at_the_end_of_a_block_shows_its_brace() -> None:
    loaded = read("virtual_server 10.0.0.1 80 {\nlb_algo rr\nreal_server 10.0.0.2 80 {\n}\n  }")
    shown = [render(each).splitlines() for each in loaded.diagnostics if each.span and each.span.line == 5]
    assert shown
    for _, line, caret, *_ in shown:
        assert line.partition("|")[2] == "   }"
        assert caret.partition("|")[2] == "   ^"
