"""Rows of trackers: the blocks that define them, and the lists that instances and groups follow them by."""

from __future__ import annotations

import os
from typing import Any

from kad.config.grammar.bfd import BFD_INSTANCE_KEYWORD
from kad.config.model.bfd import BfdInstance
from kad.config.model.track import TrackFile, TrackProcess, TrackScript
from kad.config.model.vrrp import TrackedItem
from kad.config.schema import (
    CLOSING,
    NOTHING,
    VRRP_CHECK,
    Block,
    Frame,
    Kind,
    Reading,
    Repeat,
    Row,
    opens,
)
from kad.config.scripts import command_alone, command_of, default_identity, identity
from kad.config.tree import Statement
from kad.config.values import INT_MAX, decimal, flag, number_of, word

FILE_WEIGHT = 254
SCRIPT_WEIGHT = 253


def weight(limit: int, *, soft: bool = False) -> Kind:
    """``N [reverse]``; the second word fills the field ``reverse``."""

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        if len(statement.texts) < 2:
            reading.missing(frame, statement, "weight", soft=soft)
            return NOTHING
        value = number_of(reading, frame, statement, 1, -limit, limit)
        if len(statement.texts) > 2:
            if statement.texts[2] == "reverse":
                frame.fields["reverse"] = True
            else:
                reading.error(
                    "unknown-option",
                    f"a weight may be 'reverse', not '{statement.texts[2]}'",
                    frame,
                    statement,
                    2,
                )
        return NOTHING if value is None else value

    return Kind("integer [reverse]", read, "", str(-limit), str(limit), takes=2)


# track_file ----------------------------------------------------------------------------------------------


def _initial(reading: Reading, frame: Frame, statement: Statement) -> object:
    value = 0
    for index in range(1, len(statement.texts)):
        text = statement.texts[index]
        if text == "overwrite":
            frame.fields["overwrite"] = True
        elif text[:1].isdigit() or text.startswith("-"):
            number = number_of(reading, frame, statement, index, -INT_MAX - 1, INT_MAX)
            value = number or 0
            if abs(value) > FILE_WEIGHT:
                reading.warning("unlikely", f"{value} is beyond every priority", frame, statement, index)
        else:
            reading.error(
                "unknown-option",
                f"'{text}' is neither a value nor 'overwrite'",
                frame,
                statement,
                index,
                remedy="init_file [VALUE] [overwrite]",
            )
    return value


def _close_file(reading: Reading, frame: Frame) -> object:
    path = frame.fields.pop("path", None)
    if path is None:
        reading.error(
            "missing-value",
            f"track_file '{frame.name}' names no file; it is ignored",
            frame,
            frame.statement,
            CLOSING,
            remedy="file PATH",
        )
        return NOTHING
    if reading.machine is not None and not reading.machine.is_directory(os.path.dirname(path) or "."):
        reading.error(
            "no-directory",
            f"the directory of '{path}' does not exist; the tracker cannot work",
            frame,
            frame.statement,
            CLOSING,
            machine=True,
        )
        reading.lost.add(("track_file", frame.name))
        return NOTHING
    tracker = TrackFile(frame.name, path, **frame.fields)
    if reading.definition("track_file", frame.name) is None:
        reading.define("track_file", frame.name, tracker)
    return tracker


FILE_ROWS = (
    Row(
        "file",
        word("path", soft=True),
        "File that holds the number.",
        "path",
        repeat=Repeat.FIRST,
        default="required",
        acts=True,
    ),
    Row(
        "weight",
        weight(FILE_WEIGHT, soft=True),
        "What the number is multiplied with.",
        repeat=Repeat.FIRST,
        acts=True,
    ),
    Row(
        "init_file",
        Kind("[integer] [overwrite]", _initial, "", str(-INT_MAX - 1), str(INT_MAX)),
        "Create the file at start if it is missing.",
        "initial_value",
        default="0",
        acts=True,
    ),
)


def _needs_name(reading: Reading, frame: Frame) -> bool:
    if frame.name or frame.statement is None:
        return True
    reading.missing(frame, frame.statement, "name")
    return False


def _track_file(path: str) -> Block:
    return Block(
        path, FILE_ROWS, open=_needs_name, close=_close_file, model=TrackFile, roles=VRRP_CHECK, parameters=1
    )


