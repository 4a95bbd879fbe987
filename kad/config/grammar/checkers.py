"""Rows of the health checkers: what stands within a real_server and says how it is examined.

A checker's block is kept as a :class:`~kad.config.schema.Frame`: what it inherits (delay_loop, retry, alpha)
may be written below it, so it becomes a value when the file has been read whole (kad.config.inheritance).
"""

from __future__ import annotations

from kad.config.grammar.connection import (
    CONNECTION_ROWS,
    SUFFERED,
    checker_block,
    close_plain,
    knows_server,
    schedule_rows,
)
from kad.config.grammar.hexadecimal import read_hex
from kad.config.grammar.web_checkers import HTTP_GET, SSL_GET
from kad.config.model.bfd import BfdInstance
from kad.config.model.check import (
    WEIGHT_LIMIT,
    BfdCheck,
    DnsCheck,
    FileCheck,
    MiscCheck,
    PingCheck,
    SmtpCheck,
    TcpCheck,
    UdpCheck,
)
from kad.config.schema import CHECK, CLOSING, NOTHING, Block, Frame, Kind, Reading, Repeat, Row, acting, opens
from kad.config.scripts import Identity, command_alone, command_of, default_identity, identity
from kad.config.tree import Statement
from kad.config.values import UNSIGNED_MAX, boolean, flag, integer, number_of, word
from kad.units import US_PER_SECOND

TCP_CHECK = checker_block("TCP_CHECK", CONNECTION_ROWS + schedule_rows(), TcpCheck)
PING_CHECK = checker_block("PING_CHECK", CONNECTION_ROWS + schedule_rows(), PingCheck)


# SMTP_CHECK


def _close_smtp(reading: Reading, frame: Frame) -> object:
    """Without connection keywords of its own, the hosts alone are examined."""
    hosts = frame.fields.get("hosts", [])
    if hosts:
        reading.warning(
            "deprecated",
            "'host' within SMTP_CHECK is deprecated",
            frame,
            hosts[0].statement,
            0,
            remedy="an SMTP_CHECK for each",
            status=SUFFERED,
        )
    own = any(name in frame.fields for name in _OWN_CONNECTION)
    if hosts and not own:
        return frame
    return close_plain(reading, frame)


_OWN_CONNECTION = tuple(row.target for row in CONNECTION_ROWS)

SMTP_HOST = Block(
    "virtual_server/real_server/SMTP_CHECK/host",
    acting(CONNECTION_ROWS + schedule_rows()),
    open=lambda reading, frame: _knows_real_server(frame),
    close=close_plain,
    roles=CHECK,
)


def _knows_real_server(frame: Frame) -> bool:
    assert frame.parent is not None and frame.parent.parent is not None
    frame.fields["server"] = frame.parent.parent.fields.get("address")
    return True


SMTP_CHECK = Block(
    "virtual_server/real_server/SMTP_CHECK",
    acting(
        CONNECTION_ROWS
        + schedule_rows()
        + (
            Row(
                "helo_name",
                word("name", soft=True),
                "The name we introduce ourselves with.",
                repeat=Repeat.LAST_SAID,
            ),
            Row(
                "host",
                opens(SMTP_HOST),
                "A further server to examine (old; write several SMTP_CHECK).",
                "hosts",
                repeat=Repeat.ADD,
            ),
        )
    ),
    close=_close_smtp,
    model=SmtpCheck,
    roles=CHECK,
)


# DNS_CHECK

DNS_TYPES = ("A", "NS", "CNAME", "SOA", "MX", "TXT", "AAAA", "RRSIG", "DNSKEY")


def _dns_name(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "domain")
        return NOTHING
    name = statement.texts[1]
    if ".." in name or (name.startswith(".") and name != "."):
        reading.error(
            "bad-name", f"'{name}' has an empty label; it is ignored", frame, statement, 1, remedy="a.b.c"
        )
        return NOTHING
    return name


