"""virtual_server, real_server, virtual_server_group, SSL: every rule once, with line and exit status."""

from pathlib import Path

import pytest
from msgspec import msgpack

from kad.config.load import load
from kad.config.model.check import (
    CheckConfiguration,
    Forwarding,
    ForwardingMethod,
    GroupFwmark,
    GroupRange,
    Protocol,
    RealServer,
    SorryServer,
    SslContext,
    TcpCheck,
    TunnelChecksum,
    TunnelType,
    VirtualServer,
)
from kad.errors import Severity
from tests.support.configuration import assert_as_annotated, read


def service(
    body: str = "",
    server: str = "",
    *,
    head: str = "10.0.0.1 80",
    real: str = "10.0.0.2 80",
    head_note: str = "",
    real_note: str = "",
    end_note: str = "",
) -> str:
    """A virtual server that has all it needs, with more lines in it and in its real server.

    The notes are the findings expected at its first line, its real server's and its last.
    """
    return (
        f"virtual_server {head} {{{head_note}\n{body}\nlvs_sched rr\nlvs_method NAT\nprotocol TCP\n"
        f"real_server {real} {{{real_note}\n{server}\n}}\n}}{end_note}\n"
    )


def only_server(text: str) -> VirtualServer:
    (server,) = assert_as_annotated(text).config.check.virtual_servers
    return server


def test_a_service_as_tutorials_show_it_is_read_without_a_word() -> None:
    server = only_server(
        """
virtual_server 10.0.0.1 80 {
    delay_loop 6
    lb_algo wrr
    lb_kind DR
    persistence_timeout 50
    persistence_granularity 255.255.255.0
    protocol TCP
    virtualhost www.example.org
    quorum 2
    hysteresis 1
    sorry_server 10.0.0.9 80
    real_server 10.0.0.2 80 {
        weight 3
    }
    real_server 10.0.0.3 80 {
        inhibit_on_failure
        uthreshold 100
        lthreshold 50
    }
}
"""
    )
    direct = Forwarding(ForwardingMethod.DIRECT_ROUTE)
    assert server == VirtualServer(
        address="10.0.0.1",
        port=80,
        family=4,
        protocol=Protocol.TCP,
        scheduler="wrr",
        forwarding=direct,
        persistence_timeout=50,
        persistence_granularity="255.255.255.0",
        delay_loop_us=6_000_000,
        virtualhost="www.example.org",
        quorum=2,
        hysteresis=1,
        sorry_server=SorryServer("10.0.0.9", 80, direct),
        real_servers=(
            RealServer("10.0.0.2", 80, direct, weight=3),
            RealServer(
                "10.0.0.3", 80, direct, upper_threshold=100, lower_threshold=50, inhibit_on_failure=True
            ),
        ),
    )
    assert server.name == "[10.0.0.1]:tcp:80"


def test_what_is_read_survives_the_wire() -> None:
    found = read(
        service("sorry_server 10.0.0.3", "TCP_CHECK {\n}\nHTTP_GET {\nurl {\npath /\n}\n}")
    ).config.check
    assert msgpack.decode(msgpack.encode(found), type=CheckConfiguration) == found


HEADS = [
    "virtual_server {  # missing-argument/2\n}",
    "virtual_server fwmark {  # missing-argument/2\n}",
    "virtual_server group {  # missing-argument/2\n}",
    "virtual_server www.example.org 80 {  # bad-address\n foo\n}",
    "virtual_server 1.2.3.4 99999 {  # bad-number\n foo\n}",
    "virtual_server fwmark x {  # bad-number\n foo\n}",
    "virtual_server 10.0.0.1 80 {\n}  # no-real-server",
]


@pytest.mark.parametrize("text", HEADS)
def test_a_service_that_is_none_is_skipped_whole(text: str) -> None:
    assert assert_as_annotated(text).config.check.virtual_servers == ()


def test_a_range_or_prefix_after_an_address_is_dropped() -> None:
    text = service(head="10.0.0.1/24 80", head_note=" # address-tail/0")
    assert only_server(text).address == "10.0.0.1"


