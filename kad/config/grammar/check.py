"""Rows of load balancing: SSL, virtual_server_group, virtual_server and real_server.

Servers are kept as frames while the file is read, since what they inherit may stand below them; they become
values in :mod:`kad.config.inheritance`.
"""

from __future__ import annotations

import ipaddress

from msgspec import structs

from kad.addresses import family_of
from kad.config.grammar.checkers import CHECKER_ROWS
from kad.config.grammar.connection import CONNECT_TIMEOUT, DELAY, PERIOD, SUFFERED, VIRTUALHOST
from kad.config.grammar.endpoint import Endpoint, read_endpoint
from kad.config.grammar.forwarding import forwarding
from kad.config.grammar.virtual_server_group import FAMILIES, VIRTUAL_SERVER_GROUP
from kad.config.model.check import (
    DEFAULT_PERSISTENCE_TIMEOUT,
    SCHEDULERS,
    WEIGHT_LIMIT,
    CheckConfiguration,
    ForwardingMethod,
    Protocol,
    RealServer,
    SslContext,
    VirtualServer,
)
from kad.config.schema import CHECK, CLOSING, NOTHING, Block, Frame, Kind, Reading, Repeat, Row, acting, opens
from kad.config.scripts import script
from kad.config.services import configuration
from kad.config.tree import Statement
from kad.config.values import UNSIGNED_MAX, boolean, choice, flag, integer, number_of, word
from kad.errors import ExitStatus, Severity

MONTH_S = 31 * 86_400
PERSISTENCE_ENGINE_LENGTH = 15

# SSL


def _close_ssl(reading: Reading, frame: Frame) -> SslContext:
    settings = SslContext(**frame.fields)
    problem = reading.machine.ssl_problem(settings) if reading.machine is not None else None
    if problem is not None:
        reading.report(
            Severity.WARNING if problem.usable else Severity.ERROR,
            "ssl-files",
            problem.text,
            frame,
            frame.statement,
            status=ExitStatus.OK,
            machine=True,
        )
    return settings


def _ssl_row(keyword: str, field: str, help: str) -> Row:
    return Row(keyword, word("value", soft=True), help, field, repeat=Repeat.LAST_SAID)


SSL = Block(
    "SSL",
    acting(
        (
            _ssl_row("password", "password", "Opens the key."),
            _ssl_row("ca", "ca_file", "Certificates of authorities."),
            _ssl_row("certificate", "certificate_file", "The certificate SSL_GET presents."),
            _ssl_row("key", "key_file", "The key of that certificate."),
        )
    ),
    close=_close_ssl,
    model=SslContext,
    roles=CHECK,
)


# real_server


def _open_real_server(reading: Reading, frame: Frame) -> bool:
    assert frame.statement is not None and frame.parent is not None
    endpoint = read_endpoint(reading, frame, frame.statement)
    if endpoint is None:
        return False
    frame.fields["address"] = endpoint.address
    frame.fields["port"] = endpoint.port
    # The method as it is here: a later lb_kind reaches only servers that found none.
    if "forwarding" in frame.parent.fields:
        frame.fields["forwarding"] = frame.parent.fields["forwarding"]
    return True


def _close_real_server(reading: Reading, frame: Frame) -> object:
    """Unless it is reached through a tunnel, a server is of the service's family, or gives it one."""
    assert frame.statement is not None and frame.parent is not None
    forwarding = frame.fields.get("forwarding")
    if forwarding is not None and forwarding.method is ForwardingMethod.TUNNEL:
        return frame
    service = frame.parent.fields
    family = family_of(frame.fields["address"])
    if service.setdefault("family", family) == family:
        return frame
    reading.error(
        "family-mismatch",
        f"real_server {frame.fields['address']} is not of the virtual_server's family; it is ignored",
        frame,
        frame.statement,
        1,
        remedy="lvs_method TUN, or an address of the other family",
    )
    return NOTHING


_DEFAULT_VS = "the virtual server's"

