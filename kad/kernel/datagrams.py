"""Many packets from one socket in one system call: recvmmsg(2), which Python does not have.

A packet costs half as much so as by ``recvmsg_into``, and one call says that there are no more.
"""

from __future__ import annotations

import ctypes
import mmap
import os

BATCH = 64
"""Packets read by one call."""


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("iovec", ctypes.c_void_p),
        ("iovec_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = [("header", _Header), ("length", ctypes.c_uint)]


_libc = ctypes.CDLL(None, use_errno=True)
_STRIDE = ctypes.sizeof(_Message)
_LENGTH_AT = _Message.length.offset // 4


class BatchReader:
    """Buffers for one kind of datagram socket that does not block; every such socket may be read with them.

    After :meth:`read`, packet number ``i`` lies in ``data`` from ``i * data_size`` on; the way it came (what
    the kernel wrote as the sender's address, ``name_size`` bytes, and as ancillary data) in ``ways`` from
    ``i * way_size`` on. Memory is used only as far as packets reach; longer ones are cut.
    """

    def __init__(self, data_size: int, *, name_size: int = 0, control_size: int = 0) -> None:
        self.data_size = data_size
        self.name_size = name_size
        self.way_size = name_size + control_size
        # Mapped, not allocated: pages that no packet reaches are never there.
        self.data = memoryview(mmap.mmap(-1, BATCH * data_size))
        self.ways = memoryview(bytearray(max(1, BATCH * self.way_size)))
        self._iovecs = (_Iovec * BATCH)()
        self._messages = (_Message * BATCH)()
        self._written = 0
        """Bytes of the headers that the kernel wrote to last."""
        self._prepare()
        self._template = bytes(self._messages)
        self._headers = memoryview(self._messages).cast("B")
        self._words = self._headers.cast("I")

    def read(self, descriptor: int, limit: int = BATCH) -> list[int]:
        """Take what has arrived, at most ``limit`` packets: their lengths.

        Raises OSError; BlockingIOError: there is nothing.
        """
        # The kernel writes lengths into the headers.
        written = self._written
        self._headers[:written] = self._template[:written]
        count = _libc.recvmmsg(descriptor, self._messages, min(limit, BATCH), 0, None)
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._written = count * _STRIDE
        return self._words[_LENGTH_AT : count * _STRIDE // 4 : _STRIDE // 4].tolist()

    def _prepare(self) -> None:
        data, ways = (ctypes.addressof(ctypes.c_char.from_buffer(view)) for view in (self.data, self.ways))
        for at in range(BATCH):
            self._iovecs[at].base = data + at * self.data_size
            self._iovecs[at].length = self.data_size
            message = self._messages[at].header
            if self.name_size:
                message.name = ways + at * self.way_size
                message.name_length = self.name_size
            message.iovec = ctypes.addressof(self._iovecs) + at * ctypes.sizeof(_Iovec)
            message.iovec_count = 1
            if self.way_size > self.name_size:
                message.control = ways + at * self.way_size + self.name_size
                message.control_length = self.way_size - self.name_size
