"""Numbers, decimals and truth values by keepalived's rules."""

import pytest

from tests.support.configuration import SECURE, assert_as_annotated, read


def child_wait(text: str) -> int:
    return assert_as_annotated(f"child_wait_time {text}").config.globals.child_wait_us


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        ("007", 7),
        ("000000000000000000000000000007", 7),
        ("000000000000000000004294967296 # bad-number", 5),
        ("+7", 7),
        ("0", 0),
        ("4294967295", 4294967295),
        ("4294967296 # bad-number", 5),
        ("-1 # bad-number", 5),
        ("0x10 # number-tail", 0),
        ("7s # number-tail", 7),
        ("seven # bad-number", 5),
        ("99999999999999999999999 # bad-number", 5),
        ("\u0667 # bad-number", 5),
    ],
)
def test_whole_numbers(text: str, seconds: int) -> None:
    assert child_wait(text) == seconds * 1_000_000


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("1", 1_000_000),
        ("1.5", 1_500_000),
        (".5", 500_000),
        ("+1", 1_000_000),
        ("00000000000000000000000001.5", 1_500_000),
        ("00000000000000000000000000002", 2_000_000),
        ("+ # bad-number", 0),
        ("5.", 5_000_000),
        ("0.000001 # bad-number", 0),
        ("0.0015", 1_500),
        ("1.0000004 # too-precise", 1_000_000),
        ("1.0000005 # too-precise", 1_000_001),
        ("1.00000049 # too-precise", 1_000_000),
        ("4294.967295", 4_294_967_295),
        ("4294.967296 # bad-number", 0),
        ("-1 # bad-number", 0),
        ("1e3 # number-tail", 1_000_000),
        (". # bad-number", 0),
        ("x # bad-number", 0),
    ],
)
def test_decimals_round_by_the_first_digit_dropped(text: str, microseconds: int) -> None:
    loaded = assert_as_annotated(f"global_defs {{\nvrrp_startup_delay {text}\n}}")
    assert loaded.config.vrrp.settings.startup_delay_us == microseconds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", True),
        ("on", True),
        ("true", True),
        ("yes", True),
        ("off", False),
        ("false", False),
        ("no", False),
        ("ON # bad-boolean", False),
        ("1 # bad-boolean", False),
    ],
)
def test_truth_values_are_lower_case(text: str, value: bool) -> None:
    loaded = assert_as_annotated(f"global_defs {{\ndata_use_instance {text}\n}}")
    assert loaded.config.globals.data_use_instance is value


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("022", 0o022),
        ("0x3f", 0o77),
        ("63", 0o77),
        ("IRWXG|IRWXO", 0o077),
        ("IWGRP | IWOTH", 0o022),
        ("01000 # bad-umask", None),
        ("IRWXQ # bad-umask", None),
        ("09 # bad-umask", None),
        ("0_7 # bad-umask", None),
        ("² # bad-umask", None),
    ],
)
def test_a_file_mask_in_any_notation(text: str, mask: int | None) -> None:
    assert assert_as_annotated(f"global_defs {{\numask {text}\n}}").config.globals.umask == mask


@pytest.mark.parametrize(
    ("words", "checks"),
    [
        ("", ("brace_match", "match", "read", "wildcard_match")),
        ('"" # bad-choice', ()),
        ("+match", ("match",)),
    ],
)
def test_include_checks(words: str, checks: tuple[str, ...]) -> None:
    assert (
        assert_as_annotated(f"global_defs {{\ninclude_check {words}\n}}").config.globals.include_check
        == checks
    )


def test_globals_land_in_their_structs() -> None:
    loaded = assert_as_annotated(
        """
instance main
use_pid_dir
global_defs {
    router_id node-1
    notification_email {
        root@example.org
        "Some Body <some@body.org>"
    }
    notification_email_from kad@example.org
    smtp_server 192.0.2.25 2525
    smtp_connect_timeout 0 # too-small
    process_name a-name-far-too-long # truncated
    vrrp_rt_priority 120 # clamped
    vrrp_cpu_affinity 0
    lvs_timeouts tcp 900 udp 300
    lvs_sync_daemon eth1 inst VI_1 id 5 group 224.0.0.82
    lvs_flush_onstop VS # deprecated/0
    vrrp_rx_bufs_policy ADVERT MTU # conflict
    nftables
    snmp_socket unix:/run/agentx
    enable_snmp_rfc
    max_auto_priority
    include_check read +match
}
vrrp_instance VI_1 {
    interface eth0
    virtual_router_id 51
    virtual_ipaddress {
        10.0.0.1
    }
}
"""
    )
    globals_ = loaded.config.globals
    assert (globals_.instance, globals_.use_pid_dir, globals_.router_id) == ("main", True, "node-1")
    assert globals_.mail.recipients == ("root@example.org", "Some Body <some@body.org>")
    assert globals_.mail.server is not None
    assert (globals_.mail.server.host, globals_.mail.server.port) == ("192.0.2.25", 2525)
    assert globals_.mail.connect_timeout_us == 1_000_000
    assert globals_.process_name == "a-name-far-too-"
    assert (globals_.vrrp.realtime_priority, globals_.vrrp.cpu_affinity) == (99, (0,))
    assert (globals_.lvs_timeouts.tcp, globals_.lvs_timeouts.udp) == (900, 300)
    daemon = globals_.lvs_sync_daemon
    assert daemon is not None
    assert (daemon.interface, daemon.instance, daemon.sync_id, daemon.group) == (
        "eth1",
        "VI_1",
        5,
        "224.0.0.82",
    )
    assert globals_.lvs_flush_on_stop == "VS"
    assert loaded.config.vrrp.settings.rx_bufs_policy == "MTU"
    assert globals_.firewall.nftables == "keepalived"
    assert globals_.snmp.rfc2 and globals_.snmp.rfc3 and globals_.snmp.socket == "unix:/run/agentx"
    assert globals_.maximum_automatic_priority == 99
    assert globals_.include_check == ("match", "read")


