"""The health checkers: every rule once, and what they inherit."""

import pytest

from kad.config.model.check import (
    BfdCheck,
    Checker,
    Connection,
    DnsCheck,
    FileCheck,
    HttpGet,
    MiscCheck,
    PingCheck,
    Schedule,
    SmtpCheck,
    TcpCheck,
    UdpCheck,
    Url,
)
from kad.config.model.script import ScriptCommand
from tests.support.configuration import assert_as_annotated

SERVER = """
track_file load {
    file /etc/hostname
}
bfd_instance peer {
    neighbor_ip 10.0.0.9
}
bfd_instance other {
    neighbor_ip 10.0.0.10
    vrrp
}
virtual_server 10.0.0.1 80 {
    lvs_sched rr
    lvs_method NAT
    protocol TCP
%s
    real_server %s 80 {
%s
    }
}
"""


def checkers(body: str, service: str = "", real: str = "10.0.0.2") -> tuple[Checker, ...]:
    """The checkers of a server with this in it; findings must be those that comments name."""
    found = assert_as_annotated(SERVER % (service, real, body))
    return found.config.check.virtual_servers[0].real_servers[0].checkers


def only(body: str, service: str = "", real: str = "10.0.0.2") -> Checker:
    (found,) = checkers(body, service, real)
    return found


CONNECTION = Connection("10.0.0.2", 80)


@pytest.mark.parametrize(("keyword", "kind"), [("TCP_CHECK", TcpCheck), ("PING_CHECK", PingCheck)])
def test_a_bare_checker_has_the_defaults(keyword: str, kind: type) -> None:
    assert only(f"{keyword} {{\n}}") == kind(Schedule(), CONNECTION)


def test_everything_about_a_connection() -> None:
    found = only(
        "TCP_CHECK {\nconnect_ip 10.0.0.7\nconnect_port 81\nbindto 10.0.0.1\nbind_port 1024\nbind_if eth0\n"
        "connect_timeout 2.5\nfwmark 9\n}"
    )
    assert isinstance(found, TcpCheck)
    assert found.connection == Connection("10.0.0.7", 81, "10.0.0.1", 1024, "eth0", 2_500_000, 9)


def test_a_schedule_is_inherited_from_the_nearest_block_that_has_one() -> None:
    service = "delay_loop 10\nretry 7\nalpha\ndelay_before_retry 4\nwarmup 3\nconnect_timeout 9"
    found = only("retry 2\nalpha off\nTCP_CHECK {\ndelay_loop 20\n}\nwarmup 1", service)
    assert isinstance(found, TcpCheck)
    assert found.schedule == Schedule(20_000_000, 1_000_000, 2, 4_000_000, False)
    assert found.connection.timeout_us == 9_000_000


def test_what_stands_below_a_checker_reaches_it() -> None:
    text = (SERVER % ("", "10.0.0.2", "TCP_CHECK {\n}")).rstrip()[:-1] + "delay_loop 3\n}\n"
    checker = assert_as_annotated(text).config.check.virtual_servers[0].real_servers[0].checkers[0]
    assert isinstance(checker, TcpCheck)
    assert (checker.schedule.delay_loop_us, checker.schedule.warmup_us) == (3_000_000, 3_000_000)


def test_all_failures_are_logged_when_the_global_setting_says_so() -> None:
    found = assert_as_annotated(SERVER % ("", "10.0.0.2", "TCP_CHECK {\n}"), "checker_log_all_failures")
    checker = found.config.check.virtual_servers[0].real_servers[0].checkers[0]
    assert isinstance(checker, TcpCheck)
    assert checker.schedule.log_all_failures


WRONG_LINES = [
    "connect_ip www  # bad-address",
    "connect_ip  # missing-argument/2",
    "connect_port 0  # bad-number",
    "connect_port x  # bad-number",
    "bindto www  # bad-address",
    "bindto ::1  # family-mismatch",
    "bind_port 65536  # bad-number",
    "bind_if  # missing-argument/2",
    "bind_if an-interface-of-16  # too-long",
    "connect_timeout 0  # bad-number",
    "fwmark -1  # bad-number",
    "retry -1  # bad-number",
    "delay_before_retry x  # bad-number",
    "warmup -1  # bad-number",
    "delay_loop 0  # bad-number",
    "alpha perhaps  # bad-boolean",
    "log_all_failures x  # bad-boolean",
    "misc_path /bin/true  # unknown-keyword",
]


