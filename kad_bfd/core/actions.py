"""What the BFD engine wants done, in order. ``events.py`` is the counterpart: what happened.

The shell carries actions out one after the other and never reorders them. It may not fail: what the kernel
refuses comes back as an event.
"""

from enum import StrEnum

from msgspec import Struct

from kad_bfd.core.packet import State

SINGLE_HOP_PORT = 3784
"""RFC 5881 §4."""
MULTIHOP_PORT = 4784
"""RFC 5883 §5."""


class Listener(Struct, frozen=True):
    """A socket that receives for many sessions."""

    family: int
    multihop: bool = False
    interface: str = ""
    """Bound to this interface or VRF; empty: to none."""

    @property
    def port(self) -> int:
        return MULTIHOP_PORT if self.multihop else SINGLE_HOP_PORT


class Transport(Struct, frozen=True):
    """A session's own sending socket: its source port is the session's for as long as it lives."""

    neighbor: str
    source: str
    """Empty: the kernel's choice."""
    ttl: int
    multihop: bool = False
    interface: str = ""

    @property
    def family(self) -> int:
        return 6 if ":" in self.neighbor else 4

    @property
    def port(self) -> int:
        """Where the neighbour listens."""
        return MULTIHOP_PORT if self.multihop else SINGLE_HOP_PORT


class OpenListener(Struct, frozen=True):
    """Answered by ListenerOpened or ListenerFailed.

    ``tag``: the first 12 bits of every discriminator of ours. What reflects them is to be read before
    everything else: a flood from strangers may not drown the neighbours.
    """

    listener: Listener
    tag: int


class CloseListener(Struct, frozen=True):
    listener: Listener


class CheckInterface(Struct, frozen=True):
    """See whether these sockets are still bound to the right source and to what has the interface's name now.

    An interface that was deleted and made anew is another to the kernel; an address that the kernel chose is
    the socket's for good. ListenerFailed and TransportFailed tell which sockets are worth nothing any more;
    nothing is told of the rest.
    """

    listener: Listener | None
    transports: tuple[int, ...]


class OpenTransport(Struct, frozen=True):
    """Open, or open anew, and answer TransportOpened or TransportFailed under ``number``.

    ``port``: the source port to try first; where it is taken, any other of the range of RFC 5881 §4.
    """

    number: int
    transport: Transport
    port: int


class CloseTransport(Struct, frozen=True):
    number: int


class SendPacket(Struct, frozen=True, gc=False):
    """One control packet. Equal packets of a session are the same object."""

    transport: int
    data: bytes


class SessionChanged(Struct, frozen=True):
    """For the log, status and the record of causes. ``reason`` is one sentence for people."""

    session: str
    old: State
    new: State
    reason: str
    local_diagnostic: int
    remote_diagnostic: int
    """As the peer last said."""


class Publish(Struct, frozen=True):
    """The present value of what subscribers are told of a session, whenever any of it changed."""

    session: str
    up: bool
    detection_time_us: int
    """How long the session may be silent: what a subscriber allows this process to be silent too."""
    to_vrrp: bool
    to_checker: bool


class Unpublish(Struct, frozen=True):
    """The session is no more."""

    session: str


class Remember(Struct, frozen=True):
    """Write this session's record to the journal before carrying out what follows."""

    session: str
    record: bytes


class Forget(Struct, frozen=True):
    """Free the session's journal record."""

    session: str


class LogLevel(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    DEBUG = "debug"


class Log(Struct, frozen=True):
    level: LogLevel
    text: str


class Stopped(Struct, frozen=True):
    """Every neighbour was told: the process may leave."""


Action = (
    OpenListener
    | CloseListener
    | CheckInterface
    | OpenTransport
    | CloseTransport
    | SendPacket
    | SessionChanged
    | Publish
    | Unpublish
    | Remember
    | Forget
    | Log
    | Stopped
)
