"""Scripts whose end no pidfd tells of as it should.

Somebody traces them (strace -f -p PID): they have ended, but are not ours to reap yet. Or there was no room.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from kad.config.model.script import ScriptCommand
from kad.control.bounded_script import BoundedScript
from kad.notify.runner import ScriptRunner
from kad.track.io.scripts import ScriptProcesses
from kad.track.script import RunScript
from tests.support.limits import no_descriptors
from tests.support.namespaces import poll
from tests.support.tracer import held_by_a_tracer

Report = Callable[[], None]
SCRIPT = ScriptCommand(
    argv=("sleep", "0.3"),
    executable="/bin/sleep",
    uid=os.geteuid(),
    gid=os.getegid(),
    groups=(),
)


class Journal(dict[str, bytes]):
    def write(self, key: str, value: bytes) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


def notification(loop: asyncio.AbstractEventLoop, ended: Report) -> object:
    runner = ScriptRunner(loop, lambda *_: ended(), print, os.environ)
    runner.submit("V", 1, (SCRIPT,))
    return runner


def tracked(loop: asyncio.AbstractEventLoop, ended: Report) -> object:
    scripts = ScriptProcesses(loop, lambda *_: ended(), print, os.environ, Journal(), str)
    scripts.run(RunScript("script", 1, SCRIPT))
    return scripts


def bounded(loop: asyncio.AbstractEventLoop, ended: Report) -> object:
    return BoundedScript(loop, "startup script", SCRIPT, 10_000_000, os.environ, ended)


@pytest.mark.parametrize("start", [notification, tracked, bounded])
def test_a_script_there_was_no_descriptor_left_for_is_heard_of_all_the_same(
    start: Callable[[asyncio.AbstractEventLoop, Report], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []

    def none_left(pid: int) -> int:
        """Between the descriptors that starting it took and this one another thread has taken the last."""
        refused.append(pid)
        with no_descriptors():
            return pidfd_open(pid)

    pidfd_open = os.pidfd_open
    monkeypatch.setattr(os, "pidfd_open", none_left)
    loop = asyncio.new_event_loop()
    ends: list[bool] = []
    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, fault: faults.append(fault))
    kept = start(loop, lambda: ends.append(True))
    poll(lambda: loop.run_until_complete(asyncio.sleep(0.001)) or ends or faults, "the word of its end")
    assert (len(ends), faults) == (1, [])
    assert not psutil.pid_exists(refused[0]), "it is reaped"
    loop.close()
    del kept


@pytest.mark.parametrize("start", [notification, tracked, bounded])
def test_a_traced_script_has_ended_when_its_tracer_lets_go(
    start: Callable[[asyncio.AbstractEventLoop, Report], object],
) -> None:
    before = set(psutil.Process().children())
    loop = asyncio.new_event_loop()
    ends: list[bool] = []
    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, fault: faults.append(fault))
    kept = start(loop, lambda: ends.append(True))

    def turns(seconds: float) -> None:
        loop.run_until_complete(asyncio.sleep(seconds))

    def started() -> list[psutil.Process]:
        turns(0)
        return [each for each in psutil.Process().children() if each not in before]

    script = poll(started, "the script")[0]
    try:
        held = held_by_a_tracer(script.pid)
        with held:
            poll(lambda: script.status() == psutil.STATUS_ZOMBIE, "its end")
            turns(0.05)
            assert not ends
            spent = time.process_time()
            turns(0.4)
            assert time.process_time() - spent < 0.2, "the loop turns without pause"
    except PermissionError as error:
        pytest.skip(f"nobody may trace here: {error}")
    poll(lambda: turns(0.001) or ends, "the word of its end")
    assert len(ends) == 1
    assert not faults
    loop.close()
    del kept
