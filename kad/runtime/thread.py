"""Work that may wait, done beside the event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import NoReturn, TypeVar

T = TypeVar("T")


def in_thread(
    loop: asyncio.AbstractEventLoop, name: str, work: Callable[[], T], done: Callable[[T], None]
) -> None:
    """Run ``work``; ``done`` gets its result in the loop.

    What it raises is raised there, and ends the process as any defect does: a thread that went away without
    a word would be waited for in vain, for ever.
    """

    def run() -> None:
        told: Callable[[], None]
        try:
            told = partial(done, work())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is seen
            told = partial(_fail, error)
        try:
            loop.call_soon_threadsafe(told)
        except RuntimeError:
            return  # the loop was closed meanwhile: the process is leaving

    threading.Thread(target=run, name=name, daemon=True).start()


def _fail(error: BaseException) -> NoReturn:
    raise error
