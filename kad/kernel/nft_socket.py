"""Carries out nf_tables transactions. It waits for the kernel: for threads of their own, never for a loop.

A transaction that takes something away makes the kernel wait for every processor, for milliseconds.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

from kad.kernel.batch import force_receive_buffer
from kad.kernel.encoder import NLMSG_ERROR, MalformedMessage, answer, messages
from kad.kernel.nftables import Command, Family, table_question, transaction

_NETFILTER = 12
_SO_SNDBUFFORCE = 32
_BUFFER = 8 << 20
"""A transaction is one datagram, and every command of it is answered: thousands of addresses fit."""
_READ_SIZE = 1 << 16
_PATIENCE_S = 10.0


def commit(commands: Sequence[Command]) -> str:
    """All of them or none. "" or why not, for people."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as made:
            made.bind((0, 0))
            made.settimeout(_PATIENCE_S)
            force_receive_buffer(made, _BUFFER)
            _force_send_buffer(made)
            made.sendto(transaction(commands, 1), (0, 0))
            return _judge(made, len(commands))
    except OSError as error:
        return f"nf_tables: {error.strerror or error}"
    except MalformedMessage as error:
        return f"nf_tables: {error}"


def lacks_table(family: Family, name: str) -> bool:
    """Is there surely no such table? False where that cannot be said."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as made:
            made.bind((0, 0))
            made.settimeout(_PATIENCE_S)
            made.sendto(table_question(family, name, 1), (0, 0))
            for reply in messages(made.recv(_READ_SIZE)):
                return reply.kind == NLMSG_ERROR and answer(reply).error == errno.ENOENT
    except (OSError, MalformedMessage):
        pass
    return False


def _force_send_buffer(made: socket.socket) -> None:
    try:
        made.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
    except PermissionError:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)


def _judge(made: socket.socket, count: int) -> str:
    """The answers, one for each command; one to the beginning (number 1) is about all of them."""
    waiting = set(range(2, count + 2))
    while waiting:
        for reply in messages(made.recv(_READ_SIZE)):
            if reply.kind != NLMSG_ERROR:
                continue
            verdict = answer(reply)
            if verdict.error:
                name = errno.errorcode.get(verdict.error, str(verdict.error))
                where = "" if reply.sequence == 1 else f" (command {reply.sequence - 1})"
                return f"nf_tables: {name}: {verdict.text or os.strerror(verdict.error)}{where}"
            waiting.discard(reply.sequence)
    return ""