WRONG_LINES = [
    "delay_loop 0  # bad-number",
    "delay_loop -1  # bad-number",
    "delay_loop  # missing-argument/2",
    "delay_before_retry x  # bad-number",
    "warmup -1  # bad-number",
    "connect_timeout 4294.967296  # bad-number",
    "connect_timeout 0  # bad-number",
    "retry 0  # bad-number",
    "weight 0  # bad-number",
    "weight 2147483648  # bad-number",
    "lvs_sched nosuch  # bad-choice",
    "lb_algo  # missing-argument/2",
    "lb_kind nat  # bad-choice",
    "lb_kind  # missing-argument/2",
    "protocol ICMP  # bad-choice",
    "persistence_timeout 0  # bad-number",
    "persistence_timeout 2678401  # bad-number",
    "persistence_granularity x  # bad-netmask",
    "persistence_granularity 24  # bad-netmask/0",
    "ip_family inet6  # bad-family",
    "ip_family ipv4  # bad-family",
    "smtp_alert maybe  # bad-boolean",
    "virtualhost  # missing-value",
    "quorum 0  # bad-number",
    "quorum  # missing-argument/2",
    "hysteresis x  # bad-number",
    "hashed  # no-effect",
    "sh-port  # no-effect",
    "mh-fallback  # no-effect",
    "sorry_server 1.2.3  # bad-address",
    "sorry_server_inhibit  # too-early",
    "sorry_server_lvs_method DR  # too-early",
    "sorry_server ::1 80  # family-mismatch",
    "quorum_up  # missing-argument/2",
    "quorum_up /bin/true\nquorum_up /bin/false  # repeated",
    "quorum_down /bin/true\nquorum_down /bin/false  # repeated",
    "virtualhost a\nvirtualhost b  # repeated",
    "real_server {  # missing-argument/2\n}",
    "real_server 10.0.0.3 70000 {  # bad-number\nfoo\n}",
    "real_server 10.0.0.300 80 {  # bad-address\nfoo\n}",
    "real_server ::1 80 {  # family-mismatch\n}",
    "nat_mask 255.255.255.0  # unknown-keyword",
]


@pytest.mark.parametrize("line", WRONG_LINES)
def test_a_wrong_line_of_a_virtual_server_is_told_where_it_stands_and_changes_nothing(line: str) -> None:
    assert only_server(service(line)).real_servers == only_server(service()).real_servers


WRONG_LINES_OF_SERVERS = [
    "weight -1  # bad-number",
    "weight  # missing-argument/2",
    "lvs_method XX  # bad-choice",
    "uthreshold x  # bad-number",
    "lthreshold x  # bad-number",
    "inhibit_on_failure 0  # bad-boolean",
    "alpha perhaps  # bad-boolean",
    "retry 0  # bad-number",
    "delay_before_retry x  # bad-number",
    "warmup x  # bad-number",
    "connect_timeout x  # bad-number",
    "delay_loop 0  # bad-number",
    "smtp_alert maybe  # bad-boolean",
    "virtualhost  # missing-value",
    "snmp_name  # missing-value",
    "notify_up  # missing-argument/2",
    "FOO_CHECK {  # unknown-keyword\n retry 3  # skipped\n}",
]


@pytest.mark.parametrize("line", WRONG_LINES_OF_SERVERS)
def test_a_wrong_line_of_a_real_server_is_told_where_it_stands_and_changes_nothing(line: str) -> None:
    assert only_server(service("", line)) == only_server(service())


def test_a_flag_cannot_be_switched_off() -> None:
    assert only_server(service("omega off  # flag-value/0")).omega
    assert only_server(service("omega 1")).omega


def test_scheduler_flags_need_their_scheduler_above() -> None:
    assert only_server(service("flag-3\nflag-1\nlvs_sched rr")).scheduler_flags == (1, 3)
    hashing = service("").replace(
        "lvs_sched rr", "lvs_sched sh\nsh-port\nsh-fallback\nmh-port  # no-effect/0"
    )
    assert only_server(hashing).scheduler_flags == (1, 2)
    maglev = service().replace("rr", "mh\nmh-port\nhashed  # no-effect/0")
    assert only_server(maglev).scheduler_flags == (2,)


TUNNELS = [
    ("TUN", Forwarding(ForwardingMethod.TUNNEL)),
    ("TUN type gue port 6080", Forwarding(ForwardingMethod.TUNNEL, TunnelType.GUE, 6080)),
    (
        "TUN type gre csum",
        Forwarding(ForwardingMethod.TUNNEL, TunnelType.GRE, 0, TunnelChecksum.FULL),
    ),
    (
        "TUN type gue port 1 remcsum",
        Forwarding(ForwardingMethod.TUNNEL, TunnelType.GUE, 1, TunnelChecksum.REMOTE),
    ),
]


