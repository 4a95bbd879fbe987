"""Rows of vrrp_instance, vrrp_sync_group and the top-level keywords of the VRRP part.

A field is a field of :class:`kad.config.model.vrrp.VrrpInstance`; what an instance says under it replaces
what global_defs said under ``instance.FIELD``. Fields in brackets are notes for :mod:`kad.config.resolve`.
"""

from __future__ import annotations

from kad.addresses import INET, INET6, family_of, is_link_local_multicast, parse_address
from kad.config.encoding import as_bytes
from kad.config.grammar.addresses import ADDRESS_OPTIONS, STATIC_IPADDRESS, read_address
from kad.config.grammar.globals import (
    SECONDS_MAX,
    extra_if,
    is_multicast,
)
from kad.config.grammar.objects import (
    GARP_GROUP,
    INTERFACE_UP_DOWN_DELAYS,
    LINKBEAT_INTERFACES,
    TRACK_GROUP,
    group_of,
    named_once,
)
from kad.config.grammar.routes import STATIC_ROUTES, STATIC_RULES, VIRTUAL_ROUTES, VIRTUAL_RULES
from kad.config.grammar.track import (
    TRACK_FILE,
    VRRP_SCRIPT,
    VRRP_TRACK_FILE,
    VRRP_TRACK_PROCESS,
    track_rows,
)
from kad.config.model.vrrp import (
    ANNOUNCEMENTS_LIMIT,
    AuthHmac,
    AuthType,
    HmacKey,
    SyncGroup,
    UnicastPeer,
    VirtualAddress,
    Vmac,
    VrrpInstance,
    WantedState,
)
from kad.config.numbers import hexadecimal, is_digits, whole_number
from kad.config.schema import (
    NOTHING,
    VRRP_CHECK,
    Block,
    Frame,
    Kind,
    Read,
    Reading,
    Repeat,
    Row,
    opens,
)
from kad.config.scripts import script
from kad.config.tree import Statement
from kad.config.values import (
    INT_MAX,
    UNSIGNED_MAX,
    boolean,
    decimal,
    flag,
    integer,
    number_of,
    seconds,
)
from kad.errors import ExitStatus

AUTH_PASS_LENGTH = 8
HMAC_KEY_LENGTHS = (32, 64)


# Family: the first address decides, whichever keyword it belongs to ---------------------------------------


def agrees(reading: Reading, instance: Frame, statement: Statement, index: int, family: int) -> bool:
    """Is an address of ``family`` possible in this instance? False after reporting."""
    known = instance.fields.setdefault("family", family)
    if known == family:
        return True
    reading.error(
        "mixed-families",
        f"{statement.texts[index]} is IPv{family}, the instance is IPv{known}; it is ignored",
        instance,
        statement,
        index,
        remedy="addresses of the other family go into virtual_ipaddress_excluded",
    )
    return False


def lenient_address(
    reading: Reading, frame: Frame, statement: Statement, index: int, code: str = "bad-address"
) -> str | None:
    """An address; keepalived ignores a range or prefix length behind it, and so does kad, saying so."""
    text = statement.texts[index]
    host = text.partition("-")[0].partition("/")[0]
    address = parse_address(host)
    if address is None:
        reading.error(code, f"'{text}' is not an address; it is ignored", frame, statement, index)
    elif host != text:
        tail = text[len(host) :]
        reading.warning(
            "address-tail", f"'{tail}' is ignored here", frame, statement, index, status=ExitStatus.OK
        )
    return address


# Readers of single keywords ------------------------------------------------------------------------------


def _state(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "state")
        return NOTHING
    text = statement.texts[1]
    if text == "MASTER":
        return WantedState.MASTER
    if text != "BACKUP":
        reading.error(
            "bad-choice",
            f"'{text}' is no state: BACKUP is used",
            frame,
            statement,
            1,
            remedy="MASTER or BACKUP",
        )
    elif frame.fields.get("wanted_state") is WantedState.MASTER:
        reading.error("repeated", "MASTER was said before; BACKUP is ignored", frame, statement, 1)
        return NOTHING
    return WantedState.BACKUP


def _interface(reading: Reading, frame: Frame, statement: Statement) -> object:
    name = _interface_name(reading, frame, statement)
    if name is None:
        return NOTHING
    if name == "lo":
        reading.error("loopback", "VRRP cannot use a loopback interface; ignored", frame, statement, 1)
        return NOTHING
    reading.require_interface(frame, statement, 1)
    return name


def _interface_name(reading: Reading, frame: Frame, statement: Statement) -> str | None:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "interface")
        return None
    name = statement.texts[1]
    if len(as_bytes(name)) > 15:
        reading.error("too-long", f"'{name}' is too long for an interface name; ignored", frame, statement, 1)
        return None
    return name


