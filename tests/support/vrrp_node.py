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
from kad_vrrp.core.actions import Action, Remember, State
from kad_vrrp.core.record import decode
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


class _Death:
    """Plants a death into this process: SIGKILL before an action. What was carried out is written down.

    ``becoming``: actions are counted from the record that says so, in which the process was something else
    before; None: from the first action of all.
    """

    def __init__(self, number: int, becoming: State | None, trail: Path) -> None:
        self._number = number
        self._becoming = becoming
        self._was: State | None = None
        self._counts = becoming is None
        self._done = 0
        self._trail = trail
        self._trail.write_text("")
        self._perform = Shell.perform

    def plant(self) -> None:
        Shell.perform = lambda shell, action: self._carry_out(shell, action)  # type: ignore[method-assign]

    def _carry_out(self, shell: Shell, action: Action) -> None:
        self._counts = self._counts or self._is_it(action)
        if self._counts:
            if self._done == self._number - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            self._done += 1
        self._perform(shell, action)
        if self._counts:
            with self._trail.open("a") as trail:
                trail.write(f"{type(action).__name__}\n")

    def _is_it(self, action: Action) -> bool:
        if not isinstance(action, Remember):
            return False
        record = decode(action.record)
        assert record is not None
        was, self._was = self._was, record.state
        return was is not None and was is not record.state and record.state is self._becoming


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

    def start(self, *, dies_at: int = 0, becoming: State | None = None, **context: Any) -> None:
        """A new life. ``dies_at``: it is killed before carrying out its so-maniest action, counted from the
        first one, or from the record of its ``becoming`` what it was not. :meth:`trail` tells what it did."""
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
                _Death(dies_at, becoming, Path(self.directory, "trail")).plant()
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

    def trail(self) -> list[str]:
        """The actions that the life with ``dies_at`` carried out, of those that were counted."""
        path = Path(self.directory, "trail")
        return path.read_text().split() if path.exists() else []

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
