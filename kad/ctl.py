"""kadctl: looks at a running kad and steers it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import msgspec
import psutil

from kad import __version__
from kad.control.status import (
    BfdSessionStatus,
    DaemonStatus,
    InstanceStatus,
    ObjectStatus,
    ProcessStatus,
    VirtualServerStatus,
)
from kad.ctl_report import tables
from kad.errors import KadError, in_words
from kad.ipc.client import NoAnswer, NoDaemon, ask, is_listening
from kad.ipc.messages import ReloadAnswer, ReloadQuery, StatusAnswer, StatusQuery
from kad.runtime.clock import monotonic_us, realtime_us
from kad.runtime.rundir import ROOT

STATUS_LIMIT_S = 3.0
RELOAD_LIMIT_S = 60.0
"""More than all time limits of a reload together."""

_STARTING = {
    "LOADING": "the configuration is being read",
    "PREPARING": "the configuration is being read",
    "COMMITTING": "its processes are being started",
}
"""What the load of a start is at, by its transaction."""
_status_decoder = msgspec.msgpack.Decoder(DaemonStatus)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 refused or no daemon, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        directory = options.run_dir or _run_directory(options.instance)
        if options.command == "reload":
            return _reload(directory, force=options.force)
        return _status(directory, as_json=options.json)
    except (NoDaemon, NoAnswer) as error:
        return _fail(str(error))
    except PermissionError as error:
        return _fail(f"{error.filename or 'the run directory'}: {error.strerror}; kadctl needs root")
    except BrokenPipeError:
        # Whoever read us has gone.
        _give_up_output()
        return 1
    except (KadError, OSError) as error:
        _give_up_output()
        return _fail(in_words(error))
    except KeyboardInterrupt:
        return 130


def entry() -> NoReturn:
    sys.exit(main())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kadctl", description="Look at a running kad, and steer it.")
    parser.add_argument("-v", "--version", action="version", version=f"kadctl v{__version__}")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--run-dir", metavar="DIR", help="the daemon's run directory")
    where.add_argument(
        "-i",
        "--instance",
        metavar="NAME",
        help=f"the daemon that runs in {ROOT}/NAME; without it the default one, or the only one",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    status = commands.add_parser("status", help="processes, configuration, instances")
    status.add_argument("--json", action="store_true", help="everything there is, for programs")
    reload = commands.add_parser("reload", help="read the configuration again; says how it went")
    reload.add_argument(
        "--force", action="store_true", help="accept new errors in the text, as keepalived does"
    )
    return parser


def _give_up_output() -> None:
    """Python tries once more at the end to write what could not be written; it is not to complain then."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _fail(text: str) -> int:
    print(f"kadctl: {text}", file=sys.stderr)
    return 1


def _run_directory(instance: str | None) -> str:
    """Where the daemon is. Without a name: the default one, else the only one that runs."""
    if instance is not None:
        if "/" in instance or instance in ("", ".", ".."):
            raise NoDaemon(f"{instance!r} is no name of an instance; give its directory with --run-dir")
        return os.path.join(ROOT, instance)
    default = os.path.join(ROOT, "default")
    if os.path.isdir(default) and is_listening(default):
        return default
    try:
        found = [os.path.join(ROOT, name) for name in sorted(os.listdir(ROOT))]
    except FileNotFoundError:
        raise NoDaemon("no kad runs here") from None
    running = [path for path in found if os.path.isdir(path) and is_listening(path)]
    if len(running) > 1:
        names = ", ".join(os.path.basename(path) for path in running)
        raise NoDaemon(f"several kads run here: say which with -i ({names})")
    return running[0] if running else default


def _request() -> str:
    return f"{os.getpid()}.{monotonic_us()}"


# reload ----------------------------------------------------------------------------------------------------


def _reload(directory: str, *, force: bool) -> int:
    answer = ask(directory, ReloadQuery(_request(), force), RELOAD_LIMIT_S)
    assert isinstance(answer, ReloadAnswer)
    if answer.diagnostics:
        print(answer.diagnostics, file=sys.stderr)
    for complaint in answer.complaints:
        print(complaint, file=sys.stderr)
    if answer.accepted:
        print(f"accepted: {answer.text}")
        return 0
    print(f"refused: {answer.text}", file=sys.stderr)
    print(f"generation {answer.generation} runs on unchanged", file=sys.stderr)
    return 1


