"""A program: kad as it is, but that an act of one of its processes fails when the test says so.

python -P tests/support/planted_faults.py DIRECTORY kad's arguments ...

A file DIRECTORY/ACT.KIND is the order; who meets it renames it to ACT.taken, leaves ACT.met (monotonic
microseconds), and fails there and then. So a fault is met once, and the life after it is sound. KIND is

loop    an endless loop
error   an exception
kill    kill -9 of the process that acts
toil    1.4 s of work
pause   nothing goes on until the test removes ACT.taken
burn    a tenth of a second of processor time, and all goes on

``tests/support/faulty_daemon.py`` runs it.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

ACTS = {
    "control": ("kad.control.app", "Control", "_begin_status"),
    "vrrp": ("kad_vrrp.io.sockets", "Transports", "send"),
    "check": ("kad_check.io.connect", "Connections", "start"),
    "bfd": ("kad_bfd.io.transports", "Transports", "send"),
    "load": ("kad.control.app", "", "read_candidate"),
    "become": ("kad_vrrp.app", "VrrpChild", "_run_with"),
    "near": ("kad.ipc.near_link", "AcceptingEnd", "send"),
    "links": ("kad_vrrp.io.link_maker", "", "make"),
    "commit": ("kad.control.app", "Control", "_send_commit"),
}
"""Act -> module, class, method. What each role does most: a question for the status, an advertisement, a
check, a BFD packet; news on a direct link; and of a reload: reading the files, what follows the last consent,
and in the VRRP process becoming what was committed, and making interfaces for it, in a thread.
"""
ERROR = "a planted error"
BURNT_S = 0.1
"""Processor time."""


def spin() -> None:
    while True:
        pass


def toil() -> None:
    end_ns = time.thread_time_ns() + 1_400_000_000
    while time.thread_time_ns() < end_ns:
        pass


def pause(order: str) -> None:
    beat = threading.Event()
    while os.path.exists(order):
        beat.wait(0.001)


def burn() -> None:
    until = time.thread_time() + BURNT_S
    while time.thread_time() < until:
        pass


def fail() -> None:
    raise RuntimeError(ERROR)


def meet(directory: str, act: str) -> None:
    """Fail if that is the order."""
    taken = f"{directory}/{act}.taken"
    kinds: dict[str, Callable[[], None]] = {
        "loop": spin,
        "error": fail,
        "toil": toil,
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "pause": lambda: pause(taken),
        "burn": burn,
    }
    for kind, carry_out in kinds.items():
        try:
            os.rename(f"{directory}/{act}.{kind}", taken)
        except FileNotFoundError:
            continue
        with open(f"{directory}/{act}.new", "w") as note:
            note.write(str(time.monotonic_ns() // 1000))
        os.rename(f"{directory}/{act}.new", f"{directory}/{act}.met")
        carry_out()


def planted(sound: Callable[..., Any], directory: str, act: str) -> Callable[..., Any]:
    @functools.wraps(sound)
    def carry_out(*arguments: Any, **named: Any) -> Any:
        meet(directory, act)
        return sound(*arguments, **named)

    return carry_out


def main() -> int:
    directory = sys.argv.pop(1)
    for act, (module, owner, name) in ACTS.items():
        found = import_module(module)
        found = getattr(found, owner) if owner else found
        setattr(found, name, planted(getattr(found, name), directory, act))
    status: int = import_module("kad.cli").main()
    return status


if __name__ == "__main__":
    sys.exit(main())
