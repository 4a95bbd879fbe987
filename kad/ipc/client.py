"""kadctl's end: one question, one answer, no event loop."""

from __future__ import annotations

import fcntl
import os
import socket

import zmq

from kad.errors import KadError
from kad.ipc.codec import MESSAGE_LIMIT, Decoder, encode
from kad.ipc.link import check_path, ctl_path
from kad.ipc.messages import ControlToCtl, ReloadQuery, StatusQuery
from kad.runtime.clock import monotonic_us

REPEAT_US = 1_000_000
"""An unanswered question is asked again: control may have been reborn meanwhile."""
BIRTH_US = 1_500_000
"""How long a control that is just being restarted may take to listen again."""
CONNECT_US = 5_000
"""Between two looks whether the connection is there."""


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
        return _converse(dealer, run_directory, query, limit_s)
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


def _converse(
    dealer: zmq.Socket[bytes], directory: str, query: StatusQuery | ReloadQuery, limit_s: float
) -> ControlToCtl:
    """Ask until there is an answer; ``connected_us`` is when a question could last be sent."""
    decoder: Decoder[ControlToCtl] = Decoder(ControlToCtl)
    connected_us = now_us = ask_at_us = monotonic_us()
    end_us = now_us + int(limit_s * 1_000_000)
    while now_us < end_us:
        if now_us >= ask_at_us:
            if _send(dealer, query):
                connected_us, ask_at_us = now_us, now_us + REPEAT_US
            elif now_us - connected_us > BIRTH_US + REPEAT_US or not _may_come(directory):
                raise NoDaemon(f"no kad answers in {directory}")
            else:
                ask_at_us = now_us + CONNECT_US
        if dealer.poll(max(1, (min(ask_at_us, end_us) - now_us) // 1000)):
            answer = decoder.decode(dealer.recv())
            if answer is not None and answer.request == query.request:
                return answer
        now_us = monotonic_us()
    raise NoAnswer(f"no answer within {limit_s:g} s")


def _may_come(directory: str) -> bool:
    """Does control listen, or at least somebody live who would restart it?

    A daemon that was stopped, or killed whole, leaves the directory but nobody who holds its lock.
    """
    return is_listening(directory) or _is_held(directory)


def _send(dealer: zmq.Socket[bytes], query: StatusQuery | ReloadQuery) -> bool:
    """False while there is no connection."""
    try:
        dealer.send(encode(query), zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True
