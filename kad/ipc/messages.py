"""Every message between kad's processes: one Struct each, one tagged union a direction.

Messages state whole present values (level, not edge). ``incarnation`` counts the lives of a child,
``generation`` the configurations that were committed; a receiver drops what is stale and counts it.
This module imports no ZeroMQ: the supervisor uses the messages of its socket pair too.
"""

from enum import StrEnum

from msgspec import Struct

from kad.config.model.globals import CHILD_WAIT_US, Mail
from kad.notify.policy import Letter


class Role(StrEnum):
    """The children of the supervisor."""

    CONTROL = "control"
    VRRP = "vrrp"
    CHECK = "check"
    BFD = "bfd"


class Message(Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Base: tagged by class name; unknown fields are refused."""


# The generation: what the supervisor keeps in a sealed memfd -------------------------------------------


class Generation(Struct, frozen=True, forbid_unknown_fields=True):
    """One committed configuration, complete. Encoded once, sealed, inherited by every child at fork."""

    number: int
    source_digest: str
    """Digest of every file read, in order: tells whether the file on disk is what runs."""
    slices: dict[Role, dict[str, bytes]]
    """Per role: object name -> encoded object. Equal bytes mean an unchanged object."""
    accepted_errors: tuple[str, ...] = ()
    """Identities of the errors in its text; a reload is refused only for others."""
    formerly_accepted: tuple[tuple[str, ...], ...] = ()
    """Those of the daemon's first generation and of its latest ones: what ran may come back."""
    roles: tuple[Role, ...] = ()
    """Children to run beside control."""
    settings: "SupervisorSettings | None" = None


class SupervisorSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What the configuration says to the supervisor itself. It cannot parse: it is told."""

    child_wait_us: int = CHILD_WAIT_US
    hang_limit_us: int = 1_000_000
    least_master_down_us: int = 3_000_000
    """The shortest master-down interval of any instance: a restart later than this withdraws first."""
    shutdown_us: int = 0
    """How long the shutdown script may take, which control runs when all others have left."""
    process_name: str = ""
    umask: int | None = None


# control -> supervisor, over a SOCK_SEQPACKET pair -----------------------------------------------------


class CommitGeneration(Message, frozen=True):
    """Take this generation (its memfd rides along as SCM_RIGHTS). The answer Committed is the commit."""

    number: int
    roles: tuple[Role, ...]
    settings: SupervisorSettings


class AllApplied(Message, frozen=True):
    """Every child runs this generation: the one before may be dropped."""

    number: int


class LoadFailed(Message, frozen=True):
    """The first load cannot be run: stop the daemon with this status."""

    exit_status: int
    text: str


class ReloadBegun(Message, frozen=True):
    """ReloadRequested was read."""


class ReloadFinished(Message, frozen=True):
    """For sd_notify and the log. ``accepted`` False: everything is as it was."""

    accepted: bool
    text: str


ControlToSupervisor = CommitGeneration | AllApplied | LoadFailed | ReloadBegun | ReloadFinished


# supervisor -> control -----------------------------------------------------------------------------------


class Committed(Message, frozen=True):
    number: int


class ReloadRequested(Message, frozen=True):
    """SIGHUP. A second one while a reload runs is sent once, after it."""


class ProcessInfo(Struct, frozen=True, forbid_unknown_fields=True):
    role: Role
    pid: int
    incarnation: int
    state: str
    """STARTING, RUNNING, BACKOFF, STOPPING, STOPPED (supervisor/child.py)."""
    restarts: int
    since_us: int
    """CLOCK_MONOTONIC."""
    last_exit: str = ""
    """How the predecessor ended, for people."""


class ProcessTable(Message, frozen=True):
    """Sent whenever any child's state changes, and at control's birth."""

    processes: tuple[ProcessInfo, ...]


class SignalReceived(Message, frozen=True):
    """A signal for a child's dump or statistics (USR1, USR2, JSON, STATS_CLEAR)."""

    signum: int


SupervisorToControl = Committed | ReloadRequested | ProcessTable | SignalReceived


# child -> control, over ZeroMQ ---------------------------------------------------------------------------


class Hello(Message, frozen=True):
    """Who I am; the answer to HelloRequest. ``generation`` 0: none applied yet."""

    role: Role
    pid: int
    incarnation: int
    generation: int


class Prepared(Message, frozen=True):
    """Answer to Prepare. ``refusal`` "": yes."""

    role: Role
    incarnation: int
    transaction: int
    refusal: str = ""


class Applied(Message, frozen=True):
    """The child runs this generation. ``complaints``: what the kernel refused, for people."""

    role: Role
    incarnation: int
    generation: int
    complaints: tuple[str, ...] = ()


class StatusReport(Message, frozen=True):
    """The whole present state of a child."""

    role: Role
    incarnation: int
    generation: int
    sequence: int
    request: int
    body: bytes
    """MessagePack of the role's own report Struct (kad.ipc.reports)."""


class Alert(Message, frozen=True):
    """Somebody is to be mailed. Unlike all else this is news, not a state: it is told once."""

    role: Role
    incarnation: int
    mail: Mail
    """To whom, from whom and by which server."""
    router_id: str
    """Empty: the host's name."""
    letter: Letter


ChildToControl = Hello | Prepared | Applied | StatusReport | Alert


# control -> child ----------------------------------------------------------------------------------------


class HelloRequest(Message, frozen=True):
    """Who are you? Asked of every new connection, so that a reborn control learns where everybody is."""


class Prepare(Message, frozen=True):
    """Look at this slice; no side effects; answer Prepared within the time limit.

    ``transaction`` tells attempts apart, those of a control that died included: two attempts may carry the
    same generation number and different contents.
    """

    transaction: int
    generation: int
    slice: dict[str, bytes]


class Abandon(Message, frozen=True):
    """What this transaction prepared will not come."""

    transaction: int


class Apply(Message, frozen=True):
    """Committed: bring yourself to this generation. The slice is repeated: the child may be new."""

    generation: int
    slice: dict[str, bytes]


class StatusRequest(Message, frozen=True):
    """``clear``: the VRRP child's counters begin anew once they are told."""

    request: int
    clear: bool = False


ControlToChild = HelloRequest | Prepare | Abandon | Apply | StatusRequest


# kadctl -> control, over ZeroMQ --------------------------------------------------------------------------


class StatusQuery(Message, frozen=True):
    """``request`` is the asker's own number; it comes back in the answer."""

    request: str


class ReloadQuery(Message, frozen=True):
    """Reload and say how it went. Repeated with the same ``request`` until it is answered.

    A control that was born meanwhile takes the repetition for a new request, which does no harm.
    """

    request: str
    force: bool = False
    """Accept new errors in the text too."""


CtlToControl = StatusQuery | ReloadQuery


# control -> kadctl ---------------------------------------------------------------------------------------


class StatusAnswer(Message, frozen=True):
    request: str
    status: bytes
    """MessagePack of kad.control.status.DaemonStatus."""


class ReloadAnswer(Message, frozen=True):
    """How a reload ended. Refused: everything is as it was."""

    request: str
    accepted: bool
    generation: int
    """What runs now."""
    text: str
    diagnostics: str = ""
    """Rendered, many lines."""
    complaints: tuple[str, ...] = ()
    """What the kernel refused, for people."""


ControlToCtl = StatusAnswer | ReloadAnswer
