"""Random virtual servers that keepalived and kad both take: a seed makes a file, and a change of it another.

    site = RandomSite(seed, place)
    site.text()                     # the file
    site.targets                    # what its checkers look at
    site.change()                   # services and servers come, go and change; text() is another now
    site.alive({target, …})         # which servers should be up when only these answer

Service N has servers 10.66.N.1 and up (fd66:N::1 and up). ``place`` holds the scripts and files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from msgspec import Struct

BODY = b"ok\n"
"""What every web server says."""
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "fo", "ovf", "sed", "nq")
DATAGRAMS = ("udp", "dns")
HASHING = ("sh", "mh")
TUNNELS = ("TUN", "TUN type gue port 6080 nocsum", "TUN type gue port 6080 remcsum", "TUN type gre csum")
METHODS = ("NAT", "DR", *TUNNELS)
TOLD = '#!/bin/sh\necho "$@" >>{place}/told\n'
CHECK = "#!/bin/sh\n[ -e {place}/dead-$1 ] && exit 1\n"
CHECK += "[ $2 != 0 ] && [ -e {place}/status-$1 ] && exit $(cat {place}/status-$1)\nexit $2\n"


class Target(Struct, frozen=True, order=True):
    """Something a checker looks at. ``port`` is 0 for pings, scripts and files."""

    kind: str
    address: str
    port: int = 0


@dataclass(frozen=True)
class Check:
    text: str
    target: Target
    hopeless: bool = False
    """It asks for what no server answers."""


@dataclass(frozen=True)
class Server:
    address: str
    port: int | None
    settings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def key(self) -> tuple[str, int | None]:
        return self.address, self.port


@dataclass
class Service:
    number: int
    head: str
    six: bool
    has_port: bool
    port: int
    address: str = ""
    """Its own, where it has one that ha_suspend looks for."""
    is_suspended: bool = False
    """Asks for ha_suspend, and has its address elsewhere."""
    group: str = ""
    method: str = "NAT"
    protocol: str = ""
    inhibits: bool = False
    sorry: str = ""
    settings: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    """Settings that stand after the servers."""
    servers: list[Server] = field(default_factory=list)


def prepare(place: Path) -> None:
    for name, text in (("told.sh", TOLD), ("check.sh", CHECK)):
        script = place / name
        script.write_text(text.format(place=place))
        script.chmod(0o755)


class RandomSite:
    """``size``: virtual servers."""

    def __init__(self, seed: int, place: Path, size: int = 10) -> None:
        self._random = Random(seed)
        self._place = place
        self._next = 1
        self._settings = [
            words
            for words, chance in (
                ("rs_init_notifies", 0.3),
                ("checker_log_all_failures true", 0.2),
            )
            if self._random.random() < chance
        ]
        self._begun = False
        self.services = [self._service() for _ in range(size)]
        self._begun = True

    # What comes of it ------------------------------------------------------------------------------------

    def text(self) -> str:
        parts = [
            "global_defs {\n router_id test\n script_user root\n enable_script_security\n"
            f" lvs_notify_fifo {self._place}/pipe\n",
            *self._settings,
            "}",
        ]
        for target in sorted(t for t in self.targets if t.kind == "file"):
            parts.append(f"track_file {target.address} {{\n file {self._place}/{target.address}\n}}")
        parts += [text for service in self.services if (text := service.group)]
        parts += [_virtual_server(service) for service in self.services]
        return "\n".join(parts) + "\n"

    @property
    def targets(self) -> set[Target]:
        return {check.target for s in self.services for server in s.servers for check in server.checks}

    @property
    def addresses(self) -> set[str]:
        """Those that have to be here: of real servers, and of whom their checkers turn to."""
        own = {server.address for service in self.services for server in service.servers}
        here = {s.address for s in self.services if s.address and not s.is_suspended}
        return own | here | {t.address for t in self.targets if t.kind != "file"}

    def alive(self, answering: set[Target]) -> dict[int, int]:
        """By virtual server, as they stand in the file, but for suspended ones: how many servers are up."""
        found = {}
        for number, service in enumerate(self.services):
            if service.is_suspended:
                continue
            up = 0
            for server in {each.key: each for each in reversed(service.servers)}.values():
                up += all(c.target in answering and not c.hopeless for c in server.checks)
            found[number] = up
        return found

    # Changing it -----------------------------------------------------------------------------------------

    def change(self) -> None:
        """As an administrator would, and then some."""
        random = self._random
        for service in list(self.services):
            match random.choice(("leave", "leave", "remove", "settings", "servers", "servers", "both")):
                case "remove" if len(self.services) > 3:
                    self.services.remove(service)
                case "settings":
                    self._resettle(service)
                case "servers":
                    self._alter_servers(service)
                case "both":
                    self._resettle(service)
                    self._alter_servers(service)
                case _:
                    pass
        for _ in range(random.randrange(3)):
            self.services.append(self._service())
        random.shuffle(self.services)

    def _alter_servers(self, service: Service) -> None:
        random = self._random
        kept = []
        for server in service.servers:
            match random.randrange(5):
                case 0:
                    continue
                case 1:
                    kept.append(replace(server, settings=self._other_settings(service, server)))
                case 2:
                    checks = self._checks(service, server.address, server.port, server.checks)
                    kept.append(replace(server, checks=checks))
                case _:
                    kept.append(server)
        last = max((int(s.address.rpartition(".")[2].rpartition(":")[2]) for s in service.servers), default=0)
        if service.sorry:
            # Servers that are new keepalived puts into the kernel beside a sorry server that serves.
            kept = kept or service.servers
        elif random.random() < 0.5 or all("weight 0" in server.settings for server in kept):
            # Without any weight keepalived reckons with a hysteresis of 2^32 - 1.
            kept.append(self._server(service, last + 1 + (last % 2)))
        random.shuffle(kept)
        service.servers = kept

    # Services --------------------------------------------------------------------------------------------

    def _service(self) -> Service:
        random, n = self._random, self._next
        self._next += 1
        six = random.random() < 0.3
        port = random.choice((80, 443, 8000 + n))
        vip = f"2001:db8::{n:x}" if six else f"192.0.2.{n}"
        kind = random.choice(("address",) * 5 + ("no port", "mark", "group", "group", "marks"))
        service = Service(n, f"virtual_server {vip} {port}", six, True, port)
        if kind == "no port":
            service.head, service.has_port, service.port = f"virtual_server {vip}", False, 0
        elif kind == "mark":
            service.head, service.has_port, service.port = f"virtual_server fwmark {100 + n}", False, 0
        elif kind in ("group", "marks"):
            service.head = f"virtual_server group G{n}"
            service.has_port = kind == "group"
            service.port = port if kind == "group" else 0
            service.group = f"virtual_server_group G{n} {{\n{self._group(service, kind)}\n}}"
        elif random.random() < 0.15 and not self._begun:
            # Of what a reload adds keepalived does not know whether its address is here.
            service.address, service.is_suspended = vip, random.random() < 0.5
        self._resettle(service)
        for last in range(1, random.choice((1, 2, 2, 3, 3, 4)) + 1):
            service.servers.append(self._server(service, last))
        return service

    def _group(self, service: Service, kind: str) -> str:
        random, n, port = self._random, service.number, service.port
        if kind == "marks":
            return "\n".join(f"fwmark {1000 + 10 * n + each}" for each in range(random.choice((1, 2, 3))))
        net = f"2001:db8:{n:x}:" if service.six else f"198.51.{n}."
        lines = (
            [f"{net}:1 {port}", f"{net}:10-13 {port}", f"{net}:20 {port}"]
            if service.six
            else [f"{net}1 {port}", f"{net}10-13 {port}", f"{net}32/30 {port}"]
        )
        return "\n".join(random.sample(lines, random.choice((1, 2, 3))))

    def _resettle(self, service: Service) -> None:
        """Everything but its address and servers, anew."""
        random = self._random
        marks = "fwmark" in service.head or "fwmark" in service.group
        service.settings, service.late = [f"delay_loop {random.choice((1, 2))}"], []
        add = service.settings.append
        if not service.servers and not marks:
            service.protocol = random.choice(("TCP",) * 4 + ("UDP", "SCTP"))
        if service.protocol:
            add(f"protocol {service.protocol}")
        if marks and "group" not in service.head and (service.six or random.random() < 0.5):
            add(f"ip_family {'inet6' if service.six else 'inet'}")
        if marks and "group" in service.head and service.six:
            add("ip_family inet6")
        self._scheduler(service, marks or service.protocol == "UDP")
        if not service.servers:
            service.method = random.choice(METHODS if service.has_port else METHODS[1:])
            service.inhibits = random.random() < 0.15 and not service.group
        add(f"lvs_method {service.method}")
        if service.inhibits:
            add("inhibit_on_failure")
        if service.address:
            add("ha_suspend")
        self._persistence(service)
        self._quorum(service)
        for words, chance in (
            ("alpha", 0.2), ("omega", 0 if service.sorry else 0.3), ("smtp_alert", 0.1),
            (f"weight {random.choice((1, 2, 100))}", 0.2), (f"retry {random.choice((1, 2))}", 0.3),
            ("delay_before_retry 1", 0.3), ("warmup 1", 0.7), ("connect_timeout 2", 0.4),
        ):  # fmt: skip
            if random.random() < chance:
                (service.late if random.random() < 0.1 else service.settings).append(words)

    def _scheduler(self, service: Service, may_be_single: bool) -> None:
        random, add = self._random, service.settings.append
        word = random.choice(("lvs_sched", "lb_algo"))
        if random.random() < 0.2:
            name = random.choice(HASHING)
            flags = random.sample((f"{name}-port", f"{name}-fallback"), random.randrange(3))
            add("\n".join((f"{word} {name}", *flags)))
        else:
            add(f"{word} {random.choice(SCHEDULERS)}")
        if may_be_single and random.random() < 0.3:
            add("ops")

    def _persistence(self, service: Service) -> None:
        random, add = self._random, service.settings.append
        if random.random() < 0.3:
            add(random.choice(("persistence_timeout", f"persistence_timeout {random.choice((10, 300))}")))
            if random.random() < 0.5 and not service.group:
                # keepalived forgets it for groups.
                bits = (
                    random.choice((64, 96))
                    if service.six
                    else random.choice(("255.255.255.0", "255.255.0.0"))
                )
                add(f"persistence_granularity {bits}")

    def _quorum(self, service: Service) -> None:
        random, add, n = self._random, service.settings.append, service.number
        if random.random() < 0.4:
            quorum = random.choice((1, 2, 3, 5))
            add(f"quorum {quorum}")
            if quorum > 1 and random.random() < 0.5:
                add(f"hysteresis {random.randrange(quorum)}")
        for way in ("up", "down"):
            if random.random() < 0.6:
                add(f'quorum_{way} "{self._place}/told.sh quorum {n} {way}"')
        if service.sorry:
            # What a reload changes about it keepalived forgets to change in the kernel.
            add(service.sorry)
        elif not service.servers and random.random() < 0.5:
            last = random.randrange(20, 100)
            sorry = f"fd66:{n:x}::{last}" if service.six else f"10.66.{n}.{last}"
            lines = [f"sorry_server {sorry}" + (f" {service.port}" if service.has_port else "")]
            if random.random() < 0.3 and (service.has_port or not service.group):
                # Of a group of marks keepalived leaves it in the kernel at its end.
                lines.append("sorry_server_inhibit")
            if random.random() < 0.3 and service.has_port:
                lines.append(f"sorry_server_lvs_method {random.choice(METHODS)}")
            service.sorry = "\n".join(lines)
            add(service.sorry)

    # Servers ---------------------------------------------------------------------------------------------

    def _server(self, service: Service, last: int) -> Server:
        random = self._random
        six = service.six
        if service.method.startswith("TUN") and not service.group and random.random() < 0.2:
            six = not six
        address = f"fd66:{service.number:x}::{last:x}" if six else f"10.66.{service.number}.{last}"
        port: int | None = service.port or None
        if service.has_port and service.method == "NAT":
            port = random.choice((service.port, 8080, 9000 + last))
        if port == service.port and not service.group and random.random() < 0.1:
            port = None
        settings = self._server_settings(service, address)
        if last % 2:
            settings = tuple(words for words in settings if words != "weight 0")
        return Server(address, port, settings, self._checks(service, address, port))

    def _server_settings(self, service: Service, address: str) -> tuple[str, ...]:
        random = self._random
        found = []
        for words, chance in (
            (f"weight {random.choice((0, 1, 2, 3, 7))}", 0.5),
            (f"uthreshold {random.choice((50, 100))}", 0.15),
            # The kernel takes none that is above the other.
            (f"uthreshold 60\nlthreshold {random.choice((0, 10, 40))}", 0.15),
            (f"inhibit_on_failure {random.choice(('', 'true', 'false'))}", 0.15),
            (f"alpha {random.choice(('', 'true', 'false'))}", 0.1),
            ("retry 1", 0.2), ("delay_before_retry 1", 0.2), ("connect_timeout 1.5", 0.2),
            ("delay_loop 1", 0.2), ("warmup 0", 0.2), ("virtualhost example.org", 0.1),
            (f'notify_up "{self._place}/told.sh server {address} up"', 0.6),
            (f'notify_down "{self._place}/told.sh server {address} down"', 0.6),
        ):  # fmt: skip
            if random.random() < chance:
                found.append(words.strip())
        if service.group:
            # keepalived leaves them in the kernel when a reload removes them.
            found = [words for words in found if "inhibit" not in words]
        if service.has_port and random.random() < 0.15 and ((":" in address) == service.six):
            same = METHODS if service.method == "NAT" else METHODS[1:]
            found.append(f"lvs_method {random.choice(same)}")
        return tuple(found)

    def _other_settings(self, service: Service, server: Server) -> tuple[str, ...]:
        """But for those that a reload of keepalived does not change in the kernel."""
        fresh = self._server_settings(service, server.address)
        return (*filter(_stays, server.settings), *(words for words in fresh if not _stays(words)))

    def _checks(
        self, service: Service, address: str, port: int | None, former: tuple[Check, ...] = ()
    ) -> tuple[Check, ...]:
        random = self._random
        kinds = ["tcp"] * 4 + ["http", "http", "tls", "smtp", "udp", "dns", "ping", "script", "file"]
        # Whose last check goes is up, and keepalived then forgets that the sorry server serves.
        wanted = random.sample(kinds, random.choice((1 if former else 0, 1, 1, 1, 1, 2, 2, 3)))
        used = {c.target.port * 2 + (c.target.kind in DATAGRAMS): c.target.kind for c in former}
        return tuple(self._check(kind, service, address, port, used) for kind in wanted)

    def _check(
        self, kind: str, service: Service, address: str, port: int | None, used: dict[int, str]
    ) -> Check:
        random = self._random
        hopeless = False
        schedule = [
            words
            for words, chance in (
                (f"retry {random.choice((0, 1, 2))}", 0.7), ("delay_before_retry 1", 0.7),
                ("warmup 1", 0.7), ("delay_loop 1", 0.2), ("log_all_failures true", 0.2),
            )
            if random.random() < chance
        ]  # fmt: skip
        if kind == "file":
            name = "f" + address.replace(":", "_").replace(".", "_")
            weight = random.choice(("", "weight 1", "weight 2", "weight 1 reverse"))
            # Reversed, what is meant to kill would raise it.
            weight = "" if "reverse" in weight else weight
            return Check(f"FILE_CHECK {{\ntrack_file {name}\n{weight}\n}}", Target("file", name))
        if kind == "script":
            dynamic = random.random() < 0.5
            # A status of 0 is the configured weight; keepalived takes it for 0 at a reload.
            status = random.choice((5, 12)) if dynamic else 0
            words = [f'misc_path "{self._place}/check.sh {address} {status}"', "misc_timeout 5"]
            words += ["misc_dynamic"] if dynamic else []
            target = Target("dynamic" if dynamic else "script", address)
            return Check(_block("MISC_CHECK", words + schedule), target)
        where, at, lines = self._place_of(kind, service, address, port, used)
        words = [*lines, *schedule, "connect_timeout 2"]
        keyword = {"tcp": "TCP", "smtp": "SMTP", "dns": "DNS", "udp": "UDP", "ping": "PING"}.get(kind)
        if kind in ("http", "tls"):
            urls, hopeless = self._urls()
            keyword = "HTTP_GET" if kind == "http" else "SSL_GET"
            extra = [random.choice(("http_protocol 1.0", "http_protocol 1.1", "http_protocol 1.0C", ""))]
            extra += ["fast_recovery"] if random.random() < 0.2 else []
            extra += ["enable_sni"] if kind == "tls" and random.random() < 0.3 else []
            return Check(_block(keyword, urls + extra + words), Target(kind, where, at), hopeless)
        if kind == "dns":
            words += [f"type {random.choice(('A', 'SOA', 'TXT'))}", "name example.com"]
        if kind == "udp" and random.random() < 0.6:
            words += ["require_reply"]
        if kind == "smtp" and random.random() < 0.5:
            words += ["helo_name me.example.org"]
        return Check(_block(f"{keyword}_CHECK", words), Target(kind, where, at))

    def _urls(self) -> tuple[list[str], bool]:
        random = self._random
        urls, hopeless = [], False
        for path in random.sample(("/", "/a", "/b?c=d"), random.choice((1, 1, 2, 3))):
            match random.choice(("code", "code", "digest", "regex", "wrong")):
                case "code":
                    demand = random.choice(("status_code 200", "status_code 200-299 404", ""))
                case "digest":
                    demand = f"digest {hashlib.md5(BODY).hexdigest()}"
                case "regex":
                    demand = 'regex "o[k]"'
                case _:
                    wrong = random.random() < 0.4
                    hopeless |= wrong
                    demand = "status_code 404" if wrong else "status_code 200"
            urls.append(f"url {{\npath {path}\n{demand}\n}}")
        return urls, hopeless

    def _place_of(
        self, kind: str, service: Service, address: str, port: int | None, used: dict[int, str]
    ) -> tuple[str, int, list[str]]:
        """Where a checker connects to: address, port, and what says so."""
        random = self._random
        lines = []
        where = address
        if random.random() < 0.15:
            where = address + "1"
            lines.append(f"connect_ip {where}")
        if random.random() < 0.15:
            # Without that address keepalived has pings and datagrams fail, and puts off everything else.
            bound = "bind_if lo" if kind in ("ping", "udp") else f"bindto {where}"
            lines.append(random.choice((bound, "bind_if lo", "fwmark 7")))
        if kind == "ping":
            return where, 0, lines
        datagrams = kind in DATAGRAMS
        # keepalived 2.2.7 looks at port 0 where none is written.
        at = port or 0
        taken = used.get(at * 2 + datagrams)
        if not at or random.random() < 0.4 or taken not in (None, kind):
            at = 7000 + ("tcp", "http", "tls", "smtp", "udp", "dns").index(kind)
            lines.append(f"connect_port {at}")
        used[at * 2 + datagrams] = kind
        return where, at, lines


def _stays(words: str) -> bool:
    return any(word in words for word in ("threshold", "inhibit", "lvs_method"))


def _block(keyword: str, words: list[str]) -> str:
    return "\n".join([f"{keyword} {{", *(word for word in words if word), "}"])


def _virtual_server(service: Service) -> str:
    lines = [f"{service.head} {{", *service.settings]
    for server in service.servers:
        port = f" {server.port}" if server.port is not None else ""
        checks = [check.text for check in server.checks]
        lines += [f"real_server {server.address}{port} {{", *server.settings, *checks, "}"]
    return "\n".join([*lines, *service.late, "}"])
