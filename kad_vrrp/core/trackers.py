"""Everything that is followed: scripts, files, processes, BFD sessions, interfaces. What it means. Pure.

Trackers know no instances. They say which objects have turned; who follows those is looked at again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, assert_never

import msgspec
from msgspec import Struct

from kad.config.model.track import TrackFile, TrackProcess, TrackScript
from kad.config.model.vrrp import SyncGroup, TrackedItem, Tracking, VrrpInstance
from kad.ipc.reports import BfdTrackerReport, FileReport, ProcessTrackerReport, ScriptReport
from kad.track.contribution import NONE, Contribution, of_state, of_value
from kad.track.process import Pattern, ProcessDue, ProcessesCounted, ProcessTracker, pattern_of
from kad.track.script import (
    EndScript,
    RunScript,
    ScriptAction,
    ScriptDue,
    ScriptEnded,
    ScriptMemory,
    ScriptSays,
    ScriptTracker,
    ScriptTurned,
)
from kad.units import NEVER
from kad_vrrp.core.actions import LogLevel
from kad_vrrp.core.events import BfdChanged, ConfigurationChanged, FileRead, LinkChanged

if TYPE_CHECKING:
    from kad_vrrp.core.context import Context

Followed = tuple[str, str]
"""Kind (interface, script, file, process, bfd) and name."""

_NOTHING = Tracking()
_KINDS = (("script", "scripts"), ("file", "files"), ("process", "processes"), ("bfd", "bfds"))


class Verdict(Struct, frozen=True):
    """What everything an instance follows means for it."""

    fault: str = ""
    """Why it cannot take part; empty: it can."""
    awaiting: bool = False
    """Something has not given its first answer."""
    weight: int = 0
    """To be added to the priority."""


CLEAR = Verdict()


class _Script(Struct, frozen=True, array_like=True):
    """A script in the journal. What was run tells whether the result is about the same script."""

    digest: bytes
    memory: ScriptMemory


class _State(Struct, frozen=True, array_like=True):
    """A process tracker or BFD session in the journal."""

    digest: bytes
    up: bool


def merged(own: Tracking, group: Tracking, unweighted: Collection[str] = ()) -> Tracking:
    """What an instance follows for itself and for its sync group.

    Of something in both, the group's weight counts, unless the instance's own is 0. ``unweighted``: those
    interfaces that it cannot do without, so that a weight means nothing.
    """
    found = own
    if group != _NOTHING:
        fields = Tracking.__struct_fields__
        found = Tracking(**{name: _merged(getattr(own, name), getattr(group, name)) for name in fields})
    kept = tuple(item for item in found.interfaces if item.name not in unweighted)
    if len(kept) == len(found.interfaces):
        return found
    return msgspec.structs.replace(found, interfaces=kept)


def _merged(own: tuple[TrackedItem, ...], group: tuple[TrackedItem, ...]) -> tuple[TrackedItem, ...]:
    items = {item.name: item for item in group}
    for item in own:
        if item.name not in items or not item.weight:
            items[item.name] = item
    return tuple(items.values())


def followed(tracking: Tracking) -> Iterator[Followed]:
    """Everything but interfaces, which are found by their own index."""
    for kind, field in _KINDS:
        for item in getattr(tracking, field):
            yield kind, item.name


def in_use(instances: Iterable[VrrpInstance], groups: Iterable[SyncGroup]) -> dict[Followed, None]:
    """What anybody follows, in order. The rest need not be looked at; keepalived drops it too."""
    used: dict[Followed, None] = {}
    for tracking in (*(each.tracking for each in instances), *(each.tracking for each in groups)):
        used.update(dict.fromkeys(followed(tracking)))
    return used


class Trackers:
    """See the module. The engine tells it events, and asks for verdicts."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._records = context.records
        self._scripts: dict[str, ScriptTracker] = {}
        self._ending: dict[int, ScriptTracker] = {}
        """Scripts that are not configured any more and still run, by the run's serial."""
        self._files: dict[str, TrackFile] = {}
        self._configured: tuple[dict[str, TrackScript], dict[str, TrackFile], dict[str, TrackProcess]]
        self._configured = ({}, {}, {})
        self._values: dict[str, int] = {}
        """By path."""
        self._processes: dict[str, ProcessTracker] = {}
        self._counts: dict[Pattern, int] = {}
        """As last told, which may be before anybody follows: making interfaces takes longer than counting."""
        self._bfds: dict[str, bool | None] = {}
        """None: a reload brought it in, and nothing was heard yet."""
        self.deadline_us = NEVER

    # Configurations ------------------------------------------------------------------------------------

    def configure(self, event: ConfigurationChanged, now_us: int, *, first: bool) -> bool:
        """Follow exactly what this configuration follows. Whether anything about it is new.

        ``first``: the daemon's start or a restart, not a reload.
        """
        used = in_use(event.instances, event.sync_groups)
        scripts = {each.name: each for each in event.scripts if ("script", each.name) in used}
        files = {each.name: each for each in event.files if ("file", each.name) in used}
        processes = {each.name: each for each in event.processes if ("process", each.name) in used}
        changed = self._configured != (scripts, files, processes)
        self._configured = (scripts, files, processes)
        self._configure_scripts(scripts, now_us, first=first)
        self._files = files
        self._configure_processes(processes, now_us)
        self._configure_bfds([name for kind, name in used if kind == "bfd"], first=first)
        self._arm()
        return changed

    def _configure_scripts(self, configs: dict[str, TrackScript], now_us: int, *, first: bool) -> None:
        old, self._scripts = self._scripts, {}
        for name, config in configs.items():
            tracker = old.get(name)
            if tracker is not None and tracker.config.command == config.command:
                del old[name]
                if tracker.config != config:
                    tracker.configure(config)
            else:
                tracker = ScriptTracker(config, self._context.next_serial, now_us, awaited=first)
                self._recall_script(name, tracker)
            self._scripts[name] = tracker
            self._remember_script(name, tracker)
        for name, tracker in old.items():
            self._stop_script(tracker, now_us)
            if name not in self._scripts:
                self._records.forget(f"script {name}")

    def _recall_script(self, name: str, tracker: ScriptTracker) -> None:
        record = self._records.recall(f"script {name}", _Script)
        if record is not None and record.digest == _digest(tracker.config.command):
            tracker.restore(record.memory)

    def _stop_script(self, tracker: ScriptTracker, now_us: int) -> None:
        for action in tracker.stop(now_us):
            if isinstance(action, EndScript):
                self._ending[action.serial] = tracker
                self._context.emit(action)

    def _configure_processes(self, configs: dict[str, TrackProcess], now_us: int) -> None:
        old, self._processes = self._processes, {}
        for name, config in configs.items():
            tracker = old.pop(name, None)
            if tracker is not None and tracker.pattern == pattern_of(config):
                if tracker.config != config:
                    tracker.configure(config)
            else:
                tracker = self._new_process(name, config, now_us)
            self._processes[name] = tracker
            self._remember_process(name, tracker)
        for name in old:
            self._records.forget(f"process {name}")
        patterns = {tracker.pattern for tracker in self._processes.values()}
        self._counts = {pattern: count for pattern, count in self._counts.items() if pattern in patterns}

    def _new_process(self, name: str, config: TrackProcess, now_us: int) -> ProcessTracker:
        tracker = ProcessTracker(config)
        record = self._records.recall(f"process {name}", _State)
        if record is not None and record.digest == _digest(tracker.pattern):
            tracker.restore(record.up)
        count = self._counts.get(tracker.pattern)
        if count is not None and tracker.handle(ProcessesCounted(tracker.pattern, count), now_us):
            self._quorum(name, tracker)
        return tracker

    def _configure_bfds(self, names: list[str], *, first: bool) -> None:
        old, self._bfds = self._bfds, {}
        for name in names:
            if name in old:
                self._bfds[name] = old.pop(name)
                continue
            record = self._records.recall(f"bfd {name}", _State)
            if record is not None:
                self._bfds[name] = record.up
            else:
                # keepalived: down until it is told otherwise, at a reload too, where a master would leave.
                self._bfds[name] = False if first else None
        for name in old:
            self._records.forget(f"bfd {name}")

    def stop(self, now_us: int) -> None:
        """No answer is wanted any more."""
        for tracker in self._scripts.values():
            self._stop_script(tracker, now_us)
        self._arm()

    # Events --------------------------------------------------------------------------------------------

    def handle(
        self, event: ScriptEnded | FileRead | ProcessesCounted | BfdChanged, now_us: int
    ) -> list[Followed]:
        """What has turned by this."""
        match event:
            case ScriptEnded():
                turned = self._on_script(event, now_us)
            case FileRead():
                turned = self._on_file(event)
            case ProcessesCounted():
                turned = self._on_count(event, now_us)
            case BfdChanged():
                turned = self._on_bfd(event)
            case _:
                assert_never(event)
        self._arm()
        return turned

    def on_time(self, now_us: int) -> list[Followed]:
        """Whatever is due; what has turned by this."""
        if now_us < self.deadline_us:
            return []
        turned: list[Followed] = []
        for tracker in (*self._scripts.values(), *self._ending.values()):
            if tracker.deadline_us <= now_us:
                turned += self._carry_out(tracker, tracker.handle(ScriptDue(), now_us))
        for name, process in self._processes.items():
            if process.deadline_us <= now_us and process.handle(ProcessDue(), now_us):
                turned.append(self._quorum(name, process))
        self._arm()
        return turned

    def _arm(self) -> None:
        scripts = (each.deadline_us for each in (*self._scripts.values(), *self._ending.values()))
        processes = (each.deadline_us for each in self._processes.values())
        self.deadline_us = min(min(scripts, default=NEVER), min(processes, default=NEVER))

    def _on_script(self, event: ScriptEnded, now_us: int) -> list[Followed]:
        ending = self._ending.pop(event.serial, None)
        tracker = ending if ending is not None else self._scripts.get(event.script)
        if tracker is None:
            return []
        turned = self._carry_out(tracker, tracker.handle(event, now_us))
        return turned if ending is None else []

    def _carry_out(self, tracker: ScriptTracker, actions: list[ScriptAction]) -> list[Followed]:
        name = tracker.config.name
        turned: list[Followed] = []
        for action in actions:
            match action:
                case RunScript() | EndScript():
                    self._context.emit(action)
                case ScriptSays():
                    level = LogLevel.WARNING if action.warns else LogLevel.INFO
                    self._context.log(level, action.text)
                case ScriptTurned():
                    turned.append(("script", name))
                case _:
                    assert_never(action)
        if self._scripts.get(name) is tracker:
            self._remember_script(name, tracker)
        return turned

    def _on_file(self, event: FileRead) -> list[Followed]:
        if self._values.get(event.path) == event.value:
            return []
        self._values[event.path] = event.value
        return [("file", name) for name, file in self._files.items() if file.path == event.path]

    def _on_count(self, event: ProcessesCounted, now_us: int) -> list[Followed]:
        self._counts[event.pattern] = event.count
        return [
            self._quorum(name, tracker)
            for name, tracker in self._processes.items()
            if tracker.pattern == event.pattern and tracker.handle(event, now_us)
        ]

    def _quorum(self, name: str, tracker: ProcessTracker) -> Followed:
        found = "gained" if tracker.up else "lost"
        self._context.log(LogLevel.INFO, f"Quorum {found} for tracked process {name}")
        self._remember_process(name, tracker)
        return "process", name

    def _on_bfd(self, event: BfdChanged) -> list[Followed]:
        if event.name not in self._bfds or self._bfds[event.name] is event.up:
            return []
        self._bfds[event.name] = event.up
        self._records.remember(f"bfd {event.name}", _State(b"", event.up))
        return [("bfd", event.name)]

    # Meaning -------------------------------------------------------------------------------------------

    def verdict(self, tracking: Tracking, links: Mapping[str, LinkChanged]) -> Verdict:
        """What all this means at the moment."""
        if tracking == _NOTHING:
            return CLEAR
        fault, awaiting, weight = "", False, 0
        for what, contribution in self._contributions(tracking, links):
            if contribution is None:
                awaiting = True
                continue
            weight += contribution.weight
            if contribution.fault and not fault:
                fault = what
        return Verdict(fault, awaiting, weight)

    def _contributions(
        self, tracking: Tracking, links: Mapping[str, LinkChanged]
    ) -> Iterator[tuple[str, Contribution | None]]:
        """What would be the reason of a fault, and the contribution; None: to be waited for."""
        for item in tracking.interfaces:
            link = links.get(item.name)
            up = link is not None and link.up
            yield f"interface {item.name} is {_word(up)}", of_state(up, item.weight or 0, item.reverse)
        for item in tracking.scripts:
            script = self._scripts.get(item.name)
            if script is not None:
                yield f"script {item.name} is {_word(script.up)}", _of_script(script, item)
        for item in tracking.files:
            file = self._files.get(item.name)
            if file is not None:
                value = self._values.get(file.path)
                contribution = None if value is None else of_value(value, item.weight or 0, item.reverse)
                yield f"file {item.name} holds {value}", contribution
        for item in tracking.processes:
            process = self._processes.get(item.name)
            if process is not None:
                known = of_state(process.up, item.weight or 0, item.reverse) if process.known else None
                yield f"process {item.name} is {_word(process.up)}", known
        for item in tracking.bfds:
            found = self._bfds.get(item.name)
            known = None if found is None else of_state(found, item.weight or 0, item.reverse)
            yield f"BFD session {item.name} is {_word(bool(found))}", known

    # Status --------------------------------------------------------------------------------------------

    def script_reports(self) -> tuple[ScriptReport, ...]:
        return tuple(
            ScriptReport(name, each.up, each.answered, each.result, each.status, each.phase)
            for name, each in self._scripts.items()
        )

    def file_reports(self) -> tuple[FileReport, ...]:
        return tuple(FileReport(name, self._values.get(each.path, 0)) for name, each in self._files.items())

    def process_reports(self) -> tuple[ProcessTrackerReport, ...]:
        return tuple(
            ProcessTrackerReport(name, each.up, each.count, each.deadline_us != NEVER)
            for name, each in self._processes.items()
        )

    def bfd_reports(self) -> tuple[BfdTrackerReport, ...]:
        return tuple(BfdTrackerReport(name, up) for name, up in self._bfds.items())

    # The journal ---------------------------------------------------------------------------------------

    def _remember_script(self, name: str, tracker: ScriptTracker) -> None:
        if tracker.answered:
            self._records.remember(
                f"script {name}", _Script(_digest(tracker.config.command), tracker.memory())
            )
        else:
            self._records.forget(f"script {name}")

    def _remember_process(self, name: str, tracker: ProcessTracker) -> None:
        if tracker.known:
            self._records.remember(f"process {name}", _State(_digest(tracker.pattern), tracker.up))
        else:
            self._records.forget(f"process {name}")


def _of_script(script: ScriptTracker, item: TrackedItem) -> Contribution | None:
    """Without a result a weight does not count, and weight 0 waits, unless a reload brought the script in."""
    if script.answered:
        return of_state(script.up, item.weight or 0, item.reverse)
    return None if script.awaited and not item.weight else NONE


def _word(up: bool) -> str:
    return "up" if up else "down"


def _digest(what: Struct) -> bytes:
    return blake2b(msgspec.msgpack.encode(what), digest_size=8).digest()
