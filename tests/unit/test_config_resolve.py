"""vrrp_instance: what it inherits, what its keywords mean together, and what is said about it."""

import pytest

from kad.config.model.vrrp import (
    AuthType,
    GarpSettings,
    TrackedItem,
    UnicastPeer,
    VirtualAddress,
    VrrpInstance,
    WantedState,
)
from tests.support.configuration import SECURE, assert_as_annotated, read


def instance(
    body: str = "", *, note: str = "", vips: str = "10.0.0.100", end: str = "", before: str = ""
) -> str:
    """A vrrp_instance that has all it needs, and more lines."""
    addresses = f"virtual_ipaddress {{\n{vips}\n}}\n" if vips else ""
    needed = "interface eth0\nvirtual_router_id 51"
    return f"{before}\nvrrp_instance VI_1 {{{note}\n{needed}\n{body}\n{addresses}}}{end}\n"


def only(text: str, global_defs: str = "") -> VrrpInstance:
    (found,) = assert_as_annotated(text, f"{SECURE}\n{global_defs}").config.vrrp.instances
    return found


def test_an_instance_as_tutorials_show_it_is_read_without_a_word() -> None:
    found = only(
        """
vrrp_instance VI_1 {
    state MASTER
    interface eth0
    virtual_router_id 51
    priority 101
    advert_int 1
    authentication {
        auth_type PASS
        auth_pass 1111
    }
    virtual_ipaddress {
        192.168.200.16
        192.168.200.17/24 dev eth1
    }
}
"""
    )
    assert found == VrrpInstance(
        name="VI_1",
        virtual_router_id=51,
        interface="eth0",
        wanted_state=WantedState.MASTER,
        priority=101,
        auth_type=AuthType.PASS,
        auth_pass=b"1111",
        virtual_addresses=(
            VirtualAddress("192.168.200.16", 32),
            VirtualAddress("192.168.200.17", 24, interface="eth1"),
        ),
    )


@pytest.mark.parametrize(
    ("body", "state", "priority"),
    [
        ("", WantedState.BACKUP, 100),
        ("state MASTER", WantedState.MASTER, 255),
        ("state MASTER\npriority 100", WantedState.MASTER, 100),
        ("priority 255", WantedState.MASTER, 255),
        ("state BACKUP\npriority 255", WantedState.BACKUP, 255),
        ("state MASTER\nstate BACKUP # repeated", WantedState.MASTER, 255),
        ("state SLAVE # bad-choice", WantedState.BACKUP, 100),
        ("state MASTER\npriority 300 # bad-number", WantedState.MASTER, 100),
    ],
)
def test_state_and_priority_follow_from_each_other(body: str, state: WantedState, priority: int) -> None:
    found = only(instance(body))
    assert (found.wanted_state, found.priority) == (state, priority)


@pytest.mark.parametrize(
    ("body", "interval"),
    [
        ("advert_int 3", 3_000_000),
        ("advert_int 0.4 # advert-interval", 1_000_000),
        ("advert_int 1.5 # advert-interval", 2_000_000),
        ("version 3\nadvert_int 0.4", 400_000),
        ("version 3\nadvert_int 0.014 # advert-interval", 10_000),
        ("version 3\nadvert_int 0.015 # advert-interval", 20_000),
        ("version 3\nadvert_int 40.96 # advert-interval", 40_950_000),
        ("version 3\nadvert_int 40.954999 # advert-interval", 40_950_000),
        ("advert_int 0.001 # bad-number", 1_000_000),
        ("advert_int 256 # bad-number", 1_000_000),
        ("advert_int 1s # number-tail", 1_000_000),
    ],
)
def test_the_interval_is_what_the_version_can_say(body: str, interval: int) -> None:
    assert only(instance(body)).advert_int_us == interval