@pytest.mark.parametrize(("value", "meaning"), TUNNELS)
def test_tunnels(value: str, meaning: Forwarding) -> None:
    server = only_server(service(server=f"lvs_method {value}"))
    assert server.real_servers[0].forwarding == meaning


@pytest.mark.parametrize(
    "options",
    [
        "type gue",
        "type ipip port 5",
        "type foo",
        "type",
        "port",
        "port 0",
        "type gue port 00000000199999",
        "foo",
        "csum",
        "type gre remcsum",
    ],
)
def test_wrong_tunnel_options_leave_the_method(options: str) -> None:
    server = only_server(service(server=f"lvs_method TUN {options}  # bad-tunnel"))
    assert server.real_servers[0].forwarding == Forwarding(ForwardingMethod.TUNNEL)


def test_what_a_service_lacks_is_told_at_its_end() -> None:
    server = only_server(
        """
virtual_server 10.0.0.1 80 {
    real_server 10.0.0.2 80 {
    }
}  # no-protocol no-scheduler no-method
"""
    )
    assert (server.protocol, server.scheduler) == (Protocol.UDP, "wlc")
    assert server.forwarding.method is ForwardingMethod.NAT


def test_a_service_without_port_is_persistent() -> None:
    text = service(head="10.0.0.1", real="10.0.0.2", end_note=" # no-port")
    assert only_server(text).persistence_timeout == 360
    assert only_server(service("persistence_timeout", head="10.0.0.1")).persistence_timeout == 360
    assert only_server(service("persistence_timeout 7", head="10.0.0.1")).persistence_timeout == 7


def test_one_packet_scheduling_is_for_datagrams() -> None:
    assert not only_server(service("ops  # ops")).one_packet
    assert only_server(service("ops").replace("TCP", "udp")).one_packet


def test_a_firewall_mark_has_neither_protocol_nor_address_to_watch() -> None:
    text = service("ha_suspend  # ha-suspend", head="fwmark 7", real="10.0.0.2")
    server = only_server(text.replace("protocol TCP", "protocol TCP  # protocol"))
    assert (server.name, server.protocol, server.ha_suspend) == ("FWM 7", None, False)
    assert server.family == 4


def test_the_same_real_server_twice_is_one() -> None:
    text = service("real_server 10.0.0.2 80 {\nweight 5\n}", real_note=" # duplicate-server")
    assert [each.weight for each in only_server(text).real_servers] == [5]


TWINS_BY_PORT = [
    ("10.0.0.1 80", "NAT", "10.0.0.2", "10.0.0.2 80", "", " # duplicate-server/0", 80),
    ("10.0.0.1 80", "NAT", "10.0.0.2 80", "10.0.0.2", "", " # duplicate-server/0", 80),
    ("10.0.0.1 80", "DR", "10.0.0.2", "10.0.0.2 80", "", " # duplicate-server/0", 80),
    (
        "10.0.0.1 80",
        "DR",
        "10.0.0.2 8080",
        "10.0.0.2 8081",
        " # port-mismatch",
        " # port-mismatch duplicate-server/0",
        80,
    ),
    (
        "10.0.0.1 80",
        "TUN",
        "10.0.0.2 80",
        "10.0.0.2 8081",
        "",
        " # port-mismatch duplicate-server/0",
        80,
    ),
    ("fwmark 7", "DR", "10.0.0.2", "10.0.0.2 80", "", " # port-mismatch duplicate-server/0", 0),
]


@pytest.mark.parametrize(("head", "method", "one", "other", "note", "twin_note", "port"), TWINS_BY_PORT)
def test_servers_that_are_reached_at_the_same_port_are_one(
    head: str, method: str, one: str, other: str, note: str, twin_note: str, port: int
) -> None:
    """IPVS knows them once. keepalived keeps both, and complains of the ports only: the status is that."""
    text = f"""
virtual_server {head} {{
    lvs_sched rr
    lvs_method {method}
    {"" if head.startswith("fwmark") else "protocol TCP"}
    real_server {one} {{{note}
        weight 2
        TCP_CHECK {{
            connect_port 1
        }}
    }}
    real_server 10.0.0.3 {{
    }}
    real_server {other} {{{twin_note}
        weight 4
        TCP_CHECK {{
            connect_port 1
        }}
    }}
}}
"""
    servers = only_server(text).real_servers
    found = [(each.address, each.port, each.weight, len(each.checkers)) for each in servers]
    assert found == [("10.0.0.2", port, 2, 1), ("10.0.0.3", port, 1, 0)]