REAL_SERVER = Block(
    "virtual_server/real_server",
    acting((
        Row("weight", integer(0, WEIGHT_LIMIT), "Its share of the clients; 0: none.", default=_DEFAULT_VS),
        Row(
            "lvs_method",
            forwarding("forwarding"),
            "How packets reach it.",
            "forwarding",
            default="the virtual server's",
        ),
        Row("uthreshold", integer(0, UNSIGNED_MAX), "Connections above which it gets no new ones; 0: any.",
            "upper_threshold"),
        Row("lthreshold", integer(0, UNSIGNED_MAX), "Connections below which it gets new ones again.",
            "lower_threshold"),
        Row("inhibit_on_failure", boolean(), "While down it keeps weight 0 instead of being removed.",
            default=_DEFAULT_VS),
        Row("notify_up", script(), "Run when the server comes up.", repeat=Repeat.FIRST),
        Row("notify_down", script(), "Run when the server goes down.", repeat=Repeat.FIRST),
        Row("alpha", boolean(), "Down until a check has succeeded.", default=_DEFAULT_VS),
        Row("retry", integer(1, UNSIGNED_MAX), "Failures in a row that its checkers tolerate.",
            default=_DEFAULT_VS),
        Row("delay_before_retry", DELAY, "Pause before a failed check is repeated.", "delay_before_retry_us",
            default=_DEFAULT_VS),
        Row("warmup", DELAY, "First checks are delayed by a random time up to this.", "warmup_us",
            default=_DEFAULT_VS),
        Row("connect_timeout", CONNECT_TIMEOUT, "Time its checkers allow for connecting and answering.",
            "connect_timeout_us", default=_DEFAULT_VS),
        Row("delay_loop", PERIOD, "Time between checks.", "delay_loop_us", default=_DEFAULT_VS),
        Row("smtp_alert", boolean(), "Mail when it goes up or down.", default="the global one, else on"),
        Row("virtualhost", VIRTUALHOST, "Host header of requests to it.", repeat=Repeat.LAST_SAID),
        Row("snmp_name", word("name", soft=True),
            "Its label in `kadctl status` and dumps; SNMP itself is not served.", repeat=Repeat.LAST_SAID),
        *CHECKER_ROWS,
    )),
    open=_open_real_server,
    close=_close_real_server,
    model=RealServer,
    roles=CHECK,
    parameters=2,
)  # fmt: skip


# virtual_server


def _open_virtual_server(reading: Reading, frame: Frame) -> bool:
    statement = frame.statement
    assert statement is not None
    words = statement.texts
    if len(words) < 2 or (len(words) < 3 and words[1] in ("fwmark", "group")):
        reading.missing(frame, statement, "address" if len(words) < 2 else "value")
        return False
    fields = frame.fields
    if words[1] == "group":
        fields["group"] = words[2]
        return True
    if words[1] == "fwmark":
        mark = number_of(reading, frame, statement, 2, 1, UNSIGNED_MAX)
        fields["fwmark"] = mark
        return mark is not None
    endpoint = read_endpoint(reading, frame, statement)
    if endpoint is None:
        return False
    fields["address"] = endpoint.address
    fields["port"] = endpoint.port
    fields["family"] = family_of(endpoint.address)
    return True


def _ip_family(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "family")
        return NOTHING
    text = statement.texts[1]
    family = FAMILIES.get(text)
    if family is None:
        problem, remedy = f"no address family '{text}'", "inet or inet6"
    elif frame.fields.get("family", family) != family:
        problem, remedy = f"the virtual_server is not of family '{text}'", "remove the line"
    else:
        return family
    reading.error("bad-family", f"{problem}; the line is ignored", frame, statement, 1, remedy=remedy)
    return NOTHING


_SCHEDULER_FLAGS = {"flag-1": 1, "flag-2": 2, "flag-3": 3}
_FLAGS_OF_SCHEDULER = {"sh-fallback": ("sh", 1), "sh-port": ("sh", 2), "mh-fallback": ("mh", 1),
                       "mh-port": ("mh", 2)}  # fmt: skip


