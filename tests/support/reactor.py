"""An event loop as the links see it, without a driver, for tests that play both ends in one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class LoopReactor:
    """Hand :attr:`loop` to nobody else; :meth:`until` runs it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(self._fail)
        self.failures: list[BaseException | str] = []

    def add_reader(self, descriptor: int, drain: Callable[[], bool], *, direct: bool = False) -> None:
        def on_readable() -> None:
            while drain():
                pass

        self.loop.add_reader(descriptor, on_readable)

    def remove_reader(self, descriptor: int) -> None:
        self.loop.remove_reader(descriptor)

    def watch_lateness(self, limit_us: int, on_late: Callable[[], None]) -> None:
        """Nobody is late here."""

    def until(self, condition: Callable[[], object], limit: float = 10.0) -> None:
        """Run the loop until ``condition`` holds; fail after ``limit`` seconds."""
        end = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < end, "the condition was not reached in time"
            self.loop.run_until_complete(asyncio.sleep(0.001))
            assert not self.failures, self.failures

    def spin(self, turns: int = 30) -> None:
        """A bounded number of turns, for showing that nothing comes."""
        for _ in range(turns):
            self.loop.run_until_complete(asyncio.sleep(0.001))
        assert not self.failures, self.failures

    def close(self) -> None:
        self.loop.close()

    def _fail(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        self.failures.append(error if isinstance(error, BaseException) else str(context["message"]))