def _dns_type(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "type")
        return NOTHING
    given = statement.texts[1].upper()
    if given in DNS_TYPES:
        return given
    reading.error(
        "bad-choice",
        f"no query of type '{statement.texts[1]}' can be made; the line is ignored",
        frame,
        statement,
        1,
        remedy="one of " + ", ".join(DNS_TYPES),
    )
    return NOTHING


DNS_CHECK = checker_block(
    "DNS_CHECK",
    CONNECTION_ROWS
    + schedule_rows(retry="3", delay_before_retry="delay_loop")
    + (
        Row("type", Kind(" / ".join(DNS_TYPES), _dns_type, takes=1), "Type of the query.", "query_type"),
        Row("name", Kind("domain", _dns_name, takes=1), "Name that is asked for.", repeat=Repeat.FIRST),
    ),
    DnsCheck,
)


# UDP_CHECK


def _hex_words(wildcards: bool) -> Kind:
    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        keyword = statement.texts[0]
        if wildcards:
            frame.fields["require_reply"] = True
            if len(statement.texts) == 1:
                return NOTHING
        text = " ".join(statement.texts[1:])
        found = read_hex(text, wildcards=wildcards)
        if found is None:
            reading.error(
                "bad-hex",
                f"'{keyword}' takes bytes in hexadecimal; they are ignored",
                frame,
                statement,
                min(1, len(statement.texts) - 1),
                remedy=f"{keyword} 01 a0 ff" + (", x for any digit" if wildcards else ""),
            )
            return NOTHING
        return found

    return Kind("[hexadecimal, x for any digit]" if wildcards else "hexadecimal", read)


def _close_udp(reading: Reading, frame: Frame) -> object:
    fields = frame.fields
    low, high = fields.get("min_reply_length", 0), fields.get("max_reply_length", 255)
    if low > high:
        reading.warning(
            "bad-range",
            f"no reply can be of at least {low} and at most {high} bytes: this check always fails",
            frame,
            frame.place("min_reply_length"),
            1,
        )
    return close_plain(reading, frame)


_LENGTH = integer(0, 65535, unit="bytes")

UDP_CHECK = Block(
    "virtual_server/real_server/UDP_CHECK",
    acting(
        CONNECTION_ROWS
        + schedule_rows()
        + (
            Row("payload", _hex_words(False), "The bytes sent.", default="a text of 32 bytes"),
            Row(
                "require_reply",
                _hex_words(True),
                "Silence is a failure; with bytes, the reply must begin with them.",
                "reply",
                default="off",
            ),
            Row("min_reply_length", _LENGTH, "Shortest reply; judged with a pattern only."),
            Row("max_reply_length", _LENGTH, "Longest reply; judged with a pattern only."),
        )
    ),
    open=knows_server,
    close=_close_udp,
    model=UdpCheck,
    roles=CHECK,
)


# MISC_CHECK


def _misc_user(reading: Reading, frame: Frame, statement: Statement) -> object:
    names = statement.texts[1:]
    if not names:
        reading.error(
            "missing-value",
            "'user' names no user; it is ignored",
            frame,
            statement,
            0,
            remedy="user NAME [GROUP]",
        )
        return NOTHING
    found = identity(reading, names)
    if isinstance(found, str):
        reading.error(
            "script-user", f"'user': {found}; the checker is ignored", frame, statement, 1, machine=True
        )
        frame.fields["unusable"] = True
        return NOTHING
    return found


def _close_misc(reading: Reading, frame: Frame) -> object:
    fields = frame.fields
    statement = frame.statement
    assert statement is not None
    if fields.get("unusable"):
        return NOTHING
    if "argv" not in fields:
        reading.error(
            "no-script",
            "this MISC_CHECK has no misc_path; it is ignored",
            frame,
            statement,
            CLOSING,
            remedy='misc_path "COMMAND [ARGUMENT …]"',
        )
        return NOTHING
    who = fields.get("identity") or default_identity(reading, frame, statement)
    if not isinstance(who, Identity):
        reading.error(
            "script-user",
            f"there is no default user to run {fields['argv'][0]}; the checker is ignored",
            frame,
            statement,
            CLOSING,
            remedy="user NAME, or script_user in global_defs",
            machine=True,
        )
        return NOTHING
    fields["script"] = command_of(fields["argv"], who)
    return frame