@pytest.mark.parametrize(
    ("body", "vips", "expected"),
    [
        ("", "10.0.0.100", (4, 2, "224.0.0.18")),
        ("", "fe80::1/64", (6, 3, "ff02::12")),
        ("", "febf::1/64", (6, 3, "ff02::12")),
        ("version 3", "10.0.0.100", (4, 3, "224.0.0.18")),
        ("mcast_src_ip 10.0.0.1", "10.0.0.100\nfe80::1 # mixed-families", (4, 2, "224.0.0.18")),
        ("native_ipv6 # deprecated/0", "fe80::1", (6, 3, "ff02::12")),
        ("mcast_dst_ip 224.0.0.99", "10.0.0.100", (4, 2, "224.0.0.99")),
        ("mcast_dst_ip 10.0.0.99 # bad-address", "10.0.0.100", (4, 2, "224.0.0.18")),
        ("mcast_dst_ip ff05::1 # bad-address", "fe80::1", (6, 3, "ff02::12")),
        ("mcast_dst_ip ff12::12", "fe80::1", (6, 3, "ff12::12")),
    ],
)
def test_addresses_decide_family_version_and_group(
    body: str, vips: str, expected: tuple[int, int, str]
) -> None:
    found = only(instance(body, vips=vips))
    assert (found.family, found.version, found.multicast_group) == expected


def test_globals_are_what_instances_start_from() -> None:
    found = only(
        instance("garp_master_repeat 2\nlower_prio_no_advert off"),
        """
vrrp_version 3
vrrp_mcast_group4 224.0.0.77
vrrp_garp_master_delay 10
vrrp_garp_master_repeat 7
vrrp_garp_interval 0.001
vrrp_down_timer_adverts 5
vrrp_lower_prio_no_advert
vrrp_skip_check_adv_addr
v3_checksum_as_v2
vrrp_check_unicast_src
""",
    )
    assert (found.version, found.multicast_group, found.down_timer_adverts) == (3, "224.0.0.77", 5)
    assert found.garp == GarpSettings(
        master_delay_us=10_000_000,
        master_repeat=2,
        lower_prio_delay_us=10_000_000,
        lower_prio_repeat=7,
        interval_us=1000,
    )
    assert not found.lower_prio_no_advert
    assert found.skip_check_adv_addr and found.v3_checksum_as_v2 and found.check_unicast_src


def test_minimal_announcements_yield_to_what_is_said() -> None:
    found = only(instance(), "vrrp_min_garp\nvrrp_garp_master_repeat 3")
    assert found.garp == GarpSettings(
        master_delay_us=0, master_repeat=3, lower_prio_delay_us=0, lower_prio_repeat=3
    )


def test_strict_mode_has_its_own_values() -> None:
    found = only(
        instance(
            """
version 3
state MASTER # strict-state
priority 100
preempt_delay 5 # preempt-delay
down_timer_adverts 5 # strict
garp_lower_prio_repeat 3 # strict
garp_lower_prio_delay 3 # strict
lower_prio_no_advert off # strict
higher_prio_send_advert # strict
"""
        ),
        "vrrp_strict",
    )
    assert found.strict_mode and found.wanted_state is WantedState.BACKUP
    assert (found.preempt_delay_us, found.down_timer_adverts) == (0, 3)
    assert (found.garp.lower_prio_repeat, found.garp.lower_prio_delay_us) == (0, 0)
    assert found.lower_prio_no_advert and not found.higher_prio_send_advert
    assert not found.accept and found.no_accept


def test_an_instance_may_leave_strict_mode() -> None:
    found = only(instance("strict_mode off\nauthentication {\nauth_type PASS\nauth_pass x\n}"), "vrrp_strict")
    assert not found.strict_mode and found.auth_type is AuthType.PASS and found.accept


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("authentication {\nauth_type PASS\nauth_pass secret\n}", AuthType.PASS),
        ("authentication {\nauth_type PASS # no-authentication\n}", AuthType.NONE),
        ("version 3\nauthentication {\nauth_type PASS # no-authentication\nauth_pass s\n}", AuthType.NONE),
        ("authentication {\nauth_type pass # bad-choice\nauth_pass secret\n}", AuthType.NONE),
        ("authentication {\nauth_type PASS\nauth_pass 123456789 # truncated\n}", AuthType.PASS),
        ("state MASTER # ah-master\npriority 9\nauthentication {\nauth_type AH\nauth_pass s\n}", AuthType.AH),
    ],
)
def test_authentication_needs_version_2_and_a_password(body: str, kept: AuthType) -> None:
    found = only(instance(body))
    assert found.auth_type is kept
    assert len(found.auth_pass) <= 8