@pytest.mark.parametrize("line", WRONG_LINES)
def test_a_wrong_line_common_to_checkers_changes_nothing(line: str) -> None:
    assert only(f"TCP_CHECK {{\n{line}\n}}") == TcpCheck(Schedule(), CONNECTION)


def test_a_local_port_without_address_has_no_effect() -> None:
    only("TCP_CHECK {\nbind_port 1024  # no-effect/0\n}")


def test_bindto_and_connect_ip_are_of_one_family_in_either_order() -> None:
    assert only("TCP_CHECK {\nconnect_ip ::1\nbindto 10.0.0.1  # family-mismatch\n}") == TcpCheck(
        Schedule(), Connection("::1", 80)
    )
    assert only("TCP_CHECK {\nbindto 10.0.0.1\nconnect_ip ::1  # family-mismatch\n}") == TcpCheck(
        Schedule(), Connection("10.0.0.2", 80, "10.0.0.1")
    )


@pytest.mark.parametrize("keyword", ["TCP_CHECK", "PING_CHECK", "DNS_CHECK", "UDP_CHECK", "SMTP_CHECK"])
def test_a_link_local_address_needs_an_interface(keyword: str) -> None:
    assert checkers(f"{keyword} {{\nconnect_ip fe80::1\n}}  # link-local") == ()
    assert len(checkers(f"{keyword} {{\nconnect_ip fe80::1\nbind_if eth0\n}}")) == 1


def test_a_link_local_server_needs_an_interface_to_be_examined() -> None:
    text = SERVER.replace("10.0.0.1 80", "fe80::1 80") % ("", "fe80::2", "TCP_CHECK {\n}  # link-local")
    assert assert_as_annotated(text).config.check.virtual_servers[0].real_servers[0].checkers == ()


# HTTP_GET and SSL_GET


def http(body: str, keyword: str = "HTTP_GET", service: str = "", server: str = "") -> HttpGet:
    found = only(f"{server}\n{keyword} {{\n{body}\n}}", service)
    assert isinstance(found, HttpGet)
    return found


def url(body: str) -> Url:
    (found,) = http(f"url {{\npath /\n{body}\n}}").urls
    return found


def test_http_waits_longer_before_a_retry() -> None:
    assert http("url {\npath /\n}").schedule == Schedule(delay_before_retry_us=3_000_000)


def test_everything_about_http() -> None:
    found = http(
        "http_protocol 1.0c\nfast_recovery\nvirtualhost www\nurl {\npath /a\n}\nurl {\npath /b\n"
        "virtualhost other\ndigest 0123456789abcdef0123456789ABCDEF\nstatus_code 301 302 200-204\n"
        'regex "a b\\s+"\n'
        "regex_no_match\nregex_options caseless dotall\nregex_min_offset 5\n"
        "regex_max_offset 9\nregex_stack 1 2\n}"
    )
    assert (found.protocol, found.fast_recovery, found.ssl) == ("1.0C", True, False)
    assert found.urls == (
        Url("/a", virtualhost="www"),
        Url(
            "/b",
            bytes.fromhex("0123456789abcdef0123456789abcdef"),
            ((200, 204), (301, 302)),
            "other",
            "a bs+",
            True,
            ("caseless", "dotall"),
            5,
            9,
            (1, 2),
        ),
    )


def test_the_host_name_is_that_of_the_nearest_block() -> None:
    assert http("url {\npath /\n}", service="virtualhost far").urls[0].virtualhost == "far"
    near = http("url {\npath /\n}", service="virtualhost far", server="virtualhost near")
    assert near.urls[0].virtualhost == "near"
    assert near.urls[0].virtualhost_is_inherited
    own = http("virtualhost own\nurl {\npath /\n}", server="virtualhost near").urls[0]
    assert own.virtualhost == "own" and not own.virtualhost_is_inherited
    assert not http("url {\npath /\n}").urls[0].virtualhost_is_inherited


