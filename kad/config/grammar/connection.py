"""Rows that most health checkers share: when they run, and how they connect to what they examine."""

from __future__ import annotations

from msgspec import Struct

from kad.addresses import family_of, is_link_local
from kad.config.encoding import as_bytes
from kad.config.grammar.endpoint import PORT_LIMIT, host
from kad.config.schema import CHECK, CLOSING, NOTHING, Block, Frame, Kind, Reading, Row, acting
from kad.config.tree import Statement
from kad.config.values import UNSIGNED_MAX, boolean, decimal, integer, word
from kad.errors import ExitStatus
from kad.units import US_PER_SECOND

PERIOD_LIMIT_US = UNSIGNED_MAX * US_PER_SECOND
"""Longest period that is accepted, 136 years; keepalived has no limit that anyone could meet."""

PERIOD = decimal(1, PERIOD_LIMIT_US)
DELAY = decimal(0, PERIOD_LIMIT_US)
CONNECT_TIMEOUT = decimal(1, UNSIGNED_MAX)
SUFFERED = ExitStatus.OK
"""For what keepalived lets pass in silence or with a line in the log."""

VIRTUALHOST = word("host name", soft=True)


def _connect_ip(reading: Reading, frame: Frame, statement: Statement) -> object:
    return _same_family(reading, frame, statement, "bind_address", "bindto")


def _bindto(reading: Reading, frame: Frame, statement: Statement) -> object:
    if "connect_address" not in frame.fields and "server" not in frame.fields:
        return _HOST_READ(reading, frame, statement)
    return _same_family(reading, frame, statement, "connect_address", "connect_ip")


def _same_family(reading: Reading, frame: Frame, statement: Statement, field: str, keyword: str) -> object:
    """An address of the family that ``field``, or the real server, already has."""
    found = _HOST_READ(reading, frame, statement)
    other = frame.fields.get(field)
    if other is None and field == "connect_address":
        other = frame.fields.get("server")
    if isinstance(found, str) and isinstance(other, str) and family_of(found) != family_of(other):
        reading.error(
            "family-mismatch",
            f"'{statement.texts[0]} {found}' is not of the family of {keyword} {other}; it is ignored",
            frame,
            statement,
            1,
        )
        return NOTHING
    return found


_HOST = host()
assert _HOST.read is not None
_HOST_READ = _HOST.read


def _bind_if(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "interface")
        return NOTHING
    name = statement.texts[1]
    if len(as_bytes(name)) > 15:
        reading.error(
            "too-long",
            f"no interface has a name as long as '{name}'; it is ignored",
            frame,
            statement,
            1,
            remedy="at most 15 characters",
        )
        return NOTHING
    return name


CONNECTION_ROWS = (
    Row(
        "connect_ip",
        Kind("address", _connect_ip, takes=1),
        "Address to examine instead of the real server's.",
        "connect_address",
        default="the real server's",
    ),
    Row(
        "connect_port",
        integer(1, PORT_LIMIT),
        "Port to examine instead of the real server's.",
        default="the real server's",
    ),
    Row(
        "bindto",
        Kind("address", _bindto, takes=1),
        "Local address of the connection.",
        "bind_address",
        default="the kernel's choice",
    ),
    Row("bind_port", integer(1, PORT_LIMIT), "Local port of the connection; wants bindto."),
    Row(
        "bind_if",
        Kind("interface", _bind_if, high="15 characters", takes=1),
        "Interface of the connection; a link-local IPv6 address needs it.",
        "bind_interface",
    ),
    Row(
        "connect_timeout",
        CONNECT_TIMEOUT,
        "Time allowed for connecting, and for each read and write.",
        "connect_timeout_us",
        default="the real server's",
    ),
    Row("fwmark", integer(0, UNSIGNED_MAX), "Firewall mark of the packets sent.", default="0"),
)


def schedule_rows(
    *, retry: str = "1", delay_before_retry: str = "1 s", log_failures: bool = True
) -> tuple[Row, ...]:
    """What every checker that runs periodically has; the two words are its defaults, for people."""
    return (
        Row(
            "retry",
            integer(0, UNSIGNED_MAX),
            "How many failures in a row are tolerated before the server is taken down.",
            default=f"the real server's, else {retry}",
        ),
        Row(
            "delay_before_retry",
            DELAY,
            "Pause after a failed check that is to be repeated.",
            "delay_before_retry_us",
            default=f"the real server's, else {delay_before_retry}",
        ),
        Row(
            "warmup",
            DELAY,
            "The first check is delayed by a random time up to this.",
            "warmup_us",
            default="the real server's, else delay_loop",
        ),
        Row("delay_loop", PERIOD, "Time between checks.", "delay_loop_us", default="the real server's"),
        Row(
            "alpha",
            boolean(),
            "Take the server for down until a check has succeeded.",
            default="the real server's",
        ),
        Row(
            "log_all_failures",
            boolean(),
            "Log each failure while the server is up.",
            default="off",
        ),
    )


def knows_server(reading: Reading, frame: Frame) -> bool:
    """Unless connect_ip says otherwise, the real server is what is examined."""
    assert frame.parent is not None
    frame.fields["server"] = frame.parent.fields.get("address")
    return True


def target_of(frame: Frame) -> str:
    """The address a checker examines."""
    found = frame.fields.get("connect_address") or frame.inherited("address", "")
    assert isinstance(found, str)
    return found


def can_connect(reading: Reading, frame: Frame) -> bool:
    """Says at the end of a checker's block when nothing can be examined with what it has."""
    if "bind_port" in frame.fields and "bind_address" not in frame.fields:
        reading.warning(
            "no-effect",
            "'bind_port' has no effect without bindto",
            frame,
            frame.place("bind_port"),
            0,
            remedy="bindto ADDRESS",
            status=SUFFERED,
        )
    address = target_of(frame)
    if not is_link_local(address) or "bind_interface" in frame.fields:
        return True
    reading.error(
        "link-local",
        f"{address} is link-local and needs a bind_if; the checker is ignored",
        frame,
        frame.statement,
        CLOSING,
        remedy="bind_if INTERFACE",
    )
    return False


def close_plain(reading: Reading, frame: Frame) -> object:
    return frame if can_connect(reading, frame) else NOTHING


def checker_block(keyword: str, rows: tuple[Row, ...], model: type[Struct]) -> Block:
    """A checker without rules of its own."""
    return Block(
        f"virtual_server/real_server/{keyword}",
        acting(rows),
        open=knows_server,
        close=close_plain,
        model=model,
        roles=CHECK,
    )
