"""Rows of bfd_instance: one BFD session each."""

from __future__ import annotations

from msgspec.structs import replace

from kad.addresses import family_of, is_link_local
from kad.config.encoding import as_bytes
from kad.config.model.bfd import (
    DEFAULT_HOP_LIMIT_IPV6,
    DEFAULT_TTL_IPV4,
    NAME_MAX_LENGTH,
    SENT_TTL,
    BfdConfiguration,
    BfdInstance,
)
from kad.config.schema import (
    BFD,
    CHECK,
    CLOSING,
    NOTHING,
    VRRP,
    Block,
    Frame,
    Kind,
    Reading,
    Repeat,
    Row,
    opens,
)
from kad.config.tree import Statement
from kad.config.values import address, boolean, decimal, flag, integer, number_of, word
from kad.errors import ExitStatus
from kad.units import US_PER_MS

BFD_INSTANCE_KEYWORD = "bfd_instance"
INTERVAL_LIMIT_MS = 4_294_967
SENSIBLE_INTERVAL_MS = 10_000
WEIGHT_LIMIT = 253


def _interval(low_ms: int) -> Kind:
    """Milliseconds with up to three decimals, as microseconds; a value beyond ten seconds is remarked on."""
    plain = decimal(low_ms * US_PER_MS, INTERVAL_LIMIT_MS * US_PER_MS, places=3, unit="ms")
    read_plain = plain.read
    assert read_plain is not None

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        value = read_plain(reading, frame, statement)
        if isinstance(value, int) and value > SENSIBLE_INTERVAL_MS * US_PER_MS:
            reading.warning(
                "large-interval",
                f"'{statement.texts[0]} {statement.texts[1]}' is in milliseconds: over 10 seconds",
                frame,
                statement,
                1,
                status=ExitStatus.OK,
            )
        return value

    return replace(plain, read=read)


def _weight(reading: Reading, frame: Frame, statement: Statement) -> object:
    words = statement.texts
    if len(words) < 2:
        reading.missing(frame, statement, "number")
        return NOTHING
    weight = number_of(reading, frame, statement, 1, -WEIGHT_LIMIT, WEIGHT_LIMIT)
    if len(words) > 2:
        if words[2] == "reverse":
            frame.fields["weight_reverse"] = True
        else:
            reading.error(
                "bad-choice",
                f"'weight': '{words[2]}' is ignored",
                frame,
                statement,
                2,
                remedy="reverse, or nothing",
            )
    return NOTHING if weight is None else weight


def _neighbor(reading: Reading, frame: Frame, statement: Statement) -> object:
    value = _NEIGHBOR.read(reading, frame, statement) if _NEIGHBOR.read is not None else NOTHING
    if value is NOTHING:
        # What follows is still read, so that its mistakes are told as well; keepalived skips it.
        frame.fields["unusable"] = True
    return value


_NEIGHBOR = address("address")


def _open(reading: Reading, frame: Frame) -> bool:
    statement = frame.statement
    assert statement is not None
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "name")
        return False
    name = statement.texts[1]
    if len(as_bytes(name)) > NAME_MAX_LENGTH:
        reading.error(
            "too-long",
            f"the name '{name}' is longer than {NAME_MAX_LENGTH} characters; the session is ignored",
            frame,
            statement,
            1,
        )
        return False
    if reading.definition(BFD_INSTANCE_KEYWORD, name) is not None:
        reading.error(
            "duplicate-name",
            f"a bfd_instance '{name}' stands above already; this one is ignored",
            frame,
            statement,
            1,
            remedy="another name",
        )
        return False
    return True


def _close(reading: Reading, frame: Frame) -> object:
    """The session, or NOTHING. Its name is defined either way: then its followers see it as down."""
    statement = frame.statement
    assert statement is not None
    fields = frame.fields
    named = fields.get("events_to_vrrp", False) or fields.get("events_to_checker", False)
    neighbor = fields.get("neighbor_address", "")
    default_ttl = DEFAULT_TTL_IPV4 if family_of(neighbor) == 4 else DEFAULT_HOP_LIMIT_IPV6
    instance = BfdInstance(
        name=statement.texts[1],
        neighbor_address=neighbor,
        ttl=fields.get("ttl", SENT_TTL),
        expected_ttl=fields.get("ttl", default_ttl),
        events_to_vrrp=fields.get("events_to_vrrp", not named),
        events_to_checker=fields.get("events_to_checker", not named),
        **{name: fields[name] for name in _PLAIN_FIELDS if name in fields},
    )
    instance = _limit_hops(reading, frame, instance)
    usable = not fields.get("unusable") and _usable(reading, frame, instance)
    reading.define(BFD_INSTANCE_KEYWORD, instance.name, instance)
    if not usable:
        return NOTHING
    _beside(reading, instance).append(instance)
    return instance


_PLAIN_FIELDS = (
    "source_address",
    "min_rx_us",
    "min_tx_us",
    "idle_tx_us",
    "multiplier",
    "passive",
    "max_hops",
    "multihop",
    "interface",
    "weight",
    "weight_reverse",
)


def _limit_hops(reading: Reading, frame: Frame, instance: BfdInstance) -> BfdInstance:
    limit = instance.expected_ttl
    if instance.max_hops <= limit:
        return instance
    reading.warning(
        "too-many-hops",
        f"'max_hops {instance.max_hops}' exceeds the TTL or hop limit {limit}: {limit} is used",
        frame,
        frame.place("max_hops"),
        1,
    )
    return replace(instance, max_hops=limit)


