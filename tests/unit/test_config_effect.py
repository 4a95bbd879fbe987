"""No keyword that is said to act is swallowed: with it the processes are told something else than without."""

from __future__ import annotations

from functools import cache

import msgspec
import pytest

from kad.config.build import blocks
from kad.config.grammar.root import ROOT
from kad.config.load import load
from kad.config.schema import Row
from kad.config.slices import slices, supervisor_settings
from kad.config.source import TextReader
from tests.support.configuration import NAME, InventedMachine

CHECKERS = {
    "TCP_CHECK": "",
    "HTTP_GET": "url {\npath /\n@/url\n}",
    "SSL_GET": "url {\npath /\n@/url\n}",
    "SMTP_CHECK": "host {\n@/host\n}",
    "DNS_CHECK": "",
    "UDP_CHECK": "",
    "PING_CHECK": "",
    "MISC_CHECK": "misc_path /etc/check.sh",
    "BFD_CHECK": "name neighbour",
    "FILE_CHECK": "track_file file",
}

WHOLE = (
    """\
global_defs {
enable_script_security
script_user root
@global_defs
}
@(root)
SSL {
@SSL
}
vrrp_script script {
script /etc/track.sh
@vrrp_script
}
track_file file {
file /etc/number
@track_file
}
vrrp_track_file other_file {
file /etc/other
@vrrp_track_file
}
vrrp_track_process process {
process something
@vrrp_track_process
}
bfd_instance neighbour {
neighbor_ip 10.0.0.9
@bfd_instance
}
bfd_instance other_neighbour {
neighbor_ip 10.0.0.8
}
garp_group {
@garp_group
}
vrrp_instance A {
interface eth0
virtual_router_id 1
authentication {
@vrrp_instance/authentication
}
virtual_ipaddress {
10.0.0.1
10.0.0.2 dev eth1
10.0.0.3 dev eth1 use_vmac
}
unicast_peer {
10.0.0.77
}
@vrrp_instance
}
vrrp_instance B {
interface eth0
virtual_router_id 2
version 3
virtual_ipaddress {
10.0.1.1
10.0.1.2 dev eth1
}
}
vrrp_instance C {
interface eth2
virtual_router_id 3
virtual_ipaddress {
fe80::1
}
}
vrrp_sync_group G {
group {
B
C
}
@vrrp_sync_group
}
track_group T {
@track_group
}
virtual_server 10.0.0.1 80 {
protocol TCP
sorry_server 10.0.0.50 80
@virtual_server
real_server 10.0.0.2 80 {
@virtual_server/real_server
"""
    + "".join(
        f"{name} {{\n{inside.replace('@', f'@{path}')}\n@{path}\n}}\n"
        for name, inside in CHECKERS.items()
        for path in (f"virtual_server/real_server/{name}",)
    )
    + "}\nreal_server 10.0.0.3 80 {\nTCP_CHECK {\n}\n}\n}\n"
)
"""A configuration with every block in it, and a line ``@PATH`` where one more line can stand in each."""

VALUES = (
    *("", "3", "2", "0", "200", "20", "0.05", "off", "on", "true", "false", "eth1", "10.0.0.7"),
    *(
        "10.0.0.7 81",
        "/etc/x.sh",
        "/etc/x",
        "other",
        "224.0.0.99",
        "ff02::99",
        "BACKUP",
        "MASTER",
        "DR",
        "rr",
        "AH",
    ),
    *("all 5", "1 2", "3 4", "inet6", "SCTP", "24", "1.1", "1500", "never", "aa:bb", "B", "TCP", "deadbeef"),
    *("initial", "AAAA", "example.com", "200-299", "^x", "icase", "-200", "65000", "5 reverse", "+readable"),
    *("640205b7b0fc66c1ea91c463fac6334d", "tcp 5", "100000", "1 overwrite", "a@example.com", "neighbour"),
)
"""Some value for every keyword."""

_ROUTER = "vrrp_instance N {\ninterface eth0\nvirtual_router_id 9\nvirtual_ipaddress {\n10.0.9.1\n}\n%s\n}\n"
_SERVICE = "virtual_server 10.0.0.1 80 {\n%s\nreal_server 10.0.0.2 80 {\n%s\n}\n}\n"
_KEYED = _ROUTER % ("version 3\nauth_hmac {\n%s\n}")
_KEY = "key 1 " + "k" * 32


def _url(kind: str, lines: str) -> str:
    return _SERVICE % ("protocol TCP", f"{kind} {{\nurl {{\npath /\n{lines}\n}}\n}}")