# status ----------------------------------------------------------------------------------------------------


def _status(directory: str, *, as_json: bool) -> int:
    answer = ask(directory, StatusQuery(_request()), STATUS_LIMIT_S)
    assert isinstance(answer, StatusAnswer)
    status = _status_decoder.decode(answer.status)
    if sys.stdout is None:
        # It was closed before we began.
        return 0
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(status), indent=2) + b"\n")
    else:
        print(render(status, realtime_us() / 1_000_000))
    sys.stdout.flush()
    return 0


def measured(pid: int) -> tuple[str, str]:
    """What a process uses: its share of memory (PSS), and the processor time of its life."""
    try:
        process = psutil.Process(pid)
        seconds = sum(process.cpu_times()[:2])
        return f"{process.memory_full_info().pss / 1e6:.1f} MB", f"{seconds:.1f} s"
    except (psutil.Error, ValueError):
        return "-", "-"


Usage = Callable[[int], tuple[str, str]]
"""Memory and processor time of a process, in words."""


def render(status: DaemonStatus, now: float, usage: Usage = measured) -> str:
    """The status for people; ``now`` is in seconds since the epoch."""
    processes = _process_rows(status.processes, now, usage)
    sections = [_heading(status, now)] + [_table(processes)] * (len(processes) > 1)
    if status.instances:
        sections.append(_table(_instance_rows(status.instances, now)))
    if status.objects:
        sections.append(_table(_object_rows(status.objects)))
    if status.virtual_servers:
        note = f"IPVS: {status.ipvs}\n" if status.ipvs else ""
        sections.append(note + _table(_service_rows(status.virtual_servers, now)))
    if status.bfd_sessions:
        sections.append(_table(_session_rows(status.bfd_sessions, now)))
    sections += map(_table, tables(status.reports))
    return "\n\n".join(sections)


def _heading(status: DaemonStatus, now: float) -> str:
    lines = [f"kad {status.version}, process {status.supervisor_pid}, {status.run_directory}"]
    if not status.generation:
        # What it is at is the load of its start: nobody asked for a reload.
        doing = _STARTING.get(status.transaction, "nothing runs yet")
        return "\n".join([*lines, f"starting: {status.config_file}: {doing}"])
    everywhere = "" if status.applied_everywhere else ", not yet applied everywhere"
    lines += [
        f"generation {status.generation}{everywhere}",
        f"{status.config_file}: {_file_line(status)}",
    ]
    if status.transaction != "IDLE":
        lines.append(f"a reload is {status.transaction}")
    if status.last_reload is not None:
        verdict = "accepted" if status.last_reload.accepted else "REFUSED"
        ago = _age(now - status.last_reload.at)
        lines.append(f"last reload {ago} ago: {verdict}: {status.last_reload.text}")
    return "\n".join(lines)


def _file_line(status: DaemonStatus) -> str:
    if status.file_is_what_runs is None:
        return f"not known whether it is what runs ({status.file_note})"
    if status.file_is_what_runs:
        return "is what runs"
    return f"IS NOT WHAT RUNS{f' ({status.file_note})' if status.file_note else ''}"


def _process_rows(processes: Sequence[ProcessStatus], now: float, usage: Usage) -> list[list[str]]:
    rows = [["PROCESS", "PID", "STATE", "FOR", "RESTARTS", "GENERATION", "MEMORY", "CPU", ""]]
    for process in processes:
        if not process.incarnation:
            # Not configured, and never was.
            continue
        notes = [] if process.answered else ["does not answer"]
        if process.last_exit and process.restarts:
            notes.append(f"last end: {process.last_exit}")
        if process.late:
            times = "once" if process.late == 1 else f"{process.late} times"
            notes.append(f"over 10 ms late {times}, at worst {process.worst_late_us / 1000:.0f} ms")
        rows.append(
            [
                process.role,
                str(process.pid or "-"),
                process.state,
                _age(now - process.since),
                str(process.restarts),
                "-" if process.generation is None else str(process.generation),
                *usage(process.pid),
                "; ".join(notes),
            ]
        )
    return rows


