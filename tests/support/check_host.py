"""The check engine with a world around it that is all memory: a clock, a kernel table, a journal, scripts.

    host = CheckHost(read(TEXT).config.check)
    host.start()
    host.run_checks({"192.0.2.11": False})       # every check due until the next second, with these results
    assert host.table("[10.0.0.1]:tcp:80") == {("192.0.2.12", 80): 1}

Nothing here knows the rules under test: the kernel does what it is told, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import assert_never

from kad.config.model.check import CheckConfiguration, Checker, FileCheck, MiscCheck
from kad_check.core.actions import (
    Action,
    AddChecker,
    ChangeChecker,
    ChangeDestinations,
    Forget,
    Log,
    MarkedRange,
    MarkTraffic,
    Notify,
    Remember,
    RemoveChecker,
    ReplaceServices,
    SendMail,
    ServerChanged,
    StartCheck,
    Stopped,
    WithdrawServices,
    WriteFifo,
)
from kad_check.core.engine import Engine, EngineSettings
from kad_check.core.events import (
    CheckDone,
    ConfigurationChanged,
    Event,
    FileChanged,
    MarkingDone,
    NotifyDone,
    ServicesDone,
    TimeReached,
    Verdict,
)
from kad_check.core.ipvs_state import Destination

SECOND = 1_000_000
Key = tuple[str, int]
Judge = Callable[[Checker, int], bool]


@dataclass
class CheckHost:
    """One machine. :meth:`reborn` gives the next life of the process there: same kernel, same journal."""

    configuration: CheckConfiguration
    settings: EngineSettings = field(default_factory=EngineSettings)
    now_us: int = 1_000 * SECOND
    generation: int = 0
    journal: dict[str, bytes] = field(default_factory=dict)
    kernel: dict[str, dict[Key, Destination]] = field(default_factory=dict)
    done: list[Action] = field(default_factory=list)
    """Every action carried out, in order, of all lives."""
    files: dict[str, int] = field(default_factory=dict)
    answer_scripts: bool = True
    marks: tuple[MarkedRange, ...] = ()
    """What nf_tables marks."""
    marking_failure: str = ""

    def __post_init__(self) -> None:
        self.engine = Engine(self.settings, dict(self.journal))
        self.checkers: dict[int, Checker] = {}
        self.running: dict[int, int] = {}
        """Checks that were started: the checker's number and its step."""
        self.stopped = False

    # Life ------------------------------------------------------------------------------------------------

    def start(self) -> list[Action]:
        return self.reload(self.configuration)

    def reload(
        self, configuration: CheckConfiguration, previous: CheckConfiguration | None = None
    ) -> list[Action]:
        self.configuration = configuration
        self.generation += 1
        for file in configuration.files:
            self.feed(FileChanged(file.name, self.files.get(file.name, 0)))
        return self.feed(
            ConfigurationChanged(self.generation, configuration, previous or CheckConfiguration())
        )

    def reborn(self) -> CheckHost:
        """The process was killed: what only it knew is gone. Call :meth:`resume`."""
        return CheckHost(
            self.configuration,
            self.settings,
            self.now_us,
            self.generation - 1,
            dict(self.journal),
            {name: dict(entries) for name, entries in self.kernel.items()},
            files=dict(self.files),
            marks=self.marks,
        )

    def feed(self, event: Event) -> list[Action]:
        """Hand in an event and carry out what comes of it."""
        actions = self.engine.handle(event, self.now_us)
        # A driver takes a core that is behind already for one that stands still.
        assert self.engine.deadline_us is None or self.engine.deadline_us > self.now_us
        self.carry_out(actions)
        for answer in [a for a in actions if isinstance(a, ReplaceServices | WithdrawServices)]:
            self.feed(ServicesDone(answer.serial))
        for mark in [a for a in actions if isinstance(a, MarkTraffic)]:
            self.feed(MarkingDone(mark.serial, self.marking_failure))
        if self.answer_scripts:
            for notify in [a for a in actions if isinstance(a, Notify)]:
                self.feed(NotifyDone(notify.owner, notify.serial))
        return actions

    def carry_out(self, actions: Iterable[Action]) -> None:
        """These, in order; what comes of them is not told."""
        for action in actions:
            self.done.append(action)
            self._perform(action)

    def _perform(self, action: Action) -> None:
        match action:
            case AddChecker():
                assert action.number not in self.checkers
                self.checkers[action.number] = action.checker
            case ChangeChecker():
                assert action.number in self.checkers
                self.checkers[action.number] = action.checker
            case RemoveChecker():
                del self.checkers[action.number]
                self.running.pop(action.number, None)
            case StartCheck():
                assert action.number in self.checkers
                assert action.number not in self.running, "one check at a time"
                self.running[action.number] = action.step
            case ReplaceServices():
                self.kernel = {
                    pool.name: {entry.key: entry for entry in pool.destinations} for pool in action.pools
                }
            case ChangeDestinations():
                entries = self.kernel[action.pool]
                entries.update({entry.key: entry for entry in action.put})
                for entry in action.remove:
                    del entries[entry.key]
            case WithdrawServices():
                self.kernel.clear()
            case MarkTraffic():
                self.marks = self.marks if self.marking_failure else action.ranges
            case Remember():
                self.journal[action.key] = action.record
            case Forget():
                self.journal.pop(action.key, None)
            case Stopped():
                self.stopped = True
            case Notify() | WriteFifo() | SendMail() | ServerChanged() | Log():
                pass
            case _:
                assert_never(action)

    # Time ------------------------------------------------------------------------------------------------

    def advance(self, until_us: int) -> None:
        """Let time pass, up to this instant, starting the checks that become due."""
        while (due_us := self.engine.deadline_us) is not None and due_us <= until_us:
            self.now_us = max(self.now_us, due_us)
            self.feed(TimeReached())
            if self.running:
                return
        self.now_us = max(self.now_us, until_us)

    def run(self, seconds: float, judge: Judge, took_us: int = 1_000) -> int:
        """Run checks for a while; ``judge(checker, step)`` says how each ends. Returns how many ran."""
        end_us = self.now_us + int(seconds * SECOND)
        ran = 0
        while self.now_us < end_us:
            self.advance(end_us)
            if self.running:
                self.now_us += took_us
                for number, step in list(self.running.items()):
                    if number in self.running:
                        ran += 1
                        self.answer(number, judge(self.checkers[number], step))
        return ran

    def answer(self, number: int, ok: bool, *, weight: int | None = None, detail: str = "refused") -> None:
        """One check that runs ends."""
        del self.running[number]
        verdict = Verdict.SUCCESS if ok else Verdict.FAILURE
        self.feed(CheckDone(number, verdict, "" if ok else detail, weight))

    # Looking ---------------------------------------------------------------------------------------------

    def table(self, pool: str) -> dict[Key, int]:
        """Destinations of a pool in the kernel, with their weights."""
        return {key: entry.weight for key, entry in self.kernel[pool].items()}

    def logged(self) -> list[str]:
        return [action.text for action in self.done if isinstance(action, Log)]

    def fifo(self) -> bytes:
        return b"".join(action.data for action in self.done if isinstance(action, WriteFifo))

    def notified(self) -> list[str]:
        """Every script run, as its words."""
        return [
            " ".join(command.argv)
            for action in self.done
            if isinstance(action, Notify)
            for command in action.commands
        ]

    def alive(self) -> dict[str, bool]:
        """Real servers by name, as the report has them."""
        return {
            server.name: server.alive
            for pool in self.engine.report().virtual_servers
            for server in pool.real_servers
        }


def target(checker: Checker) -> str:
    """What a checker examines: an address, a script, a file."""
    if isinstance(checker, MiscCheck):
        return checker.script.argv[0]
    if isinstance(checker, FileCheck):
        return checker.track_file
    connection = getattr(checker, "connection", None)
    return connection.address if connection is not None else ""


def only_down(*targets: str) -> Judge:
    """Everything is well but these."""
    return lambda checker, step: target(checker) not in targets


def by_target(results: Mapping[str, bool]) -> Judge:
    return lambda checker, step: results.get(target(checker), True)