@pytest.mark.parametrize(
    ("head", "one", "other"),
    [
        ("10.0.0.1 80", "10.0.0.2 80", "10.0.0.2 81"),
        ("10.0.0.1 80", "10.0.0.2", "10.0.0.2 81"),
        ("fwmark 7", "10.0.0.2", "10.0.0.2 80"),
    ],
)
def test_network_address_translation_tells_the_ports_of_a_server_apart(
    head: str, one: str, other: str
) -> None:
    text = service(f"real_server {other} {{\n}}", head=head, real=one)
    text = text.replace("protocol TCP\n", "") if head.startswith("fwmark") else text
    assert len({each.port for each in only_server(text).real_servers}) == 2


@pytest.mark.parametrize(
    "lines",
    [
        "quorum 2\nhysteresis 1",
        "quorum 3  # quorum/0\nhysteresis 1",
        "quorum 3  # quorum/0\nhysteresis 2  # hysteresis/0",
        "quorum 3  # quorum/0\nhysteresis 3  # hysteresis",
        "quorum 4  # quorum\nhysteresis 3  # hysteresis",
    ],
)
def test_only_one_of_twins_counts_for_the_quorum(lines: str) -> None:
    """keepalived counts both: what is lowered for that reason alone does not change the status."""
    twin = "real_server 10.0.0.2 {  # duplicate-server/0\n}"
    text = service(lines, f"weight 2\n}}\n{twin.removesuffix('}')}")
    server = only_server(text)
    assert (server.quorum, server.hysteresis) == (2, 1)


def test_a_quorum_beyond_all_weights_is_lowered_and_the_hysteresis_with_it() -> None:
    server = only_server(service("quorum 5  # quorum\nhysteresis 5  # hysteresis", "weight 3"))
    assert (server.quorum, server.hysteresis) == (3, 2)
    server = only_server(service("quorum 3\nhysteresis 3  # hysteresis", "weight 3"))
    assert (server.quorum, server.hysteresis) == (3, 2)


def test_servers_without_weight_can_never_make_a_quorum() -> None:
    assert only_server(service(server="weight 0", end_note=" # quorum")).quorum == 1


def test_weights_are_inherited() -> None:
    server = only_server(service("weight 4"))
    assert server.real_servers[0].weight == 4


PORTS = [
    ("NAT", "10.0.0.2 8080", "", 8080),
    ("NAT", "10.0.0.2", "", 80),
    ("DR", "10.0.0.2", "", 80),
    ("DR", "10.0.0.2 80", "", 80),
    ("DR", "10.0.0.2 8080", " # port-mismatch", 80),
    ("TUN", "10.0.0.2 8080", " # port-mismatch", 80),
]


@pytest.mark.parametrize(("method", "real", "finding", "port"), PORTS)
def test_only_nat_changes_a_port(method: str, real: str, finding: str, port: int) -> None:
    text = service(real=real, real_note=finding).replace("lvs_method NAT", f"lvs_method {method}")
    assert only_server(text).real_servers[0].port == port


@pytest.mark.parametrize("lines", ["lthreshold 5  # thresholds/0", "uthreshold 9\n lthreshold 9"])
def test_a_lower_threshold_above_the_upper_one_is_said(lines: str) -> None:
    upper = 9 if "uthreshold" in lines else 0
    assert only_server(service("", lines)).real_servers[0].upper_threshold == upper


def test_a_mark_has_no_port() -> None:
    text = """
virtual_server fwmark 7 {
    lvs_sched rr
    lvs_method DR
    sorry_server 10.0.0.9 80  # port-mismatch
    real_server 10.0.0.2 80 {  # port-mismatch
    }
}
"""
    server = only_server(text)
    assert server.real_servers[0].port == 0
    assert server.sorry_server is not None
    assert server.sorry_server.port == 0


