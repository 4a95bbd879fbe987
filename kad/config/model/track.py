"""Trackers: what instances and servers may follow by name. Durations are microseconds."""

from msgspec import Struct

from kad.config.model.script import ScriptCommand


class TrackScript(Struct, frozen=True, omit_defaults=True):
    """vrrp_script: a command run periodically."""

    name: str
    command: ScriptCommand
    interval_us: int = 1_000_000
    timeout_us: int = 0
    """0: as interval_us."""
    weight: int = 0
    reverse: bool = False
    rise: int = 1
    fall: int = 1
    init_fail: bool = False


class TrackFile(Struct, frozen=True, omit_defaults=True):
    """track_file: a number in a file, times the weight."""

    name: str
    path: str
    weight: int = 1
    reverse: bool = False
    initial_value: int | None = None
    """Written at start when the file is missing; None: the file is left alone."""
    overwrite: bool = False


class TrackProcess(Struct, frozen=True, omit_defaults=True):
    """vrrp_track_process: how many processes of a name run."""

    name: str
    process: str
    parameters: tuple[str, ...] = ()
    param_match: str = ""
    """"" none, "exact", "partial", "initial"."""
    full_command: bool = False
    weight: int = 0
    reverse: bool = False
    quorum: int = 1
    quorum_max: int | None = None
    """None: no upper limit."""
    fork_delay_us: int = 0
    terminate_delay_us: int = 0