def _scheduler_flag(reading: Reading, frame: Frame, statement: Statement) -> object:
    keyword = statement.texts[0]
    flags: set[int] = frame.fields.get("scheduler_flags", set())
    if keyword in _SCHEDULER_FLAGS:
        return flags | {_SCHEDULER_FLAGS[keyword]}
    wanted, number = _FLAGS_OF_SCHEDULER[keyword]
    given = frame.fields.get("scheduler", "")
    if given == wanted:
        return flags | {number}
    _flag_without_effect(
        reading, frame, statement, f"'{keyword}' has no effect without 'lvs_sched {wanted}' above it",
        f"lvs_sched {wanted}, above this line",
    )  # fmt: skip
    return NOTHING


SCHEDULER_FLAG = Kind("flag", _scheduler_flag, takes=0)


def _hashed(reading: Reading, frame: Frame, statement: Statement) -> object:
    _flag_without_effect(reading, frame, statement, "'hashed' has had no effect for long", "remove the line")
    return NOTHING


def _flag_without_effect(
    reading: Reading, frame: Frame, statement: Statement, what: str, remedy: str
) -> None:
    """Next to a hashing scheduler keepalived says nothing of flags that are not for it."""
    hashing = frame.fields.get("scheduler") in ("sh", "mh")
    status = SUFFERED if hashing else ExitStatus.CONFIG_ERRORS
    reading.error("no-effect", what, frame, statement, 0, remedy=remedy, status=status)


def _persistence_engine(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "name")
        return NOTHING
    name = statement.texts[1]
    if len(name) > PERSISTENCE_ENGINE_LENGTH:
        name = name[:PERSISTENCE_ENGINE_LENGTH]
        reading.warning(
            "too-long",
            f"an engine's name has at most {PERSISTENCE_ENGINE_LENGTH} characters: '{name}' is used",
            frame,
            statement,
            1,
        )  # fmt: skip
    return name


def _persistence_granularity(reading: Reading, frame: Frame, statement: Statement) -> object:
    """Gives the service a family and a timeout when it has none, as keepalived does."""
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "netmask")
        return NOTHING
    text = statement.texts[1]
    family = frame.fields.get("family", 4 if "." in text else 6)
    if family == 6:
        length = number_of(reading, frame, statement, 1, 1, 128)
        value = None if length is None else str(length)
    else:
        value = _netmask(reading, frame, statement)
    if value is None:
        return NOTHING
    frame.fields.setdefault("family", family)
    if not frame.fields.get("persistence_timeout"):
        frame.fields["persistence_timeout"] = DEFAULT_PERSISTENCE_TIMEOUT
    return value


def _netmask(reading: Reading, frame: Frame, statement: Statement) -> str | None:
    text = statement.texts[1]
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        # keepalived reads a bare number as an address, 24 as 0.0.0.24: an error nobody is told of.
        number = text.isascii() and text.isdigit()
        reading.error(
            "bad-netmask",
            f"'{text}' is not an IPv4 netmask; the line is ignored",
            frame,
            statement,
            1,
            remedy="255.255.255.0, say",
            status=SUFFERED if number else ExitStatus.CONFIG_ERRORS,
        )
        return None


def _quorum(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "number")
        return NOTHING
    return number_of(reading, frame, statement, 1, 1, UNSIGNED_MAX) or 1


def _sorry_server(reading: Reading, frame: Frame, statement: Statement) -> object:
    """Forgets what was said of an earlier sorry server."""
    endpoint = read_endpoint(reading, frame, statement)
    if endpoint is None:
        return NOTHING
    frame.fields.pop("sorry_inhibit", None)
    frame.fields.pop("sorry_forwarding", None)
    if "forwarding" in frame.fields:
        frame.fields["sorry_forwarding"] = frame.fields["forwarding"]
    return endpoint