MISC_CHECK = Block(
    "virtual_server/real_server/MISC_CHECK",
    acting(
        (
            *schedule_rows(retry="0"),
            Row(
                "misc_path",
                Kind("script", command_alone),
                "The command; status 0 means up.",
                "argv",
                default="required",
            ),
            Row(
                "misc_timeout",
                integer(0, UNSIGNED_MAX // US_PER_SECOND, unit="s", scale=US_PER_SECOND),
                "Time the command has before it is terminated.",
                "timeout_us",
                default="the virtual server's delay_loop",
            ),
            Row("misc_dynamic", flag(), "Status 2 to 255 means up, with that weight less 2.", "dynamic"),
            Row(
                "user",
                Kind("user [group]", _misc_user, takes=2),
                "As whom the command runs.",
                "identity",
                default="script_user",
            ),
        )
    ),
    close=_close_misc,
    model=MiscCheck,
    roles=CHECK,
)


# BFD_CHECK


def _bfd_name(reading: Reading, frame: Frame, statement: Statement) -> object:
    problem = _bfd_problem(reading, frame, statement)
    if problem:
        reading.error(
            "bad-bfd",
            f"{problem}; the checker is ignored",
            frame,
            statement,
            min(1, len(statement.texts) - 1),
        )
        frame.fields["unusable"] = True
        return NOTHING
    return statement.texts[1]


def _bfd_problem(reading: Reading, frame: Frame, statement: Statement) -> str:
    if len(statement.texts) != 2:
        return "'name' takes one name"
    name = statement.texts[1]
    session = reading.definition("bfd_instance", name)
    if session is None:
        return f"no bfd_instance '{name}' stands above"
    assert isinstance(session, BfdInstance)
    if not session.events_to_checker:
        return f"bfd_instance '{name}' is not told to the checker (it says 'vrrp' without 'checker')"
    if "bfd_instance" in frame.fields:
        return f"'name' is '{frame.fields['bfd_instance']}' already"
    assert frame.parent is not None
    others = (each.fields.get("bfd_instance") for each in frame.parent.fields.get("checkers", []))
    return f"this real_server follows '{name}' already" if name in others else ""


def _close_bfd(reading: Reading, frame: Frame) -> object:
    if frame.fields.get("unusable"):
        return NOTHING
    if "bfd_instance" in frame.fields:
        return frame
    reading.error(
        "no-name",
        "this BFD_CHECK names no bfd_instance; it is ignored",
        frame,
        frame.statement,
        CLOSING,
        remedy="name BFD_INSTANCE",
    )
    return NOTHING


BFD_CHECK = Block(
    "virtual_server/real_server/BFD_CHECK",
    acting(
        (
            Row(
                "name",
                Kind("bfd_instance", _bfd_name, high="31 characters", takes=1),
                "The session that is followed; it must be defined above.",
                "bfd_instance",
                default="required",
            ),
            Row(
                "alpha",
                boolean(),
                "Take the server for down until the session has been up.",
                default="the real server's",
            ),
        )
    ),
    close=_close_bfd,
    model=BfdCheck,
    roles=CHECK,
)


# FILE_CHECK


def _track_file(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "name")
        return NOTHING
    name = statement.texts[1]
    if reading.definition("track_file", name) is None:
        lost = ("track_file", name) in reading.lost
        if lost:
            frame.places["lost"] = statement
        reading.error(
            "not-defined",
            f"the track_file '{name}' cannot be used here; the line is ignored"
            if lost
            else f"no track_file '{name}' stands above; the line is ignored",
            frame,
            statement,
            1,
            remedy="" if lost else f"track_file {name} {{ file PATH }} above this virtual_server",
            machine=lost,
        )
        return NOTHING
    return name


def _file_weight(reading: Reading, frame: Frame, statement: Statement) -> object:
    words = statement.texts
    if len(words) < 2:
        reading.error(
            "missing-value", "'weight' lacks its number", frame, statement, 0, remedy="weight NUMBER"
        )
        return NOTHING
    weight = number_of(reading, frame, statement, 1, -WEIGHT_LIMIT, WEIGHT_LIMIT)
    if weight is None:
        return NOTHING
    option = words[2] if len(words) > 2 else "noreverse"
    if option not in ("reverse", "noreverse"):
        reading.error(
            "bad-choice",
            f"'weight' cannot be '{option}'; the line is ignored",
            frame,
            statement,
            2,
            remedy="reverse or noreverse",
        )
        return NOTHING
    frame.fields["reverse"] = option == "reverse"
    return weight


def _dynamic(reading: Reading, frame: Frame, statement: Statement) -> object:
    reading.error(
        "unknown-keyword",
        "FILE_CHECK has no 'dynamic', though keepalived's manual names it",
        frame,
        statement,
        0,
        remedy="a weight other than 0 makes the file's value change the server's weight",
    )
    return NOTHING


def _close_file(reading: Reading, frame: Frame) -> object:
    if "track_file" in frame.fields:
        return frame
    reading.error(
        "no-file",
        "this FILE_CHECK names no track_file; it is ignored",
        frame,
        frame.statement,
        CLOSING,
        remedy="track_file NAME",
        machine="lost" in frame.places,
    )
    return NOTHING


FILE_CHECK = Block(
    "virtual_server/real_server/FILE_CHECK",
    acting(
        (
            Row(
                "track_file",
                Kind("track_file", _track_file, takes=1),
                "The file that is followed; it must be defined above.",
                default="required",
            ),
            Row(
                "weight",
                Kind(
                    "integer [reverse / noreverse]",
                    _file_weight,
                    low=str(-WEIGHT_LIMIT),
                    high=str(WEIGHT_LIMIT),
                ),
                "What a value in the file counts; 0: any value but 0 takes the server down.",
                default="the track_file's",
            ),
            Row(
                "dynamic",
                Kind("not read", _dynamic),
                "Named in keepalived's manual only; no version reads it.",
            ),
        )
    ),
    close=_close_file,
    model=FileCheck,
    roles=CHECK,
)

CHECKER_ROWS = acting(
    (
        Row("TCP_CHECK", opens(TCP_CHECK), "A TCP connection must succeed.", "checkers", repeat=Repeat.ADD),
        Row("HTTP_GET", opens(HTTP_GET), "HTTP requests must be answered.", "checkers", repeat=Repeat.ADD),
        Row("SSL_GET", opens(SSL_GET), "HTTPS requests must be answered.", "checkers", repeat=Repeat.ADD),
        Row("SMTP_CHECK", opens(SMTP_CHECK), "A mail server must greet us.", "checkers", repeat=Repeat.ADD),
        Row("DNS_CHECK", opens(DNS_CHECK), "A DNS query must be answered.", "checkers", repeat=Repeat.ADD),
        Row("UDP_CHECK", opens(UDP_CHECK), "A datagram must not be refused.", "checkers", repeat=Repeat.ADD),
        Row(
            "PING_CHECK",
            opens(PING_CHECK),
            "An echo request must be answered.",
            "checkers",
            repeat=Repeat.ADD,
        ),
        Row("MISC_CHECK", opens(MISC_CHECK), "A command must say so.", "checkers", repeat=Repeat.ADD),
        Row("BFD_CHECK", opens(BFD_CHECK), "A BFD session must be up.", "checkers", repeat=Repeat.ADD),
        Row(
            "FILE_CHECK",
            opens(FILE_CHECK),
            "A number in a file must allow it.",
            "checkers",
            repeat=Repeat.ADD,
        ),
    )
)