def test_a_checker_goes_to_the_port_that_was_written() -> None:
    text = service(server="TCP_CHECK {\n}", real="10.0.0.2 8080").replace("lvs_method NAT", "lvs_method DR")
    server = read(text).config.check.virtual_servers[0].real_servers[0]
    (checker,) = server.checkers
    assert isinstance(checker, TcpCheck)
    assert (server.port, checker.connection.port) == (80, 8080)


def test_the_method_reaches_servers_on_both_sides_of_it() -> None:
    server = only_server(
        """
virtual_server 10.0.0.1 80 {
    lvs_sched rr
    protocol TCP
    real_server 10.0.0.2 80 {
    }
    lvs_method DR
    real_server 10.0.0.3 80 {
    }
    lvs_method TUN
    real_server 10.0.0.4 80 {
    }
}
"""
    )
    methods = [each.forwarding.method.value for each in server.real_servers]
    assert methods == ["TUN", "DR", "TUN"]


def test_tunnelled_servers_may_be_of_the_other_family() -> None:
    text = service("lvs_method TUN\nreal_server ::2 80 {\n}")
    assert [each.family for each in only_server(text).real_servers] == [6, 4]


def test_a_mark_takes_the_family_of_its_servers() -> None:
    mark = "virtual_server fwmark 1 {\nlvs_sched rr\nlvs_method %s\n%sreal_server ::2 {\n}\n%s}\n"
    assert only_server(mark % ("NAT", "", "")).family == 6
    assert only_server(mark % ("TUN", "", "")).family == 6
    assert only_server(mark % ("TUN", "ip_family inet\n", "")).family == 4
    assert only_server(mark % ("TUN", "", "real_server 10.0.0.2 {\n}\n")).family == 4
    assert only_server(mark % ("NAT", "persistence_granularity 64\n", "")).persistence_granularity == "64"


def test_granularity_makes_a_service_persistent() -> None:
    assert only_server(service("persistence_granularity 255.255.0.0")).persistence_timeout == 360


def test_the_name_of_a_persistence_engine_is_cut() -> None:
    server = only_server(service("persistence_engine abcdefghijklmnopqrst  # too-long"))
    assert server.persistence_engine == "abcdefghijklmno"


def test_a_sorry_server_that_is_a_real_server_is_treated_like_it() -> None:
    text = service("sorry_server 10.0.0.2 80\nsorry_server_inhibit  # sorry-inhibit")
    sorry = only_server(text).sorry_server
    assert sorry == SorryServer("10.0.0.2", 80)


def test_a_second_sorry_server_starts_afresh() -> None:
    text = service("sorry_server 10.0.0.8 80\nsorry_server_inhibit\nsorry_server 10.0.0.9 80")
    assert only_server(text).sorry_server == SorryServer("10.0.0.9", 80)


def test_alerts_fall_back_to_the_global_setting() -> None:
    quiet = read(service(), "smtp_alert off").config.check.virtual_servers[0]
    assert (quiet.smtp_alert, quiet.real_servers[0].smtp_alert) == (False, False)
    loud = read(service(), "smtp_alert off\nsmtp_alert_checker on").config.check.virtual_servers[0]
    assert (loud.smtp_alert, loud.real_servers[0].smtp_alert) == (True, True)
    neither = read(service()).config.check.virtual_servers[0]
    assert (neither.smtp_alert, neither.real_servers[0].smtp_alert) == (False, True)
    own = read(service("smtp_alert off", "smtp_alert off"), "smtp_alert on").config.check.virtual_servers[0]
    assert (own.smtp_alert, own.real_servers[0].smtp_alert) == (False, False)


def test_one_service_twice_is_told_of() -> None:
    found = assert_as_annotated(service() + service(head_note=" # duplicate-service/0"))
    assert len(found.config.check.virtual_servers) == 2


# Groups


