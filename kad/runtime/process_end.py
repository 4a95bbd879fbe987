"""The end of a process started here: heard of through a pidfd, looked for where that does not serve."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

LOOK_S = 0.1
"""Between two looks: at a process there was no descriptor for, or one that has ended and is not ours yet."""
_ENDED = os.WEXITED | os.WNOHANG


class ProcessEnd:
    """Waits for a child of this process that nobody else waits for.

    ``on_end(status)`` is called once, from the loop, with its exit status, or the signal that killed it,
    negative. It is reaped after that: till then its number, and that of its group, are nobody else's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, process: int, on_end: Callable[[int], None]) -> None:
        self._loop = loop
        self._process = process
        self._on_end = on_end
        self._timer: asyncio.TimerHandle | None = None
        self._pidfd = -1
        try:
            self._pidfd = os.pidfd_open(process)
        except OSError:
            # It runs, and has to be heard of, though there is no descriptor or memory to be had.
            self._look_later()
        else:
            loop.add_reader(self._pidfd, self._look)

    def close(self) -> None:
        """What becomes of it is nobody's business here any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _look_later(self) -> None:
        self._timer = self._loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        result = os.waitid(os.P_PID, self._process, _ENDED | os.WNOWAIT)
        self.close()
        if result is None:
            # It runs on; or somebody traces it and has not let go of it yet: its pidfd would tell of its end
            # again and again.
            self._look_later()
            return
        exited = result.si_code == os.CLD_EXITED
        self._on_end(result.si_status if exited else -result.si_status)
        os.waitid(os.P_PID, self._process, _ENDED)
