"""Rows of global_defs and of the single keywords of the file's top level.

Fields ``instance.…`` are what every vrrp_instance starts from, ``settings.…`` goes to the VRRP child itself;
the others are fields of :class:`kad.config.model.globals.Globals`.
"""

from __future__ import annotations

from kad.addresses import INET, INET6, family_of, is_link_local_multicast, parse_address
from kad.config.encoding import as_bytes
from kad.config.model.globals import Fifo, Globals, SmtpServer, SyncDaemon
from kad.config.model.vrrp import ANNOUNCEMENTS_LIMIT
from kad.config.numbers import c_integer, is_digits
from kad.config.schema import (
    ALL,
    BFD,
    CHECK,
    CLOSING,
    CORE,
    NOTHING,
    VRRP,
    VRRP_CHECK,
    Block,
    Frame,
    Kind,
    Read,
    Reading,
    Repeat,
    Row,
    acting,
    opens,
)
from kad.config.scripts import default_identity, identity, read_script_user, script
from kad.config.tree import Statement
from kad.config.values import (
    INT_MAX,
    UNSIGNED_MAX,
    boolean,
    decimal,
    flag,
    integer,
    number_of,
    option_integer,
    option_word,
    optional_word,
    read_options,
    seconds,
    word,
)
from kad.units import US_PER_SECOND

INT_MIN = -INT_MAX - 1
LONGEST_IPVS_TIMEOUT = 2678400
"""Seconds: 31 days, the kernel's limit."""
SECONDS_MAX = UNSIGNED_MAX // US_PER_SECOND
"""4294: what fits in 32 bits of microseconds."""
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")


def _process_name(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "name")
        return NOTHING
    name = statement.texts[1]
    if len(as_bytes(name)) > 15:
        reading.warning(
            "truncated", f"a process name has 15 characters: '{name}' is cut", frame, statement, 1
        )
        name = as_bytes(name)[:15].decode(errors="ignore")
    return name


PROCESS_NAME = Kind("name", _process_name, high="15 characters", takes=1)


def _process_names(reading: Reading, frame: Frame, statement: Statement) -> object:
    frame.fields["vrrp.process_name"] = "keepalived_vrrp"
    frame.fields["checker.process_name"] = "keepalived_lvs"
    frame.fields["bfd.process_name"] = "keepalived_bfd"
    return NOTHING


def _mail_sender(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "address", soft=True)
        return NOTHING
    if len(statement.texts) > 2:
        reading.error(
            "extra-words",
            "words after the address are ignored",
            frame,
            statement,
            2,
            remedy='"NAME <ADDRESS>"',
        )
    return statement.texts[1]


def _smtp_server(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "host")
        return NOTHING
    host = statement.texts[1]
    port: int | None = 25
    if len(statement.texts) > 2:
        port = number_of(reading, frame, statement, 2, 1, 65535)
    if parse_address(host) is None and (not set(host) <= _HOST_CHARACTERS or host.startswith("-")):
        reading.error("bad-host", f"'{host}' is no address and no host name; no mail", frame, statement, 1)
        return NOTHING
    if host.lower() == statement.texts[0] or set(host.lower()) == {"x"}:
        text = f"'{host}' looks like a placeholder: the mail relay's name or address belongs here"
        reading.warning("placeholder", text, frame, statement, 1)
    return NOTHING if port is None else SmtpServer(host, port)


def _recipient(reading: Reading, frame: Frame, statement: Statement) -> object:
    frame.items.extend(statement.texts)
    return NOTHING


def _recipients(reading: Reading, frame: Frame) -> object:
    if not frame.items:
        reading.warning("empty-block", "notification_email names nobody", frame, frame.statement, CLOSING)
    return tuple(frame.items)


NOTIFICATION_EMAIL = Block(
    "global_defs/notification_email",
    (),
    item=Row("<ADDRESS>", Kind("address", _recipient), "Somebody who gets alerts.", acts=True),
    close=_recipients,
    roles=VRRP_CHECK,
)


def _dynamic_interfaces(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) > 1:
        if statement.texts[1] == "allow_if_changes":
            frame.fields["settings.allow_if_changes"] = True
        else:
            reading.error(
                "unknown-option",
                f"'dynamic_interfaces' knows no '{statement.texts[1]}'",
                frame,
                statement,
                1,
                remedy="dynamic_interfaces [allow_if_changes]",
            )
    return True


def _multicast_group(family: int) -> Read:
    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        if len(statement.texts) < 2:
            reading.missing(frame, statement, "address")
            return NOTHING
        address = parse_address(statement.texts[1])
        reason = ""
        if address is None:
            reason = "is not an address"
        elif family_of(address) != family:
            reason = f"is not IPv{family}"
        elif not is_multicast(address):
            reason = "is not a multicast address"
        if reason:
            text = statement.texts[1]
            reading.error("bad-address", f"'{text}' {reason}; ignored", frame, statement, 1)
            return NOTHING
        if family == INET6 and address is not None and not is_link_local_multicast(address):
            reading.warning(
                "scope", f"{address} should be of link-local scope, as ff02::12 is", frame, statement, 1
            )
        return address

    return read


def is_multicast(address: str) -> bool:
    """224.0.0.0/4 or ff00::/8."""
    if family_of(address) == INET6:
        return address.startswith("ff")
    return 224 <= int(address.split(".", 1)[0]) <= 239


