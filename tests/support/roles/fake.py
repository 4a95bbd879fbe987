"""Roles that tick, and do what they are told by a line in RUN/command.ROLE: crash, hang, stop, ignore.

The plan (a JSON file in the configuration's place) says which generation the fake control commits. Everything
that happens is a line of JSON in RUN/events.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from kad.ipc.messages import (
    AllApplied,
    CommitGeneration,
    Committed,
    Generation,
    LoadFailed,
    ProcessTable,
    ReloadBegun,
    ReloadFinished,
    ReloadRequested,
    Role,
    SupervisorSettings,
    SupervisorToControl,
)
from kad.runtime import logs
from kad.runtime.clock import monotonic_us
from kad.runtime.heartbeat import Phase
from kad.runtime.process import ChildContext, begin_life
from kad.supervisor.channel import seal_generation, send_with_descriptor

TICK_S = 0.02


class Fake:
    """The life of one fake child."""

    def __init__(self, context: ChildContext) -> None:
        self.context = context
        self.run = Path(context.run_directory)
        self.plan: dict[str, Any] = json.loads(Path(context.options.config_file).read_text())
        self.mine: dict[str, Any] = self.plan.get(context.role.value, {})
        self.heartbeat = context.journal.heartbeat(context.role)
        self.stopping = False
        self.deaf = False
        self.burn_ms = 0
        self.socket: socket.socket | None = None
        signal.signal(signal.SIGTERM, self.on_term)

    def say(self, what: str, **facts: Any) -> None:
        facts |= {
            "role": self.context.role.value,
            "pid": os.getpid(),
            "life": self.context.incarnation,
            "what": what,
            "at_us": monotonic_us(),
        }
        with contextlib.suppress(OSError), (self.run / "events").open("a") as file:
            file.write(json.dumps(facts) + "\n")

    def on_term(self, *_: object) -> None:
        self.say("term")
        self.stopping = not self.deaf

    def live(self) -> int:
        context = self.context
        self.say(
            "withdraw" if context.withdraw else "start",
            generation=context.generation.number if context.generation else 0,
            previous=context.previous_generation.number if context.previous_generation else 0,
            hold=context.hold_preemption,
            descriptors=sorted(os.readlink(f"/proc/self/fd/{n}") for n in own_descriptors()),
            modules=len(sys.modules),
        )
        logs.info("speaks")
        if context.withdraw:
            threading.Event().wait(self.plan.get("withdraw_s", 0))
            return 0
        if "exit" in self.mine:
            return int(self.mine["exit"])
        if self.mine.get("crash"):
            raise RuntimeError("told to crash")
        if context.role == Role.CONTROL:
            self.begin_control()
        self.heartbeat.phase = Phase.READY
        while not self.stopping:
            self.heartbeat.tick(monotonic_us())
            self.turn()
            self.burn()
        self.say("stopped", modules=len(sys.modules))
        return int(self.mine.get("stop_status", 0))

    def burn(self) -> None:
        """Use so much processor time before the next tick."""
        end_ns = time.thread_time_ns() + self.burn_ms * 1_000_000
        while time.thread_time_ns() < end_ns:
            pass

    def turn(self) -> None:
        """Wait a moment, then do what is asked."""
        readable = [self.socket] if self.socket else []
        ready = select.select(readable, [], [], TICK_S)[0]
        if ready:
            self.hear()
        path = self.run / f"command.{self.context.role.value}"
        if path.exists():
            command = path.read_text()
            path.unlink()
            self.say("command", command=command)
            self.obey(command)

    def obey(self, command: str) -> None:
        word, _, rest = command.partition(" ")
        match word:
            case "loop":
                while True:
                    pass
            case "sleep":
                while True:
                    signal.pause()
            case "raise":
                raise RuntimeError(rest)
            case "exit":
                os._exit(int(rest))
            case "abort-deaf":
                signal.signal(signal.SIGABRT, signal.SIG_IGN)
                while True:
                    signal.pause()
            case "deaf":
                self.deaf = True
            case "burn":
                self.burn_ms = int(rest)
            case "nonsense":
                assert self.socket is not None
                self.socket.send(b"\xc1 nonsense")
            case "hang-up":
                assert self.socket is not None
                self.socket.close()
                self.socket = None
            case "commit":
                self.commit(int(rest))
            case "commit-and-die":
                self.commit(int(rest))
                os.kill(os.getpid(), signal.SIGKILL)
            case "applied":
                self.send(AllApplied(int(rest)))
            case "finish":
                self.send(ReloadFinished(True, rest))
            case "orphan":
                self.orphan()
            case "threads":
                self.say("threads", count=threading.active_count())
            case _:
                raise AssertionError(command)

    def orphan(self) -> None:
        """A grandchild whose parent ends: it becomes the supervisor's."""
        if os.fork() == 0:
            grandchild = os.fork()
            if grandchild == 0:
                threading.Event().wait(0.2)
                os._exit(5)
            os._exit(0)
        os.wait()

    # control only ------------------------------------------------------------------------------------------

    def begin_control(self) -> None:
        self.socket = socket.socket(fileno=self.context.control_fd)
        if "load_failed" in self.plan:
            self.send(LoadFailed(self.plan["load_failed"], "told to fail"))
        elif self.context.generation is None:
            threading.Event().wait(self.plan.get("load_s", 0))
            self.commit(1)

    def send(self, message: Any, descriptor: int = -1) -> None:
        assert self.socket is not None
        send_with_descriptor(self.socket, message, descriptor)

    def commit(self, number: int) -> None:
        plan = json.loads(Path(self.context.options.config_file).read_text())
        roles = tuple(Role(role) for role in plan.get("roles", []))
        settings = msgspec.convert(plan.get("settings", {}), SupervisorSettings)
        generation = Generation(number=number, source_digest="", slices={}, roles=roles, settings=settings)
        descriptor = seal_generation(generation)
        self.send(CommitGeneration(number, roles, settings), descriptor)
        os.close(descriptor)

    def hear(self) -> None:
        assert self.socket is not None
        data = self.socket.recv(65536)
        if not data:
            self.socket = None
            return
        message = msgspec.msgpack.decode(data, type=SupervisorToControl)
        match message:
            case ProcessTable():
                table = {info.role.value: [info.state, info.pid, info.restarts] for info in message.processes}
                self.say("table", table=table)
            case ReloadRequested():
                self.say("reload")
                self.send(ReloadBegun())
            case Committed():
                self.say("committed", number=message.number)
            case _:
                self.say(type(message).__name__, signum=message.signum)


def own_descriptors() -> list[int]:
    listing = [int(name) for name in os.listdir("/proc/self/fd")]
    return [number for number in listing if number > 2 and os.path.exists(f"/proc/self/fd/{number}")]


def main(context: ChildContext) -> int:
    if context.await_turn is not None:
        context.take_turn()
        begin_life(context)
    return Fake(context).live()


def warm_up() -> None:
    """What would be loaded late."""
    ctypes.CDLL(None)
