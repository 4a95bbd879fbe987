"""The supervisor's end of the socket pair to control: messages in both directions, one sealed memfd."""

from __future__ import annotations

import array
import contextlib
import fcntl
import mmap
import os
import socket
from collections import deque
from collections.abc import Iterator

import msgspec

from kad.errors import KadError
from kad.ipc.messages import ControlToSupervisor, Generation, SupervisorToControl

MESSAGE_LIMIT = 64 * 1024
GENERATION_LIMIT = 512 * 1024 * 1024
QUEUE_LIMIT = 256
"""Messages waiting for a control that does not read. What comes then is dropped: it is hung, and its
successor is told everything anew."""
MESSAGES_A_TURN = 32

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[ControlToSupervisor] = msgspec.msgpack.Decoder(ControlToSupervisor)
_generation_decoder = msgspec.msgpack.Decoder(Generation)
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class ChannelError(KadError):
    """What came is not a message of ours: a defect of control."""


class Channel:
    """One control's life long. Nothing here waits."""

    def __init__(self) -> None:
        kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
        self._socket, self.theirs = socket.socketpair(socket.AF_UNIX, kind)
        self._socket.setblocking(False)
        self._queue: deque[bytes] = deque()
        self.ended = False
        """control has closed its end."""

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def wants_write(self) -> bool:
        return bool(self._queue)

    def send(self, message: SupervisorToControl) -> None:
        """Queue and send what goes. To a control that is gone it goes nowhere: the next one is told anew."""
        if len(self._queue) < QUEUE_LIMIT:
            self._queue.append(_encoder.encode(message))
        self.flush()

    def flush(self) -> None:
        while self._queue:
            try:
                self._socket.send(self._queue[0])
            except BlockingIOError:
                return
            except OSError:
                self._queue.clear()
                return
            self._queue.popleft()

    def receive(self) -> Iterator[tuple[ControlToSupervisor, int]]:
        """Messages that have come, each with its descriptor, which is the caller's, or -1.

        Raises ChannelError at the first that is none.
        """
        for _ in range(MESSAGES_A_TURN):
            try:
                data, descriptor = self._receive_one()
            except (BlockingIOError, ConnectionError):
                return
            if not data:
                self.ended = True
                return
            try:
                message = _decoder.decode(data)
            except msgspec.MsgspecError as error:
                _close(descriptor)
                raise ChannelError(f"control said something that is no message: {error}") from error
            yield message, descriptor

    def close(self) -> None:
        self._socket.close()
        self.theirs.close()

    def _receive_one(self) -> tuple[bytes, int]:
        space = socket.CMSG_SPACE(array.array("i", [0]).itemsize)
        flags = socket.MSG_CMSG_CLOEXEC
        data, ancillary, message_flags, _ = self._socket.recvmsg(MESSAGE_LIMIT, space, flags)
        descriptors = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
        descriptor = descriptors[0] if descriptors else -1
        if message_flags & socket.MSG_TRUNC:
            _close(descriptor)
            raise ChannelError(f"control sent a message of more than {MESSAGE_LIMIT} bytes")
        return data, descriptor


def send_with_descriptor(
    control_end: socket.socket, message: ControlToSupervisor, descriptor: int = -1
) -> None:
    """What control uses on its end; ``descriptor``: the generation's memfd."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
    control_end.sendmsg([_encoder.encode(message)], rights if descriptor >= 0 else [])


def seal_generation(generation: Generation) -> int:
    """A memfd that holds the encoded generation and that nobody can change any more."""
    descriptor = os.memfd_create("kad-generation", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(_encoder.encode(generation))
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_SEAL)
    return descriptor


def read_generation(descriptor: int) -> Generation:
    """The generation in a sealed memfd. Raises ChannelError for anything else."""
    if descriptor < 0:
        raise ChannelError("a commit without its memory")
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        size = os.fstat(descriptor).st_size
        if seals & _SEALS != _SEALS or not 0 < size <= GENERATION_LIMIT:
            raise ChannelError(f"a generation not sealed, or of {size} bytes")
        with mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ) as memory:
            return _generation_decoder.decode(memory)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise ChannelError(f"a generation that cannot be read: {error}") from error


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        with contextlib.suppress(OSError):
            os.close(descriptor)
