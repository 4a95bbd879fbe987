"""Stories that need nothing of each other, told at the same time, each in namespaces of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def at_once(*acts: Callable[[], T]) -> list[T]:
    """Their results in order. Raises what the first raised that did, once all have ended."""
    with ThreadPoolExecutor(len(acts)) as threads:
        begun = [threads.submit(act) for act in acts]
    return [each.result() for each in begun]
