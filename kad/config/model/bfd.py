"""What a configuration says about BFD sessions. Durations are microseconds; defaults stand only here."""

from msgspec import Struct

NAME_MAX_LENGTH = 31
"""Characters in the name of a bfd_instance: events carry it in a field of that size."""

DEFAULT_TTL_IPV4 = 255
"""RFC 5881 §5 asks for 255."""

DEFAULT_HOP_LIMIT_IPV6 = 64
"""What keepalived sends and expects over IPv6 unless told otherwise, although RFC 5881 §5 asks for 255. We
send 255, which every peer takes, and let 64 pass."""

SENT_TTL = 255
"""RFC 5881 §5."""


class BfdInstance(Struct, frozen=True, omit_defaults=True):
    """One bfd_instance: a session with one neighbour (RFC 5880, 5881; with ``multihop`` RFC 5883)."""

    name: str
    neighbor_address: str
    """Canonical text."""
    source_address: str = ""
    """Empty: whatever the kernel chooses."""
    min_rx_us: int = 10_000
    min_tx_us: int = 10_000
    idle_tx_us: int = 1_000_000
    """Transmit interval while the session is not Up."""
    multiplier: int = 5
    passive: bool = False
    """Send nothing before the neighbour does."""
    ttl: int = SENT_TTL
    """TTL or hop limit of outgoing packets."""
    expected_ttl: int = DEFAULT_TTL_IPV4
    """What a received packet's TTL is measured against: ``ttl`` where it is configured, as in keepalived,
    else keepalived's default for the family."""
    max_hops: int = 0
    """How far the received TTL may lie below ``expected_ttl``; 255 disables the check, -1 demands more."""
    multihop: bool = False
    interface: str = ""
    """An interface or VRF the session is bound to; link-local neighbours need one. Not in keepalived."""
    events_to_vrrp: bool = True
    events_to_checker: bool = True
    weight: int = 0
    """Default weight of a track_bfd that names this session; 0: its loss is a FAULT."""
    weight_reverse: bool = False

    @property
    def family(self) -> int:
        return 6 if ":" in self.neighbor_address else 4


class BfdConfiguration(Struct, frozen=True, omit_defaults=True):
    """Everything the BFD child is told, in the order of the file."""

    instances: tuple[BfdInstance, ...] = ()