TRACK_FILE = _track_file("track_file")
VRRP_TRACK_FILE = _track_file("vrrp_track_file")


# vrrp_track_process --------------------------------------------------------------------------------------


def _process(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "command")
        return NOTHING
    if len(statement.texts) > 2:
        frame.fields["parameters"] = tuple(statement.texts[2:])
        frame.fields.setdefault("param_match", "exact")
        frame.fields["full_command"] = True
    return statement.texts[1]


def _param_match(reading: Reading, frame: Frame, statement: Statement) -> object:
    kind = statement.texts[1] if len(statement.texts) > 1 else "exact"
    if kind not in ("exact", "initial", "partial") or (kind == "exact" and len(statement.texts) > 1):
        reading.error("bad-choice", f"'{kind}' is ignored", frame, statement, 1, remedy="initial or partial")
        return NOTHING
    frame.fields["full_command"] = True
    return kind


def _delay(reading: Reading, frame: Frame, statement: Statement) -> object:
    assert _DELAY.read is not None
    value = _DELAY.read(reading, frame, statement)
    if value is not NOTHING:
        frame.fields["fork_delay_us"] = frame.fields["terminate_delay_us"] = value
    return NOTHING


_DELAY = decimal(1, 3_600_000_000)


def _quorum(reading: Reading, frame: Frame, statement: Statement) -> object:
    value = _read_number(reading, frame, statement, 1)
    most = frame.fields.get("quorum_max")
    if value is None or (most is not None and value > most):
        if value is not None:
            reading.error("quorum", f"{value} is more than quorum_max; ignored", frame, statement, 1)
        return NOTHING
    return value


def _quorum_max(reading: Reading, frame: Frame, statement: Statement) -> object:
    value = _read_number(reading, frame, statement, 0)
    if value is None:
        return NOTHING
    quorum = frame.fields.get("quorum", 1)
    if (value or quorum > 1) and value < quorum:
        reading.error("quorum", f"{value} is less than the quorum; ignored", frame, statement, 1)
        return NOTHING
    if value == 0:
        frame.fields["quorum"] = 0
    return value


def _read_number(reading: Reading, frame: Frame, statement: Statement, low: int) -> int | None:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "number")
        return None
    return number_of(reading, frame, statement, 1, low, 65535)


def _close_process(reading: Reading, frame: Frame) -> object:
    process = frame.fields.pop("process", None)
    if process is None:
        reading.error(
            "missing-value",
            f"vrrp_track_process '{frame.name}' names no process; it is ignored",
            frame,
            frame.statement,
            CLOSING,
            remedy="process COMMAND",
        )
        return NOTHING
    tracker = TrackProcess(frame.name, process, **frame.fields)
    if reading.definition("vrrp_track_process", frame.name) is None:
        reading.define("vrrp_track_process", frame.name, tracker)
    return tracker


VRRP_TRACK_PROCESS = Block(
    "vrrp_track_process",
    (
        Row(
            "process",
            Kind("command [parameter …]", _process),
            "Name or path of the process, and parameters it must have.",
            repeat=Repeat.FIRST,
            default="required",
            acts=True,
        ),
        Row(
            "param_match",
            Kind("[initial / partial]", _param_match),
            "How parameters compare: all alike, the first ones alike, or the last one may be longer.",
            acts=True,
        ),
        Row(
            "weight",
            weight(FILE_WEIGHT, soft=True),
            "Weight for those that follow it.",
            repeat=Repeat.FIRST,
            acts=True,
        ),
        Row(
            "quorum",
            Kind("integer", _quorum, "processes", "1", "65535", takes=1),
            "How many must run.",
            acts=True,
        ),
        Row(
            "quorum_max",
            Kind("integer", _quorum_max, "processes", "0", "65535", takes=1),
            "How many may run.",
            acts=True,
        ),
        Row(
            "delay",
            Kind("decimal", _delay, "s", "0.000001", "3600", takes=1),
            "Both delays.",
            default="0",
            acts=True,
        ),
        Row("fork_delay", _DELAY, "Wait after processes started.", "fork_delay_us", acts=True),
        Row("terminate_delay", _DELAY, "Wait after processes ended.", "terminate_delay_us", acts=True),
        Row("full_command", flag(), "Compare the whole command line, not the short name.", acts=True),
    ),
    open=_needs_name,
    close=_close_process,
    model=TrackProcess,
    parameters=1,
)