APART: dict[tuple[str, str], tuple[str, str]] = {
    ("global_defs", "enable_script_security"): (
        "",
        f"global_defs {{\nscript_user root\n@\n}}\n{_ROUTER % 'notify /etc/open.sh'}",
    ),
    ("global_defs", "vrrp_owner_ignore_adverts"): ("", f"global_defs {{\n@\n}}\n{_ROUTER % 'priority 255'}"),
    ("vrrp_instance", "owner_ignore_adverts"): ("", _ROUTER % "priority 255\n@"),
    ("vrrp_instance", "vrf"): (
        "vrf1",
        (_ROUTER % "unicast_src_ip 10.0.0.8\nunicast_peer {\n10.0.0.7\n}\n@")
        .replace("interface eth0\n", "")
        .replace("9.1", "9.1 dev eth0"),
    ),
    ("vrrp_instance", "track_src_ip"): ("", _ROUTER % "mcast_src_ip 10.0.0.7\n@"),
    ("vrrp_instance", "native_ipv6"): (
        "",
        "vrrp_instance N {\ninterface eth0\nvirtual_router_id 9\n@\nno_virtual_ipaddress\n}\n",
    ),
    ("vrrp_instance", "vmac_xmit_base"): ("", _ROUTER % "use_vmac\n@"),
    ("vrrp_instance", "preempt"): ("", _ROUTER % "nopreempt\n@"),
    ("vrrp_instance", "timer_expired_backup"): ("100", _ROUTER % "state BACKUP\nnopreempt\n@"),
    ("vrrp_instance", "thread_timer_expired"): ("100", _ROUTER % "state BACKUP\nnopreempt\n@"),
    ("vrrp_instance", "accept"): ("", _ROUTER % "version 3\nstrict_mode\n@"),
    ("track_file", "file"): ("/etc/number", f"track_file x {{\n@\n}}\n{_ROUTER % ''}"),
    ("vrrp_track_file", "file"): ("/etc/number", f"vrrp_track_file x {{\n@\n}}\n{_ROUTER % ''}"),
    ("vrrp_track_process", "process"): ("x", f"vrrp_track_process x {{\n@\n}}\n{_ROUTER % ''}"),
    ("garp_group", "interface"): ("eth0", f"garp_group {{\ngarp_interval 1\n@\n}}\n{_ROUTER % ''}"),
    ("virtual_server", "ip_family"): (
        "inet6",
        "virtual_server fwmark 5 {\n@\nlb_kind TUN\nreal_server 10.0.0.2 80 {\n}\n}\n",
    ),
    ("virtual_server", "ops"): ("", _SERVICE % ("protocol UDP\nlb_algo rr\n@", "")),
    ("virtual_server", "sh-port"): ("", _SERVICE % ("protocol UDP\nlb_algo sh\n@", "")),
    ("virtual_server", "sh-fallback"): ("", _SERVICE % ("protocol UDP\nlb_algo sh\n@", "")),
    ("virtual_server", "mh-port"): ("", _SERVICE % ("protocol UDP\nlb_algo mh\n@", "")),
    ("virtual_server", "mh-fallback"): ("", _SERVICE % ("protocol UDP\nlb_algo mh\n@", "")),
    ("virtual_server", "hysteresis"): ("3", _SERVICE % ("protocol TCP\nquorum 10\n@", "weight 50")),
    ("vrrp_instance/authentication", "auth_type"): (
        "PASS",
        _ROUTER % "authentication {\n@\nauth_pass secret\n}",
    ),
    ("vrrp_instance/authentication", "auth_pass"): (
        "secret",
        _ROUTER % "authentication {\nauth_type PASS\n@\n}",
    ),
    ("vrrp_instance/auth_hmac", "key"): (_KEY[4:], _KEYED % "active_key 1\n@"),
    ("vrrp_instance/auth_hmac", "active_key"): ("1", _KEYED % f"{_KEY}\n@"),
    ("vrrp_instance/auth_hmac", "time_window"): ("77", _KEYED % f"{_KEY}\nactive_key 1\n@"),
    ("vrrp_instance/auth_hmac", "anti_replay"): ("monotonic", _KEYED % f"{_KEY}\nactive_key 1\n@"),
    ("vrrp_instance/auth_hmac", "mode"): ("permissive", _KEYED % f"{_KEY}\nactive_key 1\n@"),
    ("virtual_server/real_server/SSL_GET", "enable_sni"): (
        "",
        _SERVICE % ("protocol TCP", "SSL_GET {\nvirtualhost x.example\n@\nurl {\npath /\n}\n}"),
    ),
    ("virtual_server/real_server/FILE_CHECK", "track_file"): (
        "x",
        "track_file x {\nfile /etc/x\n}\n" + _SERVICE % ("protocol TCP", "FILE_CHECK {\n@\n}"),
    ),
    **{
        (f"virtual_server/real_server/{kind}/url", name): (value, _url(kind, "regex abc\n@"))
        for kind in ("HTTP_GET", "SSL_GET")
        for name, value in (
            ("regex_no_match", ""),
            ("regex_options", "caseless"),
            ("regex_min_offset", "5"),
            ("regex_max_offset", "5"),
        )
    },
}
"""Keywords that mean something in certain company only: a value, and the company."""

