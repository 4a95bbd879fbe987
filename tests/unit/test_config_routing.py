"""Words of routes and rules as the kernel's numbers: names, units, realms, tunnels; and their messages."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kad.config.iproute_names import TABLES, Names, UnknownName, parsed
from kad.config.machine import LocalMachine
from kad.config.model.routing import Encapsulation, NextHop, Placing, Route, Rule, RuleAction
from kad.config.routing import encapsulation_of, labels_of, locator_of, realms, round_trip
from kad.errors import KadError
from kad.kernel import routes, rules
from kad.kernel.encoder import MalformedMessage, attributes
from tests.support.configuration import assert_as_annotated, read

NO_NAMES = Names(None)
ZEROS = "0" * 22
INDEXES = {"eth0": 2, "eth1": 3}


def one_route(line: str, *, names: str = "") -> Route:
    (found,) = read(f"static_routes {{\n{line}\n}}", names).config.vrrp.static_routes
    return found


def one_rule(line: str) -> Rule:
    (found,) = read(f"static_rules {{\n{line}\n}}").config.vrrp.static_rules
    return found


# Names ---------------------------------------------------------------------------------------------------


def test_a_file_of_names_is_lines_of_a_number_and_a_name() -> None:
    text = "# reserved\n255\tlocal\n0x64 hundred # remark\n5\n6 six too many\nx name\n4294967296 large\n"
    assert parsed(text, 0xFFFF_FFFF) == {"local": 255, "hundred": 100}


@pytest.fixture
def directories(tmp_path):  # type: ignore[no-untyped-def]
    local, vendor = tmp_path / "etc", tmp_path / "usr"
    for directory in (local, vendor):
        (directory / "rt_tables.d").mkdir(parents=True)
    return local, vendor


def test_local_names_come_before_the_vendors(directories) -> None:  # type: ignore[no-untyped-def]
    local, vendor = directories
    (vendor / "rt_tables").write_text("7 seven\n")
    names = Names(LocalMachine(), str(local), str(vendor))
    assert names.number(TABLES, "seven") == 7
    assert (names.number(TABLES, "main"), names.number(TABLES, "0x10")) == (254, 16)
    (local / "rt_tables").write_text("8 eight\n254 first\n")
    (vendor / "rt_tables.d" / "a.conf").write_text("9 nine\n")
    (vendor / "rt_tables.d" / "b.conf").write_text("10 ten\n")
    (local / "rt_tables.d" / "b.conf").write_text("11 eleven\n")
    (local / "rt_tables.d" / "c.txt").write_text("12 twelve\n")
    names = Names(LocalMachine(), str(local), str(vendor))
    found = [names.number(TABLES, name) for name in ("eight", "first", "nine", "eleven")]
    assert found == [8, 254, 9, 11]
    # A number that has another name loses its built-in one.
    for absent in ("seven", "ten", "twelve", "main", "nobody"):
        with pytest.raises(UnknownName):
            names.number(TABLES, absent)


def test_global_defs_say_where_the_names_are(directories) -> None:  # type: ignore[no-untyped-def]
    local, vendor = directories
    (local / "rt_tables").write_text("77 blue\n")
    (local / "rt_realms").write_text("3 cosmos\n")
    where = f"iproute_etc_dir {local}\niproute_usr_dir {vendor}"
    route = one_route("10.0.0.0/8 via 192.0.2.1 table blue realms cosmos/4", names=where)
    assert (route.table, route.realms) == (77, 3 << 16 | 4)


def test_an_unknown_name_leaves_the_line_out_and_never_refuses_a_reload() -> None:
    text = """
