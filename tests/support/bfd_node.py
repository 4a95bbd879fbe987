"""The BFD child alone in a namespace: no supervisor, no control, a journal of its own.

with BfdNode(node, session("peer", "192.0.2.2")) as kad:
    kad.start()
    kad.becomes("Up", "peer")
    kad.signal(signal.SIGKILL); kad.wait(); kad.start()       # the journal lives on
"""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from kad.config.model.bfd import BfdConfiguration, BfdInstance
from kad.config.model.config import Config
from kad.config.slices import slices
from kad.ipc.link import RouterEnd, control_path
from kad.ipc.messages import Apply, ChildToControl, Generation, Role, StatusReport, StatusRequest
from kad.ipc.reports import BfdReport, BfdSessionReport
from kad.runtime import logs
from kad.runtime.heartbeat import Phase
from kad.runtime.journal import Journal
from kad.runtime.process import ChildContext, Options, become_child, begin_life, die
from kad_bfd.app import main
from tests.support.namespaces import Node, poll
from tests.support.reactor import LoopReactor


def session(name: str, neighbor: str, **fields: Any) -> BfdInstance:
    """50 ms, three times, unless said otherwise."""
    fields.setdefault("min_rx_us", 50_000)
    fields.setdefault("min_tx_us", 50_000)
    fields.setdefault("multiplier", 3)
    if ":" in neighbor:
        fields.setdefault("expected_ttl", fields.get("ttl", 64))
    return BfdInstance(name, neighbor, **fields)


class BfdNode:
    """One BFD child after the other, in one namespace with one journal. This process plays control."""

    def __init__(self, node: Node, *instances: BfdInstance) -> None:
        self.node = node
        self.instances = instances
        self.options = Options(log_console=True, log_detail=1, log_syslog=False)
        self.directory = tempfile.mkdtemp(prefix="kt-bfd-")
        self.journal = Journal.create()
        self.incarnation = 0
        self.generation = 1
        self.pid = 0
        self.status: int | None = None
        self.log_file = Path(self.directory, "log")
        self.log_file.touch()
        self._requests = itertools.count(1)
        self._reactor: LoopReactor | None = None
        self._reports: list[StatusReport] = []
        self._child = b""
        # Somebody to connect to: dialling in vain costs time that measurements would show.
        self._quiet_control = socket.socket(socket.AF_UNIX)
        self._quiet_control.bind(control_path(self.directory))
        self._quiet_control.listen()

    def __enter__(self) -> BfdNode:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid and self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        self._quiet_control.close()
        if self._reactor is not None:
            self._control.close()
            self._reactor.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    # Lives -----------------------------------------------------------------------------------------------

    def context(self, role: Role = Role.BFD, incarnation: int = 0, **fields: Any) -> ChildContext:
        """What a child of this family is given."""
        config = Config(bfd=BfdConfiguration(self.instances))
        return ChildContext(
            role=role,
            incarnation=incarnation or self.incarnation,
            options=self.options,
            run_directory=self.directory,
            journal=self.journal,
            generation=Generation(self.generation, "", slices(config), roles=(Role.BFD,)),
            supervisor_pid=os.getpid(),
            **fields,
        )

    def start(self) -> None:
        """A new life."""
        self.incarnation += 1
        self.journal.heartbeat(Role.BFD).begin(self.incarnation)
        made = self.context()
        self.status = None
        self.pid = os.fork()
        if self.pid == 0:
            self._run(made)

    def _run(self, context: ChildContext) -> None:
        # As the supervisor does: this process has a large heap, and who looks through it copies it.
        gc.freeze()
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

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def ready(self) -> bool:
        return self.journal.heartbeat(Role.BFD).phase is Phase.READY

    # What it says ----------------------------------------------------------------------------------------

    def log(self) -> str:
        return self.log_file.read_text()

    def crash(self) -> str:
        """The last words of a life that ended badly."""
        path = Path(self.directory, "crash.bfd")
        return path.read_text() if path.exists() else ""

    def states(self, name: str) -> list[str]:
        """Every state entered, over all lives."""
        entered = f"({name}) Entering "
        return [line.split(entered)[1].split()[0] for line in self.log().splitlines() if entered in line]

    def state(self, name: str) -> str:
        states = self.states(name)
        return states[-1] if states else ""

    def becomes(self, state: str, name: str, *, seconds: float = 10) -> None:
        poll(lambda: self.state(name) == state, f"({name}) {state}; it said\n{self.log()}", seconds=seconds)

    # Control's part --------------------------------------------------------------------------------------

    def configure(self, *instances: BfdInstance) -> None:
        """A reload: committed, and applied by the living child; a later life finds it as its generation."""
        self.instances = instances
        self.generation += 1
        self._connect()
        slice_ = slices(Config(bfd=BfdConfiguration(instances))).get(Role.BFD, {})
        assert self._control.send(self._child, Apply(self.generation, slice_))
        heartbeat = self.journal.heartbeat(Role.BFD)
        poll(lambda: heartbeat.generation == self.generation, f"generation {self.generation} applied")

    def report(self) -> BfdReport:
        """Its whole status, asked now."""
        self._connect()
        request = next(self._requests)
        assert self._reactor is not None
        assert self._control.send(self._child, StatusRequest(request))
        self._reactor.until(lambda: any(r.request == request for r in self._reports))
        return msgspec.msgpack.decode(self._reports[-1].body, type=BfdReport)

    def session(self, name: str) -> BfdSessionReport:
        return next(session for session in self.report().sessions if session.name == name)

    def _connect(self) -> None:
        """Become control in earnest, when first needed. A new life of the child is greeted anew."""
        if self._reactor is None:
            self._quiet_control.close()
            self._reactor = LoopReactor()
            self._control: RouterEnd[ChildToControl] = RouterEnd(
                self._reactor,
                control_path(self.directory),
                ChildToControl,
                on_peer=self._greet,
                on_message=self._hear,
            )
        identity = f".{self.pid}".encode()
        self._reactor.until(lambda: self._child.endswith(identity))

    def _greet(self, peer: bytes) -> None:
        self._child = peer

    def _hear(self, _peer: bytes, message: ChildToControl) -> None:
        if isinstance(message, StatusReport):
            self._reports.append(message)
            del self._reports[:-10]

    def cpu_us(self) -> int:
        """Processor time of the living process, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1_000_000 // os.sysconf("SC_CLK_TCK")