SNI = [
    ("", ""),
    ("enable_sni", "near"),
    ("enable_sni\nvirtualhost mine", "mine"),
    ("sni_name named\nvirtualhost mine", "named"),
    ("sni_name", "near"),
    ("sni_name named\nenable_sni off", ""),
]


@pytest.mark.parametrize(("body", "name"), SNI)
def test_the_name_sent_when_tls_begins(body: str, name: str) -> None:
    lines = f"{body}\nurl {{\npath /\n}}"
    found = http(lines, "SSL_GET", service="virtualhost far", server="virtualhost near")
    assert found.ssl
    assert found.urls[0].server_name == name


def test_close_notify_is_for_tls() -> None:
    assert http("tls_compliant\nurl {\npath /\n}", "SSL_GET").urls[0].tls_compliant
    assert not http("tls_compliant\nurl {\npath /\ntls_compliant off\n}", "SSL_GET").urls[0].tls_compliant
    assert not http("tls_compliant  # unknown-keyword\nurl {\npath /\n}").urls[0].tls_compliant


WRONG_HTTP = [
    "virtualhost  # missing-value",
    "virtualhost a\nvirtualhost a  # repeated",
    "http_protocol  # bad-choice",
    "http_protocol 2  # bad-choice",
    "enable_sni x  # bad-boolean",
    "fast_recovery x  # bad-boolean",
    "sni_name a\nsni_name  # repeated",
    "nb_get_retry 1  # deprecated",
    "nb_get_retry x  # deprecated bad-number",
    "url {\n}  # no-path",
    "url {\npath\t # missing-argument/2\n}  # no-path",
]


@pytest.mark.parametrize("lines", WRONG_HTTP)
def test_a_wrong_line_of_http(lines: str) -> None:
    assert len(http(lines + "\nurl {\npath /\n}").urls) == 1


WRONG_URLS = [
    "path /  # repeated",
    "digest abc  # bad-digest",
    "digest zz23456789abcdef0123456789abcdef  # bad-digest",
    "digest  # missing-argument/2",
    "status_code 99 600 300-200 x  # bad-status-code",
    "status_code 00000020099999  # bad-status-code",
    "status_code 200-00000020099999  # bad-status-code",
    "regex  # bad-regex",
    "regex a b  # bad-regex",
    "regex_no_match  # no-effect/0",
    "regex_min_offset 5  # no-effect/0",
    "regex_options caseless  # no-effect/0",
]


@pytest.mark.parametrize("lines", WRONG_URLS)
def test_a_wrong_line_of_a_url_changes_nothing(lines: str) -> None:
    assert url(lines) == Url("/")


def test_wrong_numbers_about_a_regex_are_told_without_changing_the_status() -> None:
    wrong = (
        "regex a\nregex_options foo  # bad-choice/0\nregex_min_offset x  # bad-number/0\n"
        "regex_max_offset  # bad-number/0\nregex_stack 1  # bad-number/0\nregex_stack 2 1  # bad-range/0"
    )
    assert url(wrong) == Url("/", regex="a")
    crossed = "regex a\nregex_min_offset 6  # no-effect/0\nregex_max_offset 5  # no-effect/0"
    assert url(crossed) == Url("/", regex="a")


def test_a_second_digest_is_ignored() -> None:
    digest = "0123456789abcdef0123456789abcdef"
    assert url(f"digest {digest}\ndigest {digest[::-1]}  # repeated").digest.hex() == digest


@pytest.mark.parametrize("pattern", ['"status:(?i)ok"', "(?<=a|bc)d", "(?R)", "("])
def test_a_regex_that_cannot_be_used_is_told_of(pattern: str) -> None:
    assert url(f"regex {pattern}  # unusable-regex/0").regex == pattern.strip('"')


@pytest.mark.parametrize("pattern", ['"(?i)status: ok"', "(?<=ab|cd)e", "a(?i:b)", "[+--]"])
def test_nothing_is_said_of_other_patterns(pattern: str) -> None:
    assert url(f"regex {pattern}").regex
    assert url(f"regex_options caseless extended utf\nregex {pattern}").regex


def test_a_second_regex_counts() -> None:
    assert url("regex a\nregex b  # repeated").regex == "b"


def test_a_web_checker_that_requests_nothing_is_ignored() -> None:
    assert checkers("HTTP_GET {\n}  # no-url") == ()
    assert checkers("SSL_GET {\nurl {\n}  # no-path\n}  # no-url") == ()


