"""Virtual servers of every kind, as one file for kad and keepalived alike, and the servers they check.

Each entry is one virtual server with servers 10.66.N.1 and up (fd66:N::1 and up): N is its place in the
list. The first server of each is the one that dies. ``{n}`` and ``{h}`` are N in decimal and hexadecimal.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

DELAY_LOOP = 4
"""Seconds. Checks of so many servers by two daemons, every second, would be all that a guest can do."""
QUICK = "retry 1\n delay_before_retry 1"
TCP = f"TCP_CHECK {{\n connect_timeout 2\n {QUICK}\n }}"
TCP_80 = TCP.replace("{\n", "{\n connect_port 80\n", 1)
HTTP = f"HTTP_GET {{\n url {{\n path /\n status_code 200\n }}\n connect_timeout 2\n {QUICK}\n }}"
SSL = HTTP.replace("HTTP_GET", "SSL_GET")
SMTP = f"SMTP_CHECK {{\n connect_timeout 2\n {QUICK}\n }}"
DNS = f"DNS_CHECK {{\n type A\n name example.com\n connect_timeout 2\n {QUICK}\n }}"
UDP = f"UDP_CHECK {{\n connect_timeout 2\n {QUICK}\n }}"
PING = f"PING_CHECK {{\n connect_timeout 2\n {QUICK}\n }}"
MISC = 'MISC_CHECK {{\n misc_path "{script} {address}"\n misc_timeout 5\n misc_dynamic\n }}'
FILE = "FILE_CHECK {{\n track_file f{last}\n weight 1\n }}"


class Entry(Struct, frozen=True):
    """One virtual server. ``serves``: what listens at its servers; empty: nothing has to."""

    name: str
    head: str = "virtual_server 192.0.2.{n} 80"
    settings: str = "lvs_sched rr\nlvs_method NAT"
    protocol: str = "TCP"
    servers: int = 2
    checker: str = TCP
    server_settings: tuple[str, ...] = ()
    serves: str = "tcp"
    group: str = ""
    six: bool = False
    has_port: bool = True
    """Its real servers have one in the file; they listen at 80 all the same."""
    port: int = 80

    def address(self, n: int, last: int) -> str:
        return f"fd66:{n:x}::{last}" if self.six else f"10.66.{n}.{last}"


SORRY = "sorry_server 10.66.{n}.9 80"
NAT = "lvs_sched rr\nlvs_method NAT"
DR = "lvs_sched rr\nlvs_method DR"
TUNNEL = "lvs_sched rr\nlvs_method TUN"
V6 = "virtual_server 2001:db8::{h} 80"
MARK = "virtual_server fwmark 1{n}"
GROUP = "virtual_server group G{n}"


def _scheduler(name: str) -> Entry:
    return Entry(f"scheduler {name}", settings=f"lvs_sched {name}\nlvs_method NAT")


ENTRIES = (
    Entry("NAT"),
    Entry("weights", settings="lvs_sched wrr\nlvs_method NAT", server_settings=("weight 3", "weight 5")),
    Entry("DR", settings="lvs_sched wlc\nlvs_method DR"),
    Entry("tunnel", settings=TUNNEL),
    Entry("gue", settings=f"{TUNNEL} type gue port 6080 nocsum"),
    Entry("gue, remote checksum", settings=f"{TUNNEL} type gue port 6080 remcsum"),
    Entry("gre", settings=f"{TUNNEL} type gre csum"),
    Entry("sh", settings="lvs_sched sh\nsh-port\nsh-fallback\nlvs_method DR"),
    Entry("mh", settings="lvs_sched mh\nmh-port\nlvs_method DR"),
    *(_scheduler(name) for name in ("lc", "lblc", "lblcr", "dh", "fo", "ovf", "sed", "nq")),
    Entry(
        "persistence",
        settings=f"{DR}\npersistence_timeout 300\npersistence_granularity 255.255.255.0",
    ),
    Entry("persistence bare", settings=f"{DR}\npersistence_timeout"),
    Entry("no port", head="virtual_server 192.0.2.{n}", settings=DR, has_port=False, checker=TCP_80),
    Entry("IPv6", head=V6, six=True),
    Entry(
        "IPv6 persistence",
        head=V6,
        six=True,
        settings=f"{DR}\npersistence_timeout 60\npersistence_granularity 64",
    ),
    Entry("IPv6 by IPv4 tunnels", head=V6, settings=TUNNEL),
    Entry("IPv4 by IPv6 tunnels", six=True, settings=TUNNEL),
    Entry("mark", head=MARK, settings=DR, protocol="", has_port=False, checker=TCP_80),
    Entry(
        "mark of IPv6",
        head=MARK,
        six=True,
        settings=f"ip_family inet6\n{DR}",
        protocol="",
        has_port=False,
        checker=TCP_80,
    ),
    Entry("group", head=GROUP, group="203.0.113.1 80\n203.0.113.2-5 81\n203.0.113.16/30 82"),
    Entry("group of ports by DR", head=GROUP, group="203.0.113.41 80\n203.0.113.42 81", settings=DR),
    Entry(
        "group by tunnels",
        head=GROUP,
        group="203.0.113.51 82\n203.0.113.52-53 80",
        settings=f"{TUNNEL}\n{SORRY}",
        servers=1,
    ),
    Entry(
        "group of marks",
        head=GROUP,
        group="fwmark 2{n}\nfwmark 3{n}",
        settings=DR,
        protocol="",
        has_port=False,
        checker=TCP_80,
    ),
    Entry("group of IPv6", head=GROUP, group="2001:db8:1::1 80\n2001:db8:1::10-13 80", six=True),
    Entry("sorry", servers=1, settings=f"{NAT}\n{SORRY}"),
    Entry("sorry inhibited", servers=1, settings=f"{NAT}\n{SORRY}\nsorry_server_inhibit"),
    Entry("inhibit", server_settings=("inhibit_on_failure", "inhibit_on_failure")),
    Entry("quorum", servers=3, settings=f"{NAT}\nquorum 3\nhysteresis 0\n{SORRY}"),
    Entry("hysteresis", servers=3, settings=f"{NAT}\nquorum 2\nhysteresis 1"),
    Entry("alpha", settings=f"{NAT}\nalpha"),
    Entry("omega", settings=f"{NAT}\nomega"),
    Entry("thresholds", server_settings=("uthreshold 100\nlthreshold 50", "uthreshold 9")),
    Entry("weight 0", server_settings=("weight 0", "weight 1")),
    Entry("methods mixed", server_settings=("lvs_method DR", "lvs_method TUN")),
    Entry("SCTP", protocol="SCTP"),
    Entry("one packet", protocol="UDP", settings=f"{NAT}\nops", checker=UDP, serves="udp"),
    Entry("two checkers", checker=f"{TCP}\n{PING}"),
    Entry("HTTP", checker=HTTP, serves="http"),
    Entry("TLS", checker=SSL, serves="tls"),
    Entry("SMTP", checker=SMTP, serves="smtp"),
    Entry("DNS", protocol="UDP", checker=DNS, serves="dns"),
    Entry("ping", checker=PING, serves="ping"),
    Entry("script", checker=MISC, serves="script"),
    Entry("file", checker=FILE, serves="file"),
    Entry("no checker", checker="", serves=""),
)


def configuration(directory: Path, entries: tuple[Entry, ...] = ENTRIES, *, changed: bool = False) -> str:
    """The file. ``changed``: every service with another scheduler, weights and one server more."""
    parts = [
        "global_defs {\n router_id test\n script_user root\n enable_script_security\n"
        " checker_log_all_failures false\n}"
    ]
    for last in (1, 2, 3):
        parts.append(f"track_file f{last} {{\n file {directory}/file{last}\n}}")
    for n, entry in enumerate(entries, 1):
        if entry.group:
            parts.append(f"virtual_server_group G{n} {{\n{entry.group.replace('{n}', str(n))}\n}}")
        parts.append(_virtual_server(n, entry, directory, changed))
    return "\n".join(parts) + "\n"


def _virtual_server(n: int, entry: Entry, directory: Path, changed: bool) -> str:
    settings = entry.settings
    if changed:
        settings = settings.replace("lvs_sched rr", "lvs_sched wrr").replace("timeout 300", "timeout 200")
    lines = [entry.head + " {", f"delay_loop {DELAY_LOOP}", settings]
    if entry.protocol:
        lines.append(f"protocol {entry.protocol}")
    for last in range(1, entry.servers + 1 + changed):
        lines.append(_real_server(n, last, entry, directory, changed))
    return "\n".join([*lines, "}"]).replace("{n}", str(n)).replace("{h}", f"{n:x}")


def _real_server(n: int, last: int, entry: Entry, directory: Path, changed: bool) -> str:
    own = entry.server_settings[last - 1] if last <= len(entry.server_settings) else ""
    if changed and last == 2:
        own = own.replace("weight 5", "weight 7") if "weight" in own else own + "\nweight 4"
    address = entry.address(n, last)
    checker = entry.checker
    if entry.serves in ("script", "file"):
        checker = checker.format(script=f"{directory}/check.sh", address=address, last=last)
    port = f" {entry.port}" if entry.has_port else ""
    return f"real_server {address}{port} {{\n{own}\n{checker}\n}}"
