"""What the VRRP engine wants done, in order. ``events.py`` is the counterpart: what happened.

The shell carries actions out one after the other and never reorders them. It may not fail: what the kernel
refuses comes back as an event.
"""

from enum import StrEnum

from msgspec import Struct

from kad.config.model.routing import Route, Rule
from kad.config.model.script import ScriptCommand
from kad.notify.policy import Letter
from kad.track.script import EndScript, RunScript


class State(StrEnum):
    """RFC 9568 §6.3, with keepalived's FAULT."""

    INIT = "INIT"
    BACKUP = "BACKUP"
    MASTER = "MASTER"
    FAULT = "FAULT"


class Transport(Struct, frozen=True):
    """One pair of sockets (in and out), shared by every instance that would open the same.

    ``source`` is set for unicast only; ``interface`` may be empty for unicast without one.
    """

    family: int
    protocol: int
    """112, or 51 for AH."""
    interface: str
    group: str = ""
    source: str = ""
    unicast_ttl: int = 255
    vrf: str = ""
    receive_buffer: int = 0
    """Bytes, and so many times the interface's MTU; both 0: the usual."""
    receive_buffer_mtus: int = 0


class OpenTransport(Struct, frozen=True):
    """Open sockets and answer TransportOpened or TransportFailed under ``number``."""

    number: int
    transport: Transport


class CloseTransport(Struct, frozen=True):
    number: int


class SendAdvert(Struct, frozen=True, gc=False):
    """One advertisement to one destination; the shell stamps the instance's record after the send.

    ``data``: IPv4: the whole packet with header (IP_HDRINCL, identification 0 for the kernel to fill);
    IPv6: the payload (the kernel computes its checksum). Equal adverts are the same object.
    """

    transport: int
    instance: str
    data: bytes
    destination: str
    source: str


class AddressEntry(Struct, frozen=True):
    """One address to add or delete, complete."""

    interface: str
    address: str
    prefix_length: int
    scope: int = 0
    broadcast: str = ""
    label: str = ""
    peer: str = ""
    flags: int = 0
    preferred_lifetime: int = 0xFFFFFFFF
    no_track: bool = False


Entry = AddressEntry | Route | Rule
"""What a master has and a backup has not."""


class ChangeAddresses(Struct, frozen=True):
    """Remove, then add: addresses and what goes with them. Answered by PlanDone with the same serial, always.

    Exactly these are removed, whoever set them; absent is as good as removed. Additions use EXCL: one that
    exists already is success and named in PlanDone. Who owns what is the engine's knowledge alone.
    """

    instance: str
    serial: int
    remove: tuple[Entry, ...]
    add: tuple[Entry, ...]


class Announce(Struct, frozen=True):
    """Send gratuitous ARPs and unsolicited neighbour advertisements, back to back, in order.

    ``frames``: (interface name, whole Ethernet frame).
    """

    instance: str
    frames: tuple[tuple[str, bytes], ...]


class SetPromoteSecondaries(Struct, frozen=True):
    """Set it, or put it back as it was before the first time (nothing to do if it was set then too)."""

    interface: str
    enabled: bool


class Notify(Struct, frozen=True):
    """Run these scripts for a transition, in order of start; answered by NotifyDone.

    ``commands``: complete argv each (the appended INSTANCE NAME STATE PRIORITY included). ``instance`` is a
    sync group's name where a group has changed. ``line`` is written to the FIFOs and ``letter`` mailed at the
    same time; with no commands that is all, and there is no answer.
    """

    instance: str
    serial: int
    state: str
    priority: int
    commands: tuple[ScriptCommand, ...]
    line: bytes = b""
    letter: Letter | None = None


class WriteFifo(Struct, frozen=True):
    """A line for whoever reads the FIFOs, beside those of notifications."""

    line: bytes


class StateChanged(Struct, frozen=True):
    """For the log, status and the record of causes. ``reason`` is one sentence for people."""

    instance: str
    old: State
    new: State
    reason: str
    priority: int


class Remember(Struct, frozen=True):
    """Write this instance's record to the journal before carrying out what follows.

    ``stamp``: an advert follows at once; set its last-transmission time now, so that a record of MASTER never
    stands beside the stamp of an older reign.
    """

    instance: str
    record: bytes
    stamp: bool = False


class Forget(Struct, frozen=True):
    """Free the instance's journal record."""

    instance: str


class RememberObject(Struct, frozen=True):
    """Write the journal record of a tracker or a sync group, whose keys are never an instance's."""

    key: str
    record: bytes


class ForgetObject(Struct, frozen=True):
    """Free it."""

    key: str


class GroupChanged(Struct, frozen=True):
    """A sync group is in another state, its members before it."""

    group: str
    old: State
    new: State


class PriorityChanged(Struct, frozen=True):
    """An instance with notify_priority_changes has another effective priority."""

    instance: str
    state: State
    priority: int


class LogLevel(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    DEBUG = "debug"


class Log(Struct, frozen=True):
    level: LogLevel
    text: str


class Stopped(Struct, frozen=True):
    """Everything was withdrawn: the process may leave."""


Action = (
    OpenTransport
    | CloseTransport
    | SendAdvert
    | ChangeAddresses
    | Announce
    | SetPromoteSecondaries
    | Notify
    | WriteFifo
    | StateChanged
    | Remember
    | Forget
    | RememberObject
    | ForgetObject
    | GroupChanged
    | PriorityChanged
    | RunScript
    | EndScript
    | Log
    | Stopped
)