# SMTP_CHECK


def test_a_mail_server_is_greeted_by_name() -> None:
    assert only("SMTP_CHECK {\nhelo_name me.example.org\n}") == SmtpCheck(
        Schedule(), CONNECTION, "me.example.org"
    )
    found = only("SMTP_CHECK {\nhelo_name  # missing-value\nhelo_name a\nhelo_name b  # repeated\n}")
    assert isinstance(found, SmtpCheck)
    assert found.helo_name == "b"


def test_hosts_of_an_smtp_check_are_checkers_of_their_own() -> None:
    body = "host {  # deprecated/0\nconnect_port 25\n}\nhost {\nconnect_ip 10.0.0.8\n}\nretry 4"
    targets = [Connection("10.0.0.2", 25), Connection("10.0.0.8", 80)]
    assert checkers(f"SMTP_CHECK {{\n{body}\n}}") == tuple(
        SmtpCheck(Schedule(retry=4), each) for each in targets
    )
    own = checkers(f"SMTP_CHECK {{\nconnect_port 26\n{body}\n}}")
    assert [each.connection.port for each in own if isinstance(each, SmtpCheck)] == [26, 25, 80]


# DNS_CHECK


def test_dns() -> None:
    defaults = Schedule(retry=3, delay_before_retry_us=60_000_000)
    assert only("DNS_CHECK {\n}") == DnsCheck(defaults, CONNECTION)
    assert only("DNS_CHECK {\ntype aaaa\nname a.example.org\n}") == DnsCheck(
        defaults, CONNECTION, "AAAA", "a.example.org"
    )


WRONG_DNS = [
    "type HINFO  # bad-choice",
    "type  # missing-argument/2",
    "name a..b  # bad-name",
    "name .a  # bad-name",
    "name  # missing-argument/2",
    "name .\nname b  # repeated",
]


@pytest.mark.parametrize("lines", WRONG_DNS)
def test_a_wrong_line_of_dns_changes_nothing(lines: str) -> None:
    found = only(f"DNS_CHECK {{\n{lines}\n}}")
    assert isinstance(found, DnsCheck)
    assert (found.query_type, found.name) == ("SOA", ".")


# UDP_CHECK


def test_udp() -> None:
    found = only(
        "UDP_CHECK {\npayload 01 a b0c\nrequire_reply 0x xx 12\nmin_reply_length 3\nmax_reply_length 5\n}"
    )
    assert found == UdpCheck(
        Schedule(),
        CONNECTION,
        payload=bytes([0x01, 0x0A, 0xB0, 0x0C]),
        require_reply=True,
        reply=bytes([0x00, 0x00, 0x12]),
        reply_mask=bytes([0x0F, 0xFF, 0x00]),
        min_reply_length=3,
        max_reply_length=5,
    )


def test_any_reply_will_do_without_a_pattern() -> None:
    assert only("UDP_CHECK {\nrequire_reply\n}") == UdpCheck(Schedule(), CONNECTION, require_reply=True)


WRONG_UDP = [
    "payload  # bad-hex",
    "payload xx  # bad-hex",
    "min_reply_length 65536  # bad-number",
    "max_reply_length -1  # bad-number",
]


@pytest.mark.parametrize("line", WRONG_UDP)
def test_a_wrong_line_of_udp_changes_nothing(line: str) -> None:
    assert only(f"UDP_CHECK {{\n{line}\n}}") == UdpCheck(Schedule(), CONNECTION)


def test_a_reply_is_required_even_if_its_pattern_is_wrong() -> None:
    found = only("UDP_CHECK {\nrequire_reply zz  # bad-hex\n}")
    assert found == UdpCheck(Schedule(), CONNECTION, require_reply=True)


def test_lengths_that_no_reply_has_are_told() -> None:
    only("UDP_CHECK {\nmin_reply_length 6  # bad-range\nmax_reply_length 5\n}")


# MISC_CHECK