@pytest.mark.parametrize(
    ("body", "nopreempt", "delay"),
    [
        ("nopreempt", True, 0),
        ("nopreempt\npreempt", False, 0),
        ("state MASTER\nnopreempt # nopreempt\npriority 100", False, 0),
        ("nopreempt # nopreempt\npriority 255", False, 0),
        ("preempt_delay 5.5", False, 5_500_000),
        ("nopreempt\npreempt_delay 5 # preempt-delay", True, 0),
        ("state MASTER\npriority 9\npreempt_delay 5 # preempt-delay", False, 0),
        ("preempt_delay 1001 # bad-number", False, 0),
        ("timer_expired_backup # unused", False, 0),
    ],
)
def test_preemption(body: str, nopreempt: bool, delay: int) -> None:
    found = only(instance(body))
    assert (found.nopreempt, found.preempt_delay_us, found.timer_expired_backup) == (nopreempt, delay, 0)


def test_peers_make_it_unicast() -> None:
    found = only(
        instance(
            """
unicast_src_ip 10.0.0.1
unicast_ttl 64
unicast_peer {
10.0.0.2
10.0.0.3 min_ttl 250 max_ttl 255
10.0.0.2 # repeated
fe80::2 # mixed-families
somewhere # bad-address
10.0.0.4 min_ttl # missing-value
10.0.0.5/24 # address-tail/0
}
"""
        )
    )
    assert found.unicast and found.source_address == "10.0.0.1" and found.unicast_ttl == 64
    assert found.unicast_peers == (
        UnicastPeer("10.0.0.2"),
        UnicastPeer("10.0.0.3", 250, 255),
        UnicastPeer("10.0.0.4"),
        UnicastPeer("10.0.0.5"),
    )
    assert found.check_unicast_src


def test_unicast_without_peers_is_multicast_unless_a_fault_is_wanted() -> None:
    assert not only(instance("unicast_src_ip 10.0.0.1", note=" # no-peers")).unicast
    found = only(instance("unicast_src_ip 10.0.0.1\nunicast_fault_no_peer"))
    assert found.unicast and found.unicast_peers == () and found.unicast_fault_no_peer


@pytest.mark.parametrize(
    "text",
    [
        "vrrp_instance A { # no-vrid\ninterface eth0\n}",
        "vrrp_instance A { # no-interface-given\nvirtual_router_id 1\n}",
        "vrrp_instance A { # no-source no-peers\nvirtual_router_id 1\ncheck_unicast_src\n}",
        "vrrp_instance A { # no-address\nvirtual_router_id 1\ninterface eth0\nversion 3\n}",
        "vrrp_instance A { # strict-unicast\nvirtual_router_id 1\ninterface eth0\nstrict_mode\n"
        "unicast_peer {\n10.0.0.2\n}\n}",
    ],
)
def test_what_cannot_be_run_is_fatal(text: str) -> None:
    loaded = read(text)
    assert not loaded.runnable
    assert loaded.config.vrrp.instances == ()
    assert loaded.exit_status == 5


def test_version_2_may_be_without_addresses() -> None:
    assert only(instance(vips="", note=" # no-address")).virtual_addresses == ()
    assert only(instance("version 3\nno_virtual_ipaddress", vips="")).no_virtual_ipaddress


def test_a_missing_interface_is_a_finding_about_the_machine() -> None:
    text = instance().replace("interface eth0", "interface absent0 # no-interface")
    loaded = assert_as_annotated(text)
    assert loaded.runnable and loaded.error_identities == ()
    assert loaded.config.vrrp.instances[0].interface == "absent0"
    assert_as_annotated(text.replace(" # no-interface", ""), f"{SECURE}\ndynamic_interfaces")


SCOPED = ("111", "112", "113", "114", "115")
"""Whose scope is a number, in C's notation as with keepalived."""


