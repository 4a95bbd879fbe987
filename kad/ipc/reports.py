"""What a child tells about itself: the bodies of StatusReport. Instants are CLOCK_MONOTONIC microseconds."""

from msgspec import Struct


class VirtualAddressReport(Struct, frozen=True, omit_defaults=True):
    """One configured virtual address. ``text`` reads as the configuration would write it."""

    address: str
    prefix_length: int
    interface: str
    excluded: bool = False
    present: bool = False
    """In the kernel by this instance's doing or knowledge."""


class InstanceReport(Struct, frozen=True, omit_defaults=True):
    """One VRRP instance at this moment."""

    name: str
    state: str
    """INIT, BACKUP, MASTER or FAULT."""
    since_us: int
    """When it entered this state, over crashes too."""
    priority: int
    effective_priority: int
    interface: str
    family: int
    version: int
    virtual_router_id: int
    wanted_state: str
    advert_int_us: int
    master_adver_us: int
    """The present master's interval, learnt in version 3."""
    source_address: str = ""
    master_address: str = ""
    """Empty while it is this router, or none was heard."""
    master_priority: int = 0
    reason: str = ""
    """Why it entered this state, in words."""
    fault: str = ""
    """What is in the way, in FAULT."""
    vips_set: bool = False
    addresses: tuple[VirtualAddressReport, ...] = ()
    owed_notifications: int = 0
    counters: dict[str, int] = {}
    """keepalived's names and order."""
    drops: dict[str, int] = {}
    """Packets not believed, by reason."""


class Cause(Struct, frozen=True):
    """One transition and why. ``at_us`` is CLOCK_MONOTONIC."""

    at_us: int
    instance: str
    old: str
    new: str
    reason: str
    priority: int


class ProcessReport(Struct, frozen=True, omit_defaults=True):
    """How a child's own process is doing."""

    deadlines: int = 0
    """Times the core's deadline came."""
    late: dict[str, int] = {}
    """How often its loop came later than so many microseconds."""
    worst_late_us: int = 0
    counters: dict[str, int] = {}
    """What its shells count, by name."""
    causes: tuple[Cause, ...] = ()
    """The last transitions, oldest first."""


class VrrpReport(Struct, frozen=True, omit_defaults=True):
    """The VRRP child. ``drops`` counts packets that belong to no instance."""

    generation: int
    instances: tuple[InstanceReport, ...] = ()
    drops: dict[str, int] = {}
    process: ProcessReport | None = None