def _after_sorry_server(kind: Kind) -> Kind:
    """Only below the sorry_server it is about."""
    inner = kind.read

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        if "sorry_server" in frame.fields:
            assert inner is not None
            return inner(reading, frame, statement)
        keyword = statement.texts[0]
        reading.error(
            "too-early",
            f"'{keyword}' is ignored: no sorry_server stands above it",
            frame,
            statement,
            0,
            remedy=f"'{keyword}' below 'sorry_server'",
        )
        return NOTHING

    return structs.replace(kind, read=read)


def _close_virtual_server(reading: Reading, frame: Frame) -> object:
    statement = frame.statement
    assert statement is not None
    if not frame.fields.get("real_servers"):
        reading.error(
            "no-real-server",
            f"virtual_server {frame.name} has no real_server; it is ignored",
            frame,
            statement,
            CLOSING,
            remedy="real_server ADDRESS PORT { … }",
        )
        return NOTHING
    _match_sorry_server(reading, frame)
    if "family" not in frame.fields and "group" not in frame.fields:
        frame.fields["family"] = _common_family(frame)
    return frame


def _match_sorry_server(reading: Reading, frame: Frame) -> None:
    """A sorry server of another family is dropped; one gives its family to a service without."""
    fields = frame.fields
    sorry = fields.get("sorry_server")
    forwarding = fields.get("sorry_forwarding")
    if sorry is None or (forwarding is not None and forwarding.method is ForwardingMethod.TUNNEL):
        return
    assert isinstance(sorry, Endpoint)
    family = family_of(sorry.address)
    if fields.setdefault("family", family) != family:
        reading.error(
            "family-mismatch",
            f"sorry_server {sorry.address} is not of the virtual_server's family; it is ignored",
            frame,
            frame.place("sorry_server"),
            1,
        )
        del fields["sorry_server"]


def _common_family(frame: Frame) -> int:
    """Of a mark whose servers are all tunnelled: their family if it is one, else IPv4."""
    sorry = frame.fields.get("sorry_server")
    families = {family_of(server.fields["address"]) for server in frame.fields["real_servers"]}
    if sorry is not None:
        families.add(family_of(sorry.address))
    return families.pop() if len(families) == 1 else 4


