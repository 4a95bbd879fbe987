"""Whether this kernel has IPVS: asks, has the module loaded, and hears of it when it comes or goes later."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable

from kad.kernel.batch import NO_VERDICT, Outcome, RequestQueue
from kad.kernel.genetlink import FamilyMonitor, family_number, family_request
from kad.kernel.ipvs import FAMILY_NAME
from kad.runtime.process_end import ProcessEnd

MODULE = "ip_vs"
_LOADER = "/sbin/modprobe"
_LOADER_PATH = "/proc/sys/kernel/modprobe"
_LOADER_LIMIT_S = 30.0
PAUSE_S = 0.2
ASK_LIMIT = 20
"""Questions in a row that the kernel has no answer to."""


class Presence:
    """``on_number(n)``: IPVS's family number from now on; 0: there is none. The first call ends the
    question of the start; ``why_absent`` then says what came of loading the module.

    ``begin`` once. Make it inside the network namespace that ``requests`` belongs to.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        requests: RequestQueue,
        on_number: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._requests = requests
        self._on_number = on_number
        self.monitor = FamilyMonitor(FAMILY_NAME, self._heard, self._ask)
        self.number = 0
        self.settled = False
        self.why_absent = ""
        self._refused = False
        self._unanswered = 0
        """Questions in a row."""
        self._repetition: asyncio.TimerHandle | None = None
        self._loader: ProcessEnd | None = None
        """modprobe's, while it runs."""
        self._loader_pid = 0
        self._limit: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        self._ask()

    def give_up(self, reason: str) -> None:
        """Instead of :meth:`begin`: there is none for us, whatever the kernel has."""
        self._refused = True
        self.why_absent = reason
        self._settle(0)

    def close(self) -> None:
        self._forget_loader()
        if self._repetition is not None:
            self._repetition.cancel()
        self.monitor.close()

    def _ask(self) -> None:
        if self._repetition is not None:
            self._repetition.cancel()
            self._repetition = None
        self._requests.submit([family_request(FAMILY_NAME)], self._answered)

    def _answered(self, outcomes: list[Outcome]) -> None:
        if outcomes[0].error in NO_VERDICT:
            # No word about IPVS: what was there is there still, and nothing else would bring it back.
            self._unanswered += 1
            if self._unanswered < ASK_LIMIT:
                self._repetition = self._loop.call_later(PAUSE_S, self._ask)
                return
        unanswered, self._unanswered = self._unanswered, 0
        if unanswered == ASK_LIMIT and self.settled:
            return
        number = family_number(outcomes[0])
        if number or self.settled:
            self._heard(number)
        elif self.why_absent:
            self._settle(0)
        elif self._loader is None:
            self._load()

    def _heard(self, number: int) -> None:
        if not self._refused and (number != self.number or not self.settled):
            self._settle(number)

    def _settle(self, number: int) -> None:
        self.number = number
        self.settled = True
        self._on_number(number)

    # The module ------------------------------------------------------------------------------------------

    def _load(self) -> None:
        program = loader()
        try:
            # vfork: cheap whatever the size of this process.
            process = subprocess.Popen(
                [program, "-q", "--", MODULE],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )
        except OSError as error:
            self.why_absent = f"{program}: {error.strerror}"
            self._ask()
            return
        process.returncode = 0
        self._loader_pid = process.pid
        self._loader = ProcessEnd(self._loop, process.pid, self._loaded)
        self._limit = self._loop.call_later(_LOADER_LIMIT_S, self._give_up)

    def _loaded(self, status: int) -> None:
        ended = f"exit status {status}" if status >= 0 else f"signal {-status}"
        self.why_absent = f"{loader()} {MODULE}: {ended}"
        self._forget_loader()
        self._ask()

    def _give_up(self) -> None:
        """Stuck: go on without; when it comes after all the monitor hears of it."""
        assert self._loader is not None
        os.kill(self._loader_pid, signal.SIGKILL)
        self._limit = None

    def _forget_loader(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        if self._loader is not None:
            self._loader.close()
            self._loader = None


def loader() -> str:
    """The program the kernel itself would load modules with."""
    try:
        with open(_LOADER_PATH) as file:
            return file.readline().strip() or _LOADER
    except OSError:
        return _LOADER
