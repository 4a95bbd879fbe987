"""The control process: configuration, the reload transaction, status.

It may die at any moment: everything it must not lose is in the supervisor's hands, and the children do their
work without it. Files are read only for a load; a reborn control starts from the committed generation.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from typing import assert_never

import msgspec

import kad
from kad.control import actions, events
from kad.control.archive import Archive
from kad.control.bounded_script import PATIENCE_S, BoundedScript
from kad.control.candidate import Candidate, globals_of
from kad.control.dumps import Dumps
from kad.control.hub import ChildrenHub, CtlHub, SupervisorPipe
from kad.control.long_log import DiagnosticsLog, GentleLog
from kad.control.mailer import Mailer
from kad.control.reading import read_candidate, read_digest
from kad.control.reload import ReloadCore
from kad.control.reload_files import ReloadFile, ReloadTimeFile, reload_file_path
from kad.control.status import (
    Clocks,
    DaemonStatus,
    LastReload,
    Reports,
    StatusRound,
    instances_of,
    lateness_of,
    objects_of,
    process_status,
    services_of,
    sessions_of,
)
from kad.errors import ExitStatus, Severity
from kad.ipc.messages import (
    Abandon,
    AllApplied,
    Apply,
    CommitGeneration,
    Committed,
    CtlToControl,
    Generation,
    HelloRequest,
    LoadFailed,
    Prepare,
    ProcessInfo,
    ProcessTable,
    ReloadAnswer,
    ReloadBegun,
    ReloadFinished,
    ReloadQuery,
    ReloadRequested,
    Role,
    SignalReceived,
    StatusAnswer,
    StatusQuery,
    StatusReport,
    StatusRequest,
    SupervisorSettings,
    SupervisorToControl,
)
from kad.runtime import logs
from kad.runtime.clock import monotonic_us, realtime_us
from kad.runtime.driver import Driver
from kad.runtime.heartbeat import Phase
from kad.runtime.process import ChildContext, die
from kad.runtime.thread import in_thread

STATUS_LIMIT_S = 0.4
"""A child that has not answered by then is shown with what it last said."""
STATUS_ASKERS_LIMIT = 64
ANSWERS_KEPT = 16
"""Outcomes kept for a kadctl that asks again because it did not get the answer."""


def main(context: ChildContext) -> int:
    """The whole life of the process; its exit status."""
    return Control(context).run()


class Control:
    """One life of the control process."""

    def __init__(self, context: ChildContext) -> None:
        self._context = context
        self._options = context.options
        self._generation = context.generation
        self._candidate: Candidate | None = None
        self._processes: dict[Role, ProcessInfo] = {}
        self._reports = Reports()
        self._round: StatusRound | None = None
        self._rounds = 0
        self._disk_digest: str | None = None
        self._looking = False
        """A thread reads what is on disk."""
        self._last_reload: LastReload | None = None
        self._waiting: dict[str, bytes] = {}
        self._answers: deque[ReloadAnswer] = deque(maxlen=ANSWERS_KEPT)
        self._findings = DiagnosticsLog()
        self._core = ReloadCore(context.incarnation)
        self._heartbeat = context.journal.heartbeat(context.role)
        self._driver: Driver[events.Event, actions.Action] = Driver(
            self._core, self._perform, self._heartbeat, events.TimeReached()
        )
        self._log = GentleLog(self._driver.loop)
        directory = context.run_directory
        self._pipe = SupervisorPipe(
            self._driver, context.control_fd, on_message=self._from_supervisor, on_gone=self._leave
        )
        self._mailer = Mailer(self._driver.loop)
        self._children = ChildrenHub(
            self._driver,
            directory,
            feed=self._from_child,
            on_status=self._take_report,
            on_alert=self._mailer.submit,
        )
        self._script: BoundedScript | None = None
        self._leaving = False
        self._reload_file = ReloadFile()
        self._reload_time = ReloadTimeFile(self._driver.loop, lambda: self._driver.feed(events.ReloadAsked()))
        self._dumps = Dumps(self._driver.loop, self._options, self._ask_for_dump, lambda: self._generation)
        self._archive = Archive(self._driver.loop, context.supervisor_pid, self._dumps.keep)
        self._ctl = CtlHub(self._driver, directory, self._from_ctl)

    def run(self) -> int:
        self._driver.loop.add_signal_handler(signal.SIGTERM, self._leave)
        self._heartbeat.phase = Phase.READY
        generation = self._generation
        if generation is None:
            for note in self._options.not_acting:
                logs.warning(note)
        else:
            self._adopt(generation)
            self._dumps.prepare_soon()
        number, roles = (generation.number, generation.roles) if generation else (0, ())
        self._driver.feed(events.Born(number, roles))
        self._driver.run()
        return ExitStatus.OK

    # What comes in ---------------------------------------------------------------------------------------

    def _from_supervisor(self, message: SupervisorToControl) -> None:
        match message:
            case Committed():
                self._committed(message.number)
            case ReloadRequested():
                self._pipe.send(ReloadBegun())
                self._driver.feed(events.ReloadAsked())
            case ProcessTable():
                self._processes = {info.role: info for info in message.processes}
                for role, info in self._processes.items():
                    if info.state == "STOPPED":
                        self._reports.forget(role)
                self._driver.feed(events.ProcessesChanged(message.processes))
            case SignalReceived():
                self._dumps.on_signal(message.signum)
            case _:
                assert_never(message)

    def _committed(self, number: int) -> None:
        generation = self._candidate.generation if self._candidate is not None else None
        if generation is not None and generation.number == number:
            # Before the core hears of it: what it then wants sent is this generation.
            self._generation = generation
            self._adopt(generation)
            self._dumps.prepare_soon()
        self._driver.feed(events.SupervisorCommitted(number))

    def _from_child(self, event: events.Event) -> None:
        self._driver.feed(event)
        if not isinstance(event, events.ChildGreeted):
            return
        self._dumps.on_child(event.role)
        if self._round is not None:
            # Born while status is being asked: it has not heard the question.
            self._ask_status(event.role, event.incarnation, self._round)

    def _from_ctl(self, peer: bytes, message: CtlToControl) -> None:
        match message:
            case StatusQuery():
                self._begin_status(peer, message.request)
            case ReloadQuery():
                self._begin_reload(peer, message)
            case _:
                assert_never(message)

    def _begin_reload(self, peer: bytes, query: ReloadQuery) -> None:
        for answer in self._answers:
            if answer.request == query.request:
                self._ctl.answer(peer, answer)
                return
        if query.request in self._waiting:
            return
        logs.info("reload: asked for by kadctl" + (" --force" if query.force else ""))
        self._waiting[query.request] = peer
        self._driver.feed(events.ReloadAsked(query.request, query.force))

    def _ask_for_dump(self, role: Role, clear: bool) -> int | None:
        """The number of the question; None: that child is not there."""
        self._rounds += 1
        sent = self._children.send_to_any(role, StatusRequest(self._rounds, clear))
        return self._rounds if sent else None

    def _take_report(self, report: StatusReport) -> None:
        self._dumps.take(report)
        if self._reports.take(report) and self._round is not None:
            self._round.take(report)
            self._end_status_if_complete()

    # What the core wants ---------------------------------------------------------------------------------

    def _perform(self, action: actions.Action) -> None:
        match action:
            case actions.StartLoading():
                self._start_loading(action)
            case actions.AskWho():
                self._children.send(action.role, action.incarnation, HelloRequest(), pid=action.pid)
            case actions.SendPrepare():
                slice_ = self._candidate_generation().slices.get(action.role, {})
                prepare = Prepare(action.transaction, action.generation, slice_)
                self._children.send(action.role, action.incarnation, prepare)
            case actions.SendAbandon():
                self._children.send(action.role, action.incarnation, Abandon(action.transaction))
            case actions.SendCommit():
                self._send_commit(action)
            case actions.SendApply():
                self._send_apply(action)
            case actions.TellAllApplied():
                self._pipe.send(AllApplied(action.number))
            case actions.Finished():
                self._finished(action)
            case actions.FirstLoadFailed():
                self._pipe.send(LoadFailed(action.exit_status, _short(action.text)))
            case actions.StartOver():
                logs.error(f"control starts over: {action.text}")
                logs.close()
                die(RuntimeError(f"control starts over: {action.text}"))
            case _:
                assert_never(action)

    def _start_loading(self, action: actions.StartLoading) -> None:
        options, running = self._options, self._generation

        def done(candidate: Candidate) -> None:
            self._candidate = candidate
            self._archive.read(candidate, running)
            self._log.write(self._findings.news(candidate.diagnostics))
            self._log.write((Severity.NOTE, text) for text in candidate.dump)
            self._reload_file.remove()
            if action.first and candidate.generation is not None:
                self._run_startup_script(action.transaction, candidate)
            else:
                self._loaded(action.transaction, candidate)

        logs.info(f"reading {options.config_file}")
        self._archive.begin(running, self._processes)
        if not action.first:
            self._reload_file.create()
        in_thread(
            self._driver.loop, "reading", lambda: read_candidate(options, running, force=action.force), done
        )

    def _loaded(self, transaction: int, candidate: Candidate) -> None:
        generation = candidate.generation
        roles = generation.roles if generation is not None else ()
        self._driver.feed(
            events.Loaded(
                transaction, roles=roles, refusal=candidate.refusal, exit_status=candidate.exit_status
            )
        )

    # Around start, reloads and the end ---------------------------------------------------------------------

    def _run_startup_script(self, transaction: int, candidate: Candidate) -> None:
        """Before anything else runs. A control that dies meanwhile leaves it to the next one."""
        settings = globals_of(candidate.generation)
        if settings.startup_script is None:
            self._loaded(transaction, candidate)
            return
        os.umask(self._options.umask_with(settings.umask))
        limit_us = settings.startup_script_timeout_us
        longest_us = limit_us + int((PATIENCE_S + 1) * 1_000_000)
        self._driver.feed(events.LoadingTakesLonger(transaction, longest_us))
        self._script = BoundedScript(
            self._driver.loop,
            "startup script",
            settings.startup_script,
            limit_us,
            os.environ,
            lambda: self._loaded(transaction, candidate),
        )

    def _adopt(self, generation: Generation) -> None:
        """What of a configuration concerns control itself."""
        settings = globals_of(generation)
        os.umask(self._options.umask_with(settings.umask))
        self._reload_file.configure(reload_file_path(settings))
        self._reload_time.configure(settings.reloading)

    def _leave(self) -> None:
        if self._leaving:
            return
        self._leaving = True
        self._heartbeat.phase = Phase.STOPPING
        self._log.flush()
        if self._script is not None:
            self._script.abandon()
        settings = globals_of(self._generation)
        told_to = os.getppid() == self._context.supervisor_pid
        if settings.shutdown_script is None or self._generation is None or not told_to:
            self._finish()
            return
        self._script = BoundedScript(
            self._driver.loop,
            "shutdown script",
            settings.shutdown_script,
            settings.shutdown_script_timeout_us,
            os.environ,
            self._finish,
        )

    def _finish(self) -> None:
        # The others have left: what they had to say at the end lies here.
        self._children.drain()
        self._mailer.finish(self._driver.stop)

    def _candidate_generation(self) -> Generation:
        assert self._candidate is not None and self._candidate.generation is not None
        return self._candidate.generation

    def _send_commit(self, action: actions.SendCommit) -> None:
        generation = self._candidate_generation()
        assert generation.number == action.number
        settings = generation.settings or SupervisorSettings()
        self._pipe.commit(CommitGeneration(action.number, generation.roles, settings), generation)

    def _send_apply(self, action: actions.SendApply) -> None:
        generation = self._generation
        assert generation is not None and generation.number == action.generation
        apply = Apply(action.generation, generation.slices.get(action.role, {}))
        self._children.send(action.role, action.incarnation, apply)

    def _finished(self, action: actions.Finished) -> None:
        for complaint in action.complaints:
            logs.warning(complaint)
        shown = self._candidate.shown if self._candidate is not None else ""
        is_what_runs = self._candidate is not None and self._candidate.is_text_of(self._generation)
        if action.transaction:
            self._candidate = None
        if not action.first:
            self._archive.end(self._generation, self._processes)
            self._last_reload = LastReload(realtime_us() / 1_000_000, action.accepted, action.text)
            self._pipe.send(ReloadFinished(action.accepted, _short(action.text)))
            if not action.accepted and not is_what_runs:
                file = self._options.config_file
                logs.warning(f"{file} is not what runs: generation {action.generation} is")
        for asker in action.askers:
            self._answer_reload(asker, action, shown)

    def _answer_reload(self, asker: str, action: actions.Finished, shown: str) -> None:
        peer = self._waiting.pop(asker, None)
        if peer is None:
            return
        answer = ReloadAnswer(
            asker, action.accepted, action.generation, action.text, shown, action.complaints
        )
        self._answers.append(answer)
        self._ctl.answer(peer, answer)

    # Status ----------------------------------------------------------------------------------------------

    def _begin_status(self, peer: bytes, request: str) -> None:
        if self._round is None:
            self._start_round()
        assert self._round is not None
        if len(self._round.askers) < STATUS_ASKERS_LIMIT:
            self._round.askers.append((peer, request))

    def _start_round(self) -> None:
        self._rounds += 1
        running: set[Role] = {
            role
            for role, info in self._processes.items()
            if role != Role.CONTROL and info.state in ("STARTING", "RUNNING")
        }
        number = self._rounds
        self._round = StatusRound(number, running)
        for role in running:
            self._ask_status(role, self._processes[role].incarnation, self._round)
        if not self._looking:
            self._look(number)
        self._driver.loop.call_later(STATUS_LIMIT_S, lambda: self._end_status(number))

    def _ask_status(self, role: Role, incarnation: int, asking: StatusRound) -> None:
        self._children.send(role, incarnation, StatusRequest(asking.number))

    def _look(self, number: int) -> None:
        """One at a time: files on a filesystem that hangs would hold a thread for every question."""
        self._looking = True
        options = self._options
        in_thread(
            self._driver.loop,
            "reading",
            lambda: read_digest(options),
            lambda found: self._looked(number, found),
        )

    def _looked(self, number: int, digest: str | None) -> None:
        self._looking = False
        self._disk_digest = digest
        if self._round is None:
            return
        if self._round.number != number:
            # What was begun before the question may tell what was there before it.
            self._look(self._round.number)
            return
        self._round.file_looked_at = True
        self._end_status_if_complete()

    def _end_status_if_complete(self) -> None:
        if self._round is not None and self._round.is_complete:
            self._end_status(self._round.number)

    def _end_status(self, number: int) -> None:
        if self._round is None or self._round.number != number:
            return
        finished, self._round = self._round, None
        encoded = msgspec.msgpack.encode(self._status(finished))
        for peer, request in finished.askers:
            self._ctl.answer(peer, StatusAnswer(request, encoded))

    def _status(self, finished: StatusRound) -> DaemonStatus:
        clocks = Clocks(monotonic_us(), realtime_us())
        agrees, note = self._judge_file(finished)
        services, ipvs = services_of(self._reports.of(Role.CHECK), clocks)
        return DaemonStatus(
            version=kad.__version__,
            supervisor_pid=self._context.supervisor_pid,
            run_directory=self._context.run_directory,
            config_file=self._options.config_file,
            generation=self._core.generation,
            applied_everywhere=self._core.all_applied,
            file_is_what_runs=agrees,
            file_note=note,
            transaction=self._core.state.name,
            last_reload=self._last_reload,
            processes=tuple(
                process_status(
                    info,
                    generation=self._core.generation if role == Role.CONTROL else self._core.applied_by(role),
                    answered=role == Role.CONTROL or role in finished.answered or not info.pid,
                    clocks=clocks,
                    lateness=lateness_of(self._reports.of(role)),
                )
                for role, info in self._processes.items()
            ),
            instances=instances_of(self._reports.of(Role.VRRP), clocks),
            objects=objects_of(self._reports.of(Role.VRRP)),
            reports=self._reports.bodies(),
            dropped=self._dropped(),
            virtual_servers=services,
            bfd_sessions=sessions_of(self._reports.of(Role.BFD), clocks),
            ipvs=ipvs,
        )

    def _judge_file(self, finished: StatusRound) -> tuple[bool | None, str]:
        if self._generation is None:
            return None, "nothing runs yet"
        if not finished.file_looked_at:
            return None, "reading it takes too long"
        if self._disk_digest is None:
            return None, "reading it failed"
        if self._disk_digest == self._generation.source_digest:
            return True, ""
        refused = self._last_reload is not None and not self._last_reload.accepted
        return False, "the last reload was refused" if refused else "it was changed; reload to run it"

    def _dropped(self) -> dict[str, int]:
        total = self._children.drops + self._ctl.drops + self._pipe.drops + self._core.drops
        return {reason.value: count for reason, count in sorted(total.items())}


def _short(text: str) -> str:
    """One line that fits into a message to the supervisor."""
    return text[:2000]