def test_entries_of_a_group() -> None:
    found = assert_as_annotated(
        """
virtual_server_group web {
    10.0.0.1 80
    10.0.0.5-9 80
    10.0.0.20-10.0.1.3 80
    10.1.0.0/24 80
    10.2.0.0 000
    fwmark 3
    fwmark 4 inet
}
virtual_server_group six {
    2001:db8::1 80
    2001:db8::10-1f 80
    2001:db8::20-2001:db8::2f 80
    2001:db8:1::/126 80
    fwmark 4 inet6
}
"""
    )
    web, six = found.config.check.groups
    assert web.ranges == (
        GroupRange("10.0.0.1", "10.0.0.1", 80),
        GroupRange("10.0.0.5", "10.0.0.9", 80),
        GroupRange("10.0.0.20", "10.0.1.3", 80),
        GroupRange("10.1.0.0", "10.1.0.255", 80),
        GroupRange("10.2.0.0", "10.2.0.0", 0),
    )
    assert web.fwmarks == (GroupFwmark(3), GroupFwmark(4, 4))
    assert [(each.first, each.last) for each in six.ranges] == [
        ("2001:db8::1", "2001:db8::1"),
        ("2001:db8::10", "2001:db8::1f"),
        ("2001:db8::20", "2001:db8::2f"),
        ("2001:db8:1::", "2001:db8:1::3"),
    ]
    assert six.families == {6}


WRONG_ENTRIES = [
    "www.example.org 80  # bad-range",
    "10.0.0.1 70000  # bad-number",
    "10.0.0.9-5 80  # bad-range",
    "10.0.0.5-5 80  # bad-range",
    "10.0.0.5-256 80  # bad-range",
    "10.0.0.5-x 80  # bad-range",
    "10.0.0.5- 80  # bad-range",
    "10.0.0.5-10.0.0.4 80  # bad-range",
    "10.0.0.5-10.0.0.400 80  # bad-range",
    "10.0.0.5-::1 80  # bad-range",
    "fe80::1%eth0 80  # bad-range",
    "10.0.0.1/24 80  # bad-range",
    "10.0.0.0/33 80  # bad-range",
    "10.0.0.0/00000000199 80  # bad-range",
    "10.0.0.0/++24 80  # bad-range",
    "10.0.0.1-++5 80  # bad-range",
    "10.0.0.0/0 80  # bad-range",
    "::1-10000 80  # bad-range",
    "::1-gg 80  # bad-range",
    "10.0.0.0/13 80  # bad-range/0",
    "10.0.0.1-10.5.0.0 80  # bad-range/0",
    "2001:db8::/64 80  # bad-range/0",
    "fwmark 0  # bad-range/0",
    "fwmark x  # bad-number",
    "fwmark 3 ipv4  # bad-choice",
    "fwmark  # missing-argument/2",
]


@pytest.mark.parametrize("line", WRONG_ENTRIES)
def test_a_wrong_entry_of_a_group_is_ignored(line: str) -> None:
    (group,) = assert_as_annotated(f"virtual_server_group g {{\n{line}\n10.9.9.9 80\n}}").config.check.groups
    assert group.ranges == (GroupRange("10.9.9.9", "10.9.9.9", 80),)
    assert group.fwmarks == ()


def test_the_addresses_of_a_group_are_counted_together() -> None:
    text = "virtual_server_group g {\n10.0.0.0/14 80\n10.9.9.9 80  # bad-range/0\nfwmark 3\n}"
    assert len(assert_as_annotated(text).config.check.groups[0].ranges) == 1


GROUPS = [
    "virtual_server_group {  # missing-argument/2\n}",
    "virtual_server_group g {\n}  # empty-group",
    "virtual_server_group g {\n10.0.0.1 80\n::1 80\nfwmark 3  # family-mismatch\n}",
]


@pytest.mark.parametrize("text", GROUPS)
def test_a_group_that_cannot_be_used_is_ignored(text: str) -> None:
    assert assert_as_annotated(text).config.check.groups == ()


def test_of_two_groups_with_one_name_the_first_counts() -> None:
    first = "virtual_server_group g {\n10.0.0.1 80\n}\n"
    second = "virtual_server_group g {  # duplicate-name/0\n10.0.0.2 80\n}\n"
    (group,) = assert_as_annotated(first + second).config.check.groups
    assert group.ranges[0].first == "10.0.0.1"


def test_a_group_may_stand_below_its_servers() -> None:
    found = assert_as_annotated(
        service(head="group g")
        + service(head="group g", real="10.0.0.3 80")
        + "virtual_server_group g {\n10.0.0.1 80\n}\n"
    )
    assert [server.name for server in found.config.check.virtual_servers] == ["[g]:0", "[g]:1"]
    assert found.config.check.virtual_servers[0].family == 4