OF_NO_EFFECT = {
    ("vrrp_instance", "debug"),
    ("virtual_server", "hashed"),
    ("virtual_server/real_server/FILE_CHECK", "dynamic"),
    ("virtual_server/real_server/HTTP_GET/url", "regex_stack"),
    ("virtual_server/real_server/SSL_GET/url", "regex_stack"),
}
"""Nor have they with keepalived, or there is nothing for them to do in kad."""

OF_TLS = {
    ("virtual_server/real_server/HTTP_GET", "enable_sni"),
    ("virtual_server/real_server/HTTP_GET", "sni_name"),
    ("virtual_server/real_server/HTTP_GET", "tls_compliant"),
    ("virtual_server/real_server/HTTP_GET/url", "tls_compliant"),
}

ROWS = {
    (block.path, row.name): row
    for block in blocks(ROOT)
    for row in block.rows
    if row.acts and row.kind.block is None
}
SILENT = OF_NO_EFFECT | OF_TLS


def told(text: str) -> object:
    """What control, the supervisor and the children get to know."""
    config = load(NAME, reader=TextReader({NAME: text}), machine=InventedMachine(), seed=1).config
    return slices(config), msgspec.msgpack.encode(config.globals), supervisor_settings(config)


def whole_with(path: str, line: str) -> str:
    lines = []
    for each in WHOLE.split("\n"):
        if each == f"@{path}":
            lines.append(line)
        elif not each.startswith("@"):
            lines.append(each)
    return "\n".join(lines)


@cache
def told_without() -> object:
    return told(whole_with("", ""))


@pytest.mark.parametrize("place", sorted(ROWS.keys() - SILENT), ids="/".join)
def test_a_keyword_that_acts_is_told_to_somebody(place: tuple[str, str]) -> None:
    path, name = place
    if place in APART:
        value, text = APART[place]
        assert told(text.replace("@", f"{name} {value}")) != told(text.replace("@", ""))
        return
    assert f"\n@{path}\n" in WHOLE
    assert any(told(whole_with(path, f"{name} {value}")) != told_without() for value in VALUES)


def with_line(place: tuple[str, str], words: str) -> str:
    path, name = place
    if place in APART:
        return APART[place][1].replace("@", f"{name} {words}")
    return whole_with(path, f"{name} {words}")


def acting_value(place: tuple[str, str]) -> str:
    """A value of the keyword that is told to somebody."""
    if place in APART:
        return APART[place][0]
    values = NO_ANSWER.get(place, VALUES)
    return next(each for each in values if told(with_line(place, each)) != told_without())


def complaints(text: str) -> list[tuple[str, str]]:
    loaded = load(NAME, reader=TextReader({NAME: text}), machine=InventedMachine(), seed=1)
    return sorted((each.code, each.message) for each in loaded.diagnostics)


NO_ANSWER = {
    ("virtual_server/real_server/BFD_CHECK", "name"): ("neighbour",),
    ("virtual_server/real_server/MISC_CHECK", "user"): ("alice",),
    ("vrrp_script", "user"): ("alice",),
}
"""Keywords that change something even when what they say is refused: a value that is not."""


@pytest.mark.parametrize("place", sorted(ROWS.keys() - SILENT), ids="/".join)
def test_words_too_many_are_told_or_mean_something(place: tuple[str, str]) -> None:
    value = acting_value(place)
    plain = with_line(place, value)
    longer = with_line(place, f"{value} zzz yyy xxx www")
    assert complaints(longer) != complaints(plain) or told(longer) != told(plain)


@pytest.mark.parametrize("place", sorted(SILENT), ids="/".join)
def test_a_keyword_of_no_effect_says_so(place: tuple[str, str]) -> None:
    row: Row = ROWS[place]
    words = ("SSL_GET",) if place in OF_TLS else ("effect", "nothing to do", "no version reads it")
    assert any(word in row.help for word in words), row.help
