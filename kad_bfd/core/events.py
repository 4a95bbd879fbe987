"""What can happen to the BFD engine. ``actions.py`` is the counterpart: what the engine wants done.

Events carry facts and no judgement. All times are CLOCK_MONOTONIC microseconds and are handed beside the
event (``Engine.handle(event, now_us)``), never inside it.
"""

from msgspec import Struct

from kad.config.model.bfd import BfdInstance
from kad_bfd.core.actions import Listener


class Origin(Struct, frozen=True):
    """Where a packet came from and how it got here. The shell hands out one object for equal ones."""

    source: str
    destination: str
    hop_limit: int
    """TTL or hop limit as received; -1 where the kernel did not say, which no check lets pass."""
    listener: Listener


class PacketsReceived(Struct, frozen=True, gc=False):
    """UDP payloads that arrived on a BFD port, in order, each with the way it came and the time it did."""

    packets: list[tuple[bytes, Origin, int]]


class ListenerOpened(Struct, frozen=True):
    listener: Listener


class ListenerFailed(Struct, frozen=True):
    """It could not be opened, or its interface is gone. ``reason`` is for people."""

    listener: Listener
    reason: str


class TransportOpened(Struct, frozen=True):
    """A session's own socket is there, bound to this source port."""

    transport: int
    port: int


class TransportFailed(Struct, frozen=True):
    """It could not be opened, or its address or interface is gone. ``reason`` is for people."""

    transport: int
    reason: str


class SendingChanged(Struct, frozen=True):
    """Packets do not leave this machine though there is a socket; with an empty ``failure`` they do again."""

    transport: int
    failure: str


class ConfigurationChanged(Struct, frozen=True):
    """A new generation to run: the whole set of sessions. The first one is the start.

    With records given to the engine the first one is a restart after a crash.
    """

    generation: int
    instances: tuple[BfdInstance, ...]


class StopRequested(Struct, frozen=True):
    """Tell every neighbour, then stop."""

    administrative: bool = False
    """No session is configured any more; else the daemon ends."""


class TimeReached(Struct, frozen=True):
    """Nothing but time passed and the deadline is due. Sockets were drained before."""


Event = (
    PacketsReceived
    | ListenerOpened
    | ListenerFailed
    | TransportOpened
    | TransportFailed
    | SendingChanged
    | ConfigurationChanged
    | StopRequested
    | TimeReached
)