# vrrp_script ---------------------------------------------------------------------------------------------


def _user(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "user")
        return NOTHING
    who = identity(reading, statement.texts[1:])
    if isinstance(who, str):
        reading.error("script-user", f"{who}; the script is removed", frame, statement, 1, machine=True)
        return None
    return who


def _rise_fall(reading: Reading, frame: Frame, statement: Statement) -> object:
    if len(statement.texts) < 2:
        reading.missing(frame, statement, "number")
        return NOTHING
    value = number_of(reading, frame, statement, 1, 1, INT_MAX)
    return 1 if value is None else value


def _close_script(reading: Reading, frame: Frame) -> object:
    fields = frame.fields
    argv: list[str] | None = fields.pop("argv", None)
    if not argv:
        reading.error(
            "missing-value",
            f"vrrp_script '{frame.name}' names no script; it is removed",
            frame,
            frame.statement,
            CLOSING,
            remedy='script "COMMAND"',
        )
        return NOTHING
    assert frame.statement is not None
    who = fields.pop("user", NOTHING)
    if who is NOTHING:
        who = default_identity(reading, frame, frame.statement)
        if who is None:
            reading.error(
                "script-user",
                f"vrrp_script '{frame.name}' has no user to run as; it is removed",
                frame,
                frame.statement,
                CLOSING,
                machine=True,
            )
    command = command_of(argv, who) if who is not None else None
    if command is None:
        reading.lost.add(("vrrp_script", frame.name))
        return NOTHING
    tracker = TrackScript(frame.name, command, **fields)
    if reading.definition("vrrp_script", frame.name) is None:
        reading.define("vrrp_script", frame.name, tracker)
        reading.define("(place) vrrp_script", frame.name, frame)
    return tracker


_PERIOD = decimal(0, 4294_000, places=3, scale=1000, zero=1000)
_COUNT = Kind("integer", _rise_fall, "", "1", str(INT_MAX), takes=1)

VRRP_SCRIPT = Block(
    "vrrp_script",
    (
        Row(
            "script", Kind("script", command_alone), "Command to run.", "argv", default="required", acts=True
        ),
        Row("interval", _PERIOD, "How often it runs.", "interval_us", acts=True),
        Row("timeout", _PERIOD, "How long it may take.", "timeout_us", default="interval", acts=True),
        Row(
            "weight",
            weight(SCRIPT_WEIGHT),
            "Weight for those that follow it; 0: failure is a fault.",
            acts=True,
        ),
        Row("rise", _COUNT, "Successes in a row that mean well.", acts=True),
        Row("fall", _COUNT, "Failures in a row that mean failed.", acts=True),
        Row(
            "user",
            Kind("user [[:]group]", _user, takes=2),
            "As whom it runs.",
            default="script_user",
            acts=True,
        ),
        Row("init_fail", flag(), "Failed at first, until rise successes.", acts=True),
    ),
    open=_needs_name,
    close=_close_script,
    model=TrackScript,
    parameters=1,
)


# The lists of instances and groups -----------------------------------------------------------------------


def _tracked(
    kind: str,
    definition: str,
    limit: int,
    *,
    clamp: bool = False,
    options: tuple[str, ...] = ("reverse", "noreverse"),
) -> Kind:
    """``NAME [weight N [reverse]]``. Without a weight the tracked object's own holds.

    ``clamp``: 254 was allowed once and becomes 253, said.
    """

    def read(reading: Reading, frame: Frame, statement: Statement) -> object:
        name = statement.texts[0]
        default: tuple[int, bool] = (0, False)
        if definition == "interface":
            reading.require_interface(frame, statement, 0)
        else:
            found: Any = reading.definition(definition, name)
            if isinstance(found, BfdInstance) and not found.events_to_vrrp:
                found = None  # it says 'checker' and not 'vrrp'
            if found is None:
                _not_followed(reading, frame, statement, kind, (definition, name) in reading.lost)
                return NOTHING
            default = (found.weight, _reversed(found))
        if any(item.name == name for item, _ in frame.items):
            reading.error("repeated", f"'{name}' is followed already; ignored", frame, statement, 0)
            return NOTHING
        chosen = _weight_words(reading, frame, statement, default, limit, clamp, options)
        return NOTHING if chosen is None else (TrackedItem(name, *chosen), statement)

    text = "name [weight N [" + " / ".join(options) + "]]"
    return Kind(text, read, "", str(-limit), str(limit))


