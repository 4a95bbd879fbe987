"""The supervisor: forks, reaps, restarts, passes signals on, sees to it that nobody hangs.

As dull as an init: one thread, one poll. It never reads a configuration, never opens a ZeroMQ socket and
never touches the network, so there is almost nothing in it that can fail.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import assert_never

from kad.errors import ExitStatus, in_words
from kad.ipc.messages import (
    AllApplied,
    CommitGeneration,
    Committed,
    ControlToSupervisor,
    LoadFailed,
    ProcessTable,
    ReloadBegun,
    ReloadFinished,
    Role,
    SupervisorSettings,
)
from kad.runtime import logs
from kad.runtime.clock import monotonic_us
from kad.runtime.heartbeat import Phase
from kad.runtime.journal import Journal
from kad.runtime.pidfile import PidFile, PidFileInUse
from kad.runtime.process import ChildContext, Options, adopt, crash_file
from kad.runtime.processors import shorten_slice
from kad.runtime.rundir import RunDirectory
from kad.runtime.systemd import ServiceManager
from kad.supervisor.channel import ChannelError, read_generation
from kad.supervisor.child import (
    WITH_LAST_WORDS,
    Action,
    Child,
    EndDaemon,
    Event,
    Exited,
    Fork,
    Forked,
    ForkFailed,
    ForkWithdraw,
    Hung,
    Kill,
    Ready,
    Start,
    State,
    StateChanged,
    Stop,
    TimePassed,
    WithdrawExited,
    WithdrawForked,
)
from kad.supervisor.control_line import ControlLine
from kad.supervisor.daemonise import Starter
from kad.supervisor.pid_files import PidFiles
from kad.supervisor.readiness import EXTENSION_US, Readiness, shortcomings
from kad.supervisor.reload import Generations
from kad.supervisor.signals import FORWARDED, SignalInfo, SignalQueue
from kad.supervisor.spare import CALM_US, SPARED, Spare
from kad.supervisor.spawn import Mains, Unloadable, fork_child, open_packet_socket
from kad.supervisor.stop_order import CONTROL_WAIT_US, leaving, longest_us, patience_us
from kad.supervisor.watches import Watches

START_LOOK_US = 10_000
"""How often to look whether a starting child is READY."""
LONG_READING_MS = 100
LONGEST_SLEEP_US = 1_000_000
WITHDRAWING = frozenset({Role.VRRP})
CLEANING_UP = frozenset({Role.CHECK})
"""Roles whose last process may leave something in the kernel that another has to take away."""


class Supervisor:
    """Everything the supervising process knows. ``run`` returns the daemon's exit status."""

    def __init__(
        self,
        options: Options,
        mains: Mains,
        run_directory: RunDirectory,
        pid_file: PidFile,
        journal: Journal,
        signals: SignalQueue,
        manager: ServiceManager,
        starter: Starter,
    ) -> None:
        self._options = options
        self._mains = mains
        self._run_directory = run_directory
        self._pid_files = PidFiles(options, pid_file)
        self._journal = journal
        self._signals = signals
        self._manager = manager
        self._starter = starter
        self._children = {
            role: Child(
                role,
                withdraws=role in WITHDRAWING,
                cleans_up=role in CLEANING_UP,
                respawn=options.respawn,
            )
            for role in Role
        }
        self._watches = Watches()
        self._generations = Generations()
        self._settings = SupervisorSettings()
        self._packet_fd = open_packet_socket()
        self._spare = Spare()
        self._poll = select.poll()
        self._poll.register(signals.descriptor, select.POLLIN)
        self._control = ControlLine(self._poll, manager)
        self._look_at_us = self._alive_at_us = self._ready_at_us = 0
        self._exit_status: int | None = None
        self._readiness = Readiness()
        self._told_ready = False
        self._told_missing = ""
        self._table_is_stale = True

    # The loop --------------------------------------------------------------------------------------------

    def run(self) -> int:
        shorten_slice()
        self._tell(Role.CONTROL, Start())
        # While that reads: what the VRRP child is made of; where it reads for long, the other roles too.
        while self._mains.load_one() and not self._poll.poll(LONG_READING_MS):
            pass
        while not self._is_over():
            self._wait()
            # Whoever is to follow a child that died is told before anybody reads of it.
            logs.hold()
            signals = self._signals.read()
            # What a dead control said before it died still counts, so its messages come first.
            self._receive()
            for info in signals:
                self._handle_signal(info)
            self._reap()
            self._pass_time()
            self._stop_in_order()
            logs.release()
            self._send_table()
        self._pid_files.remove_own()
        assert self._exit_status is not None
        return self._exit_status

    def _is_over(self) -> bool:
        stopped = all(child.state == State.STOPPED for child in self._children.values())
        return self._exit_status is not None and stopped

    def _wait(self) -> None:
        now_us = monotonic_us()
        wake_us = [self._look_at_us, now_us + LONGEST_SLEEP_US]
        wake_us += [child.deadline_us for child in self._children.values() if child.deadline_us is not None]
        if self._manager.watchdog_period_us:
            wake_us.append(self._alive_at_us)
        self._control.wait(max(0, -(-(min(wake_us) - now_us) // 1000)))

    def _pass_time(self) -> None:
        now_us = monotonic_us()
        for role, child in self._children.items():
            deadline_us = child.deadline_us
            if deadline_us is not None and deadline_us <= now_us:
                self._tell(role, TimePassed(starved=role in WITHDRAWING and self._watches.is_starved(child)))
        if self._look_at_us <= now_us:
            self._look(now_us)
        if self._manager.watchdog_period_us and self._alive_at_us <= now_us:
            self._manager.alive()
            self._alive_at_us = now_us + self._manager.watchdog_period_us

    # Children --------------------------------------------------------------------------------------------

    def _tell(self, role: Role, event: Event) -> None:
        child = self._children[role]
        for action in child.handle(event, monotonic_us()):
            self._perform(child, action)

    def _perform(self, child: Child, action: Action) -> None:
        match action:
            case Fork():
                self._fork(child, action)
            case ForkWithdraw():
                self._fork_withdraw(child, action)
            case Kill():
                # Not reaped yet, so the number is still that process's.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(action.pid, action.signum)
            case EndDaemon():
                self._begin_stop(action.status, action.text)
            case StateChanged():
                self._state_changed(child, action)
            case _:
                assert_never(action)

    def _fork(self, child: Child, action: Fork) -> None:
        role = child.role
        self._journal.heartbeat(role).begin(action.incarnation)
        context = self._context(child, action.incarnation)
        context.hold_preemption = action.hold_preemption
        try:
            main = self._mains[role]
            if role == Role.CONTROL:
                context.control_fd = self._control.open()
            pid = self._spare.send(context) if role == SPARED else 0
            pid = pid or fork_child(main, context, self._kept(role))
        except (OSError, Unloadable) as error:
            if role == Role.CONTROL:
                self._control.close()
            self._tell(role, ForkFailed(str(error), withdraw=False))
            return
        self._watches.begin(role, self._settings.hang_limit_us)
        self._look_at_us = 0
        self._pid_files.write(role, pid)
        self._tell(role, Forked(pid))
        if role == Role.CONTROL:
            self._table_is_stale = True
            self._control.control_started(loading=self._generations.current is None)

    def _kept(self, role: Role) -> list[int]:
        return [self._run_directory.held(), *self._pid_files.descriptors(role)]

    def _make_spare(self, now_us: int) -> None:
        child = self._children[SPARED]
        calm = child.state == State.RUNNING and self._generations.previous is None
        wanted = calm and self._exit_status is None and self._options.respawn
        if wanted and self._spare.is_due(now_us, child.since_us):
            context = self._context(child, child.incarnation)
            self._spare.make(self._mains[SPARED], context, self._kept(SPARED), now_us)

    def _fork_withdraw(self, child: Child, action: ForkWithdraw) -> None:
        context = self._context(child, action.incarnation)
        context.withdraw = True
        try:
            pid = fork_child(self._mains[child.role], context, [self._run_directory.lock])
        except OSError as error:
            logs.error(f"{child.role}: nobody withdraws: {error}")
            self._tell(child.role, ForkFailed(str(error), withdraw=True))
            return
        logs.info(f"{child.role}: process {pid} withdraws what the one before left")
        self._tell(child.role, WithdrawForked(pid))

    def _context(self, child: Child, incarnation: int) -> ChildContext:
        return ChildContext(
            role=child.role,
            incarnation=incarnation,
            options=self._options,
            run_directory=self._run_directory.path,
            journal=self._journal,
            generation=self._generations.current,
            supervisor_pid=os.getpid(),
            previous_generation=self._generations.previous,
            packet_fd=self._packet_fd if child.role == Role.VRRP else -1,
        )

    def _reap(self) -> None:
        """Every child that has ended: ours, and orphans of ours that became our children."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._reaped(pid, os.waitstatus_to_exitcode(status))

    def _reaped(self, pid: int, code: int) -> None:
        if self._spare.ended(pid):
            return
        for role, child in self._children.items():
            if pid == child.pid:
                self._watches.end(role)
                if code in WITH_LAST_WORDS:
                    words = crash_file(self._run_directory.path, role)
                    logs.error(f"{role}: the last words of process {pid} are in {words}")
                # Last words first: a commit that was sent before the death is a commit.
                if role == Role.CONTROL:
                    self._control_died()
                self._tell(role, Exited(code))
                self._give_up_on_control()
                return
            if pid == child.withdraw_pid:
                if code != 0:
                    logs.warning(f"{role}: the withdrawing process {pid} ended with {code}")
                self._tell(role, WithdrawExited(code))
                return

    def _state_changed(self, child: Child, change: StateChanged) -> None:
        self._table_is_stale = True
        if change.new == State.STOPPING:
            self._watches.begin_leaving(child)
        if change.new == State.STOPPED and not child.wanted:
            self._pid_files.remove(child.role)
        text = f"{child.role}: {change.old} → {change.new}: {change.reason}"
        (logs.error if change.new == State.BACKOFF else logs.info)(text)

    # Hangs -----------------------------------------------------------------------------------------------

    def _look(self, now_us: int) -> None:
        starting = False
        for role, child in self._children.items():
            heartbeat = self._journal.heartbeat(role)
            if child.state == State.STARTING and heartbeat.phase == Phase.READY:
                self._tell(role, Ready())
            starting |= child.state == State.STARTING
            hung = self._watches.look(role, child.pid, heartbeat, now_us) if child.alive else None
            if hung is not None:
                self._tell(role, hung)
        self._tell_ready(now_us)
        starting |= bool(self._ready_at_us) and not self._told_ready
        self._make_spare(now_us)
        control = self._children[Role.CONTROL]
        if control.alive and self._control.deaf_us(now_us) > CONTROL_WAIT_US:
            self._tell(Role.CONTROL, Hung(True, "closed its line to the supervisor"))
        period_us = self._settings.hang_limit_us // 5
        self._look_at_us = now_us + (min(START_LOOK_US, period_us) if starting else period_us)

    def _tell_ready(self, now_us: int) -> None:
        """To service manager and shell, once: kad is started, and nothing is left to load."""
        generation = self._generations.current
        if self._exit_status is not None:
            return
        if generation is None:
            if self._readiness.wants_extension(now_us):
                self._manager.extend(EXTENSION_US)
            return
        started = self._ready_at_us or self._readiness.is_started(self._children, generation.roles, now_us)
        if not started:
            return
        self._ready_at_us = self._ready_at_us or now_us
        missing = shortcomings(self._children, generation.roles)
        status = f"generation {generation.number}" + (f"; {missing}" if missing else "")
        if self._told_ready:
            if missing != self._told_missing:
                self._manager.status(status)
        elif now_us - self._ready_at_us >= CALM_US and not self._mains.complete():
            self._told_ready = True
            self._manager.ready(status)
            self._starter.tell(ExitStatus.OK)
        self._told_missing = missing

    # Control ---------------------------------------------------------------------------------------------

    def _control_died(self) -> None:
        try:
            self._control.receive(self._obey)
        except ChannelError as error:
            logs.error(str(error))
        if self._control.reloading and self._generations.current is not None:
            logs.error("the reload ended with control's process; what was committed runs on")
            if self._told_ready:
                self._manager.ready()
        self._control.control_died()

    def _give_up_on_control(self) -> None:
        """Nothing runs yet and control cannot even load: that is a failed start."""
        control = self._children[Role.CONTROL]
        if self._generations.current is None and control.state == State.BACKOFF:
            self._begin_stop(ExitStatus.SOFTWARE, f"the configuration cannot be loaded: {control.last_exit}")

    def _receive(self) -> None:
        try:
            self._control.receive(self._obey)
        except ChannelError as error:
            # A control that talks nonsense is as good as dead; the next one begins afresh.
            logs.error(str(error))
            self._control.close()
            self._tell(Role.CONTROL, Hung(False, "talked nonsense"))

    def _obey(self, message: ControlToSupervisor, descriptor: int) -> None:
        match message:
            case CommitGeneration():
                self._commit(message, descriptor)
            case AllApplied():
                if self._generations.all_applied(message.number):
                    logs.debug(f"generation {message.number} runs everywhere")
            case LoadFailed():
                self._load_failed(message)
            case ReloadBegun():
                self._control.reload_begun()
            case ReloadFinished():
                self._reload_finished(message)
            case _:
                assert_never(message)

    def _commit(self, message: CommitGeneration, descriptor: int) -> None:
        generation = read_generation(descriptor)
        first = self._generations.current is None
        try:
            self._pid_files.take(message.roles)
        except (PidFileInUse, OSError) as error:
            if first:
                self._begin_stop(ExitStatus.FATAL, in_words(error))
                return
            logs.error(in_words(error))
        complaint = self._generations.commit(message, generation)
        if complaint:
            logs.error(f"not committed: {complaint}")
        else:
            self._adopt(message)
        self._control.send(Committed(self._generations.number))
        if first:
            self._control.load_finished()

    def _adopt(self, message: CommitGeneration) -> None:
        logs.info(f"generation {message.number} is committed")
        self._settings = message.settings
        self._spare.discard()
        adopt(message.settings, self._options)
        self._watches.set_limit(self._settings.hang_limit_us)
        for role, child in self._children.items():
            child.least_master_down_us = message.settings.least_master_down_us
            if role == Role.CONTROL:
                continue
            if role in message.roles:
                if self._exit_status is None:
                    self._tell(role, Start())
            else:
                self._journal.heartbeat(role).dismiss()
                self._tell(role, Stop(message.settings.child_wait_us))

    def _load_failed(self, message: LoadFailed) -> None:
        if self._generations.current is None:
            self._begin_stop(message.exit_status, message.text)
        else:
            logs.error(message.text)

    def _reload_finished(self, message: ReloadFinished) -> None:
        if message.accepted:
            logs.info(f"reload: {message.text}")
        else:
            logs.error(f"reload refused, what runs goes on as it was: {message.text}")
        if self._told_ready:
            self._manager.ready(message.text)
        self._control.load_finished()

    def _send_table(self) -> None:
        if self._table_is_stale and self._control.is_open:
            self._table_is_stale = False
            self._control.send(ProcessTable(tuple(child.info() for child in self._children.values())))

    # Signals and the end -----------------------------------------------------------------------------------

    def _handle_signal(self, info: SignalInfo) -> None:
        number = info.number
        if number == signal.SIGHUP and self._exit_status is None:
            self._control.request_reload()
        elif number == signal.SIGINT and self._options.ignore_sigint:
            logs.info("SIGINT is ignored")
        elif number in (signal.SIGTERM, signal.SIGINT):
            self._begin_stop(ExitStatus.OK, f"{signal.Signals(number).name} from process {info.sender_pid}")
        elif number == signal.SIGXCPU:
            logs.warning("the limit of real-time processor use was reached (SIGXCPU)")
        elif number in FORWARDED:
            self._control.pass_signal(number)

    def _begin_stop(self, status: int, reason: str) -> None:
        if self._exit_status is not None:
            return
        self._exit_status = int(status)
        self._spare.discard()
        (logs.error if status else logs.info)(f"stopping: {reason}")
        if self._settings.shutdown_us and not self._control.is_open:
            logs.error("shutdown_script is not run: control, which runs it, has died too often")
        self._manager.stopping(longest_us(self._settings))
        self._starter.tell(int(status), reason if status else "")

    def _stop_in_order(self) -> None:
        if self._exit_status is not None:
            for role in leaving(self._children):
                self._tell(role, Stop(patience_us(role, self._settings)))