def test_addresses_and_their_options() -> None:
    found = only(
        instance(
            vips="""10.0.0.100/24 brd + dev eth0 label eth0:1 scope link no_track
10.0.0.101 peer 10.9.9.9 preferred_lft 10 # ipv6-only/0
10.0.0.102/24 brd -
10.0.0.103/24 broadcast 10.0.0.99
10.0.0.104/31 brd + # bad-prefix
10.0.0.100 # repeated
10.0.0.105/33 # bad-prefix
10.0.0.106 label a-label-that-is-long # too-long
10.0.0.107 dev # missing-value
10.0.0.108 colour red # unknown-option
10.0.0.109 scope here # bad-scope
10.0.0.111 scope 000000000999 # bad-scope
10.0.0.112 scope 09 # bad-scope
10.0.0.113 scope 0xfd
10.0.0.114 scope 0310
10.0.0.115 scope 00000000000000000000000000003
not-an-address # bad-address
10.0.0.110 dev absent0 # no-interface
""",
        )
    )
    by_address = {each.address.removeprefix("10.0.0."): each for each in found.virtual_addresses}
    assert by_address["100"] == VirtualAddress(
        "10.0.0.100", 24, "eth0", scope=253, broadcast="10.0.0.255", label="eth0:1", no_track=True
    )
    assert (by_address["101"].peer, by_address["101"].preferred_lifetime) == ("10.9.9.9", 0xFFFFFFFF)
    assert by_address["102"].broadcast == "10.0.0.0"
    assert by_address["103"].broadcast == "10.0.0.99"
    assert by_address["104"].broadcast == ""
    assert by_address["105"].prefix_length == 32
    assert set(by_address) == {"100", "101", "102", "103", "104", "105", "108", "109", "110", *SCOPED}
    assert [by_address[each].scope for each in SCOPED] == [0, 0, 253, 200, 3]


def test_ipv6_addresses_have_their_own_defaults() -> None:
    found = only(
        instance(
            vips="fe80::1/64\n2001:db8::1\n2001:db8::2/64 -nodad home noprefixroute\n"
            "2001:db8::3 label x # ipv4-only\n2001:db8::4 brd + # broadcast-ipv6\n"
        )
    )
    first, second, third, fourth = found.virtual_addresses
    assert (first.flags, first.preferred_lifetime) == (0x02, 0xFFFFFFFF)
    assert (second.prefix_length, second.preferred_lifetime) == (128, 0)
    assert third.flags == 0x10 | 0x200
    assert fourth.label == ""


def test_what_an_advert_cannot_hold_is_not_advertised() -> None:
    vips = "\n".join(f"10.1.{n // 250}.{n % 250}" for n in range(260))
    text = instance(vips=vips, note=" # too-many-addresses")
    found = only(text)
    assert (len(found.virtual_addresses), len(found.excluded_addresses)) == (255, 5)


def test_an_excluded_address_may_be_of_the_other_family_and_on_another_interface() -> None:
    found = only(
        instance(
            "virtual_ipaddress_excluded {\n2001:db8::1\n10.0.0.100 dev eth1\n10.0.0.9\n10.0.0.9 # repeated\n}"
        )
    )
    assert [each.address for each in found.excluded_addresses] == ["2001:db8::1", "10.0.0.100", "10.0.0.9"]


TRACKERS = """
vrrp_script chk {
    script /bin/chk
    weight 10
}
track_file tf {
    file /tmp/value
    weight 2 reverse
}
"""


def test_tracked_things_have_their_own_weight_or_one_of_the_list() -> None:
    found = only(
        instance(
            """
track_script {
chk
chk # repeated
later # not-defined
}
track_file {
tf weight -3 noreverse
}
track_interface {
eth1 weight 254 # clamped
eth2
eth0 # own-interface
eth3 wait 3 # unknown-option
}
""",
            before=TRACKERS,
        )
    )
    assert found.tracking.scripts == (TrackedItem("chk", 10),)
    assert found.tracking.files == (TrackedItem("tf", -3),)
    assert found.tracking.interfaces == (TrackedItem("eth1", 253), TrackedItem("eth2", 0))


def test_an_owner_follows_nothing_by_weight() -> None:
    found = only(
        instance("priority 255\ntrack_script {\nchk # weight\n}\ntrack_interface {\neth2\n}", before=TRACKERS)
    )
    assert found.tracking.scripts == ()
    assert found.tracking.interfaces == (TrackedItem("eth2", 0),)


def test_a_script_defined_below_its_use_is_not_known() -> None:
    text = instance("track_script {\nchk # not-defined\n}") + TRACKERS
    assert only(text).tracking.scripts == ()