def test_a_script() -> None:
    found = only(
        "MISC_CHECK {\nmisc_path \"/bin/check 'a b' c\"\nmisc_timeout 5\nmisc_dynamic\nuser alice staff\n}",
        service="delay_loop 8",
    )
    assert found == MiscCheck(
        Schedule(delay_loop_us=8_000_000, warmup_us=8_000_000, retry=0),
        ScriptCommand(("/bin/check", "a b", "c"), uid=1000, gid=50),
        5_000_000,
        True,
    )


def test_a_script_has_the_time_of_the_services_delay_loop() -> None:
    found = only("delay_loop 3\nMISC_CHECK {\nmisc_path /bin/true\n}", service="delay_loop 8")
    assert isinstance(found, MiscCheck)
    assert (found.timeout_us, found.schedule.delay_loop_us) == (8_000_000, 3_000_000)


WRONG_SCRIPTS = [
    "MISC_CHECK {\n}  # no-script",
    "MISC_CHECK {\nmisc_path\n}  # no-script",
    "MISC_CHECK {\nmisc_path /bin/true\nuser nobody-known  # script-user\n}",
    'MISC_CHECK {\nmisc_path "/bin/true \'a"  # unmatched-quote\n}  # no-script',
]


@pytest.mark.parametrize("text", WRONG_SCRIPTS)
def test_a_script_that_cannot_run_is_no_checker(text: str) -> None:
    assert checkers(text) == ()


WRONG_LINES_OF_SCRIPTS = [
    "user  # missing-value",
    "misc_timeout 4295  # bad-number",
    "misc_timeout  # missing-argument/2",
    "connect_timeout 3  # unknown-keyword",
]


@pytest.mark.parametrize("line", WRONG_LINES_OF_SCRIPTS)
def test_a_wrong_line_of_a_script_changes_nothing(line: str) -> None:
    assert only(f"MISC_CHECK {{\nmisc_path /bin/true\n{line}\n}}") == only(
        "MISC_CHECK {\nmisc_path /bin/true\n}"
    )


# BFD_CHECK and FILE_CHECK


def test_a_bfd_session() -> None:
    assert only("BFD_CHECK {\nname peer\n}") == BfdCheck("peer")
    assert only("alpha\nBFD_CHECK {\nname peer\n}") == BfdCheck("peer", True)


WRONG_BFD = [
    "BFD_CHECK {\n}  # no-name",
    "BFD_CHECK {\nname\t # bad-bfd\n}",
    "BFD_CHECK {\nname peer other # bad-bfd\n}",
    "BFD_CHECK {\nname nobody # bad-bfd\n}",
    "BFD_CHECK {\nname other # bad-bfd\n}",
    "BFD_CHECK {\nname peer\nname peer # bad-bfd\n}",
    "BFD_CHECK {\nalpha x # bad-boolean\n}  # no-name",
]


@pytest.mark.parametrize("text", WRONG_BFD)
def test_a_bfd_check_without_a_session_is_ignored(text: str) -> None:
    assert checkers(text) == ()


def test_a_server_follows_a_session_once() -> None:
    text = "BFD_CHECK {\nname peer\n}\nBFD_CHECK {\nname peer  # bad-bfd\n}"
    assert checkers(text) == (BfdCheck("peer"),)


def test_a_file() -> None:
    assert only("FILE_CHECK {\ntrack_file load\n}") == FileCheck("load")
    assert only("FILE_CHECK {\ntrack_file load\nweight -3 reverse\n}") == FileCheck("load", -3, True)


WRONG_FILES = [
    "FILE_CHECK {\n}  # no-file",
    "FILE_CHECK {\ntrack_file nosuch  # not-defined\n}  # no-file",
    "FILE_CHECK {\ntrack_file\t # missing-argument/2\n}  # no-file",
]


@pytest.mark.parametrize("text", WRONG_FILES)
def test_a_file_check_without_a_file_is_ignored(text: str) -> None:
    assert checkers(text) == ()


WRONG_LINES_OF_FILES = [
    "weight  # missing-value",
    "weight x  # bad-number",
    "weight 2147483648  # bad-number",
    "weight 3 foo  # bad-choice",
    "dynamic  # unknown-keyword",
]


@pytest.mark.parametrize("line", WRONG_LINES_OF_FILES)
def test_a_wrong_line_of_a_file_check_changes_nothing(line: str) -> None:
    assert only(f"FILE_CHECK {{\ntrack_file load\n{line}\n}}") == FileCheck("load")