def _instance_rows(instances: Sequence[InstanceStatus], now: float) -> list[list[str]]:
    rows = [["INSTANCE", "STATE", "FOR", "PRIORITY", "INTERFACE", "VRID", "ADDRESSES", ""]]
    for instance in instances:
        priority = str(instance.effective_priority)
        if instance.effective_priority != instance.priority:
            priority += f" (of {instance.priority})"
        shown = [entry.address for entry in instance.addresses[:3]]
        if len(instance.addresses) > len(shown):
            shown.append(f"and {len(instance.addresses) - len(shown)} more")
        rows.append(
            [
                instance.name,
                instance.state,
                _age(now - instance.since),
                priority,
                instance.interface,
                str(instance.virtual_router_id),
                " ".join(shown),
                instance.fault or (f"ERROR: {instance.error}" if instance.error else instance.reason),
            ]
        )
    return rows


OBJECTS_SHOWN = 40
"""Routes, rules and static addresses that people are shown, those that are missing first; --json has all."""


def _object_rows(objects: Sequence[ObjectStatus]) -> list[list[str]]:
    rows = [["OWNER", "STATE", "ROUTE, RULE OR STATIC ADDRESS"]]
    for each in sorted(objects, key=lambda each: each.present or not each.wanted)[:OBJECTS_SHOWN]:
        state = "in place" if each.present else "MISSING" if each.wanted else "-"
        rows.append([each.owner or "static", state, each.text])
    if len(objects) > OBJECTS_SHOWN:
        rows.append(["", "", f"and {len(objects) - OBJECTS_SHOWN} more"])
    return rows


SERVERS_SHOWN = 20
"""Real servers of one virtual server that people are shown, those that are down first; --json has all."""


def _service_rows(services: Sequence[VirtualServerStatus], now: float) -> list[list[str]]:
    rows = [["SERVICE", "STATE", "FOR", "WEIGHT", "IN IPVS", "OPEN", "CONNECTIONS", ""]]
    for service in services:
        notes = ["suspended: its address is not here"] if service.suspended else []
        if service.sorry_in_use:
            does = f"was refused ({service.sorry_problem})" if service.sorry_problem else "serves"
            notes.append(f"sorry server {service.sorry_server} {does}")
        notes += _label(service.snmp_name)
        state = "UP" if service.has_quorum else "NO QUORUM"
        weight = f"{service.weight} (quorum {service.quorum})"
        rows.append(
            [
                service.name,
                state,
                _age(now - service.since),
                weight,
                service.scheduler,
                *_connections(service),
                "; ".join(notes),
            ]
        )
        shown = sorted(service.real_servers, key=lambda server: server.alive)[:SERVERS_SHOWN]
        for server in shown:
            placed = "-" if server.kernel_weight is None else str(server.kernel_weight)
            state = "UP" if server.alive else "DOWN"
            age = _age(now - server.since)
            counted = (
                [""] * 2 if server.kernel_weight is None else [str(server.active), str(server.connections)]
            )
            problem = "; ".join([*filter(None, [server.problem]), *_label(server.snmp_name)])
            rows.append([f"  {server.name}", state, age, str(server.weight), placed, *counted, problem])
        if len(service.real_servers) > len(shown):
            more = f"  and {len(service.real_servers) - len(shown)} more"
            rows.append([more, *[""] * (len(rows[0]) - 1)])
    return rows


def _label(snmp_name: str) -> list[str]:
    return [f"labelled {snmp_name}"] if snmp_name else []


def _session_rows(sessions: Sequence[BfdSessionStatus], now: float) -> list[list[str]]:
    rows = [["BFD SESSION", "STATE", "FOR", "NEIGHBOUR", "SENDS EVERY", "LOST AFTER", "DROPPED", ""]]
    for session in sessions:
        lost_after = f"{session.detection_time_us / 1000:g} ms" if session.detection_time_us else "-"
        rows.append(
            [
                session.name,
                session.state,
                _age(now - session.since),
                session.neighbor,
                f"{session.transmit_interval_us / 1000:g} ms",
                lost_after,
                str(session.dropped),
                session.reason,
            ]
        )
    return rows


def _connections(service: VirtualServerStatus) -> list[str]:
    """Open ones, and all there have been: those to servers that have gone count too."""
    opened = sum(each.active for counted in service.services for each in counted.destinations)
    return [str(opened), str(sum(counted.traffic.connections for counted in service.services))]


def _table(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _age(seconds: float) -> str:
    """A duration in its two greatest units."""
    if seconds < 0 or seconds > 100 * 365 * 86400:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    if seconds < 86400:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds // 86400:.0f} d {seconds % 86400 // 3600:.0f} h"


if __name__ == "__main__":
    entry()