def _vrf(reading: Reading, frame: Frame, statement: Statement) -> object:
    name = _interface_name(reading, frame, statement)
    if name is None:
        return NOTHING
    if "interface" in frame.fields:
        reading.error("conflict", "an instance has an interface or a vrf; vrf is ignored", frame, statement)
        return NOTHING
    reading.require_interface(frame, statement, 1)
    return name


def _source(unicast: bool) -> Read:
    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        if unicast:
            frame.fields["(unicast)"] = True
        if len(statement.texts) < 2:
            reading.missing(frame, statement, "address")
            return NOTHING
        address = lenient_address(reading, frame, statement, 1)
        if address is None or not agrees(reading, frame, statement, 1, family_of(address)):
            return NOTHING
        return address

    return read


def _destination(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "address")
        return NOTHING
    address = lenient_address(reading, frame, statement, 1)
    if address is None or not agrees(reading, frame, statement, 1, family_of(address)):
        return NOTHING
    if not is_multicast(address) or (family_of(address) == INET6 and not is_link_local_multicast(address)):
        kind = "link-local multicast" if family_of(address) == INET6 else "multicast"
        reading.error("bad-address", f"{address} is no {kind} address; ignored", frame, statement, 1)
        return NOTHING
    return address


def _unicast_flag(field: str) -> Read:
    """A keyword that also says that unicast is meant."""

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        frame.fields["(unicast)"] = True
        frame.fields[field] = True
        return NOTHING

    return read


def _old_checksum(reading: Reading, frame: Frame, statement: Statement) -> object:
    frame.fields["(unicast)"] = True
    if len(statement.texts) < 2:
        return "on"
    if statement.texts[1] == "never":
        return "never"
    reading.error("bad-choice", f"'{statement.texts[1]}' is ignored", frame, statement, 1, remedy="never")
    return NOTHING


def _native_ipv6(reading: Reading, frame: Frame, statement: Statement) -> object:
    if frame.fields.get("family") == INET:
        reading.error("mixed-families", "the instance has IPv4 addresses already; ignored", frame, statement)
        return NOTHING
    frame.fields["family"] = INET6
    frame.fields["version"] = 3
    return NOTHING


def _version(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "version")
        return NOTHING
    value = number_of(reading, frame, statement, 1, 2, 3)
    if value is None:
        return NOTHING
    known = frame.fields.get("version", 3 if frame.fields.get("family") == INET6 and value == 2 else value)
    if known != value:
        reading.error("conflict", f"the instance has version {known} already; ignored", frame, statement, 1)
        return NOTHING
    return value


def _priority(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "priority")
        return NOTHING
    value = number_of(reading, frame, statement, 1, 1, 255)
    # keepalived falls back to 100 here, even if state MASTER without a priority would mean 255.
    return VrrpInstance.__struct_defaults__[_DEFAULT_PRIORITY] if value is None else value


_DEFAULT_PRIORITY = VrrpInstance.__struct_fields__.index("priority") - (
    len(VrrpInstance.__struct_fields__) - len(VrrpInstance.__struct_defaults__)
)


def _auth_type(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "type")
        return NOTHING
    if statement.texts[1] in ("PASS", "AH"):
        return AuthType(statement.texts[1])
    reading.error(
        "bad-choice", f"'{statement.texts[1]}' is no authentication", frame, statement, 1, remedy="PASS or AH"
    )
    return NOTHING


def _auth_pass(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "password")
        return NOTHING
    value = as_bytes(statement.texts[1])
    if len(value) > AUTH_PASS_LENGTH:
        reading.warning(
            "truncated",
            f"a password has {AUTH_PASS_LENGTH} characters: the first {AUTH_PASS_LENGTH} are used",
            frame,
            statement,
            1,
        )
    return value[:AUTH_PASS_LENGTH]


def _close_authentication(reading: Reading, frame: Frame) -> object:
    assert frame.parent is not None
    for field in ("auth_type", "auth_pass"):
        if field in frame.fields:
            frame.parent.fields[field] = frame.fields[field]
            frame.parent.places[field] = frame.places[field]
    return NOTHING


AUTHENTICATION = Block(
    "vrrp_instance/authentication",
    (
        Row(
            "auth_type",
            Kind("PASS / AH", _auth_type, takes=1),
            "How adverts prove where they come from.",
            acts=True,
        ),
        Row(
            "auth_pass",
            Kind("password", _auth_pass, high=f"{AUTH_PASS_LENGTH} characters", takes=1),
            "Password, sent in clear text.",
            acts=True,
        ),
    ),
    close=_close_authentication,
    model=VrrpInstance,
)


# auth_hmac -----------------------------------------------------------------------------------------------


