"""kadctl's end: one question, one answer, no event loop."""

from __future__ import annotations

import fcntl
import os
import socket
import time

import zmq

from kad.errors import KadError
from kad.ipc.codec import MESSAGE_LIMIT, Decoder, encode
from kad.ipc.link import check_path, ctl_path
from kad.ipc.messages import ControlToCtl, ReloadQuery, StatusQuery

REPEAT_S = 1.0
"""An unanswered question is asked again: control may have been reborn meanwhile."""
BIRTH_S = 1.0
"""How long a control that is just being restarted may take to listen again."""


class NoDaemon(KadError):
    """Nobody listens in this run directory."""


class NoAnswer(KadError):
    """Control did not answer in time."""


def ask(run_directory: str, query: StatusQuery | ReloadQuery, limit_s: float) -> ControlToCtl:
    """Put the question to the control of this run directory and wait for its answer.

    Raises :class:`NoDaemon`, :class:`NoAnswer`, or OSError (no permission).
    """
    path = ctl_path(run_directory)
    check_path(path)
    _find(path)
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    try:
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.IMMEDIATE, 1),
            (zmq.RECONNECT_IVL, 1),
            (zmq.MAXMSGSIZE, MESSAGE_LIMIT),
        ):
            dealer.setsockopt(option, value)
        dealer.connect(f"ipc://{path}")
        return _converse(dealer, query, limit_s)
    finally:
        dealer.close(0)
        context.term()


def is_listening(run_directory: str) -> bool:
    """Does a control listen in this run directory now? Raises OSError when we may not know."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(ctl_path(run_directory))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def _find(path: str) -> None:
    """Wait a moment for a control that is being restarted, no moment where there is none."""
    directory = os.path.dirname(path)
    end = time.monotonic() + BIRTH_S
    while not is_listening(directory):
        # A daemon that was stopped, or killed whole, leaves the directory but nobody who holds its lock.
        if not _is_held(directory) or time.monotonic() >= end:
            raise NoDaemon(f"no kad answers in {directory}")
        time.sleep(0.005)


def _is_held(directory: str) -> bool:
    """Does any process hold the run directory's lock (an flock of the file "lock")?"""
    try:
        descriptor = os.open(os.path.join(directory, "lock"), os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _converse(dealer: zmq.Socket[bytes], query: StatusQuery | ReloadQuery, limit_s: float) -> ControlToCtl:
    decoder: Decoder[ControlToCtl] = Decoder(ControlToCtl)
    end = time.monotonic() + limit_s
    ask_at = 0.0
    while (now := time.monotonic()) < end:
        if now >= ask_at:
            ask_at = now + REPEAT_S if _send(dealer, query) else now + 0.005
        if not dealer.poll(max(1, int((min(ask_at, end) - now) * 1000))):
            continue
        answer = decoder.decode(dealer.recv())
        if answer is not None and answer.request == query.request:
            return answer
    raise NoAnswer(f"no answer within {limit_s:g} s")


def _send(dealer: zmq.Socket[bytes], query: StatusQuery | ReloadQuery) -> bool:
    try:
        dealer.send(encode(query), zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True