static_routes {
    10.0.0.0/8 via 192.0.2.1 table nowhere # unknown-name
    10.0.0.0/8 nexthop via 192.0.2.1 realms nowhere # unknown-name
    10.0.0.0/8 encap ip dst 192.0.2.1 tos nowhere dev eth0 # unknown-name
}
static_rules {
    from 10.0.0.0/8 table nowhere preference 5 # unknown-name
    from 10.0.0.0/8 table 5 preference 5 ipproto nowhere # unknown-name
}
"""
    loaded = assert_as_annotated(text)
    assert all(each.machine for each in loaded.diagnostics)
    assert loaded.config.vrrp.static_routes == loaded.config.vrrp.static_rules == ()


def test_without_a_machine_any_name_may_be_one() -> None:
    assert NO_NAMES.number(TABLES, "blue") == 0


# Words ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "units", "value"),
    [
        ("5s", 8, 40_000),
        ("250ms", 8, 2_000),
        ("1.5secs", 4, 6_000),
        ("0.2504sec", 4, 1_000),
        ("1s", 1, 1_000),
        ("2000", 8, 2_000),
        ("1ms", 8, 1_600),
        ("999999999", 4, 480_000),
    ],
)
def test_round_trip_times_in_the_kernels_units(text: str, units: int, value: int) -> None:
    assert round_trip(text, units) == value


def test_realms_are_from_and_to() -> None:
    assert [realms(text, NO_NAMES) for text in ("", "5", "3/4")] == [0, 5, 3 << 16 | 4]


def test_every_word_of_a_route() -> None:
    route = one_route(
        "to unicast 10.0.0.7/8 src 192.0.2.9 via inet 192.0.2.1 tos 0x10 table 1000 protocol 18 scope link"
        " metric 5 dev eth0 onlink mtu lock 1400 hoplimit 7 advmss 1300 rtt lock 300ms reordering 4"
        " window 5000 cwnd 6 initcwnd 8 features ecn quickack 1 congctl lock reno ttl-propagate disabled"
        " fastopen_no_cookie 1 append"
    )
    assert route == Route(
        4,
        "10.0.0.0",
        8,
        table=1000,
        gateway="192.0.2.1",
        interface="eth0",
        onlink=True,
        preferred_source="192.0.2.9",
        tos=16,
        scope=253,
        metric=5,
        ttl_propagate=0,
        metrics=(
            (2, 1400),
            (3, 5000),
            (4, 2400),
            (7, 6),
            (8, 1300),
            (9, 4),
            (10, 7),
            (11, 8),
            (12, 1),
            (15, 1),
            (17, 1),
        ),
        locked=1 << 2 | 1 << 4 | 1 << 16,
        congestion_control="reno",
        placing=Placing.APPEND,
    )


def test_words_that_only_one_family_has_decide_it() -> None:
    assert one_route("default dev eth0 pref high").preference == 1
    assert one_route("default dev eth0 expires 20").family == 6
    assert one_route("default6 dev eth0").destination == "::"
    assert one_route("inet6 default dev eth0").family == 6
    assert_as_annotated(
        "static_routes {\n10.0.0.0/8 dev eth0 pref high # mixed-families\n"
        "2001:db8::/32 dev eth0 realms 5 # mixed-families\n"
        "10.0.0.0/8 dev eth0 from 10.1.0.0/16 # mixed-families\n}"
    )


def test_or_is_a_second_next_hop() -> None:
    route = read("static_routes {\n10.0.0.0/8 via 192.0.2.1 or 192.0.2.2\n}").config.vrrp.static_routes[0]
    assert (route.gateway, route.next_hops) == ("", (NextHop("192.0.2.1"), NextHop("192.0.2.2")))


def test_tunnels() -> None:
    assert encapsulation_of("ip", {"dst": "192.0.2.9", "id": "7", "ttl": "3"}, NO_NAMES) == Encapsulation(
        "ip", tunnel_id=7, destination="192.0.2.9", hop_limit=3
    )
    six = encapsulation_of("ip6", {"dst": "2001:db8::9", "tc": "4", "hoplimit": "5"}, NO_NAMES)
    assert (six.traffic_class, six.hop_limit) == (4, 5)
    assert labels_of("16/17").labels == (16, 17)
    assert locator_of("1:2:3:ffff").locator == bytes((0, 1, 0, 2, 0, 3, 255, 255))
    for wrong in ("", "16/", "1048576", "x"):
        with pytest.raises(ValueError):
            labels_of(wrong)
    for wrong in (
        "1:2:3",
        "1:2:3:10000",
        "1:2:3:x",
        "-1:0:0:0",
        "+1:0:0:0",
        "1_1:0:0:0",
        "0x1:0:0:0",
        " 1:0:0:0",
    ):
        with pytest.raises(ValueError):
            locator_of(wrong)
    assert_as_annotated(
        "static_routes {\n10.0.0.0/8 dev eth0 encap ip ttl 5 # bad-value\n"
        "10.0.0.0/8 dev eth0 encap ip dst 2001:db8::1 # bad-value\n"
        "10.0.0.0/8 dev eth0 encap mpls # bad-value\n10.0.0.0/8 dev eth0 encap ila x # bad-value\n}"
    )


def test_protocols_of_a_rule_need_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> int:
        raise OSError(f"no /etc/protocols, where {name} could be")

    monkeypatch.setattr("socket.getprotobyname", absent)
    assert one_rule("from 10.0.0.1 table 5 preference 1 ipproto sctp").ip_protocol == 132
    assert read("static_rules {\nfrom 10.0.0.1 table 5 preference 1 ipproto nowhere\n}").diagnostics


@pytest.mark.parametrize("name", ("mptcp", "MPTCP"))
def test_a_protocol_that_no_packet_can_carry_is_refused(name: str) -> None:
    """/etc/protocols and the kernel have 262 for it; a rule has eight bits."""
    assert_as_annotated(f"static_rules {{\ntable 5 preference 1 ipproto {name} # unknown-name\n}}")


def test_every_word_of_a_rule() -> None:
    rule = one_rule(
        "not from 10.0.0.0/8 to 192.0.2.0/24 lookup 300 preference 0x20 tos 4 fwmark 0x1/0xff realms 1/2"
        " suppress_prefixlength 8 suppress_ifgroup 3 iif eth0 oif eth1 tunnel-id 9 uidrange 1-20"
        " ipproto tcp sport 80 dport 1000-2000"
    )
    assert rule == Rule(
        4,
        32,
        table=300,
        inverted=True,
        source="10.0.0.0",
        source_length=8,
        destination="192.0.2.0",
        destination_length=24,
        tos=4,
        mark=1,
        mark_mask=255,
        realms=1 << 16 | 2,
        suppress_prefix_length=8,
        suppress_interface_group=3,
        input_interface="eth0",
        output_interface="eth1",
        tunnel_id=9,
        users=(1, 20),
        ip_protocol=6,
        source_ports=(80, 80),
        destination_ports=(1000, 2000),
    )
    assert one_rule("from all to any table default preference 5") == Rule(4, 5, table=253)


def test_rules_without_preference_count_down_in_each_family() -> None:
    text = "static_rules {\ntable 5\nfrom 10.0.0.0/8 table 6\ninet6 table 7\nto 10.0.0.0/8 nop\n}"
    found = read(text).config.vrrp.static_rules
    assert [(rule.family, rule.preference) for rule in found] == [
        (4, 16384),
        (4, 16383),
        (6, 16384),
        (4, 16382),
    ]


def test_numbers_out_of_range_are_refused() -> None:
    assert_as_annotated(
        "static_rules {\ntable 5 preference 1 sport 70000 # bad-value\n"
        "table 5 preference 1 dport 9-5 # bad-value\n"
        "table 5 preference 1 uidrange 1-99999999999 # bad-value\n"
        "table 5 preference 1 fwmark 08 # bad-value\n"
        "table 5 preference 1 ipproto 300 # bad-value\n"
        "table 5 preference 1 ipproto ٣ # bad-value\n"
        f"table 5 preference 1 ipproto {ZEROS}300 # bad-value\n"
        f"table 5 preference 1 tunnel-id {ZEROS}99999999999999999999 # bad-value\n"
        f"table 5 preference 1 sport {ZEROS}70000 # bad-value\n"
        f"table 5 preference 1 suppress_prefixlength {ZEROS}2147483648 # bad-value\n"
        f"preference 1 goto {ZEROS}4294967296 # bad-value\n"
        "table 5 preference 1 suppress_prefixlength 4294967295 # bad-value\n}"
    )


def test_zeros_in_front_change_nothing() -> None:
    assert_as_annotated(
        f"static_routes {{\n10.0.0.0/8 dev eth0 metric {ZEROS}4294967296 # bad-value\n"
        f"10.0.0.0/8 dev eth0 hoplimit {ZEROS}256 # bad-value\n"
        f"10.0.0.0/8 dev eth0 encap ip id {ZEROS}18446744073709551616 # bad-value\n}}"
    )
    assert one_route(f"10.0.0.0/8 dev eth0 metric {ZEROS}5").metric == 5


# Messages ------------------------------------------------------------------------------------------------


def test_a_route_as_a_message() -> None:
    route = Route(4, "10.0.0.0", 8, gateway="192.0.2.1", interface="eth0", metric=5, table=1000)
    body = routes.addition(route, route.table, INDEXES.get)
    assert body[:12] == struct.pack("=BBBBBBBBI", 2, 8, 0, 0, 0, 18, 0, 1, 0)
    found = attributes(body, 12)
    assert found == {
        1: bytes((10, 0, 0, 0)),
        4: struct.pack("=I", 2),
        5: bytes((192, 0, 2, 1)),
        6: struct.pack("=I", 5),
        15: struct.pack("=I", 1000),
    }
    assert routes.deletion(route, 1000, INDEXES.get)[6] == 255, "any scope"
    assert routes.key_of(body) == (2, 8, 1000, bytes((10, 0, 0, 0)))


def test_an_interface_that_is_missing_is_said() -> None:
    with pytest.raises(routes.MissingInterface):
        routes.addition(Route(4, "10.0.0.0", 8, interface="absent"), 254, INDEXES.get)


def test_labels_end_with_the_bottom_of_the_stack() -> None:
    route = Route(4, "10.0.0.0", 8, interface="eth0", encapsulation=labels_of("16/17"))
    found = attributes(routes.addition(route, 254, INDEXES.get), 12)
    assert found[21] == struct.pack("=H", 1)
    assert attributes(found[22])[1] == struct.pack(">II", 16 << 12, 17 << 12 | 0x100)


HEARD = Route(4, "10.0.0.0", 8, gateway="192.0.2.1", interface="eth0", metric=5)


@pytest.mark.parametrize(
    ("asked", "same"),
    [
        (HEARD, True),
        (Route(4, "10.0.0.0", 8, gateway="192.0.2.1", metric=5), True),
        (Route(4, "10.0.0.0", 8, metric=5), True),
        (Route(4, "10.0.0.0", 8, gateway="192.0.2.1", interface="eth1", metric=5), False),
        (Route(4, "10.0.0.0", 8, gateway="192.0.2.2", interface="eth0", metric=5), False),
        (Route(4, "10.0.0.0", 8, gateway="192.0.2.1", interface="eth0"), False),
        (Route(4, "10.0.0.0", 8, kind=6, metric=5), False),
        (Route(4, "10.0.0.0", 8, tos=4, gateway="192.0.2.1", metric=5), False),
        (Route(4, "10.0.0.0", 8, preferred_source="192.0.2.9", metric=5), False),
    ],
)
def test_words_about_a_route_are_told_from_others(asked: Route, same: bool) -> None:
    heard = routes.addition(HEARD, 254, INDEXES.get)
    assert routes.is_about(heard, routes.addition(asked, 254, INDEXES.get)) is same


def test_an_ipv6_route_without_metric_has_the_kernels() -> None:
    asked = routes.addition(Route(6, "2001:db8::", 32, interface="eth0"), 254, INDEXES.get)
    heard = routes.addition(Route(6, "2001:db8::", 32, interface="eth0", metric=1024), 254, INDEXES.get)
    assert routes.is_about(heard, asked)


RULE = Rule(4, 50, table=100, source="10.0.0.0", source_length=8, mark=0)


@pytest.mark.parametrize(
    ("asked", "same"),
    [
        (RULE, True),
        (Rule(4, 50, table=100, source="10.0.0.0", source_length=8), True),
        (Rule(4, 50, table=101, source="10.0.0.0", source_length=8), False),
        (Rule(4, 50, table=100, source="10.0.0.0", source_length=9), False),
        (Rule(4, 50, table=100), False),
        (Rule(4, 50, table=100, source="10.0.0.0", source_length=8, input_interface="eth0"), False),
        (Rule(4, 50, table=100, source="10.0.0.0", source_length=8, inverted=True), False),
        (Rule(4, 50, RuleAction.PROHIBIT, source="10.0.0.0", source_length=8), False),
    ],
)
def test_words_about_a_rule_are_told_from_others(asked: Rule, same: bool) -> None:
    heard = rules.body(RULE)
    assert rules.key_of(heard) == (2, 50)
    assert rules.is_about(heard, rules.body(asked)) is same


@given(st.binary(max_size=200))
def test_any_bytes_are_about_nothing_or_malformed(data: bytes) -> None:
    ours = routes.addition(HEARD, 254, INDEXES.get)
    try:
        if routes.key_of(data) == routes.key_of(ours):
            routes.is_about(data, ours)
        if rules.key_of(data) == rules.key_of(rules.body(RULE)):
            rules.is_about(data, rules.body(RULE))
    except (MalformedMessage, KadError):
        pass