def test_notify_scripts_have_argv_and_identity() -> None:
    found = only(
        instance(
            """
notify_master "/etc/up.sh 'a b' c" alice
notify_master /etc/again.sh # repeated
notify_backup /etc/down.sh
notify_deleted
notify "/etc/any.sh" alice staff
notify_fault /etc/fault.sh nobody-here # script-user/0
notify_stop /etc/absent.sh # script-unusable/0
"""
        )
    )
    notify = found.notify
    assert notify.master is not None and notify.backup is not None and notify.any_state is not None
    assert notify.master.argv == ("/etc/up.sh", "a b", "c")
    assert (notify.master.uid, notify.master.gid) == (1000, 1000)
    assert (notify.backup.uid, notify.any_state.gid) == (0, 50)
    assert found.notify_deleted and notify.deleted is None
    assert notify.fault is None and notify.stop is None


def test_link_debouncing_stays_below_the_master_down_interval() -> None:
    found = only(instance("version 3", note=" # debounce/0") + "interface_up_down_delays {\neth0 5 1\n}\n")
    assert (found.interface_down_delay_us, found.interface_up_delay_us) == (2_000_000 - 3906, 1_000_000)
    found = only(instance() + "interface_up_down_delays {\neth0 0.5\n}\n")
    assert (found.interface_down_delay_us, found.interface_up_delay_us) == (500_000, 0)


@pytest.mark.parametrize(
    ("words", "mac", "name"),
    [
        ("", "00:00:5e:00:01:33", "vrrp.51"),
        ("eth9", "00:00:5e:00:01:33", "eth9"),
        ("name vrrp.51 00:11:22:33:44:55", "00:11:22:33:44:55", "vrrp.51"),
        ("00:11:22:33:44", "00:11:22:33:44:33", "vrrp.51"),
        ("00:00:5e:00:01:05 # bad-mac", "00:00:5e:00:01:33", "vrrp.51"),
        ("01:11:22:33:44:55 # bad-mac", "00:00:5e:00:01:33", "vrrp.51"),
        ("02:-1:00:00:00:01 # bad-mac", "00:00:5e:00:01:33", "vrrp.51"),
        ("02:+1:00:00:00:01 # bad-mac", "00:00:5e:00:01:33", "vrrp.51"),
        ("group 4294967296 # bad-number", "00:00:5e:00:01:33", "vrrp.51"),
        ("a/b # bad-name", "00:00:5e:00:01:33", "vrrp.51"),
    ],
)
def test_a_vmac(words: str, mac: str, name: str) -> None:
    vmac = only(instance(f"use_vmac {words}")).vmac
    assert vmac is not None
    assert (vmac.mac, vmac.name, vmac.ipvlan) == (mac, name, False)


def test_owner_ignores_adverts_only_as_owner() -> None:
    assert not only(instance("owner_ignore_adverts # unused")).owner_ignore_adverts
    assert only(instance("priority 255\nowner_ignore_adverts")).owner_ignore_adverts
    assert only(instance("priority 255"), "vrrp_owner_ignore_adverts").owner_ignore_adverts
    assert not only(instance(), "vrrp_owner_ignore_adverts").owner_ignore_adverts


def test_signed_adverts_need_an_active_key() -> None:
    key = "x" * 32
    found = only(
        instance(f"auth_hmac {{\nkey 1 {key}\nkey 2 hex:{'0a' * 32}\nactive_key 2\nmode permissive\n}}")
    )
    assert found.auth_hmac is not None
    assert [each.key_id for each in found.auth_hmac.keys] == [1, 2]
    assert (found.auth_hmac.active_key, found.auth_hmac.mode) == (2, "permissive")
    assert found.auth_hmac.time_window_us == 5_000_000
    without = instance("auth_hmac {\nkey 1 short # bad-key\nactive_key 1\n}", note=" # no-key")
    assert only(without).auth_hmac is None


def test_an_instance_needs_one_name_that_is_its_own() -> None:
    text = instance() + "vrrp_instance VI_1 { # duplicate-name\n}\nvrrp_instance { # bad-name\n}\n"
    assert only(text).name == "VI_1"


def test_a_source_to_track_must_have_been_configured() -> None:
    body = "vrrp_instance A {\ninterface eth0\nvirtual_router_id 1\nvirtual_ipaddress {\n10.0.0.1\n}\n"
    assert_as_annotated(f"{body}track_src_ip # unused/0\n}}")
    (instance,) = assert_as_annotated(f"{body}track_src_ip\nmcast_src_ip 10.0.0.9\n}}").config.vrrp.instances
    assert instance.track_src_ip
