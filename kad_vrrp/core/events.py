"""What can happen to the VRRP engine. ``actions.py`` is the counterpart: what the engine wants done.

Events carry facts and no judgement. All times are CLOCK_MONOTONIC microseconds and are handed beside the
event (``Engine.handle(event, now_us)``), never inside it; but for packets, which have lain in a socket.
"""

from msgspec import Struct

from kad.config.model.routing import Route, Rule
from kad.config.model.track import TrackFile, TrackProcess, TrackScript
from kad.config.model.vrrp import GarpGroup, SyncGroup, VirtualLink, VrrpInstance, VrrpSettings
from kad.track.process import ProcessesCounted
from kad.track.script import ScriptEnded
from kad_vrrp.core.actions import Entry

Way = tuple[str, int, str]
"""Source, hop limit and destination of an IPv6 packet."""


class AdvertReceived(Struct, frozen=True, gc=False):
    """Bytes that arrived on a VRRP socket.

    ``data``: for IPv4 the whole IP packet (header included), for IPv6 the payload. ``transport`` is the
    number the shell opened the socket under. ``destination`` is "" where the header tells it (IPv4).
    """

    transport: int
    data: bytes
    source: str
    hop_limit: int = 255
    destination: str = ""

    @property
    def way(self) -> Way:
        """What came beside the bytes."""
        return self.source, self.hop_limit, self.destination


class AdvertsReceived(Struct, frozen=True):
    """What was read from one socket at once, in order.

    ``arrived_us``: when each arrived, CLOCK_MONOTONIC microseconds; 0: just now. It may lie before what the
    engine was told last, but not before another of the same socket. ``ways``: none for IPv4, where the header
    tells.
    """

    transport: int
    data: list[bytes]
    arrived_us: list[int]
    ways: list[Way] | None = None

    def packet(self, index: int) -> AdvertReceived:
        """One of them by itself, which is needed for very few of those that a thousand instances hear."""
        data = self.data[index]
        if self.ways is not None:
            return AdvertReceived(self.transport, data, *self.ways[index])
        return AdvertReceived(self.transport, data, ".".join(map(str, data[12:16].ljust(4, b"\0"))))


class AdvertDelayed(Struct, frozen=True):
    """One that lay in its socket for longer than waking up takes: this process stood still."""

    advert: AdvertReceived
    age_us: int
    """Since it arrived."""


class LinkChanged(Struct, frozen=True):
    """The whole present truth about one interface, whenever any of it changed."""

    name: str
    index: int
    up: bool
    """IFF_UP and IFF_RUNNING (lower layers too)."""
    mac: bytes
    mtu: int
    arp: bool
    """False: IFF_NOARP, no announcements there."""
    multicast: bool
    addresses: tuple[str, ...]
    """Usable source addresses in the kernel's order, both families, none tentative. The engine leaves out
    the virtual ones itself."""
    master: int = 0
    """Index of the VRF, bridge or bond it belongs to."""
    forwarding: bool = False
    """IPv6 forwarding: neighbour advertisements say we are a router, as the kernel's own do."""


class LinkRemoved(Struct, frozen=True):
    name: str


class AddressDeleted(Struct, frozen=True):
    """An address of one of our plans vanished and it was not us who deleted it.

    While a plan that adds it is under way nothing is told: PlanDone comes first. So it is with RouteDeleted.
    """

    interface: str
    address: str
    prefix_length: int
    culprit: str = ""
    """Who did it, for people; empty: unknown."""


class RouteDeleted(Struct, frozen=True):
    """A tracked route or rule of one of our plans vanished, and it was not us who deleted it.

    ``culprit``: who did, for people; empty: the kernel by itself, or unknown.
    """

    entry: Route | Rule
    culprit: str = ""


class RouteReplaced(Struct, frozen=True):
    """Somebody's route took the place of one like ours, which is gone or beside it. ``culprit``: whose."""

    entry: Route | Rule
    culprit: str


class RoutesDoubted(Struct, frozen=True):
    """Words of the kernel about routes were lost: any of ours may be gone."""


class TransportOpened(Struct, frozen=True):
    transport: int


class TransportFailed(Struct, frozen=True):
    """A socket could not be opened, or a send on it failed for good. ``reason`` is for people."""

    transport: int
    reason: str


class AddressFailure(Struct, frozen=True):
    """One command of a plan that the kernel refused. ``reason`` names the error, for people."""

    entry: Entry
    adding: bool
    reason: str


class PlanDone(Struct, frozen=True):
    """The kernel has answered every command of a :class:`actions.ChangeAddresses`.

    ``existed``: additions that were there already (EEXIST), the very entries of the action. Removing what is
    absent is no failure. No ``failures``: all is as asked.
    """

    instance: str
    serial: int
    existed: tuple[Entry, ...] = ()
    failures: tuple[AddressFailure, ...] = ()


class NotifyDone(Struct, frozen=True):
    """All scripts of the notification with this number have ended (or could not be started)."""

    instance: str
    serial: int


class FileRead(Struct, frozen=True):
    """What a tracked file holds now; 0 when it is not there. Told before a configuration that follows it."""

    path: str
    value: int


class BfdChanged(Struct, frozen=True):
    """A BFD session is up, or it is not."""

    name: str
    up: bool


class ConfigurationChanged(Struct, frozen=True):
    """A new generation to run: the whole set of instances, changed ones as new objects.

    The first one is the start; with records given to the engine it is a restart after a crash. The shell
    tells every link (LinkChanged) before the first one, or instances would begin in FAULT.
    ``previous``: for a restart in the middle of a reload, the instances of the generation before, so that
    what they left behind can be named and cleaned; empty when all had been applied.
    """

    generation: int
    instances: tuple[VrrpInstance, ...]
    previous: tuple[VrrpInstance, ...] = ()
    garp_groups: tuple[GarpGroup, ...] = ()
    sync_groups: tuple[SyncGroup, ...] = ()
    scripts: tuple[TrackScript, ...] = ()
    files: tuple[TrackFile, ...] = ()
    processes: tuple[TrackProcess, ...] = ()
    settings: VrrpSettings = VrrpSettings()
    virtual_links: tuple[VirtualLink, ...] = ()
    """The interfaces of the instances' own, there already where they can be."""
    statics: tuple[Entry, ...] = ()
    """static_ipaddress, static_routes, static_rules; with what the generation before had."""
    previous_statics: tuple[Entry, ...] = ()
    previous_sync_groups: tuple[SyncGroup, ...] = ()
    """As ``previous``."""


class ClockSet(Struct, frozen=True):
    """By how much CLOCK_REALTIME is ahead of CLOCK_MONOTONIC, before the first configuration and whenever it
    was set. Only timestamps of auth_hmac depend on it.
    """

    realtime_ahead_us: int


class StopRequested(Struct, frozen=True):
    """Withdraw everything, in order, and say so."""


class TimeReached(Struct, frozen=True):
    """Nothing but time passed and the deadline is due. Sockets were drained before."""


Event = (
    AdvertReceived
    | AdvertsReceived
    | AdvertDelayed
    | LinkChanged
    | LinkRemoved
    | AddressDeleted
    | RouteDeleted
    | RouteReplaced
    | RoutesDoubted
    | TransportOpened
    | TransportFailed
    | PlanDone
    | NotifyDone
    | ScriptEnded
    | FileRead
    | ProcessesCounted
    | BfdChanged
    | ClockSet
    | ConfigurationChanged
    | StopRequested
    | TimeReached
)