INSTANCE = "vrrp_instance VI_1 {\ninterface eth0\nvirtual_router_id 51\nvirtual_ipaddress {\n10.0.0.1\n}\n}\n"


def test_the_old_form_of_the_synchronisation_daemon() -> None:
    loaded = assert_as_annotated("global_defs {\nlvs_sync_daemon eth1 VI_1 7 # deprecated\n}\n" + INSTANCE)
    daemon = loaded.config.globals.lvs_sync_daemon
    assert daemon is not None and (daemon.instance, daemon.sync_id) == ("VI_1", 7)


def test_script_user_must_exist() -> None:
    assert_as_annotated("", SECURE)
    loaded = assert_as_annotated(
        "vrrp_script chk { # \nscript /bin/true\n} # script-user\n"
        "global_defs {\nscript_user nobody-here # bad-script-user\n}",
        "",
    )
    assert loaded.config.vrrp.scripts == ()
    assert loaded.error_identities == ()


def test_what_this_machine_lacks_is_no_error_of_the_text_where_it_is_followed_either() -> None:
    """A reload is refused for the text's errors only: a user that was removed must not refuse it."""
    text = """\
vrrp_script chk {
script /bin/true
user nobody-here # script-user
}
track_file file {
file /absent/number
} # no-directory
vrrp_instance V {
interface eth0
virtual_router_id 51
track_script {
chk # not-defined
}
track_file {
file # not-defined
}
virtual_ipaddress {
10.0.0.1
}
}
virtual_server 10.0.0.9 80 {
lvs_sched rr
lvs_method NAT
protocol TCP
real_server 10.0.0.8 80 {
FILE_CHECK {
track_file file # not-defined
} # no-file
}
}
"""
    loaded = assert_as_annotated(text)
    assert loaded.error_identities == ()
    assert [each.name for each in loaded.config.vrrp.instances] == ["V"]
    assert read(text.replace("track_file file {", "track_file other {"), SECURE).error_identities != ()


def test_the_script_user_holds_for_scripts_below_it() -> None:
    """As with keepalived: a script that stands above runs as whoever it would have run as without."""
    text = "startup_script /bin/start\nscript_user alice\nenable_script_security\nshutdown_script /bin/stop"
    globals_ = assert_as_annotated("global_defs {\n}", text).config.globals
    assert globals_.startup_script is not None and globals_.shutdown_script is not None
    assert (globals_.startup_script.uid, globals_.shutdown_script.uid) == (0, 1000)


def test_a_nul_written_as_an_escape_never_reaches_a_command() -> None:
    """No argument of a program can hold one: the word ends there."""
    text = 'startup_script "/bin/start a\\000b \\x00 c"\n' + SECURE
    command = assert_as_annotated("global_defs {\n}", text).config.globals.startup_script
    assert command is not None
    assert command.argv == ("/bin/start", "a", "", "c")


@pytest.mark.parametrize(
    "line",
    [
        "interface eth0 eth1 # extra-words/0",
        "priority 100 seconds # extra-words/0",
        "advert_int 1 s # extra-words/0",
        "nopreempt for-ever # extra-words/0",
        "nopreempt on",
        "nopreempt 1",
        "nopreempt off # flag-value/0",
        "smtp_alert on then off # extra-words/0",
        "advert_int many words # bad-number",
    ],
)
def test_words_that_mean_nothing_are_told(line: str) -> None:
    """With keepalived's status: it passes over them without a word."""
    interface = "" if line.startswith("interface") else "interface eth0\n"
    text = (
        f"vrrp_instance V {{\n{interface}virtual_router_id 1\n{line}\nvirtual_ipaddress {{\n10.0.0.1\n}}\n}}"
    )
    assert_as_annotated(text)


WORDS_AFTER = """\
vrrp_script S {
script /bin/true verbose # extra-words/0
}
vrrp_script T {
script '/bin/true verbose'
}
linkbeat_interfaces {
eth0 MII twice # bad-choice
}
virtual_server_group G {
10.0.0.1 80 81 # extra-words/0
fwmark 3 inet inet6 # extra-words/0
}
vrrp_instance V {
interface eth0
virtual_router_id 1
authentication {
auth_type PASS
auth_pass my secret # extra-words/0
}
virtual_ipaddress {
10.0.0.1
}
notify /bin/true root root admin # extra-words/0
}
"""


def test_words_after_a_command_a_password_or_an_entry_are_told() -> None:
    """keepalived says nothing of most of them; and no part of a password is repeated."""
    loaded = assert_as_annotated(WORDS_AFTER)
    assert [each.command.argv for each in loaded.config.vrrp.scripts] == [
        ("/bin/true",),
        ("/bin/true", "verbose"),
    ]
    assert not any("secret" in each.message for each in loaded.diagnostics)