def _hmac_key(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 3:
        reading.error(
            "missing-value", "a key needs an id and a value", frame, statement, 0, remedy="key ID VALUE"
        )
        return NOTHING
    number = number_of(reading, frame, statement, 1, 1, 255)
    if number is None:
        return NOTHING
    value = _key_bytes(reading, frame, statement, statement.texts[2])
    if value is None:
        return NOTHING
    low, high = HMAC_KEY_LENGTHS
    if not low <= len(value) <= high:
        reading.error(
            "bad-key",
            f"a key has {low} to {high} bytes, not {len(value)}",
            frame,
            statement,
            2,
            remedy=f"{low} to {high} characters, or hex: and twice as many digits",
        )
        return NOTHING
    if any(key.key_id == number for key in frame.fields.get("keys", ())):
        reading.error("repeated", f"key {number} stands above already; ignored", frame, statement, 1)
        return NOTHING
    return HmacKey(number, value)


def _key_bytes(reading: Reading, frame: Frame, statement: Statement, text: str) -> bytes | None:
    """``hex:…``, ``file:PATH`` (whose content is read the same way), or the text itself."""
    if text.startswith("file:"):
        if reading.machine is None:
            return b"\0" * HMAC_KEY_LENGTHS[0]
        content, complaint = reading.machine.secret(text[5:])
        if complaint:
            status = ExitStatus.SCRIPT_SECURITY if content is not None else ExitStatus.CONFIG_ERRORS
            reading.error("key-file", complaint, frame, statement, 2, status=status, machine=True)
        if content is None:
            return None
        text = content
    if text.startswith("hex:"):
        try:
            return bytes.fromhex(text[4:])
        except ValueError:
            reading.error("bad-key", "the key is not hexadecimal", frame, statement, 2)
            return None
    return as_bytes(text)


def _one_of(*allowed: str) -> Kind:
    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        if len(statement.texts) < 2:
            reading.missing(frame, statement)
            return NOTHING
        if statement.texts[1] in allowed:
            return statement.texts[1]
        reading.error(
            "bad-choice", f"'{statement.texts[1]}' is ignored", frame, statement, 1, remedy=", ".join(allowed)
        )
        return NOTHING

    return Kind(" / ".join(allowed), read, takes=1)


def _close_hmac(reading: Reading, frame: Frame) -> object:
    assert frame.parent is not None
    fields = frame.parent.fields.setdefault("(auth_hmac)", {})
    for name, value in frame.fields.items():
        fields[name] = fields.get(name, []) + value if name == "keys" else value
    return NOTHING


AUTH_HMAC = Block(
    "vrrp_instance/auth_hmac",
    (
        Row(
            "key",
            Kind(
                "ID (hex:.. / file:PATH / ASCII)",
                _hmac_key,
                "bytes",
                "ID 1, 32 bytes",
                "ID 255, 64 bytes",
                takes=2,
            ),
            "A key that adverts may be signed with.",
            "keys",
            repeat=Repeat.ADD,
            acts=True,
            default="required",
        ),
        Row("active_key", integer(1, 255), "The key that signs ours.", acts=True, default="required"),
        Row(
            "time_window",
            seconds(1, 300),
            "How old an advert may be.",
            "time_window_us",
            acts=True,
            default="3 adverts, 5 to 300",
        ),
        Row("anti_replay", _one_of("time", "monotonic"), "What makes an advert fresh.", acts=True),
        Row(
            "mode",
            _one_of("enforce", "permissive", "receive-only"),
            "Whether unsigned adverts are believed, and ours are signed.",
            acts=True,
        ),
    ),
    close=_close_hmac,
    model=AuthHmac,
)


# Addresses -----------------------------------------------------------------------------------------------


def _same(one: VirtualAddress, other: VirtualAddress) -> bool:
    return one.address == other.address


def _duplicate(
    reading: Reading, instance: Frame, statement: Statement, new: VirtualAddress, excluded: bool
) -> bool:
    """An address stands once; one that is excluded may stand again on another interface."""
    for known in instance.fields.get("virtual_addresses", ()):
        if _same(known, new) and not (excluded and known.interface != new.interface):
            break
    else:
        for known in instance.fields.get("excluded_addresses", ()):
            if _same(known, new) and known.interface == new.interface:
                break
        else:
            return False
    reading.error("repeated", f"{new.address} stands above already; ignored", instance, statement, 0)
    return True


def _virtual_address(excluded: bool) -> Read:
    field = "excluded_addresses" if excluded else "virtual_addresses"

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        instance = frame.parent
        assert instance is not None
        address = read_address(reading, frame, statement, static=False)
        if address is None:
            return NOTHING
        if not excluded and not agrees(reading, instance, statement, 0, family_of(address.address)):
            return NOTHING
        if not _duplicate(reading, instance, statement, address, excluded):
            instance.fields.setdefault(field, []).append(address)
        return NOTHING

    return read


def _address_block(name: str, excluded: bool, help: str) -> Block:
    item = Row(
        "<IP[/LEN]>",
        Kind("address", _virtual_address(excluded), options=ADDRESS_OPTIONS),
        help,
        acts=True,
        default="/32 or /128",
    )
    return Block(
        f"vrrp_instance/{name}",
        (),
        item=item,
        close=lambda reading, frame: NOTHING,
        model=VirtualAddress,
    )


VIRTUAL_IPADDRESS = _address_block("virtual_ipaddress", False, "An address that moves with mastership.")
VIRTUAL_IPADDRESS_EXCLUDED = _address_block(
    "virtual_ipaddress_excluded", True, "The same, without being named in adverts."
)


def _peer(reading: Reading, frame: Frame, statement: Statement) -> object:
    instance = frame.parent
    assert instance is not None
    address = lenient_address(reading, frame, statement, 0)
    if address is None or not agrees(reading, instance, statement, 0, family_of(address)):
        return NOTHING
    limits = _ttl_limits(reading, frame, statement, instance)
    if any(peer.address == address for peer in frame.items):
        reading.error("repeated", f"the peer {address} stands above already; ignored", frame, statement, 0)
        return NOTHING
    peer = UnicastPeer(address, **limits)
    if peer.min_ttl > peer.max_ttl:
        reading.error("ttl", "min_ttl is above max_ttl: every advert is dropped", frame, statement)
    return peer


def _ttl_limits(reading: Reading, frame: Frame, statement: Statement, instance: Frame) -> dict[str, int]:
    limits: dict[str, int] = {}
    texts = statement.texts
    for index in range(1, len(texts), 2):
        if index + 1 == len(texts):
            reading.error("missing-value", f"'{texts[index]}' lacks its value", frame, statement, index)
            break
        value = number_of(reading, frame, statement, index + 1, 0, 255)
        if value is None:
            continue
        if texts[index] not in ("min_ttl", "max_ttl"):
            reading.error(
                "unknown-option",
                f"unknown option '{texts[index]}'",
                frame,
                statement,
                index,
                remedy="min_ttl N, max_ttl N",
            )
            break
        limits[texts[index]] = value
        # A limit makes no sense for senders that are nobody's peer.
        instance.fields["check_unicast_src"] = True
    return limits


def _open_peers(reading: Reading, frame: Frame) -> bool:
    assert frame.parent is not None
    frame.parent.fields["(unicast)"] = True
    frame.items = frame.parent.fields.setdefault("unicast_peers", [])
    return True


UNICAST_PEER = Block(
    "vrrp_instance/unicast_peer",
    (),
    item=Row(
        "<IPADDR> [min_ttl N] [max_ttl N]",
        Kind("address …", _peer, low="0", high="255"),
        "A peer, and the TTL its adverts arrive with.",
        acts=True,
        default="0 to 255",
    ),
    open=_open_peers,
    close=lambda reading, frame: NOTHING,
    model=UnicastPeer,
)


# VMAC ----------------------------------------------------------------------------------------------------


def _valid_interface_name(name: str) -> bool:
    return (
        0 < len(as_bytes(name)) <= 15
        and name not in (".", "..")
        and not any(c in "/:" or c.isspace() for c in name)
    )


def _use_vmac(reading: Reading, frame: Frame, statement: Statement) -> object:
    """``[[name] IF] [MAC] [netlink_notify_msg] [group G]``."""
    values: dict[str, object] = {}
    texts = statement.texts
    index = 1
    while index < len(texts):
        text = texts[index]
        if ":" in text:
            mac = _mac(text)
            if mac is None:
                reading.error(
                    "bad-mac", f"'{text}' cannot be a VMAC's address; ignored", frame, statement, index
                )
            else:
                values.setdefault("mac", mac)
        elif text == "netlink_notify_msg":
            values["netlink_notify_msg"] = True
        elif text in ("group", "name") and index + 1 == len(texts):
            reading.missing(frame, statement, text)
        elif text == "group":
            index += 1
            _interface_group(reading, frame, statement, index, values)
        else:
            index += text == "name"
            _vmac_name(reading, frame, statement, index, values)
        index += 1
    return Vmac(**values)  # type: ignore[arg-type]


def _mac(text: str) -> str | None:
    """Six octets, or five, which the virtual router id completes. RFC 5798 and multicast ones are refused."""
    parts = text.removesuffix(":").split(":")
    if len(parts) not in (5, 6):
        return None
    octets = [octet for part in parts if (octet := hexadecimal(part, 2)) is not None]
    if len(octets) != len(parts) or octets[0] & 1 or (octets[:4] == [0, 0, 0x5E, 0] and octets[4] in (1, 2)):
        return None
    return ":".join(f"{octet:02x}" for octet in octets)


def _interface_group(
    reading: Reading, frame: Frame, statement: Statement, index: int, values: dict[str, object]
) -> None:
    text = statement.texts[index]
    if is_digits(text) and whole_number(text, UNSIGNED_MAX) is None:
        reading.error("bad-number", f"{text} cannot be an interface group; ignored", frame, statement, index)
    else:
        values["group"] = text


def _vmac_name(
    reading: Reading, frame: Frame, statement: Statement, index: int, values: dict[str, object]
) -> None:
    name = statement.texts[index]
    if "name" in values:
        reading.error(
            "repeated", f"the interface is named already; '{name}' is ignored", frame, statement, index
        )
    elif not _valid_interface_name(name):
        reading.error("bad-name", f"'{name}' cannot be an interface's name; ignored", frame, statement, index)
    elif reading.definition("vmac name", name) is not None:
        reading.error("repeated", f"'{name}' is another instance's; ignored", frame, statement, index)
    else:
        reading.define("vmac name", name, True)
        values["name"] = name


def _use_ipvlan(reading: Reading, frame: Frame, statement: Statement) -> object:
    """``[[name] IF] [IP] [bridge|private|vepa] [group G]``."""
    values: dict[str, object] = {"ipvlan": True}
    texts = statement.texts
    index = 1
    while index < len(texts):
        text = texts[index]
        address = parse_address(text.partition("/")[0])
        if text in ("bridge", "private", "vepa"):
            if values.setdefault("ipvlan_mode", text) != text:
                reading.error(
                    "repeated", f"the mode is set already; '{text}' is ignored", frame, statement, index
                )
        elif text in ("group", "name") and index + 1 == len(texts):
            reading.missing(frame, statement, text)
        elif text == "group":
            index += 1
            _interface_group(reading, frame, statement, index, values)
        elif address is not None:
            if agrees(reading, frame, statement, index, family_of(address)):
                values.setdefault("address", text)
                frame.fields.setdefault("source_address", address)
        else:
            index += text == "name"
            _vmac_name(reading, frame, statement, index, values)
        index += 1
    return Vmac(**values)  # type: ignore[arg-type]


def _sync_daemon_interface(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "interface")
        return NOTHING
    known = reading.globals.get("lvs_sync_daemon")
    if known is not None or reading.definition("sync daemon", "") is not None:
        reading.error(
            "repeated", "the synchronisation daemon has an interface already; ignored", frame, statement
        )
        return NOTHING
    reading.define("sync daemon", "", statement)
    reading.root.fields["(sync daemon)"] = (statement.texts[1], frame.name)
    return NOTHING


def _notify_deleted(reading: Reading, frame: Frame, statement: Statement) -> object:
    frame.fields["notify_deleted"] = True
    if len(statement.texts) < 2:
        return NOTHING
    assert _SCRIPT.read is not None
    return _SCRIPT.read(reading, frame, statement)


# vrrp_instance -------------------------------------------------------------------------------------------

_SCRIPT = script()
_GARP_DELAY = seconds(0, SECONDS_MAX)
_GARP_COUNT = integer(0, UNSIGNED_MAX, least=1, most=ANNOUNCEMENTS_LIMIT)


def _notify(name: str, field: str, help: str, appended: str = "") -> Row:
    return Row(
        name,
        script(appended) if appended else _SCRIPT,
        help,
        f"notify.{field}",
        acts=True,
        repeat=Repeat.FIRST,
    )


NOTIFY_ROWS = (
    _notify("notify_master", "master", "Run on becoming MASTER."),
    _notify("notify_backup", "backup", "Run on becoming BACKUP."),
    _notify("notify_fault", "fault", "Run on entering FAULT."),
    _notify("notify_stop", "stop", "Run when kad stops."),
)

INSTANCE_ROWS: tuple[Row, ...] = (
    Row(
        "state",
        Kind("MASTER / BACKUP", _state, takes=1),
        "State to start in; MASTER below priority 255 waits as long as any backup.",
        "wanted_state",
        acts=True,
        default="MASTER with priority 255, else BACKUP",
    ),
    Row(
        "interface",
        Kind("interface", _interface, high="15 characters", takes=1),
        "Interface of the virtual router.",
        acts=True,
    ),
    Row(
        "vrf",
        Kind("interface", _vrf, high="15 characters", takes=1),
        "VRF of a unicast instance without interface.",
        acts=True,
    ),
    Row("virtual_router_id", integer(1, 255), "Number of the virtual router.", acts=True, default="required"),
    Row(
        "priority",
        Kind("integer", _priority, "", "1", "255", takes=1),
        "Who becomes MASTER; 255 owns the addresses.",
        acts=True,
        default="255 with state MASTER, else 100",
    ),
    Row(
        "version",
        Kind("integer", _version, "", "2", "3", takes=1),
        "Protocol version.",
        acts=True,
        default="vrrp_version; 3 for IPv6",
    ),
    Row(
        "advert_int",
        decimal(10_000, 255_000_000),
        "Time between adverts: whole seconds in version 2, up to 40.95 s in steps of 10 ms in version 3.",
        "advert_int_us",
        acts=True,
    ),
    Row("authentication", opens(AUTHENTICATION), "Authentication of version 2.", acts=True),
    Row("auth_hmac", opens(AUTH_HMAC), "Signed adverts.", acts=True),
    Row("virtual_ipaddress", opens(VIRTUAL_IPADDRESS), "Addresses that move, named in adverts.", acts=True),
    Row(
        "virtual_ipaddress_excluded",
        opens(VIRTUAL_IPADDRESS_EXCLUDED),
        "Addresses that move, of either family, not named in adverts.",
        acts=True,
    ),
    Row("no_virtual_ipaddress", flag(), "It is meant to have no address.", acts=True),
    Row("virtual_routes", opens(VIRTUAL_ROUTES), "Routes that move.", acts=True),
    Row("virtual_rules", opens(VIRTUAL_RULES), "Rules that move.", acts=True),
    Row("promote_secondaries", flag(), "Keep secondary addresses when a primary one goes.", acts=True),
    # Where adverts go and come from
    Row(
        "mcast_src_ip",
        Kind("address", _source(False), takes=1),
        "Source of adverts.",
        "source_address",
        acts=True,
        default="the interface's first",
    ),
    Row(
        "mcast_dst_ip",
        Kind("multicast address", _destination, takes=1),
        "Group of adverts.",
        "multicast_group",
        acts=True,
        default="vrrp_mcast_group4, vrrp_mcast_group6",
    ),
    Row(
        "unicast_src_ip",
        Kind("address", _source(True), takes=1),
        "Source of adverts to peers.",
        "source_address",
        acts=True,
        default="the interface's first",
    ),
    Row("unicast_peer", opens(UNICAST_PEER), "Send adverts to these peers instead of a group.", acts=True),
    Row(
        "unicast_fault_no_peer",
        Kind("flag", _unicast_flag("unicast_fault_no_peer"), takes=0),
        "FAULT rather than multicast when there is no peer.",
        acts=True,
    ),
    Row(
        "unicast_ttl",
        integer(0, 255),
        "TTL or hop limit of adverts to peers.",
        acts=True,
        default="255; IPv6: the kernel's",
    ),
    Row(
        "check_unicast_src",
        Kind("flag", _unicast_flag("check_unicast_src"), takes=0),
        "Drop adverts that are not from a peer.",
        acts=True,
        default="vrrp_check_unicast_src",
    ),
    Row(
        "old_unicast_checksum",
        Kind("[never]", _old_checksum, takes=1),
        "Checksum of keepalived before 1.3.7; never: do not even look for it.",
        acts=True,
        default="detected",
    ),
    Row("track_src_ip", flag(), "FAULT while the configured source address is missing.", acts=True),
    Row(
        "native_ipv6",
        Kind("flag", _native_ipv6, takes=0),
        "An IPv6 instance.",
        acts=True,
        deprecated="remove it: addresses decide the family",
        deprecated_status=ExitStatus.OK,
    ),
    Row(
        "v3_checksum_as_v2",
        boolean(),
        "VRRPv3 over IPv4 without the pseudo header in the checksum.",
        acts=True,
        default="global",
    ),
    Row(
        "kernel_rx_buf_size",
        integer(0, UNSIGNED_MAX, unit="bytes", soft=True),
        "Receive buffer of its socket.",
        acts=True,
        default="vrrp_rx_bufs_policy",
    ),
    # VMAC
    Row(
        "use_vmac",
        Kind("[[name] IF] [MAC] [netlink_notify_msg] [group G]", _use_vmac, high="15 characters"),
        "A MAC address of its own, on a macvlan.",
        "vmac",
        acts=True,
    ),
    Row(
        "use_ipvlan",
        Kind("[[name] IF] [IP] [bridge/private/vepa] [group G]", _use_ipvlan, high="15 characters"),
        "An ipvlan of its own.",
        "vmac",
        acts=True,
        repeat=Repeat.FIRST,
    ),
    Row(
        "use_vmac_addr",
        flag(),
        "VMACs on the other interfaces of its addresses too.",
        "use_vmac_addr",
        acts=True,
    ),
    Row("vmac_xmit_base", flag(), "Send adverts from the base interface.", "(xmit_base)", acts=True),
    # Elections
    Row(
        "preempt",
        flag(value=False),
        "Take over from a lower priority: the default.",
        "nopreempt",
        acts=True,
        default="on",
    ),
    Row("nopreempt", flag(), "Do not take over from a lower priority.", acts=True),
    Row(
        "preempt_delay",
        decimal(0, 1_000_000_000),
        "Wait before taking over from a lower priority.",
        "preempt_delay_us",
        acts=True,
    ),
    Row(
        "down_timer_adverts",
        integer(1, 100),
        "How many missing adverts make it take over.",
        acts=True,
        default="vrrp_down_timer_adverts",
    ),
    Row(
        "timer_expired_backup",
        integer(1, 254, bare=254),
        "With nopreempt: be BACKUP when late for so long that a router of this priority took over.",
        "timer_expired_backup",
        acts=True,
    ),
    Row(
        "thread_timer_expired",
        integer(1, 254, bare=254),
        "As timer_expired_backup.",
        "timer_expired_backup",
        acts=True,
        alias_of="timer_expired_backup",
        deprecated="timer_expired_backup",
    ),
    Row(
        "lower_prio_no_advert",
        boolean(),
        "Do not answer an advert of lower priority.",
        acts=True,
        default="global; on with strict_mode",
    ),
    Row(
        "higher_prio_send_advert",
        boolean(),
        "One last advert before giving way.",
        acts=True,
        default="global; off with strict_mode",
    ),
    Row(
        "owner_ignore_adverts",
        boolean(),
        "The address owner drops the adverts of others.",
        acts=True,
        default="global; on with strict_mode",
    ),
    Row(
        "skip_check_adv_addr",
        boolean(),
        "Do not compare the addresses in every advert of the same master.",
        acts=True,
        default="global",
    ),
    Row("strict_mode", boolean(), "To the letter of the RFC.", acts=True, default="vrrp_strict"),
    Row(
        "accept",
        flag(),
        "Let packets to its addresses in: the default, except with strict_mode.",
        acts=True,
        default="on",
    ),
    Row("no_accept", flag(value=False), "Drop packets to its addresses unless owner.", "accept", acts=True),
    # Announcements
    Row(
        "garp_master_delay",
        _GARP_DELAY,
        "When the addresses are announced again.",
        "garp.master_delay_us",
        acts=True,
        default="global",
    ),
    Row(
        "garp_master_repeat",
        _GARP_COUNT,
        "How often each address is announced at a time.",
        "garp.master_repeat",
        acts=True,
        default="global",
    ),
    Row(
        "garp_master_refresh",
        seconds(0, UNSIGNED_MAX),
        "Period of further announcements.",
        "garp.master_refresh_us",
        acts=True,
        default="global",
    ),
    Row(
        "garp_master_refresh_repeat",
        _GARP_COUNT,
        "How often each address is announced in them.",
        "garp.master_refresh_repeat",
        acts=True,
        default="global",
    ),
    Row(
        "garp_lower_prio_delay",
        _GARP_DELAY,
        "After an advert of lower priority, when to announce again.",
        "garp.lower_prio_delay_us",
        acts=True,
        default="global",
    ),
    Row(
        "garp_lower_prio_repeat",
        integer(0, INT_MAX, most=ANNOUNCEMENTS_LIMIT),
        "How often each address is announced then.",
        "garp.lower_prio_repeat",
        acts=True,
        default="global",
    ),
    Row(
        "garp_extra_if",
        Kind("[all] integer", extra_if(0), "s", "0", "86400"),
        "Period of announcements on other interfaces of its addresses.",
        "garp.extra_if_us",
        acts=True,
        default="global",
    ),
    Row(
        "vmac_garp_intvl",
        Kind("[all] integer", extra_if(0), "s", "0", "86400"),
        "As garp_extra_if.",
        "garp.extra_if_us",
        acts=True,
        alias_of="garp_extra_if",
        deprecated="garp_extra_if",
    ),
    # Following other things
    Row("dont_track_primary", flag(), "The state of its own interface does not matter.", acts=True),
    *track_rows("vrrp_instance"),
    Row(
        "linkbeat_use_polling",
        flag(),
        "Poll the link of its interface.",
        "linkbeat_polling",
        acts=True,
        deprecated="a linkbeat_interfaces block",
    ),
    # Notification
    *NOTIFY_ROWS,
    Row(
        "notify_deleted",
        Kind("[script [user [group]]]", _notify_deleted),
        "Run when the instance is removed by a reload; without it FAULT is told.",
        "notify.deleted",
        acts=True,
        repeat=Repeat.FIRST,
    ),
    _notify("notify", "any_state", "Run on every transition.", "INSTANCE NAME STATE PRIORITY"),
    _notify("notify_master_rx_lower_pri", "master_rx_lower_pri", "Run when a MASTER hears a lower priority."),
    Row(
        "smtp_alert",
        boolean(),
        "Mail on transitions.",
        default="smtp_alert_vrrp, smtp_alert, else off",
        acts=True,
    ),
    Row(
        "notify_priority_changes",
        boolean(),
        "Write changes of priority to the pipes.",
        acts=True,
        default="the group's, else global",
    ),
    Row(
        "lvs_sync_daemon_interface",
        Kind("interface", _sync_daemon_interface, takes=1),
        "Interface of the connection synchronisation.",
        acts=True,
        deprecated="lvs_sync_daemon in global_defs",
    ),
    Row("debug", integer(0, 4), "Of no effect, as in keepalived.", acts=True),
)


def _close_instance(reading: Reading, frame: Frame) -> object:
    reading.define("vrrp_instance", frame.name, frame)
    return frame


VRRP_INSTANCE = Block(
    "vrrp_instance",
    INSTANCE_ROWS,
    open=named_once("vrrp_instance", "vrrp_instance"),
    close=_close_instance,
    model=VrrpInstance,
    parameters=-1,
)


# vrrp_sync_group -----------------------------------------------------------------------------------------


def _close_sync_group(reading: Reading, frame: Frame) -> object:
    reading.define("vrrp_sync_group", frame.name, frame)
    if "members" not in frame.fields:
        reading.error(
            "no-members", f"the sync group '{frame.name}' has no members; removed", frame, frame.statement, -1
        )
        return NOTHING
    return frame


SYNC_GROUP = Block(
    "vrrp_sync_group",
    (
        Row(
            "group",
            opens(group_of("vrrp_sync_group", acts=True)),
            "Instances that change state together.",
            "members",
            acts=True,
            repeat=Repeat.FIRST,
            default="required",
        ),
        *track_rows("vrrp_sync_group"),
        *NOTIFY_ROWS,
        _notify("notify", "any_state", "Run on every transition.", "GROUP NAME STATE 0"),
        Row(
            "smtp_alert",
            boolean(),
            "Mail on transitions.",
            default="smtp_alert_vrrp, smtp_alert, else off",
            acts=True,
        ),
        Row(
            "global_tracking",
            flag(),
            "As sync_group_tracking_weight.",
            "sync_group_tracking_weight",
            acts=True,
            alias_of="sync_group_tracking_weight",
            deprecated="track_… blocks of the group",
        ),
        Row("sync_group_tracking_weight", flag(), "Members may follow things by weight.", acts=True),
        Row(
            "notify_priority_changes",
            boolean(),
            "Write members' changes of priority to the pipes.",
            acts=True,
            default="global",
        ),
    ),
    open=named_once("vrrp_sync_group", "vrrp_sync_group"),
    close=_close_sync_group,
    model=SyncGroup,
    parameters=-1,
)


# The top level -------------------------------------------------------------------------------------------

ROOT_ROWS: tuple[Row, ...] = (
    Row("vrrp_instance", opens(VRRP_INSTANCE), "A virtual router.", acts=True, repeat=Repeat.ADD),
    Row(
        "vrrp_sync_group",
        opens(SYNC_GROUP),
        "Instances that change state together.",
        acts=True,
        repeat=Repeat.ADD,
    ),
    Row(
        "vrrp_script",
        opens(VRRP_SCRIPT),
        "A script whose result instances follow.",
        acts=True,
        repeat=Repeat.ADD,
    ),
    Row(
        "track_file",
        opens(TRACK_FILE),
        "A number in a file that instances and servers follow.",
        acts=True,
        roles=VRRP_CHECK,
        repeat=Repeat.ADD,
    ),
    Row(
        "vrrp_track_file",
        opens(VRRP_TRACK_FILE),
        "As track_file.",
        "track_file",
        acts=True,
        roles=VRRP_CHECK,
        repeat=Repeat.ADD,
        alias_of="track_file",
        deprecated="track_file",
        deprecated_status=ExitStatus.OK,
    ),
    Row(
        "vrrp_track_process",
        opens(VRRP_TRACK_PROCESS),
        "Processes that instances follow.",
        acts=True,
        repeat=Repeat.ADD,
    ),
    Row(
        "track_group",
        opens(TRACK_GROUP),
        "Instances that static items are followed by.",
        repeat=Repeat.ADD,
        acts=True,
    ),
    Row("static_ipaddress", opens(STATIC_IPADDRESS), "Addresses kept while kad runs.", acts=True),
    Row("static_routes", opens(STATIC_ROUTES), "Routes kept while kad runs.", acts=True),
    Row("static_rules", opens(STATIC_RULES), "Rules kept while kad runs.", acts=True),
    Row(
        "garp_group",
        opens(GARP_GROUP),
        "Pace of announcements of some interfaces.",
        acts=True,
        repeat=Repeat.ADD,
    ),
    Row(
        "linkbeat_interfaces",
        opens(LINKBEAT_INTERFACES),
        "Interfaces whose link is polled.",
        acts=True,
        repeat=Repeat.ADD,
    ),
    Row(
        "interface_up_down_delays",
        opens(INTERFACE_UP_DOWN_DELAYS),
        "How long changes of links must last.",
        acts=True,
        repeat=Repeat.ADD,
    ),
)