def _not_followed(reading: Reading, frame: Frame, statement: Statement, kind: str, lost: bool) -> None:
    """``lost``: it is the machine that does not let it be, and no mistake here."""
    what = "cannot be used here" if lost else "is defined above this line"
    reading.error(
        "not-defined",
        f"{'the' if lost else 'no'} {kind} '{statement.texts[0]}' {what}; it is not followed",
        frame,
        statement,
        0,
        remedy="" if lost else "definitions come before their use",
        machine=lost,
    )


def _reversed(tracker: TrackScript | TrackFile | TrackProcess | BfdInstance) -> bool:
    return tracker.weight_reverse if isinstance(tracker, BfdInstance) else tracker.reverse


def _weight_words(
    reading: Reading,
    frame: Frame,
    statement: Statement,
    default: tuple[int, bool],
    limit: int,
    clamp: bool,
    options: tuple[str, ...],
) -> tuple[int, bool] | None:
    """Weight and direction of a line; None after reporting that the line is ignored."""
    texts = statement.texts
    value, reverse = default
    if len(texts) < 2:
        return value, reverse
    if texts[1] != "weight" or len(texts) < 3:
        what = f"unknown option '{texts[1]}'" if texts[1] != "weight" else "'weight' lacks its value"
        reading.error(
            "unknown-option", f"{what}; the line is ignored", frame, statement, 1, remedy="NAME weight N"
        )
        return None
    number = number_of(
        reading, frame, statement, 2, -FILE_WEIGHT if clamp else -limit, FILE_WEIGHT if clamp else limit
    )
    if number is not None:
        value = number
    if clamp and abs(value) > limit:
        value = limit if value > 0 else -limit
        reading.warning("clamped", f"a weight is {-limit} to {limit}: {value} is used", frame, statement, 2)
    if len(texts) > 3:
        if texts[3] in options:
            reverse = texts[3] == "reverse"
        else:
            reading.error(
                "unknown-option",
                f"unknown option '{texts[3]}'",
                frame,
                statement,
                3,
                remedy=" or ".join(options),
            )
    return value, reverse


def _list(path: str, kind: Kind, name: str, help: str) -> Block:
    return Block(
        path, (), item=Row(name, kind, help, acts=True), close=lambda reading, frame: list(frame.items)
    )


_WEIGHTED = "<NAME> [weight N [reverse/noreverse]]"
_KINDS = {
    "interface": (
        _tracked("interface", "interface", SCRIPT_WEIGHT, clamp=True, options=("reverse",)),
        "<IFNAME> [weight N [reverse]]",
        "An interface; without weight its loss is a fault.",
    ),
    "script": (
        _tracked("vrrp_script", "vrrp_script", SCRIPT_WEIGHT, clamp=True),
        _WEIGHTED,
        "A vrrp_script, and a weight other than its own.",
    ),
    "file": (
        _tracked("track_file", "track_file", FILE_WEIGHT),
        _WEIGHTED,
        "A track_file, and a weight other than its own.",
    ),
    "process": (
        _tracked("vrrp_track_process", "vrrp_track_process", FILE_WEIGHT),
        _WEIGHTED,
        "A vrrp_track_process, and a weight other than its own.",
    ),
    "bfd": (
        _tracked("bfd_instance", BFD_INSTANCE_KEYWORD, SCRIPT_WEIGHT),
        _WEIGHTED,
        "A bfd_instance, and a weight other than its own.",
    ),
}


def track_rows(path: str) -> tuple[Row, ...]:
    """The ``track_*`` rows of vrrp_instance or vrrp_sync_group."""
    rows = []
    for name, (kind, item, help) in _KINDS.items():
        plural = "processes" if name == "process" else f"{name}s"
        block = _list(f"{path}/track_{name}", kind, item, help)
        text = f"Follow {plural}."
        rows.append(Row(f"track_{name}", opens(block), text, plural, acts=True, repeat=Repeat.ADD))
    return tuple(rows)