VIRTUAL_SERVER = Block(
    "virtual_server",
    acting((
        Row("ip_family", Kind("inet / inet6", _ip_family, takes=1), "Family of a service that is a mark.",
            "family", default="its servers'"),
        Row("retry", integer(1, UNSIGNED_MAX), "Failures in a row that checkers tolerate.",
            default="the checker's own"),
        Row("delay_before_retry", DELAY, "Pause before a failed check is repeated.", "delay_before_retry_us",
            default="the checker's own"),
        Row("warmup", DELAY, "First checks are delayed by a random time up to this.", "warmup_us",
            default="delay_loop"),
        Row("connect_timeout", CONNECT_TIMEOUT, "Time checkers allow for connecting and answering.",
            "connect_timeout_us", default="5 s"),
        Row("delay_loop", PERIOD, "Time between checks.", "delay_loop_us"),
        Row("inhibit_on_failure", flag(), "Servers that are down keep weight 0 instead of being removed.",
            default="off"),
        Row("lb_algo", choice(*SCHEDULERS), "How clients are spread over the servers.", "scheduler",
            alias_of="lvs_sched", default="wlc, reported"),
        Row("lvs_sched", choice(*SCHEDULERS), "How clients are spread over the servers.", "scheduler",
            default="wlc, reported"),
        Row("hashed", Kind("flag", _hashed, takes=0), "Accepted; without effect in keepalived as well."),
        Row("ops", flag(), "Each datagram is scheduled on its own (UDP and marks).", "one_packet"),
        *(
            Row(each, SCHEDULER_FLAG, f"The scheduler's {each.replace('-', ' ')}.",
                "scheduler_flags", default="off")
            for each in _SCHEDULER_FLAGS
        ),
        Row("sh-port", SCHEDULER_FLAG, "Scheduler sh: hash the source port too.",
            "scheduler_flags", default="off"),
        Row("sh-fallback", SCHEDULER_FLAG, "Scheduler sh: pass over servers of weight 0.",
            "scheduler_flags", default="off"),
        Row("mh-port", SCHEDULER_FLAG, "Scheduler mh: hash the source port too.",
            "scheduler_flags", default="off"),
        Row("mh-fallback", SCHEDULER_FLAG, "Scheduler mh: pass over servers of weight 0.",
            "scheduler_flags", default="off"),
        Row("lb_kind", forwarding("forwarding"), "How packets reach the servers.", "forwarding",
            alias_of="lvs_method", default="NAT, reported"),
        Row("lvs_method", forwarding("forwarding"), "How packets reach the servers.", "forwarding",
            default="NAT, reported"),
        Row("persistence_engine", Kind("name", _persistence_engine, high="15 characters", takes=1),
            "Module that tells clients apart, sip for instance."),
        Row("persistence_timeout", integer(1, MONTH_S, unit="s", bare=DEFAULT_PERSISTENCE_TIMEOUT),
            "How long a client stays with its server.", default="off; 360 without a port"),
        Row("persistence_granularity", Kind("netmask / prefix length", _persistence_granularity, takes=1),
            "Clients that share this prefix share a server.", default="one address"),
        Row("protocol", choice(*Protocol, fold=True), "What the service speaks; a mark has none.",
            default="UDP, reported"),
        Row("ha_suspend", flag(), "Check only while the service's address is on this node."),
        Row("smtp_alert", boolean(), "Mail when the quorum is won or lost.",
            default="the global one, else off"),
        Row("virtualhost", VIRTUALHOST, "Host header of requests to its servers.", repeat=Repeat.LAST_SAID),
        Row("snmp_name", word("name", soft=True),
            "Its label in `kadctl status` and dumps; SNMP itself is not served.", repeat=Repeat.LAST_SAID),
        Row("alpha", flag(), "Servers are down until a check has succeeded."),
        Row("omega", flag(), "At shutdown, run the notifies for servers and quorum going down."),
        Row("quorum_up", script(), "Run when the quorum is won.", repeat=Repeat.FIRST),
        Row("quorum_down", script(), "Run when the quorum is lost.", repeat=Repeat.FIRST),
        Row("quorum", Kind("integer", _quorum, "weight", "1", str(UNSIGNED_MAX), takes=1),
            "Total weight of servers up that the service needs."),
        Row("hysteresis", integer(0, UNSIGNED_MAX, unit="weight"),
            "How far beyond the quorum the weight must go to change the verdict."),
        Row("weight", integer(1, WEIGHT_LIMIT), "Weight of servers without their own.", default="1"),
        Row("sorry_server", Kind("address [port]", _sorry_server, takes=2),
            "Where clients go while the quorum is lost."),
        Row("sorry_server_inhibit", _after_sorry_server(flag()),
            "The sorry server keeps weight 0 instead of being removed.", "sorry_inhibit", default="off"),
        Row("sorry_server_lvs_method", _after_sorry_server(forwarding("sorry_forwarding")),
            "How packets reach the sorry server.", "sorry_forwarding", default="the virtual server's"),
        Row("real_server", opens(REAL_SERVER), "A server that clients are sent to.", "real_servers",
            repeat=Repeat.ADD),
    )),
    open=_open_virtual_server,
    close=_close_virtual_server,
    model=VirtualServer,
    roles=CHECK,
    parameters=2,
)  # fmt: skip

ROOT_ROWS = acting((
    Row("SSL", opens(SSL), "What SSL_GET presents to servers.", roles=CHECK, repeat=Repeat.LAST_SAID),
    Row("virtual_server_group", opens(VIRTUAL_SERVER_GROUP), "Services under one name.",
        roles=CHECK, repeat=Repeat.ADD),
    Row("virtual_server", opens(VIRTUAL_SERVER), "A service spread over real servers.",
        roles=CHECK, repeat=Repeat.ADD),
))  # fmt: skip


def finish(reading: Reading, root: Frame) -> CheckConfiguration:
    """What the check child is told, once the whole file has been read."""
    return configuration(reading, root)