def extra_if(low: int) -> Read:
    """``[all] SECONDS``: announcements on interfaces other than the instance's."""

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        prefix = "instance." if frame.parent is None or frame.block is GLOBAL_DEFS else ""
        value: int | None = None
        for index in range(1, len(statement.texts)):
            if statement.texts[index] == "all":
                frame.fields[f"{prefix}garp.extra_if_all"] = True
                continue
            value = number_of(reading, frame, statement, index, low, 86400)
            if value is None:
                return NOTHING
        if value is None:
            reading.missing(frame, statement, "period", soft=True)
            return NOTHING
        return value * US_PER_SECOND

    return read


def _lvs_timeouts(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 3:
        reading.missing(frame, statement, "protocol and timeout", soft=True)
        return NOTHING
    found = read_options(reading, frame, statement, 1, _TIMEOUT_TABLE)
    frame.fields.update(found)
    return NOTHING


_TIMEOUT = option_integer(0, LONGEST_IPVS_TIMEOUT, unit="s")
_TIMEOUT_OPTIONS = (
    Row("tcp", _TIMEOUT, "Idle TCP connections.", "lvs_timeouts.tcp", acts=True, roles=CHECK),
    Row(
        "tcpfin",
        _TIMEOUT,
        "TCP connections that were closed.",
        "lvs_timeouts.tcp_fin",
        acts=True,
        roles=CHECK,
    ),
    Row("udp", _TIMEOUT, "UDP flows.", "lvs_timeouts.udp", acts=True, roles=CHECK),
)
_TIMEOUT_TABLE = {row.name: row for row in _TIMEOUT_OPTIONS}


def _sync_daemon(reading: Reading, frame: Frame, statement: Statement) -> object:
    words = statement.texts
    if len(words) < 2:
        reading.missing(frame, statement, "interface", soft=True)
        return NOTHING
    if len(words[1]) > 15:
        reading.error("too-long", f"interface name '{words[1]}' is too long", frame, statement, 1)
        return NOTHING
    start, old = 2, {}
    if len(words) > 2 and words[2] not in _SYNC_TABLE:
        # The form of old: lvs_sync_daemon IF INSTANCE [ID]
        old["instance"] = words[2]
        start = 3
        if len(words) > 3 and words[3] not in _SYNC_TABLE:
            value = number_of(reading, frame, statement, 3, 0, 255)
            if value is not None:
                reading.warning(
                    "deprecated", "the number is the sync id", frame, statement, 3, remedy=f"id {value}"
                )
                old["sync_id"] = str(value)
            start = 4
    found = read_options(reading, frame, statement, start, _SYNC_TABLE)
    group = found.get("group")
    if group is not None and (parse_address(group) is None or not is_multicast(group)):
        reading.error("bad-address", f"'{group}' is not a multicast address; ignored", frame, statement)
        del found["group"]
    if "sync_id" in old:
        found.setdefault("sync_id", int(old["sync_id"]))
    if "instance" in old:
        found.setdefault("instance", old["instance"])
    reading.define("lvs_sync_daemon", "", statement)
    return SyncDaemon(words[1], **found)


SYNC_OPTIONS = (
    Row(
        "inst",
        option_word("instance"),
        "Be master or backup as this VRRP instance is.",
        "instance",
        acts=True,
        roles=VRRP_CHECK,
    ),
    Row(
        "id", option_integer(0, 255), "Identifier of the synchronisation.", "sync_id", acts=True, roles=CHECK
    ),
    Row(
        "maxlen",
        option_integer(1, 65507, unit="bytes"),
        "Largest packet to send.",
        "maximum_length",
        acts=True,
        roles=CHECK,
    ),
    Row("port", option_integer(1, 65535), "UDP port.", acts=True, roles=CHECK),
    Row("ttl", option_integer(1, 255), "TTL of the packets.", acts=True, roles=CHECK),
    Row("group", option_word("address"), "Multicast group, of either family.", acts=True, roles=CHECK),
)
_SYNC_TABLE = {row.name: row for row in SYNC_OPTIONS}


def _flush_on_stop(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        return "all"
    if statement.texts[1] == "VS":
        return "VS"
    reading.error("bad-choice", f"'{statement.texts[1]}' is not VS", frame, statement, 1, remedy="VS")
    return NOTHING


def _realtime_priority(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "priority", soft=True)
        return NOTHING
    value = number_of(reading, frame, statement, 1, INT_MIN, INT_MAX)
    if value is None:
        return NOTHING
    clamped = max(1, min(99, value))
    if clamped != value:
        reading.warning("clamped", f"a real-time priority is 1 to 99: {clamped} is used", frame, statement, 1)
    return clamped


def _cpu_affinity(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "processor number", soft=True)
        return NOTHING
    highest = reading.machine.processors() - 1 if reading.machine is not None else 4095
    found = []
    for index in range(1, len(statement.texts)):
        value = number_of(reading, frame, statement, index, 0, highest)
        if value is None:
            return NOTHING
        found.append(value)
    return tuple(found)


def _rlimit(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "limit")
        return NOTHING
    value = number_of(reading, frame, statement, 1, 1, UNSIGNED_MAX)
    return NOTHING if value is None else max(2, value)


RT_PRIORITY = Kind("integer", _realtime_priority, low="1", high="99", takes=1)
CPU_AFFINITY = Kind("integer …", _cpu_affinity, "processor")
RLIMIT = Kind("integer", _rlimit, "µs", "1", str(UNSIGNED_MAX), takes=1)
NICE = integer(-20, 19, soft=True)


def _fifo(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "path", soft=True)
        return NOTHING
    names = statement.texts[2:]
    who = identity(reading, names) if names else default_identity(reading, frame, statement)
    if who is None or isinstance(who, str):
        reason = who or "there is no default script user"
        reading.error(
            "script-user", f"the FIFO is not used: {reason}", frame, statement, 0, status=0, machine=True
        )
        return NOTHING
    return Fifo(statement.texts[1], who.user.uid, who.user.gid)


FIFO = Kind("path [user [group]]", _fifo)


def _names(what: str, longest: int, most: int, bare: tuple[str, ...]) -> Read:
    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        names = tuple(statement.texts[1 : most + 1])
        for index, name in enumerate(names, 1):
            if not name or len(name) > longest:
                reading.error(
                    "bad-name",
                    f"{what} names have 1 to {longest} characters; ignored",
                    frame,
                    statement,
                    index,
                )
                return NOTHING
        return names or bare

    return read


def _rx_bufs_policy(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "policy or size", soft=True)
        return NOTHING
    given = {}
    for index in range(1, len(statement.texts)):
        text = statement.texts[index].upper()
        if text in ("MTU", "ADVERT"):
            given[text] = text
        else:
            value = number_of(reading, frame, statement, index, 0, UNSIGNED_MAX)
            if value is not None:
                given["size"] = str(value)
    if len(given) > 1:
        reading.error(
            "conflict", "of a size, MTU and ADVERT the first in this order is used", frame, statement, 1
        )
    return given.get("size") or given.get("MTU") or given.get("ADVERT") or NOTHING


_UMASK_BITS = {
    "IRUSR": 0o400,
    "IWUSR": 0o200,
    "IXUSR": 0o100,
    "IRWXU": 0o700,
    "IRGRP": 0o040,
    "IWGRP": 0o020,
    "IXGRP": 0o010,
    "IRWXG": 0o070,
    "IROTH": 0o004,
    "IWOTH": 0o002,
    "IXOTH": 0o001,
    "IRWXO": 0o007,
}


def _umask(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "mask")
        return NOTHING
    text = " ".join(statement.texts[1:])
    mask = _umask_of(text)
    if mask is None:
        reading.error(
            "bad-umask",
            f"'{text}' is not a file mask; ignored",
            frame,
            statement,
            1,
            remedy="0177 or IXUSR|IRWXG",
        )
        return NOTHING
    return mask


def _umask_of(text: str) -> int | None:
    """C notation (0177, 0x7f, 127), or bit names joined by vertical bars."""
    if is_digits(text[:1]):
        value = c_integer(text)
        return value if value is not None and value <= 0o777 else None
    mask = 0
    for name in text.split("|"):
        bits = _UMASK_BITS.get(name.strip())
        if bits is None:
            return None
        mask |= bits
    return mask


def _include_check(reading: Reading, frame: Frame, statement: Statement) -> object:
    kinds = ("read", "match", "wildcard_match", "brace_match")
    chosen = set(kinds) if len(statement.texts) == 1 else set()
    for index in range(1, len(statement.texts)):
        text = statement.texts[index]
        sign, name = (text[0], text[1:]) if text.startswith(("+", "-")) else ("", text)
        if name == "readable":  # what the manual calls it
            name = "read"
        if name not in kinds:
            reading.error(
                "bad-choice",
                f"'{text}' is no include check",
                frame,
                statement,
                index,
                remedy=", ".join(kinds),
            )
        elif not sign and index > 1:
            reading.error("repeated", f"'{text}' needs a + or - here; ignored", frame, statement, index)
        elif sign == "-":
            chosen.discard(name)
        else:
            chosen.update(("read", name) if not sign else (name,))
    return tuple(sorted(chosen))


def _set_fields(*names: str) -> Read:
    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        for name in names:
            frame.fields[name] = True
        return NOTHING

    return read


def _share_fields(reading: Reading, frame: Frame) -> bool:
    """All global_defs blocks of a file fill one set of fields, which every other block may look up."""
    frame.fields = reading.globals
    frame.places = reading.global_places
    return True


TUNING_ROWS = acting(
    tuple(
        row
        for name, target, roles in (
            ("vrrp", "vrrp", VRRP),
            ("checker", "checker", CHECK),
            ("bfd", "bfd", BFD),
        )
        for row in (
            Row(
                f"{name}_process_name",
                PROCESS_NAME,
                f"Name of the {name} process.",
                f"{target}.process_name",
                roles=roles,
            ),
            Row(
                f"{name}_priority", NICE, f"Nice value of the {name} process.", f"{target}.nice", roles=roles
            ),
            Row(
                f"{name}_no_swap",
                flag(),
                f"Lock the {name} process in memory.",
                f"{target}.no_swap",
                roles=roles,
            ),
            Row(
                f"{name}_rt_priority",
                RT_PRIORITY,
                f"Real-time priority (SCHED_RR) of the {name} process.",
                f"{target}.realtime_priority",
                roles=roles,
            ),
            Row(
                f"{name}_cpu_affinity",
                CPU_AFFINITY,
                f"Processors the {name} process may run on.",
                f"{target}.cpu_affinity",
                roles=roles,
            ),
            Row(
                f"{name}_rlimit_rttime",
                RLIMIT,
                f"How long the {name} process may run at real-time priority without pause.",
                f"{target}.realtime_limit_us",
                roles=roles,
            ),
            Row(
                f"{name}_rlimit_rtime",
                RLIMIT,
                f"As {name}_rlimit_rttime.",
                f"{target}.realtime_limit_us",
                roles=roles,
                alias_of=f"{name}_rlimit_rttime",
                deprecated=f"{name}_rlimit_rttime",
                deprecated_status=0,
            ),
        )
    )
)

BUFFER = integer(0, UNSIGNED_MAX, unit="bytes", soft=True)
PATH = word("path")
GARP_INTERVAL = decimal(1, UNSIGNED_MAX)
STARTUP_DELAY = decimal(1000, UNSIGNED_MAX)

GLOBAL_ROWS: tuple[Row, ...] = (
    # Processes
    Row(
        "process_names",
        Kind("flag", _process_names, takes=0),
        "Give the child processes their usual names.",
        acts=True,
        roles=ALL,
    ),
    Row("process_name", PROCESS_NAME, "Name of the parent process.", acts=True, roles=CORE),
    Row(
        "lvs_process_name",
        PROCESS_NAME,
        "As checker_process_name.",
        "checker.process_name",
        acts=True,
        roles=CHECK,
        alias_of="checker_process_name",
        deprecated="checker_process_name",
        deprecated_status=0,
    ),
    *TUNING_ROWS,
    Row(
        "max_auto_priority",
        integer(-1, 99, bare=99),
        "Highest real-time priority a late process gives itself; -1 is silent about it.",
        "maximum_automatic_priority",
        acts=True,
        roles=ALL,
    ),
    Row(
        "min_auto_priority_delay",
        integer(1, 10_000_000, unit="µs", soft=True),
        "How late a timer must be for that.",
        "minimum_automatic_priority_delay_us",
        acts=True,
        roles=ALL,
    ),
    Row(
        "umask",
        Kind("number or bit names", _umask, low="0", high="0777"),
        "Mask for files kad creates.",
        acts=True,
        roles=ALL,
    ),
    Row(
        "random_seed",
        integer(0, UNSIGNED_MAX),
        "Seed of ${_RANDOM}.",
        roles=ALL,
        acts=True,
        default="the time",
    ),
    # Scripts
    Row(
        "use_symlink_paths",
        boolean(),
        "Run scripts by the path as written, symbolic links and all.",
        roles=ALL,
        acts=True,
    ),
    Row(
        "set_supplementary_groups",
        boolean(),
        "Scripts also get the supplementary groups of their user.",
        # That of script_user too, wherever in the block it stands.
        early=True,
        roles=ALL,
        acts=True,
    ),
    Row(
        "enable_script_security",
        flag(),
        "Do not run as root what others than root could have changed.",
        roles=ALL,
        acts=True,
    ),
    Row(
        "script_user",
        Kind("user [[:]group]", read_script_user, takes=2),
        "As whom scripts run that name no user.",
        roles=ALL,
        acts=True,
        default="keepalived_script if it exists, else the user kad runs as",
    ),
    Row(
        "startup_script",
        script(),
        "Run once, before the children start.",
        acts=True,
        roles=CORE,
        repeat=Repeat.FIRST,
    ),
    Row(
        "startup_script_timeout",
        seconds(1, 1000, soft=True),
        "How long it may take.",
        "startup_script_timeout_us",
        acts=True,
        roles=CORE,
    ),
    Row(
        "shutdown_script",
        script(),
        "Run once, after the children ended.",
        acts=True,
        roles=CORE,
        repeat=Repeat.FIRST,
    ),
    Row(
        "shutdown_script_timeout",
        seconds(1, 1000, soft=True),
        "How long it may take.",
        "shutdown_script_timeout_us",
        acts=True,
        roles=CORE,
    ),
    # Mail
    Row(
        "router_id",
        word("name", soft=True),
        "Name of this node in mail subjects and dumps.",
        acts=True,
        roles=ALL,
        default="the host's name",
    ),
    Row(
        "notification_email_from",
        Kind("address", _mail_sender),
        "Sender of alerts.",
        "mail.sender",
        acts=True,
        roles=VRRP_CHECK,
        default="USER@HOST",
    ),
    Row(
        "notification_email",
        opens(NOTIFICATION_EMAIL),
        "Who gets alerts.",
        "mail.recipients",
        acts=True,
        roles=VRRP_CHECK,
    ),
    Row(
        "smtp_server",
        Kind("host [port]", _smtp_server, takes=2),
        "Mail relay; no alerts without one.",
        "mail.server",
        acts=True,
        roles=VRRP_CHECK,
    ),
    Row(
        "smtp_helo_name",
        optional_word("name", NOTHING),
        "Name given in HELO.",
        "mail.helo_name",
        acts=True,
        roles=VRRP_CHECK,
        default="the host's name",
    ),
    Row(
        "smtp_connect_timeout",
        seconds(0, SECONDS_MAX, least=1),
        "How long connecting and each answer may take.",
        "mail.connect_timeout_us",
        acts=True,
        roles=VRRP_CHECK,
    ),
    Row(
        "smtp_alert",
        boolean(),
        "Default of every smtp_alert.",
        "mail.alert",
        acts=True,
        roles=VRRP_CHECK,
        default="unset",
    ),
    Row(
        "smtp_alert_vrrp",
        boolean(),
        "The same for instances and groups; beats smtp_alert.",
        "mail.alert_vrrp",
        acts=True,
        roles=VRRP,
        default="unset",
    ),
    Row(
        "smtp_alert_checker",
        boolean(),
        "The same for servers; beats smtp_alert.",
        "mail.alert_checker",
        acts=True,
        roles=CHECK,
        default="unset",
    ),
    Row("no_email_faults", flag(), "No mail on entering FAULT.", "mail.no_faults", acts=True, roles=VRRP),
    Row(
        "no_checker_emails",
        boolean(),
        "Mail only when a real server is added or removed.",
        "mail.no_checker",
        acts=True,
        roles=CHECK,
    ),
    # Notification pipes
    *(
        row
        for name, help, roles in (
            ("notify_fifo", "Pipe that every event is written to.", VRRP_CHECK),
            ("vrrp_notify_fifo", "Pipe for VRRP's events.", VRRP),
            ("lvs_notify_fifo", "Pipe for the checkers' events.", CHECK),
        )
        for row in (
            Row(name, FIFO, help, acts=True, roles=roles, repeat=Repeat.FIRST),
            Row(
                f"{name}_script",
                script("FIFO"),
                "Reader started for it.",
                acts=True,
                roles=roles,
                repeat=Repeat.FIRST,
            ),
        )
    ),
    Row(
        "vrrp_notify_priority_changes",
        boolean(),
        "Also write changes of priority to the pipes.",
        "instance.notify_priority_changes",
        acts=True,
    ),
    Row("fifo_write_vrrp_states_on_reload", flag(), "Write all states again after a reload.", acts=True),
    # VRRP: what instances start from
    Row(
        "vrrp_mcast_group4",
        Kind("IPv4 multicast address", _multicast_group(INET), takes=1),
        "Group that IPv4 adverts are sent to.",
        "group4",
        acts=True,
        default="224.0.0.18",
    ),
    Row(
        "vrrp_mcast_group6",
        Kind("IPv6 multicast address", _multicast_group(INET6), takes=1),
        "Group that IPv6 adverts are sent to.",
        "group6",
        acts=True,
        default="ff02::12",
    ),
    Row(
        "vrrp_garp_master_delay",
        seconds(0, SECONDS_MAX),
        "After becoming MASTER, when the addresses are announced again; 0 never.",
        "instance.garp.master_delay_us",
        acts=True,
    ),
    Row(
        "vrrp_garp_master_repeat",
        integer(0, UNSIGNED_MAX, least=1, most=ANNOUNCEMENTS_LIMIT),
        "How often each address is announced at a time.",
        "instance.garp.master_repeat",
        acts=True,
    ),
    Row(
        "vrrp_garp_master_refresh",
        seconds(0, UNSIGNED_MAX),
        "Period of further announcements while MASTER; 0 none.",
        "instance.garp.master_refresh_us",
        acts=True,
    ),
    Row(
        "vrrp_garp_master_refresh_repeat",
        integer(0, UNSIGNED_MAX, least=1, most=ANNOUNCEMENTS_LIMIT),
        "How often each address is announced in them.",
        "instance.garp.master_refresh_repeat",
        acts=True,
    ),
    Row(
        "vrrp_garp_lower_prio_delay",
        seconds(0, SECONDS_MAX),
        "After an advert of lower priority, when the addresses are announced again.",
        "instance.garp.lower_prio_delay_us",
        acts=True,
        default="vrrp_garp_master_delay",
    ),
    Row(
        "vrrp_garp_lower_prio_repeat",
        integer(0, INT_MAX, most=ANNOUNCEMENTS_LIMIT),
        "How often each address is announced then; 0 never.",
        "instance.garp.lower_prio_repeat",
        acts=True,
        default="vrrp_garp_master_repeat",
    ),
    Row(
        "vrrp_garp_interval",
        GARP_INTERVAL,
        "Least gap between gratuitous ARPs on an interface.",
        "instance.garp.interval_us",
        acts=True,
    ),
    Row(
        "vrrp_gna_interval",
        GARP_INTERVAL,
        "Least gap between neighbour advertisements on an interface.",
        "instance.garp.gna_interval_us",
        acts=True,
    ),
    Row(
        "vrrp_min_garp",
        boolean(),
        "One announcement and no second round, where nothing else is said.",
        "minimal_garp",
        acts=True,
        default="off",
    ),
    Row(
        "vrrp_garp_extra_if",
        Kind("[all] integer", extra_if(1), "s", "1", "86400"),
        "Period of announcements on the other interfaces of addresses; all: those without a VMAC too.",
        "instance.garp.extra_if_us",
        acts=True,
    ),
    Row(
        "vrrp_vmac_garp_intvl",
        Kind("[all] integer", extra_if(1), "s", "1", "86400"),
        "As vrrp_garp_extra_if.",
        "instance.garp.extra_if_us",
        acts=True,
        alias_of="vrrp_garp_extra_if",
        deprecated="vrrp_garp_extra_if",
    ),
    Row(
        "vrrp_down_timer_adverts",
        integer(1, 100),
        "How many missing adverts make a backup take over.",
        "instance.down_timer_adverts",
        acts=True,
    ),
    Row(
        "vrrp_lower_prio_no_advert",
        boolean(),
        "Do not answer an advert of lower priority.",
        "instance.lower_prio_no_advert",
        acts=True,
    ),
    Row(
        "vrrp_higher_prio_send_advert",
        boolean(),
        "One last advert before giving way to a higher priority.",
        "instance.higher_prio_send_advert",
        acts=True,
    ),
    Row(
        "vrrp_version",
        integer(2, 3),
        "Protocol version of IPv4 instances.",
        "version4",
        acts=True,
        default="2; IPv6 has 3",
    ),
    Row(
        "vrrp_check_unicast_src",
        flag(),
        "Drop unicast adverts that are not from a peer.",
        "instance.check_unicast_src",
        acts=True,
    ),
    Row(
        "vrrp_skip_check_adv_addr",
        boolean(),
        "Do not compare the addresses in every advert of the same master.",
        "instance.skip_check_adv_addr",
        acts=True,
    ),
    Row(
        "vrrp_strict",
        boolean(),
        "Hold every instance to the letter of the RFC.",
        "instance.strict_mode",
        acts=True,
    ),
    Row(
        "v3_checksum_as_v2",
        flag(),
        "VRRPv3 over IPv4 without the pseudo header in the checksum.",
        "instance.v3_checksum_as_v2",
        acts=True,
    ),
    Row(
        "vrrp_owner_ignore_adverts",
        boolean(),
        "The address owner drops the adverts of others.",
        "instance.owner_ignore_adverts",
        acts=True,
    ),
    # VRRP: the process itself
    Row(
        "dynamic_interfaces",
        Kind("flag [allow_if_changes]", _dynamic_interfaces),
        "Interfaces may appear later, and change.",
        "settings.dynamic_interfaces",
        acts=True,
    ),
    Row(
        "default_interface",
        word("interface", soft=True),
        "Interface of static addresses that name none.",
        "settings.default_interface",
        acts=True,
    ),
    Row(
        "disable_local_igmp",
        flag(),
        "Switch off membership reports for link-local groups while running.",
        acts=True,
    ),
    Row(
        "vrrp_startup_delay",
        STARTUP_DELAY,
        "How long nothing is sent or believed after the start.",
        "settings.startup_delay_us",
        acts=True,
    ),
    Row(
        "vrrp_delay_after_boot",
        STARTUP_DELAY,
        "The same, counted from the boot; the longer of the two counts.",
        "settings.delay_after_boot_us",
        acts=True,
    ),
    Row(
        "log_unknown_vrids",
        flag(),
        "Log adverts of virtual routers that are not configured.",
        "settings.log_unknown_vrids",
        acts=True,
    ),
    Row(
        "vrrp_rx_bufs_policy",
        Kind("MTU / ADVERT / integer", _rx_bufs_policy, "bytes"),
        "How the receive buffers of sockets are sized.",
        "settings.rx_bufs_policy",
        acts=True,
        default="the system's",
    ),
    Row(
        "vrrp_rx_bufs_multiplier",
        integer(1, UNSIGNED_MAX, soft=True),
        "How many packets of that size fit.",
        "settings.rx_bufs_multiplier",
        acts=True,
    ),
    Row("vmac_prefix", PATH, "First part of the names of VMACs.", acts=True, repeat=Repeat.FIRST),
    Row(
        "vmac_addr_prefix",
        PATH,
        "The same for VMACs of single addresses.",
        "vmac_address_prefix",
        acts=True,
        repeat=Repeat.FIRST,
        default="vmac_prefix",
    ),
    Row(
        "vrrp_netlink_cmd_rcv_bufs",
        BUFFER,
        "Receive buffer of the command socket.",
        "vrrp_netlink.command",
        acts=True,
        default="the system's",
    ),
    Row(
        "vrrp_netlink_cmd_rcv_bufs_force",
        boolean(),
        "Exceed the system's limit for it.",
        "vrrp_netlink.command_force",
        acts=True,
    ),
    Row(
        "vrrp_netlink_monitor_rcv_bufs",
        BUFFER,
        "Receive buffer of the monitor socket.",
        "vrrp_netlink.monitor",
        acts=True,
        default="the system's",
    ),
    Row(
        "vrrp_netlink_monitor_rcv_bufs_force",
        boolean(),
        "Exceed the system's limit for it.",
        "vrrp_netlink.monitor_force",
        acts=True,
    ),
    Row(
        "process_monitor_rcv_bufs",
        BUFFER,
        "Receive buffer of the process events.",
        "process_monitor_buffer",
        acts=True,
        default="the system's",
    ),
    Row(
        "process_monitor_rcv_bufs_force",
        boolean(),
        "Exceed the system's limit for it.",
        "process_monitor_buffer_force",
        acts=True,
    ),
    Row(
        "iproute_usr_dir",
        word("path"),
        "Where the vendor's names of tables, scopes and so on are.",
        acts=True,
    ),
    Row("iproute_etc_dir", word("path"), "Where the local ones are.", acts=True),
    # Firewall
    Row(
        "vrrp_iptables",
        Kind("[IN [OUT]]", _names("chain", 28, 2, ("INPUT", "OUTPUT")), high="28 characters"),
        "iptables chains; kad uses nftables.",
        "firewall.iptables",
        acts=True,
        deprecated="nftables",
    ),
    Row(
        "vrrp_ipsets",
        Kind("[SET …]", _names("set", 30, 6, ()), high="30 characters"),
        "Names of ipsets; kad uses nftables.",
        "firewall.ipsets",
        acts=True,
        deprecated="nftables",
    ),
    Row(
        "nftables",
        optional_word("table", "keepalived"),
        "Table for the firewall rules.",
        "firewall.nftables",
        acts=True,
        repeat=Repeat.FIRST,
    ),
    Row(
        "nftables_priority",
        integer(INT_MIN, INT_MAX),
        "Priority of its chains.",
        "firewall.nftables_priority",
        acts=True,
    ),
    Row(
        "nftables_counters",
        flag(),
        "Count packets in its rules.",
        "firewall.nftables_counters",
        acts=True,
        roles=VRRP_CHECK,
    ),
    Row(
        "nftables_ifindex",
        flag(),
        "Key link-local sets by interface number.",
        "firewall.nftables_ifindex",
        acts=True,
    ),
    Row(
        "nftables_ipvs",
        optional_word("table", "keepalived_ipvs"),
        "Table that marks the traffic of virtual server groups.",
        "firewall.ipvs_nftables",
        acts=True,
        roles=CHECK,
        repeat=Repeat.FIRST,
    ),
    Row(
        "nftables_ipvs_priority",
        integer(INT_MIN, INT_MAX),
        "Priority of its chain.",
        "firewall.ipvs_nftables_priority",
        acts=True,
        roles=CHECK,
    ),
    Row(
        "nftables_ipvs_start_fwmark",
        integer(1, UNSIGNED_MAX),
        "First mark given out.",
        "firewall.ipvs_start_fwmark",
        acts=True,
        roles=CHECK,
    ),
    # IPVS
    Row(
        "lvs_timeouts",
        Kind(
            "[tcp N] [tcpfin N] [udp N]",
            _lvs_timeouts,
            "s",
            "0",
            str(LONGEST_IPVS_TIMEOUT),
            options=_TIMEOUT_OPTIONS,
        ),
        "Timeouts of IPVS connections.",
        acts=True,
        roles=CHECK,
        default="the kernel's",
    ),
    Row("lvs_flush", flag(), "Empty the whole IPVS table at start.", acts=True, roles=CHECK),
    Row(
        "lvs_flush_on_stop",
        Kind("flag [VS]", _flush_on_stop),
        "Empty the whole IPVS table at the end; VS: services only.",
        acts=True,
        roles=CHECK,
    ),
    Row(
        "lvs_flush_onstop",
        Kind("flag [VS]", _flush_on_stop),
        "As lvs_flush_on_stop.",
        "lvs_flush_on_stop",
        acts=True,
        roles=CHECK,
        alias_of="lvs_flush_on_stop",
        deprecated="lvs_flush_on_stop",
        deprecated_status=0,
    ),
    Row(
        "lvs_sync_daemon",
        Kind("interface [inst NAME] [id N] …", _sync_daemon, options=SYNC_OPTIONS),
        "Synchronise connections between directors.",
        acts=True,
        roles=VRRP_CHECK,
        repeat=Repeat.FIRST,
    ),
    Row(
        "lvs_netlink_cmd_rcv_bufs",
        BUFFER,
        "Receive buffer of the command socket.",
        "lvs_netlink.command",
        acts=True,
        roles=CHECK,
        default="the system's",
    ),
    Row(
        "lvs_netlink_cmd_rcv_bufs_force",
        boolean(),
        "Exceed the system's limit for it.",
        "lvs_netlink.command_force",
        acts=True,
        roles=CHECK,
    ),
    Row(
        "lvs_netlink_monitor_rcv_bufs",
        BUFFER,
        "Receive buffer of the monitor socket.",
        "lvs_netlink.monitor",
        acts=True,
        roles=CHECK,
        default="the system's",
    ),
    Row(
        "lvs_netlink_monitor_rcv_bufs_force",
        boolean(),
        "Exceed the system's limit for it.",
        "lvs_netlink.monitor_force",
        acts=True,
        roles=CHECK,
    ),
    Row(
        "checker_log_all_failures",
        boolean(),
        "Log every failed check, not only changes.",
        acts=True,
        roles=CHECK,
    ),
    Row(
        "rs_init_notifies",
        boolean(),
        "Run the up notifications of servers added at start.",
        acts=True,
        roles=CHECK,
    ),
    # SNMP and D-Bus
    Row(
        "snmp_socket",
        word("socket", soft=True),
        "Where the AgentX master listens.",
        "snmp.socket",
        roles=VRRP_CHECK,
        repeat=Repeat.FIRST,
    ),
    Row("enable_traps", flag(), "Send traps.", "snmp.traps", roles=VRRP_CHECK),
    Row("enable_snmp_vrrp", flag(), "Serve the VRRP part of keepalived's MIB.", "snmp.vrrp"),
    Row(
        "enable_snmp_keepalived",
        flag(),
        "As enable_snmp_vrrp.",
        "snmp.vrrp",
        alias_of="enable_snmp_vrrp",
        deprecated="enable_snmp_vrrp",
        deprecated_status=0,
    ),
    Row("enable_snmp_rfc", Kind("flag", _set_fields("snmp.rfc2", "snmp.rfc3")), "Serve both RFC MIBs."),
    Row("enable_snmp_rfcv2", flag(), "Serve the MIB of RFC 2787.", "snmp.rfc2"),
    Row("enable_snmp_rfcv3", flag(), "Serve the MIB of RFC 6527.", "snmp.rfc3"),
    Row(
        "enable_snmp_checker",
        flag(),
        "Serve the checkers' part of keepalived's MIB.",
        "snmp.checker",
        roles=CHECK,
    ),
    Row(
        "snmp_vs_stats_update_interval",
        decimal(1000, 30_000_000),
        "How old statistics of virtual servers may be.",
        "snmp.virtual_server_interval_us",
        roles=CHECK,
    ),
    Row(
        "snmp_rs_stats_update_interval",
        decimal(1000, 30_000_000),
        "How old statistics of real servers may be.",
        "snmp.real_server_interval_us",
        roles=CHECK,
        default="snmp_vs_stats_update_interval",
    ),
    Row("enable_dbus", flag(), "Offer keepalived's D-Bus interface.", "dbus"),
    Row("dbus_service_name", word("name", soft=True), "Name on the bus."),
    Row("dbus_no_interface_name", word("name", soft=True), "Path element of instances without an interface."),
    # Files and reloading
    Row(
        "reload_check_config",
        optional_word("path", "/dev/null"),
        "Test a new configuration in a process of its own before a reload; kad always refuses a bad one.",
        "reloading.check_config",
        acts=True,
        roles=CORE,
        default="off",
    ),
    Row(
        "reload_time_file",
        word("path", soft=True),
        "File that says when to reload.",
        "reloading.time_file",
        acts=True,
        roles=CORE,
    ),
    Row(
        "reload_repeat",
        flag(),
        "Keep that file when it names no date.",
        "reloading.repeat",
        acts=True,
        roles=CORE,
    ),
    Row(
        "reload_file",
        optional_word("path", "keepalived.reload"),
        "File that exists while the configuration is read.",
        "reloading.file",
        acts=True,
        roles=CORE,
        default="off",
    ),
    Row(
        "include_check",
        Kind("[+-]check …", _include_check),
        "Which faults of include lines are errors.",
        roles=CORE,
        acts=True,
        default="none",
    ),
    Row(
        "config_save_dir",
        word("path"),
        "Where configurations are kept around reloads.",
        "reloading.config_save_dir",
        acts=True,
        roles=ALL,
    ),
    Row(
        "tmp_config_directory",
        word("path", soft=True),
        "Where keepalived keeps the configuration it has read; kad keeps it in memory.",
        "reloading.tmp_config_directory",
        acts=True,
        roles=CORE,
        repeat=Repeat.FIRST,
        default="memory",
    ),
    Row("data_use_instance", boolean(), "Name dumps after the instance.", acts=True, roles=ALL),
    Row("json_version", integer(1, 2, soft=True), "Layout of the JSON dump.", acts=True),
    Row(
        "state_dump_file",
        word("path", soft=True),
        "Where the state is dumped.",
        acts=True,
        roles=ALL,
        default="keepalived.data",
    ),
    Row(
        "stats_dump_file",
        word("path", soft=True),
        "Where statistics are dumped.",
        acts=True,
        default="keepalived.stats",
    ),
    Row(
        "json_dump_file",
        word("path", soft=True),
        "Where JSON is dumped.",
        acts=True,
        default="keepalived.json",
    ),
)

GLOBAL_DEFS = Block("global_defs", GLOBAL_ROWS, open=_share_fields, model=Globals, roles=ALL)

ROOT_ROWS: tuple[Row, ...] = (
    Row(
        "global_defs",
        opens(GLOBAL_DEFS),
        "Settings of the daemon as a whole.",
        roles=ALL,
        acts=True,
        early=True,
    ),
    Row(
        "linkbeat_use_polling",
        flag(),
        "Poll the link of every VRRP interface.",
        roles=VRRP,
        acts=True,
        early=True,
    ),
    Row(
        "net_namespace",
        word("name", soft=True),
        "Run in this network namespace.",
        roles=CORE,
        acts=True,
        early=True,
        repeat=Repeat.FIRST,
    ),
    Row(
        "net_namespace_ipvs",
        optional_word("name", ""),
        "Configure IPVS in this network namespace; no name is the default one.",
        acts=True,
        roles=CHECK,
        early=True,
        repeat=Repeat.FIRST,
        default="net_namespace",
    ),
    Row(
        "namespace_with_ipsets",
        flag(),
        "ipsets in a namespace on old kernels: nothing to do, kad uses nftables.",
        roles=VRRP,
        acts=True,
        early=True,
    ),
    Row(
        "use_pid_dir",
        flag(),
        "Keep pid files in a directory of their own.",
        roles=CORE,
        acts=True,
        early=True,
    ),
    Row(
        "instance",
        word("name", soft=True),
        "Name of this daemon among several on a host.",
        roles=CORE,
        acts=True,
        early=True,
        repeat=Repeat.FIRST,
    ),
    Row(
        "child_wait_time",
        seconds(0, UNSIGNED_MAX),
        "How long children may take to stop.",
        "child_wait_us",
        roles=CORE,
        acts=True,
        early=True,
    ),
)