def test_a_group_that_does_not_exist_leaves_nothing_to_serve() -> None:
    text = service(head="group g", head_note=" # not-defined/0")
    assert assert_as_annotated(text).config.check.virtual_servers == ()


def test_a_group_of_the_other_family_leaves_nothing_to_serve() -> None:
    text = service(head="group g", head_note=" # family-mismatch/0")
    group = "virtual_server_group g {\n::1 80\n}\n"
    assert assert_as_annotated(text + group).config.check.virtual_servers == ()
    both = "virtual_server_group g {\n::1 80\n10.0.0.1 80\n}\n"
    assert assert_as_annotated(text + both).config.check.virtual_servers == ()


def test_tunnels_serve_a_group_of_both_families() -> None:
    text = service("lvs_method TUN", "lvs_method TUN", head="group g")
    both = "virtual_server_group g {\n::1 80\n10.0.0.1 80\n}\n"
    assert only_server(text + both).family == 0


def test_a_group_without_port_is_persistent() -> None:
    text = service(head="group g", end_note=" # no-port")
    server = only_server(text + "virtual_server_group g {\n10.0.0.1\n}\n")
    assert server.persistence_timeout == 360


def test_ports_of_servers_behind_a_group_of_marks() -> None:
    text = """
virtual_server_group g {
    fwmark 3
}
virtual_server group g {
    lvs_sched rr
    lvs_method DR
    protocol TCP  # protocol
    real_server 10.0.0.2 80 {  # port-mismatch
    }
}
"""
    assert only_server(text).real_servers[0].port == 80


# SSL


def test_ssl() -> None:
    text = "SSL {\npassword secret\nca /a\ncertificate /b\nkey /c\n}"
    assert assert_as_annotated(text).config.check.ssl == SslContext("secret", "/a", "/b", "/c")


def test_files_of_the_ssl_block_that_cannot_be_used_are_a_finding_about_the_machine() -> None:
    text = "SSL {  # ssl-files/0\ncertificate /absent\n}"
    loaded = assert_as_annotated(text)
    assert loaded.config.check.ssl == SslContext(certificate_file="/absent")
    (finding,) = loaded.diagnostics
    assert finding.machine and finding.severity is Severity.ERROR


def test_the_last_ssl_block_counts_and_so_does_its_last_line() -> None:
    text = "SSL {\nca /a\nca /b  # repeated\nkey  # missing-value\n}\nSSL {  # repeated\nca /c\n}"
    assert assert_as_annotated(text).config.check.ssl == SslContext(ca_file="/c")


# Scripts


def test_scripts_that_cannot_run_are_dropped() -> None:
    body = (
        "quorum_up /absent/up  # script-unusable/0\nquorum_down /open/down  # script-unusable/0\nomega\nalpha"
    )
    inner = (
        "notify_up /bin/up\nnotify_down /absent/down  # script-unusable/0\n"
        "MISC_CHECK {\nmisc_path /absent/check  # script-unusable/0\n}\nTCP_CHECK {\n}"
    )
    found = only_server(service(body, inner))
    server = found.real_servers[0]
    assert (found.quorum_up, found.quorum_down, server.notify_down) == (None, None, None)
    assert server.notify_up is not None
    assert [type(each) for each in server.checkers] == [TcpCheck]


@pytest.mark.parametrize("line", ["quorum_up /bin/up", "sorry_server 10.0.0.9\nquorum_down /bin/down"])
def test_scripts_without_script_security_are_complained_of_once(line: str) -> None:
    loaded = read(service(line) + service(line, head="10.0.0.7 80"), "")
    (warning,) = loaded.diagnostics
    assert (warning.code, warning.exit_status, loaded.exit_status) == ("script-security", 6, 6)
    assert warning.source_line.startswith("quorum_")


def test_services_without_scripts_need_no_script_security() -> None:
    assert read(service(server="TCP_CHECK {\n}"), "").exit_status == 0


@pytest.mark.parametrize(
    ("host", "suspicious"), [("smtp_server", True), ("XXXX", True), ("mail.example.org", False)]
)
def test_a_mail_relay_that_was_never_filled_in(tmp_path: Path, host: str, suspicious: bool) -> None:
    file = tmp_path / "daemon.conf"
    file.write_text(f"global_defs {{\nsmtp_server {host}\n}}\n")
    found = [each.code for each in load(str(file)).diagnostics]
    assert ("placeholder" in found) is suspicious
