"""The VRRP child alone in a namespace: no supervisor, no control, a journal of its own.

with VrrpNode(node, instance(...)) as kad:
    kad.start()
    poll(lambda: kad.state("VI_1") == "MASTER", "mastery")
    kad.signal(signal.SIGKILL); kad.wait(); kad.start()       # the journal lives on
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

from kad.config.model.config import Config
from kad.config.model.vrrp import VirtualAddress, VrrpConfiguration, VrrpInstance, VrrpSettings
from kad.config.slices import slices
from kad.ipc.link import control_path
from kad.ipc.messages import Generation, Role
from kad.runtime import logs
from kad.runtime.heartbeat import Phase
from kad.runtime.journal import Journal
from kad.runtime.process import ChildContext, Options, become_child, begin_life, die
from kad_vrrp.core.actions import Action, State, StateChanged
from kad_vrrp.io.shell import Shell
from tests.support.namespaces import Node, poll


def address(text: str, **fields: Any) -> VirtualAddress:
    """A virtual address from ``ADDRESS/LEN``."""
    written, _, length = text.partition("/")
    six = ":" in written
    fields.setdefault("flags", 0x02 if six else 0)
    return VirtualAddress(written, int(length or (128 if six else 32)), **fields)


def instance(name: str = "VI_1", vrid: int = 51, *vips: str, **fields: Any) -> VrrpInstance:
    """An instance on eth0 with these addresses."""
    fields.setdefault("interface", "eth0")
    if fields.get("family") == 6:
        fields.setdefault("multicast_group", "ff02::12")
        fields.setdefault("version", 3)
    return VrrpInstance(name, vrid, virtual_addresses=tuple(map(address, vips)), **fields)


def generation(number: int, instances: tuple[VrrpInstance, ...], settings: VrrpSettings) -> Generation:
    config = Config(vrrp=VrrpConfiguration(settings=settings, instances=instances))
    return Generation(number, "", slices(config), roles=(Role.VRRP,))


def _die_at(number: int, after: State | None) -> None:
    """Plant a death into this process: SIGKILL before an action."""
    perform = Shell.perform
    counted = 0 if after is not None else 1

    def perform_or_die(shell: Shell, action: Action) -> None:
        nonlocal counted
        if counted or (isinstance(action, StateChanged) and action.new is after):
            counted += 1
        if counted > number:
            os.kill(os.getpid(), signal.SIGKILL)
        perform(shell, action)

    Shell.perform = perform_or_die  # type: ignore[method-assign, assignment]


class VrrpNode:
    """One VRRP child after the other, in one namespace with one journal."""

    def __init__(self, node: Node, *instances: VrrpInstance, **settings: Any) -> None:
        self.node = node
        self.instances = instances
        self.settings = VrrpSettings(**settings)
        self.options = Options(log_console=True, log_detail=1, log_syslog=False)
        self.directory = tempfile.mkdtemp(prefix="kt-vrrp-")
        self.journal = Journal.create()
        self.incarnation = 0
        self.pid = 0
        self.status: int | None = None
        self.log_file = Path(self.directory, "log")
        self.log_file.touch()
        self._generation = 1
        # Somebody to connect to: dialling in vain costs time that measurements would show.
        self._control = socket.socket(socket.AF_UNIX)
        self._control.bind(control_path(self.directory))
        self._control.listen()

    def __enter__(self) -> VrrpNode:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid and self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        self._control.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, *, dies_at: int = 0, after: State | None = None, **context: Any) -> None:
        """A new life. ``dies_at``: it is killed before carrying out its so-maniest action, counted from the
        first one, or from the one that tells of the state ``after``."""
        self.incarnation += 1
        heartbeat = self.journal.heartbeat(Role.VRRP)
        heartbeat.begin(self.incarnation)
        made = ChildContext(
            role=Role.VRRP,
            incarnation=self.incarnation,
            options=self.options,
            run_directory=self.directory,
            journal=self.journal,
            generation=generation(self._generation, self.instances, self.settings),
            supervisor_pid=os.getpid(),
            **context,
        )
        self.status = None
        self.pid = os.fork()
        if self.pid == 0:
            if dies_at:
                _die_at(dies_at, after)
            self._run(made)

    def _run(self, context: ChildContext) -> None:
        from kad_vrrp.app import main

        try:
            descriptor = os.open(self.log_file, os.O_WRONLY | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            self.node.enter()
            become_child(context, ())
            begin_life(context)
            logs.open(context.role, context.options)
            status = main(context)
        except BaseException as error:  # noqa: BLE001 - the outermost frame of a forked process
            die(error)
        logs.close()
        os._exit(status)

    def configure(self, *instances: VrrpInstance) -> None:
        """What the next life finds as its generation."""
        self.instances = instances
        self._generation += 1

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def has_ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def wait(self, seconds: float = 10) -> int:
        """Exit status, negative for a signal."""
        if not self.has_ended():
            poll(self.has_ended, f"the end of process {self.pid}: {self.log()[-2000:]}", seconds=seconds)
        assert self.status is not None
        return self.status

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def ready(self) -> bool:
        return self.journal.heartbeat(Role.VRRP).phase is Phase.READY

    def log(self) -> str:
        return self.log_file.read_text()

    def crash(self) -> str:
        """The last words of a life that ended badly."""
        path = Path(self.directory, "crash.vrrp")
        return path.read_text() if path.exists() else ""

    def states(self, name: str = "VI_1") -> list[str]:
        """Every state entered, over all lives."""
        entered = f"({name}) Entering "
        return [line.split(entered)[1].split()[0] for line in self.log().splitlines() if entered in line]

    def state(self, name: str = "VI_1") -> str:
        states = self.states(name)
        return states[-1] if states else ""

    def becomes(self, state: str, name: str = "VI_1", *, seconds: float = 8) -> None:
        poll(lambda: self.state(name) == state, f"({name}) {state}; it said\n{self.log()}", seconds=seconds)

    def cpu_us(self) -> int:
        """Processor time of the living process, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1_000_000 // os.sysconf("SC_CLK_TCK")