def _usable(reading: Reading, frame: Frame, instance: BfdInstance) -> bool:
    """Can the session exist beside those above it? Reports why not."""
    if not instance.neighbor_address:
        reading.error(
            "no-neighbor",
            f"bfd_instance '{instance.name}' has no neighbor_ip; it is disabled",
            frame,
            frame.statement,
            CLOSING,
            remedy="neighbor_ip ADDRESS",
        )
        return False
    if instance.source_address and family_of(instance.source_address) != instance.family:
        reading.error(
            "family-mismatch",
            f"source_ip {instance.source_address} and neighbor_ip {instance.neighbor_address} are not of"
            " one family; the session is disabled",
            frame,
            frame.place("source_address"),
            1,
        )
        return False
    if is_link_local(instance.neighbor_address) and not instance.interface:
        reading.warning(
            "no-interface",
            f"neighbor_ip {instance.neighbor_address} means nothing without an interface: no packets",
            frame,
            frame.place("neighbor_address"),
            1,
            remedy="interface NAME (not in keepalived)",
            status=ExitStatus.OK,
        )
    rival = _rival(reading, instance)
    if rival is not None:
        reading.error(
            "duplicate-session",
            f"bfd_instance '{rival.name}' has the same addresses already; '{instance.name}' is ignored",
            frame,
            frame.place("neighbor_address"),
            1,
            remedy="another neighbor_ip, or a source_ip of its own in both",
        )
        return False
    return True


def _beside(reading: Reading, instance: BfdInstance) -> list[BfdInstance]:
    """The sessions above with the same neighbour and port."""
    sessions: dict[str, list[BfdInstance]] = reading.defined.setdefault("bfd session", {})
    return sessions.setdefault(f"{instance.neighbor_address} {instance.multihop}", [])


def _rival(reading: Reading, instance: BfdInstance) -> BfdInstance | None:
    """A session above that no packet could be told apart from: no source_ip, or interface, means any."""
    for other in _beside(reading, instance):
        sources = {other.source_address, instance.source_address}
        interfaces = {other.interface, instance.interface}
        if ("" in sources or len(sources) == 1) and ("" in interfaces or len(interfaces) == 1):
            return other
    return None


_NEIGHBOR_KIND = Kind("address", _neighbor, takes=1)
_TTL = integer(1, 255)

BFD_INSTANCE = Block(
    "bfd_instance",
    (
        Row(
            "neighbor_ip",
            _NEIGHBOR_KIND,
            "The peer's address.",
            "neighbor_address",
            acts=True,
            default="required",
        ),
        Row(
            "neighbour_ip",
            _NEIGHBOR_KIND,
            "The peer's address.",
            "neighbor_address",
            acts=True,
            alias_of="neighbor_ip",
        ),
        Row(
            "source_ip",
            address("address"),
            "The local address; the source port is then within the range RFC 5881 demands.",
            "source_address",
            acts=True,
            default="the kernel's choice",
        ),
        Row(
            "min_rx",
            _interval(1),
            "Shortest gap between packets that we are ready to receive.",
            "min_rx_us",
            acts=True,
        ),
        Row(
            "min_tx",
            _interval(1),
            "Shortest gap between packets that we wish to send.",
            "min_tx_us",
            acts=True,
        ),
        Row(
            "idle_tx",
            _interval(1000),
            "Gap between our packets while the session is not up.",
            "idle_tx_us",
            acts=True,
        ),
        Row("multiplier", integer(1, 255), "How many missing packets mean that the peer is lost.", acts=True),
        Row("passive", flag(), "Send nothing until the peer has sent something.", acts=True),
        Row("ttl", _TTL, "TTL or hop limit of the packets we send.", acts=True, default="255"),
        Row(
            "hoplimit",
            _TTL,
            "TTL or hop limit of the packets we send.",
            "ttl",
            acts=True,
            alias_of="ttl",
            default="as ttl",
        ),
        Row(
            "max_hops",
            integer(-1, 255),
            "How far below our own (64 for IPv6 when ttl is not set) the TTL of a received packet may be;"
            " 255 allows any.",
            acts=True,
        ),
        Row("multihop", boolean(), "A session across routers: port 4784 instead of 3784.", acts=True),
        Row(
            "interface",
            word("interface", longest=15),
            "Interface or VRF the session is bound to; a link-local neighbour needs one. Not in keepalived.",
            acts=True,
        ),
        Row(
            "weight",
            Kind("integer [reverse]", _weight, low=str(-WEIGHT_LIMIT), high=str(WEIGHT_LIMIT)),
            "Default weight for a track_bfd of this session; 0 means that its loss is a fault.",
            acts=True,
            roles=VRRP,
        ),
        Row(
            "vrrp",
            flag(),
            "Tell the VRRP process of changes; once one of the two is named, only the named are told.",
            "events_to_vrrp",
            acts=True,
            roles=(*BFD, *VRRP),
            default="both",
        ),
        Row(
            "checker",
            flag(),
            "Tell the checker process of changes; once one of the two is named, only the named are told.",
            "events_to_checker",
            acts=True,
            roles=(*BFD, *CHECK),
            default="both",
        ),
    ),
    open=_open,
    close=_close,
    model=BfdInstance,
    roles=BFD,
    parameters=1,
)

ROOT_ROWS = (
    Row(
        BFD_INSTANCE_KEYWORD,
        opens(BFD_INSTANCE),
        "A BFD session with a neighbour.",
        acts=True,
        roles=(*BFD, *VRRP, *CHECK),
        repeat=Repeat.ADD,
    ),
)


def finish(reading: Reading, root: Frame) -> BfdConfiguration:
    """What the BFD child is told, once the whole file has been read."""
    return BfdConfiguration(tuple(root.fields.get(BFD_INSTANCE_KEYWORD, ())))
